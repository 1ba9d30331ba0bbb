"""Sides and batches for `tfport check` by name, in plain numpy: working ones, and such as people get wrong."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import fake_program
from fake_program import ADAM, SGD, FakeProgram, Phase, Plan
from tfport.errors import UserError
from tfport.program import Array, Batch

RENAMED = {"hidden/kernel": "dense/w", "hidden/bias": "dense/b", "output/kernel": "last/w", "output/bias": "last/b"}
WHOLE = Plan(
    optimizers=(SGD, ADAM),
    phases=(Phase("first", "sgd", ("hidden",)), Phase("second", "adam", ("hidden", "output"))),
    dropout=0.3,
    noise=0.1,
    normalised=True,
    no_gradient=("hidden/bias",),
)


# --- Sides that work --------------------------------------------------------------------------------------------------
def legacy(seed: int = 0) -> FakeProgram:
    return FakeProgram(seed=seed)


def modern(seed: int = 0) -> FakeProgram:
    """Equal to `legacy`, under other names."""
    return FakeProgram(Plan(names=RENAMED), seed=seed)


def whole(dtype: str = "float32", seed: int = 0) -> FakeProgram:
    """Two phases, statistics, draws, and a variable without a gradient."""
    return FakeProgram(WHOLE, dtype, seed)


def hiding() -> FakeProgram:
    return FakeProgram(Plan(hides=("loss", "gradients"), reinitialised=False))


def of_keras2(seed: int = 0) -> FakeProgram:
    """Raises as tf.layers does where Keras 2 is not behind TensorFlow's names."""
    if os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        raise AttributeError("`dense` is not available with Keras 3.")
    return FakeProgram(seed=seed)


# --- Sides that differ ------------------------------------------------------------------------------------------------
def shifted(seed: int = 0) -> FakeProgram:
    """Biases that begin elsewhere."""
    return FakeProgram(Plan(names=RENAMED, bias=0.5), seed=seed)


def wider() -> FakeProgram:
    """Shapes that have no partner."""
    layers = (fake_program.Layer("hidden", 4, 7, "tanh"), fake_program.Layer("output", 7, 2))
    return FakeProgram(Plan(layers=layers))


def restarting() -> FakeProgram:
    """Slots begin anew now and then, by the optimizer's count."""
    return FakeProgram(Plan(restarts="count"))


def restarting_by_a_global() -> FakeProgram:
    """The same by a global of the module, which a process of its own begins anew."""
    return FakeProgram(Plan(restarts="shared"))


def not_a_number() -> FakeProgram:
    return FakeProgram(Plan(not_a_number="output/kernel"))


def double() -> FakeProgram:
    return FakeProgram(precision="float64")


# --- Factories that are wrong -----------------------------------------------------------------------------------------
not_a_function = 3


def raising() -> None:
    raise ValueError("no such thing\nas a model")


def refusing() -> None:
    raise UserError("the data is not there")


def nothing() -> None:
    """Returns nothing, and builds nothing."""


def number() -> int:
    return 3


def needing(path: str, width: int, *, depth: int = 2) -> str:
    return path


def leaving() -> None:
    sys.exit("enough")


def ending() -> None:
    print("the last words", file=sys.stderr, flush=True)
    os._exit(7)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def asking() -> str:
    """Would wait for ever, were it not told that nobody answers."""
    return input("which model? ")


def loud(seed: int = 0) -> FakeProgram:
    """Works, and says so."""
    for _ in range(1_000):
        print("NOISE " * 20)
    os.write(1, b"NOISE from below\n")
    os.write(2, b"NOISE from below\n")
    warnings.warn("NOISE as a warning", stacklevel=1)
    return _Loud(seed=seed)


class _Loud(FakeProgram):
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        print("NOISE in a step")
        return super().run_phase(phase, batch)


# --- Programs that go wrong later -------------------------------------------------------------------------------------
class _Broken(FakeProgram):
    """Raises, exits or dies in its third step."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.steps = how, 0

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        self.steps += 1
        if self.steps == 3:
            if self.how == "raises":
                raise ZeroDivisionError("nothing to divide by")
            if self.how == "leaves":
                sys.exit(5)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run_phase(phase, batch)


def raising_later() -> FakeProgram:
    return _Broken("raises")


def leaving_later() -> FakeProgram:
    return _Broken("leaves")


def killed_later() -> FakeProgram:
    return _Broken("dies")


class _Refusing(FakeProgram):
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        raise UserError("nothing is an output")


def refusing_later() -> FakeProgram:
    return _Refusing()


class _Slow(FakeProgram):
    """Tells in the file that TFPORT_TEST_STARTED names that it is in a step, and stays there."""

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        Path(os.environ["TFPORT_TEST_STARTED"]).write_text(str(os.getpid()))
        time.sleep(600)
        return super().run_phase(phase, batch)


def slow() -> FakeProgram:
    return _Slow()


# --- Batches ----------------------------------------------------------------------------------------------------------
def batches(step: int) -> dict[str, Array]:
    return fake_program.batches(step)


def loud_batches(step: int) -> dict[str, Array]:
    print("NOISE from batches")
    os.write(2, b"NOISE from below\n")
    warnings.warn("NOISE as a warning", stacklevel=1)
    return batches(step)


def raising_batches(step: int) -> dict[str, Array]:
    raise KeyError("no data")


def leaving_batches(step: int) -> dict[str, Array]:
    sys.exit("no data")


def number_batches(step: int) -> Any:
    return 3


def two_batches(first: int, second: int) -> dict[str, Array]:
    return batches(first + second)


def other_names(step: int) -> dict[str, Array]:
    return {"pixels": np.zeros((5, 9), np.float32)}


def other_names_later(step: int) -> dict[str, Array]:
    return batches(step) if step < 2 else other_names(step)


def other_shapes(step: int) -> dict[str, Array]:
    return {"x": np.zeros((5, 3), np.float32), "y": np.zeros((5, 2), np.float32)}


def other_shapes_later(step: int) -> dict[str, Array]:
    return batches(step) if step < 2 else other_shapes(step)


def strings(step: int) -> dict[str, Any]:
    return {"x": np.array([["a", "b", "c", "d"]]), "y": np.zeros((1, 2), np.float32)}


def ragged(step: int) -> dict[str, Any]:
    return {"x": [[1.0, 2.0], [3.0]], "y": [1.0]}


def no_examples(step: int) -> dict[str, Array]:
    return {"x": np.zeros((0, 4), np.float32), "y": np.zeros((0, 2), np.float32)}


def no_entries(step: int) -> dict[str, Array]:
    return {}


def no_batches() -> list[dict[str, Array]]:
    return []


def nan_batches(step: int) -> dict[str, Array]:
    return {"x": np.full((5, 4), np.nan, np.float32), "y": np.zeros((5, 2), np.float32)}
