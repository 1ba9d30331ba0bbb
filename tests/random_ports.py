"""Random training programs as TF1 graphs with ports of them, correct ones and ones with a single planted change.

`port(seed)` is a correct port, `broken(seed)` the same with one change of `CHANGES`. Both sides are interpreted from a
`Recipe`, by code that shares nothing: a mistake of one interpreter shows as a false alarm. A command line names the
sides as `random_ports:port_5_legacy`, `random_ports:broken_12_modern` and so on.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
PARADIGMS = ("keras3", "tf_keras", "tf_module")
NORM_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")


# --- Recipes ----------------------------------------------------------------------------------------------------------
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
class Decay:
    """How the rate falls."""

    kind: str
    """ "exponential" or "inverse_time"."""
    steps: int
    rate: float
    staircase: bool


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
    clip: float = 0.0
    """Largest norm of each gradient; 0 where nothing is clipped."""
    weight_decay: float = 0.0
    first: float = 0.0
    """Where the slot starts that TF1 does not start at zero."""


@dataclass(frozen=True)
class Loss:
    """The objective, meant over everything."""

    kind: str
    """ "mse", "softmax", "sparse_softmax" or "sigmoid"."""
    weight: float = 1.0
    summed: bool = False
    shift: int = 0
    """What is added to a label."""
    reported: float = 1.0
    """What is reported over what is minimised."""


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

    @property
    def classes(self) -> int:
        return self.layers[-1].units

    def variables(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every variable."""
        return {name: shape for layer in self.layers for name, shape in layer.variables().items()}

    def with_layer(self, index: int, **facts: Any) -> Recipe:
        """Another recipe, with one layer changed."""
        layers = list(self.layers)
        layers[index] = dataclasses.replace(layers[index], **facts)
        return dataclasses.replace(self, layers=tuple(layers))

    def with_norm(self, index: int, **facts: Any) -> Recipe:
        """Another recipe, with the normalisation of one layer changed."""
        norm = self.layers[index].norm
        assert norm is not None
        return self.with_layer(index, norm=dataclasses.replace(norm, **facts))

    def with_optimizer(self, **facts: Any) -> Recipe:
        """Another recipe, with its optimizer changed."""
        return dataclasses.replace(self, optimizer=dataclasses.replace(self.optimizer, **facts))

    def with_loss(self, **facts: Any) -> Recipe:
        """Another recipe, with its loss changed."""
        return dataclasses.replace(self, loss=dataclasses.replace(self.loss, **facts))


# --- Drawing a recipe -------------------------------------------------------------------------------------------------
ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "elu", "softplus", "leaky_relu")
OPTIMIZERS = ("SGD", "Momentum", "Nesterov", "Adagrad", "RMSProp", "Adam")
DECAYING = ("SGD", "Adagrad", "RMSProp", "Adam")
"""Where the port is equal under a rate that falls: Keras's velocity holds the rates that were, TF1's does not."""
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


def _optimizer(draws: random.Random) -> Optimizer:
    kind = draws.choice(OPTIMIZERS)
    decay = None
    if kind in DECAYING and draws.random() < 0.3:
        decay = Decay(
            draws.choice(("exponential", "inverse_time")),
            draws.choice((3, 5, 7)),
            _between(draws, 0.5, 0.95),
            draws.random() < 0.5,
        )
    return Optimizer(
        kind,
        _between(draws, *_RATES[kind]),
        momentum=_between(draws, 0.5, 0.95),
        rho=_between(draws, 0.8, 0.95),
        beta_1=_between(draws, 0.5, 0.95),
        beta_2=_between(draws, 0.9, 0.999),
        epsilon=draws.choice(_EPSILONS.get(kind, (0.0,))),
        decay=decay,
        first={"Adagrad": draws.choice((0.1, 0.2)), "RMSProp": 1.0}.get(kind, 0.0),
    )


