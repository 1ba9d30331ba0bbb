"""The state from which every paradigm starts."""

from __future__ import annotations

from tfport import randomness, state
from tfport.models.spec import ModelSpec


def initial_state(spec: ModelSpec, seed: int, precision: str) -> state.State:
    """The state from which every paradigm starts a run: weights by (seed, name), slots and counters zero."""
    weights = randomness.initial_weights(spec, seed, precision)
    held = {name: spec.held(name) for name, _ in spec.optimizers}
    slots = {name: numbers.slots for name, numbers in spec.optimizers}
    return state.fresh(spec.name, weights, held, slots)
