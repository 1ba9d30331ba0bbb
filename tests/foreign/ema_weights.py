"""A metric net whose averages of weights are evaluated: ema.apply, a custom getter that reads ema.average, triplets."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


def embed(x, getter=None):
    with tf.variable_scope("embed", reuse=tf.AUTO_REUSE, custom_getter=getter):
        w1 = tf.get_variable("w1", [6, 8], initializer=tf.orthogonal_initializer())
        b1 = tf.get_variable("b1", [8], initializer=tf.zeros_initializer())
        w2 = tf.get_variable("w2", [8, 3], initializer=tf.orthogonal_initializer())
        h = tf.nn.softplus(tf.matmul(x, w1) + b1)
        return tf.nn.l2_normalize(tf.matmul(h, w2), 1, epsilon=1e-10)


def triplet_loss(anchor, positive, negative, alpha=0.3):
    pos_dist = tf.reduce_sum(tf.square(tf.subtract(anchor, positive)), 1)
    neg_dist = tf.reduce_sum(tf.square(tf.subtract(anchor, negative)), 1)
    basic_loss = tf.add(tf.subtract(pos_dist, neg_dist), alpha)
    return tf.reduce_mean(tf.maximum(basic_loss, 0.0), 0)


class Model:
    def __init__(self, decay=0.99):
        self.x = tf.placeholder(tf.float32, [None, 6], name="x")
        anchor, positive, negative = tf.unstack(tf.reshape(embed(self.x), [-1, 3, 3]), 3, 1)
        self.loss = triplet_loss(anchor, positive, negative)
        params = tf.trainable_variables("embed")
        minimize = tf.train.GradientDescentOptimizer(0.2).minimize(self.loss)
        ema = tf.train.ExponentialMovingAverage(decay=decay)
        with tf.control_dependencies([minimize]):
            self.train_op = ema.apply(params)

        def ema_getter(getter, name, *args, **kwargs):
            return ema.average(getter(name, *args, **kwargs))

        self.averaged = embed(self.x, ema_getter)


def next_batch(step):
    return {"x": np.random.RandomState(step).normal(size=[12, 6]).astype("float32")}


# tfport >
def graph():
    model = Model()
    return {"outputs": {"averaged": model.averaged}, "loss": model.loss, "train_op": model.train_op}


# < tfport
