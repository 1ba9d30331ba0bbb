"""What TF1's models share, against numpy in float64: optimizers, batch normalisation, initial values."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import recurrences
from tf1_graph import layers
from tfport.models.spec import Adam, BatchNorm, Constant, GlorotUniform, Initialiser, Normal, RMSProp, Shape, Uniform

Array = np.ndarray[Any, Any]
BEFORE = Adam(learning_rate=2e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
AFTER = dataclasses.replace(BEFORE, epsilon_after_correction=True)
RMS = RMSProp(learning_rate=1e-3, rho=0.9, epsilon=1e-7)


# --- Optimizers -------------------------------------------------------------------------------------------------------
def drawn(size: float) -> tuple[Array, list[Array]]:
    draws = np.random.default_rng(0)
    return draws.normal(size=5), [draws.normal(size=5) * size for _ in range(20)]


def trained(numbers: Adam | RMSProp, size: float, zeroed: bool = True) -> Array:
    """A variable after 20 steps against gradients that are fed."""
    start, gradients = drawn(size)
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.Variable(start, use_resource=False)
        fed = tf.placeholder(tf.float64, [5])
        make = layers.adam if isinstance(numbers, Adam) else layers.rmsprop
        optimizer = make(numbers, "float64", "optimizer")
        train = layers.minimise(optimizer, tf.reduce_sum(fed * variable), [variable])
        session.run(tf.global_variables_initializer())
        if isinstance(numbers, RMSProp) and zeroed:
            optimizer.get_slot(variable, "rms").load(np.zeros(5), session)
        for gradient in gradients:
            session.run(train, {fed: gradient})
        found: Array = session.run(variable)
    return found


def same(left: Array, right: Array) -> bool:
    return bool(np.allclose(left, right, rtol=0, atol=1e-12))


@pytest.mark.parametrize("numbers", [BEFORE, AFTER], ids=["epsilon before", "epsilon after"])
def test_adam_against_the_recurrences(numbers: Adam) -> None:
    start, gradients = drawn(1e-6)
    found = trained(numbers, 1e-6)
    assert same(found, recurrences.adam(start, gradients, numbers))
    other = dataclasses.replace(numbers, epsilon_after_correction=not numbers.epsilon_after_correction)
    for wrong in (dataclasses.replace(numbers, epsilon=1e-7), other):
        assert not same(found, recurrences.adam(start, gradients, wrong))


def test_rmsprop_against_the_recurrences_and_its_slot_that_starts_at_one() -> None:
    start, gradients = drawn(1e-3)
    expected = [recurrences.rmsprop(start, gradients, RMS, at) for at in (0.0, 1.0)]
    assert not same(*expected)
    assert same(trained(RMS, 1e-3), expected[0])
    assert same(trained(RMS, 1e-3, zeroed=False), expected[1]), "left alone, TF1's mean square is one at first"


# --- Batch normalisation ----------------------------------------------------------------------------------------------
NORM = BatchNorm("norm", (3,), momentum=0.9, epsilon=1e-3)
SHAPES = [pytest.param((8, 3), id="dense"), pytest.param((4, 5, 5, 3), id="images")]


def held() -> dict[str, Array]:
    random = np.random.default_rng(1)
    return {
        "gamma": random.normal(1, 0.2, 3),
        "beta": random.normal(size=3),
        "moving_mean": random.normal(size=3),
        "moving_variance": random.uniform(0.5, 2, 3),
    }


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalisation_in_both_modes(shape: Shape, unbiased: bool) -> None:
    layer = dataclasses.replace(NORM, unbiased=unbiased)
    x, values = np.random.default_rng(0).normal(2, 3, shape), held()
    with tf.Graph().as_default(), tf.Session() as session:
        norm = layers.norm(layer, "float64")
        fed = tf.constant(x)
        still = layers.normalise(fed, norm, layer, training=False)
        assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []
        made = layers.normalise(fed, norm, layer, training=True)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        assert len(updates) == 2
        assert [variable.op.name for variable in tf.trainable_variables()] == ["norm/gamma", "norm/beta"]
        session.run(tf.global_variables_initializer())
        for kind, value in values.items():
            getattr(norm, kind).load(value, session)
        in_inference, in_training = session.run([still, made])
        assert np.array_equal(session.run(norm.moving_mean), values["moving_mean"]), "looking updates nothing"
        session.run(updates)
        after = session.run([norm.moving_mean, norm.moving_variance])
    moving = (values["moving_mean"], values["moving_variance"])
    gamma, beta = values["gamma"], values["beta"]
    for made, statistics in ((in_inference, moving), (in_training, recurrences.moments(x))):
        expected = recurrences.normalised(x, statistics, gamma, beta, layer.epsilon)
        np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-12)
    for found, expected in zip(after, recurrences.moved(layer, moving, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    biased = recurrences.moved(dataclasses.replace(layer, unbiased=not unbiased), moving, x)
    assert not np.allclose(after[1], biased[1], rtol=1e-4)


def test_two_passes_in_one_step_move_the_statistics_one_after_the_other() -> None:
    random = np.random.default_rng(0)
    first, second, values = random.normal(size=(8, 3)), random.normal(5, 1, (8, 3)), held()
    with tf.Graph().as_default(), tf.Session() as session:
        norm = layers.norm(NORM, "float64")
        layers.normalise(tf.constant(first), norm, NORM, training=True)
        once = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        layers.normalise(tf.constant(second), norm, NORM, training=True, after=once)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        assert (len(once), len(updates)) == (2, 4)
        session.run(tf.global_variables_initializer())
        for _ in range(20):
            for kind, value in values.items():
                getattr(norm, kind).load(value, session)
            session.run(updates)
            after = session.run([norm.moving_mean, norm.moving_variance])
            moving = recurrences.moved(NORM, (values["moving_mean"], values["moving_variance"]), first)
            for found, expected in zip(after, recurrences.moved(NORM, moving, second), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_an_optimizer_step_waits_for_its_updates() -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        variable, seen = (tf.Variable(value, use_resource=False) for value in (1.0, 0.0))
        update = tf.assign_add(seen, 1.0)
        optimizer = layers.adam(BEFORE, "float32", "adam")
        train = layers.minimise(optimizer, variable * 2, [variable], [update])
        session.run(tf.global_variables_initializer())
        session.run(train)
        assert session.run(seen) == 1
        assert session.run(variable) < 1


# --- Initial values ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("initialiser", "shape", "limit"),
    [
        (Uniform(0.25), (200, 100), 0.25),
        (GlorotUniform(), (200, 100), GlorotUniform().limit((200, 100))),
        (GlorotUniform(), (3, 3, 64, 32), GlorotUniform().limit((3, 3, 64, 32))),
    ],
)
def test_uniform_values_fill_their_limits(initialiser: Initialiser, shape: Shape, limit: float) -> None:
    found = value_of(initialiser, shape)
    assert np.abs(found).max() <= np.float32(limit)
    assert found.max() > 0.99 * limit
    assert found.min() < -0.99 * limit


def test_normal_and_constant_values() -> None:
    assert value_of(Normal(0.02), (200, 100)).std() == pytest.approx(0.02, rel=0.02)
    assert abs(value_of(Normal(0.02), (200, 100))).max() > 0.06, "not cut off"
    assert (value_of(Constant(1.5), (3,)) == 1.5).all()


def value_of(initialiser: Initialiser, shape: Shape) -> Array:
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        found: Array = session.run(layers.initial(initialiser, shape, "float32"))
    assert (found.shape, found.dtype) == (shape, np.float32)
    return found
