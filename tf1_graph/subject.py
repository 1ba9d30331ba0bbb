"""What every TF1 model needs once: its graph and Session, state by canonical name, and the Saver."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from tfport import adam
from tfport.errors import CheckpointError
from tfport.models.spec import ModelSpec
from tfport.state import State, iterations_name, slot_name
from tfport.subject import CORRECTED, Array, Batch, OptimizerInfo, Subject, VariableInfo

_CHECKPOINT = "model.ckpt"


@dataclass(frozen=True)
class _Rule:
    """Where an optimizer's op has what, by position among its inputs."""

    algorithm: str
    hyperparameters: dict[str, int]
    gradient: int
    powers: dict[str, int]


_ADAM = _Rule("Adam", {"learning_rate": 5, "beta_1": 6, "beta_2": 7, "epsilon": 8}, 9, {"beta_1": 3, "beta_2": 4})
_RMSPROP = _Rule("RMSProp", {"learning_rate": 3, "rho": 4, "epsilon": 6}, 7, {})
_RULES = {
    "ApplyAdam": _ADAM,
    "ResourceApplyAdam": _ADAM,
    "ApplyRMSProp": _RMSPROP,
    "ResourceApplyRMSProp": _RMSPROP,
}
_SLOTS = ("m", "v", "rms")
"""Slots that matter; RMSProp's `momentum` only repeats the last step where momentum is 0."""


@dataclass(frozen=True)
class TrainOp:
    """One phase: the op that minimises, what is reported by name, and the optimizer that made the op."""

    train: Any
    reports: dict[str, Any]
    optimizer: Any


