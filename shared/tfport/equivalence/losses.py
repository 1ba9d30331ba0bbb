"""Losses recomputed from outputs, in float64, independently of every paradigm's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]

_ULPS = 64
"""How many units in the last place an output may be off: sums over hundreds of products, each rounded."""


def _log(probability: Array) -> Array:
    with np.errstate(divide="ignore"):
        values: Array = np.log(probability)
    return values


def maximised_log_d(outputs: Outputs) -> float:
    """mean(log D(x) + log(1 - D(G(z)))) from `discriminator/output/real` and `.../fake`, each [B, 1]."""
    real, fake = (outputs[f"discriminator/output/{kind}"].astype(np.float64) for kind in ("real", "fake"))
    return float(np.mean(_log(real) + _log(1 - fake)))


def maximised_log_g(outputs: Outputs) -> float:
    """mean(log D(G(z))) from `discriminator/output/fake` [B, 1]."""
    return float(np.mean(_log(outputs["discriminator/output/fake"].astype(np.float64))))


RECOMPUTE: dict[tuple[str, str], Callable[[Outputs], float]] = {
    ("vanilla_gan", "discriminator"): maximised_log_d,
    ("vanilla_gan", "generator"): maximised_log_g,
}
"""(model, phase) -> its loss from named outputs."""


def recomputed(model: str, phase: str, outputs: Outputs) -> tuple[float, float]:
    """The loss, and a bound on what rounding of the outputs can do to it; 0 where the loss is not finite.

    The bound is how far the loss moves when every output is moved by 64 units in its last place either way, plus as
    many units in the last place of the loss for its own sum.

    Raises:
      KeyError: no formula stands here for that model and phase, or an output is missing.
    """
    formula = RECOMPUTE[model, phase]
    value = formula(outputs)
    if not np.isfinite(value):
        return value, 0.0  # with an infinite bound every reported loss would agree
    bound = 0.0
    epsilon = float(np.finfo(next(iter(outputs.values())).dtype).eps)
    for sign in (-1, 1):
        factor = 1 + sign * _ULPS * epsilon
        moved = {name: np.clip(array.astype(np.float64) * factor, 0, 1) for name, array in outputs.items()}
        shifted = formula(moved)
        if np.isfinite(shifted):
            bound = max(bound, abs(shifted - value))
    return value, bound + _ULPS * epsilon * max(1.0, abs(value))
