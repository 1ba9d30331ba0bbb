"""The stand-ins of tf.contrib.layers compute what TensorFlow 1.15 documents, under its names and in its collections."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tfport.legacy import layers, scopes

DRAW = np.random.default_rng(1)
ROWS = DRAW.normal(size=(6, 4)).astype("float32")
IMAGES = DRAW.normal(size=(3, 5, 4, 2)).astype("float32")
Values = dict[str, Any]


@pytest.fixture(autouse=True)
def graph() -> Iterator[None]:
    with tf.Graph().as_default():
        tf.set_random_seed(1)
        yield


def run(*fetches: Any, feeds: Any = None, update: bool = False) -> tuple[list[Any], Values]:
    """What is fetched and the variables by name after it, from random values."""
    draw = np.random.default_rng(2)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            value = np.abs(draw.normal(size=variable.shape)) + 0.1
            variable.load(value.astype(variable.dtype.base_dtype.as_numpy_dtype), session)
        found = session.run(list(fetches), feeds)
        if update:
            session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS), feeds)
        return found, {variable.op.name: session.run(variable) for variable in tf.global_variables()}


def names(collection: str = tf.GraphKeys.GLOBAL_VARIABLES) -> list[str]:
    return [each.op.name for each in tf.get_collection(collection)]


# --- Layers -----------------------------------------------------------------------------------------------------------
def test_fully_connected_is_a_matmul_with_biases_and_relu() -> None:
    (found,), held = run(layers.fully_connected(ROWS, 3))
    weights, biases = held["fully_connected/weights"], held["fully_connected/biases"]
    np.testing.assert_allclose(found, np.maximum(ROWS @ weights + biases, 0), rtol=1e-5)
    assert names() == names(tf.GraphKeys.MODEL_VARIABLES) == names(tf.GraphKeys.TRAINABLE_VARIABLES)


def test_fully_connected_takes_the_last_axis_and_names_go_up() -> None:
    first = layers.fully_connected(IMAGES, 3, activation_fn=None)
    (found,), held = run(layers.fully_connected(first, 5, tf.tanh, biases_initializer=None))
    inner = IMAGES @ held["fully_connected/weights"] + held["fully_connected/biases"]
    np.testing.assert_allclose(found, np.tanh(inner @ held["fully_connected_1/weights"]), rtol=1e-5)
    assert "fully_connected_1/biases" not in held


def test_a_normalizer_takes_the_place_of_biases() -> None:
    layers.conv2d(IMAGES, 3, [3, 3], normalizer_fn=layers.batch_norm, normalizer_params={"decay": 0.9}, scope="c")
    moving = ["c/BatchNorm/moving_mean", "c/BatchNorm/moving_variance"]
    assert names() == ["c/weights", "c/BatchNorm/beta", *moving]
    assert names(tf.GraphKeys.TRAINABLE_VARIABLES) == ["c/weights", "c/BatchNorm/beta"]


def convolved(images: Any, kernel: Any) -> Any:
    """A convolution of stride 1, SAME, kernel of 3 by 3, by its definition."""
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = images.shape[1:3]
    windows = [padded[:, y : y + height, x : x + width] @ kernel[y, x] for y in range(3) for x in range(3)]
    return sum(windows)


def test_conv2d_is_a_convolution_with_biases_and_relu() -> None:
    (found,), held = run(layers.conv2d(IMAGES, 3, [3, 3]))
    expected = np.maximum(convolved(IMAGES, held["Conv/weights"]) + held["Conv/biases"], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_is_the_derivative_of_a_convolution() -> None:
    """<conv(x), y> = <x, transposed(y)>, with one kernel, strides and both paddings."""
    for padding, small in (("SAME", (3, 2)), ("VALID", (2, 1))):
        with tf.variable_scope(padding):
            below = tf.placeholder_with_default(DRAW.normal(size=(3, *small, 4)).astype("float32"), [None] * 3 + [4])
            above = layers.conv2d_transpose(below, 2, 3, 2, padding, activation_fn=None, biases_initializer=None)
            weights = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)[-1]
            shape = {"SAME": (3, 6, 4, 2), "VALID": (3, 5, 3, 2)}[padding]
            x = tf.constant(DRAW.normal(size=shape).astype("float32"))
            down = tf.nn.conv2d(x, weights, 2, padding)
            (one, other, made), _ = run(tf.reduce_sum(down * below), tf.reduce_sum(x * above), above)
            assert made.shape == shape
            np.testing.assert_allclose(one, other, rtol=1e-4)


def test_a_separable_convolution_is_two() -> None:
    fetched = layers.separable_conv2d(IMAGES, 3, 3, 2, activation_fn=None)
    (found,), held = run(fetched)
    depth, point = held["SeparableConv2d/depthwise_weights"], held["SeparableConv2d/pointwise_weights"]
    whole = np.einsum("yxcm,cmo->yxco", depth, point.reshape(2, 2, 3))
    np.testing.assert_allclose(found, convolved(IMAGES, whole) + held["SeparableConv2d/biases"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("inputs", "fused"), [(ROWS, None), (IMAGES, None), (ROWS, False), (IMAGES, False)])
@pytest.mark.parametrize("fed", [True, False])
def test_batch_norm_normalizes_and_moves_its_averages(inputs: Any, fused: Any, fed: bool) -> None:
    is_training = tf.placeholder(tf.bool, []) if fed else True
    outputs = layers.batch_norm(inputs, scale=True, is_training=is_training, fused=fused)
    feeds = {is_training: True} if fed else None
    _, before = run(outputs, feeds=feeds)
    (found,), after = run(outputs, feeds=feeds, update=True)
    axes = tuple(range(inputs.ndim - 1))
    mean, variance = inputs.mean(axes), inputs.var(axes)
    beta, gamma = before["BatchNorm/beta"], before["BatchNorm/gamma"]
    expected = (inputs - mean) / np.sqrt(variance + 0.001) * gamma + beta
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    count = inputs.size // inputs.shape[-1]
    stored = variance if fused is False else variance * count / (count - 1)
    for name, value in (("moving_mean", mean), ("moving_variance", stored)):
        old = before[f"BatchNorm/{name}"]
        np.testing.assert_allclose(after[f"BatchNorm/{name}"], 0.999 * old + 0.001 * value, rtol=1e-5)
    if fed:
        (found,), held = run(outputs, feeds={is_training: False}, update=True)
        scale = gamma / np.sqrt(before["BatchNorm/moving_variance"] + 0.001)
        np.testing.assert_allclose(
            found, (inputs - before["BatchNorm/moving_mean"]) * scale + beta, rtol=1e-3, atol=1e-4
        )
        np.testing.assert_array_equal(held["BatchNorm/moving_mean"], before["BatchNorm/moving_mean"])


@pytest.mark.parametrize("is_training", [True, "fed", False])
def test_averages_move_before_the_output_where_there_is_no_collection_for_them(is_training: Any) -> None:
    flag = tf.placeholder(tf.bool, []) if is_training == "fed" else is_training
    outputs = layers.batch_norm(ROWS, updates_collections=None, is_training=flag)
    assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    _, before = run(tf.constant(0.0))
    _, after = run(outputs, feeds={flag: True} if is_training == "fed" else None)
    moved = np.abs(after["BatchNorm/moving_mean"] - before["BatchNorm/moving_mean"]).max() > 0
    assert moved is np.bool_(is_training is not False)


def test_what_batch_norm_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_norm\(renorm=...\) has no stand-in"):
        layers.batch_norm(ROWS, renorm=True)
    with pytest.raises(ValueError, match="data_format='NCHW'"):
        layers.batch_norm(IMAGES, data_format="NCHW")


def test_layer_norm_normalizes_each_example() -> None:
    (found,), held = run(layers.layer_norm(IMAGES))
    mean, variance = IMAGES.mean((1, 2, 3), keepdims=True), IMAGES.var((1, 2, 3), keepdims=True)
    expected = (IMAGES - mean) / np.sqrt(variance) * held["LayerNorm/gamma"] + held["LayerNorm/beta"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_dropout_keeps_a_share_and_scales_it() -> None:
    flag = tf.placeholder(tf.bool, [])
    ones = tf.ones([200, 50])
    kept = [layers.dropout(ones), layers.dropout(ones, 0.8, is_training=flag), layers.dropout(ones, is_training=False)]
    (half, most, all_of_it), _ = run(*kept, feeds={flag: True})
    assert set(np.unique(half)) == {0.0, 2.0} and abs(half.mean() - 1) < 0.05
    assert set(np.unique(most)) == {0.0, np.float32(1.25)} and abs(most.mean() - 1) < 0.05
    assert (all_of_it == 1).all() and (run(kept[1], feeds={flag: False})[0][0] == 1).all()


def test_pools_and_shapes() -> None:
    open_ended = tf.placeholder_with_default(IMAGES, [None, 5, 4, 2])
    flat = layers.flatten(open_ended)
    assert flat.shape.as_list() == [None, 40]
    fetches = [
        layers.max_pool2d(IMAGES, 2),
        layers.avg_pool2d(IMAGES, [2, 2]),
        flat,
        layers.one_hot_encoding([1, 0], 3),
    ]
    (largest, mean, rows, hot), _ = run(*fetches)
    windows = IMAGES[:, :4].reshape(3, 2, 2, 2, 2, 2)
    np.testing.assert_array_equal(largest, windows.max((2, 4)))
    np.testing.assert_allclose(mean, windows.mean((2, 4)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows, IMAGES.reshape(3, 40))
    np.testing.assert_array_equal(hot, [[0, 1, 0], [1, 0, 0]])


def test_layers_are_repeated_and_stacked_in_scopes_of_their_own() -> None:
    layers.repeat(IMAGES, 2, layers.conv2d, 2, [3, 3], scope="conv1")
    layers.stack(ROWS, layers.fully_connected, [3, [5]], scope="fc")
    scopes_made = [name.rpartition("/")[0] for name in names()[::2]]
    assert scopes_made == ["conv1/conv1_1", "conv1/conv1_2", "fc/fc_1", "fc/fc_2"]


def test_variables_are_reused_and_collected() -> None:
    layers.fully_connected(ROWS, 3, scope="fc", variables_collections={"weights": ["w"]}, outputs_collections="ends")
    layers.fully_connected(ROWS, 3, scope="fc", reuse=True, trainable=False)
    assert names() == ["fc/weights", "fc/biases"]
    assert names("w") == ["fc/weights"]
    assert [each.aliases for each in tf.get_collection("ends")] == [["fc"]]


# --- Regularizers and initializers ------------------------------------------------------------------------------------
def test_regularizers_are_half_a_square_and_an_absolute_value() -> None:
    layers.fully_connected(ROWS, 3, weights_regularizer=layers.l2_regularizer(0.5))
    layers.fully_connected(ROWS, 3, biases_regularizer=layers.l1_regularizer(0.5))
    layers.fully_connected(ROWS, 3, weights_regularizer=layers.l1_l2_regularizer(0.2, 0.4))
    losses, held = run(*tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES))
    both = held["fully_connected_2/weights"]
    expected = [
        0.25 * np.square(held["fully_connected/weights"]).sum(),
        0.5 * np.abs(held["fully_connected_1/biases"]).sum(),
        0.2 * np.abs(both).sum() + 0.2 * np.square(both).sum(),
    ]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_a_scale_of_nothing_regularizes_nothing_and_a_wrong_one_is_refused() -> None:
    layers.fully_connected(ROWS, 3, weights_regularizer=layers.l2_regularizer(0.0))
    assert not tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    for scale, message in ((1, "cannot be an integer"), (-0.1, "less than 0")):
        with pytest.raises(ValueError, match=message):
            layers.l2_regularizer(scale)


def test_regularization_is_applied_to_a_list() -> None:
    weights = [tf.constant([3.0, 4.0]), tf.constant([1.0])]
    (total,), _ = run(layers.apply_regularization(layers.l2_regularizer(0.5), weights))
    assert total == pytest.approx(0.25 * 26)
    with pytest.raises(ValueError, match="No weights"):
        layers.apply_regularization(layers.l2_regularizer(0.5))


@pytest.mark.parametrize(
    ("initializer", "variance", "limit"),
    [
        (layers.xavier_initializer(), 2 / (90 + 180), np.sqrt(6 / (90 + 180))),
        # A normal distribution cut at two deviations has .774 of its variance; contrib widens it by 1.3.
        (layers.xavier_initializer(uniform=False), 1.3 * 0.774 * 2 / (90 + 180), 2 * np.sqrt(1.3 * 2 / (90 + 180))),
        (layers.variance_scaling_initializer(), 1.3 * 0.774 * 2 / 90, 2 * np.sqrt(1.3 * 2 / 90)),
    ],
)
def test_initializers_have_their_variance(initializer: Any, variance: float, limit: float) -> None:
    with tf.Session() as session:
        drawn = session.run(initializer([3, 3, 10, 20]))
    assert drawn.var() == pytest.approx(variance, rel=0.1)
    assert 0.95 * limit < np.abs(drawn).max() <= limit


# --- Defaults ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (layers.fully_connected, {"activation_fn": tf.nn.relu, "normalizer_fn": None, "trainable": True}),
        (layers.conv2d, {"activation_fn": tf.nn.relu, "stride": 1, "padding": "SAME", "rate": 1}),
        (layers.conv2d_transpose, {"activation_fn": tf.nn.relu, "stride": 1, "padding": "SAME"}),
        (layers.max_pool2d, {"stride": 2, "padding": "VALID"}),
        (layers.avg_pool2d, {"stride": 2, "padding": "VALID"}),
        (layers.dropout, {"keep_prob": 0.5, "is_training": True, "noise_shape": None}),
        (layers.layer_norm, {"center": True, "scale": True, "begin_norm_axis": 1, "begin_params_axis": -1}),
        (
            layers.batch_norm,
            {
                "decay": 0.999,
                "center": True,
                "scale": False,
                "epsilon": 0.001,
                "activation_fn": None,
                "updates_collections": "update_ops",
                "is_training": True,
                "zero_debias_moving_mean": False,
                "renorm_decay": 0.99,
            },
        ),
    ],
)
def test_defaults_are_those_of_tensorflow_1_15(function: Callable[..., Any], defaults: dict[str, Any]) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in defaults} == defaults


# --- arg_scope --------------------------------------------------------------------------------------------------------
@scopes.add_arg_scope
def told(first: int, second: int = 2, third: int = 3) -> tuple[int, int, int]:
    return first, second, third


@scopes.add_arg_scope
def other(second: int = 0) -> int:
    return second


def test_scopes_give_defaults_within_their_block() -> None:
    with scopes.arg_scope([told, other], second=20) as outer:
        assert told(1) == (1, 20, 3) and other() == 20
        with scopes.arg_scope([told], third=30):
            assert told(1, second=5) == (1, 5, 30) and other() == 20
            with scopes.arg_scope([told], second=200):
                assert told(1) == (1, 200, 30)
            with scopes.arg_scope(outer):
                assert told(1) == (1, 20, 3)
        assert told(1) == (1, 20, 3)
    assert told(1) == (1, 2, 3)


def test_a_block_that_raises_leaves_no_scope() -> None:
    with pytest.raises(RuntimeError), scopes.arg_scope([told], second=9):
        raise RuntimeError
    assert told(1) == (1, 2, 3)


def test_what_no_scope_can_be_set_for_is_refused() -> None:
    with pytest.raises(ValueError, match="run is not decorated"), scopes.arg_scope([run], second=1):
        pass
    with pytest.raises(TypeError, match="not function"), scopes.arg_scope(told, second=1):  # type: ignore[arg-type]
        pass
    with pytest.raises(ValueError, match="third cannot be added"), scopes.arg_scope({}, third=1):
        pass
    with scopes.arg_scope([other], third=1), pytest.raises(TypeError, match="third"):
        other()
