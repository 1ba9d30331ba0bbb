"""A small convnet with batch normalisation: a TF1 graph with hand-written moving averages, and its port to a tf.Module.

The moving averages are ops in UPDATE_OPS that the train op waits for, with momentum 0.9, epsilon 1e-3 and the biased
variance. A port has to keep all four, and to use them: in training mode the batch's own moments, in inference mode the
averages.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

from pairs_common import Broken

SIZE, CLASSES = 8, 4
BATCH = 8


# --- The original -----------------------------------------------------------------------------------------------------
def conv2d(x: Any, filters: int, stride: int, name: str) -> Any:
    shape = [3, 3, x.shape[-1], filters]
    draw = tf1.truncated_normal_initializer(stddev=0.2)
    kernel = tf1.get_variable(f"{name}/weights", shape, x.dtype, initializer=draw)
    return tf1.nn.conv2d(x, kernel, strides=[1, stride, stride, 1], padding="SAME")


def batch_norm(x: Any, is_training: Any, name: str, momentum: float = 0.9, epsilon: float = 1e-3) -> Any:
    shape = [x.shape[-1]]
    with tf1.variable_scope(name):
        gamma = tf1.get_variable("gamma", shape, x.dtype, initializer=tf1.ones_initializer())
        beta = tf1.get_variable("beta", shape, x.dtype, initializer=tf1.zeros_initializer())
        moving_mean = tf1.get_variable(
            "moving_mean", shape, x.dtype, initializer=tf1.zeros_initializer(), trainable=False
        )
        moving_variance = tf1.get_variable(
            "moving_variance", shape, x.dtype, initializer=tf1.ones_initializer(), trainable=False
        )
        mean, variance = tf1.nn.moments(x, [0, 1, 2])
        for moving, batch in ((moving_mean, mean), (moving_variance, variance)):
            update = tf1.assign(moving, moving * momentum + batch * (1 - momentum))
            tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, update)
        mean, variance = tf1.cond(is_training, lambda: (mean, variance), lambda: (moving_mean + 0, moving_variance + 0))
        return tf1.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)


def legacy(dtype: str = "float32") -> dict[str, Any]:
    images = tf1.placeholder(dtype, [None, SIZE, SIZE, 1], name="images")
    labels = tf1.placeholder(tf1.int32, [None], name="labels")
    is_training = tf1.placeholder_with_default(False, [], name="is_training")
    net = tf1.nn.relu(batch_norm(conv2d(images, 4, 1, "conv1"), is_training, "norm1"))
    net = tf1.nn.max_pool2d(net, 2, 2, "VALID")
    net = tf1.nn.relu(batch_norm(conv2d(net, 6, 2, "conv2"), is_training, "norm2"))
    net = tf1.reshape(net, [-1, 2 * 2 * 6])
    weights = tf1.get_variable("fc/weights", [24, CLASSES], dtype, initializer=tf1.glorot_uniform_initializer())
    biases = tf1.get_variable("fc/biases", [CLASSES], dtype, initializer=tf1.zeros_initializer())
    logits = tf1.add(tf1.matmul(net, weights), biases, name="logits")
    xent = tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    loss = tf1.reduce_mean(xent, name="loss")
    with tf1.control_dependencies(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)):
        train_op = tf1.train.MomentumOptimizer(0.05, 0.9).minimize(loss)
    return {
        "outputs": {"logits": logits},
        "loss": loss,
        "train_op": train_op,
        "training": {is_training: True},
        "inference": {is_training: False},
    }


# --- The port ---------------------------------------------------------------------------------------------------------
class Norm(tf.Module):  # type: ignore[misc]
    """Batch normalisation over all axes but the last."""

    def __init__(self, channels: int, dtype: str, *, momentum: float, epsilon: float, unbiased: bool, detached: bool):
        super().__init__(name="norm")
        self.gamma = tf.Variable(tf.ones([channels], dtype), name="gamma")
        self.beta = tf.Variable(tf.zeros([channels], dtype), name="beta")
        self.mean = tf.Variable(tf.zeros([channels], dtype), trainable=False, name="moving_mean")
        self.variance = tf.Variable(tf.ones([channels], dtype), trainable=False, name="moving_variance")
        self.momentum, self.epsilon = momentum, epsilon
        self.unbiased, self.detached = unbiased, detached

    def __call__(self, x: Any, training: bool, update: bool) -> Any:
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            if self.detached:
                mean, variance = tf.stop_gradient(mean), tf.stop_gradient(variance)
        if update:
            count = tf.cast(tf.size(x) / tf.size(self.gamma), x.dtype)
            seen = variance * count / (count - 1) if self.unbiased else variance
            self.mean.assign(self.mean * self.momentum + mean * (1 - self.momentum))
            self.variance.assign(self.variance * self.momentum + seen * (1 - self.momentum))
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, self.epsilon)


class Convnet(tf.Module):  # type: ignore[misc]
    """The network and its training step."""

    def __init__(
        self,
        dtype: str,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        unbiased: bool = False,
        detached: bool = False,
        updating: bool = True,
        always_batch: bool = False,
        symmetric: bool = False,
        reduce: Any = tf.reduce_mean,
        learning_rate: float = 0.05,
    ):
        super().__init__(name="convnet")
        self.conv1 = tf.Variable(tf.random.truncated_normal([3, 3, 1, 4], stddev=0.2, dtype=dtype), name="conv1_kernel")
        self.norm1 = Norm(4, dtype, momentum=momentum, epsilon=epsilon, unbiased=unbiased, detached=detached)
        self.conv2 = tf.Variable(tf.random.truncated_normal([3, 3, 4, 6], stddev=0.2, dtype=dtype), name="conv2_kernel")
        self.norm2 = Norm(6, dtype, momentum=momentum, epsilon=epsilon, unbiased=unbiased, detached=detached)
        self.kernel = tf.Variable(keras.initializers.GlorotUniform()([24, CLASSES], dtype), name="fc_kernel")
        self.bias = tf.Variable(tf.zeros([CLASSES], dtype), name="fc_bias")
        self.updating, self.always_batch = updating, always_batch
        self.symmetric, self.reduce = symmetric, reduce
        self.optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
        self.optimizer.build(list(self.trainable_variables))

    def logits(self, images: Any, training: bool, update: bool = False) -> Any:
        batch = training or self.always_batch
        x = tf.nn.conv2d(images, self.conv1, 1, "SAME")
        x = tf.nn.max_pool2d(tf.nn.relu(self.norm1(x, batch, update)), 2, 2, "VALID")
        if self.symmetric:
            x = tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), self.conv2, 2, "VALID")
        else:
            x = tf.nn.conv2d(x, self.conv2, 2, "SAME")
        x = tf.nn.relu(self.norm2(x, batch, update))
        return tf.reshape(x, [-1, 24]) @ self.kernel + self.bias

    @tf.function
    def forward(self, images: Any, training: bool) -> dict[str, Any]:
        return {"logits": self.logits(images, training)}

    @tf.function
    def train_step(self, images: Any, labels: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            logits = self.logits(images, training=True, update=self.updating)
            loss = self.reduce(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        variables = list(self.trainable_variables)
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def build(dtype: str, **options: Any) -> Any:
    net = Convnet(dtype, **options)
    return {"module": net, "step": net.train_step, "outputs": net.forward, "optimizer": net.optimizer}


def modern(dtype: str = "float32") -> Any:
    return build(dtype)


# --- Ports with one mistake -------------------------------------------------------------------------------------------
def keras_momentum(dtype: str = "float32") -> Any:
    return build(dtype, momentum=0.99)


def other_epsilon(dtype: str = "float32") -> Any:
    return build(dtype, epsilon=1e-5)


def unbiased(dtype: str = "float32") -> Any:
    return build(dtype, unbiased=True)


def never_updating(dtype: str = "float32") -> Any:
    return build(dtype, updating=False)


def always_batch(dtype: str = "float32") -> Any:
    return build(dtype, always_batch=True)


def detached(dtype: str = "float32") -> Any:
    return build(dtype, detached=True)


def symmetric_padding(dtype: str = "float32") -> Any:
    return build(dtype, symmetric=True)


def summed_loss(dtype: str = "float32") -> Any:
    return build(dtype, reduce=tf.reduce_sum)


def tenfold_rate(dtype: str = "float32") -> Any:
    return build(dtype, learning_rate=0.5)


BROKEN = (
    Broken(
        "keras_momentum",
        "the averages' momentum is Keras's 0.99, not 0.9",
        "update",
        "train",
        "norm1/moving_mean",
        slow=True,
    ),
    Broken(
        "other_epsilon",
        "the normalisations' epsilon is 1e-5, not 1e-3",
        "forward",
        None,
        "training/logits",
        node="Add",
        slow=True,
    ),
    Broken("unbiased", "the moving variance is fed the unbiased variance", "update", "train", "norm1/moving_variance"),
    Broken("never_updating", "nothing moves the averages", "update", "train", "norm1/moving_mean", slow=True),
    Broken(
        "always_batch", "the batch's own moments in inference mode too", "forward", None, "inference/logits", slow=True
    ),
    Broken("detached", "no gradient through the batch's moments", "gradient", "train", "conv1/weights"),
    Broken(
        "symmetric_padding",
        "a stride of two on symmetric padding, as PyTorch has it",
        "forward",
        None,
        "training/logits",
        node="Conv2D",
        beside="Conv2D",
        slow=True,
    ),
    Broken("summed_loss", "the sum over the batch, not the mean", "loss", "train", "train/", node="Sum", slow=True),
    Broken("tenfold_rate", "0.5 for 0.05", "update", "train", "conv1/weights", slow=True),
)


def batches(step: int) -> dict[str, Any]:
    draw = np.random.default_rng([17, step])
    images = draw.normal(size=(BATCH, SIZE, SIZE, 1)).astype(np.float32)
    return {"images": images, "labels": draw.integers(0, CLASSES, BATCH).astype(np.int32)}
