"""Noise that a step draws in Python, by other generators and under other names than its port."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import tfport.adapters
from cases.common import Case

NOISE = np.random.default_rng(0)


class Noisy(tf.Module):  # type: ignore[misc]
    """A linear model that is trained on noisy inputs, a part of which is left out."""

    def __init__(self, dtype: str, draw: str) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.constant(np.linspace(-1, 1, 5).reshape(5, 1), dtype), name="weight")
        self.draw = draw
        self.generator = np.random.RandomState(3)

    def drawn(self, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Noise and the number of examples that count."""
        if self.draw == "global":
            return np.random.randn(*shape), np.random.randint(3, 17)  # noqa: NPY002
        if self.draw == "held":
            return self.generator.normal(size=shape), random.randint(3, 16)
        if self.draw == "tensorflow":
            return tf.random.normal(shape), tf.random.uniform([], 3, 17, tf.int64)
        return NOISE.normal(scale=2.0 if self.draw == "twice" else 1.0, size=shape), NOISE.integers(3, 17)

    def __call__(self, x: Any) -> Any:
        return x @ self.weight

    def step(self, x: Any, y: Any) -> Any:
        noise, count = self.drawn(tuple(x.shape))
        with tf.GradientTape() as tape:
            error = self(x + 0.1 * tf.cast(noise, x.dtype)) - y
            loss = tf.reduce_mean(tf.square(error[:count]))
        self.weight.assign_sub(0.1 * tape.gradient(loss, self.weight))
        return {"loss": loss}


def module(draw: str) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> Any:
        held = Noisy(dtype, draw)
        return tfport.adapters.tf_module(held, step=held.step, forward=held)

    return build


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    x = generator.normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": (3 * x[:, :1] - x[:, 1:2]).astype("float32")}


CASES = [
    Case("global-held", module("global"), module("held"), batches, equal=True),
    Case("held-module", module("held"), module("module"), batches, equal=True),
    Case("module-tensorflow", module("module"), module("tensorflow"), batches, equal=True),
    Case("scale", module("global"), module("twice"), batches, equal=False, rung="loss"),
]
