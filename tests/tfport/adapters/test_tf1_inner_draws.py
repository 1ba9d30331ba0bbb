"""What a TF1 graph draws inside loops, branches and functions: fed in the order of a program that runs step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf2
import tensorflow.compat.v1 as tf

from cases import inner_draws
from tfport.adapters.tf1_sides import GraphProgram, from_meta, tf1_graph
from tfport.checking.draws import DrawSource

BATCH = {"x": np.random.default_rng(0).normal(size=(4, 3)).astype("float32")}


@pytest.fixture(params=["v1", "v2"])
def control_flow(request: pytest.FixtureRequest) -> Iterator[None]:
    was_v2 = tf.control_flow_v2_enabled()
    (tf.enable_control_flow_v2 if request.param == "v2" else tf.disable_control_flow_v2)()
    yield
    (tf.enable_control_flow_v2 if was_v2 else tf.disable_control_flow_v2)()


def built(compute: Callable[[Any], Any], more: Callable[[], None] = lambda: None) -> GraphProgram:
    """A program that trains what `compute` makes of x @ w, w being the identity."""

    def build() -> dict[str, Any]:
        more()
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        w = tf.get_variable("w", [3, 3], initializer=tf.initializers.identity())
        out = compute(tf.matmul(x, w))
        train = tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(tf.square(out)))
        return {"outputs": {"out": out}, "train_op": train}

    return tf1_graph(build)


def noise(value: Any) -> Any:
    return tf.random_normal(tf.shape(value))


def drawing(phase: str = "forward") -> DrawSource:
    found = DrawSource()
    found.begin(phase)
    return found


def loop(count: Any, body: Callable[[Any, Any], Any], value: Any) -> Any:
    return tf.while_loop(lambda i, _: i < count, lambda i, value: (i + 1, body(i, value)), (0, value))[1]


def check_fed(program: GraphProgram, expected: Callable[[Any, DrawSource], Any]) -> None:
    """Outputs are those that numpy computes with the same draws, in both precisions; phases repeat and train."""
    assert program.random_draws() and all(info.controlled for info in program.random_draws())
    wanted = expected(BATCH["x"], drawing())
    for each in (program, program.in_float64()):
        np.testing.assert_allclose(each.forward(BATCH, True)["out"], wanted, rtol=1e-5, atol=1e-6)
    loss = program.loss("train", BATCH)
    assert loss == pytest.approx(np.mean(np.square(expected(BATCH["x"], drawing("train")))), rel=1e-5)
    kinds = [node.kind for node in program.nodes(BATCH, True, "train")]
    assert "PyFunc" not in kinds
    gradients = program.gradients("train", BATCH)["w"]
    assert gradients is not None
    assert program.run_phase("train", BATCH)["loss"] == loss
    np.testing.assert_allclose(program.state().arrays["w"], np.eye(3) - 0.1 * gradients, rtol=1e-4, atol=1e-6)
    program.draws.step = 1
    assert program.loss("train", BATCH) != loss
    assert program.drawn("train", BATCH) is not None
    program.close()


@pytest.mark.usefixtures("control_flow")
def test_each_iteration_draws_after_the_last_one_and_before_what_follows() -> None:
    def compute(x: Any) -> Any:
        x = x + noise(x)
        x = loop(3, lambda _, value: tf.tanh(value * noise(value)) + noise(value), x)
        return x * noise(x)

    def expected(x: Any, draws: DrawSource) -> Any:
        x = x + draws.normal(x.shape)
        for _ in range(3):
            x = np.tanh(x * draws.normal(x.shape)) + draws.normal(x.shape)
        return x * draws.normal(x.shape)

    program = built(compute)
    names = [node.name for node in program.nodes(BATCH, True)]
    assert sum("Tanh [iteration " in name for name in names) == 3
    check_fed(program, expected)


@pytest.mark.usefixtures("control_flow")
def test_a_branch_in_a_loop_draws_where_it_runs() -> None:
    def compute(x: Any) -> Any:
        def body(i: Any, value: Any) -> Any:
            value = tf.cond(tf.equal(i % 2, 0), lambda: value + noise(value), lambda: 0.5 * value)
            return tf.nn.dropout(value, rate=0.5)

        return loop(tf.shape(x)[0], body, x)

    def expected(x: Any, draws: DrawSource) -> Any:
        for i in range(4):
            x = 0.5 * x if i % 2 else x + draws.normal(x.shape)
            x = np.where(draws.uniform(x.shape) >= 0.5, 2 * x, 0)
        return x

    check_fed(built(compute), expected)


@pytest.mark.usefixtures("control_flow")
def test_a_loop_in_a_loop() -> None:
    def compute(x: Any) -> Any:
        def body(i: Any, value: Any) -> Any:
            value = value * noise(value)
            return loop(i + 1, lambda j, inner: inner + tf.cast(j + 1, tf.float32) * noise(inner), value)

        return loop(3, body, x)

    def expected(x: Any, draws: DrawSource) -> Any:
        for i in range(3):
            x = x * draws.normal(x.shape)
            for j in range(i + 1):
                x = x + (j + 1) * draws.normal(x.shape)
        return x

    check_fed(built(compute), expected)


def test_functions_draw_each_time_they_are_called() -> None:
    @tf2.function
    def inner(x: Any) -> Any:
        return x + tf.random.normal(tf.shape(x))

    @tf2.function
    def outer(x: Any) -> Any:
        return inner(2 * inner(x)) * tf.random.uniform(tf.shape(x))

    def expected(x: Any, draws: DrawSource) -> Any:
        for _ in range(2):
            x = 2 * (x + draws.normal(x.shape))
            x = (x + draws.normal(x.shape)) * draws.uniform(x.shape)
        return x

    check_fed(built(lambda x: outer(outer(x))), expected)


@pytest.mark.usefixtures("control_flow")
def test_other_kinds_in_a_loop() -> None:
    def compute(x: Any) -> Any:
        def body(i: Any, value: Any) -> Any:
            value = tf.random_shuffle(value) + tf.random.truncated_normal([4, 3])
            wanted = tf.random_uniform([], 0, 3, tf.int32)
            chosen = tf.random.categorical(tf.zeros([4, 3]), 1)
            return value * tf.cast(wanted + 1, tf.float32) + tf.cast(chosen, tf.float32) + tf.cast(i, tf.float32)

        return loop(2, body, x)

    def expected(x: Any, draws: DrawSource) -> Any:
        for i in range(2):
            x = x[draws.shuffle(4)] + draws.truncated_normal((4, 3))
            wanted = draws.integers((), 0, 3)
            chosen = np.argmax(draws.number("multinomial", (4, 1, 3)).gumbel(size=(4, 1, 3)), axis=-1)
            x = x * (wanted + 1) + chosen + i
        return x

    check_fed(built(compute), expected)


def test_what_has_no_numbers_is_listed() -> None:
    program = built(lambda x: loop(2, lambda _, value: value + tf.random.gamma([], 1.0), x))
    (info,) = program.random_draws()
    assert not info.controlled and "inside" in info.reason


@pytest.mark.parametrize("v2", [False, True])
def test_a_graph_from_a_file_is_fed_alike(v2: bool, tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        made = inner_draws.graph(v2)()
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    names: dict[str, Any] = {"inputs": ["x", "y"], "losses": made["loss"].name, "train_ops": made["train_op"].name}
    names |= {"training": {"training": True}, "inference": {"training": False}}
    batch = inner_draws.batches(0)
    read = from_meta(tmp_path / "model.ckpt.meta", outputs={"out": made["outputs"]["out"].name}, **names)
    assert read.loss("train", batch) == tf1_graph(inner_draws.graph(v2)).loss("train", batch)
