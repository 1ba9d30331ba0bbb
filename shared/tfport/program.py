"""What a check needs of one side: a training program of the user's own, driven with numpy in and numpy out.

A Program is what `Subject` is for the reference models, without a spec: its names are the code's own. Adapters
(`tfport.adapters`) make Programs of TF1 graphs, Keras models, tf.Modules and PyTorch modules.

Invariants, held by tests for every adapter:

* `step` is the phases in order, with the same bits;
* `forward`, `nodes`, `loss`, `gradients` and `derivatives` leave `state()` as it was, bit for bit;
* gradients are those that the next `run_phase` changes the variables by;
* with the same draws, the same call from the same state gives the same bits.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfport.checking.draws import DrawSource
from tfport.state import State
from tfport.subject import Array, OptimizerInfo, VariableInfo

FURTHEST = 10_000_019
"""The last value that a check sets counters of steps to: ten million, and no multiple of a schedule's period."""
Batch = Mapping[str, Array]
"""What one step is fed: input name -> array, the first axis being that of the examples."""


@dataclass(frozen=True)
class InputInfo:
    """One thing that a step is fed."""

    name: str
    shape: tuple[int | None, ...] | None
    """None where a size, or everything, is open."""
    dtype: str | None
    """numpy's name; None where anything is taken."""


@dataclass(frozen=True)
class DrawInfo:
    """One place where the program draws random numbers."""

    name: str
    """Where: an op's name, or a layer's."""
    kind: str
    """What: "uniform", "normal", "truncated_normal", "integers", "shuffle", or the op's type."""
    controlled: bool
    """Whether recorded arrays can be fed in its place."""
    reason: str = ""
    """Why it is not controlled."""
    phases: tuple[str, ...] = ()
    """The phases that depend on it; empty where that is not known, which means all."""


@dataclass(frozen=True)
class Node:
    """One intermediate of the computation, with its value."""

    name: str
    """The code's own name, unique among the nodes of one call: a graph op's, or a layer's."""
    kind: str
    """The op's type or the layer's class: "MatMul", "Dense"."""
    inputs: tuple[str, ...]
    """Names of the nodes, or of the program's inputs, that it reads. What is no node (constants, shape arithmetic) is
    skipped over: the nodes behind it are named."""
    variables: tuple[str, ...]
    """Names, as in `variables()`, of the variables that it reads directly."""
    value: Array
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What else decides its value, as text (see `shown`): attributes and constant operands by the framework's names."""
    where: str = ""
    """File and line of the user's code that made it ("gan.py:41"); empty where that is not known."""


