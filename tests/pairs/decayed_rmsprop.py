"""A regression with RMSProp and a decaying rate: a TF1 graph that names nothing, and its port to Keras 3.

TF1 keeps the mean square from one on, Keras from zero on; epsilon stands inside the root in both, with other defaults.
RMSProp's momentum collects steps that have the rate in them already, in both, so a decaying rate has an equal port.
Plain momentum has none: TF1 collects gradients and multiplies by today's rate, Keras collects steps made at yesterday's
rate.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow.compat.v1 as tf

from pairs_common import Broken

FEATURES, HIDDEN = 6, 8
BATCH = 8


# --- The original -----------------------------------------------------------------------------------------------------
def dense(inputs: Any, units: int, name: str) -> Any:
    kernel = tf.get_variable(
        f"{name}/w", [inputs.shape[-1], units], inputs.dtype, initializer=tf.random_normal_initializer(stddev=0.3)
    )
    return tf.matmul(inputs, kernel) + tf.get_variable(
        f"{name}/b", [units], inputs.dtype, initializer=tf.zeros_initializer()
    )


def regression(dtype: str, optimizer: Any) -> None:
    x = tf.placeholder(dtype, [None, FEATURES], name="x")
    target = tf.placeholder(dtype, [None, 1], name="target")
    prediction = tf.identity(dense(tf.nn.softplus(dense(x, HIDDEN, "hidden")), 1, "output"), name="prediction")
    loss = tf.reduce_mean(tf.square(prediction - target), name="loss")
    global_step = tf.train.get_or_create_global_step()
    rate = tf.train.exponential_decay(0.01, global_step, decay_steps=5, decay_rate=0.5)
    optimizer(rate).minimize(loss, global_step=global_step, name="train")


def legacy(dtype: str = "float32") -> None:
    regression(dtype, lambda rate: tf.train.RMSPropOptimizer(rate, decay=0.9, momentum=0.8, epsilon=1e-6))


def legacy_momentum(dtype: str = "float32") -> None:
    regression(dtype, lambda rate: tf.train.MomentumOptimizer(rate, 0.8))


# --- The port ---------------------------------------------------------------------------------------------------------
def build(optimizer: Any, ones: bool = True) -> keras.Model:
    normal = keras.initializers.RandomNormal(stddev=0.3)
    model = keras.Sequential(
        [
            keras.Input([FEATURES], name="x"),
            keras.layers.Dense(HIDDEN, activation="softplus", kernel_initializer=normal, name="hidden"),
            keras.layers.Dense(1, kernel_initializer=normal, name="output"),
        ],
        name="regression",
    )
    model.compile(optimizer=optimizer, loss="mse")
    optimizer.build(model.trainable_variables)
    if ones:  # TF1's mean squares start at one
        for variable in optimizer.variables:
            if variable.name.endswith("_velocity"):
                variable.assign(keras.ops.ones_like(variable))
    return model


def decay(rate: float = 0.01, steps: int = 5, staircase: bool = False) -> Any:
    return keras.optimizers.schedules.ExponentialDecay(rate, decay_steps=steps, decay_rate=0.5, staircase=staircase)


def rmsprop(schedule: Any, epsilon: float = 1e-6, rho: float = 0.9, centered: bool = False, **more: Any) -> Any:
    return keras.optimizers.RMSprop(schedule, rho=rho, momentum=0.8, epsilon=epsilon, centered=centered, **more)


def modern() -> keras.Model:
    return build(rmsprop(decay()))


# --- Ports with one mistake -------------------------------------------------------------------------------------------
def slots_from_zero() -> keras.Model:
    return build(rmsprop(decay()), ones=False)


def staircase() -> keras.Model:
    return build(rmsprop(decay(staircase=True)))


def decay_by_examples() -> keras.Model:
    return build(rmsprop(decay(steps=5 * BATCH)))


def no_decay() -> keras.Model:
    return build(rmsprop(0.01))


def default_epsilon() -> keras.Model:
    return build(rmsprop(decay(), epsilon=1e-7))


def clipped() -> keras.Model:
    return build(rmsprop(decay(), global_clipnorm=0.1))


def momentum() -> keras.Model:
    return build(keras.optimizers.SGD(decay(), momentum=0.8), ones=False)


BROKEN = (
    Broken("slots_from_zero", "the mean squares start at 0, not 1", "initialisation", None, "rms"),
    Broken("staircase", "the rate falls once in five steps, not a little each step", "update", "train", "hidden"),
    Broken("decay_by_examples", "the decay counts examples, not steps", "update", "train", "hidden", slow=True),
    Broken("no_decay", "the rate never falls", "update", "train", "hidden", slow=True),
    Broken(
        "default_epsilon", "Keras's epsilon is 1e-7; this TF1 code has 1e-6", "update", "train", "hidden", slow=True
    ),
    Broken("clipped", "all gradients together are clipped by their norm", "gradient", "train", "hidden", slow=True),
    Broken(
        "momentum",
        "Keras's SGD collects steps at yesterday's rate, TF1's Momentum gradients",
        "update",
        "train",
        "accumulator",
        legacy="legacy_momentum",
    ),
)


def batches(step: int) -> dict[str, Any]:
    draw = np.random.default_rng([13, step])
    x = draw.normal(size=(BATCH, FEATURES)).astype(np.float32)
    return {"x": x, "target": np.sin(x.sum(axis=1, keepdims=True)).astype(np.float32)}
