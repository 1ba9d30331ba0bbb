"""Optimizers written out in variables against an optimizer's slots, and averages of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case

GENERATOR = np.random.default_rng(1)
START = [GENERATOR.normal(size=shape) * 0.4 for shape in ((5, 4), (4,), (4, 1), (1,))]
NAMES = ("h_kernel", "h_bias", "o_kernel", "o_bias")


class Net(tf.Module):  # type: ignore[misc]
    """Two layers, an optimizer's state in lists of variables, and averages of the weights."""

    def __init__(self, dtype: str, rule: str, rate: float = 0.01, beta: float = 0.9) -> None:
        super().__init__()

        def variable(value: Any, name: str) -> Any:
            return tf.Variable(tf.cast(value, dtype), name=name)

        self.weights = [variable(start, name) for start, name in zip(START, NAMES, strict=True)]
        kept = {"adam": ("first", "second"), "momentum": ("kept",), "average": ("averaged",), "rms": ("squares",)}
        self.kept = {
            name: [
                variable(each if name == "averaged" else tf.zeros_like(each), f"{name}_{k}")
                for k, each in enumerate(START)
            ]
            for name in kept[rule]
        }
        self.count = tf.Variable(0, dtype=tf.int64, name="updates")
        self.rule, self.rate, self.beta = rule, rate, beta

    @tf.function
    def __call__(self, x: Any) -> Any:
        kernel, bias, out, last = self.weights
        return tf.tanh(x @ kernel + bias) @ out + last

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        slopes = tape.gradient(loss, self.weights)
        self.count.assign_add(1)
        count, beta = tf.cast(self.count, loss.dtype), tf.constant(self.beta, loss.dtype)
        for place, (weight, slope) in enumerate(zip(self.weights, slopes, strict=True)):
            if self.rule == "adam":
                first, second = self.kept["first"][place], self.kept["second"][place]
                first.assign(beta * first + (1 - beta) * slope)
                second.assign(0.999 * second + 0.001 * slope * slope)
                rate = self.rate * tf.sqrt(1 - tf.constant(0.999, loss.dtype) ** count) / (1 - beta**count)
                weight.assign_sub(rate * first / (tf.sqrt(second) + 1e-7))
            elif self.rule == "momentum":
                kept = self.kept["kept"][place]
                kept.assign(beta * kept - self.rate * slope)
                weight.assign_add(kept)
            elif self.rule == "rms":
                squares = self.kept["squares"][place]
                squares.assign(beta * squares + (1 - beta) * slope * slope)
                weight.assign_sub(self.rate * slope / tf.sqrt(squares + 1e-7))
            else:
                weight.assign_sub(self.rate * slope)
                averaged = self.kept["averaged"][place]
                averaged.assign_sub((1 - beta) * (averaged - weight))
        return {"loss": loss}


def module(rule: str, **how: float) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> Any:
        held = Net(dtype, rule, **how)
        return tfport.adapters.tf_module(held, step=held.step, forward=held)

    return build


def model(optimizer: Callable[[], Any]) -> Callable[[], Any]:
    def build() -> Any:
        layers = [keras.Input([5], name="x"), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
        found = keras.Sequential(layers)
        found.set_weights([start.astype(keras.config.floatx()) for start in START])
        found.compile(optimizer(), "mse")
        return found

    return build


def graph(optimizer: Callable[[], Any], average: bool = False) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> dict[str, Any]:
        x, y = tf1.placeholder(dtype, [None, 5], name="x"), tf1.placeholder(dtype, [None, 1], name="y")
        weights = [
            tf1.get_variable(name, initializer=tf1.constant(start, dtype))
            for start, name in zip(START, NAMES, strict=True)
        ]
        out = tf1.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]
        loss = tf1.reduce_mean(tf1.square(out - y))
        train = optimizer().minimize(loss)
        if average:
            with tf1.control_dependencies([train]):
                train = tf1.train.ExponentialMovingAverage(0.9).apply(weights)
        return {"outputs": {"out": out}, "loss": loss, "train_op": train}

    return build