def _layers(draws: random.Random) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
    """The layers, and the shape of one example."""
    normed, dropped = draws.random() < 0.35, draws.random() < 0.35
    initialiser = draws.choice(("glorot", "glorot", "normal", "truncated"))
    layers: list[Layer] = []

    def add(kind: str, inputs: int, units: int, last: bool = False, **facts: Any) -> None:
        name = "output" if last else f"{kind}{len(layers) + 1}"
        norm = None
        if normed and not last and draws.random() < 0.7:
            norm = Norm(_between(draws, 0.7, 0.99), draws.choice((1e-5, 1e-3, 1e-2)))
        layers.append(
            Layer(
                name,
                kind,
                inputs,
                units,
                "linear" if last else draws.choice(ACTIVATIONS),
                initialiser,
                norm=norm,
                dropout=_between(draws, 0.1, 0.6) if dropped and not last and draws.random() < 0.7 else 0.0,
                bias=draws.random() < (0.5 if norm else 0.9),
                first_bias=draws.choice((0.0, 0.0, 0.1)),
                **facts,
            )
        )

    width = draws.randint(3, 17)
    depth = draws.randint(1, 4)
    if draws.random() < 0.25:
        side, channels = draws.randint(4, 6), draws.randint(1, 3)
        shape: tuple[int, ...] = (side, side, channels)
        for _ in range(min(depth - 1, draws.randint(1, 2))):
            filters, stride, padding = draws.randint(2, 4), draws.choice((1, 2)), draws.choice(("same", "valid"))
            if side < 3:
                padding = "same"
            add("conv", channels, filters, stride=stride, padding=padding)
            side, channels = (side if padding == "same" else side - 2), filters
            side = -(-side // stride)
        inputs = side * side * channels
    else:
        inputs = width if draws.random() < 0.6 else draws.randint(3, 17)
        shape = (inputs,)
    while len(layers) < depth - 1:
        units = width if draws.random() < 0.7 else draws.randint(3, 17)
        add("dense", inputs, units)
        inputs = units
    add("dense", inputs, inputs if inputs <= 17 and draws.random() < 0.2 else draws.randint(3, 10), last=True)
    return tuple(layers), shape


def recipe(draws: random.Random) -> Recipe:
    """A random training program."""
    layers, shape = _layers(draws)
    return Recipe(
        layers,
        shape,
        draws.randint(4, 16),
        Loss(draws.choice(("mse", "softmax", "sparse_softmax", "sigmoid"))),
        _optimizer(draws),
        draws.choice((1e-3, 1e-2)) if draws.random() < 0.15 else 0.0,
    )


# --- Planted changes --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Change:
    """One kind of planted change, and where it should be found."""

    kind: str
    rung: str
    """The first rung on which it shows, the structure left aside; one of tfport.equivalence.result.RUNGS."""
    tensor: str = ""
    """What of the layer that it is planted in diverges there; empty where it is not about a layer, or all of it is."""
    phase: str = ""
    """Where it shows: "training", "inference", or empty."""


Planted = tuple[Recipe, str]
"""The changed recipe, and the layer it is changed in; that is empty where the change is in none."""


def _indices(about: Recipe, wanted: Callable[[Layer], object]) -> list[int]:
    return [index for index, layer in enumerate(about.layers) if wanted(layer)]


def _in_layer(
    about: Recipe,
    draws: random.Random,
    wanted: Callable[[Layer], object],
    changed: Callable[[Layer], Mapping[str, Any]],
) -> Planted | None:
    """The recipe with one of the layers that are `wanted` changed; None where there is none."""
    if not (found := _indices(about, wanted)):
        return None
    index = draws.choice(found)
    layer = about.layers[index]
    return about.with_layer(index, **changed(layer)), layer.name


def _in_norm(about: Recipe, draws: random.Random, **facts: Any) -> Planted | None:
    def changed(layer: Layer) -> Mapping[str, Any]:
        assert layer.norm is not None
        numbers = {key: value(getattr(layer.norm, key)) if callable(value) else value for key, value in facts.items()}
        return {"norm": dataclasses.replace(layer.norm, **numbers)}

    return _in_layer(about, draws, lambda layer: layer.norm, changed)


def _in_optimizer(about: Recipe, kinds: tuple[str, ...], **facts: Any) -> Planted | None:
    optimizer = about.optimizer
    if optimizer.kind not in kinds:
        return None
    numbers = {key: value(getattr(optimizer, key)) if callable(value) else value for key, value in facts.items()}
    return about.with_optimizer(**numbers), ""


def _other_activation(about: Recipe, draws: random.Random) -> Planted | None:
    def other(layer: Layer) -> Mapping[str, Any]:
        return {"activation": draws.choice([each for each in ACTIVATIONS if each != layer.activation])}

    return _in_layer(about, draws, lambda layer: layer.name != "output", other)


def _scale(about: Recipe, draws: random.Random) -> Planted | None:
    """Not before a normalisation, which takes most of it away again."""
    last_norm = max(_indices(about, lambda layer: layer.norm), default=-1)
    index = draws.choice(range(max(last_norm, 0), len(about.layers)))
    return about.with_layer(index, scale=draws.choice((0.5, 1.1, 2.0))), about.layers[index].name


def _swapped(about: Recipe, draws: random.Random) -> Planted | None:
    """Two square layers change places; different activations, so that no other mapping undoes it."""
    layers = about.layers
    found = [
        index
        for index in range(len(layers) - 2)
        if layers[index].square
        and layers[index + 1].square
        and layers[index].activation != layers[index + 1].activation
        and not (layers[index].norm or layers[index + 1].norm)
    ]
    if not found:
        return None
    at = draws.choice(found)
    order = (*layers[:at], layers[at + 1], layers[at], *layers[at + 2 :])
    return dataclasses.replace(about, layers=order), f"{layers[at].name}, {layers[at + 1].name}"


def _clipped(about: Recipe, draws: random.Random) -> Planted:
    return about.with_optimizer(clip=0.01), ""


def _staircase(about: Recipe, draws: random.Random) -> Planted | None:
    decay = about.optimizer.decay
    if decay is None:
        return None
    return about.with_optimizer(decay=dataclasses.replace(decay, staircase=not decay.staircase)), ""


def _constant_rate(about: Recipe, draws: random.Random) -> Planted | None:
    return None if about.optimizer.decay is None else (about.with_optimizer(decay=None), "")


def _label(about: Recipe, draws: random.Random) -> Planted | None:
    return (about.with_loss(shift=1), "") if "softmax" in about.loss.kind else None


_ALL = OPTIMIZERS
CHANGES: dict[str, tuple[Change, Callable[[Recipe, random.Random], Planted | None]]] = {
    change.kind: (change, plant)
    for change, plant in (
        (Change("activation", "forward", "output"), _other_activation),
        (
            Change("bias left out of the sum", "forward", "sum"),
            lambda about, draws: _in_layer(
                about,
                draws,
                lambda layer: layer.kind == "dense" and layer.bias and not layer.norm,
                lambda _: {"adds_bias": False},
            ),
        ),
        (Change("extra scale", "forward", "output"), _scale),
        (Change("layers swapped", "forward", "sum"), _swapped),
        (
            Change("dropout rate", "forward", "output", "training"),
            lambda about, draws: _in_layer(
                about, draws, lambda layer: layer.dropout, lambda layer: {"dropout": round(1 - layer.dropout, 3) / 2}
            ),
        ),
        (
            Change("dropout left out", "forward", "output", "training"),
            lambda about, draws: _in_layer(about, draws, lambda layer: layer.dropout, lambda _: {"dropout": 0.0}),
        ),
        (
            Change("normalisation: epsilon", "forward", "norm"),
            lambda about, draws: _in_norm(about, draws, epsilon=lambda old: old * 10),
        ),
        (
            Change("normalisation: inference mode in training", "forward", "norm", "training"),
            lambda about, draws: _in_norm(about, draws, frozen=True),
        ),
        (
            Change("normalisation: momentum", "update", "moving"),
            lambda about, draws: _in_norm(about, draws, momentum=lambda old: round(old - 0.1, 3)),
        ),
        (
            Change("normalisation: unbiased variance", "update", "moving_variance"),
            lambda about, draws: _in_norm(about, draws, feeds="unbiased"),
        ),
        (
            Change("normalisation: never updated", "update", "moving"),
            lambda about, draws: _in_norm(about, draws, feeds="none"),
        ),
        (Change("loss summed", "loss"), lambda about, draws: (about.with_loss(summed=True), "")),
        (Change("loss weight", "loss"), lambda about, draws: (about.with_loss(weight=draws.choice((0.5, 2.0))), "")),
        (Change("label off by one", "loss"), _label),
        (Change("reported loss", "loss"), lambda about, draws: (about.with_loss(reported=2.0), "")),
        (
            Change("layer never trained", "gradient", "layer"),
            lambda about, draws: _in_layer(about, draws, lambda _: len(about.layers) > 1, lambda _: {"trained": False}),
        ),
        (Change("gradient clipped", "gradient"), _clipped),
        (
            Change("optimizer: epsilon", "update"),
            lambda about, draws: _in_optimizer(about, ("Adam", "RMSProp"), epsilon=lambda old: old * 100),
        ),
        (
            Change("optimizer: rate x 1.01", "update"),
            lambda about, draws: _in_optimizer(about, _ALL, rate=lambda old: old * 1.01),
        ),
        (
            Change("optimizer: rate x 10", "update"),
            lambda about, draws: _in_optimizer(about, _ALL, rate=lambda old: old * 10),
        ),
        (
            Change("optimizer: momentum", "update"),
            lambda about, draws: _in_optimizer(
                about, ("Momentum", "Nesterov"), momentum=lambda old: round(old - 0.1, 3)
            ),
        ),
        (
            Change("optimizer: rho", "update"),
            lambda about, draws: _in_optimizer(about, ("RMSProp",), rho=lambda old: round(old - 0.1, 3)),
        ),
        (
            Change("optimizer: beta_1", "update"),
            lambda about, draws: _in_optimizer(about, ("Adam",), beta_1=lambda old: round(old - 0.1, 3)),
        ),
        (
            Change("optimizer: beta_2", "update"),
            lambda about, draws: _in_optimizer(about, ("Adam",), beta_2=lambda old: round(old - 0.1, 3)),
        ),
        (
            Change("optimizer: Nesterov left out", "update"),
            lambda about, draws: _in_optimizer(about, ("Nesterov",), kind="Momentum"),
        ),
        (
            Change("optimizer: Nesterov added", "update"),
            lambda about, draws: _in_optimizer(about, ("Momentum",), kind="Nesterov"),
        ),
        (
            Change("optimizer: weight decay", "update"),
            lambda about, draws: _in_optimizer(about, _ALL, weight_decay=0.01),
        ),
        (
            Change("initial bias", "initialisation", "layer"),
            lambda about, draws: _in_layer(
                about, draws, lambda layer: layer.bias, lambda layer: {"first_bias": layer.first_bias + 0.05}
            ),
        ),
        (
            Change("initial kernel", "initialisation", "layer"),
            lambda about, draws: _in_layer(
                about, draws, lambda layer: np.prod(layer.kernel_shape) >= 40, lambda _: {"initialiser": "wide"}
            ),
        ),
        (
            Change("optimizer: first slots", "initialisation"),
            lambda about, draws: _in_optimizer(about, ("RMSProp", "Adagrad"), first=lambda old: round(1 - old, 3)),
        ),
        (Change("decay: staircase", "update"), _staircase),
        (Change("decay left out", "update"), _constant_rate),
    )
}
"""Kind -> where it should be found, and what plants it: None where the recipe has no place for it."""


# --- Ports ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RandomPort:
    """A legacy program and a port of it."""

    seed: int
    paradigm: str
    """One of PARADIGMS."""
    recipe: Recipe
    """What the legacy program computes."""
    ported: Recipe
    """What the port computes; the same recipe where it is correct."""
    names: str
    """Whether the two sides' names "agree", agree "partly", or "none" does."""
    shuffled: tuple[bool, bool] = (False, False)
    """Whether the legacy side, and the port, create their variables in another order than they use them."""
    change: Change | None = None
    where: str = ""
    """The layer in which the change was planted; two, with a comma, where they were swapped."""

    @property
    def pairs(self) -> dict[str, str]:
        """Legacy name -> name in the port, of every variable."""
        return {self._legacy_name(name): name for name in self.recipe.variables()}

    def without_dropout(self) -> RandomPort:
        """The same port without random draws."""

        def plain(about: Recipe) -> Recipe:
            return dataclasses.replace(
                about, layers=tuple(dataclasses.replace(each, dropout=0.0) for each in about.layers)
            )

        return dataclasses.replace(self, recipe=plain(self.recipe), ported=plain(self.ported))

    @property
    def description(self) -> str:
        """The whole in a line."""
        about = self.recipe
        layers = []
        for each in about.layers:
            words = [f"{each.kind} {'x'.join(map(str, each.kernel_shape))} {each.activation}"]
            words += [f"{each.padding} stride {each.stride}"] if each.kind == "conv" else []
            words += [] if each.bias else ["no bias"]
            words += [f"norm {each.norm.momentum} {each.norm.epsilon}"] if each.norm else []
            words += [f"dropout {each.dropout}"] if each.dropout else []
            layers.append(" ".join(words))
        numbers = {
            "Momentum": ("momentum",),
            "Nesterov": ("momentum",),
            "RMSProp": ("rho", "epsilon"),
            "Adam": ("beta_1", "beta_2", "epsilon"),
        }.get(about.optimizer.kind, ())
        optimizer = f"{about.optimizer.kind} {about.optimizer.rate}" + "".join(
            f" {name}={getattr(about.optimizer, name)}" for name in numbers
        )
        decay = about.optimizer.decay
        if decay:
            stairs = " staircase" if decay.staircase else ""
            optimizer += f" {decay.kind} decay {decay.rate} in {decay.steps}{stairs}"
        order = "".join(
            f", {side} shuffled" for side, is_so in zip(("legacy", "port"), self.shuffled, strict=True) if is_so
        )
        return (
            f"{self.paradigm}: [{'; '.join(layers)}], {about.loss.kind}{f' + l2 {about.l2}' if about.l2 else ''}, "
            f"{optimizer}, batch {about.batch}, names: {self.names}{order}"
            + (f", changed: {self.change.kind}{f' in {self.where}' if self.where else ''}" if self.change else "")
        )

    def batches(self, step: int) -> dict[str, Array]:
        """What one step is fed: `x`, and the targets `y`."""
        about = self.recipe
        generator = np.random.Generator(np.random.Philox(key=[self.seed + 2**32, step]))
        x = generator.standard_normal((about.batch, *about.shape), np.float32)
        if about.loss.kind == "mse":
            return {"x": x, "y": generator.standard_normal((about.batch, about.classes), np.float32)}
        labels = generator.integers(0, about.classes, about.batch)
        if about.loss.kind == "sparse_softmax":
            return {"x": x, "y": labels.astype(np.int32)}
        if about.loss.kind == "softmax":
            return {"x": x, "y": np.eye(about.classes, dtype=np.float32)[labels]}
        return {"x": x, "y": generator.integers(0, 2, (about.batch, about.classes)).astype(np.float32)}

    def legacy(self, dtype: str = "float32") -> dict[str, Any]:
        """Builds the TF1 graph in the default graph."""
        return _Graph(self, dtype).build()

    def modern(self, dtype: str = "float32") -> Any:
        """Builds the port."""
        if self.paradigm == "tf_module":
            return module_port(self, dtype)
        return keras_port(self, dtype)

    def created(self, side: str) -> list[str]:
        """The port's names of all variables in the order in which a side creates them."""
        names = list(self.recipe.variables())
        if self.shuffled[side == "modern"]:
            random.Random(f"order {side} {self.seed}").shuffle(names)
        return names

    def _legacy_name(self, name: str) -> str:
        """What the legacy side calls the variable of that name in the port."""
        layer, _, kind = name.partition("/")
        position = [each.name for each in self.recipe.layers].index(layer.removesuffix("_norm"))
        if self.names == "agree" or (self.names == "partly" and position % 2 == 0):
            return name
        if self.names == "partly":
            return f"net/{layer}/{ {'kernel': 'weights', 'bias': 'biases'}.get(kind, kind) }"
        if self.seed % 2:
            return f"fc_{position}/{_TERSE[kind]}"
        count = self.created("legacy").index(name)
        return f"Variable_{count}" if count else "Variable"


_TERSE = {
    "kernel": "W",
    "bias": "b",
    "gamma": "bn_scale",
    "beta": "bn_offset",
    "moving_mean": "pop_mean",
    "moving_variance": "pop_var",
}


def _drawn(draws: random.Random, seed: int) -> RandomPort:
    about, paradigm = recipe(draws), draws.choice(PARADIGMS)
    names = draws.choice(("agree", "agree", "partly", "none"))
    shuffled = (draws.random() < 0.25, draws.random() < 0.25 and paradigm == "tf_module")
    return RandomPort(seed, paradigm, about, about, names, shuffled)


def port(seed: int) -> RandomPort:
    """The correct port of that seed."""
    return _drawn(random.Random(f"port {seed}"), seed)


def broken(seed: int, kind: str | None = None) -> RandomPort:
    """A port with one planted change: of that kind, or the kinds in turn over the seeds."""
    change, plant = CHANGES[kind or list(CHANGES)[seed % len(CHANGES)]]
    draws = random.Random(f"broken {seed}")
    while True:
        found = _drawn(draws, seed)
        planted = plant(found.recipe, draws)
        if planted is None:
            continue
        ported, where = planted
        assert ported != found.recipe, (seed, change.kind)
        if change.kind == "gradient clipped" and found.paradigm != "tf_module":
            change = dataclasses.replace(change, rung="update")  # Keras clips in its optimizer
        return dataclasses.replace(found, ported=ported, change=change, where=where)


# --- The legacy side --------------------------------------------------------------------------------------------------
class _Graph:
    """A TF1 graph as people wrote them: placeholders, get_variable, an optimizer's minimize."""

    def __init__(self, about: RandomPort, dtype: str) -> None:
        import tensorflow.compat.v1 as tf

        self.tf, self.about, self.recipe, self.dtype = tf, about, about.recipe, dtype
        self.variables: dict[str, Any] = {}

    def build(self) -> dict[str, Any]:
        tf, about = self.tf, self.recipe
        x = tf.placeholder(self.dtype, [None, *about.shape], name="x")
        sparse = about.loss.kind == "sparse_softmax"
        y = tf.placeholder(*(("int32", [None]) if sparse else (self.dtype, [None, about.classes])), name="y")
        self.training = tf.placeholder_with_default(False, [], name="training")
        for name in self.about.created("legacy"):
            self.create(name)
        hidden = x
        for layer in about.layers:
            hidden = self.layer(layer, hidden)
        loss = self.loss(y, hidden)
        step = tf.train.get_or_create_global_step()
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            train = self.optimizer(step).minimize(loss, global_step=step)
        outputs = {"output": tf.identity(hidden, name="predictions")}
        if self.about.seed % 5 == 0:  # inputs, outputs and mode are to be found
            return {"loss": loss, "train_op": train}
        mode = {"training": {self.training: True}} if self.about.seed % 2 else {}
        return {"inputs": {"x": x, "y": y}, "outputs": outputs, "loss": loss, "train_op": train, **mode}

    def create(self, name: str) -> None:
        tf, about = self.tf, self.recipe
        shape = about.variables()[name]
        layer_name, _, kind = name.partition("/")
        layer = next(each for each in about.layers if each.name == layer_name.removesuffix("_norm"))
        if kind == "kernel":
            make = {
                "glorot": tf.glorot_uniform_initializer,
                "normal": lambda: tf.random_normal_initializer(stddev=0.3),
                "truncated": lambda: tf.truncated_normal_initializer(stddev=0.3),
            }[layer.initialiser]()
        else:
            make = tf.constant_initializer(
                layer.first_bias if kind == "bias" else float(kind in ("gamma", "moving_variance"))
            )
        trainable = not kind.startswith("moving")
        named = self.about._legacy_name(name)
        if named.startswith("Variable"):
            self.variables[name] = tf.Variable(make(shape, dtype=self.dtype), trainable=trainable, use_resource=False)
        else:
            self.variables[name] = tf.get_variable(
                named, shape, self.dtype, make, trainable=trainable, use_resource=self.about.seed % 3 == 0
            )

    def layer(self, layer: Layer, x: Any) -> Any:
        with self.tf.name_scope(layer.name):
            return self.computed(layer, x)

    def computed(self, layer: Layer, x: Any) -> Any:
        tf = self.tf
        kernel = self.variables[f"{layer.name}/kernel"]
        if layer.kind == "conv":
            z = tf.nn.conv2d(x, kernel, strides=[1, layer.stride, layer.stride, 1], padding=layer.padding.upper())
        else:
            if x.shape.rank > 2:
                x = tf.reshape(x, [-1, layer.inputs])
            z = tf.matmul(x, kernel)
        if layer.bias:
            z = tf.nn.bias_add(z, self.variables[f"{layer.name}/bias"])
        if layer.norm:
            z = self.norm(layer, layer.norm, z)
        h = {
            "linear": lambda: z,
            "relu": lambda: tf.nn.relu(z),
            "tanh": lambda: tf.tanh(z),
            "sigmoid": lambda: tf.sigmoid(z),
            "elu": lambda: tf.nn.elu(z),
            "softplus": lambda: tf.nn.softplus(z),
            "leaky_relu": lambda: tf.nn.leaky_relu(z, alpha=0.2),
        }[layer.activation]()
        if layer.dropout:
            h = tf.nn.dropout(h, rate=tf.where(self.training, tf.constant(layer.dropout, self.dtype), 0.0))
        return h

    def norm(self, layer: Layer, norm: Norm, x: Any) -> Any:
        tf = self.tf
        gamma, beta, mean, variance = (self.variables[f"{layer.name}_norm/{kind}"] for kind in NORM_VARIABLES)
        moments = tf.nn.moments(x, list(range(x.shape.rank - 1)))
        for moving, now in zip((mean, variance), moments, strict=True):
            update = tf.assign(moving, moving * norm.momentum + now * (1 - norm.momentum))
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
        used = (tf.where(self.training, now, moving) for now, moving in zip(moments, (mean, variance), strict=True))
        return tf.nn.batch_normalization(x, *used, beta, gamma, norm.epsilon)

    def loss(self, y: Any, logits: Any) -> Any:
        tf, about = self.tf, self.recipe
        each = {
            "mse": lambda: tf.square(logits - y),
            "softmax": lambda: tf.nn.softmax_cross_entropy_with_logits_v2(labels=y, logits=logits),
            "sparse_softmax": lambda: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits),
            "sigmoid": lambda: tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits),
        }[about.loss.kind]()
        loss = tf.reduce_mean(each)
        if about.l2:
            loss += tf.add_n(
                [about.l2 * tf.reduce_sum(tf.square(self.variables[f"{each.name}/kernel"])) for each in about.layers]
            )
        return tf.identity(loss, name="loss")

    def optimizer(self, step: Any) -> Any:
        train, about = self.tf.train, self.recipe.optimizer
        rate: Any = about.rate
        if about.decay:
            fall = {"exponential": train.exponential_decay, "inverse_time": train.inverse_time_decay}[about.decay.kind]
            rate = fall(about.rate, step, about.decay.steps, about.decay.rate, staircase=about.decay.staircase)
        return {
            "SGD": lambda: train.GradientDescentOptimizer(rate),
            "Momentum": lambda: train.MomentumOptimizer(rate, about.momentum),
            "Nesterov": lambda: train.MomentumOptimizer(rate, about.momentum, use_nesterov=True),
            "Adagrad": lambda: train.AdagradOptimizer(rate, initial_accumulator_value=about.first),
            "RMSProp": lambda: train.RMSPropOptimizer(rate, about.rho, epsilon=about.epsilon),
            "Adam": lambda: train.AdamOptimizer(rate, about.beta_1, about.beta_2, about.epsilon),
        }[about.kind]()


