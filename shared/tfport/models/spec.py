"""The vocabulary in which a model's facts are written down: frozen dataclasses and no builder.

A spec says what the source says (sizes, initialisers, hyperparameters, update protocol). It never builds layers:
each paradigm writes the model out again by hand and takes only the numbers from here.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Shape = tuple[int, ...]


def float32(value: float) -> float:
    """The float64 that holds `value` rounded to float32.

    TF1's optimizers keep their hyperparameters in float32 whatever the variables' dtype. Giving every paradigm the
    rounded number makes the paradigms one algorithm in float64 too.
    """
    return float(np.float32(value))


# --- Initial values ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Normal:
    """Drawn from N(0, stddev)."""

    stddev: float


@dataclass(frozen=True)
class Uniform:
    """Drawn from U(-limit, limit)."""

    limit: float


@dataclass(frozen=True)
class GlorotUniform:
    """Drawn from U(-limit, limit) with limit = sqrt(6 / (fan in + fan out)); Glorot and Bengio 2010."""

    def limit(self, shape: Shape) -> float:
        """The limit for a kernel [..., inputs, outputs]; leading dimensions are those of a convolution's window."""
        window = math.prod(shape[:-2])
        return math.sqrt(6.0 / (window * (shape[-2] + shape[-1])))


@dataclass(frozen=True)
class Constant:
    """The same number everywhere."""

    value: float


Initialiser = Normal | Uniform | GlorotUniform | Constant
ZEROS, ONES = Constant(0.0), Constant(1.0)


@dataclass(frozen=True)
class VariableSpec:
    """One variable of a layer."""

    shape: Shape
    initialiser: Initialiser
    trainable: bool = True


# --- Layers -----------------------------------------------------------------------------------------------------------
ActivationName = Literal["relu", "leaky_relu", "sigmoid", "tanh", "linear"]


@dataclass(frozen=True)
class Dense:
    """A fully connected layer: `activation(inputs @ kernel + bias)`, kernel [inputs, units], bias [units]."""

    name: str
    inputs: int
    units: int
    activation: ActivationName
    kernel: Initialiser = GlorotUniform()
    bias: Initialiser = ZEROS
    slope: float = 0.0
    """Of leaky_relu, below zero."""

    def variables(self) -> dict[str, VariableSpec]:
        """Kind -> what it is, in the order of computation."""
        return {
            "kernel": VariableSpec((self.inputs, self.units), self.kernel),
            "bias": VariableSpec((self.units,), self.bias),
        }

    @property
    def output_shape(self) -> Shape:
        """Shape of one example's output."""
        return (self.units,)


@dataclass(frozen=True)
class Activation:
    """An activation that stands alone; it has no variables."""

    name: str
    units: int
    activation: ActivationName
    slope: float = 0.0

    @property
    def inputs(self) -> int:
        """Width of its input, which is that of its output."""
        return self.units

    def variables(self) -> dict[str, VariableSpec]:
        """None."""
        return {}

    @property
    def output_shape(self) -> Shape:
        """Shape of one example's output."""
        return (self.units,)


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation over the last axis, then an activation; Ioffe and Szegedy 2015, arXiv:1502.03167.

    The moving statistics are `momentum * old + (1 - momentum) * batch`, with momentum in the sense of Keras.
    """

    name: str
    shape: Shape
    """Shape of one example: [units], or [height, width, channels]."""
    momentum: float
    epsilon: float
    activation: ActivationName = "linear"
    slope: float = 0.0
    unbiased: bool = False
    """Whether the moving variance is fed n / (n - 1) times the batch's, as PyTorch does."""

    def __post_init__(self) -> None:
        for field in ("momentum", "epsilon"):
            object.__setattr__(self, field, float32(getattr(self, field)))

    @property
    def units(self) -> int:
        """Number of channels."""
        return self.shape[-1]

    @property
    def inputs(self) -> int:
        """Number of channels."""
        return self.shape[-1]

    def variables(self) -> dict[str, VariableSpec]:
        """Kind -> what it is; the moving statistics are not trained."""
        channels = (self.units,)
        return {
            "gamma": VariableSpec(channels, ONES),
            "beta": VariableSpec(channels, ZEROS),
            "moving_mean": VariableSpec(channels, ZEROS, trainable=False),
            "moving_variance": VariableSpec(channels, ONES, trainable=False),
        }

    @property
    def output_shape(self) -> Shape:
        """Shape of one example's output."""
        return self.shape


