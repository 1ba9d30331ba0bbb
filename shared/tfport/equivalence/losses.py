"""What a step reports, recomputed from outputs in float64, independently of every paradigm's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfport.models.infogan import CODE_WEIGHT
from tfport.models.spec import ModelSpec
from tfport.models.torch_gan import LOG_FLOOR

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]
Modes = Mapping[str, Outputs]
"""Mode ("training", "inference") -> its named outputs."""
Formula = Callable[[Modes, Outputs], float]
"""(outputs by mode, batch) -> the reported number."""

_ULPS = 64
"""How many units in the last place an output may be off: sums over hundreds of products, each rounded."""


def _log(probability: Array, floor: float = -np.inf) -> Array:
    with np.errstate(divide="ignore"):
        values: Array = np.maximum(np.log(probability), floor)
    return values


def _weighted_log(weight: Array, probability: Array) -> Array:
    """weight * log(probability), and 0 where the weight is 0, whatever the probability."""
    values: Array = np.multiply(weight, _log(probability), out=np.zeros(probability.shape), where=weight != 0)
    return values


def _softplus(logit: Array) -> Array:
    values: Array = np.logaddexp(0.0, logit)
    return values


def _log_softmax(logits: Array) -> Array:
    values: Array = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return values


def _mean_log(mode: str, output: str, of: str = "p", sign: float = -1.0, floor: float = -np.inf) -> Formula:
    """sign * mean(log p), or of 1 - p, of one named output [B, 1] of probabilities."""

    def formula(modes: Modes, _: Outputs) -> float:
        probability = modes[mode][output]
        return sign * float(np.mean(_log(probability if of == "p" else 1 - probability, floor)))

    return formula


def _accuracy(mode: str, output: str, real: bool) -> Formula:
    """Share of one named output [B, 1] of probabilities on the right side of one half."""

    def formula(modes: Modes, _: Outputs) -> float:
        return float(np.mean((modes[mode][output] > 0.5) == real))

    return formula


def _sum(*parts: Formula) -> Formula:
    return lambda modes, batch: sum(part(modes, batch) for part in parts)


def _mean(mode: str, output: str, of: Callable[[Array], Array]) -> Formula:
    return lambda modes, _: float(np.mean(of(modes[mode][output])))


_REAL, _FAKE, _FRESH = (f"discriminator/output/{which}" for which in ("real", "fake", "fresh"))


def _half_steps(generated: str) -> dict[str, Formula]:
    """The Keras notes' GANs: D on real, D on fakes from G in inference mode, G in training mode."""
    return {
        "loss_D_real": _mean_log("training", _REAL),
        "accuracy_D_real": _accuracy("training", _REAL, True),
        "loss_D_fake": _mean_log("inference", _FAKE, "1 - p"),
        "accuracy_D_fake": _accuracy("inference", _FAKE, False),
        "loss_G": _mean_log("training", generated),
    }


def _reconstruction(modes: Modes, batch: Outputs) -> float:
    return float(np.mean((batch["images"] - modes["training"]["decoder/output"]) ** 2))


def _variational(modes: Modes, batch: Outputs) -> float:
    found = modes["training"]
    target, made = batch["images"], found["decoder/output"]
    mean, log_variance = found["encoder/mean"], found["encoder/log_variance"]
    entropy = -np.mean(_weighted_log(target, made) + _weighted_log(1 - target, 1 - made))
    divergence = -0.5 * np.sum(1 + log_variance - np.exp(log_variance) - mean**2, axis=-1)
    return float(entropy + np.mean(divergence) / target.shape[1])


def _information(modes: Modes, batch: Outputs) -> float:
    found = modes["training"]
    category = -np.mean(np.sum(batch["category"] * _log_softmax(found["recognition/category"]), axis=-1))
    codes = np.mean(0.5 * np.sum((batch["codes"] - found["recognition/codes"]) ** 2, axis=-1))
    return float(category + CODE_WEIGHT * codes)