class GraphSubject(Subject):
    """A Subject on an explicit tf.Graph and its own Session; nothing global is touched.

    A variable's canonical name is its op's name, because the models name their scopes and variables so.
    """

    paradigm = "tf1_graph"
    inputs: dict[str, Any]
    """Name -> placeholder."""
    outputs: dict[bool, dict[str, Any]]
    """Whether in training mode -> name -> tensor, in the order of computation."""
    images: Any
    """What `generate` fetches."""
    train_ops: dict[str, TrainOp]
    """Phase -> its train op, in the order the phases run."""
    start_ops: Sequence[Any] = ()
    """Ops to run once after the variables' initialisers."""

    def __init__(self, spec: ModelSpec, precision: str, seed: int) -> None:
        self.spec = spec
        self.precision = precision
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(seed)
            self.inputs = {
                each.name: tf.placeholder(precision, [None, each.width], name=each.name) for each in spec.inputs
            }
            self.build_graph()
            initialise = tf.global_variables_initializer()
            self._saver = tf.train.Saver(tf.global_variables(), max_to_keep=None)
            self._global = {variable.op.name: variable for variable in tf.global_variables()}
            self._global_step = tf.train.get_global_step()
        self._variables = {name: self._global[name] for name in spec.variable_shapes() if name in self._global}
        self._apply_ops = {phase: _apply_ops(op.train) for phase, op in self.train_ops.items()}
        self._feeds = {phase: self._needed(op) for phase, op in self.train_ops.items()}
        self._held = self._held_by_optimizer()
        self.session = tf.Session(graph=self.graph)
        self.session.run(initialise)
        self.session.run(list(self.start_ops))

    @abc.abstractmethod
    def build_graph(self) -> None:
        """Builds the graph on `inputs` and sets `outputs`, `images` and `train_ops`."""

    def fetch(self, fetches: Any, batch: Batch) -> Any:
        """session.run with the batch fed by name."""
        return self.session.run(fetches, feed_dict={self.inputs[key]: value for key, value in batch.items()})

    def _needed(self, op: TrainOp) -> list[str]:
        """The inputs that a phase reads: all others would be copied into the Session for nothing."""
        seen: set[Any] = set()
        pending = [op.train, *(report.op for report in op.reports.values())]
        while pending:
            each = pending.pop()
            if each not in seen:
                seen.add(each)
                pending += [*each.control_inputs, *(tensor.op for tensor in each.inputs)]
        return [name for name, placeholder in self.inputs.items() if placeholder.op in seen]

    # --- Structure ----------------------------------------------------------------------------------------------------
    def _held_by_optimizer(self) -> dict[str, list[Any]]:
        """Optimizer -> the ops that apply it, one a variable, read off the graph."""
        held: dict[str, list[Any]] = {name: [] for name, _ in self.spec.optimizers}
        for phase, ops in self._apply_ops.items():
            found = held[self.spec.phase(phase).optimizer]
            known = {op.inputs[0].op.name for op in found}
            found += [op for op in ops if op.inputs[0].op.name not in known]
        return held

    def variables(self) -> tuple[VariableInfo, ...]:
        """Every variable of the model, owners read off the graph's optimizer ops."""
        with self.graph.as_default():
            trainable = {variable.op.name for variable in tf.trainable_variables()}
        return tuple(
            VariableInfo(
                name,
                variable.op.name,
                tuple(variable.shape.as_list()),
                variable.dtype.base_dtype.name,
                variable.op.name in trainable,
                tuple(each for each, ops in self._held.items() if any(op.inputs[0].op.name == name for op in ops)),
            )
            for name, variable in self._variables.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Hyperparameters as the optimizers' ops read them."""
        return tuple(self._optimizer(name, ops) for name, ops in self._held.items())

    def _optimizer(self, name: str, ops: list[Any]) -> OptimizerInfo:
        if not ops:
            return OptimizerInfo(name, "none", {})
        op, rule = ops[0], _RULES[ops[0].type]
        # An epsilon that follows the bias correction is read where there is nothing left to correct.
        corrected = rule is _ADAM and op.inputs[rule.hyperparameters["epsilon"]].op.type != "Const"
        feed = {op.inputs[rule.powers["beta_2"]]: 0.0} if corrected else {}
        numbers = {
            each: float(self.session.run(op.inputs[index], feed_dict=feed))
            for each, index in rule.hyperparameters.items()
        }
        return OptimizerInfo(name, rule.algorithm + (CORRECTED if corrected else ""), numbers)

    def global_variables(self) -> dict[str, tuple[int, ...]]:
        """Native name -> shape of all the graph holds: weights, slots and beta powers."""
        return {name: tuple(variable.shape.as_list()) for name, variable in self._global.items()}

    # --- State --------------------------------------------------------------------------------------------------------
    def initialise(self, seed: int) -> None:
        """Builds the graph again with its own initialisers and takes over the new values."""
        fresh = type(self)(self.spec, self.precision, seed)
        self.load(fresh.state())
        fresh.close()

    def _slots(self) -> dict[str, Any]:
        """Canonical slot name -> variable, for every slot of the variables that an optimizer moves."""
        slots = {}
        for phase, op in self.train_ops.items():
            name = self.spec.phase(phase).optimizer
            for apply in self._held[name]:
                held = apply.inputs[0].op.name
                for slot in op.optimizer.get_slot_names():
                    if slot in _SLOTS:
                        slots[slot_name(name, slot, held)] = op.optimizer.get_slot(self._global[held], slot)
        return slots

    def _powers(self, name: str) -> dict[str, Any]:
        """`beta_1` and `beta_2` -> the variable in which an Adam keeps that power; empty for other optimizers."""
        op = self._held[name][0]
        return {
            beta: self._global[op.inputs[index].op.name.removesuffix("/read")]
            for beta, index in _RULES[op.type].powers.items()
        }

    def state(self) -> State:
        """A copy of the whole state; Adam's iteration count is read back from beta_2's power."""
        held = self.session.run({**self._variables, **self._slots()})
        arrays: dict[str, Array] = {name: np.array(value) for name, value in held.items()}
        for info in self.optimizers():
            powers = self._powers(info.name)
            if powers:
                count = adam.iterations(info.hyperparameters["beta_2"], self.session.run(powers["beta_2"]))
            else:
                count = int(self.session.run(self._global_step))
            arrays[iterations_name(info.name)] = np.array(count, np.int64)
        return State(self.spec.name, arrays)

    def load(self, state: State) -> None:
        """Assigns every variable; beta powers are multiplied up again from the iteration count."""
        self.check_fits(state)
        values: list[tuple[Any, Any]] = [
            (variable, state.arrays[name].astype(self.precision, copy=False))
            for name, variable in {**self._variables, **self._slots()}.items()
        ]
        for info in self.optimizers():
            count = int(state.arrays[iterations_name(info.name)])
            powers = self._powers(info.name)
            for beta, variable in powers.items():
                values.append((variable, adam.beta_power(info.hyperparameters[beta], count, self.precision)))
            if not powers:
                values.append((self._global_step, count))
        # An initialiser is an assignment whose value can be fed, so loading adds no op to the graph.
        self.session.run(
            [variable.initializer for variable, _ in values],
            feed_dict={variable.initializer.inputs[1]: value for variable, value in values},
        )

    # --- Computation --------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """Fetches every named output of one mode; no update op is among what they need."""
        values: dict[str, Array] = self.fetch(self.outputs[training], batch)
        return values

    def generate(self, inputs: Batch) -> Array:
        """Images [B, pixels]; the Session computes what is fetched, so nothing else need be fed."""
        images: Array = self.fetch(self.images, inputs)
        return images

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """Fetches the very tensors that the phase's optimizer ops take, without running the ops."""
        ops = self._apply_ops[phase]
        fetches = {op.inputs[0].op.name: op.inputs[_RULES[op.type].gradient] for op in ops}
        values: dict[str, Array] = self.fetch(fetches, batch)
        return values

    # --- Training step ------------------------------------------------------------------------------------------------
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """One session.run: what is reported is computed on the way to the gradient, so it is from before the update."""
        op = self.train_ops[phase]
        feed = {self.inputs[name]: batch[name] for name in self._feeds[phase]}
        _, reports = self.session.run([op.train, op.reports], feed_dict=feed)
        return {name: float(value) for name, value in reports.items()}

    def step(self, batch: Batch) -> dict[str, float]:
        """The phases in order, each a session.run of its own that sees what the one before has moved."""
        reports: dict[str, float] = {}
        for phase in self.train_ops:
            reports |= self.run_phase(phase, batch)
        return reports

    # --- Checkpoint ---------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Writes all global variables with a tf.train.Saver, and no .meta file."""
        with self.graph.as_default():
            self._saver.save(self.session, str(folder / _CHECKPOINT), write_meta_graph=False, write_state=False)

    def restore(self, folder: Path) -> None:
        """Restores all global variables; the Saver refuses when one is missing from the files."""
        try:
            with self.graph.as_default():
                self._saver.restore(self.session, str(folder / _CHECKPOINT))
        except (tf.errors.OpError, ValueError) as error:
            raise CheckpointError(f"{folder} cannot be restored into {self.spec.name} (tf1_graph): {error}") from None

    def close(self) -> None:
        """Closes the Session."""
        self.session.close()


def _apply_ops(train: Any) -> list[Any]:
    """The optimizer ops that a train op runs, found by walking back to them; in order of creation."""
    found, seen, pending = [], set(), [train]
    while pending:
        op = pending.pop()
        if op in seen:
            continue
        seen.add(op)
        if op.type in _RULES:
            found.append(op)
        else:  # inputs too: a global step is counted by an op whose operand waits for the optimizer's
            pending += [*op.control_inputs, *(tensor.op for tensor in op.inputs)]
    return sorted(found, key=lambda op: op._id)
