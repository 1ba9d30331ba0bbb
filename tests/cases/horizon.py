"""What shows only beyond the steps that are made: rates, warm-ups and averages that depend on a count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1
import tf_keras

import tfport.adapters
from cases.common import Case

Rate = Callable[[Any, Any], Any]
"""The rate of a step, from its count and the dtype."""
START = np.linspace(-1, 1, 5).reshape(5, 1)


def graph(rate: Rate, decay: float = 0.0, assigned: bool = False) -> Callable[..., Any]:
    """A TF1 graph under gradient descent with this rate, and an average of its weight where it has a decay."""

    def build(dtype: str = "float32") -> dict[str, Any]:
        x, y = tf1.placeholder(dtype, [None, 5], name="x"), tf1.placeholder(dtype, [None, 1], name="y")
        weight = tf1.get_variable("w", initializer=tf1.constant(START, dtype))
        out = tf1.matmul(x, weight)
        loss = tf1.reduce_mean(tf1.square(out - y))
        step = tf1.train.get_or_create_global_step()
        train = tf1.train.GradientDescentOptimizer(rate(step, dtype)).minimize(loss, step)
        if decay:
            with tf1.control_dependencies([train]):
                train = tf1.train.ExponentialMovingAverage(decay, step).apply([weight])
        return {"outputs": {"out": out}, "loss": loss, "train_op": train}

    return build


def model(rate: Any, library: Any = keras) -> Callable[..., Any]:
    """A Keras model under gradient descent; `rate` makes the schedule."""

    def build() -> Any:
        start = library.initializers.Constant(START)
        found = library.Sequential()
        found.add(library.Input([5], name="x") if library is keras else library.layers.InputLayer(5, name="x"))
        found.add(library.layers.Dense(1, name="dense", use_bias=False, kernel_initializer=start))
        found.compile(library.optimizers.SGD(rate()), "mse")
        return found

    return build


class Written(tf.Module):  # type: ignore[misc]
    """The same with the update, the rate and the average written out."""

    def __init__(self, dtype: str, rate: Rate, decay: float) -> None:
        super().__init__()
        self.rate, self.decay = rate, decay
        self.weight = tf.Variable(tf.constant(START, dtype), name="weight")
        self.count = tf.Variable(0, dtype=tf.int32, trainable=False, name="count")
        if decay:
            self.average = tf.Variable(self.weight, trainable=False, name="average")

    @tf.function
    def __call__(self, x: Any) -> Any:
        return x @ self.weight

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        rate = tf.cast(self.rate(self.count, self.weight.dtype), self.weight.dtype)
        self.weight.assign_sub(rate * tape.gradient(loss, self.weight))
        self.count.assign_add(1)
        if self.decay:
            count = tf.cast(self.count, self.weight.dtype)
            decay = tf.minimum(tf.cast(self.decay, count.dtype), (1 + count) / (10 + count))
            self.average.assign(decay * self.average + (1 - decay) * self.weight)
        return loss


def module(rate: Rate, decay: float = 0.0) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> Any:
        held = Written(dtype, rate, decay)
        return tfport.adapters.tf_module(held, step=held.step, forward=held)

    return build


class Forgetful:
    """Counts in Python, which nothing can set; its optimizer counts too, and its rate does not follow from that."""

    def __init__(self, dtype: str) -> None:
        self.weight = tf.Variable(tf.constant(START, dtype), name="weight")
        self.count = 0
        self.optimizer = keras.optimizers.SGD(0.1)
        self.optimizer.build([self.weight])

    def __call__(self, x: Any) -> Any:
        return x @ self.weight

    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.optimizer.learning_rate = 0.1 * 0.5 ** (self.count // 1_000)
        self.optimizer.apply([tape.gradient(loss, self.weight)], [self.weight])
        self.count += 1
        return loss


def forgetful(dtype: str = "float32") -> Any:
    held = Forgetful(dtype)
    return tfport.adapters.tf_module(held, step=held.step, forward=held)


class Assigning:
    """Assigns the rate of its optimizer from a counter of its own, before every update."""

    def __init__(self, dtype: str, every: int) -> None:
        self.every = every
        self.weight = tf.Variable(tf.constant(START, dtype), name="weight")
        self.count = tf.Variable(0.0, dtype=dtype, trainable=False, name="count")
        self.optimizer = keras.optimizers.SGD(0.1)
        self.optimizer.build([self.weight])

    def __call__(self, x: Any) -> Any:
        return x @ self.weight

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.optimizer.learning_rate.assign(0.1 * 0.5 ** tf.floor(self.count / self.every))
        self.optimizer.apply([tape.gradient(loss, self.weight)], [self.weight])
        self.count.assign_add(1.0)
        return loss


def assigning(every: int) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> Any:
        held = Assigning(dtype, every)
        return tfport.adapters.tf_module(held, step=held.step, forward=held)

    return build


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    x = generator.normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": (3 * x[:, :1] - x[:, 1:2]).astype("float32")}


def staircase(every: int) -> Rate:
    return lambda step, dtype: tf1.train.exponential_decay(0.1, step, every, 0.5, staircase=True)


def warm_up(steps: float) -> Rate:
    return lambda step, dtype: 0.1 * tf.minimum(tf.cast(1.0, dtype), tf.cast(step + 100, dtype) / steps)


def constant(step: Any, dtype: Any) -> Any:
    return tf.constant(0.1, dtype)


def piecewise(step: Any, dtype: Any) -> Any:
    return tf1.train.piecewise_constant(step, [1_500, 40_000], [0.1, 0.05, 0.01])


def polynomial(step: Any, dtype: Any) -> Any:
    return tf1.train.polynomial_decay(0.1, step, 30_000, 0.001, power=2.0)


def cosine(step: Any, dtype: Any) -> Any:
    return tf1.train.cosine_decay(0.1, step, 5_000)


def natural(step: Any, dtype: Any) -> Any:
    return tf1.train.natural_exp_decay(0.1, step, 1_000, 0.5)


SCHEDULES = keras.optimizers.schedules
OTHER = tf_keras.optimizers.schedules
KINDS: dict[str, tuple[Rate, Any, Any, str]] = {
    "piecewise": (
        piecewise,
        lambda: SCHEDULES.PiecewiseConstantDecay([1_500, 40_000], [0.1, 0.05, 0.01]),
        lambda: SCHEDULES.PiecewiseConstantDecay([1_499, 40_000], [0.1, 0.05, 0.01]),
        "at step 1,500: 0.1 against 0.05",
    ),
    "polynomial": (
        polynomial,
        lambda: OTHER.PolynomialDecay(0.1, 30_000, 0.001, power=2.0),
        lambda: OTHER.PolynomialDecay(0.1, 30_000, 0.001, power=2.0, cycle=True),
        "the learning rate differs from step 30,001",
    ),
    "cosine": (
        cosine,
        lambda: SCHEDULES.CosineDecay(0.1, 5_000),
        lambda: SCHEDULES.CosineDecay(0.1, 5_000, alpha=1e-4),
        r"the learning rate differs from (about )?step [\d,]+ on",
    ),
    "exponential": (
        natural,
        lambda: SCHEDULES.ExponentialDecay(0.1, 1_000, float(np.exp(-0.5))),
        lambda: SCHEDULES.ExponentialDecay(0.1, 1_000, float(np.exp(-0.5)), staircase=True),
        "",
    ),
}
CASES = [
    Case("staircase", graph(staircase(1_000)), model(lambda: SCHEDULES.ExponentialDecay(0.1, 1_000, 0.5, True)),
         batches, equal=True, says=("up to step 10,000,019",)),
    Case("staircase-longer", graph(staircase(1_000)), model(lambda: SCHEDULES.ExponentialDecay(0.1, 2_000, 0.5, True)),
         batches, equal=False, rung="forced_trajectory",
         says=("the learning rate differs from step 1,000 on: 0.05 against 0.1",)),
    Case("staircase-written", graph(staircase(1_000)),
         module(lambda step, dtype: 0.1 * 0.5 ** tf.cast(step // 1_000, dtype)), batches, equal=True),
    Case("staircase-forgotten", graph(staircase(1_000)), module(constant), batches, equal=False,
         says=("what a step adds to w differs from step 1,000 on",)),
    Case("staircase-python", graph(staircase(1_000)), forgetful, batches, equal=True,
         says=(r"Nothing beyond step 6 was seen: the modern side counts in Python \(count\)",)),
    Case("staircase-assigned", graph(staircase(1_000)), assigning(1_000), batches, equal=True),
    Case("staircase-assigned-longer", graph(staircase(1_000)), assigning(2_000), batches, equal=False,
         says=("what a step adds to w differs from step 1,000 on",)),
    Case("warm-up", graph(warm_up(10_000)), module(warm_up(10_000)), batches, equal=True),
    Case("warm-up-without-end", graph(warm_up(10_000)),
         module(lambda step, dtype: 0.1 * tf.cast(step + 100, dtype) / 10_000), batches, equal=False,
         says=(r"from (about step 9,8[5-9]\d|(about )?step 9,9\d\d) on",)),
    Case("average", graph(constant, 0.9999), module(constant, 0.9999), batches, equal=True),
    Case("average-faster", graph(constant, 0.9999), module(constant, 0.999), batches, equal=False,
         rung="forced_trajectory",
         says=(r"what a step adds to w/ExponentialMovingAverage differs from about step 9,0\d\d on",)),
]  # fmt: skip
for name, (rate, right, wrong, says) in KINDS.items():
    library = tf_keras if name == "polynomial" else keras
    CASES.append(Case(name, graph(rate), model(right, library), batches, equal=True))
    if says:
        found = Case(f"{name}-wrong", graph(rate), model(wrong, library), batches, equal=False, says=(says,))
        CASES.append(found)
