"""Random ports: the generator by itself, and a few seeds of the campaign of `make prove`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import random_ports
import tfport
from random_ports import CHANGES, PARADIGMS, RandomPort
from tfport.equivalence.result import RUNGS

STEPS = 4
CORRECT = (8, 11, 24, 27, 29, 52)
"""Seeds of small programs: all three paradigms, shuffled and unrelated names, dropout, normalisation, decay."""
BROKEN = {
    "activation": 5,
    "extra scale": 6,
    "normalisation: epsilon": 10,
    "normalisation: momentum": 6,
    "loss summed": 1,
    "reported loss": 8,
    "layer never trained": 0,
    "optimizer: rate x 1.01": 10,
    "optimizer: beta_1": 4,
    "decay: staircase": 9,
}
"""Kind of change -> a seed that gives a small program."""
ALL_KINDS = range(len(CHANGES))


def weights(port: RandomPort, model: Any) -> dict[str, Any]:
    """The port's variables by name."""
    if port.paradigm == "tf_module":
        return dict(model.weights)
    return {getattr(each, "path", each.name).split(":")[0]: each for each in model.weights}


def trained(port: RandomPort, steps: int, first: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A side's variables before and after some steps; the legacy side's where no first values are given."""
    if first is not None:
        model = port.modern()
        held = weights(port, model)
        for legacy, modern in port.pairs.items():
            held[modern].assign(first[legacy])
        for step in range(steps):
            batch = port.batches(step)
            if port.paradigm == "tf_module":
                model.train_step(**{name: tf.constant(value) for name, value in batch.items()})
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
    ports = [random_ports.port(seed) for seed in range(200)]
    assert {port.paradigm for port in ports} == set(PARADIGMS)
    assert {port.recipe.optimizer.kind for port in ports} == set(random_ports.OPTIMIZERS)
    assert {port.recipe.loss.kind for port in ports} == {"mse", "softmax", "sparse_softmax", "sigmoid"}
    layers = [layer for port in ports for layer in port.recipe.layers]
    assert {layer.activation for layer in layers} == set(random_ports.ACTIVATIONS)
    assert any(layer.kind == "conv" for layer in layers) and any(layer.dropout for layer in layers)
    assert {port.names for port in ports} == {"agree", "partly", "none"}
    assert all(port.recipe == port.ported and port.change is None for port in ports)


@pytest.mark.parametrize("seed", ALL_KINDS)
def test_a_broken_port_is_a_correct_one_with_one_change(seed: int) -> None:
    port = random_ports.broken(seed)
    assert port.change is not None and port.change.kind == list(CHANGES)[seed]
    assert port.change.rung in RUNGS
    assert port.ported != port.recipe
    assert port.ported.variables().keys() == port.recipe.variables().keys()


def test_names_stand_for_sides() -> None:
    assert random_ports.port_3_batches(0).keys() == {"x", "y"}
    assert random_ports.broken_12_modern.__self__ == random_ports.broken(12)
    with pytest.raises(AttributeError, match="port_x_legacy_side"):
        random_ports.port_x_legacy_side  # noqa: B018


@pytest.mark.parametrize("seed", [0, 2, 6, 9, 15])
def test_correct_ports_train_alike_without_the_tool(seed: int) -> None:
    port = random_ports.port(seed).without_dropout()
    first, legacy = trained(port, STEPS)
    assert distance(legacy, first) > 1e-4
    assert distance(legacy, trained(port, STEPS, first)[1]) < 1e-4


@pytest.mark.parametrize(
    "kind", ["activation", "normalisation: unbiased variance", "layer never trained", "decay: staircase"]
)
def test_broken_ports_train_otherwise_without_the_tool(kind: str) -> None:
    port = random_ports.broken(1, kind).without_dropout()
    first, legacy = trained(port, 8)
    assert distance(legacy, trained(port, 8, first)[1]) > 1e-3


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
    assert report.pair.located == port.change.rung, port.description