@dataclass(frozen=True)
class Conv:
    """A convolution with 'same' padding: kernel [size, size, inputs, units], bias [units], images [H, W, C]."""

    name: str
    inputs: int
    units: int
    size: int
    stride: int
    side: int
    """Height and width of the output."""
    activation: ActivationName
    kernel: Initialiser = GlorotUniform()
    slope: float = 0.0
    transposed: bool = False
    """A transposed convolution: it enlarges by the stride, and its kernel is [size, size, units, inputs]."""

    def variables(self) -> dict[str, VariableSpec]:
        """Kind -> what it is, in the order of computation."""
        ends = (self.units, self.inputs) if self.transposed else (self.inputs, self.units)
        return {
            "kernel": VariableSpec((self.size, self.size, *ends), self.kernel),
            "bias": VariableSpec((self.units,), ZEROS),
        }

    @property
    def output_shape(self) -> Shape:
        """Shape of one example's output."""
        return (self.side, self.side, self.units)


Layer = Dense | Activation | BatchNorm | Conv


@dataclass(frozen=True)
class Network:
    """Layers under one name; their variables are called `<network>/<layer>/<kind>`."""

    name: str
    layers: tuple[Layer, ...]

    def layer(self, name: str) -> Layer:
        """The layer of that name; KeyError when there is none."""
        return {layer.name: layer for layer in self.layers}[name]

    def variables(self) -> dict[str, VariableSpec]:
        """Canonical name -> what it is, in the order of computation."""
        return {
            f"{self.name}/{layer.name}/{kind}": variable
            for layer in self.layers
            for kind, variable in layer.variables().items()
        }

    @property
    def parameters(self) -> int:
        """Number of elements, moving statistics with them."""
        return sum(math.prod(variable.shape) for variable in self.variables().values())

    @property
    def non_trainable(self) -> int:
        """Number of elements that no optimizer moves."""
        return sum(math.prod(each.shape) for each in self.variables().values() if not each.trainable)

    @property
    def inputs(self) -> int:
        """Width of the network's input."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Width of the network's output."""
        return self.layers[-1].units

    def variable_shapes(self) -> dict[str, Shape]:
        """Canonical variable name -> shape, in the order of computation."""
        return {name: variable.shape for name, variable in self.variables().items()}


# --- Optimizers -------------------------------------------------------------------------------------------------------
class _Rounded:
    """Every number of an optimizer is rounded to float32."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, float):
                object.__setattr__(self, name, float32(value))


@dataclass(frozen=True)
class Adam(_Rounded):
    """Adam; all numbers rounded to float32."""

    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float
    epsilon_after_correction: bool = False
    """False: epsilon is added to sqrt(v) as it is (TF1, Keras); True: after its bias correction (PyTorch)."""

    algorithm = "Adam"
    slots = ("m", "v")


@dataclass(frozen=True)
class RMSProp(_Rounded):
    """RMSProp without momentum, its mean square starting at zero; all numbers rounded to float32."""

    learning_rate: float
    rho: float
    epsilon: float
    """Added to the mean square under the root."""

    algorithm = "RMSProp"
    slots = ("rms",)


Optimizer = Adam | RMSProp


# --- The training step ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Input:
    """One array that a training step is fed."""

    name: str
    width: int
    kind: Literal["images", "labels", "normal", "uniform", "category"]
    """Images of the data, their labels as one-hot rows, or drawn: N(0, scale), U(-scale, scale), one-hot rows."""
    scale: float = 1.0


@dataclass(frozen=True)
class Phase:
    """One optimizer step of the training step: who moves, by which optimizer, and what the source calls its loss."""

    name: str
    optimizer: str
    moves: tuple[str, ...]
    """The networks, or `<network>/<layer>`, whose trained variables this phase moves; no others may move."""
    loss: str
    """Name of the loss in reports and tables."""
    formula: str
    """The loss as the source states it."""
    sense: Literal["maximised", "minimised"]
    accuracy: str | None = None
    """Name of the binary accuracy that the source reports beside the loss."""
    statistics: tuple[str, ...] = ()
    """The networks whose moving statistics this phase moves."""

    @property
    def reports(self) -> tuple[str, ...]:
        """The names of what this phase reports, the loss first."""
        return (self.loss,) if self.accuracy is None else (self.loss, self.accuracy)


@dataclass(frozen=True)
class UpdateProtocol:
    """How a GAN's training step is composed; ports differ in this silently."""

    discriminator: Literal["joint", "half_steps"]
    """One update on real and fake together, or one on each."""
    order: Literal["alternating", "simultaneous"]
    """Whether the generator's gradient is taken after the discriminator's update, or both before either."""
    generator_noise: Literal["same", "fresh"]
    """Whether the generator's step takes the discriminator's z or draws another."""
    fakes: Literal["training", "inference"] = "inference"
    """Mode of the generator's batch normalisation when it makes fakes for the discriminator's step."""
    frozen_discriminator: Literal["training", "inference"] = "inference"
    """Mode of the discriminator's batch normalisation in the generator's step."""


