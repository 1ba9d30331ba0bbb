"""Ports to Keras 3 and tf_keras: compiled models, and a keras.Model with a step and an optimizer of its own."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from random_ports.pairs import Forms, RandomPort
from random_ports.recipes import Decay, Layer, Loop, Norm, Optimizer, Recipe, Tokens


# --- Optimizers -------------------------------------------------------------------------------------------------------
def schedule(keras: Any, first: float, decay: Decay) -> Any:
    """Either Keras's schedule."""
    made = keras.optimizers.schedules
    return {
        "exponential": lambda: made.ExponentialDecay(first, decay.steps, decay.rate, decay.staircase),
        "inverse_time": lambda: made.InverseTimeDecay(first, decay.steps, decay.rate, decay.staircase),
        "piecewise": lambda: made.PiecewiseConstantDecay(decay.boundaries, decay.values(first)),
        "polynomial": lambda: made.PolynomialDecay(first, decay.steps, first * decay.end, decay.power, decay.cycle),
        "cosine": lambda: made.CosineDecay(first, decay.steps, decay.end),
    }[decay.kind]()


def keras_optimizer(keras: Any, about: Optimizer, clips: bool = True, decays: bool = True) -> Any:
    """Either Keras's optimizer of that algorithm; without clipping, or at a constant rate, where the step does it."""
    rate: Any = schedule(keras, about.rate, about.decay) if about.decay and decays else about.rate
    more: dict[str, Any] = {}
    if about.clip and clips:
        more[{"value": "clipvalue", "norm": "clipnorm", "global": "global_clipnorm"}[about.clip.kind]] = (
            about.clip.bound
        )
    if about.weight_decay:
        more["weight_decay"] = about.weight_decay
    made = keras.optimizers
    return {
        "SGD": lambda: made.SGD(rate, **more),
        "Momentum": lambda: made.SGD(rate, momentum=about.momentum, **more),
        "Nesterov": lambda: made.SGD(rate, momentum=about.momentum, nesterov=True, **more),
        "Adagrad": lambda: made.Adagrad(rate, initial_accumulator_value=about.first, epsilon=0.0, **more),
        "RMSProp": lambda: made.RMSprop(rate, rho=about.rho, epsilon=about.epsilon, **more),
        "Adam": lambda: made.Adam(rate, beta_1=about.beta_1, beta_2=about.beta_2, epsilon=about.epsilon, **more),
    }[about.kind]()


def start_slots(optimizer: Any, about: Optimizer) -> None:
    """Lets a built RMSprop of Keras, whose mean square starts at zero, start where TF1's does: at one."""
    if about.kind == "RMSProp":
        for each in optimizer._velocities:
            each.assign(np.full(each.shape, about.first))


def dense(gradients: list[Any]) -> list[Any]:
    """Gradients with those of a table's rows added up; None where there is none."""
    return [None if each is None else tf.convert_to_tensor(each) for each in gradients]


def clipped(about: Optimizer, gradients: list[Any]) -> list[Any]:
    """Gradients as a step of one's own clips them."""
    if about.clip is None:
        return gradients
    bound = about.clip.bound
    if about.clip.kind == "global":
        return list(tf.clip_by_global_norm(gradients, bound)[0])
    if about.clip.kind == "norm":
        return [None if each is None else tf.clip_by_norm(each, bound) for each in gradients]
    return [None if each is None else tf.clip_by_value(each, -bound, bound) for each in gradients]


def reported(about: Recipe, forms: Forms, objective: Any) -> Any:
    """What a step of one's own says its loss is."""
    return forms.reports * (objective**0.5 if about.loss.root else objective)


