"""Ports with one mistake each, and the place that the report must name for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case

Factory = Callable[..., Any]


def _dense(dtype: str, name: str, x: Any, units: int) -> Any:
    """A TF1 dense layer."""
    shape = [int(x.shape[-1]), units]
    kernel = tf1.get_variable(f"{name}/kernel", shape, dtype, initializer=tf1.glorot_uniform_initializer())
    bias = tf1.get_variable(f"{name}/bias", [units], dtype, initializer=tf1.zeros_initializer())
    return tf1.matmul(x, kernel) + bias


def _trained(outputs: Any, loss: Any, **more: Any) -> dict[str, Any]:
    optimizer = tf1.train.GradientDescentOptimizer(0.1)
    return {"outputs": {"out": outputs}, "loss": loss, "train_op": optimizer.minimize(loss), **more}


def _compiled(layers: list[Any], loss: Any) -> Any:
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


# --- Integers ---------------------------------------------------------------------------------------------------------
def ids(dtype: str = "float32") -> dict[str, Any]:
    """A mean of embeddings, classified."""
    tokens = tf1.placeholder(tf1.int32, [None, 7], name="tokens")
    y = tf1.placeholder(tf1.int64, [None], name="y")
    table = tf1.get_variable("table", [14, 4], dtype, initializer=tf1.random_uniform_initializer(-0.05, 0.05))
    kernel = tf1.get_variable("kernel", [4, 3], dtype, initializer=tf1.glorot_uniform_initializer())
    logits = tf1.matmul(tf1.reduce_mean(tf1.nn.embedding_lookup(table, tokens), 1), kernel)
    loss = tf1.reduce_mean(tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
    return _trained(logits, loss)


class Ids(tf.Module):  # type: ignore[misc]
    """The same, with ids shifted and labels rolled."""

    def __init__(self, dtype: str, shift: int, roll: int) -> None:
        super().__init__()
        self.shift, self.roll = shift, roll
        self.table = tf.Variable(keras.initializers.RandomUniform(-0.05, 0.05)([14, 4], dtype=dtype), name="table")
        self.kernel = tf.Variable(keras.initializers.GlorotUniform()([4, 3], dtype=dtype), name="kernel")
        self.optimizer = keras.optimizers.SGD(0.1)
        self.optimizer.build([self.table, self.kernel])

    @tf.function
    def __call__(self, tokens: Any) -> Any:
        return tf.reduce_mean(tf.gather(self.table, tokens + self.shift), 1) @ self.kernel

    @tf.function
    def step(self, tokens: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            labels = tf.roll(y, self.roll, 0)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self(tokens)))
        variables = [self.table, self.kernel]
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss


def ids_port(shift: int, roll: int) -> Factory:
    def build(dtype: str = "float32") -> Any:
        module = Ids(dtype, shift, roll)
        return tfport.adapters.tf_module(module, step=module.step, forward=module)

    return build


def tokens(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    return {"tokens": generator.integers(0, 12, size=(8, 7)).astype("int32"), "y": generator.integers(3, size=8)}


# --- Layers -----------------------------------------------------------------------------------------------------------
def pictures(kind: str) -> Factory:
    """A convolution, something behind it, and a classifier."""

    def build(dtype: str = "float32") -> dict[str, Any]:
        images = tf1.placeholder(dtype, [None, 6, 6, 2], name="images")
        labels = tf1.placeholder(tf1.int64, [None], name="labels")
        kernel = tf1.get_variable("conv/kernel", [3, 3, 2, 4], dtype, initializer=tf1.glorot_uniform_initializer())
        if kind == "padded":
            sides = [[0, 0], [1, 1], [1, 1], [0, 0]]
            x = tf1.nn.relu(tf1.nn.conv2d(tf1.pad(images, sides), kernel, 2, "VALID"))
        else:
            x = tf1.nn.relu(tf1.nn.conv2d(images, kernel, 1, "SAME"))
        if kind == "channels first":
            x = tf1.transpose(x, [0, 3, 1, 2])
        elif kind == "resized":
            x = tf1.cast(tf1.image.resize_bilinear(x, [9, 9]), dtype)
        elif kind == "normalised":
            mean, variance = tf1.nn.moments(x, [1, 2, 3], keepdims=True)
            x = tf1.nn.batch_normalization(x, mean, variance, None, None, 1e-3)
        logits = _dense(dtype, "fc", tf1.reshape(x, [-1, int(np.prod(x.shape[1:]))]), 3)
        loss = tf1.reduce_mean(tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        return _trained(logits, loss)

    return build


def pictures_port(*behind: Factory, stride: int = 1) -> Factory:
    def build() -> Any:
        return _compiled(
            [
                keras.Input([6, 6, 2], name="images"),
                keras.layers.Conv2D(4, 3, stride, "same", use_bias=False, activation="relu", name="conv"),
                *(make() for make in behind),
                keras.layers.Flatten(name="flat"),
                keras.layers.Dense(3, name="fc"),
            ],
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    return build


def images(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    return {
        "images": generator.normal(size=(8, 6, 6, 2)).astype("float32"),
        "labels": generator.integers(3, size=8),
    }


# --- A number of the forward pass in float32, and a term that the loss lacks ------------------------------------------
def scaled() -> dict[str, Any]:
    """Drops a quarter, whose inverse float32 rounds, and has a penalty on its weights."""
    images = tf1.placeholder(tf1.float32, [None, 6, 6, 2], name="images")
    labels = tf1.placeholder(tf1.int64, [None], name="labels")
    x = tf1.nn.dropout(tf1.tanh(_dense("float32", "fc1", tf1.reshape(images, [-1, 72]), 8)), rate=0.25)
    logits = _dense("float32", "fc2", x, 3)
    loss = tf1.reduce_mean(tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    penalty = tf1.nn.l2_loss(tf1.global_variables()[0], name="penalty")
    return _trained(logits, loss + 0.01 * penalty)


def unpenalised() -> Any:
    return _compiled(
        [
            keras.Input([6, 6, 2], name="images"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(8, "tanh", name="fc1"),
            keras.layers.Dropout(0.25, name="dropped"),
            keras.layers.Dense(3, name="fc2"),
        ],
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


# --- Batch normalisation ----------------------------------------------------------------------------------------------
def normalised(dtype: str = "float32") -> dict[str, Any]:
    """A batch normalisation by hand, in a cond on whether it trains."""
    x = tf1.placeholder(dtype, [None, 5], name="x")
    y = tf1.placeholder(dtype, [None, 1], name="y")
    training = tf1.placeholder(tf1.bool, [], name="is_training")
    zeros, ones = tf1.zeros_initializer(), tf1.ones_initializer()
    gamma = tf1.get_variable("bn/gamma", [4], dtype, initializer=ones)
    beta = tf1.get_variable("bn/beta", [4], dtype, initializer=zeros)
    moving_mean = tf1.get_variable("bn/moving_mean", [4], dtype, initializer=zeros, trainable=False)
    moving_variance = tf1.get_variable("bn/moving_variance", [4], dtype, initializer=ones, trainable=False)
    h = _dense(dtype, "h", x, 4)
    batch = tf1.nn.moments(h, [0])
    updates = [
        tf1.assign(moving_mean, moving_mean * 0.99 + batch[0] * 0.01),
        tf1.assign(moving_variance, moving_variance * 0.99 + batch[1] * 0.01),
    ]
    before = tf1.control_flow_v2_enabled()
    tf1.disable_control_flow_v2()
    moving = (moving_mean + 0, moving_variance + 0)
    mean, variance = tf1.cond(training, lambda: batch, lambda: moving)
    if before:
        tf1.enable_control_flow_v2()
    h = tf1.tanh(tf1.nn.batch_normalization(h, mean, variance, beta, gamma, 1e-3))
    outputs = _dense(dtype, "o", h, 1)
    with tf1.control_dependencies(updates):
        found = _trained(outputs, tf1.reduce_mean(tf1.square(outputs - y)))
    return {**found, "training": {training: True}, "inference": {training: False}}


def penalised(dtype: str = "float32") -> dict[str, Any]:
    """A loss with a penalty on the weights."""
    x = tf1.placeholder(dtype, [None, 5], name="x")
    y = tf1.placeholder(dtype, [None, 1], name="y")
    outputs = _dense(dtype, "o", x, 1)
    penalty = tf1.add_n([tf1.nn.l2_loss(each) for each in tf1.trainable_variables()])
    return _trained(outputs, tf1.reduce_mean(tf1.square(outputs - y)) + 0.1 * penalty)


def unpenalised_port() -> Any:
    return _compiled([keras.Input([5], name="x"), keras.layers.Dense(1, name="o")], "mse")


def normalised_port() -> Any:
    """The moving statistics are used in training too."""
    layer = keras.layers.BatchNormalization(name="bn")
    layer.trainable = False
    return _compiled(
        [
            keras.Input([5], name="x"),
            keras.layers.Dense(4, name="h"),
            layer,
            keras.layers.Activation("tanh", name="tanh"),
            keras.layers.Dense(1, name="o"),
        ],
        "mse",
    )


def rows(step: int) -> dict[str, Any]:
    x = np.random.default_rng(step).normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": 3 * x[:, :1] - x[:, 1:2]}


# --- Weights of examples ----------------------------------------------------------------------------------------------
def weighted(dtype: str = "float32") -> dict[str, Any]:
    """A loss that divides by how many examples have a weight."""
    x = tf1.placeholder(dtype, [None, 5], name="x")
    y = tf1.placeholder(tf1.int64, [None], name="y")
    weights = tf1.placeholder(dtype, [None], name="sample_weight")
    logits = _dense(dtype, "fc", x, 3)
    return _trained(logits, tf1.losses.sparse_softmax_cross_entropy(y, logits, weights=weights))


def weighted_port() -> Any:
    return _compiled(
        [keras.Input([5], name="x"), keras.layers.Dense(3, name="fc")],
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def examples(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    weights = generator.uniform(0.5, 2, size=16).astype("float32")
    weights[generator.permutation(16)[:6]] = 0
    x = generator.normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": generator.integers(3, size=16), "sample_weight": weights}


CASES = [
    Case(
        "unpenalised",
        scaled,
        unpenalised,
        images,
        equal=False,
        rung="loss",
        says=(r"penalty",),
        never=(r"Location Step 0, phase train: what goes into [^ ]*dropped",),
        options={"rungs": ("loss",)},
    ),
    Case("ids", ids, ids_port(0, 0), tokens, equal=True),
    Case(
        "shifted",
        ids,
        ids_port(1, 0),
        tokens,
        equal=False,
        rung="forward",
        says=(r"add \(AddV2, term 1, places.py:\d+\) is only in the port", r"Gather \(ResourceGather reading table"),
        never=(r"Gather[^.]*agrees",),
    ),
    Case(
        "rolled",
        ids,
        ids_port(0, 1),
        tokens,
        equal=False,
        rung="loss",
        says=(r"Roll \(Roll, .* is only in the port", r"goes into SparseSoftmax\S+ .* differs by that"),
        never=(r"SparseSoftmax[^.]*agrees",),
    ),
    Case(
        "padding",
        pictures("padded"),
        pictures_port(stride=2),
        images,
        equal=False,
        rung="forward",
        says=(r"padding is VALID in the original and SAME in the port", r"Only in the original before it: Pad \(Pad"),
    ),
    Case(
        "channels first",
        pictures("channels first"),
        pictures_port(),
        images,
        equal=True,
        says=(
            r"seen as \(4, 6, 6, 3\); transposed \(1, 2, 0, 3\); reshaped",
            r"holds fc/kernel in another layout: a checkpoint must be converted by this mapping",
        ),
    ),
    Case(
        "resized",
        pictures("resized"),
        pictures_port(lambda: keras.layers.Resizing(9, 9, interpolation="bilinear", name="resize")),
        images,
        equal=False,
        rung="forward",
        says=(r"half_pixel_centers is False in the original and True in the port",),
    ),
    Case(
        "axes",
        pictures("normalised"),
        pictures_port(lambda: keras.layers.LayerNormalization(center=False, scale=False, name="ln")),
        images,
        equal=False,
        rung="forward",
        says=(r"reduction_indices is \[1, 2, 3\] in the original and \[-1\] in the port",),
    ),
    Case(
        "moving statistics",
        normalised,
        normalised_port,
        rows,
        equal=False,
        says=(
            r"batchnorm/mul \(Mul reading bn/gamma, places.py:\d+\)",
            r"in the original and from bn/moving_variance in the port",
        ),
        never=(r"(y|term) is 0 in the original",),
    ),
    Case(
        "penalty",
        penalised,
        unpenalised_port,
        rows,
        equal=False,
        rung="loss",
        says=(r"L2Loss \(L2Loss reading o/kernel, places.py:\d+\), L2Loss_1 .* are only in the original",),
    ),
    Case(
        "weights",
        weighted,
        weighted_port,
        examples,
        equal=False,
        rung="loss",
        says=(r"Only in the original is it computed directly from sample_weight",),
        never=(r"DivNoNan[^.]*agrees",),
    ),
]
