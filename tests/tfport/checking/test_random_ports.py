"""Random ports: the generator by itself, and a few seeds of the campaign of `make prove`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import random_ports
import tfport
from random_ports import CHANGES, DECAYS, HORIZON, PARADIGMS, RandomPort
from random_ports.keras_sides import schedule, subclass_model
from tfport.equivalence.result import RUNGS

STEPS = 4
CORRECT = (27, 47, 314, 10_003, 10_004, 10_005)
"""Seeds of small programs: paradigms, names and dtypes of several kinds, ids, loops, dropout, schedules."""
BROKEN = {
    "bias left out of the sum": 10_048,
    "layers swapped": 10_050,
    "normalisation: momentum": 10_004,
    "gather off by one": 10_011,
    "label off by one": 10_018,
    "labels rolled": 10_019,
    "optimizer: rate x 1.01": 10_026,
    "optimizer: rho": 10_029,
    "optimizer: Nesterov left out": 10_032,
    "optimizer: first slots": 10_035,
}
"""Kind of change -> a seed that gives a small program."""
ALL_KINDS = range(len(CHANGES))


def model_of(port: RandomPort) -> Any:
    """The port's model, built."""
    if port.paradigm != "subclass":
        return port.modern()
    model = subclass_model(port, "float32")
    model(tf.zeros([1, *port.recipe.shape], "int32" if port.recipe.tokens else "float32"))
    return model


def weights(port: RandomPort, model: Any) -> dict[str, Any]:
    """The port's variables by the recipe's names."""
    if port.paradigm == "tf_module":
        return dict(model.weights)
    paths = {getattr(each, "path", each.name).split(":")[0]: each for each in model.weights}
    return {path.removeprefix("net/").replace("simple_rnn_cell/", ""): each for path, each in paths.items()}


