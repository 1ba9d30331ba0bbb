"""The contract every implementation meets: a Subject.

A Subject is one implementation of one model in one paradigm, driven from outside with numpy in and numpy out. The
training loop, resume, comparison and reports speak only to this, so whatever meets it gets all of them.

Invariants, held by tests for every implementation:

* the phases in order leave the same bits as `step`;
* `forward`, `gradients` and `generate` leave `state()` as it was, bit for bit;
* gradients are those of the code's own loss: the ones the next `run_phase` hands to its optimizer.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfport.models.spec import ModelSpec
from tfport.state import State

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]
"""What one training step is fed: one array [B, width] for each of the spec's inputs, in the run's dtype."""


@dataclass(frozen=True)
class VariableInfo:
    """One variable of the model, without its value."""

    name: str
    """Canonical name, e.g. `generator/hidden/kernel`."""
    native_name: str
    """What the framework calls it."""
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    optimizers: tuple[str, ...] = ()
    """The optimizers that really hold it, read off the built optimizers; empty where none does."""

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


CORRECTED = ", epsilon after the bias correction"
"""What an Adam's algorithm is called by beside its name where epsilon is PyTorch's."""


@dataclass(frozen=True)
class OptimizerInfo:
    """One optimizer as the framework holds it, hyperparameters read back and not repeated from the spec."""

    name: str
    algorithm: str
    hyperparameters: Mapping[str, float]


class Subject(abc.ABC):
    """One implementation of one model in one paradigm; see the module's text for its invariants."""

    spec: ModelSpec
    paradigm: str
    precision: str
    _own: State | None = None
    """A state of this Subject's, kept for its names and shapes."""

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases, in the order they run."""
        return tuple(phase.name for phase in self.spec.phases)

    @abc.abstractmethod
    def variables(self) -> tuple[VariableInfo, ...]:
        """Every variable of the model (not of its optimizers), in the order of computation."""

    @abc.abstractmethod
    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """The optimizers, in the spec's order."""

    @abc.abstractmethod
    def initialise(self, seed: int) -> None:
        """Draws new weights from the implementation's own initialisers and resets the optimizers."""

    @abc.abstractmethod
    def state(self) -> State:
        """A copy of weights, statistics, slots and counters by canonical name."""

    @abc.abstractmethod
    def load(self, state: State) -> None:
        """Takes over a whole state.

        Raises:
          CheckpointError: a name is missing or unknown, or a shape differs; nothing has been changed then.
        """

    def check_fits(self, state: State) -> None:
        """Raises CheckpointError unless `state` has just the names and shapes that this Subject holds."""
        if self._own is None:
            self._own = self.state()
        self._own.check_fits(state)

    @abc.abstractmethod
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """Named outputs and intermediates at the current state, in the order of computation; nothing is updated."""

    @abc.abstractmethod
    def generate(self, inputs: Batch) -> Array:
        """Images [B, pixels] in inference mode for what the spec's `samples.inputs` names, each [B, width]."""

    @abc.abstractmethod
    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """Gradient of the phase's minimised objective by canonical name; nothing is updated."""

    @abc.abstractmethod
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """Runs one phase of the real training step; returns what it reports by name, in the source's scale and sign."""

    @abc.abstractmethod
    def step(self, batch: Batch) -> dict[str, float]:
        """Runs the whole training step as its users run it; returns all that its phases report, by name."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Writes a checkpoint in the paradigm's native format into an existing, empty folder."""

    @abc.abstractmethod
    def restore(self, folder: Path) -> None:
        """Reads what `save` wrote into this already built model.

        Raises:
          CheckpointError: the files cannot be read or do not fit.
        """

    def close(self) -> None:
        """Frees what the framework holds; the Subject is of no use afterwards."""
        return
