"""Adam and RMSProp on the raw ops, against their recurrences in numpy and float64."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import recurrences
import tf2_eager.gradient_tape
from tf2_eager.gradient_tape.optimizers import Adam, RMSProp
from tfport.models.spec import Adam as AdamNumbers
from tfport.models.spec import RMSProp as RMSPropNumbers

Array = np.ndarray[Any, Any]
BEFORE = AdamNumbers(learning_rate=2e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
AFTER = dataclasses.replace(BEFORE, epsilon_after_correction=True)
RMS = RMSPropNumbers(learning_rate=1e-3, rho=0.9, epsilon=1e-7)


def drawn(size: float, steps: int = 20) -> tuple[Array, list[Array]]:
    """A start, and gradients so small that epsilon counts."""
    draws = np.random.default_rng(0)
    return draws.normal(size=5), [draws.normal(size=5) * size for _ in range(steps)]


def trained(optimizer: Any, numbers: AdamNumbers | RMSPropNumbers, size: float) -> Array:
    start, gradients = drawn(size)
    variable = tf.Variable(start)
    rule = optimizer(numbers, [variable])
    for gradient in gradients:
        rule.apply([tf.constant(gradient)])
    found: Array = variable.numpy()
    return found


def same(left: Array, right: Array) -> bool:
    return bool(np.allclose(left, right, rtol=0, atol=1e-12))


@pytest.mark.parametrize("numbers", [BEFORE, AFTER], ids=["epsilon before", "epsilon after"])
def test_adam_against_the_recurrences(numbers: AdamNumbers) -> None:
    start, gradients = drawn(1e-6)
    found = trained(Adam, numbers, 1e-6)
    assert found.dtype == np.float64
    assert same(found, recurrences.adam(start, gradients, numbers))
    other = dataclasses.replace(numbers, epsilon_after_correction=not numbers.epsilon_after_correction)
    for wrong in (dataclasses.replace(numbers, epsilon=1e-7), dataclasses.replace(numbers, beta_1=0.9), other):
        assert not same(found, recurrences.adam(start, gradients, wrong))


def test_rmsprop_against_the_recurrences() -> None:
    start, gradients = drawn(1e-3)
    found = trained(RMSProp, RMS, 1e-3)
    assert found.dtype == np.float64
    assert same(found, recurrences.rmsprop(start, gradients, RMS))
    for wrong in (dataclasses.replace(RMS, epsilon=1e-8), dataclasses.replace(RMS, rho=0.99)):
        assert not same(found, recurrences.rmsprop(start, gradients, wrong))
    assert not same(found, recurrences.rmsprop(start, gradients, RMS, start=1.0)), "TF1's slot starts at one"


@pytest.mark.parametrize(("optimizer", "numbers"), [(Adam, BEFORE), (Adam, AFTER), (RMSProp, RMS)])
def test_a_count_that_is_set_goes_on_as_one_that_was_reached(optimizer: Any, numbers: Any) -> None:
    start, gradients = drawn(1e-3, 6)
    first, second = tf.Variable(start), tf.Variable(start)
    whole, later = optimizer(numbers, [first]), optimizer(numbers, [second])
    assert (whole.count(), whole.algorithm.split(",")[0]) == (0, numbers.algorithm)
    for gradient in gradients[:4]:
        whole.apply([tf.constant(gradient)])
    assert whole.count() == 4
    second.assign(first)
    for slot in numbers.slots:
        getattr(later, slot)[0].assign(getattr(whole, slot)[0])
    later.set_count(4)
    for gradient in gradients[4:]:
        for rule in (whole, later):
            rule.apply([tf.constant(gradient)])
    assert first.numpy().tobytes() == second.numpy().tobytes()
    assert whole.count() == later.count() == 6


def test_the_place_of_epsilon_is_told() -> None:
    assert Adam(BEFORE, [tf.Variable([1.0])]).algorithm == "Adam"
    assert Adam(AFTER, [tf.Variable([1.0])]).algorithm == "Adam, epsilon after the bias correction"


@pytest.mark.parametrize(("optimizer", "numbers"), [(Adam, BEFORE), (RMSProp, RMS)])
def test_a_missing_gradient_is_an_error(optimizer: Any, numbers: Any) -> None:
    variable = tf.Variable([1.0])
    with pytest.raises(ValueError, match="shorter"):
        optimizer(numbers, [variable, tf.Variable([1.0])]).apply([tf.constant([1.0])])


def test_no_compat_v1_in_this_paradigm() -> None:
    folder = Path(next(iter(tf2_eager.gradient_tape.__path__)))
    files = list(folder.glob("*.py"))
    assert len(files) >= 4
    assert not [file.name for file in files if "compat.v1" in file.read_text()]
