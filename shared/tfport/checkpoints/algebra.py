"""The arithmetic between the frameworks' optimizer states: counts, beta powers, momentum.

All slots of `tfport.checking.slots` mean the same number everywhere but one: Keras's momentum keeps
`velocity = -rate * accumulator` (Keras 2 and 3, plain and Nesterov), where TF1 and PyTorch keep the accumulator. Going
from one to the other multiplies or divides by the rate, one rounding each way, and is only right while both sides' rate
is the same number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfport import adam
from tfport.checkpoints.contents import CHUNK, Array, Bytes, numpy_dtype, pieces
from tfport.errors import CheckpointError

BETAS = (0.9, 0.999, 0.5, 0.0, 0.99, 0.95, 0.98, 0.8, 0.85, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1, 0.995, 0.9999, 0.997, 0.9995)
"""The betas that are tried where no number is recorded, in the order of how usual they are."""


def velocity_factor(convention: str, algorithm: str | None, slot: str, rate: float | None) -> float | None:
    """What a native slot is the canonical one times; None where it is the same bits.

    Args:
      convention: "tf1", "keras" or "torch".
      algorithm: the optimizer's, in the terms of `tfport.checking.slots`; None where it is not known.
      slot: the canonical slot.
      rate: the learning rate.

    Raises:
      CheckpointError: the factor is the rate, and the rate is not known or zero.
    """
    if convention != "keras" or slot != "accumulator" or algorithm not in ("Momentum", "Nesterov"):
        return None
    if not rate:
        raise CheckpointError(
            "Keras keeps momentum multiplied by the learning rate, and the rate is "
            f"{'zero' if rate == 0 else 'not recorded'}; give it: --learning_rate=RATE."
        )
    return -rate


def scaled(chunks: Iterator[Bytes], dtype: str, times: float, over: float) -> Iterator[Bytes]:
    """A streamed tensor times one number over another, computed in float64 and rounded once."""
    kind = numpy_dtype(dtype)
    for values in _whole_elements(chunks, kind):
        # + 0.0, since nothing times a negative number would be a negative nothing.
        yield from pieces((values.astype(np.float64) * times / over + 0.0).astype(kind))


def cast(chunks: Iterator[Bytes], before: str, after: str) -> Iterator[Bytes]:
    """A streamed tensor in another dtype."""
    kind = numpy_dtype(after)
    for values in _whole_elements(chunks, numpy_dtype(before)):
        with np.errstate(over="ignore"):
            yield from pieces(values.astype(kind))


def transposed(array: Array, order: tuple[int, ...]) -> Iterator[Bytes]:
    """An array's elements with its axes in another order, a slab at a time: no second copy of the whole is made."""
    view = array.transpose(order)
    if not view.ndim or not view.size:
        yield from pieces(view)
        return
    rows = max(1, CHUNK // max(1, view[0].nbytes))
    for start in range(0, len(view), rows):
        yield from pieces(view[start : start + rows])


def _whole_elements(chunks: Iterator[Bytes], dtype: np.dtype[Any]) -> Iterator[Array]:
    """Pieces of bytes as arrays; a piece may end within an element."""
    rest = b""
    for chunk in chunks:
        data = bytes(chunk) if not rest else rest + bytes(chunk)
        end = len(data) - len(data) % dtype.itemsize
        rest = data[end:]
        if end:
            yield np.frombuffer(data[:end] if rest else data, dtype)


# --- Adam's count -----------------------------------------------------------------------------------------------------
def count_of_powers(powers: Mapping[str, Array], betas: Mapping[str, float]) -> tuple[int, dict[str, float], str]:
    """The count of steps that made Adam's beta powers.

    Args:
      powers: "beta_1" and "beta_2", or one of them -> the scalar that is stored.
      betas: the recorded betas by the same names; those that are missing are looked for among usual ones, and found
        only when they give the stored number exactly.

    Returns:
      The count, the betas, and how they were found, for a person.

    Raises:
      CheckpointError: no count fits, or several do.
    """
    candidates: dict[str, dict[float, set[int] | None]] = {}
    for name, power in powers.items():
        # A float64 power may have been made with the beta that TF1 keeps in float32.
        tried = [each for beta in ([betas[name]] if name in betas else BETAS) for each in _both(beta, power)]
        candidates[name] = {beta: counts for beta in tried if (counts := _counts(beta, power)) is not Ellipsis}
        if not candidates[name]:
            raise CheckpointError(
                f"the power of {name} is {float(power)!r}, which no count of steps gives with "
                + (f"{name} = {betas[name]!r}" if name in betas else "any usual beta")
                + f"; if the optimizer had another, give it: --{name}=NUMBER; else the checkpoint is damaged."
            )
    chosen: list[dict[str, float]] = [{}]
    for name, found in candidates.items():
        chosen = [{**one, name: beta} for one in chosen for beta in found]
    fits: list[tuple[int, dict[str, float]]] = []
    worn: list[tuple[int, dict[str, float]]] = []
    for one in chosen:
        sets = [counts for name, beta in one.items() if (counts := candidates[name][beta]) is not None]
        ends = [_last(beta, powers[name]) for name, beta in one.items() if candidates[name][beta] is None]
        if sets:
            fits += [(count, one) for count in set.intersection(*sets) if all(count >= end for end in ends)]
        else:
            worn.append((max(ends), one))
    recorded = all(name in betas for name in powers)
    fits = fits or (worn if recorded else [])
    counts_found = {count for count, _ in fits}
    if len(counts_found) != 1:
        held = ", ".join(f"{name} {float(power)!r}" for name, power in powers.items())
        what = "several counts of steps give" if worn or fits else "no count of steps gives both of"
        raise CheckpointError(f"{what} the powers {held}; give the betas: --beta_1=NUMBER --beta_2=NUMBER.")
    count = counts_found.pop()
    sure = {name: beta for name, beta in fits[0][1].items() if all(one[name] == beta for _, one in fits)}
    how = "from the beta powers"
    if not recorded:
        how += f" ({', '.join(f'{name} {beta:g}' for name, beta in sure.items())}: no other usual beta gives them)"
    if fits is worn:
        how += f"; both have underflowed: {count:,} is the least it can be, and every later count acts alike"
    return count, sure, how


def _both(beta: float, power: Array) -> list[float]:
    single = float(np.float32(beta))
    return [beta] if np.asarray(power).dtype != np.float64 or single == beta else [beta, single]


def _counts(beta: float, power: Array) -> Any:
    """The counts that give a power; None for any from the underflow on; Ellipsis for none."""
    if beta == 0.0:
        return None if float(power) == 0.0 else ...
    try:
        count = adam.iterations(beta, np.asarray(power)[()])
    except CheckpointError:
        return ...
    return None if count >= _last(beta, power) else {count}


def _last(beta: float, power: Array) -> int:
    """The first count from which on the power stays as it is."""
    if beta == 0.0:
        return 0
    dtype = np.asarray(power).dtype.name
    low, high = 0, 1 << 21
    end = adam.beta_power(beta, high, dtype)
    while low < high:
        middle = (low + high) // 2
        if adam.beta_power(beta, middle, dtype) == end:
            high = middle
        else:
            low = middle + 1
    return low