_ON_LOGITS: dict[str, Formula] = {
    "loss_D": _sum(_mean("training", _REAL, lambda logit: _softplus(-logit)), _mean("training", _FAKE, _softplus)),
    "loss_G": _mean("training", _FAKE, lambda logit: _softplus(-logit)),
}
_NORMED_REAL, _NORMED_FAKE, _NORMED_FRESH = (
    f"discriminator/output_norm/{which}" for which in ("real", "fake", "fresh")
)

RECOMPUTE: dict[str, dict[str, Formula]] = {
    "vanilla_gan": {
        "loss_D": _sum(
            _mean_log("training", _REAL, sign=1.0),
            _mean_log("training", _FAKE, "1 - p", sign=1.0),
        ),
        "loss_G": _mean_log("training", _FAKE, sign=1.0),
    },
    "batchnorm_gan": _half_steps(_FAKE),
    "leaky_gan": _half_steps(_FAKE),
    "leaky_gan_shallow": _half_steps(_FAKE),
    "leaky_gan_slope02": _half_steps(_FRESH),
    "dcgan": _half_steps(_FRESH),
    "torch_gan": {
        "loss_D": _sum(
            _mean_log("training", _NORMED_REAL, floor=LOG_FLOOR),
            _mean_log("training", _NORMED_FAKE, "1 - p", floor=LOG_FLOOR),
        ),
        "loss_G": _mean_log("training", _NORMED_FRESH, floor=LOG_FLOOR),
    },
    "torch_gan_l2": {
        "loss_D": _sum(
            _mean("training", _NORMED_REAL, lambda made: (made - 1) ** 2),
            _mean("training", _NORMED_FAKE, lambda made: made**2),
        ),
        "loss_G": _mean("training", _NORMED_FRESH, lambda made: (made - 1) ** 2),
    },
    "autoencoder": {"loss": _reconstruction},
    "vae": {"loss": _variational},
    "conditional_gan": _ON_LOGITS,
    "infogan": {**_ON_LOGITS, "loss_I": _information},
}
"""Model -> report -> how it follows from named outputs and the batch."""


def recomputed(spec: ModelSpec, report: str, modes: Modes, batch: Outputs) -> tuple[float, float]:
    """A reported number, and a bound on what rounding of the outputs can do to it; 0 where it is not finite.

    The bound is how far the number moves when every output is moved by 64 units in its last place either way, plus as
    many units in the last place of the number for its own sum.

    Raises:
      KeyError: no formula stands here for that model and report, or an output is missing.
    """
    formula = RECOMPUTE[spec.name][report]
    epsilon = max(float(np.finfo(array.dtype).eps) for outputs in modes.values() for array in outputs.values())
    wide = {mode: _each(outputs, lambda array: array.astype(np.float64)) for mode, outputs in modes.items()}
    fed = _each(batch, lambda array: array.astype(np.float64))
    value = formula(wide, fed)
    if not np.isfinite(value):
        return value, 0.0  # with an infinite bound every reported loss would agree
    bound = 0.0
    for sign in (-1, 1):
        factor = 1 + sign * _ULPS * epsilon
        shifted = formula({mode: _each(outputs, _scaled_by(factor)) for mode, outputs in wide.items()}, fed)
        if np.isfinite(shifted):
            bound = max(bound, abs(shifted - value))
    return value, bound + _ULPS * epsilon * max(1.0, abs(value))


def _each(arrays: Outputs, change: Callable[[Array], Array]) -> dict[str, Array]:
    return {name: change(array) for name, array in arrays.items()}


def _scaled_by(factor: float) -> Callable[[Array], Array]:
    """A change that multiplies by `factor`; probabilities stay probabilities."""

    def scaled(array: Array) -> Array:
        bounded = array.size > 0 and array.min() >= 0 and array.max() <= 1
        return np.clip(array * factor, 0, 1) if bounded else array * factor

    return scaled
