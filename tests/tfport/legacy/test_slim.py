"""The stand-ins of slim: losses take predictions first, a train op runs the updates, variables go by scope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tfport.legacy import layers, slim

LOGITS = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
HOT = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
SIGMOID = 1 / (1 + np.exp(-LOGITS))
LOG_SOFTMAX = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))


@pytest.fixture(autouse=True)
def graph() -> Iterator[None]:
    with tf.Graph().as_default():
        yield


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda: slim.softmax_cross_entropy(LOGITS, HOT), -(HOT * LOG_SOFTMAX).sum(1).mean()),
        (lambda: slim.softmax_cross_entropy(LOGITS, HOT, [2.0, 0.0]), -2 * LOG_SOFTMAX[0, 0]),
        (lambda: slim.sparse_softmax_cross_entropy(LOGITS, [0, 2]), -(HOT * LOG_SOFTMAX).sum(1).mean()),
        (lambda: slim.sigmoid_cross_entropy(LOGITS, HOT), -np.log(np.where(HOT > 0, SIGMOID, 1 - SIGMOID)).mean()),
        (lambda: slim.log_loss(SIGMOID, HOT), -np.log(np.where(HOT > 0, SIGMOID, 1 - SIGMOID)).mean()),
        (lambda: slim.mean_squared_error(LOGITS, HOT, 3.0), 3 * np.square(LOGITS - HOT).mean()),
        (lambda: slim.absolute_difference(LOGITS, HOT), np.abs(LOGITS - HOT).mean()),
    ],
)
def test_losses_take_predictions_first_and_are_collected(loss: Any, expected: float) -> None:
    found = loss()
    assert tf.get_collection(tf.GraphKeys.LOSSES) == [found]
    with tf.Session() as session:
        assert session.run(found) == pytest.approx(expected, rel=1e-5)


def test_hinge_is_neither_a_mean_nor_collected() -> None:
    found = slim.hinge_loss(LOGITS, HOT)
    assert not tf.get_collection(tf.GraphKeys.LOSSES)
    with tf.Session() as session:
        np.testing.assert_allclose(session.run(found), np.maximum(0, 1 - (2 * HOT - 1) * LOGITS))


def test_a_train_op_runs_updates_counts_and_clips_each_gradient() -> None:
    outputs = layers.fully_connected(LOGITS, 1, None, layers.batch_norm, weights_regularizer=layers.l2_regularizer(0.1))
    slim.mean_squared_error(outputs, [[5.0], [1.0]])
    loss = slim.get_total_loss()
    train = slim.create_train_op(
        loss,
        tf.train.GradientDescentOptimizer(1.0),
        clip_gradient_norm=0.01,
        gradient_multipliers={"fully_connected/BatchNorm/beta": 0.0},
    )
    assert tf.get_collection(tf.GraphKeys.TRAIN_OP)[-1] is train
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())

        def read() -> dict[str, Any]:
            return {each.op.name: session.run(each) for each in tf.global_variables()}

        before = read()
        told, expected = session.run(loss), session.run(train)
        after = read()
    assert told == expected
    moved = {name: np.linalg.norm(np.ravel(after[name] - before[name])) for name in before}
    assert moved["fully_connected/weights"] == pytest.approx(0.01, rel=1e-4)
    assert moved["fully_connected/BatchNorm/beta"] == 0
    assert moved["fully_connected/BatchNorm/moving_variance"] > 0
    assert after["global_step"] == 1


def test_a_step_is_not_counted_where_none_is_given() -> None:
    loss = tf.reduce_sum(layers.fully_connected(LOGITS, 1))
    slim.create_train_op(loss, tf.train.GradientDescentOptimizer(1.0), global_step=None)
    assert tf.train.get_global_step() is None


def test_variables_go_by_scope() -> None:
    for scope in ("vgg/fc", "vgg_2/fc"):
        layers.fully_connected(LOGITS, 1, scope=scope, outputs_collections="ends")
    own = tf.get_variable("own", [1], trainable=False)
    assert len(slim.get_variables()) == 5 and own not in slim.get_model_variables()
    assert [each.op.name for each in slim.get_trainable_variables("vgg_2")] == ["vgg_2/fc/weights", "vgg_2/fc/biases"]
    assert [each.op.name for each in slim.get_variables("vgg/", "weights")] == ["vgg/fc/weights"]
    kept = slim.get_variables_to_restore(["vgg"], exclude=["vgg_2"])
    assert [each.op.name for each in kept] == ["vgg/fc/weights", "vgg/fc/biases"]
    assert list(slim.convert_collection_to_dict("ends", clear_collection=True)) == ["vgg/fc", "vgg_2/fc"]
    assert not tf.get_collection("ends")
