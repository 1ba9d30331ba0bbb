"""The floating intermediates of a traced computation: which they are, what they read, and their values."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfport.adapters.func_graphs import Found, Traces, nodes_of, trace
from tfport.adapters.tf_draws import Interceptor
from tfport.checking.draws import DrawSource
from tfport.program import Node

BOTH = pytest.mark.parametrize("package", [tf_keras, keras], ids=["tf_keras", "keras"])


def _names(model: Any) -> dict[str, Any]:
    return {getattr(each, "path", each.name).removesuffix(":0"): each for each in model.weights}


def _by_kind(nodes: list[Node]) -> dict[str, Node]:
    return {node.kind: node for node in nodes}


def test_nodes_have_values_inputs_and_variables() -> None:
    kernel, bias = tf.Variable([[2.0], [3.0]]), tf.Variable([1.0])
    inputs = np.array([[1.0, 2.0]], np.float32)
    nodes = nodes_of(
        lambda named: tf.identity(tf.tanh(tf.stop_gradient(tf.matmul(named["x"], kernel)) + bias)),
        {"x": inputs},
        {"kernel": kernel, "bias": bias},
    )
    assert [(node.kind, node.variables) for node in nodes] == [
        ("MatMul", ("kernel",)),
        ("AddV2", ("bias",)),
        ("Tanh", ()),
    ]
    assert nodes[0].inputs == ("x",)
    assert nodes[1].inputs == (nodes[0].name,)  # through StopGradient
    np.testing.assert_array_equal(nodes[0].value, [[8.0]])
    np.testing.assert_allclose(nodes[-1].value, np.tanh([[9.0]]), rtol=1e-6)


def test_what_depends_on_shapes_alone_is_left_out() -> None:
    def mean(named: dict[str, Any]) -> Any:
        count = tf.cast(tf.shape(named["x"])[0], tf.float32)
        return tf.reduce_sum(named["x"]) / (count * 2.0)

    nodes = nodes_of(mean, {"x": np.ones((3,), np.float32)}, {})
    assert [node.kind for node in nodes] == ["Sum", "RealDiv"]
    assert nodes[-1].inputs == (nodes[0].name,)


def test_functions_are_opened_and_branches_of_other_results_left_out() -> None:
    @tf.function
    def inner(value: Any) -> Any:
        return tf.exp(value) * 2.0

    def outer(named: dict[str, Any]) -> Any:
        tf.sin(named["x"])  # nobody reads it
        return inner(named["x"])

    assert [node.kind for node in nodes_of(outer, {"x": np.ones((2,), np.float32)}, {})] == ["Exp", "Mul"]
    assert not tf.config.functions_run_eagerly()


def test_integers_are_nodes() -> None:
    def picked(named: dict[str, Any]) -> Any:
        best = tf.argmax(tf.exp(named["x"]))
        return tf.gather(tf.sin(named["x"]), best)

    nodes = _by_kind(nodes_of(picked, {"x": np.array([1.0, 2.0], np.float32)}, {}))
    assert set(nodes["GatherV2"].inputs) == {nodes["Sin"].name, nodes["ArgMax"].name}
    assert nodes["ArgMax"].inputs == (nodes["Exp"].name,) and nodes["ArgMax"].value == 1


def test_variables_are_read_when_run_and_found_stops_the_trace() -> None:
    variable = tf.Variable(1.0)

    def stopping(named: dict[str, Any]) -> Any:
        target = named["x"] * variable
        variable.assign_add(5.0)
        raise Found(target)

    traced = trace(stopping, {"x": np.float32(2)}, {"v": variable})
    variable.assign(3.0)
    (node,) = traced.run({"x": np.float32(2)})
    assert float(node.value) == 6.0
    assert float(variable.numpy()) == 8.0


def test_targets_come_last_in_their_order() -> None:
    def two(named: dict[str, Any]) -> Any:
        late = tf.sin(named["x"])
        return [tf.cos(late), late]

    assert [node.kind for node in nodes_of(two, {"x": np.float32(2)}, {})] == ["Cos", "Sin"]


@BOTH
def test_a_model_with_lstm_dropout_and_batch_normalisation(package: Any) -> None:
    layers = package.layers
    model = package.Sequential(
        [layers.Input((4, 3)), layers.LSTM(2), layers.Dropout(0.5), layers.BatchNormalization(), layers.Dense(1)]
    )
    inputs = np.random.default_rng(0).random((2, 4, 3)).astype("f")
    interceptor = Interceptor(DrawSource())
    with interceptor.feeding("forward"):
        nodes = nodes_of(lambda named: model(named["x"], training=True), {"x": inputs}, _names(model))
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    known = {*names, "x"}
    assert all(set(node.inputs) <= known for node in nodes)
    read = {name for node in nodes for name in node.variables}
    assert read == {name for name in _names(model) if "moving" not in name}
    source = DrawSource()
    source.begin("forward")
    drawn = next(node for node in nodes if "RandomUniform" in node.kind)
    np.testing.assert_array_equal(drawn.value, source.uniform((2, 2)))
    with interceptor.feeding("forward"):
        expected = model(inputs, training=True)
    np.testing.assert_allclose(nodes[-1].value, expected, rtol=1e-6)


@BOTH
def test_an_embedding_names_its_table(package: Any) -> None:
    model = package.Sequential([package.layers.Input((3,), dtype="int32"), package.layers.Embedding(5, 2)])
    nodes = nodes_of(lambda named: model(named["x"]), {"x": np.array([[1, 2, 3]], np.int32)}, _names(model))
    assert nodes[-1].variables == tuple(_names(model))
    np.testing.assert_array_equal(nodes[-1].value[0], np.array(model.weights[0])[[1, 2, 3]])


# --- Traces -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("python_draws", "once", "traces"), [(False, True, 1), (False, False, 3), (True, True, 3), (True, False, 3)]
)
def test_a_trace_serves_every_step_where_its_python_runs_once_and_draws_nothing(
    python_draws: bool, once: bool, traces: int
) -> None:
    kept, made = Traces(), []

    def function(named: dict[str, Any]) -> Any:
        made.append(named)
        return named["x"] * (np.random.rand() if python_draws else 2.0)  # noqa: NPY002

    for step in (0, 1, 7, 1):
        x = np.full(3, step, np.float32)
        (node,) = kept.get("key", step, function, {"x": x}, {}, once=once).run({"x": x})
        assert python_draws or node.value.tolist() == [2 * step] * 3
    assert len(made) == traces
    kept.get("another key", 0, function, {"x": np.zeros(3, np.float32)}, {}, once=once)
    kept.get("key", 0, function, {"x": np.zeros(4, np.float32)}, {}, once=once)
    assert len(made) == traces + 2