# --- The ports --------------------------------------------------------------------------------------------------------
def keras_optimizer(keras: Any, about: Optimizer) -> Any:
    """Either Keras's optimizer of that algorithm."""
    rate: Any = about.rate
    if about.decay:
        schedules = keras.optimizers.schedules
        fall = {"exponential": schedules.ExponentialDecay, "inverse_time": schedules.InverseTimeDecay}[about.decay.kind]
        rate = fall(about.rate, about.decay.steps, about.decay.rate, staircase=about.decay.staircase)
    more: dict[str, Any] = {"clipnorm": about.clip} if about.clip else {}
    if about.weight_decay:
        more["weight_decay"] = about.weight_decay
    made = keras.optimizers
    return {
        "SGD": lambda: made.SGD(rate, **more),
        "Momentum": lambda: made.SGD(rate, momentum=about.momentum, **more),
        "Nesterov": lambda: made.SGD(rate, momentum=about.momentum, nesterov=True, **more),
        "Adagrad": lambda: made.Adagrad(rate, initial_accumulator_value=about.first, epsilon=0.0, **more),
        "RMSProp": lambda: made.RMSprop(rate, rho=about.rho, epsilon=about.epsilon, **more),
        "Adam": lambda: made.Adam(rate, beta_1=about.beta_1, beta_2=about.beta_2, epsilon=about.epsilon, **more),
    }[about.kind]()