def powers(first: float = 0.9) -> Callable[..., Any]:
    """A TF1 graph whose Adam is written out, with beta powers that are multiplied up."""

    def build(dtype: str = "float32") -> dict[str, Any]:
        x, y = tf1.placeholder(dtype, [None, 5], name="x"), tf1.placeholder(dtype, [None, 1], name="y")
        weights = [
            tf1.get_variable(name, initializer=tf1.constant(start, dtype))
            for start, name in zip(START, NAMES, strict=True)
        ]
        out = tf1.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]
        loss = tf1.reduce_mean(tf1.square(out - y))
        ones = [
            tf1.get_variable(name, initializer=tf1.constant(1.0, dtype), trainable=False)
            for name in ("b1_power", "b2_power")
        ]
        with tf1.control_dependencies([loss, *(slopes := tf1.gradients(loss, weights))]):
            grown = [tf1.assign(ones[0], ones[0] * first), tf1.assign(ones[1], ones[1] * 0.999)]
        updates = list(grown)
        rate = 0.01 * tf1.sqrt(1 - grown[1]) / (1 - grown[0])
        for weight, slope in zip(weights, slopes, strict=True):
            kept = [
                tf1.get_variable(f"{weight.op.name}/{name}", initializer=tf1.zeros_like(weight), trainable=False)
                for name in ("mean_slope", "mean_square")
            ]
            mean = tf1.assign(kept[0], first * kept[0] + (1 - first) * slope)
            square = tf1.assign(kept[1], 0.999 * kept[1] + 0.001 * tf1.square(slope))
            updates.append(tf1.assign_sub(weight, rate * mean / (tf1.sqrt(square) + 1e-7)))
        return {"outputs": {"out": out}, "loss": loss, "train_op": tf1.group(*updates)}

    return build


def adam() -> Any:
    return keras.optimizers.Adam(0.01)


def momentum() -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9)


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    x = generator.normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": (3 * x[:, :1] - x[:, 1:2]).astype("float32")}


PAIRED = ("slots that one side keeps by hand were paired by their values",)
CASES = [
    Case("adam", module("adam"), model(adam), batches, equal=True, says=PAIRED),
    Case("adam-back", model(adam), module("adam"), batches, equal=True, says=PAIRED),
    Case("adam-beta", module("adam", beta=0.8), model(adam), batches, equal=False, rung="update"),
    Case(
        "powers",
        powers(),
        model(adam),
        batches,
        equal=True,
        says=(*PAIRED, "counted on the legacy side alone.*b1_power"),
    ),
    Case("powers-back", model(adam), powers(), batches, equal=True, says=PAIRED),
    Case("powers-both", powers(), module("adam"), batches, equal=True),
    Case("powers-beta", powers(0.8), model(adam), batches, equal=False, rung="update"),
    Case("adam-twice", module("adam"), module("adam"), batches, equal=True),
    Case("momentum", module("momentum"), model(momentum), batches, equal=True, says=(r"times -0\.01",)),
    Case(
        "momentum-graph",
        graph(lambda: tf1.train.MomentumOptimizer(0.01, 0.9)),
        module("momentum"),
        batches,
        equal=True,
        says=(r"times -100",),
    ),
    Case("momentum-rate", module("momentum", rate=0.02), model(momentum), batches, equal=False, rung="update"),
    Case(
        "rms",
        model(lambda: keras.optimizers.RMSprop(0.01, rho=0.9)),
        module("rms"),
        batches,
        equal=True,
        says=PAIRED,
    ),
    Case(
        "average",
        graph(lambda: tf1.train.GradientDescentOptimizer(0.01), average=True),
        module("average"),
        batches,
        equal=True,
        says=("the values of 3 steps",),
    ),
    Case(
        "average-decay",
        graph(lambda: tf1.train.GradientDescentOptimizer(0.01), average=True),
        module("average", beta=0.8),
        batches,
        equal=False,
        rung="update",
    ),
]
