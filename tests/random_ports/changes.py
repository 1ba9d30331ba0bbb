"""The changes that are planted in a port, a function each, and where a report should find them.

Every one of them changes numbers by construction: of any recipe that a function takes, its result computes something
else. A function gives None for a recipe that it has no place in.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from random_ports.recipes import (
    ACTIVATIONS,
    CLIP_BOUNDS,
    LOOP_ACTIVATIONS,
    Average,
    Clip,
    Decay,
    Layer,
    Norm,
    Recipe,
)

Planted = tuple[Recipe, str] | None
"""The changed recipe, and the part it is changed in; two with a comma where they changed places, empty for none."""
HORIZON = "horizon"
"""Stands for a rung where a change shows only beyond the steps that are run."""


@dataclass(frozen=True)
class Change:
    """One kind of planted change, and where it should be found."""

    kind: str
    rung: str
    """The first rung on which it shows, the structure left aside, or HORIZON."""
    place: str = ""
    """What the report should name: the "layer", its "variable" of the name that `variable` begins, or the "optimizer".

    Empty where there is nothing to name but the loss.
    """
    variable: str = ""
    says: tuple[str, ...] = ()
    """What of the optimizer is changed, in words of which one should stand in the report."""


Plant = Callable[[Recipe, random.Random], Planted]
CHANGES: dict[str, tuple[Change, Plant]] = {}
"""Kind -> where it should be found, and what plants it."""


def _planted(
    kind: str, rung: str, place: str = "", variable: str = "", says: tuple[str, ...] = ()
) -> Callable[[Plant], Plant]:
    """Puts a function into the table."""

    def put(plant: Plant) -> Plant:
        CHANGES[kind] = (Change(kind, rung, place, variable, says), plant)
        return plant

    return put


def _chosen(about: Recipe, draws: random.Random, wanted: Callable[[Layer], object]) -> int | None:
    """The index of one of the layers that are wanted."""
    found = [index for index, layer in enumerate(about.layers) if wanted(layer)]
    return draws.choice(found) if found else None


def _in_norm(about: Recipe, draws: random.Random, changed: Callable[[Norm], Norm]) -> Planted:
    index = _chosen(about, draws, lambda layer: layer.norm)
    if index is None:
        return None
    layer = about.layers[index]
    assert layer.norm is not None
    return about.with_layer(index, norm=changed(layer.norm)), layer.name


def _in_loop(about: Recipe, **facts: Any) -> Planted:
    if about.loop is None:
        return None
    return dataclasses.replace(about, loop=dataclasses.replace(about.loop, **facts)), "loop"


def _in_tokens(about: Recipe, **facts: Any) -> Planted:
    if about.tokens is None:
        return None
    return dataclasses.replace(about, tokens=dataclasses.replace(about.tokens, **facts)), "embed"


def _in_optimizer(about: Recipe, kinds: tuple[str, ...], **facts: Any) -> Planted:
    return (about.with_optimizer(**facts), "") if about.optimizer.kind in kinds else None


def _lower(number: float) -> float:
    return round(number - 0.1, 3)


# --- Layers -----------------------------------------------------------------------------------------------------------
@_planted("activation", "forward", "layer")
def _activation(about: Recipe, draws: random.Random) -> Planted:
    index = _chosen(about, draws, lambda layer: layer.name != "output")
    if index is None:
        return None
    layer = about.layers[index]
    other = draws.choice([each for each in ACTIVATIONS if each != layer.activation])
    return about.with_layer(index, activation=other), layer.name


@_planted("bias left out of the sum", "forward", "layer")
def _bias_left_out(about: Recipe, draws: random.Random) -> Planted:
    index = _chosen(about, draws, lambda layer: layer.kind == "dense" and layer.bias and not layer.norm)
    return None if index is None else (about.with_layer(index, adds_bias=False), about.layers[index].name)


@_planted("extra scale", "forward", "layer")
def _scale(about: Recipe, draws: random.Random) -> Planted:
    """Not before a normalisation, which takes most of it away again."""
    last_norm = max((index for index, layer in enumerate(about.layers) if layer.norm), default=0)
    index = draws.choice(range(last_norm, len(about.layers)))
    return about.with_layer(index, scale=draws.choice((0.5, 1.1, 2.0))), about.layers[index].name


@_planted("layers swapped", "forward", "layer")
def _swapped(about: Recipe, draws: random.Random) -> Planted:
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


def _dropout(about: Recipe, draws: random.Random, rate: Callable[[float], float]) -> Planted:
    index = _chosen(about, draws, lambda layer: layer.dropout)
    if index is None:
        return None
    layer = about.layers[index]
    return about.with_layer(index, dropout=rate(layer.dropout)), layer.name


@_planted("dropout rate", "forward", "layer")
def _dropout_rate(about: Recipe, draws: random.Random) -> Planted:
    return _dropout(about, draws, lambda old: round(1 - old, 3) / 2)


@_planted("dropout left out", "forward", "layer")
def _dropout_left_out(about: Recipe, draws: random.Random) -> Planted:
    return _dropout(about, draws, lambda _: 0.0)


@_planted("normalisation: epsilon", "forward", "layer")
def _norm_epsilon(about: Recipe, draws: random.Random) -> Planted:
    return _in_norm(about, draws, lambda norm: dataclasses.replace(norm, epsilon=norm.epsilon * 10))


@_planted("normalisation: inference mode in training", "forward", "layer")
def _norm_frozen(about: Recipe, draws: random.Random) -> Planted:
    return _in_norm(about, draws, lambda norm: dataclasses.replace(norm, frozen=True))


@_planted("normalisation: momentum", "update", "variable", "moving")
def _norm_momentum(about: Recipe, draws: random.Random) -> Planted:
    return _in_norm(about, draws, lambda norm: dataclasses.replace(norm, momentum=_lower(norm.momentum)))


@_planted("normalisation: unbiased variance", "update", "variable", "moving_variance")
def _norm_unbiased(about: Recipe, draws: random.Random) -> Planted:
    return _in_norm(about, draws, lambda norm: dataclasses.replace(norm, feeds="unbiased"))


@_planted("normalisation: never updated", "update", "variable", "moving")
def _norm_still(about: Recipe, draws: random.Random) -> Planted:
    return _in_norm(about, draws, lambda norm: dataclasses.replace(norm, feeds="none"))


@_planted("layer never trained", "gradient", "variable")
def _untrained(about: Recipe, draws: random.Random) -> Planted:
    """Something else trains on, as it did: no squares that leave the loss, and no norm of all that changes."""
    if about.l2 or about.optimizer.clip or (len(about.layers) == 1 and about.loop is None and about.tokens is None):
        return None
    index = draws.choice(range(len(about.layers)))
    return about.with_layer(index, trained=False), about.layers[index].name


@_planted("initial bias", "initialisation", "variable")
def _first_bias(about: Recipe, draws: random.Random) -> Planted:
    index = _chosen(about, draws, lambda layer: layer.bias)
    if index is None:
        return None
    layer = about.layers[index]
    return about.with_layer(index, first_bias=layer.first_bias + 0.05), layer.name


@_planted("initial kernel", "initialisation", "variable")
def _first_kernel(about: Recipe, draws: random.Random) -> Planted:
    index = _chosen(about, draws, lambda layer: np.prod(layer.kernel_shape) >= 40)
    return None if index is None else (about.with_layer(index, initialiser="wide"), about.layers[index].name)


# --- Integers and loops -----------------------------------------------------------------------------------------------
@_planted("ids shifted", "forward", "layer")
def _shifted_ids(about: Recipe, draws: random.Random) -> Planted:
    return _in_tokens(about, shift=1)


@_planted("gather off by one", "forward", "layer")
def _beside(about: Recipe, draws: random.Random) -> Planted:
    return _in_tokens(about, beside=-1) if about.picks else None


@_planted("loop: activation", "forward", "layer")
def _loop_activation(about: Recipe, draws: random.Random) -> Planted:
    if about.loop is None:
        return None
    old = about.loop.activation
    return _in_loop(about, activation=draws.choice([each for each in LOOP_ACTIVATIONS if each != old]))


@_planted("loop: one step less", "forward", "layer")
def _loop_shorter(about: Recipe, draws: random.Random) -> Planted:
    return _in_loop(about, left_out=1)


@_planted("loop: order of time", "forward", "layer")
def _loop_backwards(about: Recipe, draws: random.Random) -> Planted:
    return _in_loop(about, backwards=True)


# --- The loss ---------------------------------------------------------------------------------------------------------
@_planted("loss summed", "loss")
def _summed(about: Recipe, draws: random.Random) -> Planted:
    """Where no clipping takes the factor away again."""
    return None if about.optimizer.clip else (about.with_loss(summed=True), "")


@_planted("loss weight", "loss")
def _weight(about: Recipe, draws: random.Random) -> Planted:
    """Where no clipping takes it away again."""
    return None if about.optimizer.clip else (about.with_loss(weight=draws.choice((0.5, 2.0))), "")


@_planted("loss of the wrong sign", "loss")
def _wrong_sign(about: Recipe, draws: random.Random) -> Planted:
    """Without kernels' squares, which keep their sign."""
    return None if about.l2 else (about.with_loss(weight=-1.0), "")


