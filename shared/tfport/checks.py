"""What of a spec and its data cannot be computed, refused before anything is built."""

from __future__ import annotations

from tfport.data.batches import Batches
from tfport.errors import UserError
from tfport.models.spec import BatchNorm


def check_batches(batches: Batches) -> Batches:
    """The batches, when the model can take each of them.

    Raises:
      UserError: a batch would hold one image, and the model feeds an unbiased variance, n / (n - 1), to its statistics.
    """
    spec, size = batches.spec, batches.batch_size
    unbiased = [
        f"{network.name}/{layer.name}"
        for network in spec.networks
        for layer in network.layers
        if isinstance(layer, BatchNorm) and layer.unbiased
    ]
    kept = spec.batching.draw == "permutation" and spec.batching.last_batch == "keep"
    rest = len(batches.images) % size if kept else 0
    if unbiased and 1 in (size, rest):
        which = "every batch" if size == 1 else "an epoch's last batch"
        raise UserError(
            f"--batch_size={size} makes {which} of the {len(batches.images):,} images hold a single one, and "
            f"{unbiased[0]} of {spec.name} needs at least two for its variance: give another --batch_size."
        )
    return batches
