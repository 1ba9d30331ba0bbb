"""The example net as a tf.Module with channels last."""

import keras
import tensorflow as tf


class Net(tf.Module):
    def __init__(self, slope, dtype):
        super().__init__(name="net")

        def uniform(shape, fan_in, name):
            bound = fan_in**-0.5
            return tf.Variable(tf.random.uniform(shape, -bound, bound, dtype=dtype), name=name)

        self.slope = slope
        self.conv1, self.bias1 = uniform([3, 3, 1, 3], 9, "conv1"), uniform([3], 9, "bias1")
        self.gamma, self.beta = (
            tf.Variable(tf.ones([3], dtype), name="gamma"),
            tf.Variable(tf.zeros([3], dtype), name="beta"),
        )
        self.mean = tf.Variable(tf.zeros([3], dtype), trainable=False, name="mean")
        self.variance = tf.Variable(tf.ones([3], dtype), trainable=False, name="variance")
        self.conv2, self.bias2 = uniform([3, 3, 3, 4], 27, "conv2"), uniform([4], 27, "bias2")
        self.fc1, self.fc1_bias = uniform([36, 8], 36, "fc1"), uniform([8], 36, "fc1_bias")
        self.fc2, self.fc2_bias = uniform([8, 5], 8, "fc2"), uniform([5], 8, "fc2_bias")
        self.weights = [v for v in self.variables if v.trainable]
        rate = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.7, staircase=True)
        self.optimizer = keras.optimizers.SGD(rate, weight_decay=1e-2)
        self.optimizer.build(self.weights)

    def __call__(self, data, training=False):
        x = tf.transpose(data, [0, 2, 3, 1])
        x = tf.nn.conv2d(x, self.conv1, 1, "VALID") + self.bias1
        if training:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            count = tf.cast(tf.size(x) // 3, x.dtype)
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
            self.variance.assign(0.9 * self.variance + 0.1 * variance * count / (count - 1))
        else:
            mean, variance = self.mean, self.variance
        x = tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, 1e-5)
        x = tf.nn.leaky_relu(x, self.slope)
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.relu(tf.nn.conv2d(x, self.conv2, 2, "VALID") + self.bias2)
        x = tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, 36])  # PyTorch flattens channels first
        x = tf.nn.relu(x @ self.fc1 + self.fc1_bias)
        return tf.nn.log_softmax(x @ self.fc2 + self.fc2_bias)

    @tf.function
    def train_step(self, data, target):
        with tf.GradientTape() as tape:
            scores = self(data, training=True)
            loss = -tf.reduce_mean(tf.gather(scores, target, batch_dims=1))
        gradients = tape.gradient(loss, self.weights)
        norm = tf.linalg.global_norm(gradients)
        scale = tf.minimum(tf.cast(1.0, norm.dtype), 1.0 / (norm + 1e-6))
        self.optimizer.apply([gradient * scale for gradient in gradients], self.weights)
        return loss


def program(slope, dtype):
    net = Net(slope, dtype)
    # tfport >
    return {"module": net, "step": net.train_step, "outputs": lambda data, training: {"output": net(data, training)}}
    # < tfport


def right(dtype="float32"):
    return program(0.01, dtype)


def wrong(dtype="float32"):
    return program(0.2, dtype)