def start_slots(optimizer: Any, about: Optimizer) -> None:
    """Lets a built RMSprop of Keras, whose mean square starts at zero, start where TF1's does: at one."""
    if about.kind == "RMSProp":
        for each in optimizer._velocities:
            each.assign(np.full(each.shape, about.first))


@functools.cache
def _odd_layers(which: str) -> tuple[Any, Any, Any]:
    """Layers with mistakes, and a model with one, for either Keras."""
    import importlib

    import tensorflow as tf

    keras = importlib.import_module(which)

    class OddDense(keras.layers.Dense):  # type: ignore[misc, name-defined]
        """Leaves its bias out, or takes its kernel the wrong way round."""

        recipe: Layer

        def call(self, inputs: Any, training: Any = None) -> Any:
            z = tf.matmul(inputs, tf.convert_to_tensor(self.kernel))
            if self.recipe.bias and self.recipe.adds_bias:
                z = z + tf.convert_to_tensor(self.bias)
            return self.activation(z)

    class OddNorm(keras.layers.BatchNormalization):  # type: ignore[misc, name-defined]
        """Feeds the unbiased variance to its moving one, or nothing to either, or is in inference mode always.

        `training=False` in a functional model is no such mistake: Keras 3 overrides it.
        """

        recipe: Norm

        def call(self, inputs: Any, training: Any = None) -> Any:
            if not training or self.recipe.frozen:
                mean, variance = map(tf.convert_to_tensor, (self.moving_mean, self.moving_variance))
            else:
                mean, variance = tf.nn.moments(inputs, list(range(inputs.shape.rank - 1)))
                if self.recipe.feeds == "unbiased":
                    count = tf.cast(tf.size(inputs) // inputs.shape[-1], inputs.dtype)
                    for moving, value in (
                        (self.moving_mean, mean),
                        (self.moving_variance, variance * count / (count - 1)),
                    ):
                        moving.assign(moving * self.momentum + value * (1 - self.momentum))
            beta, gamma = map(tf.convert_to_tensor, (self.beta, self.gamma))
            return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, self.epsilon)

    class OddModel(keras.Model):  # type: ignore[misc, name-defined]
        """Reports another loss than it minimises."""

        reported = 1.0

        def train_step(self, data: Any) -> Any:
            found = super().train_step(data)
            return {**found, "loss": found["loss"] * self.reported}

    return OddDense, OddNorm, OddModel