@_planted("label off by one", "loss")
def _label(about: Recipe, draws: random.Random) -> Planted:
    return (about.with_loss(shift=1), "") if "softmax" in about.loss.kind else None


@_planted("labels rolled", "loss")
def _rolled(about: Recipe, draws: random.Random) -> Planted:
    return about.with_loss(rolled=1), ""


@_planted("reported loss", "loss")
def _reported(about: Recipe, draws: random.Random) -> Planted:
    return about.with_loss(root=True), ""


# --- The optimizer ----------------------------------------------------------------------------------------------------
_ALL = ("SGD", "Momentum", "Nesterov", "Adagrad", "RMSProp", "Adam")


@_planted("gradient clipped", "gradient", "optimizer", says=("clip",))
def _clipped(about: Recipe, draws: random.Random) -> Planted:
    """Only in the port."""
    optimizer = about.optimizer
    if optimizer.clip or about.tokens:
        return None
    kind = draws.choice(tuple(CLIP_BOUNDS))
    return about.with_optimizer(clip=Clip(kind, draws.choice(CLIP_BOUNDS[kind]))), ""


@_planted("clipping: left out", "gradient", "optimizer", says=("clip",))
def _unclipped(about: Recipe, draws: random.Random) -> Planted:
    return (about.with_optimizer(clip=None), "") if about.optimizer.clip else None


