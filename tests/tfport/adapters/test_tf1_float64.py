"""A float32 graph rewritten to float64: every op computes in float64, and the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tfport.adapters import from_meta, from_saved_model, tf1_graph
from tfport.adapters.tf1_float64 import in_float64
from tfport.adapters.tf1_reading import Reading

STEPS = 3


# --- Programs ---------------------------------------------------------------------------------------------------------
def dense() -> dict[str, Any]:
    """Adam with a rate that decays, and moving averages."""
    x, y = tf.placeholder(tf.float32, [None, 5], name="x"), tf.placeholder(tf.float32, [None, 1], name="y")
    w = tf.get_variable("w", [5, 1])
    b = tf.get_variable("b", [1], initializer=tf.zeros_initializer())
    step = tf.train.get_or_create_global_step()
    out = tf.matmul(x, w) + b
    loss = tf.reduce_mean(tf.square(out - y)) + 0.01 * tf.nn.l2_loss(w)
    train = tf.train.AdamOptimizer(tf.train.exponential_decay(0.1, step, 2, 0.9)).minimize(loss, global_step=step)
    with tf.control_dependencies([train]):
        train = tf.train.ExponentialMovingAverage(0.99).apply([w, b])
    return {"outputs": {"out": out}, "loss": loss, "train_op": train}


def convolution() -> dict[str, Any]:
    """Batch and local response normalisation, whose ops have float32 kernels alone, in the branches of a cond."""
    x, y = tf.placeholder(tf.float32, [None, 6, 6, 2], name="x"), tf.placeholder(tf.int64, [None], name="y")
    training = tf.placeholder(tf.bool, [], name="is_training")
    h = tf.nn.conv2d(x, tf.get_variable("k", [3, 3, 2, 4]), 1, "SAME")
    scale = tf.get_variable("scale", [4], initializer=tf.random_uniform_initializer(0.5, 2.0))
    offset = tf.get_variable("offset", [4], initializer=tf.random_normal_initializer())
    mean = tf.get_variable("mean", [4], initializer=tf.zeros_initializer(), trainable=False, use_resource=True)
    variance = tf.get_variable("variance", [4], initializer=tf.ones_initializer(), trainable=False, use_resource=True)

    def of_batch() -> Any:
        normal, batch_mean, batch_variance = tf.nn.fused_batch_norm(h, scale, offset, epsilon=1e-3, is_training=True)
        moved = [mean.assign(0.9 * mean + 0.1 * batch_mean), variance.assign(0.9 * variance + 0.1 * batch_variance)]
        with tf.control_dependencies(moved):
            return tf.identity(normal)

    def of_statistics() -> Any:
        return tf.nn.fused_batch_norm(h, scale, offset, mean, variance, epsilon=1e-3, is_training=False)[0]

    h = tf.nn.lrn(tf.nn.relu(tf.cond(training, of_batch, of_statistics)), 2, bias=1.0, alpha=0.1, beta=0.75)
    h = tf.reshape(tf.nn.max_pool(h, 2, 2, "SAME"), [-1, 36])
    logits = tf.matmul(h, tf.get_variable("w", [36, 3]))
    loss = tf.losses.sparse_softmax_cross_entropy(y, logits)
    train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    feeds = {"training": {training: True}, "inference": {training: False}}
    return {"outputs": {"logits": logits}, "loss": loss, "train_op": train, **feeds}


def recurrent() -> dict[str, Any]:
    """A while loop that reads and writes TensorArrays."""
    x, y = tf.placeholder(tf.float32, [None, 4, 3], name="x"), tf.placeholder(tf.float32, [None, 1], name="y")
    w = tf.get_variable("w", [7, 4])
    inputs = tf.TensorArray(tf.float32, 4).unstack(tf.transpose(x, [1, 0, 2]))

    def body(step: Any, h: Any, kept: Any) -> Any:
        h = tf.tanh(tf.matmul(tf.concat([inputs.read(step), h], 1), w))
        return step + 1, h, kept.write(step, h)

    start = (0, tf.zeros([tf.shape(x)[0], 4]), tf.TensorArray(tf.float32, 4))
    _, h, kept = tf.while_loop(lambda step, *_: step < 4, body, start)
    out = tf.matmul(h, tf.get_variable("o", [4, 1])) + tf.reduce_mean(kept.stack())
    loss = tf.reduce_mean(tf.square(out - y))
    return {"outputs": {"out": out}, "loss": loss, "train_op": tf.train.RMSPropOptimizer(0.1).minimize(loss)}


def embedding() -> dict[str, Any]:
    """Adam on the rows that were looked up."""
    ids, y = tf.placeholder(tf.int32, [None, 3], name="ids"), tf.placeholder(tf.float32, [None, 1], name="y")
    rows = tf.nn.embedding_lookup(tf.get_variable("e", [11, 4]), ids)
    out = tf.matmul(tf.reshape(rows, [-1, 12]), tf.get_variable("w", [12, 1]))
    loss = tf.reduce_mean(tf.square(out - y))
    return {"outputs": {"out": out}, "loss": loss, "train_op": tf.train.AdamOptimizer(0.01).minimize(loss)}


def resized() -> dict[str, Any]:
    """An op whose output is float32 whatever it is given."""
    x, y = tf.placeholder(tf.float32, [None, 4, 4, 1], name="x"), tf.placeholder(tf.float32, [None, 1], name="y")
    image = tf.image.resize_bilinear(x, [6, 6])
    out = tf.matmul(tf.reshape(image, [-1, 36]), tf.get_variable("w", [36, 1]))
    loss = tf.reduce_mean(tf.square(out - y))
    train = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
    return {"outputs": {"image": image, "out": out}, "loss": loss, "train_op": train}


def batch_of(program: Any, dtype: str) -> dict[str, Any]:
    draw, found = np.random.default_rng(0), {}
    for each in program.inputs():
        shape = [8 if size is None else size for size in each.shape]
        integers = np.dtype(each.dtype).kind == "i"
        found[each.name] = (
            draw.integers(0, 3, shape) if integers else draw.normal(size=shape).astype("f4").astype(dtype)
        )
    return found


def floating(graph: Any) -> list[Any]:
    """The ops that give float32, but for what hands on a TensorArray's flow and an optimizer's rounded numbers."""
    ops = (op for op in graph.get_operations() if any(each.dtype.base_dtype == tf.float32 for each in op.outputs))
    return [op for op in ops if not (op.name.endswith("/rounded") or Reading.is_flow(op.outputs[-1]))]


@pytest.fixture(params=["references", "resources", "resources and functions"])
def style(request: pytest.FixtureRequest) -> Iterator[str]:
    """How TF1 makes variables, and loops and branches."""
    resources, functions = tf.resource_variables_enabled(), tf.control_flow_v2_enabled()
    _styled("resources" in request.param, "functions" in request.param)
    yield request.param
    _styled(resources, functions)


def _styled(resources: bool, functions: bool) -> None:
    (tf.enable_resource_variables if resources else tf.disable_resource_variables)()
    (tf.enable_control_flow_v2 if functions else tf.disable_control_flow_v2)()


# --- What comes of them -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("build", [dense, convolution, recurrent, embedding])
def test_a_graph_computes_the_same_in_float64(build: Callable[[], Any], style: str) -> None:
    single, double = tf1_graph(build, seed=1), tf1_graph(build, seed=1, precision="float64")
    assert (single.precision, double.precision) == ("float32", "float64")
    assert not floating(double.graph)
    narrow, wide = batch_of(single, "float32"), batch_of(double, "float64")
    nodes = double.nodes(wide, True, "train")
    assert nodes and all(node.value.dtype == np.float64 for node in nodes if node.value.dtype.kind == "f")
    assert all(node.where.startswith("test_tf1_float64.py:") for node in nodes)
    assert build is not convolution or "LRN" in {node.kind for node in nodes}
    for training in (True, False):
        shown = double.forward(wide, training)
        for name, value in single.forward(narrow, training).items():
            np.testing.assert_allclose(shown[name], value, 1e-5, 1e-6)
    for name, gradient in single.gradients("train", narrow).items():
        np.testing.assert_allclose(double.gradients("train", wide)[name], gradient, 1e-4, 1e-6)
    for _ in range(STEPS):
        assert double.run_phase("train", wide)["loss"] == pytest.approx(single.run_phase("train", narrow)["loss"], 1e-5)
    state = double.state().arrays
    for name, value in single.state().arrays.items():
        np.testing.assert_allclose(state[name], value, 1e-4, 2e-6)
        assert value.dtype.kind != "f" or state[name].dtype == np.float64
    single.close()
    double.close()


def test_numbers_are_those_that_were_written_and_an_optimizers_are_float32() -> None:
    program = tf1_graph(dense, precision="float64")
    batch = batch_of(program, "float64")
    numbers = program.optimizers()[0].hyperparameters
    assert numbers["beta_1"] == float(np.float32(0.9)) and numbers["learning_rate"] == float(np.float32(0.1))
    assert numbers["epsilon"] == float(np.float32(1e-8))
    w, b = (program.values.read(name) for name in ("w", "b"))
    loss = np.mean(np.square(batch["x"] @ w + b - batch["y"])) + 0.01 * 0.5 * np.sum(w * w)
    assert program.loss("train", batch) == pytest.approx(loss, rel=1e-14)
    for _ in range(STEPS):
        program.run_phase("train", batch)
    assert program.values.read("beta1_power") == pytest.approx(float(np.float32(0.9)) ** (STEPS + 1), rel=1e-15)
    assert program.state().arrays["optimizer/Adam/iterations"] == STEPS
    rate = program.optimizers()[0].hyperparameters["learning_rate"]
    assert rate == float(np.float32(0.1 * 0.9 ** (STEPS / 2)))
    program.close()


def test_an_op_that_gives_float32_alone_stays_between_casts() -> None:
    program = tf1_graph(resized, precision="float64")
    nodes = program.nodes(batch_of(program, "float64"), False)
    assert [node.kind for node in nodes if node.value.dtype == np.float32] == ["ResizeBilinear"]
    assert program.forward(batch_of(program, "float64"), False)["image"].dtype == np.float64
    program.close()


def test_a_finished_graph_keeps_the_values_of_its_session() -> None:
    graph = tf.Graph()
    with graph.as_default():
        parts = dense()
        session = tf.Session()
        session.run(tf.global_variables_initializer())
        kept = session.run(tf.trainable_variables()[0])
    program = tf1_graph(graph=graph, session=session, precision="float64", **parts)
    assert program.state().arrays["w"].dtype == np.float64
    np.testing.assert_array_equal(program.state().arrays["w"].astype(np.float32), kept)
    program.close()
    np.testing.assert_array_equal(session.run(graph.get_collection("trainable_variables")[0]), kept)
    session.close()


def test_files_are_rewritten_too(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        parts = dense()
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver()
        saver.save(session, str(tmp_path / "model"))
        builder = tf.saved_model.Builder(str(tmp_path / "saved"))
        builder.add_meta_graph_and_variables(session, ["train"], strip_default_attrs=True)
        builder.save()
        w = session.run(tf.trainable_variables()[0])
        named = {"losses": parts["loss"].name, "outputs": [parts["outputs"]["out"].name]}
        named["train_ops"] = {"train": parts["train_op"].name}
    for program in (
        from_meta(tmp_path / "model.meta", precision="float64", **named),
        from_saved_model(tmp_path / "saved", precision="float64", **named),
    ):
        assert program.precision == "float64"
        np.testing.assert_array_equal(program.state().arrays["w"].astype(np.float32), w)
        assert np.isfinite(program.run_phase("train", batch_of(program, "float64"))["loss"])
        program.close()


def test_records_and_python_functions_keep_their_float32() -> None:
    graph = tf.Graph()
    with graph.as_default():
        doubled = tf.data.Dataset.from_tensors(np.ones(2, np.float32)).map(lambda each: 2 * each)
        item = tf.data.make_one_shot_iterator(doubled).get_next()
        raw = tf.decode_raw(tf.constant(np.asarray([1, 2], np.float32).tobytes()), tf.float32)
        called = tf.py_func(lambda value: value + value.dtype.type(1), [item + raw], tf.float32)
        tf.identity(called * 0.1, name="result")
    wide = in_float64(graph)
    with tf.Session(graph=wide) as session:
        result = session.run("result:0")
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, [0.4, 0.5], rtol=1e-15)
