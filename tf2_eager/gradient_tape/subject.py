"""What every GradientTape model needs once: state by canonical name, and tf.train.Checkpoint."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf2_eager.gradient_tape.adam import Adam
from tfport import adam
from tfport.errors import CheckpointError
from tfport.models.spec import ModelSpec
from tfport.state import State, iterations_name, slot_name
from tfport.subject import Array, Batch, OptimizerInfo, Subject, VariableInfo

_CHECKPOINT = "checkpoint"


class TapeSubject(tf.Module, Subject):  # type: ignore[misc]
    """A Subject whose variables are tf.Variables and whose step is a tf.function."""

    variable_lists: dict[str, list[Any]]
    """Network -> its variables, in the order of the spec."""
    adams: dict[str, Adam]
    """Phase -> its optimizer."""

    def __init__(self, spec: ModelSpec, precision: str, seed: int) -> None:
        super().__init__(name=spec.name)
        self.spec = spec
        self.precision = precision
        tf.random.set_seed(seed)
        self.build_model()
        self._by_name = {
            name: variable
            for network in spec.networks
            for name, variable in zip(network.variable_shapes(), self.variable_lists[network.name], strict=True)
        }
        self._names = {variable.ref(): name for name, variable in self._by_name.items()}

    @abc.abstractmethod
    def build_model(self) -> None:
        """Creates the variables and optimizers: sets `variable_lists` and `adams`."""

    def tensors(self, batch: Batch) -> tuple[Any, Any]:
        """The batch as tensors of the run's dtype, images first."""
        return tf.constant(batch["images"], self.precision), tf.constant(batch["latent"], self.precision)

    # --- Structure ----------------------------------------------------------------------------------------------------
    def variables(self) -> tuple[VariableInfo, ...]:
        """Every variable of the model, owners read off the optimizers."""
        owner = {variable.ref(): phase for phase, optimizer in self.adams.items() for variable in optimizer.held}
        return tuple(
            VariableInfo(
                name,
                variable.name,
                tuple(variable.shape.as_list()),
                variable.dtype.name,
                variable.trainable,
                owner.get(variable.ref()),
            )
            for name, variable in self._by_name.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Hyperparameters as the optimizers hold them."""
        return tuple(
            OptimizerInfo(
                phase,
                "Adam",
                {name: float(getattr(optimizer, name)) for name in ("learning_rate", "beta_1", "beta_2", "epsilon")},
            )
            for phase, optimizer in self.adams.items()
        )

    # --- State --------------------------------------------------------------------------------------------------------
    def initialise(self, seed: int) -> None:
        """Builds the model again with its own initialisers and takes over the new values."""
        fresh = type(self)(self.spec, self.precision, seed)
        self.load(fresh.state())

    def _slots(self) -> dict[str, Any]:
        """Canonical slot name -> variable."""
        return {
            slot_name(phase, slot, self._names[variable.ref()]): held
            for phase, optimizer in self.adams.items()
            for slot in ("m", "v")
            for variable, held in zip(optimizer.held, getattr(optimizer, slot), strict=True)
        }

    def state(self) -> State:
        """A copy of the whole state; the iteration count is read back from beta_2's power."""
        arrays: dict[str, Array] = {
            name: np.array(variable.numpy()) for name, variable in {**self._by_name, **self._slots()}.items()
        }
        for phase, optimizer in self.adams.items():
            count = adam.iterations(float(optimizer.beta_2), optimizer.beta_2_power.numpy())
            arrays[iterations_name(phase)] = np.array(count, np.int64)
        return State(self.spec.name, arrays)

    def load(self, state: State) -> None:
        """Assigns every variable; beta powers are multiplied up again from the iteration count."""
        self.check_fits(state)
        for name, variable in {**self._by_name, **self._slots()}.items():
            variable.assign(state.arrays[name].astype(self.precision, copy=False))
        for phase, optimizer in self.adams.items():
            count = int(state.arrays[iterations_name(phase)])
            optimizer.beta_1_power.assign(adam.beta_power(float(optimizer.beta_1), count, self.precision))
            optimizer.beta_2_power.assign(adam.beta_power(float(optimizer.beta_2), count, self.precision))

    # --- Computation --------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:  # noqa: ARG002
        """Every named output; a model whose modes differ overrides this."""
        outputs = self.forward_function(*self.tensors(batch))
        return {name: value.numpy() for name, value in outputs.items()}

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """Gradients by the same function that the phase's update calls."""
        values = self.gradients_function(phase, *self.tensors(batch))
        held = self.adams[phase].held
        return {
            self._names[variable.ref()]: value.numpy()
            for variable, value in zip(held, values, strict=True)
            if value is not None
        }

    # --- Checkpoint ---------------------------------------------------------------------------------------------------
    def _checkpoint(self) -> Any:
        return tf.train.Checkpoint(variables=self.variable_lists, optimizers=self.adams)

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
