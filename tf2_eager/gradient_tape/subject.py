"""What every GradientTape model needs once: state by canonical name, and tf.train.Checkpoint."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf2_eager.gradient_tape.layers import Statistics
from tf2_eager.gradient_tape.optimizers import Adam, RMSProp
from tfport.errors import CheckpointError
from tfport.models.spec import ModelSpec
from tfport.state import State, iterations_name, slot_name
from tfport.subject import Array, Batch, OptimizerInfo, Subject, VariableInfo

_CHECKPOINT = "checkpoint"
_NUMBERS = {Adam: ("learning_rate", "beta_1", "beta_2", "epsilon"), RMSProp: ("learning_rate", "rho", "epsilon")}

Tensors = Mapping[str, Any]
"""A batch as tensors of the run's dtype."""


class Computed(NamedTuple):
    """What a phase computes before anything moves."""

    reports: dict[str, Any]
    gradients: list[Any]
    """One for each variable that the phase's optimizer holds, in that order."""
    statistics: Statistics
    """What batch normalisation saw in training mode."""


class TapeSubject(tf.Module, Subject):  # type: ignore[misc]
    """A Subject whose variables are tf.Variables and whose step is a tf.function.

    A model has a method `<phase>_step(batch)` for every phase, which computes and moves nothing; what it computed is
    applied here, once for all models.
    """

    paradigm = "gradient_tape"
    optimizer_by_name: dict[str, Adam | RMSProp]
    output_names: list[str]
    """The same in both modes."""

    def __init__(self, spec: ModelSpec, precision: str, seed: int) -> None:
        super().__init__(name=spec.name)
        self.spec = spec
        self.precision = precision
        tf.random.set_seed(seed)
        self.build_model()
        created = {variable.name.removesuffix(":0"): variable for variable in self.variables_created()}
        self._by_name = {name: created[name] for name in spec.variable_shapes() if name in created}
        self._names = {variable.ref(): name for name, variable in self._by_name.items()}
        self._traced: set[tuple[Any, ...]] = set()

    @abc.abstractmethod
    def build_model(self) -> None:
        """Creates the variables and sets `optimizer_by_name`."""

    def variables_created(self) -> tuple[Any, ...]:
        """Every tf.Variable that tf.Module finds among the attributes; `variables()` is the contract's."""
        return tuple(self._flatten(predicate=lambda value: isinstance(value, tf.Variable), expand_composites=True))

    @staticmethod
    def trained(modules: Mapping[str, Any]) -> list[Any]:
        """The trained variables of some layers, layer by layer in the order given, kernel or gamma first."""
        found = []
        for each in modules.values():
            for kind in ("kernel", "bias", "gamma", "beta"):
                if hasattr(each, kind):
                    found.append(getattr(each, kind))
        return found

    def tensors(self, batch: Batch) -> Tensors:
        """The batch as tensors of the run's dtype."""
        return {name: tf.constant(value, self.precision) for name, value in batch.items()}

    @abc.abstractmethod
    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""

    @abc.abstractmethod
    def images(self, inputs: Tensors) -> Any:
        """What `generate` gives, in inference mode."""

    # --- Gradients and updates ----------------------------------------------------------------------------------------
    def compute(self, phase: str, batch: Tensors) -> Computed:
        """One phase's reports and gradients, with nothing moved."""
        computed: Computed = getattr(self, f"{phase}_step")(batch)
        return computed

    def apply(self, phase: str, computed: Computed) -> None:
        """Moves what the phase moves: the optimizer's variables, then the moving statistics."""
        self.optimizer_by_name[self.spec.phase(phase).optimizer].apply(computed.gradients)
        for norm, mean, variance in computed.statistics:
            norm.update(mean, variance)

    def traced(self, function: Any, *arguments: Any) -> Any:
        """Calls a tf.function that was first traced for batches of any size, as TF1's placeholders take them.

        Traced for one size, it would hold that size as a constant, and divide by it by way of its reciprocal.
        """
        kept = (
            function.python_function.__name__,
            *(tuple(each) if isinstance(each, Mapping) else each for each in arguments),
        )
        if kept not in self._traced:
            self._traced.add(kept)
            function.get_concrete_function(
                *(
                    {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in each.items()}
                    if isinstance(each, Mapping)
                    else each
                    for each in arguments
                )
            )
        return function(*arguments)

    @tf.function
    def gradients_function(self, phase: str, batch: Tensors) -> list[Any]:
        """Gradients alone, with nothing updated."""
        return self.compute(phase, batch).gradients

    @tf.function
    def phase_function(self, phase: str, batch: Tensors) -> dict[str, Any]:
        """One phase: reports, gradients, update."""
        computed = self.compute(phase, batch)
        self.apply(phase, computed)
        return computed.reports

    @tf.function
    def step_function(self, batch: Tensors) -> dict[str, Any]:
        """The phases in order, each seeing what the one before has moved."""
        reports: dict[str, Any] = {}
        for phase in self.phases:
            reports |= self.phase_function(phase, batch)
        return reports

    @tf.function
    def forward_function(self, batch: Tensors, training: bool) -> list[Any]:
        """Every named output; their names are kept when it is traced, because a tf.function sorts a dict's keys."""
        found = self.outputs(batch, training)
        self.output_names = list(found)
        return list(found.values())

    @tf.function
    def generate_function(self, inputs: Tensors) -> Any:
        """Images alone."""
        return self.images(inputs)

    # --- Training step ------------------------------------------------------------------------------------------------
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """One phase; what it reports is from before the update."""
        return self._told(self.traced(self.phase_function, phase, self.tensors(batch)))

    def step(self, batch: Batch) -> dict[str, float]:
        """All phases in one tf.function."""
        return self._told(self.traced(self.step_function, self.tensors(batch)))

    def _told(self, reports: Mapping[str, Any]) -> dict[str, float]:
        """Reports as floats, in the spec's order: a tf.function sorts a dict's keys."""
        order = [name for name in self.spec.reports if name in reports]
        return {name: float(reports[name]) for name in [*order, *(reports.keys() - set(order))]}

    # --- Structure ----------------------------------------------------------------------------------------------------
    def variables(self) -> tuple[VariableInfo, ...]:
        """Every variable of the model, owners read off the optimizers."""
        held = {name: {each.ref() for each in rule.held} for name, rule in self.optimizer_by_name.items()}
        return tuple(
            VariableInfo(
                name,
                variable.name,
                tuple(variable.shape.as_list()),
                variable.dtype.name,
                variable.trainable,
                tuple(each for each, refs in held.items() if variable.ref() in refs),
            )
            for name, variable in self._by_name.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Hyperparameters as the optimizers hold them."""
        return tuple(
            OptimizerInfo(
                name,
                rule.algorithm,
                {number: float(getattr(rule, number)) for number in _NUMBERS[type(rule)]},
            )
            for name, rule in self.optimizer_by_name.items()
        )

    # --- State --------------------------------------------------------------------------------------------------------
    def initialise(self, seed: int) -> None:
        """Builds the model again with its own initialisers and takes over the new values."""
        fresh = type(self)(self.spec, self.precision, seed)
        self.load(fresh.state())

    def _slots(self) -> dict[str, Any]:
        """Canonical slot name -> variable."""
        return {
            slot_name(name, slot, self._names[variable.ref()]): held
            for name, rule in self.optimizer_by_name.items()
            for slot in rule.numbers.slots
            for variable, held in zip(rule.held, getattr(rule, slot), strict=True)
        }

    def state(self) -> State:
        """A copy of the whole state."""
        arrays: dict[str, Array] = {
            name: np.array(variable.numpy()) for name, variable in {**self._by_name, **self._slots()}.items()
        }
        for name, rule in self.optimizer_by_name.items():
            arrays[iterations_name(name)] = np.array(rule.count(), np.int64)
        return State(self.spec.name, arrays)

    def load(self, state: State) -> None:
        """Assigns every variable; Adam's beta powers are multiplied up again from the iteration count."""
        self.check_fits(state)
        for name, variable in {**self._by_name, **self._slots()}.items():
            variable.assign(state.arrays[name].astype(self.precision, copy=False))
        for name, rule in self.optimizer_by_name.items():
            rule.set_count(int(state.arrays[iterations_name(name)]))

    # --- Computation --------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """Every named output, in the order of computation."""
        values = self.traced(self.forward_function, self.tensors(batch), training)
        return {name: value.numpy() for name, value in zip(self.output_names, values, strict=True)}

    def generate(self, inputs: Batch) -> Array:
        """Images [B, pixels]."""
        images: Array = self.traced(self.generate_function, self.tensors(inputs)).numpy()
        return images

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """Gradients by the same function that the phase's update calls."""
        values = self.traced(self.gradients_function, phase, self.tensors(batch))
        held = self.optimizer_by_name[self.spec.phase(phase).optimizer].held
        return {
            self._names[variable.ref()]: value.numpy()
            for variable, value in zip(held, values, strict=True)
            if value is not None
        }

    # --- Checkpoint ---------------------------------------------------------------------------------------------------
    def _checkpoint(self) -> Any:
        return tf.train.Checkpoint(variables=list(self._by_name.values()), optimizers=self.optimizer_by_name)

    def save(self, folder: Path) -> None:
        """Writes variables and optimizers with tf.train.Checkpoint."""
        self._checkpoint().write(str(folder / _CHECKPOINT))

    def restore(self, folder: Path) -> None:
        """Restores variables and optimizers; all that was written must be taken and all that is there filled."""
        try:
            status = self._checkpoint().read(str(folder / _CHECKPOINT))
            status.assert_consumed()
        except (tf.errors.OpError, ValueError, AssertionError) as error:
            raise CheckpointError(
                f"{folder} cannot be restored into {self.spec.name} (gradient_tape): {error}"
            ) from None
