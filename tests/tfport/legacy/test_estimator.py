"""A model_fn comes to the parts of one graph: a training and an inference tower on the same variables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tfport.errors import UserError
from tfport.legacy import estimator, layers
from tfport.legacy.estimator import EstimatorSpec, ModeKeys, mapping


@pytest.fixture(autouse=True)
def graph() -> Iterator[None]:
    with tf.Graph().as_default():
        yield


def model_fn(features: Any, labels: Any, mode: str, params: Any) -> EstimatorSpec:
    """The form of the guides: predictions alone in inference, a train op in training."""
    training = mode == ModeKeys.TRAIN
    net = layers.fully_connected(features["x"], params["units"], normalizer_fn=layers.batch_norm,
                                 normalizer_params={"is_training": training})  # fmt: skip
    logits = layers.fully_connected(layers.dropout(net, is_training=training), 3, activation_fn=None)
    predictions = {"logits": logits, "classes": tf.argmax(logits, 1)}
    if mode == ModeKeys.PREDICT:
        return EstimatorSpec(mode, predictions=predictions)
    loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
    optimizer = tf.train.GradientDescentOptimizer(0.1)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = optimizer.minimize(loss, tf.train.get_global_step())
    return EstimatorSpec(mode, loss=loss, train_op=train_op)


def placeholders() -> tuple[Any, Any]:
    return tf.placeholder(tf.float32, [None, 4], name="x"), tf.placeholder(tf.int64, [None], name="y")


def test_both_towers_share_their_variables_and_differ_in_mode() -> None:
    x, y = placeholders()
    made = mapping(model_fn, {"x": x}, y, params={"units": 5})
    assert set(made) == {"inputs", "outputs", "loss", "train_op"}
    assert made["inputs"] == {"x": x, "labels": y}
    assert made["outputs"]["training"] == {} and list(made["outputs"]["inference"]) == ["logits", "classes"]
    names = [each.op.name for each in tf.global_variables()]
    assert names[0] == "global_step" and len(names) == len(set(names)) == 7
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 2
    feeds = {x: np.eye(4), y: np.arange(4) % 3}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        logits = made["outputs"]["inference"]["logits"]
        first, again = session.run(logits, feeds), session.run(logits, feeds)
        np.testing.assert_array_equal(first, again)
        session.run(made["train_op"], feeds)
        assert session.run(tf.train.get_global_step()) == 1
        assert np.abs(session.run(logits, feeds) - first).max() > 0


def test_outputs_go_by_mode_where_training_has_some() -> None:
    def both(features: Any, mode: str) -> EstimatorSpec:
        out = layers.fully_connected(features, 1)
        loss = tf.reduce_mean(out)
        train_op = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
        return EstimatorSpec(mode=mode, predictions=out, loss=loss, train_op=train_op)

    made = mapping(both, placeholders()[0])
    one, other = (made["outputs"][mode]["predictions"] for mode in ("training", "inference"))
    assert one is not other and len(tf.global_variables()) == 3


def _no_spec(features: Any) -> Any:
    return features


def _no_loss(features: Any, mode: str) -> EstimatorSpec:
    return EstimatorSpec(mode, train_op=tf.no_op())


def _no_predictions(features: Any, mode: str) -> EstimatorSpec:
    return EstimatorSpec(mode, loss=tf.reduce_sum(features), train_op=tf.no_op())


def _own_variables(features: Any, mode: str) -> EstimatorSpec:
    loss = tf.reduce_sum(features * tf.Variable([1.0], name="w"))
    return EstimatorSpec(mode, loss=loss, train_op=tf.no_op(), predictions=loss)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_no_spec, "the model_fn returned SymbolicTensor in mode train; expected an EstimatorSpec"),
        (_no_loss, "of mode train has no loss"),
        (_no_predictions, "of mode infer has no predictions"),
        (_own_variables, r"the model_fn makes w_1 anew in mode infer.*by tf.get_variable"),
    ],
)
def test_what_a_model_fn_lacks_is_one_message(function: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mapping(function, placeholders()[0])


def test_modes_have_their_values() -> None:
    assert (estimator.ModeKeys.TRAIN, ModeKeys.EVAL, ModeKeys.PREDICT) == ("train", "eval", "infer")