def keras_port(about: RandomPort, dtype: str) -> Any:
    """A compiled functional model of Keras 3 or of tf_keras."""
    import importlib

    which = "keras" if about.paradigm == "keras3" else "tf_keras"
    keras = importlib.import_module(which)
    odd_dense, odd_norm, odd_model = _odd_layers(which)
    ported = about.ported
    inputs = keras.Input(ported.shape, dtype=dtype, name="x")
    x = inputs
    for layer in ported.layers:
        started = {
            "glorot": keras.initializers.GlorotUniform,
            "normal": lambda: keras.initializers.RandomNormal(stddev=0.3),
            "truncated": lambda: keras.initializers.TruncatedNormal(stddev=0.3),
            "wide": lambda: keras.initializers.RandomNormal(stddev=1.5),
        }[layer.initialiser]()
        slope = "negative_slope" if which == "keras" else "alpha"
        own = layer.activation == "leaky_relu" or layer.norm is not None
        settings: dict[str, Any] = {
            "activation": "linear" if own else layer.activation,
            "use_bias": layer.bias,
            "kernel_initializer": started,
            "bias_initializer": keras.initializers.Constant(layer.first_bias),
            "kernel_regularizer": keras.regularizers.L2(ported.l2) if ported.l2 else None,
            "name": layer.name,
            "dtype": dtype,
            "trainable": layer.trained,
        }
        if layer.kind == "conv":
            made = keras.layers.Conv2D(layer.units, layer.size, layer.stride, padding=layer.padding, **settings)
        else:
            if len(x.shape) > 2:
                x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
            if not layer.adds_bias:
                made = odd_dense(layer.units, **settings)
                made.recipe = layer
            else:
                made = keras.layers.Dense(layer.units, **settings)
        x = made(x)
        if layer.norm:
            plain = layer.norm.feeds == "biased" and not layer.norm.frozen
            numbers: dict[str, Any] = {} if which == "keras" or not plain else {"fused": False}
            norm = (keras.layers.BatchNormalization if plain else odd_norm)(
                momentum=layer.norm.momentum,
                epsilon=layer.norm.epsilon,
                name=f"{layer.name}_norm",
                dtype=dtype,
                **numbers,
            )
            norm.recipe = layer.norm
            x = norm(x)
        if layer.activation == "leaky_relu":
            x = keras.layers.LeakyReLU(**{slope: 0.2}, dtype=dtype, name=f"{layer.name}_activation")(x)
        elif own and layer.activation != "linear":
            x = keras.layers.Activation(layer.activation, dtype=dtype, name=f"{layer.name}_activation")(x)
        if layer.scale != 1:
            x = keras.layers.Rescaling(layer.scale, dtype=dtype, name=f"{layer.name}_scale")(x)
        if layer.dropout:
            x = keras.layers.Dropout(layer.dropout, dtype=dtype, name=f"{layer.name}_dropout")(x)
    kind = keras.Model if ported.loss.reported == 1 else odd_model
    model = kind(inputs=inputs, outputs=x)
    model.reported = ported.loss.reported
    optimizer = keras_optimizer(keras, ported.optimizer)
    loss = _keras_loss(keras, ported, dtype)
    weights = [ported.loss.weight] if ported.loss.weight != 1 else None
    model.compile(optimizer=optimizer, loss=loss, loss_weights=weights, jit_compile=False)
    optimizer.build(model.trainable_variables)
    start_slots(optimizer, ported.optimizer)
    return model


