"""Short runs on the digits, and a Subject of numpy alone where the framework does not matter."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfport import models, paradigms
from tfport.errors import CheckpointError
from tfport.models.spec import ModelSpec
from tfport.state import State, read, write
from tfport.subject import Array, Batch, OptimizerInfo, Subject, VariableInfo
from tfport.training.config import RunConfig, defaults
from tfport.training.loop import train

PARADIGMS = ("tf1_graph", "gradient_tape", "keras2", "keras3")
WHOLE, HALF = 6, 4
"""Steps of an unbroken run, and of one that is stopped and goes on."""

Configure = Callable[..., RunConfig]
Contents = Callable[[Path], dict[str, bytes]]


def _configure(run_dir: Path, paradigm: str = "gradient_tape", model: str = "vanilla_gan", **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "steps": WHOLE,
        "batch_size": 20,
        "seed": 3,
        "log_every": 1,
        "sample_every": 2,
        "checkpoint_every": 2,
    }
    return defaults(model, paradigm, run_dir=str(run_dir), **{**settings, **changes})


@pytest.fixture
def configure() -> Configure:
    """configure(run_dir, paradigm, model, **changes): the configuration of a run of six steps."""
    return _configure


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """unbroken(paradigm): the directory of a run of six steps in one piece; not to be written into."""
    done: dict[str, Path] = {}

    def run(paradigm: str) -> Path:
        if paradigm not in done:
            path = tmp_path_factory.mktemp("unbroken") / paradigm
            train(_configure(path, paradigm))
            done[paradigm] = path
        return done[paradigm]

    return run


@pytest.fixture
def copy_of(unbroken: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """copy_of(paradigm): a copy of the unbroken run, to damage."""

    def copy(paradigm: str = "gradient_tape") -> Path:
        target = tmp_path / f"copy of {paradigm}"
        shutil.copytree(unbroken(paradigm), target)
        return target

    return copy


@pytest.fixture
def contents() -> Contents:
    """contents(folder): relative path -> bytes of all there is, folders with b"/"."""

    def read_all(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"/" for path in folder.rglob("*")
        }

    return read_all


class Stub(Subject):
    """A model whose every step adds one to every weight; `losses` and `poisoned` make it fail."""

    paradigm = "gradient_tape"
    precision = "float32"

    def __init__(self, spec: ModelSpec, usual: tuple[float, ...] = (-1.5, -0.5)) -> None:
        self.spec = spec
        self.usual = usual
        """What a step reports, one number for each of the spec's reports."""
        self.arrays: dict[str, Array] = {}
        self.losses: dict[int, tuple[float, ...]] = {}
        """Step -> what it reports in place of the usual."""
        self.poisoned: int | None = None
        """The step after which a weight is NaN."""
        self.before_step: Callable[[int], None] = lambda step: None
        self.steps = 0
        self.closed = False

    def variables(self) -> tuple[VariableInfo, ...]:
        return ()

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        return ()

    def initialise(self, seed: int) -> None:
        raise NotImplementedError

    def state(self) -> State:
        return State(self.spec.name, {name: array.copy() for name, array in self.arrays.items()})

    def load(self, state: State) -> None:
        self.arrays = {name: array.copy() for name, array in state.arrays.items()}
        self.steps = int(state.arrays["optimizer/generator/iterations"])

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        raise NotImplementedError

    def generate(self, inputs: Batch) -> Array:
        return np.zeros((len(inputs["latent"]), 784), np.float32)

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        raise NotImplementedError

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        raise NotImplementedError

    def step(self, batch: Batch) -> dict[str, float]:
        self.before_step(self.steps)
        for array in self.arrays.values():
            array += 1
        if self.steps == self.poisoned:
            self.arrays["generator/output/bias"][3] = np.nan
        losses = self.losses.get(self.steps, self.usual)
        self.steps += 1
        return dict(zip(self.spec.reports, losses, strict=True))

    def save(self, folder: Path) -> None:
        write(folder / "stub.npz", self.state())

    def restore(self, folder: Path) -> None:
        try:
            self.load(read(folder / "stub.npz"))
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(str(error)) from None

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """The Subject that every run of this test builds, in the place of a real one."""
    spec = models.get("vanilla_gan")
    subject = Stub(dataclasses.replace(spec))
    monkeypatch.setattr(paradigms, "build", lambda *_: subject)
    return subject


@pytest.fixture
def half_stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """The same of leaky_gan, whose discriminator takes half steps and reports accuracies."""
    subject = Stub(dataclasses.replace(models.get("leaky_gan")), (0.5, 0.75, 1.0, 0.625, 2.5))
    monkeypatch.setattr(paradigms, "build", lambda *_: subject)
    return subject
