"""What every Keras 3 model needs once: floatx, state by canonical name, gradients, and its checkpoint."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf2_eager.keras3.layers import ACTIVATION
from tfport.errors import CheckpointError, UserError
from tfport.models.spec import ModelSpec, Network
from tfport.state import State, iterations_name, slot_name
from tfport.subject import Array, Batch, OptimizerInfo, Subject, VariableInfo

_SUFFIX = ".weights.h5"


@dataclass(frozen=True)
class _Rule:
    """Where one of Keras's optimizers keeps what; slot lists are in the order of the variables it was built with."""

    algorithm: str
    numbers: tuple[str, ...]
    slots: dict[str, str]


_RULES = {
    keras.optimizers.Adam: _Rule(
        "Adam", ("learning_rate", "beta_1", "beta_2", "epsilon"), {"m": "_momentums", "v": "_velocities"}
    ),
    keras.optimizers.RMSprop: _Rule("RMSProp", ("learning_rate", "rho", "epsilon"), {"rms": "_velocities"}),
}


def _rule(optimizer: Any) -> _Rule:
    return next(rule for kind, rule in _RULES.items() if isinstance(optimizer, kind))


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

    paradigm = "keras3"
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
        self.optimizer_by_name = {
            spec.phase(phase).optimizer: model.optimizer for phase, model in self.compiled.items()
        }
        # The same layers once more, with every layer's output: for looking inside, never for training.
        self.layers_of = {network.name: self._with_all_outputs(network) for network in spec.networks}
        self._by_name: dict[str, Any] = {}
        for network in spec.networks:
            for name in network.variable_shapes():
                _, layer, kind = name.split("/")
                variable = getattr(self.networks[network.name].get_layer(layer), kind)
                if variable is not None:
                    self._by_name[name] = variable
        self._names = {id(variable): name for name, variable in self._by_name.items()}
        self._statistics = [self._by_name[name] for name, each in spec.variables().items() if not each.trainable]
        self._forward_function = tf.function(self._listed_outputs)
        self._gradient_functions = {phase: self._gradient_function(phase) for phase in self.compiled}

    def _with_all_outputs(self, network: Network) -> Any:
        model = self.networks[network.name]
        present = {layer.name for layer in model.layers}
        outputs = [
            model.get_layer(layer.name + ACTIVATION if layer.name + ACTIVATION in present else layer.name).output
            for layer in network.layers
        ]
        return keras.Model(model.inputs, outputs)

    @abc.abstractmethod
    def build_models(self) -> None:
        """Builds and compiles: sets `networks` and `compiled`, with every optimizer built."""

    @abc.abstractmethod
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[Any, Any]:
        """What the phase's train_on_batch is given: inputs and labels, each an array or several."""

    @abc.abstractmethod
    def outputs(self, batch: Batch, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""

    def named(self, network: str, inputs: Any, training: bool, suffix: str = "") -> dict[str, Any]:
        """Every layer's output of one network, by `<network>/<layer><suffix>`."""
        values = self.layers_of[network](inputs, training=training)
        layers = self.spec.network(network).layers
        values = values if isinstance(values, list | tuple) else [values]
        return {f"{network}/{layer.name}{suffix}": value for layer, value in zip(layers, values, strict=True)}

    def _listed_outputs(self, batch: Batch, training: bool) -> list[Any]:
        """The outputs without their names, which are kept when it is traced: a tf.function sorts a dict's keys."""
        found = self.outputs(batch, training)
        self._output_names = list(found)
        return list(found.values())

    def held(self, optimizer: str) -> list[Any]:
        """The variables that the optimizer was built with."""
        return list(self.optimizer_by_name[optimizer]._trainable_variables)

    # --- Structure ----------------------------------------------------------------------------------------------------
    def variables(self) -> tuple[VariableInfo, ...]:
        """Every variable of the model, owners read off the built optimizers."""
        held = {name: {id(variable) for variable in self.held(name)} for name in self.optimizer_by_name}
        return tuple(
            VariableInfo(
                name,
                variable.path,
                tuple(variable.shape),
                keras.backend.standardize_dtype(variable.dtype),
                any(id(variable) in each for each in held.values()),
                tuple(each for each, ids in held.items() if id(variable) in ids),
            )
            for name, variable in self._by_name.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Hyperparameters as the optimizers hold them."""
        return tuple(
            OptimizerInfo(
                name,
                _rule(optimizer).algorithm + getattr(optimizer, "algorithm_suffix", ""),
                {number: float(getattr(optimizer, number)) for number in _rule(optimizer).numbers},
            )
            for name, optimizer in self.optimizer_by_name.items()
        )

    # --- State --------------------------------------------------------------------------------------------------------
    def initialise(self, seed: int) -> None:
        """Builds the models again with their own initialisers and takes over the new values."""
        fresh = type(self)(self.spec, self.precision, seed)
        self.load(fresh.state())

    def _stateful(self) -> dict[str, Any]:
        """Canonical name -> variable, for weights, moving statistics, slots and counters."""
        found = dict(self._by_name)
        for name, optimizer in self.optimizer_by_name.items():
            for slot, attribute in _rule(optimizer).slots.items():
                for variable, held in zip(self.held(name), getattr(optimizer, attribute), strict=True):
                    found[slot_name(name, slot, self._names[id(variable)])] = held
            found[iterations_name(name)] = optimizer.iterations
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

    # --- Training step ------------------------------------------------------------------------------------------------
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """One train_on_batch; Keras minimises, so where the source maximises, its loss is the negative."""
        inputs, labels = self.phase_inputs(phase, batch)
        reported = np.atleast_1d(self.compiled[phase].train_on_batch(inputs, labels))
        about = self.spec.phase(phase)
        if len(getattr(self.compiled[phase], "outputs", None) or ()) > 1:
            reported = reported[:1]  # the total; the losses it is made of follow it
        values = dict(zip(about.reports, map(float, reported), strict=True))
        if about.sense == "maximised":
            values[about.loss] = -values[about.loss]
        return values

    def step(self, batch: Batch) -> dict[str, float]:
        """The phases in order, each a train_on_batch of its own that sees what the one before has moved."""
        reports: dict[str, float] = {}
        for phase in self.phases:
            reports |= self.run_phase(phase, batch)
        return reports

    # --- Computation --------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _put_back(self, *models: Any) -> Iterator[None]:
        """Puts moving statistics, and the metrics of some models, back: Keras moves them whenever it computes."""
        metrics = [variable for model in models for metric in model.metrics for variable in metric.variables]
        held = [(variable, np.array(variable.numpy())) for variable in [*self._statistics, *metrics]]
        yield
        for variable, value in held:
            variable.assign(value)

    def tensors(self, batch: Batch) -> dict[str, Any]:
        """The batch as tensors of the run's dtype."""
        return {name: tf.constant(value, self.precision) for name, value in batch.items()}

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """Every named output, in the order of computation."""
        with self._put_back():
            values = self._forward_function(self.tensors(batch), training)
        return {name: value.numpy() for name, value in zip(self._output_names, values, strict=True)}

    def _gradient_function(self, phase: str) -> Any:
        """A graph of the phase's compiled loss and its gradient: in a graph, as train_on_batch computes it."""
        model = self.compiled[phase]

        @tf.function
        def gradient(inputs: Any, labels: Any) -> list[Any]:
            values = [variable.value for variable in self.held(self.spec.phase(phase).optimizer)]
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
        with self._put_back(self.compiled[phase]):
            values = self._gradient_functions[phase](*tf.nest.map_structure(tf.constant, (inputs, labels)))
        return {
            self._names[id(variable)]: value.numpy()
            for variable, value in zip(self.held(self.spec.phase(phase).optimizer), values, strict=True)
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
