"""A binarised net: sign in the forward pass, a hard-tanh gradient by tf.custom_gradient, weights clipped to [-1, 1]."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


@tf.custom_gradient
def binarize(x):
    def grad(dy):
        return tf.where(tf.less_equal(tf.abs(x), 1.0), dy, tf.zeros_like(dy))

    return tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x)), grad


def binary_dense(x, n_out, name):
    with tf.variable_scope(name):
        n_in = x.shape.as_list()[-1]
        W = tf.get_variable("W", [n_in, n_out], initializer=tf.random_uniform_initializer(-1.2, 1.2))
        scale = tf.get_variable("scale", [n_out], initializer=tf.ones_initializer())
        tf.add_to_collection("binary_weights", W)
        return tf.matmul(x, binarize(W)) * scale


def squared_hinge(y, t):
    return tf.reduce_mean(tf.square(tf.maximum(0.0, 1.0 - t * y)))


def net(x):
    h = binary_dense(x, 10, "layer1")
    h = binarize(h / 3.0)
    return binary_dense(h, 4, "layer2")


def build(lr=0.02):
    x = tf.placeholder(tf.float32, [None, 8], "x")
    t = tf.placeholder(tf.float32, [None, 4], "t")
    y = net(x)
    loss = squared_hinge(y, t)
    step = tf.train.AdamOptimizer(lr).minimize(loss)
    with tf.control_dependencies([step]):
        clips = [tf.assign(w, tf.clip_by_value(w, -1.0, 1.0)) for w in tf.get_collection("binary_weights")]
    return y, loss, tf.group(step, *clips)


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "x": np.sign(rng.normal(size=[8, 8])).astype("float32"),
        "t": (2 * np.eye(4)[rng.randint(4, size=8)] - 1).astype("float32"),
    }


# tfport >
def graph():
    y, loss, train_op = build()
    return {"outputs": {"y": y}, "loss": loss, "train_op": train_op}


# < tfport