def trained(port: RandomPort, steps: int, first: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A side's variables before and after some steps; the legacy side's where no first values are given."""
    if first is not None:
        model = model_of(port)
        held = weights(port, model)
        for legacy, modern in port.pairs.items():
            held[modern].assign(first[legacy])
        for step in range(steps):
            batch = {name: tf.constant(value) for name, value in port.batches(step).items()}
            if port.paradigm == "tf_module":
                model.train_step(**batch)
            elif port.paradigm == "subclass":
                model.learn(**batch)
            else:
                model.train_on_batch(batch["x"], batch["y"])
        return first, {legacy: np.asarray(held[modern]) for legacy, modern in port.pairs.items()}
    v1 = tf.compat.v1
    with v1.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        v1.set_random_seed(0)
        parts = port.legacy()
        session.run(v1.global_variables_initializer())
        variables = {each.op.name: each for each in v1.global_variables()}
        held = {name: variables[name] for name in port.pairs}
        before = session.run(held)
        for step in range(steps):
            fed = {f"{name}:0": value for name, value in port.batches(step).items()}
            session.run(parts["train_op"], {**fed, "training:0": True})
        return before, session.run(held)


def distance(left: dict[str, Any], right: dict[str, Any]) -> float:
    """The largest difference as a share of its tensor."""
    return max(float(np.abs(left[name] - right[name]).max() / (np.abs(left[name]).max() or 1)) for name in left)


# --- The generator ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [random_ports.port, random_ports.broken])
def test_a_seed_is_always_the_same_port(make: Any) -> None:
    assert [make(seed) for seed in range(20)] == [make(seed) for seed in range(20)]
    assert len({make(seed).description for seed in range(20)}) == 20
    for name, value in make(3).batches(1).items():
        np.testing.assert_array_equal(value, make(3).batches(1)[name])


def test_every_kind_of_program_is_drawn() -> None:
    ports = [random_ports.port(seed) for seed in range(400)]
    assert {port.paradigm for port in ports} == set(PARADIGMS)
    assert {port.recipe.optimizer.kind for port in ports} == set(random_ports.OPTIMIZERS)
    assert {port.recipe.loss.kind for port in ports} == {"mse", "softmax", "sparse_softmax", "sigmoid"}
    layers = [layer for port in ports for layer in port.recipe.layers]
    assert {layer.activation for layer in layers} == set(random_ports.ACTIVATIONS)
    assert any(layer.kind == "conv" for layer in layers) and any(layer.dropout for layer in layers)
    assert {port.names for port in ports} == {"agree", "partly", "none"}
    recipes = [port.recipe for port in ports]
    assert {each.tokens.reads for each in recipes if each.tokens} == {"mean", "flat", "loop", "picked"}
    assert {port.forms.legacy_loop for port in ports if port.recipe.loop} == {
        "while", "while_v1", "array", "scan", "unrolled",
    }  # fmt: skip
    assert {each.loss.named for each in recipes} == {1.0, -1.0, 100.0}
    assert {each.optimizer.clip.kind for each in recipes if each.optimizer.clip} == {"value", "norm", "global"}
    decays = [each.optimizer.decay for each in recipes if each.optimizer.decay]
    assert {(each.kind, each.far) for each in decays} == {(kind, far) for kind in DECAYS for far in (True, False)}
    assert {port.forms.legacy_dtype for port in ports} == {"given", "float32"}
    assert {port.forms.modern_dtype for port in ports} == {"given", "floatx", "float32"}
    assert all(port.recipe == port.ported and port.change is None for port in ports)


@pytest.mark.parametrize("seed", ALL_KINDS)
def test_a_broken_port_is_a_correct_one_with_one_change(seed: int) -> None:
    port = random_ports.broken(seed)
    assert port.change is not None and port.change.kind == list(CHANGES)[seed]
    assert port.change.rung in (*RUNGS, HORIZON)
    assert port.ported != port.recipe
    assert port.ported.variables().keys() == port.recipe.variables().keys()


def test_names_stand_for_sides() -> None:
    assert random_ports.port_3_batches(0).keys() == {"x", "y"}
    assert random_ports.broken_12_modern.__self__ == random_ports.broken(12)
    with pytest.raises(AttributeError, match="port_x_legacy_side"):
        random_ports.port_x_legacy_side  # noqa: B018


@pytest.mark.parametrize("seed", [2, 5, 7, 8, 9, 12, 13, 16, 24, 25, 29, 38])
def test_correct_ports_train_alike_without_the_tool(seed: int) -> None:
    port = random_ports.port(10_000 + seed).without_dropout()
    first, legacy = trained(port, STEPS)
    assert distance(legacy, first) > 1e-4, port.description
    assert distance(legacy, trained(port, STEPS, first)[1]) < 1e-4, port.description


@pytest.mark.parametrize(
    "kind",
    [
        "activation",
        "normalisation: unbiased variance",
        "layer never trained",
        "decay: staircase",
        "ids shifted",
        "gather off by one",
        "loop: activation",
        "loop: one step less",
        "loop: order of time",
        "labels rolled",
        "loss of the wrong sign",
        "clipping: left out",
        "clipping: bound",
        "clipping: kind of norm",
        "moving average: updates not counted",
    ],
)
def test_broken_ports_train_otherwise_without_the_tool(kind: str) -> None:
    port = random_ports.broken(1, kind).without_dropout()
    first, legacy = trained(port, 8)
    assert distance(legacy, trained(port, 8, first)[1]) > 1e-3, port.description


@pytest.mark.parametrize("kind", [kind for kind in CHANGES if kind.startswith("far decay")])
def test_far_decays_part_only_beyond_what_is_run(kind: str) -> None:
    port = random_ports.broken(1, kind)
    legacy, modern = port.recipe.optimizer, port.ported.optimizer
    assert all(legacy.number("learning_rate", step) == modern.number("learning_rate", step) for step in range(100))
    apart = [legacy.number("learning_rate", step) != modern.number("learning_rate", step) for step in range(20_000)]
    assert any(apart)


def test_a_decay_is_what_keras_computes() -> None:
    for seed in range(60):
        optimizer = random_ports.port(seed).recipe.optimizer
        if optimizer.decay is not None:
            falling = schedule(keras, optimizer.rate, optimizer.decay)
            for step in (0, 1, 3, 8, 15, 1000, 1001, 5432, 12_345):
                expected = pytest.approx(optimizer.decay.at(optimizer.rate, step), rel=1e-4, abs=1e-7)
                assert float(falling(step)) == expected, (optimizer.decay, step)


# --- The tool ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", CORRECT)
def test_a_correct_port_passes(seed: int) -> None:
    port = random_ports.port(seed)
    report = tfport.check(port.legacy, port.modern, port.batches, steps=STEPS, seed=seed)
    assert report.equal, port.description


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_port_is_found(kind: str) -> None:
    seed = BROKEN[kind]
    port = random_ports.broken(seed, kind)
    report = tfport.check(port.legacy, port.modern, port.batches, steps=STEPS, seed=seed)
    assert not report.equal, port.description
    assert port.change is not None and report.pair is not None
    assert report.pair.located in (port.change.rung, None), port.description
    assert not report.pair.rung(port.change.rung).verdict.equal, port.description
