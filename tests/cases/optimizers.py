"""Where ports keep their optimizers: attributes, lists, dicts, closures; layers are built by the first batch."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1
import tf_keras

from cases.common import Case

INPUTS, HIDDEN, CODE = 6, 5, 3
RATE = 0.01


def legacy(dtype: str = "float32") -> dict[str, Any]:
    """An encoder with an Adam and a decoder with another, trained one after the other."""
    x = tf1.placeholder(dtype, [None, INPUTS], name="x")

    def dense(name: str, value: Any, inputs: int, units: int) -> tuple[Any, list[Any]]:
        kernel = tf1.get_variable(f"{name}/w", [inputs, units], dtype, initializer=tf1.glorot_uniform_initializer())
        bias = tf1.get_variable(f"{name}/b", [units], dtype, initializer=tf1.zeros_initializer())
        return tf1.matmul(value, kernel) + bias, [kernel, bias]

    code, encoder = dense("encoder", x, INPUTS, CODE)
    decoded, decoder = dense("decoder", tf1.tanh(code), CODE, INPUTS)
    loss = tf1.reduce_mean(tf1.square(decoded - x))
    return {
        "outputs": {"decoded": decoded},
        "losses": {"encode": loss, "decode": loss},
        "train_ops": {
            "encode": tf1.train.AdamOptimizer(RATE, epsilon=1e-8).minimize(loss, var_list=encoder),
            "decode": tf1.train.AdamOptimizer(2 * RATE, epsilon=1e-8).minimize(loss, var_list=decoder),
        },
    }


def _adam(package: Any, factor: float = 1.0) -> Any:
    return package.optimizers.Adam(factor * RATE, epsilon=1e-8)


def _loss(model: Any, x: Any) -> Any:
    return tf.reduce_mean(tf.square(model(x) - x))


def _model_of(package: Any) -> Any:
    """A Model of this Keras, with layers that its first batch builds."""

    class Model(package.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = package.layers.Dense(CODE, "tanh", name="encoder")
            self.decoder = package.layers.Dense(INPUTS, name="decoder")

        def call(self, x: Any) -> Any:
            return self.decoder(self.encoder(x))

    return Model()


def _trained_by(model: Any, encode: Any, decode: Any) -> Any:
    """The two phases, by functions that get at their optimizers when they run."""

    def phase(layer: str, optimizer: Any) -> Any:
        @tf.function
        def train(x: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = _loss(model, x)
            variables = getattr(model, layer).trainable_variables
            optimizer().apply_gradients(list(zip(tape.gradient(loss, variables), variables, strict=True)))
            return loss

        return train

    phases = {"encode": phase("encoder", encode), "decode": phase("decoder", decode)}
    return {"model": model, "phases": phases, "outputs": lambda x: {"decoded": model(x)}}


def attributes() -> Any:
    model = _model_of(keras)
    model.for_encoder, model.for_decoder = _adam(keras), _adam(keras, 2)
    return _trained_by(model, lambda: model.for_encoder, lambda: model.for_decoder)


def listed() -> Any:
    model = _model_of(keras)
    model.rules = [_adam(keras), _adam(keras, 2)]
    return _trained_by(model, lambda: model.rules[0], lambda: model.rules[1])


def mapped_in_keras2() -> Any:
    model = _model_of(tf_keras)
    model.rules = {"encoder": _adam(tf_keras), "decoder": _adam(tf_keras, 2)}
    return _trained_by(model, lambda: model.rules["encoder"], lambda: model.rules["decoder"])


@dataclasses.dataclass(slots=True)
class Rules:
    """Optimizers in a dataclass that a function of the step is bound to."""

    encoder: Any
    decoder: Any


def bound() -> Any:
    model, rules = _model_of(keras), Rules(_adam(keras), _adam(keras, 2))

    def take(name: str, held: Rules) -> Any:
        return getattr(held, name)

    return _trained_by(model, functools.partial(take, "encoder", rules), functools.partial(take, "decoder", rules))


def swapped() -> Any:
    """The rates are the other way round."""
    model = _model_of(keras)
    model.rules = [_adam(keras), _adam(keras, 2)]
    return _trained_by(model, lambda: model.rules[1], lambda: model.rules[0])


def lending() -> Any:
    """The model was compiled too, for evaluation, with an optimizer that nothing trains by."""
    model = _model_of(keras)
    model.compile(keras.optimizers.RMSprop(0.5), "mse")
    model.rules = {"encoder": _adam(keras), "decoder": _adam(keras, 2)}
    return _trained_by(model, lambda: model.rules["encoder"], lambda: model.rules["decoder"])


def one_optimizer(dtype: str = "float32") -> dict[str, Any]:
    """The same autoencoder, trained as a whole."""
    made = legacy(dtype)
    loss = made["losses"]["encode"]
    train_op = tf1.train.AdamOptimizer(RATE, epsilon=1e-8).minimize(loss)
    return {"outputs": made["outputs"], "loss": loss, "train_op": train_op}


def own_step() -> Any:
    """A compiled model with a step of its own, whose inner model was compiled as well."""

    class Outer(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            dense = keras.layers.Dense
            self.net = keras.Sequential([dense(CODE, "tanh", name="encoder"), dense(INPUTS, name="decoder")])
            self.net.compile(keras.optimizers.SGD(0.5), "mse")
            self.rules = {"all": _adam(keras)}

        def call(self, x: Any) -> Any:
            return self.net(x)

        def train_step(self, data: Any) -> Any:
            x = data[0] if isinstance(data, tuple) else data
            with tf.GradientTape() as tape:
                loss = _loss(self, x)
            variables = self.net.trainable_variables
            self.rules["all"].apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    model = Outer()
    model.compile()
    return model


def batches(step: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(step).normal(size=(16, INPUTS)).astype("float32")}


CASES = [
    Case("attributes", legacy, attributes, batches, equal=True),
    Case("listed", legacy, listed, batches, equal=True),
    Case("mapped in Keras 2", legacy, mapped_in_keras2, batches, equal=True),
    Case("bound", legacy, bound, batches, equal=True),
    Case("swapped", legacy, swapped, batches, equal=False, rung="update"),
    Case("lending", legacy, lending, batches, equal=True, says=(r"RMSprop\) is used by no phase",)),
    Case("own step", one_optimizer, own_step, batches, equal=True, says=(r"SGD\) is used by no phase",)),
]
