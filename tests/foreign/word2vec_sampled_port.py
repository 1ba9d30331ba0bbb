"""CBOW with a sampled softmax in TensorFlow 2."""

import keras
import tensorflow as tf


class Cbow(tf.Module):
    def __init__(self, start):
        super().__init__(name="cbow")
        self.vectors = tf.Variable(tf.random.uniform([30, 6], -1.0, 1.0), name="vectors")
        self.kernel = tf.Variable(tf.random.truncated_normal([30, 6], stddev=6**-0.5), name="kernel")
        self.bias = tf.Variable(tf.zeros([30]), name="bias")
        self.optimizer = keras.optimizers.Adagrad(1.0, initial_accumulator_value=start, epsilon=0.0)
        self.optimizer.build(self.trainable_variables)

    @tf.function
    def forward(self, dataset):
        normalized = self.vectors / tf.norm(self.vectors, axis=1, keepdims=True)
        return {"avg": tf.reduce_mean(tf.gather(self.vectors, dataset), axis=1), "normalized": normalized}

    @tf.function
    def train_step(self, dataset, labels):
        with tf.GradientTape() as tape:
            mean = tf.reduce_mean(tf.gather(self.vectors, dataset), axis=1)
            losses = tf.nn.sampled_softmax_loss(self.kernel, self.bias, labels, mean, 5, 30)
            loss = tf.reduce_mean(losses)
        variables = self.trainable_variables
        gradients = [tf.convert_to_tensor(each) for each in tape.gradient(loss, variables)]
        self.optimizer.apply(gradients, variables)
        return loss


def program(start):
    model = Cbow(start)
    # tfport >
    return {"module": model, "step": model.train_step, "outputs": model.forward}
    # < tfport


def right():
    return program(0.1)


def wrong():
    return program(1.0)