@_planted("clipping: bound", "gradient", "optimizer", says=("clip",))
def _clip_bound(about: Recipe, draws: random.Random) -> Planted:
    clip = about.optimizer.clip
    return (about.with_optimizer(clip=Clip(clip.kind, clip.bound / 2)), "") if clip else None


@_planted("clipping: kind of norm", "gradient", "optimizer", says=("clip",))
def _clip_kind(about: Recipe, draws: random.Random) -> Planted:
    """With a bias before the loss there are two gradients at least, so that the norms of each and of all differ."""
    clip = about.optimizer.clip
    if clip is None or not about.layers[-1].bias:
        return None
    kind = draws.choice([each for each in CLIP_BOUNDS if each != clip.kind])
    return about.with_optimizer(clip=Clip(kind, clip.bound)), ""


@_planted("optimizer: epsilon", "update", "optimizer", says=("epsilon",))
def _epsilon(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, ("Adam", "RMSProp"), epsilon=max(about.optimizer.epsilon * 100, 1e-4))


@_planted("optimizer: rate x 1.01", "update", "optimizer", says=("rate",))
def _rate(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, _ALL, rate=about.optimizer.rate * 1.01)


@_planted("optimizer: rate x 10", "update", "optimizer", says=("rate",))
def _rate_tenfold(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, _ALL, rate=about.optimizer.rate * 10)


@_planted("optimizer: momentum", "update", "optimizer", says=("momentum",))
def _momentum(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, ("Momentum", "Nesterov"), momentum=_lower(about.optimizer.momentum))


@_planted("optimizer: rho", "update", "optimizer", says=("rho", "decay"))
def _rho(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, ("RMSProp",), rho=_lower(about.optimizer.rho))


@_planted("optimizer: beta_1", "update", "optimizer", says=("beta_1", "beta1"))
def _beta_1(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, ("Adam",), beta_1=_lower(about.optimizer.beta_1))


@_planted("optimizer: beta_2", "update", "optimizer", says=("beta_2", "beta2"))
def _beta_2(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, ("Adam",), beta_2=_lower(about.optimizer.beta_2))


@_planted("optimizer: Nesterov left out", "update", "optimizer", says=("nesterov",))
def _plain_momentum(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, ("Nesterov",), kind="Momentum")


