"""Subjects and batches for tests: built once a process, since Keras takes seconds to build."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from tfport import data, models, paradigms
from tfport.data.batches import Batches
from tfport.initial import initial_state
from tfport.models.spec import ModelSpec
from tfport.remote import RemoteSubject
from tfport.state import State
from tfport.subject import Subject

SPEC = models.get("vanilla_gan")
BATCH_SIZES = {"dcgan": 8}
"""Smaller batches than the source's, where those would take the tests' time."""


@cache
def spec(model: str) -> ModelSpec:
    """The model's spec, with a small batch where the source's is slow."""
    found = models.get(model)
    if model not in BATCH_SIZES:
        return found
    return dataclasses.replace(found, batching=dataclasses.replace(found.batching, batch_size=BATCH_SIZES[model]))


@cache
def batches(model: str = "vanilla_gan", precision: str = "float32") -> Batches:
    """The first batches of a run on digits."""
    return Batches(spec(model), data.load("digits"), seed=0, precision=precision)


@cache
def subject(model: str, paradigm: str) -> Subject:
    """The paradigm's float32 Subject, shared by a process's tests: load a state before use."""
    return paradigms.build(paradigm, spec(model), "float32", seed=0)


@cache
def remote(model: str, paradigm: str, precision: str) -> RemoteSubject:
    """A Subject in a process of its own, which ends with this one."""
    return RemoteSubject(paradigm, spec(model), precision)


def initial(model: str = "vanilla_gan", precision: str = "float32") -> State:
    """The state that every run of seed 0 starts from."""
    return initial_state(spec(model), 0, precision)


@cache
def warm(model: str = "vanilla_gan", precision: str = "float32") -> State:
    """A state after a few steps: biases are not zero, slots are filled, statistics have moved."""
    side = paradigms.build("gradient_tape", spec(model), precision)
    side.load(initial(model, precision))
    for step in range(3):
        side.step(batches(model, precision)[step])
    return side.state()


def differing(left: State, right: State) -> list[str]:
    """The names whose bits differ, or that only one side has."""
    names = left.arrays.keys() | right.arrays.keys()
    return sorted(
        name
        for name in names
        if name not in left.arrays
        or name not in right.arrays
        or left.arrays[name].tobytes() != right.arrays[name].tobytes()
        or np.asarray(left.arrays[name]).dtype != right.arrays[name].dtype
    )
