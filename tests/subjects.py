"""Subjects and batches for tests: built once a process, since Keras takes seconds to build."""

from __future__ import annotations

from functools import cache

import numpy as np

from tfport import data, models, paradigms
from tfport.data.batches import Batches
from tfport.initial import initial_state
from tfport.remote import RemoteSubject
from tfport.state import State
from tfport.subject import Subject

SPEC = models.get("vanilla_gan")


@cache
def batches(precision: str = "float32") -> Batches:
    """The first batches of a run on digits."""
    return Batches(SPEC, data.load("digits"), seed=0, precision=precision)


@cache
def subject(paradigm: str) -> Subject:
    """The paradigm's float32 Subject, shared by a process's tests: load a state before use."""
    return paradigms.build(paradigm, SPEC, "float32", seed=0)


@cache
def remote(paradigm: str, precision: str) -> RemoteSubject:
    """A Subject in a process of its own, which ends with this one."""
    return RemoteSubject(paradigm, SPEC, precision)


def initial(precision: str = "float32") -> State:
    """The state that every run of seed 0 starts from."""
    return initial_state(SPEC, 0, precision)


@cache
def warm(precision: str = "float32") -> State:
    """A state after a few steps: biases are not zero, slots are filled."""
    side = paradigms.build("gradient_tape", SPEC, precision)
    side.load(initial(precision))
    for step in range(3):
        side.step(batches(precision)[step])
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