# --- Layers -----------------------------------------------------------------------------------------------------------
@functools.cache
def _odd_layers(which: str) -> Any:
    """Layers with mistakes, and a model with one, for either Keras."""
    keras = importlib.import_module(which)

    class OddDense(keras.layers.Dense):  # type: ignore[misc, name-defined]
        """Leaves its bias out."""

        def call(self, inputs: Any, training: Any = None) -> Any:
            return self.activation(tf.matmul(inputs, tf.convert_to_tensor(self.kernel)))

    class OddNorm(keras.layers.BatchNormalization):  # type: ignore[misc, name-defined]
        """Feeds the unbiased variance to its moving one, or nothing to either, or is in inference mode always.

        `training=False` in a functional model is no such mistake: Keras 3 overrides it.
        """

        recipe: Norm

        def call(self, inputs: Any, training: Any = None) -> Any:
            if not training or self.recipe.frozen:
                mean, variance = map(tf.convert_to_tensor, (self.moving_mean, self.moving_variance))
            else:
                mean, variance = tf.nn.moments(inputs, list(range(inputs.shape.rank - 1)))
                if self.recipe.feeds == "unbiased":
                    count = tf.cast(tf.size(inputs) // inputs.shape[-1], inputs.dtype)
                    for moving, value in (
                        (self.moving_mean, mean),
                        (self.moving_variance, variance * count / (count - 1)),
                    ):
                        moving.assign(moving * self.momentum + value * (1 - self.momentum))
            beta, gamma = map(tf.convert_to_tensor, (self.beta, self.gamma))
            return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, self.epsilon)

    class OddEmbedding(keras.layers.Embedding):  # type: ignore[misc, name-defined]
        """Looks the next row up."""

        def call(self, inputs: Any) -> Any:
            return super().call(inputs + 1)

    class OddModel(keras.Model):  # type: ignore[misc, name-defined]
        """Reports the root of what it minimises."""

        def train_step(self, data: Any) -> Any:
            found = super().train_step(data)
            return {**found, "loss": found["loss"] ** 0.5}

    return SimpleNamespace(dense=OddDense, norm=OddNorm, embedding=OddEmbedding, model=OddModel)


