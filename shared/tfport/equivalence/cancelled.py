"""Biases right before a batch normalisation: what of them is rounding alone, and on which scale to look at it.

In training mode the normalisation takes such a bias away again. Its gradient is 0 in exact arithmetic; what is computed
is the rounding of sums of the size of its kernel's gradient. On its own scale that noise would differ wholly in every
precision, so the kernel's is taken. Adam then divides the noise by its own size and by epsilon at least: a step moves
the bias by up to rate / epsilon times the noise, and the moving mean behind it follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfport.models.spec import Adam, ModelSpec
from tfport.state import slot_name

Array = np.ndarray[Any, Any]


def of_gradients(spec: ModelSpec, gradients: Mapping[str, Array]) -> dict[str, float]:
    """Cancelled bias -> the least scale on which its gradient is measured."""
    found = {}
    for bias in spec.cancelled():
        if bias in gradients and _kernel(bias) in gradients:
            found[bias] = _largest(gradients[_kernel(bias)])
    return found


def of_state(spec: ModelSpec, arrays: Mapping[str, Array], steps: int) -> dict[str, float]:
    """Name -> the least scale, for cancelled biases, their slots, and the moving means behind them.

    Args:
      spec: the model's facts.
      arrays: the legacy side's state.
      steps: how many steps both sides have gone by themselves.
    """
    found: dict[str, float] = {}
    for bias, moving_mean in spec.cancelled().items():
        for name, numbers in spec.optimizers:
            slots = {slot: slot_name(name, slot, _kernel(bias)) for slot in numbers.slots}
            if not all(each in arrays for each in slots.values()):
                continue
            for slot, of_kernel in slots.items():
                found[slot_name(name, slot, bias)] = _largest(arrays[of_kernel])
            if isinstance(numbers, Adam):
                gradient, smallest = _largest(arrays[slots["m"]]), numbers.epsilon
            else:
                gradient, smallest = math.sqrt(_largest(arrays[slots["rms"]])), math.sqrt(numbers.epsilon)
            found[bias] = found[moving_mean] = steps * gradient * numbers.learning_rate / smallest
    return found


def _kernel(bias: str) -> str:
    return f"{bias.removesuffix('/bias')}/kernel"


def _largest(array: Array) -> float:
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max(initial=0.0))
