"""Ports to a tf.Module that is trained by a tape of its own, with Keras's optimizer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from random_ports.keras_sides import clipped, dense, keras_optimizer, mean_loss, reported, schedule, start_slots
from random_ports.pairs import RandomPort
from random_ports.recipes import NORM_VARIABLES, Layer, Loop, Norm


class Port(tf.Module):  # type: ignore[misc]
    """Variables by the recipe's names, an optimizer, and a step."""

    def __init__(self, about: RandomPort, dtype: str) -> None:
        super().__init__(name="port")
        self.recipe, self.forms, self.dtype = about.ported, about.forms, dtype
        self.weights: dict[str, Any] = {}
        for name in about.created("modern"):
            self.weights[name] = self.create(name)
        self.optimizer = keras_optimizer(
            keras, self.recipe.optimizer, self.forms.clips_inside, not self.forms.assigns_rate
        )
        self.optimizer.build(self.trained())
        start_slots(self.optimizer, self.recipe.optimizer)
        if self.recipe.average:
            self.global_step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step")

    def create(self, name: str) -> Any:
        shape, dtype = self.recipe.variables()[name], self.dtype
        initialiser = self.recipe.initialiser(name)
        value = {
            "glorot": lambda: keras.initializers.GlorotUniform()(shape, dtype),
            "normal": lambda: tf.random_normal_initializer(stddev=0.3)(shape, dtype),
            "truncated": lambda: keras.initializers.TruncatedNormal(stddev=0.3)(shape, dtype),
            "wide": lambda: tf.random_normal_initializer(stddev=1.5)(shape, dtype),
            "embedding": lambda: keras.initializers.RandomUniform(-0.5, 0.5)(shape, dtype),
            "average": lambda: self.weights["output/kernel"].read_value(),
            "constant": lambda: tf.constant(self.recipe.first_value(name), dtype, shape),
        }[initialiser]()
        trainable = initialiser != "average" and not name.split("/")[1].startswith("moving")
        return tf.Variable(value, trainable=trainable, name=name)

    def trained(self) -> list[Any]:
        """The variables that the step moves by gradients, in the order of computation."""
        frozen = {each.name for each in self.recipe.layers if not each.trained}
        return [
            self.weights[name]
            for name in self.recipe.variables()
            if name.split("/")[0].removesuffix("_norm") not in frozen and self.weights[name].trainable
        ]

    # --- Forward ---
    def output(self, x: Any, training: bool, position: Any = None) -> Any:
        """What the last layer gives."""
        tokens = self.recipe.tokens
        if tokens:
            with tf.name_scope("embed"):
                x = tf.nn.embedding_lookup(self.weights["embed/embeddings"], x + tokens.shift if tokens.shift else x)
                if tokens.reads == "mean":
                    x = tf.reduce_mean(x, 1)
                elif tokens.reads == "flat":
                    x = tf.reshape(x, [-1, tokens.length * tokens.units])
                elif tokens.reads == "picked":
                    x = tf.gather(x, position + tokens.beside if tokens.beside else position, batch_dims=1)
        if self.recipe.loop:
            with tf.name_scope("loop"):
                x = self.loop(self.recipe.loop, x)
        for layer in self.recipe.layers:
            with tf.name_scope(layer.name):
                x = self.layer(layer, x, training)
        return x

    def loop(self, loop: Loop, x: Any) -> Any:
        kernel, recurrent = self.weights["loop/kernel"], self.weights["loop/recurrent_kernel"]

        def state(now: Any, last: Any) -> Any:
            z = now @ kernel + last @ recurrent
            return getattr(tf.nn, loop.activation)(z + self.weights["loop/bias"] if loop.bias else z)

        hidden = tf.zeros([tf.shape(x)[0], loop.units], self.dtype)
        if self.forms.modern_loop == "unrolled":
            for time in loop.times:
                hidden = state(x[:, time], hidden)
            return hidden
        times, count = tf.constant(list(loop.times)), len(loop.times)
        return tf.while_loop(
            lambda index, _: index < count,
            lambda index, last: (index + 1, state(tf.gather(x, times[index], axis=1), last)),
            (tf.constant(0), hidden),
        )[1]

    def layer(self, layer: Layer, x: Any, training: bool) -> Any:
        kernel = self.weights[f"{layer.name}/kernel"]
        if layer.kind == "conv":
            x = tf.nn.conv2d(x, kernel, layer.stride, layer.padding.upper())
        else:
            if x.shape.rank > 2:
                x = tf.reshape(x, [-1, layer.inputs])
            x = tf.matmul(x, kernel)
        if layer.bias and layer.adds_bias:
            x = x + self.weights[f"{layer.name}/bias"]
        if layer.norm:
            x = self.norm(layer.name, layer.norm, x, training)
        if layer.activation == "leaky_relu":
            x = tf.nn.leaky_relu(x, 0.2)
        elif layer.activation != "linear":
            x = getattr(tf.nn, layer.activation)(x)
        if layer.scale != 1:
            x = x * layer.scale
        return tf.nn.dropout(x, layer.dropout) if layer.dropout and training else x

    def norm(self, name: str, norm: Norm, x: Any, training: bool) -> Any:
        gamma, beta, moving_mean, moving_variance = (self.weights[f"{name}_norm/{kind}"] for kind in NORM_VARIABLES)
        mean, variance = moving_mean.read_value(), moving_variance.read_value()
        if training and not norm.frozen:
            mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
            fed = variance
            if norm.feeds == "unbiased":
                count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
                fed = variance * count / (count - 1)
            if norm.feeds != "none":
                moving_mean.assign(moving_mean * norm.momentum + mean * (1 - norm.momentum))
                moving_variance.assign(moving_variance * norm.momentum + fed * (1 - norm.momentum))
        return (x - mean) * tf.math.rsqrt(variance + norm.epsilon) * gamma + beta

    # --- Training ---
    def objective(self, y: Any, output: Any) -> Any:
        """What a step minimises."""
        loss = self.recipe.loss.weight * mean_loss(self.recipe, y, output)
        if self.recipe.l2:
            for layer in self.recipe.layers:
                loss += self.recipe.l2 * tf.reduce_sum(self.weights[f"{layer.name}/kernel"] ** 2)
        return loss

    def learned(self, y: Any, **inputs: Any) -> Any:
        """One update; returns the loss that it reports."""
        about = self.recipe.optimizer
        with tf.GradientTape() as tape:
            loss = self.objective(y, self.output(training=True, **inputs))
        variables = self.trained()
        gradients = dense(tape.gradient(loss, variables))
        if not self.forms.clips_inside:
            gradients = clipped(about, gradients)
        if about.decay and self.forms.assigns_rate:
            falling = schedule(keras, about.rate, about.decay)
            self.optimizer.learning_rate.assign(falling(tf.convert_to_tensor(self.optimizer.iterations)))
        self.optimizer.apply(gradients, variables)
        self.move_average()
        return {"loss": reported(self.recipe, self.forms, loss)}

    def move_average(self) -> None:
        average = self.recipe.average
        if average is None:
            return
        self.global_step.assign_add(1)
        decay = tf.constant(average.decay, self.dtype)
        if average.counted:
            count = tf.cast(self.global_step, self.dtype)
            decay = tf.minimum(decay, (1 + count) / (10 + count))
        kept, now = self.weights["output/average"], self.weights["output/kernel"]
        kept.assign_sub((kept - now) * (1 - decay))


class PlainPort(Port):
    """One whose step takes inputs and targets."""

    def __call__(self, x: Any, training: bool = False) -> Any:
        return self.output(x, training)

    @tf.function
    def train_step(self, x: Any, y: Any) -> Any:
        """One update."""
        return self.learned(y, x=x)


class PickingPort(Port):
    """One whose step takes positions too."""

    def __call__(self, x: Any, position: Any, training: bool = False) -> Any:
        return self.output(x, training, position)

    @tf.function
    def train_step(self, x: Any, position: Any, y: Any) -> Any:
        """One update."""
        return self.learned(y, x=x, position=position)


def module_port(about: RandomPort, dtype: str) -> Any:
    """A tf.Module with its own step."""
    return (PickingPort if about.ported.picks else PlainPort)(about, dtype)
