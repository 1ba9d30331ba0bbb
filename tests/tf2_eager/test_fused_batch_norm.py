"""Known difference 2: fused batch normalisation stores an unbiased moving variance and has no float64."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

MOMENTUM = 0.5
IMAGES = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
COUNT = IMAGES[..., 0].size


def fed_variance(layer: Any) -> np.ndarray:
    """What one training call feeds the moving variance [2], which starts at one, as a multiple of the biased one."""
    layer(IMAGES, training=True)
    moved = np.asarray(layer.moving_variance.numpy())
    return np.asarray((moved - MOMENTUM) / (1 - MOMENTUM) / IMAGES.var(axis=(0, 1, 2)))


def test_keras_2_fuses_by_default_and_is_unbiased() -> None:
    layer = tf_keras.layers.BatchNormalization(momentum=MOMENTUM, dtype="float32")
    np.testing.assert_allclose(fed_variance(layer), COUNT / (COUNT - 1), rtol=1e-5)
    assert layer.fused is True


@pytest.mark.parametrize(
    "layer",
    [
        lambda: tf_keras.layers.BatchNormalization(momentum=MOMENTUM, fused=False, dtype="float32"),
        lambda: keras.layers.BatchNormalization(momentum=MOMENTUM, dtype="float32"),
    ],
    ids=["keras2 unfused", "keras3"],
)
def test_unfused_it_is_biased(layer: Any) -> None:
    np.testing.assert_allclose(fed_variance(layer()), 1.0, rtol=1e-5)


def test_tf1s_fused_op_is_unbiased_too() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        _, _, variance = tf.compat.v1.nn.fused_batch_norm(tf.constant(IMAGES), [1.0, 1.0], [0.0, 0.0])
        fused, biased = session.run([variance, tf.nn.moments(tf.constant(IMAGES), [0, 1, 2])[1]])
    np.testing.assert_allclose(fused / biased, COUNT / (COUNT - 1), rtol=1e-5)


def test_fused_has_no_float64() -> None:
    with pytest.raises(ValueError, match="only supported when the compute dtype is float16, bfloat16, or float32"):
        tf_keras.layers.BatchNormalization(fused=True, dtype="float64")(IMAGES.astype(np.float64))
