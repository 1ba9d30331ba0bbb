"""The small Adam on the raw op, against the paper's recurrences in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tf2_eager.gradient_tape
from tf2_eager.gradient_tape.adam import Adam
from tfport.models.spec import Adam as AdamNumbers

NUMBERS = AdamNumbers(learning_rate=2e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8)


def reference(value: np.ndarray, gradients: list[np.ndarray], epsilon: float) -> np.ndarray:
    m, v = np.zeros_like(value), np.zeros_like(value)
    for step, gradient in enumerate(gradients, 1):
        m = NUMBERS.beta_1 * m + (1 - NUMBERS.beta_1) * gradient
        v = NUMBERS.beta_2 * v + (1 - NUMBERS.beta_2) * gradient**2
        rate = NUMBERS.learning_rate * np.sqrt(1 - NUMBERS.beta_2**step) / (1 - NUMBERS.beta_1**step)
        value = value - rate * m / (np.sqrt(v) + epsilon)
    return value


@pytest.mark.parametrize(("epsilon", "agrees"), [(NUMBERS.epsilon, True), (1e-7, False)])
def test_against_the_recurrences(epsilon: float, agrees: bool) -> None:
    draws = np.random.default_rng(0)
    start = draws.normal(size=5)
    gradients = [draws.normal(size=5) * 1e-6 for _ in range(20)]
    variable = tf.Variable(start)
    adam = Adam(NUMBERS, [variable])
    for gradient in gradients:
        adam.apply([tf.constant(gradient)])
    same = np.allclose(variable.numpy(), reference(start, gradients, epsilon), rtol=0, atol=1e-12)
    assert same is agrees


def test_a_missing_gradient_is_an_error() -> None:
    variable = tf.Variable([1.0])
    with pytest.raises(ValueError, match="shorter"):
        Adam(NUMBERS, [variable, tf.Variable([1.0])]).apply([tf.constant([1.0])])


def test_no_compat_v1_in_this_paradigm() -> None:
    folder = Path(next(iter(tf2_eager.gradient_tape.__path__)))
    files = list(folder.glob("*.py"))
    assert len(files) >= 4
    assert not [file.name for file in files if "compat.v1" in file.read_text()]