def _keras_loss(keras: Any, about: Recipe, dtype: str) -> Any:
    """A loss object, or a function where the recipe asks for what no object does."""
    import tensorflow as tf

    losses, loss = keras.losses, about.loss
    if loss.shift or loss.summed:
        return lambda y, logits: module_loss(about, tf.cast(y, tf.int32) if "sparse" in loss.kind else y, logits)
    more: dict[str, Any] = {"dtype": dtype} if keras.__name__ == "keras" else {}
    if loss.kind == "mse":
        return losses.MeanSquaredError(**more)
    named = {
        "softmax": losses.CategoricalCrossentropy,
        "sparse_softmax": losses.SparseCategoricalCrossentropy,
        "sigmoid": losses.BinaryCrossentropy,
    }
    return named[loss.kind](from_logits=True, **more)


def module_loss(about: Recipe, y: Any, logits: Any) -> Any:
    """The loss without weight and without the kernels' squares, on TF2's ops."""
    import tensorflow as tf

    loss = about.loss
    if loss.kind == "mse":
        each = tf.math.squared_difference(logits, y)
    elif loss.kind == "softmax":
        each = tf.nn.softmax_cross_entropy_with_logits(tf.roll(y, loss.shift, -1), logits)
    elif loss.kind == "sparse_softmax":
        labels = (tf.reshape(y, [-1]) + loss.shift) % about.classes
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    else:
        each = tf.nn.sigmoid_cross_entropy_with_logits(y, logits)
    return tf.reduce_sum(each) if loss.summed else tf.reduce_mean(each)