@_planted("optimizer: Nesterov added", "update", "optimizer", says=("nesterov",))
def _nesterov(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, ("Momentum",), kind="Nesterov")


@_planted("optimizer: weight decay", "update", "optimizer", says=("decay",))
def _weight_decay(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, _ALL, weight_decay=0.01)


@_planted("optimizer: first slots", "initialisation", "optimizer", says=("slot", "velocity", "accumulator", "rms"))
def _first_slots(about: Recipe, draws: random.Random) -> Planted:
    return _in_optimizer(about, ("RMSProp", "Adagrad"), first=round(1 - about.optimizer.first, 3))


@_planted("moving average: decay", "update", "variable", "average")
def _average_decay(about: Recipe, draws: random.Random) -> Planted:
    average = about.average
    if average is None or average.counted:
        return None
    return dataclasses.replace(about, average=Average(0.9, counted=False)), "output"


@_planted("moving average: updates not counted", "update", "variable", "average")
def _average_uncounted(about: Recipe, draws: random.Random) -> Planted:
    average = about.average
    if average is None or not average.counted:
        return None
    return dataclasses.replace(about, average=Average(average.decay, counted=False)), "output"


# --- Schedules --------------------------------------------------------------------------------------------------------
def _in_decay(about: Recipe, wanted: Callable[[Decay], bool], **facts: Any) -> Planted:
    decay = about.optimizer.decay
    if decay is None or not wanted(decay):
        return None
    changed = {key: value(decay) if callable(value) else value for key, value in facts.items()}
    return about.with_optimizer(decay=dataclasses.replace(decay, **changed)), ""


@_planted("decay: staircase", "update", "optimizer", says=("rate",))
def _staircase(about: Recipe, draws: random.Random) -> Planted:
    return _in_decay(
        about,
        lambda decay: not decay.far and decay.kind in ("exponential", "inverse_time"),
        staircase=lambda decay: not decay.staircase,
    )


@_planted("decay left out", "update", "optimizer", says=("rate",))
def _constant_rate(about: Recipe, draws: random.Random) -> Planted:
    decay = about.optimizer.decay
    return (about.with_optimizer(decay=None), "") if decay and not decay.far else None


@_planted("far decay: twice as long", HORIZON, "optimizer", says=("rate",))
def _twice_as_long(about: Recipe, draws: random.Random) -> Planted:
    return _in_decay(
        about, lambda decay: decay.far and decay.flat and decay.kind != "piecewise", steps=lambda decay: 2 * decay.steps
    )


@_planted("far decay: boundary moved", HORIZON, "optimizer", says=("rate",))
def _boundary(about: Recipe, draws: random.Random) -> Planted:
    return _in_decay(
        about, lambda decay: decay.far and decay.kind == "piecewise", steps=lambda decay: decay.steps * 3 // 2
    )


@_planted("far decay: last rate", HORIZON, "optimizer", says=("rate",))
def _last_rate(about: Recipe, draws: random.Random) -> Planted:
    return _in_decay(about, lambda decay: decay.far and decay.kind == "piecewise", last=0.5)


@_planted("far decay: factor", HORIZON, "optimizer", says=("rate",))
def _factor(about: Recipe, draws: random.Random) -> Planted:
    return _in_decay(about, lambda decay: decay.far and decay.flat, rate=lambda decay: round(decay.rate - 0.1, 3))


@_planted("far decay: cycle", HORIZON, "optimizer", says=("rate",))
def _cycle(about: Recipe, draws: random.Random) -> Planted:
    return _in_decay(about, lambda decay: decay.far and decay.kind == "polynomial", cycle=lambda decay: not decay.cycle)


@_planted("far decay: left out", HORIZON, "optimizer", says=("rate",))
def _no_far_decay(about: Recipe, draws: random.Random) -> Planted:
    decay = about.optimizer.decay
    return (about.with_optimizer(decay=None), "") if decay and decay.far and decay.flat else None


@_planted("far moving average", HORIZON, "variable", "average")
def _far_average(about: Recipe, draws: random.Random) -> Planted:
    """The decay that is reached after many updates."""
    average = about.average
    if average is None or not average.counted:
        return None
    return dataclasses.replace(about, average=Average(0.999, counted=True)), "output"
