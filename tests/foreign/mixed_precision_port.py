"""Mixed precision in TensorFlow 2: float32 variables, a float16 product, a static loss scale."""

import keras
import tensorflow as tf


class Model(tf.Module):
    def __init__(self, unscale):
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([12, 5], stddev=0.3), name="kernel")
        self.bias = tf.Variable(tf.zeros([5]), name="bias")
        self.optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        self.optimizer.build([self.kernel, self.bias])
        self.unscale = unscale

    @tf.function
    def __call__(self, data):
        return tf.matmul(data, tf.cast(self.kernel, tf.float16)) + tf.cast(self.bias, tf.float16)

    @tf.function
    def train_step(self, data, target):
        with tf.GradientTape() as tape:
            logits = tf.cast(self(data), tf.float32)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
            scaled = loss * 128.0
        variables = [self.kernel, self.bias]
        gradients = tape.gradient(scaled, variables)
        if self.unscale:
            gradients = [gradient / 128.0 for gradient in gradients]
        self.optimizer.apply(gradients, variables)
        return loss


def program(unscale):
    model = Model(unscale)
    # tfport >
    return {"module": model, "step": model.train_step, "outputs": lambda data: {"logits": model(data)}}
    # < tfport


def right():
    return program(True)


def wrong():
    return program(False)
