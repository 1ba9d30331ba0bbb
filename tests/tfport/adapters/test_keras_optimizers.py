"""Keras's optimizers in canonical terms: slots do what the table says they do, in all three generations."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfport.adapters.keras_optimizers import (
    GradientSpy,
    KerasOptimizer,
    changes_gradients,
    flavour_of,
    initial_value,
    read,
    round_hyperparameters,
    write,
)
from tfport.checking.slots import SLOTS
from tfport.errors import UserError
from tfport.subject import CORRECTED

GENERATIONS = {
    "keras3": keras.optimizers,
    "keras2": tf_keras.optimizers,
    "legacy": tf_keras.optimizers.legacy,
}
EACH = pytest.mark.parametrize("generation", GENERATIONS)

_MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"learning_rate": 0.1}),
    "Momentum": ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    "Nesterov": ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {"learning_rate": 0.1}),
    "Adadelta": ("Adadelta", {"learning_rate": 0.1}),
    "RMSProp": ("RMSprop", {"learning_rate": 0.1, "momentum": 0.5}),
    "CenteredRMSProp": ("RMSprop", {"learning_rate": 0.1, "momentum": 0.5, "centered": True}),
    "Adam": ("Adam", {"learning_rate": 0.1, "beta_1": 0.5}),
    "AdamW": ("AdamW", {"learning_rate": 0.1, "weight_decay": 0.01}),
    "Adamax": ("Adamax", {"learning_rate": 0.1}),
    "Ftrl": ("Ftrl", {"learning_rate": 0.1}),
}


def _variable(generation: str, value: Any, name: str = "v") -> Any:
    array = np.asarray(value, np.float32)
    return keras.Variable(array, name=name) if generation == "keras3" else tf.Variable(array, name=name)


def _made(generation: str, algorithm: str) -> KerasOptimizer:
    class_name, arguments = _MADE[algorithm]
    if not hasattr(GENERATIONS[generation], class_name):
        pytest.skip(f"no {class_name} among the legacy optimizers")
    return KerasOptimizer("o", getattr(GENERATIONS[generation], class_name)(**arguments))


def _apply(optimizer: KerasOptimizer, gradient: Any, variable: Any) -> None:
    optimizer.outer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])


@EACH
@pytest.mark.parametrize("algorithm", _MADE)
def test_algorithm_slots_and_held_variables(generation: str, algorithm: str) -> None:
    optimizer = _made(generation, algorithm)
    variables = [_variable(generation, [1.0, 2.0], "a"), _variable(generation, [[3.0]], "b")]
    assert not optimizer.built
    optimizer.build(variables)
    assert optimizer.built
    assert optimizer.algorithm.removesuffix(CORRECTED) == algorithm
    assert tuple(optimizer.slots(variables)) == SLOTS[algorithm]
    assert [id(each) for each in optimizer.held(variables)] == [id(each) for each in variables]
    for rows in optimizer.slots(variables).values():
        assert [tuple(kept.shape) for _, kept in rows] == [(2,), (1, 1)]
    assert int(read(optimizer.count)) == 0
    numbers = optimizer.hyperparameters()
    assert numbers["learning_rate"] == pytest.approx(0.1)
    if "momentum" in _MADE[algorithm][1]:
        assert numbers["momentum"] == pytest.approx(_MADE[algorithm][1]["momentum"])
    assert all(isinstance(value, float) for value in numbers.values())


@EACH
@pytest.mark.parametrize("algorithm", _MADE)
def test_an_update_counts_and_taking_slots_over_continues_it(generation: str, algorithm: str) -> None:
    first, second = _made(generation, algorithm), _made(generation, algorithm)
    one, two = _variable(generation, [1.0, 2.0]), _variable(generation, [1.0, 2.0])
    for each, variable in ((first, one), (second, two)):
        each.build([variable])
        each.saw([variable])
    _apply(first, [0.5, -1.0], one)
    assert int(read(first.count)) == 1
    write(two, read(one))
    write(second.count, read(first.count))
    for slot, rows in second.slots([two]).items():
        value = first.get(slot, first.slots([one])[slot][0][1])
        assert np.any(value != initial_value(first, slot, rows[0][1]))
        second.set(slot, rows[0][1], value)
        np.testing.assert_allclose(second.get(slot, rows[0][1]), value, rtol=1e-6)
    _apply(first, [0.25, 3.0], one)
    _apply(second, [0.25, 3.0], two)
    np.testing.assert_allclose(read(two), read(one), rtol=1e-6)


@EACH
def test_momentum_is_tf1s_accumulator(generation: str) -> None:
    optimizer = _made(generation, "Momentum")
    variable = _variable(generation, [1.0, 2.0])
    optimizer.build([variable])
    _apply(optimizer, [0.5, -1.0], variable)
    _apply(optimizer, [0.25, 3.0], variable)
    optimizer.saw([variable])
    ((_, kept),) = optimizer.slots([variable])["accumulator"]
    np.testing.assert_allclose(optimizer.get("accumulator", kept), [0.9 * 0.5 + 0.25, 0.9 * -1.0 + 3.0], rtol=1e-6)


@EACH
def test_a_schedule_is_read_at_the_current_count(generation: str) -> None:
    package = keras if generation == "keras3" else tf_keras
    schedule = package.optimizers.schedules.ExponentialDecay(0.5, 1, 0.1)
    optimizer = KerasOptimizer("o", GENERATIONS[generation].SGD(schedule))
    variable = _variable(generation, [1.0])
    optimizer.build([variable])
    assert optimizer.rate() == pytest.approx(0.5)
    _apply(optimizer, [0.0], variable)
    assert optimizer.rate() == pytest.approx(0.05)


@EACH
def test_slots_of_an_unknown_algorithm_go_by_their_own_names(generation: str) -> None:
    optimizer = KerasOptimizer("o", GENERATIONS[generation].Nadam(0.1))
    variable = _variable(generation, [1.0])
    optimizer.build([variable])
    assert optimizer.algorithm == "Nadam"
    expected = {"m", "v"} if generation == "legacy" else {"momentums", "velocities"}
    assert set(optimizer.slots([variable])) == expected
    if generation != "legacy":
        assert float(read(optimizer.extras()["u_product"])) == 1.0
    assert optimizer.hyperparameters()["learning_rate"] == pytest.approx(0.1)


@pytest.mark.parametrize("package", [tf_keras, keras], ids=["tf_keras", "keras"])
def test_an_optimizer_of_the_users_own_goes_by_its_class(package: Any) -> None:
    class Sign(package.optimizers.SGD):  # type: ignore[misc, name-defined]
        def update_step(self, gradient: Any, variable: Any, *rate: Any) -> None:
            variable.assign_sub(tf.sign(gradient))

    assert KerasOptimizer("o", Sign(0.1)).algorithm == "Sign"


def test_other_places_of_epsilon_are_told() -> None:
    assert _made("legacy", "Adagrad").algorithm == "Adagrad" + CORRECTED
    assert KerasOptimizer("o", tf_keras.optimizers.Adam(adaptive_epsilon=True)).algorithm == "Adam" + CORRECTED
    assert _made("keras2", "Adam").algorithm == "Adam"


@EACH
def test_numbers_are_rounded_to_float32(generation: str) -> None:
    optimizer = GENERATIONS[generation].Adam(0.1, beta_1=0.3)
    round_hyperparameters(optimizer)
    numbers = KerasOptimizer("o", optimizer).hyperparameters()
    assert numbers["beta_1"] == float(np.float32(0.3))
    assert numbers["learning_rate"] == float(np.float32(0.1))
    if generation != "legacy":
        assert optimizer.epsilon == float(np.float32(1e-7))


@EACH
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "traced"])
def test_the_spy_sees_what_is_handed(generation: str, eager: bool) -> None:
    optimizer = _made(generation, "SGD")
    table, idle = _variable(generation, np.ones((3, 2)), "t"), _variable(generation, [1.0], "i")
    optimizer.build([table, idle])
    spy = GradientSpy({"o": optimizer.outer})

    def step(scale: Any) -> None:
        slices = tf.IndexedSlices(scale * tf.ones((2, 2)), tf.constant([0, 0]), tf.constant([3, 2]))
        optimizer.outer.apply_gradients([(slices, table), (None, idle)])

    run = step if eager else tf.function(step, autograph=False)
    with spy:
        run(tf.constant(2.0))
        run(tf.constant(3.0))
    first, second = spy.captured
    assert first.optimizer == "o"
    assert first.gradients[1] is None
    np.testing.assert_array_equal(first.gradients[0], [[4, 4], [0, 0], [0, 0]])
    np.testing.assert_array_equal(second.gradients[0], [[6, 6], [0, 0], [0, 0]])
    run(tf.constant(4.0))
    assert len(spy.captured) == 2
    assert "apply_gradients" not in vars(optimizer.outer)
    assert "apply" not in vars(optimizer.outer)


CLIPPED = {
    "clipvalue": (1.5, [[0.6, -0.8], [-1.5]]),
    "clipnorm": (0.5, [[0.3, -0.4], [-0.5]]),
    "global_clipnorm": (0.5, [[0.6 / 4.472136, -0.8 / 4.472136], [-2 / 4.472136]]),
}
GIVEN = [[0.6, -0.8], [-2.0]]


@EACH
@pytest.mark.parametrize("number", CLIPPED)
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "traced"])
def test_the_spy_sees_what_the_rule_goes_by(generation: str, number: str, eager: bool) -> None:
    bound, expected = CLIPPED[number]
    spy = _given(generation, GENERATIONS[generation].SGD(0.1, **{number: bound}), eager)
    assert spy.changing == {"o"}
    for found, wanted in ((spy.captured, GIVEN), (spy.reached(), expected)):
        (handed,) = found
        for gradient, value in zip(handed.gradients, wanted, strict=True):
            _near(gradient, value)


@EACH
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "traced"])
def test_the_spy_sees_what_is_left_of_a_scaled_loss(generation: str, eager: bool) -> None:
    optimizer = GENERATIONS[generation].SGD(0.1)
    if generation == "keras3":
        outer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0)
    else:
        outer = tf_keras.mixed_precision.LossScaleOptimizer(optimizer, dynamic=False, initial_scale=4.0)
    spy = _given(generation, outer, eager)
    (handed,) = spy.reached()
    factor = 0.25 if generation == "keras3" else 1.0  # tf_keras's takes gradients that are unscaled already
    _near(handed.gradients[0], factor * np.array(GIVEN[0]))


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "traced"])
def test_what_an_optimizer_keeps_for_later_is_not_applied(eager: bool) -> None:
    spy = _given("keras3", keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), eager, calls=2)
    assert len(spy.captured) == 2
    (handed,) = spy.reached()
    _near(handed.gradients[0], GIVEN[0])
    assert not _given("keras3", keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), eager).reached()


def _near(gradient: Any, expected: Any) -> None:
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def _given(generation: str, optimizer: Any, eager: bool, calls: int = 1) -> GradientSpy:
    """What a spy saw of an optimizer that was handed GIVEN."""
    variables = [_variable(generation, [1.0, 2.0], "a"), _variable(generation, [3.0], "b")]
    optimizer.build(variables) if generation != "legacy" else None

    def step(scale: Any) -> None:
        pairs = zip(GIVEN, variables, strict=True)
        optimizer.apply_gradients([(scale * tf.constant(each), variable) for each, variable in pairs])

    run = step if eager else tf.function(step, autograph=False)
    spy = GradientSpy({"o": optimizer})
    with spy:
        for _ in range(calls):
            run(tf.constant(1.0))
    return spy


def test_an_optimizer_that_changes_nothing_is_known() -> None:
    class Own(keras.optimizers.SGD):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            super().update_step(gradient, variable, learning_rate)

    class Halving(keras.optimizers.SGD):  # type: ignore[misc]
        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            super().apply([each / 2 for each in grads], trainable_variables)

    assert not changes_gradients(keras.optimizers.Adam()) and not changes_gradients(Own())
    assert changes_gradients(Halving())
    (handed,) = _given("keras3", Halving(0.1), True).reached()
    _near(handed.gradients[0], np.array(GIVEN[0]) / 2)


def test_things_of_no_keras_are_refused() -> None:
    with pytest.raises(UserError, match="neither Keras 3's nor tf_keras's"):
        flavour_of(tf.Module())
