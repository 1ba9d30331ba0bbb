"""What a random training program computes, as facts that every side interprets for itself, and how they are drawn."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass
from typing import Any

NORM_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")
LOOP_VARIABLES = ("kernel", "recurrent_kernel", "bias")


_CLIP_NAMES = {"clipvalue": "value", "clipnorm": "norm", "global_clipnorm": "global"}


# --- Facts ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Norm:
    """A batch normalisation over all axes but the last."""

    momentum: float
    epsilon: float
    feeds: str = "biased"
    """The variance that moves the moving one: "biased", "unbiased", or "none" where nothing moves."""
    frozen: bool = False
    """Whether it uses its moving statistics in training too."""


@dataclass(frozen=True)
class Layer:
    """Sum, normalisation, activation, scale, dropout: in this order."""

    name: str
    kind: str
    """ "dense" or "conv"."""
    inputs: int
    units: int
    activation: str
    initialiser: str = "glorot"
    size: int = 3
    stride: int = 1
    padding: str = "same"
    norm: Norm | None = None
    dropout: float = 0.0
    bias: bool = True
    first_bias: float = 0.0
    """The bias's initial value."""
    scale: float = 1.0
    adds_bias: bool = True
    """False: the bias is there, and left out of the sum."""
    trained: bool = True

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        square = (self.size, self.size) if self.kind == "conv" else ()
        return (*square, self.inputs, self.units)

    @property
    def square(self) -> bool:
        return self.kind == "dense" and self.inputs == self.units

    def variables(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, by the name that the ports give."""
        found = {f"{self.name}/kernel": self.kernel_shape}
        if self.bias:
            found[f"{self.name}/bias"] = (self.units,)
        if self.norm:
            found |= {f"{self.name}_norm/{kind}": (self.units,) for kind in NORM_VARIABLES}
        return found


@dataclass(frozen=True)
class Tokens:
    """Integers, each looked up in a table of vectors."""

    vocabulary: int
    """Ids are at most this less two, so that the next one has a row too."""
    length: int
    units: int
    reads: str
    """What becomes of an example's vectors: "mean", "flat", "picked" (one, by a second input), or "loop"."""
    shift: int = 0
    """What is added to an id."""
    beside: int = 0
    """What is added to the position that is picked."""


@dataclass(frozen=True)
class Loop:
    """A recurrence over time from a state of zeros; its last state goes on."""

    inputs: int
    units: int
    length: int
    activation: str
    bias: bool = True
    left_out: int = 0
    """How many of the last steps are not made."""
    backwards: bool = False

    @property
    def times(self) -> range:
        """The steps in their order."""
        made = range(self.length - self.left_out)
        return made[::-1] if self.backwards else made

    def variables(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        shapes = ((self.inputs, self.units), (self.units, self.units), (self.units,))
        return {
            f"loop/{kind}": shape
            for kind, shape in zip(LOOP_VARIABLES, shapes, strict=True)
            if self.bias or kind != "bias"
        }


@dataclass(frozen=True)
class Decay:
    """How the rate changes with the step. What a kind does not know is ignored."""

    kind: str
    """One of DECAYS."""
    steps: int
    """Where a piecewise one has its first boundary; the second is three times as far."""
    rate: float
    """Of a piecewise one: what every boundary multiplies the rate by."""
    staircase: bool = False
    end: float = 0.0
    """The share of the rate that a polynomial or a cosine ends at."""
    power: float = 1.0
    cycle: bool = False
    last: float = 1.0
    """What the last rate of a piecewise one is multiplied by."""

    @property
    def far(self) -> bool:
        """Whether it reaches beyond what a check runs."""
        return self.steps >= 100

    @property
    def flat(self) -> bool:
        """Whether nothing changes before `steps`."""
        return self.kind == "piecewise" or (self.staircase and self.kind in ("exponential", "inverse_time"))

    @property
    def boundaries(self) -> list[int]:
        return [self.steps, 3 * self.steps]

    def values(self, first: float) -> list[float]:
        """The rates between the boundaries."""
        return [first, first * self.rate, first * self.rate**2 * self.last]

    def at(self, first: float, step: int) -> float:
        """The rate at a step, by the formulas that TF1 and Keras document."""
        if self.kind == "piecewise":
            return self.values(first)[sum(step > boundary for boundary in self.boundaries)]
        if self.kind in ("exponential", "inverse_time"):
            passed = step // self.steps if self.staircase else step / self.steps
            return float(first * (self.rate**passed if self.kind == "exponential" else 1 / (1 + self.rate * passed)))
        if self.kind == "cosine":
            wave = (1 + math.cos(math.pi * min(step, self.steps) / self.steps)) / 2
            return first * ((1 - self.end) * wave + self.end)
        length = self.steps * (max(1, math.ceil(step / self.steps)) if self.cycle else 1)
        left = 1 - min(step, length) / length
        return float(first * ((1 - self.end) * left**self.power + self.end))


@dataclass(frozen=True)
class Clip:
    """How gradients are clipped before the optimizer takes them."""

    kind: str
    """ "value", "norm" (of each) or "global" (of all)."""
    bound: float


@dataclass(frozen=True)
class Optimizer:
    """An algorithm with every number stated; those that it does not know are ignored."""

    kind: str
    rate: float
    momentum: float = 0.9
    rho: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    decay: Decay | None = None
    clip: Clip | None = None
    weight_decay: float = 0.0
    first: float = 0.0
    """Where the slot starts that TF1 does not start at zero."""

    def number(self, name: str, step: int) -> float | None:
        """What it uses at a step under a name of Keras's, 0 where it does not; None where that is not known."""
        if name == "learning_rate":
            return self.decay.at(self.rate, step) if self.decay else self.rate
        if name in _CLIP_NAMES:
            return self.clip.bound if self.clip and _CLIP_NAMES[name] == self.clip.kind else 0.0
        if name == "momentum":
            return self.momentum if self.kind in ("Momentum", "Nesterov") else 0.0
        return getattr(self, name) if name in ("rho", "beta_1", "beta_2", "epsilon", "weight_decay") else None


@dataclass(frozen=True)
class Average:
    """A moving average of the output layer's kernel, that grows slower with the updates where they are counted."""

    decay: float
    counted: bool


@dataclass(frozen=True)
class Loss:
    """The objective, meant over everything."""

    kind: str
    """ "mse", "softmax", "sparse_softmax" or "sigmoid"."""
    weight: float = 1.0
    summed: bool = False
    shift: int = 0
    """What is added to a label."""
    rolled: int = 0
    """By how many examples the labels are rolled."""
    named: float = 1.0
    """What is named, or reported, over what is minimised: -1 where it is maximised."""
    root: bool = False
    """Whether the root of the objective is reported."""


@dataclass(frozen=True)
class Recipe:
    """A whole training program."""

    layers: tuple[Layer, ...]
    shape: tuple[int, ...]
    """The shape of one example."""
    batch: int
    loss: Loss
    optimizer: Optimizer
    l2: float = 0.0
    """Weight of the kernels' squares in the loss."""
    tokens: Tokens | None = None
    loop: Loop | None = None
    average: Average | None = None

    @property
    def classes(self) -> int:
        return self.layers[-1].units

    @property
    def picks(self) -> bool:
        """Whether a second input says which vector is picked."""
        return self.tokens is not None and self.tokens.reads == "picked"

    @property
    def parts(self) -> list[str]:
        """The names of what has variables, in order."""
        front = (["embed"] if self.tokens else []) + (["loop"] if self.loop else [])
        return [*front, *(layer.name for layer in self.layers)]

    def variables(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every variable."""
        found: dict[str, tuple[int, ...]] = {}
        if self.tokens:
            found["embed/embeddings"] = (self.tokens.vocabulary, self.tokens.units)
        if self.loop:
            found |= self.loop.variables()
        for layer in self.layers:
            found |= layer.variables()
        return found | ({"output/average": self.layers[-1].kernel_shape} if self.average else {})

    def layer_of(self, name: str) -> Layer:
        """The layer that has the variable of that name."""
        wanted = name.split("/")[0].removesuffix("_norm")
        return next(each for each in self.layers if each.name == wanted)

    def first_value(self, name: str) -> float:
        """What a variable starts as that is no kernel."""
        kind = name.split("/")[1]
        if kind == "bias":
            return 0.0 if name == "loop/bias" else self.layer_of(name).first_bias
        return float(kind in ("gamma", "moving_variance"))

    def initialiser(self, name: str) -> str:
        """How a variable starts: "embedding", "glorot", "normal", "truncated", "wide", "average" or "constant"."""
        part, kind = name.split("/")
        if kind in ("embeddings", "average"):
            return {"embeddings": "embedding", "average": "average"}[kind]
        if kind not in ("kernel", "recurrent_kernel"):
            return "constant"
        return "glorot" if part == "loop" else self.layer_of(name).initialiser

    def with_layer(self, index: int, **facts: Any) -> Recipe:
        """Another recipe, with one layer changed."""
        layers = list(self.layers)
        layers[index] = dataclasses.replace(layers[index], **facts)
        return dataclasses.replace(self, layers=tuple(layers))

    def with_optimizer(self, **facts: Any) -> Recipe:
        """Another recipe, with its optimizer changed."""
        return dataclasses.replace(self, optimizer=dataclasses.replace(self.optimizer, **facts))

    def with_loss(self, **facts: Any) -> Recipe:
        """Another recipe, with its loss changed."""
        return dataclasses.replace(self, loss=dataclasses.replace(self.loss, **facts))


# --- Drawing ----------------------------------------------------------------------------------------------------------
ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "elu", "softplus", "leaky_relu")
LOOP_ACTIVATIONS = ("tanh", "sigmoid", "relu", "softplus")
OPTIMIZERS = ("SGD", "Momentum", "Nesterov", "Adagrad", "RMSProp", "Adam")
LOSSES = ("mse", "softmax", "sparse_softmax", "sigmoid")
DECAYS = ("exponential", "inverse_time", "piecewise", "polynomial", "cosine")
CLIPS = ("value", "norm", "global")
CLIP_BOUNDS = {"value": (5e-4, 1e-3), "norm": (1e-3, 3e-3), "global": (2e-3, 1e-2)}
"""So small that every step clips, and that no two kinds or bounds give the same gradient."""
DECAYING = ("SGD", "Adagrad", "RMSProp", "Adam")
"""Where the port is equal under a rate that falls: Keras's velocity holds the rates that were, TF1's does not."""
LOOKED_UP = ("SGD", "Adam")
"""Where the port is equal for a table: TF1's other optimizers leave the slots of rows alone that no id names."""
_RATES = {
    "SGD": (0.01, 0.1),
    "Momentum": (0.005, 0.05),
    "Nesterov": (0.005, 0.05),
    "Adagrad": (0.01, 0.1),
    "RMSProp": (0.001, 0.01),
    "Adam": (0.001, 0.01),
}
_EPSILONS = {"Adam": (1e-8, 1e-7, 1e-6, 1e-4), "RMSProp": (1e-6, 1e-5, 1e-3)}


def _between(draws: random.Random, low: float, high: float) -> float:
    """A number of three digits."""
    return float(f"{draws.uniform(low, high):.3g}")


def _decay(draws: random.Random) -> Decay:
    return Decay(
        draws.choice(DECAYS),
        draws.choice((3, 5, 7, 1000, 1500, 4000)),
        _between(draws, 0.5, 0.9),
        draws.random() < 0.6,
        draws.choice((0.0, 0.1)),
        draws.choice((1.0, 2.0)),
        draws.random() < 0.3,
    )


def _optimizer(draws: random.Random, kinds: tuple[str, ...], clips: bool) -> Optimizer:
    kind = draws.choice(kinds)
    decay = _decay(draws) if kind in DECAYING and draws.random() < 0.4 else None
    clip_kind = draws.choice(CLIPS)
    clip = Clip(clip_kind, draws.choice(CLIP_BOUNDS[clip_kind])) if clips and draws.random() < 0.25 else None
    return Optimizer(
        kind,
        _between(draws, *_RATES[kind]),
        momentum=_between(draws, 0.5, 0.95),
        rho=_between(draws, 0.8, 0.95),
        beta_1=_between(draws, 0.5, 0.95),
        beta_2=_between(draws, 0.9, 0.999),
        epsilon=draws.choice(_EPSILONS.get(kind, (0.0,))),
        decay=decay,
        clip=clip,
        first={"Adagrad": draws.choice((0.1, 0.2)), "RMSProp": 1.0}.get(kind, 0.0),
    )


class _Stack:
    """The layers of a recipe, while they are drawn."""

    def __init__(self, draws: random.Random) -> None:
        self.draws, self.layers = draws, list[Layer]()
        self.normed, self.dropped = draws.random() < 0.3, draws.random() < 0.3
        self.initialiser = draws.choice(("glorot", "glorot", "normal", "truncated"))

    def add(self, kind: str, inputs: int, units: int, last: bool = False, **facts: Any) -> int:
        """One more layer; returns its units."""
        draws = self.draws
        norm = None
        if self.normed and not last and draws.random() < 0.7:
            norm = Norm(_between(draws, 0.7, 0.99), draws.choice((1e-5, 1e-3, 1e-2)))
        layer = Layer(
            "output" if last else f"{kind}{len(self.layers) + 1}",
            kind,
            inputs,
            units,
            "linear" if last else draws.choice(ACTIVATIONS),
            self.initialiser,
            norm=norm,
            dropout=_between(draws, 0.1, 0.6) if self.dropped and not last and draws.random() < 0.7 else 0.0,
            bias=draws.random() < (0.5 if norm else 0.9),
            first_bias=draws.choice((0.0, 0.0, 0.1)),
            **facts,
        )
        self.layers.append(layer)
        return units

    def convolutions(self, side: int, channels: int, count: int) -> int:
        """Some convolutions of squares; returns how many numbers an example of the last one has."""
        for _ in range(count):
            filters, stride = self.draws.randint(2, 4), self.draws.choice((1, 2))
            padding = self.draws.choice(("same", "valid")) if side >= 3 else "same"
            channels = self.add("conv", channels, filters, stride=stride, padding=padding)
            side = -(-(side if padding == "same" else side - 2) // stride)
        return side * side * channels


def _tokens(draws: random.Random, picks: bool) -> Tokens:
    reads = draws.choice(("mean", "flat", "loop", *(("picked", "picked") if picks else ())))
    return Tokens(draws.randint(8, 14), draws.randint(3, 6), draws.randint(3, 6), reads)


def _loop(draws: random.Random, tokens: Tokens | None) -> Loop:
    inputs, length = (tokens.units, tokens.length) if tokens else (draws.randint(2, 5), draws.randint(3, 6))
    return Loop(inputs, draws.randint(3, 6), length, draws.choice(LOOP_ACTIVATIONS), draws.random() < 0.8)


def recipe(draws: random.Random, paradigm: str) -> Recipe:
    """A random training program that a port of that paradigm can compute."""
    stack = _Stack(draws)
    compiled = paradigm in ("keras3", "tf_keras")
    front = draws.choices(("vector", "image", "tokens", "sequence"), (45, 18, 22, 15))[0]
    depth, width = draws.randint(1, 4 if front in ("vector", "image") else 2), draws.randint(3, 17)
    tokens = _tokens(draws, picks=paradigm == "tf_module") if front == "tokens" else None
    loop = _loop(draws, tokens) if front == "sequence" or (tokens and tokens.reads == "loop") else None
    if front == "image":
        side, channels = draws.randint(4, 6), draws.randint(1, 3)
        shape: tuple[int, ...] = (side, side, channels)
        inputs = stack.convolutions(side, channels, min(depth - 1, draws.randint(1, 2)))
    elif tokens:
        shape = (tokens.length,)
        inputs = tokens.units * (tokens.length if tokens.reads == "flat" else 1)
    else:
        inputs = width if draws.random() < 0.6 else draws.randint(3, 17)
        shape = (loop.length, loop.inputs) if loop else (inputs,)
    if loop:
        inputs = loop.units
    while len(stack.layers) < depth - 1:
        inputs = stack.add("dense", inputs, width if draws.random() < 0.7 else draws.randint(3, 17))
    classes = inputs if inputs <= 17 and draws.random() < 0.2 else draws.randint(3, 10)
    stack.add("dense", inputs, classes, last=True)
    kinds = OPTIMIZERS if tokens is None else LOOKED_UP[: 1 if paradigm == "keras3" else 2]
    return Recipe(
        tuple(stack.layers),
        shape,
        draws.randint(4, 16),
        Loss(draws.choice(LOSSES), named=draws.choice((1.0, 1.0, 1.0, -1.0, -1.0, 100.0))),
        _optimizer(draws, kinds, clips=not (tokens and compiled)),
        draws.choice((1e-3, 1e-2)) if draws.random() < 0.15 else 0.0,
        tokens,
        loop,
        Average(draws.choice((0.99, 0.9999)), draws.random() < 0.7)
        if paradigm == "tf_module" and draws.random() < 0.25
        else None,
    )