@functools.cache
def _module_class() -> Any:
    import tensorflow as tf

    class Port(tf.Module):  # type: ignore[misc]
        """A port to tf.Module and GradientTape, its optimizer Keras's."""

        def __init__(self, about: RandomPort, dtype: str) -> None:
            import keras

            super().__init__(name="port")
            self.recipe = about.ported
            self.weights = {name: self.create(name, dtype) for name in about.created("modern")}
            self.optimizer = keras_optimizer(keras, dataclasses.replace(self.recipe.optimizer, clip=0.0))
            self.optimizer.build(self.trained())
            start_slots(self.optimizer, self.recipe.optimizer)

        def create(self, name: str, dtype: str) -> Any:
            shape = self.recipe.variables()[name]
            layer_name, _, kind = name.partition("/")
            layer = next(each for each in self.recipe.layers if each.name == layer_name.removesuffix("_norm"))
            if kind == "kernel":
                value = {
                    "glorot": tf.keras.initializers.GlorotUniform,
                    "normal": lambda: tf.random_normal_initializer(stddev=0.3),
                    "truncated": lambda: tf.keras.initializers.TruncatedNormal(stddev=0.3),
                    "wide": lambda: tf.random_normal_initializer(stddev=1.5),
                }[layer.initialiser]()(shape, dtype=dtype)
            else:
                first = layer.first_bias if kind == "bias" else float(kind in ("gamma", "moving_variance"))
                value = tf.constant(first, dtype, shape)
            return tf.Variable(value, trainable=not kind.startswith("moving"), name=name)

        def trained(self) -> list[Any]:
            """The variables that the step moves by gradients, in the order of computation."""
            left_out = {f"{each.name}/{kind}" for each in self.recipe.layers if not each.trained for kind in _TERSE}
            return [
                self.weights[name]
                for name in self.recipe.variables()
                if name not in left_out and self.weights[name].trainable
            ]

        def __call__(self, x: Any, training: bool = False) -> Any:
            for layer in self.recipe.layers:
                with tf.name_scope(layer.name):
                    x = self.layer(layer, x, training)
            return x

        def layer(self, layer: Layer, x: Any, training: bool) -> Any:
            kernel = self.weights[f"{layer.name}/kernel"]
            if layer.kind == "conv":
                x = tf.nn.conv2d(x, kernel, layer.stride, layer.padding.upper())
            else:
                if x.shape.rank > 2:
                    x = tf.reshape(x, [-1, layer.inputs])
                x = tf.matmul(x, kernel)
            if layer.bias and layer.adds_bias:
                x = x + self.weights[f"{layer.name}/bias"]
            if layer.norm:
                x = self.norm(layer.name, layer.norm, x, training)
            if layer.activation == "leaky_relu":
                x = tf.nn.leaky_relu(x, 0.2)
            elif layer.activation != "linear":
                x = getattr(tf.nn, layer.activation)(x)
            if layer.scale != 1:
                x = x * layer.scale
            return tf.nn.dropout(x, layer.dropout) if layer.dropout and training else x

        def norm(self, name: str, norm: Norm, x: Any, training: bool) -> Any:
            gamma, beta, moving_mean, moving_variance = (self.weights[f"{name}_norm/{kind}"] for kind in NORM_VARIABLES)
            mean, variance = moving_mean.read_value(), moving_variance.read_value()
            if training and not norm.frozen:
                mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
                fed = variance
                if norm.feeds == "unbiased":
                    count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
                    fed = variance * count / (count - 1)
                if norm.feeds != "none":
                    moving_mean.assign(moving_mean * norm.momentum + mean * (1 - norm.momentum))
                    moving_variance.assign(moving_variance * norm.momentum + fed * (1 - norm.momentum))
            return (x - mean) * tf.math.rsqrt(variance + norm.epsilon) * gamma + beta

        def objective(self, x: Any, y: Any) -> Any:
            """What a step minimises."""
            loss = self.recipe.loss.weight * module_loss(self.recipe, y, self(x, training=True))
            if self.recipe.l2:
                for layer in self.recipe.layers:
                    loss += self.recipe.l2 * tf.reduce_sum(self.weights[f"{layer.name}/kernel"] ** 2)
            return loss

        @tf.function
        def train_step(self, x: Any, y: Any) -> Any:
            """One update; returns the loss that it reports."""
            with tf.GradientTape() as tape:
                loss = self.objective(x, y)
            variables = self.trained()
            gradients = tape.gradient(loss, variables)
            if self.recipe.optimizer.clip:
                gradients = [tf.clip_by_norm(each, self.recipe.optimizer.clip) for each in gradients]
            self.optimizer.apply(gradients, variables)
            return {"loss": loss * self.recipe.loss.reported}

    return Port


def module_port(about: RandomPort, dtype: str) -> Any:
    """A tf.Module with its own step."""
    made: Any = _module_class()
    return made(about, dtype)


# --- By name ----------------------------------------------------------------------------------------------------------
def of_name(name: str) -> RandomPort:
    """The port that a name stands for: "port_5" or "broken_12".

    Raises:
      KeyError: it stands for none.
    """
    kind, _, seed = name.rpartition("_")
    return {"port": port, "broken": broken}[kind](int(seed))


def __getattr__(name: str) -> Any:
    """`port_5_legacy`, `port_5_modern`, `port_5_batches`, and with `broken`: what a command line can name."""
    which, _, part = name.rpartition("_")
    if part in ("legacy", "modern", "batches") and which.startswith(("port_", "broken_")):
        return getattr(of_name(which), part)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
