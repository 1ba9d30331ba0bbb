"""Biases right before a batch normalisation: what of them is rounding alone, and on which scale to look at it.

In training mode the normalisation takes such a bias away again. Its gradient is 0 in exact arithmetic; what is computed
is the rounding of sums of the size of its kernel's gradient. On its own scale that noise would differ wholly in every
precision, so the kernel's is taken: the sum over what comes into one output, as a bias is one input of many. Adam then
divides the noise by its own size, and by epsilon at least: a step moves the bias by rate / epsilon times it at most,
and the moving mean behind it follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfport import randomness
from tfport.models.spec import Adam, ModelSpec
from tfport.state import State, slot_name

Array = np.ndarray[Any, Any]

_DISTURBANCE = 0.1
"""Deviation by which cancelled biases are moved in the warm state."""


def of_gradients(spec: ModelSpec, gradients: Mapping[str, Array]) -> dict[str, float]:
    """Cancelled bias -> the least scale on which its gradient is measured."""
    found = {}
    for bias in spec.cancelled():
        if bias in gradients and _kernel(bias) in gradients:
            found[bias] = _scale(gradients[_kernel(bias)], gradients[bias])
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
                found[slot_name(name, slot, bias)] = _scale(arrays[of_kernel], arrays[bias])
            if isinstance(numbers, Adam):
                gradient, smallest = _scale(arrays[slots["m"]], arrays[bias]), numbers.epsilon
            else:
                gradient = _scale(np.sqrt(arrays[slots["rms"]]), arrays[bias])
                smallest = math.sqrt(numbers.epsilon)
            found[bias] = found[moving_mean] = steps * gradient * numbers.learning_rate / smallest
    return found


def disturbed(spec: ModelSpec, state: State) -> State:
    """The state with every cancelled bias moved by N(0, .1): nothing in training would ever move it so far."""
    arrays = dict(state.arrays)
    for bias in spec.cancelled():
        if bias in arrays:
            drawn = randomness.normal(0, f"disturbed/{bias}", 0, arrays[bias].shape) * np.float32(_DISTURBANCE)
            arrays[bias] = arrays[bias] + drawn.astype(arrays[bias].dtype)
    return State(state.model, arrays)


def _kernel(bias: str) -> str:
    return f"{bias.removesuffix('/bias')}/kernel"


def _scale(kernel: Array, bias: Array) -> float:
    """The sum of magnitudes over all that comes into an output, on average over the outputs."""
    finite = kernel[np.isfinite(kernel)]
    return float(np.abs(finite).sum(dtype=np.float64)) / bias.size
