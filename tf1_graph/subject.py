"""What every TF1 model needs once: its graph and Session, state by canonical name, and the Saver."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from tfport import adam
from tfport.errors import CheckpointError
from tfport.models.spec import ModelSpec
from tfport.state import State, iterations_name, slot_name
from tfport.subject import Array, Batch, OptimizerInfo, Subject, VariableInfo

_CHECKPOINT = "model.ckpt"
_HYPERPARAMETERS = {"learning_rate": 5, "beta_1": 6, "beta_2": 7, "epsilon": 8}
_VARIABLE, _BETA_1_POWER, _BETA_2_POWER, _GRADIENT = 0, 3, 4, 9
"""Positions among the inputs of the ApplyAdam op."""


@dataclass(frozen=True)
class TrainOp:
    """One phase: the op that minimises, the loss as it is reported, and the optimizer that made the op."""

    train: Any
    loss: Any
    optimizer: Any


class GraphSubject(Subject):
    """A Subject on an explicit tf.Graph and its own Session; nothing global is touched."""

    inputs: dict[str, Any]
    """Batch key -> placeholder."""
    variable_lists: dict[str, list[Any]]
    """Network -> its variables, in the order of the spec."""
    outputs: dict[str, Any]
    """Name -> tensor, in the order of computation."""
    train_ops: dict[str, TrainOp]
    """Phase -> its train op."""

    def __init__(self, spec: ModelSpec, precision: str, seed: int) -> None:
        self.spec = spec
        self.precision = precision
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(seed)
            self.build_graph()
            initialise = tf.global_variables_initializer()
            self._saver = tf.train.Saver(tf.global_variables(), max_to_keep=None)
            self._global = tf.global_variables()
        self._variables = {
            name: variable
            for network in spec.networks
            for name, variable in zip(network.variable_shapes(), self.variable_lists[network.name], strict=True)
        }
        self._names = {variable.op.name: name for name, variable in self._variables.items()}
        self._adam_ops = {phase: _adam_ops(op.train) for phase, op in self.train_ops.items()}
        self.session = tf.Session(graph=self.graph)
        self.session.run(initialise)

    @abc.abstractmethod
    def build_graph(self) -> None:
        """Builds the graph and sets `inputs`, `variable_lists`, `outputs` and `train_ops`."""

    def fetch(self, fetches: Any, batch: Batch) -> Any:
        """session.run with the batch fed by name."""
        return self.session.run(fetches, feed_dict={self.inputs[key]: value for key, value in batch.items()})

    # --- Structure ----------------------------------------------------------------------------------------------------
    def variables(self) -> tuple[VariableInfo, ...]:
        """Every variable of the model, owners read off the graph's ApplyAdam ops."""
        with self.graph.as_default():
            trainable = {variable.op.name for variable in tf.trainable_variables()}
        owner = {op.inputs[_VARIABLE].op.name: phase for phase, ops in self._adam_ops.items() for op in ops}
        return tuple(
            VariableInfo(
                name,
                variable.op.name,
                tuple(variable.shape.as_list()),
                variable.dtype.base_dtype.name,
                variable.op.name in trainable,
                owner.get(variable.op.name),
            )
            for name, variable in self._variables.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Hyperparameters as the ApplyAdam ops read them."""
        return tuple(
            OptimizerInfo(
                phase,
                "Adam",
                {
                    name: float(self.session.run(ops[0].inputs[index]))
                    for name, index in (_HYPERPARAMETERS.items() if ops else ())
                },
            )
            for phase, ops in self._adam_ops.items()
        )

    def global_variables(self) -> dict[str, tuple[int, ...]]:
        """Native name -> shape of all the graph holds: weights, slots and beta powers."""
        return {variable.op.name: tuple(variable.shape.as_list()) for variable in self._global}

    # --- State --------------------------------------------------------------------------------------------------------
    def initialise(self, seed: int) -> None:
        """Builds the graph again with its own initialisers and takes over the new values."""
        fresh = type(self)(self.spec, self.precision, seed)
        self.load(fresh.state())
        fresh.close()

    def _slots(self) -> dict[str, Any]:
        """Canonical slot name -> variable, for every slot the optimizers made."""
        slots = {}
        for phase, op in self.train_ops.items():
            for name, variable in self._variables.items():
                for slot in op.optimizer.get_slot_names():
                    held = op.optimizer.get_slot(variable, slot)
                    if held is not None:
                        slots[slot_name(phase, slot, name)] = held
        return slots

    def _beta_powers(self, phase: str) -> dict[str, Any]:
        """`beta_1` and `beta_2` -> the variable in which the phase's optimizer keeps that power."""
        by_name = {variable.op.name: variable for variable in self._global}
        op = self._adam_ops[phase][0]
        return {
            "beta_1": by_name[op.inputs[_BETA_1_POWER].op.name.removesuffix("/read")],
            "beta_2": by_name[op.inputs[_BETA_2_POWER].op.name.removesuffix("/read")],
        }

    def state(self) -> State:
        """A copy of the whole state; the iteration count is read back from beta_2's power."""
        held = self.session.run({**self._variables, **self._slots()})
        arrays: dict[str, Array] = {name: np.array(value) for name, value in held.items()}
        for info in self.optimizers():
            power = self.session.run(self._beta_powers(info.phase)["beta_2"])
            count = adam.iterations(info.hyperparameters["beta_2"], power)
            arrays[iterations_name(info.phase)] = np.array(count, np.int64)
        return State(self.spec.name, arrays)

    def load(self, state: State) -> None:
        """Assigns every variable; beta powers are multiplied up again from the iteration count."""
        self.check_fits(state)
        values = [
            (variable, state.arrays[name].astype(self.precision, copy=False))
            for name, variable in {**self._variables, **self._slots()}.items()
        ]
        for info in self.optimizers():
            count = int(state.arrays[iterations_name(info.phase)])
            for beta, variable in self._beta_powers(info.phase).items():
                values.append((variable, adam.beta_power(info.hyperparameters[beta], count, self.precision)))
        # An initialiser is an assignment whose value can be fed, so loading adds no op to the graph.
        self.session.run(
            [variable.initializer for variable, _ in values],
            feed_dict={variable.initializer.inputs[1]: value for variable, value in values},
        )

    # --- Computation --------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:  # noqa: ARG002
        """Fetches every named output; a model whose modes differ overrides this."""
        values: dict[str, Array] = self.fetch(self.outputs, batch)
        return values

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """Fetches the very tensors that the phase's ApplyAdam ops take, without running the ops."""
        fetches = {self._names[op.inputs[_VARIABLE].op.name]: op.inputs[_GRADIENT] for op in self._adam_ops[phase]}
        values: dict[str, Array] = self.fetch(fetches, batch)
        return values

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


def _adam_ops(train: Any) -> list[Any]:
    """The ApplyAdam ops that a train op runs, found by walking its control inputs; in order of creation."""
    found, seen, pending = [], set(), [train]
    while pending:
        op = pending.pop()
        if op in seen:
            continue
        seen.add(op)
        if op.type in ("ApplyAdam", "ResourceApplyAdam"):
            found.append(op)
        else:
            pending += op.control_inputs
    return sorted(found, key=lambda op: op._id)