class _Layers:
    """The layers of one recipe, in the order of computation."""

    def __init__(self, which: str, about: RandomPort, dtype: str) -> None:
        self.which, self.keras, self.odd = which, importlib.import_module(which), _odd_layers(which)
        self.recipe, self.unrolled, self.dtype = about.ported, about.forms.modern_loop == "unrolled", dtype

    def made(self) -> list[Any]:
        """All of them."""
        found: list[Any] = []
        if self.recipe.tokens:
            found += self.embedded(self.recipe.tokens)
        if self.recipe.loop:
            found += self.loop(self.recipe.loop)
        flat = len(self.recipe.shape) == 1 or bool(found)
        for layer in self.recipe.layers:
            if layer.kind == "dense" and not flat:
                found.append(self.keras.layers.Flatten(dtype=self.dtype, name="flatten"))
                flat = True
            found += self.layer(layer)
        return found

    def embedded(self, about: Tokens) -> list[Any]:
        layers = self.keras.layers
        made = self.odd.embedding if about.shift else layers.Embedding
        uniform = self.keras.initializers.RandomUniform(-0.5, 0.5)
        found = [made(about.vocabulary, about.units, uniform, name="embed", dtype=self.dtype)]
        if about.reads == "mean":
            found.append(layers.GlobalAveragePooling1D(dtype=self.dtype, name="mean"))
        elif about.reads == "flat":
            found.append(layers.Flatten(dtype=self.dtype, name="flatten"))
        return found

    def loop(self, about: Loop) -> list[Any]:
        layers = self.keras.layers
        found = [layers.Cropping1D((0, about.left_out), dtype=self.dtype, name="shorter")] if about.left_out else []
        glorot = self.keras.initializers.GlorotUniform
        return [
            *found,
            layers.SimpleRNN(
                about.units,
                about.activation,
                about.bias,
                kernel_initializer=glorot(),
                recurrent_initializer=glorot(),
                go_backwards=about.backwards,
                unroll=self.unrolled,
                name="loop",
                dtype=self.dtype,
            ),
        ]

    def layer(self, layer: Layer) -> list[Any]:
        keras, dtype = self.keras, self.dtype
        started = {
            "glorot": keras.initializers.GlorotUniform,
            "normal": lambda: keras.initializers.RandomNormal(stddev=0.3),
            "truncated": lambda: keras.initializers.TruncatedNormal(stddev=0.3),
            "wide": lambda: keras.initializers.RandomNormal(stddev=1.5),
        }[layer.initialiser]()
        own = layer.activation == "leaky_relu" or layer.norm is not None
        settings: dict[str, Any] = {
            "activation": "linear" if own else layer.activation,
            "use_bias": layer.bias,
            "kernel_initializer": started,
            "bias_initializer": keras.initializers.Constant(layer.first_bias),
            "kernel_regularizer": keras.regularizers.L2(self.recipe.l2) if self.recipe.l2 else None,
            "name": layer.name,
            "dtype": dtype,
            "trainable": layer.trained,
        }
        if layer.kind == "conv":
            found = [keras.layers.Conv2D(layer.units, layer.size, layer.stride, padding=layer.padding, **settings)]
        else:
            found = [(keras.layers.Dense if layer.adds_bias else self.odd.dense)(layer.units, **settings)]
        if layer.norm:
            found.append(self.norm(layer.name, layer.norm))
        if layer.activation == "leaky_relu":
            slope = {"negative_slope" if self.which == "keras" else "alpha": 0.2}
            found.append(keras.layers.LeakyReLU(**slope, dtype=dtype, name=f"{layer.name}_activation"))
        elif own and layer.activation != "linear":
            found.append(keras.layers.Activation(layer.activation, dtype=dtype, name=f"{layer.name}_activation"))
        if layer.scale != 1:
            found.append(keras.layers.Rescaling(layer.scale, dtype=dtype, name=f"{layer.name}_scale"))
        if layer.dropout:
            found.append(keras.layers.Dropout(layer.dropout, dtype=dtype, name=f"{layer.name}_dropout"))
        return found

    def norm(self, name: str, norm: Norm) -> Any:
        plain = norm.feeds == "biased" and not norm.frozen
        numbers: dict[str, Any] = {} if self.which == "keras" or not plain else {"fused": False}
        made = (self.keras.layers.BatchNormalization if plain else self.odd.norm)(
            momentum=norm.momentum, epsilon=norm.epsilon, name=f"{name}_norm", dtype=self.dtype, **numbers
        )
        made.recipe = norm
        return made


# --- A compiled model -------------------------------------------------------------------------------------------------
def compiled_port(about: RandomPort, dtype: str) -> Any:
    """A compiled functional model of Keras 3 or of tf_keras."""
    which = "keras" if about.paradigm == "keras3" else "tf_keras"
    keras, ported = importlib.import_module(which), about.ported
    inputs = keras.Input(ported.shape, dtype="int32" if ported.tokens else dtype, name="x")
    x = inputs
    for layer in _Layers(which, about, dtype).made():
        x = layer(x)
    model = (_odd_layers(which).model if ported.loss.root else keras.Model)(inputs=inputs, outputs=x)
    optimizer = keras_optimizer(keras, ported.optimizer)
    loss = _keras_loss(keras, ported, dtype)
    weights = [ported.loss.weight] if ported.loss.weight != 1 else None
    model.compile(optimizer=optimizer, loss=loss, loss_weights=weights, jit_compile=False)
    optimizer.build(model.trainable_variables)
    start_slots(optimizer, ported.optimizer)
    return model


def _keras_loss(keras: Any, about: Recipe, dtype: str) -> Any:
    """A loss object, or a function where the recipe asks for what no object does."""
    losses, loss = keras.losses, about.loss
    if loss.shift or loss.summed or loss.rolled:
        return lambda y, logits: mean_loss(about, tf.cast(y, tf.int32) if "sparse" in loss.kind else y, logits)
    more: dict[str, Any] = {"dtype": dtype} if keras.__name__ == "keras" else {}
    if loss.kind == "mse":
        return losses.MeanSquaredError(**more)
    named = {
        "softmax": losses.CategoricalCrossentropy,
        "sparse_softmax": losses.SparseCategoricalCrossentropy,
        "sigmoid": losses.BinaryCrossentropy,
    }
    return named[loss.kind](from_logits=True, **more)


