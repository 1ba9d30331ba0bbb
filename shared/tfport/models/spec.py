"""The vocabulary in which a model's facts are written down: frozen dataclasses and no builder.

A spec says what the source says (sizes, initialisers, hyperparameters, update protocol). It never builds layers:
each paradigm writes the model out again by hand and takes only the numbers from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


def float32(value: float) -> float:
    """The float64 that holds `value` rounded to float32.

    TF1's optimizers keep their hyperparameters in float32 whatever the variables' dtype. Giving every paradigm the
    rounded number makes the paradigms one algorithm in float64 too.
    """
    return float(np.float32(value))


@dataclass(frozen=True)
class Dense:
    """A fully connected layer: `activation(inputs @ kernel + bias)`, kernel [inputs, units], bias [units]."""

    name: str
    inputs: int
    units: int
    activation: Literal["relu", "sigmoid", "linear"]
    kernel_stddev: float
    """Kernel drawn from N(0, kernel_stddev); biases start at zero."""

    @property
    def parameters(self) -> int:
        """Number of trained numbers: kernel and bias."""
        return self.inputs * self.units + self.units


@dataclass(frozen=True)
class Network:
    """A stack of layers under one name; its variables are called `<network>/<layer>/kernel` and `.../bias`."""

    name: str
    layers: tuple[Dense, ...]

    @property
    def parameters(self) -> int:
        """Number of trained numbers in the network."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def inputs(self) -> int:
        """Width of the network's input."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Width of the network's output."""
        return self.layers[-1].units

    def variable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical variable name -> shape, in the order of computation."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in self.layers:
            shapes[f"{self.name}/{layer.name}/kernel"] = (layer.inputs, layer.units)
            shapes[f"{self.name}/{layer.name}/bias"] = (layer.units,)
        return shapes


@dataclass(frozen=True)
class Adam:
    """Adam in TF1's form (epsilon added to sqrt(v) before the bias correction); all numbers rounded to float32."""

    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float

    def __post_init__(self) -> None:
        for field in ("learning_rate", "beta_1", "beta_2", "epsilon"):
            object.__setattr__(self, field, float32(getattr(self, field)))


@dataclass(frozen=True)
class Phase:
    """One optimizer step of the training step: who moves, by which optimizer, and what the source calls its loss."""

    name: str
    network: str
    """The network whose variables this phase moves; no other variable may move."""
    loss: str
    """Name of the loss in logs and tables."""
    formula: str
    """The loss as the source states it."""
    sense: Literal["maximised", "minimised"]


@dataclass(frozen=True)
class UpdateProtocol:
    """How a training step is composed; ports differ in this silently."""

    discriminator: Literal["joint", "half_steps"]
    """One update on real and fake together, or one on each."""
    order: Literal["alternating", "simultaneous"]
    """Whether the generator's gradient is taken after the discriminator's update, or both before either."""
    generator_noise: Literal["same", "fresh"]
    """Whether the generator's step takes the discriminator's z or draws another."""


@dataclass(frozen=True)
class Batching:
    """How batches are drawn."""

    batch_size: int
    draw: Literal["permutation"]
    """`permutation`: every epoch is a new order of the whole training set."""
    last_batch: Literal["drop", "keep"]
    """What becomes of an epoch's last batch when it is short."""
    held_out: int
    """Leading images left out of the full 60,000-image file (the source's reader kept them for validation)."""


@dataclass(frozen=True)
class SampleGrid:
    """How the source shows samples: a grid from noise that stays the same through the run."""

    rows: int
    columns: int
    every_epochs: int


@dataclass(frozen=True)
class ModelSpec:
    """Everything a paradigm needs to know of one model."""

    name: str
    source: str
    networks: tuple[Network, ...]
    latent: int
    """Width of z."""
    image_size: int
    """Images are image_size x image_size, grey, flattened row by row."""
    data_range: tuple[float, float]
    optimizers: tuple[tuple[str, Adam], ...]
    """(phase name, its optimizer) in the order the phases run."""
    phases: tuple[Phase, ...]
    protocol: UpdateProtocol
    batching: Batching
    samples: SampleGrid
    steps: int
    """Length of the source's own run, in training steps."""
    steps_per_epoch: int
    """Steps in the source's epoch."""

    @property
    def pixels(self) -> int:
        """Width of a flattened image."""
        return self.image_size**2

    @property
    def parameters(self) -> int:
        """Trained numbers in all networks."""
        return sum(network.parameters for network in self.networks)

    def network(self, name: str) -> Network:
        """The network of that name; KeyError when there is none."""
        return {network.name: network for network in self.networks}[name]

    def phase(self, name: str) -> Phase:
        """The phase of that name; KeyError when there is none."""
        return {phase.name: phase for phase in self.phases}[name]

    def optimizer(self, phase: str) -> Adam:
        """The optimizer of that phase; KeyError when there is none."""
        return dict(self.optimizers)[phase]

    def variable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name -> shape of every trained variable, networks in order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for network in self.networks:
            shapes |= network.variable_shapes()
        return shapes

    def kernel_stddev(self, variable: str) -> float:
        """Standard deviation of that variable's initial values; 0.0 for a bias."""
        network, layer, kind = variable.split("/")
        if kind == "bias":
            return 0.0
        return next(each.kernel_stddev for each in self.network(network).layers if each.name == layer)
