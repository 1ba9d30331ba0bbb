"""A legacy program and a port of it, and which seed gives which."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from random_ports.changes import CHANGES, Change
from random_ports.recipes import Decay, Recipe, recipe

Array = np.ndarray[Any, Any]
PARADIGMS = ("keras3", "tf_keras", "tf_module", "subclass")
"""Two compiled models, a tf.Module with a tape, and a keras.Model with its optimizer for an attribute."""
_TERSE = {
    "kernel": "W",
    "bias": "b",
    "gamma": "bn_scale",
    "beta": "bn_offset",
    "moving_mean": "pop_mean",
    "moving_variance": "pop_var",
    "embeddings": "E",
    "recurrent_kernel": "U",
}


@dataclass(frozen=True)
class Forms:
    """How the sides write what they compute; none of it changes a number."""

    legacy_dtype: str = "given"
    """ "given": the factory takes dtype; "float32": it takes none, and the graph is float32."""
    modern_dtype: str = "given"
    """ "given", "floatx" (none is taken: Keras's own), or "float32"."""
    legacy_loop: str = "while"
    """ "while", "while_v1" (with switches and merges), "array" (a TensorArray in the loop), "scan" or "unrolled"."""
    modern_loop: str = "unrolled"
    """ "unrolled" or "while"."""
    clips_inside: bool = True
    """Whether a step of the port's own leaves clipping to its optimizer."""
    assigns_rate: bool = False
    """Whether a step of the port's own assigns the rate before each update."""
    holder: str = "attribute"
    """Where a keras.Model keeps its optimizer: "attribute", "list" or "dict"."""
    lazy: bool = False
    """Whether its layers are built by the first call."""
    reports: float = 1.0
    """What a step of the port's own multiplies the loss by that it reports."""
    which: str = "keras"
    """The Keras of a keras.Model with its own step: "keras" or "tf_keras"."""


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
    forms: Forms = Forms()
    change: Change | None = None
    where: str = ""
    """The part in which the change was planted; two, with a comma, where they were swapped."""

    @property
    def pairs(self) -> dict[str, str]:
        """Legacy name -> name in the recipe, of every variable."""
        return {self.legacy_name(name): name for name in self.recipe.variables()}

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
        order = "".join(
            f", {side} shuffled" for side, is_so in zip(("legacy", "port"), self.shuffled, strict=True) if is_so
        )
        average = f", average {about.average.decay}{' counted' * about.average.counted}" if about.average else ""
        changed = f", changed: {self.change.kind}{f' in {self.where}' if self.where else ''}" if self.change else ""
        return (
            f"{self.paradigm}: [{'; '.join(_parts(about))}], {_loss(about)}, {_optimizer(about)}{average}, batch "
            f"{about.batch}, names: {self.names}{order}{_forms(self)}{changed}"
        )

    def batches(self, step: int) -> dict[str, Array]:
        """What one step is fed: `x`, for some a `position`, and the targets `y`."""
        about = self.recipe
        generator = np.random.Generator(np.random.Philox(key=[self.seed + 2**32, step]))
        if about.tokens:
            ids = generator.integers(0, about.tokens.vocabulary - 1, (about.batch, about.tokens.length))
            batch: dict[str, Array] = {"x": ids.astype(np.int32)}
        else:
            batch = {"x": generator.standard_normal((about.batch, *about.shape), np.float32)}
        if about.tokens and about.picks:
            batch["position"] = generator.integers(1, about.tokens.length, about.batch).astype(np.int32)
        return {**batch, "y": self._labels(generator)}

    def _labels(self, generator: np.random.Generator) -> Array:
        """The targets of a batch; labels are not all the same."""
        about = self.recipe
        if about.loss.kind == "mse":
            return generator.standard_normal((about.batch, about.classes), np.float32)
        if about.loss.kind == "sigmoid":
            marks: Array = generator.integers(0, 2, (about.batch, about.classes)).astype(np.float32)
            marks[0] = 1 - marks[-1]
            return marks
        labels = generator.integers(0, about.classes, about.batch)
        labels[0] = (labels[-1] + 1) % about.classes
        return (
            labels.astype(np.int32) if about.loss.kind == "sparse_softmax" else np.eye(about.classes, dtype="f")[labels]
        )

    @property
    def legacy(self) -> Callable[..., Any]:
        """The factory of the TF1 graph: it builds it in the default graph."""
        return self.graph if self.forms.legacy_dtype == "given" else self.graph_in_float32

    @property
    def modern(self) -> Callable[..., Any]:
        """The factory of the port."""
        made = {"given": self.port, "floatx": self.port_in_floatx, "float32": self.port_in_float32}
        return made[self.forms.modern_dtype]

    def graph(self, dtype: str = "float32") -> dict[str, Any]:
        """Builds the TF1 graph."""
        from random_ports.tf1 import Graph

        return Graph(self, dtype).build()

    def graph_in_float32(self) -> dict[str, Any]:
        """Builds the TF1 graph as those do who never asked for anything else."""
        return self.graph()

    def port(self, dtype: str = "float32") -> Any:
        """Builds the port."""
        if self.paradigm == "tf_module":
            from random_ports.module import module_port

            return module_port(self, dtype)
        from random_ports.keras_sides import compiled_port, subclass_port

        return (subclass_port if self.paradigm == "subclass" else compiled_port)(self, dtype)

    def port_in_floatx(self) -> Any:
        """Builds the port in what Keras is told to compute in."""
        import keras

        return self.port(keras.backend.floatx())

    def port_in_float32(self) -> Any:
        """Builds the port in float32, always."""
        return self.port()

    def created(self, side: str) -> list[str]:
        """The recipe's names of all variables in the order in which a side creates them; averages come last."""
        names = list(self.recipe.variables())
        if self.shuffled[side == "modern"]:
            random.Random(f"order {side} {self.seed}").shuffle(names)
        return sorted(names, key=lambda name: name == "output/average")

    def legacy_name(self, name: str) -> str:
        """What the legacy side calls the variable of that name."""
        if name == "output/average":
            return f"{self.legacy_name('output/kernel')}/ExponentialMovingAverage"
        part, _, kind = name.partition("/")
        position = self.recipe.parts.index(part.removesuffix("_norm"))
        if self.names == "agree" or (self.names == "partly" and position % 2 == 0):
            return name
        if self.names == "partly":
            return f"net/{part}/{ {'kernel': 'weights', 'bias': 'biases'}.get(kind, kind) }"
        if self.seed % 2:
            return f"fc_{position}/{_TERSE[kind]}"
        count = self.created("legacy").index(name)
        return f"Variable_{count}" if count else "Variable"


# --- In words ---------------------------------------------------------------------------------------------------------
def _parts(about: Recipe) -> list[str]:
    found = []
    if about.tokens:
        found.append(
            f"embed {about.tokens.vocabulary}x{about.tokens.units} of {about.tokens.length} {about.tokens.reads}"
        )
    if about.loop:
        loop = about.loop
        found.append(
            f"loop {loop.length} of {loop.inputs}x{loop.units} {loop.activation}{'' if loop.bias else ' no bias'}"
        )
    for each in about.layers:
        words = [f"{each.kind} {'x'.join(map(str, each.kernel_shape))} {each.activation}"]
        words += [f"{each.padding} stride {each.stride}"] if each.kind == "conv" else []
        words += [] if each.bias else ["no bias"]
        words += [f"norm {each.norm.momentum} {each.norm.epsilon}"] if each.norm else []
        words += [f"dropout {each.dropout}"] if each.dropout else []
        found.append(" ".join(words))
    return found


def _loss(about: Recipe) -> str:
    named = f" named x {about.loss.named:g}" if about.loss.named != 1 else ""
    return f"{about.loss.kind}{named}{f' + l2 {about.l2}' if about.l2 else ''}"


def _optimizer(about: Recipe) -> str:
    optimizer = about.optimizer
    numbers = {
        "Momentum": ("momentum",),
        "Nesterov": ("momentum",),
        "RMSProp": ("rho", "epsilon"),
        "Adam": ("beta_1", "beta_2", "epsilon"),
    }.get(optimizer.kind, ())
    text = f"{optimizer.kind} {optimizer.rate}" + "".join(f" {name}={getattr(optimizer, name)}" for name in numbers)
    text += _decay(optimizer.decay) if optimizer.decay else ""
    return text + (f" clip {optimizer.clip.kind} {optimizer.clip.bound}" if optimizer.clip else "")


def _decay(decay: Decay) -> str:
    more = {
        "polynomial": f" to {decay.end} power {decay.power}{' cycle' * decay.cycle}",
        "cosine": f" to {decay.end}",
        "piecewise": f" factor {decay.rate}",
    }.get(decay.kind, f" factor {decay.rate}{' staircase' * decay.staircase}")
    return f" {decay.kind} decay in {decay.steps}{more}"


def _forms(port: RandomPort) -> str:
    """Those that are not the plain ones, and matter."""
    forms, about = port.forms, port.recipe
    own_step = port.paradigm in ("tf_module", "subclass")
    said = [f"legacy {forms.legacy_dtype}"] if forms.legacy_dtype != "given" else []
    said += [f"port {forms.modern_dtype}"] if forms.modern_dtype != "given" else []
    said += [f"loops {forms.legacy_loop} and {forms.modern_loop}"] if about.loop else []
    said += ["clips outside"] if about.optimizer.clip and own_step and not forms.clips_inside else []
    said += ["rate assigned"] if about.optimizer.decay and own_step and forms.assigns_rate else []
    said += [f"port reports x {forms.reports:g}"] if forms.reports != 1 and own_step else []
    if port.paradigm == "subclass":
        said += [forms.which, f"optimizer in {forms.holder}", *(["lazy"] if forms.lazy else [])]
    return f", {', '.join(said)}" if said else ""


# --- Seeds ------------------------------------------------------------------------------------------------------------
def _drawn(draws: random.Random, seed: int) -> RandomPort:
    paradigm = draws.choice(PARADIGMS)
    about = recipe(draws, paradigm)
    names = draws.choice(("agree", "agree", "partly", "none"))
    shuffled = (draws.random() < 0.25, draws.random() < 0.25 and paradigm == "tf_module")
    forms = Forms(
        draws.choice(("given", "given", "float32")),
        draws.choice(("given", "given", "float32" if paradigm == "tf_module" else "floatx", "floatx")),
        draws.choice(("while", "while_v1", "array", "scan", "unrolled")),
        draws.choice(("unrolled", "while")),
        draws.random() < 0.6,
        draws.random() < 0.4,
        draws.choice(("attribute", "list", "dict")),
        draws.random() < 0.3,
        draws.choice((1.0, 1.0, 1.0, -1.0, 10.0)),
        draws.choice(("keras", "tf_keras")),
    )
    return RandomPort(seed, paradigm, about, about, names, shuffled, forms)


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
        return dataclasses.replace(found, ported=ported, change=change, where=where)