@dataclass(frozen=True)
class Logged:
    """A column of the log: a weighted sum of reports."""

    name: str
    terms: tuple[tuple[float, str], ...]
    """(weight, report)."""
    percent: bool = False
    """An accuracy in percent, and no loss."""

    def value(self, reports: dict[str, float]) -> float:
        """The column's value from a step's reports; in the order of the terms, so that bits repeat."""
        total = 0.0
        for weight, name in self.terms:
            total += weight * reports[name]
        return total


@dataclass(frozen=True)
class Batching:
    """How batches are drawn."""

    batch_size: int
    draw: Literal["permutation", "replacement"]
    """`permutation`: every epoch is a new order of the training set. `replacement`: every image of every batch is
    drawn from the whole set."""
    last_batch: Literal["drop", "keep"]
    """What becomes of an epoch's last batch when it is short; nothing is short with replacement."""
    held_out: int
    """Leading images left out of the full 60,000-image file (the source's reader kept them for validation)."""


@dataclass(frozen=True)
class Samples:
    """How the source shows samples, from inputs that stay the same through the run."""

    kind: Literal["grid", "reconstructions", "manifold", "by_label", "by_code"]
    rows: int
    columns: int
    every: int
    """Steps between two pictures."""
    inputs: tuple[str, ...]
    """What `generate` is given."""


@dataclass(frozen=True)
class ModelSpec:
    """Everything a paradigm needs to know of one model."""

    name: str
    family: str
    """The module in each paradigm that implements it; variants of a model share one."""
    source: str
    networks: tuple[Network, ...]
    inputs: tuple[Input, ...]
    image_size: int
    """Images are image_size x image_size, grey, flattened row by row."""
    data_range: tuple[float, float]
    optimizers: tuple[tuple[str, Optimizer], ...]
    """(name, numbers)."""
    phases: tuple[Phase, ...]
    """In the order they run."""
    logged: tuple[Logged, ...]
    protocol: UpdateProtocol | None
    """None where there is no discriminator."""
    batching: Batching
    samples: Samples
    steps: int
    """Length of the source's own run, in training steps."""
    steps_per_epoch: int
    """Steps in the source's epoch."""
    log_every: int
    """Steps between two lines of the source's log."""
    loss_unit: str = "nats"
    variant: str = ""
    """What tells this spec from others of its family; where losses differ, implementations ask for it."""

    @property
    def pixels(self) -> int:
        """Width of a flattened image."""
        return self.image_size**2

    @property
    def parameters(self) -> int:
        """Elements in all networks, moving statistics with them."""
        return sum(network.parameters for network in self.networks)

    @property
    def reports(self) -> tuple[str, ...]:
        """The names of all that a step reports, in order."""
        return tuple(name for phase in self.phases for name in phase.reports)

    def network(self, name: str) -> Network:
        """The network of that name; KeyError when there is none."""
        return {network.name: network for network in self.networks}[name]

    def phase(self, name: str) -> Phase:
        """The phase of that name; KeyError when there is none."""
        return {phase.name: phase for phase in self.phases}[name]

    def optimizer(self, name: str) -> Optimizer:
        """The numbers of the optimizer of that name; KeyError when there is none."""
        return dict(self.optimizers)[name]

    def width(self, name: str) -> int:
        """Width of the input of that name; KeyError when there is none."""
        return {each.name: each.width for each in self.inputs}[name]

    def variables(self) -> dict[str, VariableSpec]:
        """Canonical name -> what it is, networks in order."""
        return {name: each for network in self.networks for name, each in network.variables().items()}

    def variable_shapes(self) -> dict[str, Shape]:
        """Canonical name -> shape of every variable, networks in order."""
        return {name: variable.shape for name, variable in self.variables().items()}

    def cancelled(self) -> dict[str, str]:
        """Biases right before a batch normalisation, which takes them away again: bias -> the moving mean behind it.

        In training mode their gradients are 0 in exact arithmetic, so what is computed is rounding and nothing else.
        """
        return {
            f"{network.name}/{layer.name}/bias": f"{network.name}/{after.name}/moving_mean"
            for network in self.networks
            for layer, after in itertools.pairwise(network.layers)
            if isinstance(after, BatchNorm) and isinstance(layer, Dense | Conv) and layer.activation == "linear"
        }

    def held(self, optimizer: str) -> list[str]:
        """The variables that an optimizer moves, in the order of computation."""
        moved = {place for phase in self.phases if phase.optimizer == optimizer for place in phase.moves}
        return [
            name
            for name, variable in self.variables().items()
            if variable.trainable and any(name.startswith(f"{place}/") for place in moved)
        ]