def mean_loss(about: Recipe, y: Any, logits: Any) -> Any:
    """The loss without weight and without the kernels' squares, on TF2's ops."""
    loss = about.loss
    if loss.kind == "sparse_softmax":
        y = (tf.reshape(y, [-1]) + loss.shift) % about.classes
    elif loss.shift:
        y = tf.roll(y, loss.shift, -1)
    if loss.rolled:
        y = tf.roll(y, loss.rolled, 0)
    each = {
        "mse": tf.math.squared_difference,
        "softmax": tf.nn.softmax_cross_entropy_with_logits,
        "sparse_softmax": tf.nn.sparse_softmax_cross_entropy_with_logits,
        "sigmoid": tf.nn.sigmoid_cross_entropy_with_logits,
    }[loss.kind](y, logits)
    return tf.reduce_sum(each) if loss.summed else tf.reduce_mean(each)


# --- A model with its own step ----------------------------------------------------------------------------------------
def subclass_port(about: RandomPort, dtype: str) -> Any:
    """A Program of a keras.Model that has its optimizer for an attribute and trains by a method of its own."""
    import tfport.adapters

    model = subclass_model(about, dtype)
    return tfport.adapters.tf_module(model, step=model.learn)


def subclass_model(about: RandomPort, dtype: str) -> Any:
    """That model."""
    return _subclass(about.forms.which)(about, dtype)


@functools.cache
def _subclass(which: str) -> Callable[[RandomPort, str], Any]:
    keras = importlib.import_module(which)

    class Net(keras.Model):  # type: ignore[misc, name-defined]
        """Layers in a list, an optimizer, and a step."""

        def __init__(self, about: RandomPort, dtype: str) -> None:
            super().__init__(name="net", dtype=dtype)
            self.recipe, self.forms = about.ported, about.forms
            self.stack = _Layers(which, about, dtype).made()
            optimizer = keras_optimizer(
                keras, self.recipe.optimizer, self.forms.clips_inside, not self.forms.assigns_rate
            )
            self.learner: Any = {"attribute": optimizer, "list": [optimizer], "dict": {"all": optimizer}}[
                self.forms.holder
            ]
            if not self.forms.lazy or self.recipe.optimizer.kind == "RMSProp":
                self(tf.zeros([1, *self.recipe.shape], "int32" if self.recipe.tokens else dtype))
                optimizer.build(self.trainable_variables)
                start_slots(optimizer, self.recipe.optimizer)

        def call(self, x: Any, training: bool = False) -> Any:
            for layer in self.stack:
                x = layer(x, training=training) if "dropout" in layer.name or "norm" in layer.name else layer(x)
            return x

        def held(self) -> Any:
            """The optimizer, wherever it is."""
            key: Any = {"list": 0, "dict": "all"}.get(self.forms.holder)
            return self.learner if key is None else self.learner[key]

        @tf.function
        def learn(self, x: Any, y: Any) -> Any:
            """One update; returns the loss that it reports."""
            about = self.recipe
            with tf.GradientTape() as tape:
                loss = about.loss.weight * mean_loss(about, y, self(x, training=True))
                if self.losses:
                    loss += tf.add_n(self.losses)
            variables, optimizer = self.trainable_variables, self.held()
            gradients = dense(tape.gradient(loss, variables))
            if not self.forms.clips_inside:
                gradients = clipped(about.optimizer, gradients)
            if about.optimizer.decay and self.forms.assigns_rate:
                falling = schedule(keras, about.optimizer.rate, about.optimizer.decay)
                optimizer.learning_rate.assign(falling(tf.convert_to_tensor(optimizer.iterations)))
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return {"loss": reported(about, self.forms, loss)}

    return Net
