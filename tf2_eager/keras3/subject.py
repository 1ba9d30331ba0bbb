"""What every Keras 3 model needs once: floatx, state by canonical name, gradients, and its checkpoint."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfport.errors import CheckpointError, UserError
from tfport.models.spec import ModelSpec
from tfport.state import State, iterations_name, slot_name
from tfport.subject import Array, Batch, OptimizerInfo, Subject, VariableInfo

_SUFFIX = ".weights.h5"
_SLOTS = {"m": "_momentums", "v": "_velocities"}
"""Canonical slot name -> the list in which Keras's Adam keeps it, in the order of the variables it was built with."""

_precision: str | None = None


def use_precision(precision: str) -> None:
    """Sets floatx, which is global to the process and read by layers, losses and optimizers as they are built.

    Raises:
      UserError: this process has already built Keras 3 models in the other precision.
    """
    global _precision
    if _precision not in (None, precision):
        raise UserError(
            f"this process already holds Keras 3 models in {_precision}, and floatx is global to a process: "
            f"build {precision} models in another one (tfport.remote.RemoteSubject does)."
        )
    _precision = precision
    keras.config.set_floatx(precision)


class KerasSubject(Subject):
    """A Subject made of compiled Keras models that are driven by train_on_batch."""

    networks: dict[str, Any]
    """Network -> its Keras model."""
    compiled: dict[str, Any]
    """Phase -> the compiled model whose train_on_batch runs it."""

    def __init__(self, spec: ModelSpec, precision: str, seed: int) -> None:
        use_precision(precision)
        self.spec = spec
        self.precision = precision
        keras.utils.set_random_seed(seed)
        self.build_models()
        # The same layers once more, with every layer's output: for looking inside, never for training.
        self.layers_of = {
            name: keras.Model(model.inputs, [layer.output for layer in model.layers])
            for name, model in self.networks.items()
        }
        self._by_name: dict[str, Any] = {}
        for network in spec.networks:
            for name in network.variable_shapes():
                _, layer, kind = name.split("/")
                variable = getattr(self.networks[network.name].get_layer(layer), kind)
                if variable is not None:
                    self._by_name[name] = variable
        self._names = {id(variable): name for name, variable in self._by_name.items()}
        self._forward_function = tf.function(self.outputs)
        self._gradient_functions = {phase: self._gradient_function(phase) for phase in self.compiled}

    @abc.abstractmethod
    def build_models(self) -> None:
        """Builds and compiles: sets `networks` and `compiled`, with every optimizer built."""

    @abc.abstractmethod
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[Array, Array]:
        """What the phase's train_on_batch is given: inputs and labels."""

    @abc.abstractmethod
    def outputs(self, x: Any, z: Any, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""

    def held(self, phase: str) -> list[Any]:
        """The variables that the phase's optimizer was built with."""
        return list(self.compiled[phase].optimizer._trainable_variables)

    # --- Structure ----------------------------------------------------------------------------------------------------
    def variables(self) -> tuple[VariableInfo, ...]:
        """Every variable of the model, owners read off the built optimizers."""
        owner = {id(variable): phase for phase in self.compiled for variable in self.held(phase)}
        return tuple(
            VariableInfo(
                name,
                variable.path,
                tuple(variable.shape),
                keras.backend.standardize_dtype(variable.dtype),
                id(variable) in owner,
                owner.get(id(variable)),
            )
            for name, variable in self._by_name.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Hyperparameters as the optimizers hold them."""
        return tuple(
            OptimizerInfo(
                phase,
                type(model.optimizer).__name__,
                {
                    name: float(getattr(model.optimizer, name))
                    for name in ("learning_rate", "beta_1", "beta_2", "epsilon")
                },
            )
            for phase, model in self.compiled.items()
        )

    # --- State --------------------------------------------------------------------------------------------------------
    def initialise(self, seed: int) -> None:
        """Builds the models again with their own initialisers and takes over the new values."""
        fresh = type(self)(self.spec, self.precision, seed)
        self.load(fresh.state())

    def _stateful(self) -> dict[str, Any]:
        """Canonical name -> variable, for weights, slots and counters."""
        found = dict(self._by_name)
        for phase, model in self.compiled.items():
            for slot, attribute in _SLOTS.items():
                for variable, held in zip(self.held(phase), getattr(model.optimizer, attribute), strict=True):
                    found[slot_name(phase, slot, self._names[id(variable)])] = held
            found[iterations_name(phase)] = model.optimizer.iterations
        return found

    def state(self) -> State:
        """A copy of the whole state."""
        return State(self.spec.name, {name: np.array(variable.numpy()) for name, variable in self._stateful().items()})

    def load(self, state: State) -> None:
        """Assigns every variable."""
        self.check_fits(state)
        for name, variable in self._stateful().items():
            value = state.arrays[name]
            variable.assign(value if name.endswith("/iterations") else value.astype(self.precision, copy=False))

    # --- Computation --------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """Every named output."""
        x, z = (tf.constant(batch[key], self.precision) for key in ("images", "latent"))
        return {name: value.numpy() for name, value in self._forward_function(x, z, training).items()}

    def _gradient_function(self, phase: str) -> Any:
        """A graph of the phase's compiled loss and its gradient: in a graph, as train_on_batch computes it."""
        model = self.compiled[phase]

        @tf.function
        def gradient(inputs: Any, labels: Any) -> list[Any]:
            values = [variable.value for variable in self.held(phase)]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(values)
                predicted = model(inputs, training=True)
                loss = model.compute_loss(x=inputs, y=labels, y_pred=predicted)
            gradients: list[Any] = tape.gradient(loss, values)
            return gradients

        return gradient

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """Gradients of the compiled loss for the variables that the phase's optimizer holds."""
        inputs, labels = self.phase_inputs(phase, batch)
        values = self._gradient_functions[phase](tf.constant(inputs), tf.constant(labels))
        return {
            self._names[id(variable)]: value.numpy()
            for variable, value in zip(self.held(phase), values, strict=True)
            if value is not None
        }

    # --- Checkpoint ---------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Writes one .weights.h5 a compiled model; Keras 3 puts the optimizer's variables beside the weights."""
        for phase, model in self.compiled.items():
            model.save_weights(folder / f"{phase}{_SUFFIX}")

    def restore(self, folder: Path) -> None:
        """Loads one .weights.h5 a compiled model."""
        try:
            for phase, model in self.compiled.items():
                model.load_weights(folder / f"{phase}{_SUFFIX}")
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder} cannot be restored into {self.spec.name} (keras3): {error}") from None
