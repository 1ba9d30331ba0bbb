"""What each paradigm's models share, against numpy: optimizers, batch normalisation, initial values, slopes."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import recurrences
from tf2_eager.gradient_tape import layers as tape
from tf2_eager.keras2 import layers as keras2
from tf2_eager.keras3 import layers as keras3
from tfport.models.spec import (
    Adam,
    BatchNorm,
    Constant,
    Conv,
    Dense,
    GlorotUniform,
    Initialiser,
    Normal,
    RMSProp,
    Shape,
    Uniform,
)

Array = np.ndarray[Any, Any]
BEFORE = Adam(learning_rate=2e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
AFTER = dataclasses.replace(BEFORE, epsilon_after_correction=True)
RMS = RMSProp(learning_rate=1e-3, rho=0.9, epsilon=1e-7)
KERAS: dict[str, Any] = {"keras2": keras2, "keras3": keras3}
PARADIGMS = ("gradient_tape", "keras2", "keras3")


# --- Keras's optimizers; gradient_tape's stand in gradient_tape/test_optimizers.py ------------------------------------
def trained(paradigm: str, numbers: Adam | RMSProp, start: Array, gradients: list[Array]) -> Array:
    """A float64 variable after a step against each gradient."""
    module = KERAS[paradigm]
    optimizer = module.adam(numbers) if isinstance(numbers, Adam) else module.rmsprop(numbers)
    variable: Any = tf.Variable(start) if paradigm == "keras2" else keras.Variable(start, dtype="float64")
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
    found: Array = np.array(variable.numpy())
    return found


def drawn(size: float) -> tuple[Array, list[Array]]:
    draws = np.random.default_rng(0)
    return draws.normal(size=5), [draws.normal(size=5) * size for _ in range(20)]


def same(left: Array, right: Array) -> bool:
    """Far closer than a wrong epsilon would be; Keras keeps its rate and powers of beta in float32."""
    return bool(np.allclose(left, right, rtol=0, atol=1e-8))


@pytest.mark.parametrize("numbers", [BEFORE, AFTER], ids=["epsilon before", "epsilon after"])
@pytest.mark.parametrize("paradigm", KERAS)
def test_adam_against_the_recurrences(paradigm: str, numbers: Adam) -> None:
    start, gradients = drawn(1e-7)
    found = trained(paradigm, numbers, start, gradients)
    assert same(found, recurrences.adam(start, gradients, numbers))
    other = dataclasses.replace(numbers, epsilon_after_correction=not numbers.epsilon_after_correction)
    for wrong in (dataclasses.replace(numbers, epsilon=1e-7), other):
        assert not same(found, recurrences.adam(start, gradients, wrong))


@pytest.mark.parametrize("paradigm", KERAS)
def test_rmsprop_against_the_recurrences(paradigm: str) -> None:
    start, gradients = drawn(1e-3)
    found = trained(paradigm, RMS, start, gradients)
    assert same(found, recurrences.rmsprop(start, gradients, RMS))
    for wrong in (dataclasses.replace(RMS, epsilon=1e-8), dataclasses.replace(RMS, rho=0.99)):
        assert not same(found, recurrences.rmsprop(start, gradients, wrong))


# --- Batch normalisation ----------------------------------------------------------------------------------------------
NORM = BatchNorm("norm", (3,), momentum=0.9, epsilon=1e-3)


def applied(paradigm: str, layer: BatchNorm, x: Array, values: dict[str, Array]) -> tuple[Array, Array, list[Array]]:
    """What inference and training make of `x`, and the moving statistics after the latter."""
    if paradigm == "gradient_tape":
        norm = tape.Norm(layer, "float32", "network")
        for kind, value in values.items():
            getattr(norm, kind).assign(value)
        still = norm(tf.constant(x), None).numpy()
        statistics: tape.Statistics = []
        made = norm(tf.constant(x), statistics).numpy()
        assert np.array_equal(norm.moving_mean.numpy(), values["moving_mean"]), "looking updates nothing"
        for each, mean, variance in statistics:
            each.update(mean, variance)
    else:
        norm = KERAS[paradigm].batch_norm(layer)
        norm.build(x.shape)
        for kind, value in values.items():
            getattr(norm, kind).assign(value)
        still, made = np.array(norm(x, training=False)), np.array(norm(x, training=True))
    return still, made, [np.array(norm.moving_mean.numpy()), np.array(norm.moving_variance.numpy())]


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("shape", [(8, 3), (4, 5, 5, 3)], ids=["dense", "images"])
@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_batch_normalisation_in_both_modes(paradigm: str, shape: Shape, unbiased: bool) -> None:
    layer = dataclasses.replace(NORM, shape=shape[1:], unbiased=unbiased)
    random = np.random.default_rng(0)
    x = random.normal(2, 3, shape).astype(np.float32)
    values = {
        "gamma": random.normal(1, 0.2, 3).astype(np.float32),
        "beta": random.normal(size=3).astype(np.float32),
        "moving_mean": random.normal(size=3).astype(np.float32),
        "moving_variance": random.uniform(0.5, 2, 3).astype(np.float32),
    }
    still, made, after = applied(paradigm, layer, x, values)
    moving = (values["moving_mean"], values["moving_variance"])
    for found, statistics in ((still, moving), (made, recurrences.moments(x.astype(np.float64)))):
        expected = recurrences.normalised(x, statistics, values["gamma"], values["beta"], layer.epsilon)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for each, other in zip(after, recurrences.moved(layer, moving, x.astype(np.float64)), strict=True):
        np.testing.assert_allclose(each, other, rtol=1e-5)
    wrong = recurrences.moved(dataclasses.replace(layer, unbiased=not unbiased), moving, x.astype(np.float64))
    assert not np.allclose(after[1], wrong[1], rtol=1e-3), "a fused kernel would feed the unbiased variance always"


# --- Initial values ---------------------------------------------------------------------------------------------------
def value_of(paradigm: str, initialiser: Initialiser, shape: Shape) -> Array:
    if paradigm == "gradient_tape":
        tf.random.set_seed(0)
        return np.array(tape.initial(initialiser, shape, "float32"))
    {"keras2": tf_keras, "keras3": keras}[paradigm].utils.set_random_seed(0)
    return np.array(KERAS[paradigm].initial(initialiser)(shape, dtype="float32"))


@pytest.mark.parametrize(
    ("initialiser", "shape", "limit"),
    [
        (Uniform(0.25), (200, 100), 0.25),
        (GlorotUniform(), (200, 100), GlorotUniform().limit((200, 100))),
        (GlorotUniform(), (3, 3, 64, 32), GlorotUniform().limit((3, 3, 64, 32))),
    ],
    ids=["uniform", "glorot", "conv"],
)
@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_uniform_values_fill_their_limits(paradigm: str, initialiser: Initialiser, shape: Shape, limit: float) -> None:
    found = value_of(paradigm, initialiser, shape)
    assert found.shape == shape
    assert np.abs(found).max() <= np.float32(limit)
    assert found.max() > 0.99 * limit
    assert found.min() < -0.99 * limit


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_normal_and_constant_values(paradigm: str) -> None:
    found = value_of(paradigm, Normal(0.02), (200, 100))
    assert found.std() == pytest.approx(0.02, rel=0.02)
    assert np.abs(found).max() > 0.06, "not cut off"
    assert (value_of(paradigm, Constant(1.5), (3,)) == 1.5).all()


# --- Keras's layers ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("paradigm", KERAS)
def test_layers_have_the_specs_shapes_and_names(paradigm: str) -> None:
    module = KERAS[paradigm]
    down = Conv("down", 3, 8, size=5, stride=2, side=4, activation="relu")
    up = Conv("up", 3, 8, size=5, stride=2, side=14, activation="tanh", transposed=True)
    wide = Dense("wide", 7, 4, "sigmoid", Normal(0.1), Constant(0.5))
    for layer, make, fed in (
        (down, module.conv, (1, 7, 7, 3)),
        (up, module.conv, (1, 7, 7, 3)),
        (wide, module.dense, (1, 7)),
    ):
        made = make(layer)
        found = made(np.zeros(fed, np.float32))
        assert (made.name, tuple(found.shape)[1:]) == (layer.name, layer.output_shape)
        for kind, each in layer.variables().items():
            assert tuple(getattr(made, kind).shape) == each.shape
    assert (made.bias.numpy() == 0.5).all()


@pytest.mark.parametrize("slope", [0.01, 0.2])
@pytest.mark.parametrize("paradigm", KERAS)
def test_a_leaky_layer_is_linear_and_its_activation_has_the_slope_that_was_given(paradigm: str, slope: float) -> None:
    """By name, leaky_relu would have a slope of 0.2 in Keras 3 and 0.3 as a layer of Keras 2."""
    module = KERAS[paradigm]
    layer = Dense("hidden", 2, 2, "leaky_relu", Constant(1.0), slope=slope)
    x = np.array([[-1.0, -2.0]], np.float32)
    assert np.array(module.dense(layer)(x)).tolist() == [[-3, -3]]
    activation = module.leaky_relu(layer)
    assert activation.name == "hidden" + module.ACTIVATION
    np.testing.assert_allclose(np.array(activation(np.array([[-3.0, 2.0]], np.float32))), [[-3 * slope, 2]], rtol=1e-6)