class Program(abc.ABC):
    """One side of a check; see the module's text for its invariants."""

    kind: str
    """What it is, as a person calls it: "TF1 graph", "Keras 3 model", "tf.Module", "PyTorch module"."""
    precision: str
    """"float32" or "float64": the dtype of its floating variables (that of most of them where they differ)."""
    phases: tuple[str, ...]
    """The names of the parts of a step that update something, in the order they run; at least one."""
    furthest: int = FURTHEST
    """The largest count of steps that its state may be set to at once."""
    draws: DrawSource
    """Where its random numbers come from; a check sets its seed, step and names."""

    # --- What it is ---------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def inputs(self) -> tuple[InputInfo, ...]:
        """What a batch must hold, in the order of the code (placeholders by creation, arguments by position)."""

    def may_take(self, name: str) -> bool:
        """Whether a batch may hold an entry of this name that `inputs()` does not list; it is handed on then."""
        del name
        return not self.inputs()

    @abc.abstractmethod
    def variables(self) -> tuple[VariableInfo, ...]:
        """Weights and statistics, in the order of computation as far as known, else of creation.

        `name` and `native_name` are the framework's own name without ":0"; unique. No optimizer's variable, no metric,
        no seed. `optimizers` are names from `optimizers()`. What is not floating (a count of steps, a flag) is taken
        for a counter (`tfport.checking.counters`).
        """

    @abc.abstractmethod
    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Read off the built program: `algorithm` and hyperparameters as `tfport.checking.slots` names them."""

    def phase_optimizers(self) -> Mapping[str, tuple[str, ...]]:
        """Phase -> the optimizers that it applies; empty where that cannot be known before it runs."""
        return {}

    def random_draws(self) -> tuple[DrawInfo, ...]:
        """Every place where random numbers are drawn, as far as found by now (some show only once a phase ran)."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the program was read: what was found by itself, what was left out."""
        return ()

    def counted_in_python(self) -> tuple[str, ...]:
        """Numbers outside its state that its steps were seen to count up."""
        return ()

    def reaches(self) -> Mapping[str, Sequence[str]] | None:
        """Variable that no optimizer holds -> what is computed from it: "output logits", "the next value of w".

        Returns:
          None where the code does not tell.
        """
        return None

    def prepare(self, batch: Batch) -> None:
        """Makes ready what only a first batch can tell: layers' shapes, what each optimizer takes. Nothing is trained.

        A check calls it before it asks for variables, optimizers or state.
        """
        del batch

    # --- State --------------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def state(self) -> State:
        """Weights, statistics, slots and counts: `variables()` by name, and slots as `tfport.checking.slots` names
        them. `arrays` may be a lazy mapping that reads a tensor when asked, valid until the next call that changes
        something.
        """

    @abc.abstractmethod
    def load(self, state: State) -> None:
        """Takes over a whole state with just the names and shapes of `state()`, read tensor by tensor.

        Raises:
          CheckpointError: a name is missing or unknown, or a shape differs; nothing has been changed then.
        """

    @abc.abstractmethod
    def initialise(self, seed: int) -> None:
        """Draws new weights from the code's own initialisers and resets the optimizers.

        Raises:
          NotImplementedError: there is no way to do it again (a model given as an object).
        """

    # --- Computation: nothing is updated ------------------------------------------------------------------------------
    @abc.abstractmethod
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """The program's outputs by name, in its own order: what its users would call predictions."""

    @abc.abstractmethod
    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> Sequence[Node]:
        """Every intermediate, floating, integer or bool, in the order of computation: of the outputs, or of a phase's
        loss.

        With a phase: what its loss is computed from in that phase's own mode, the loss last; `training` is not looked
        at. Constants and what is computed from constants and shapes alone are left out.
        """

    @abc.abstractmethod
    def loss(self, phase: str, batch: Batch) -> float:
        """The phase's objective at the current state, computed and not read from what the phase reports.

        Raises:
          NotImplementedError: the code gives no way to tell.
        """

    @abc.abstractmethod
    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """What the phase's optimizer finally goes by, by variable; dense; None where the code gives None.

        Whatever is done to a derivative on the way, by the code or inside the optimizer, has been done: it is clipped,
        unscaled, averaged. What an optimizer applies at another step than this is left out.

        Raises:
          NotImplementedError: the code gives no way to tell.
        """

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        """The derivatives of the objective, by variable, before anything is done to them.

        Returns:
          None where the code plainly does nothing to them: then they are the gradients.

        Raises:
          NotImplementedError: the code gives no way to tell.
        """
        raise NotImplementedError

    # --- Training -----------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """Runs one phase of the code's own training step; returns what it reports, its loss as "loss" and first."""

    def step(self, batch: Batch) -> dict[str, float]:
        """The whole training step; what the phases report, as "<phase>/<name>"."""
        return {
            f"{phase}/{name}": value for phase in self.phases for name, value in self.run_phase(phase, batch).items()
        }

    def drawn(self, phase: str, batch: Batch) -> Mapping[str, str]:
        """Draw name -> digest of what one run of the phase draws when nobody feeds it; the state is put back.

        Draws that happen in Python while a function is traced, and never again, are named "<name> (traced)".
        """
        del phase, batch
        return {}

    def in_float64(self) -> Program:
        """The same program computing in float64, from the same state; this one stays as it is.

        Raises:
          NotImplementedError: it has to be built again for that.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Frees what the framework holds; the Program is of no use afterwards."""
        return


_FEW = 12
"""Elements of an array that are written out."""


def shown(value: Any) -> str:
    """A number, a word or a small array as text, to the digits that float32 has; empty for what is neither."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return ""
    if array.size > _FEW:
        return f"{array.shape}, sum {float(array.astype(np.float64).sum()):.7g}"
    if array.ndim:
        return f"[{', '.join(map(shown, array))}]"
    return f"{float(array):.7g}" if array.dtype.kind == "f" else str(array.item())


def precision_of(dtypes: Sequence[str]) -> str:
    """The floating dtype that most of `dtypes` are; "float32" where none is floating."""
    floating = [dtype for dtype in dtypes if np.dtype(dtype).kind == "f"] if dtypes else []
    return max(dict.fromkeys(floating), key=floating.count) if floating else "float32"


__all__ = [
    "Array",
    "Batch",
    "DrawInfo",
    "InputInfo",
    "Node",
    "OptimizerInfo",
    "Program",
    "State",
    "VariableInfo",
    "precision_of",
    "shown",
]
