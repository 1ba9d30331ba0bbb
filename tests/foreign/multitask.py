"""Two tasks on a shared trunk, each trained by its own optimizer in turn."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

flags = {"hidden": 10, "lr_cls": 0.01, "lr_reg": 0.05, "momentum": 0.9}


def weight_variable(shape, name):
    initial = tf.truncated_normal(shape, stddev=0.1)
    return tf.Variable(initial, name=name)


def bias_variable(shape, name):
    return tf.Variable(tf.constant(0.1, shape=shape), name=name)


def build_graph():
    x = tf.placeholder(tf.float32, [None, 6], name="x")
    y_cls = tf.placeholder(tf.float32, [None, 3], name="y_cls")
    y_reg = tf.placeholder(tf.float32, [None, 1], name="y_reg")

    with tf.name_scope("shared"):
        W = weight_variable([6, flags["hidden"]], "W")
        b = bias_variable([flags["hidden"]], "b")
        shared = tf.nn.elu(tf.matmul(x, W) + b)
    with tf.name_scope("cls"):
        W_cls = weight_variable([flags["hidden"], 3], "W")
        b_cls = bias_variable([3], "b")
        y1 = tf.nn.softmax(tf.matmul(shared, W_cls) + b_cls)
        loss_cls = -tf.reduce_mean(tf.reduce_sum(y_cls * tf.log(tf.clip_by_value(y1, 1e-10, 1.0)), axis=1))
    with tf.name_scope("reg"):
        W_reg = weight_variable([flags["hidden"], 1], "W")
        b_reg = bias_variable([1], "b")
        y2 = tf.matmul(shared, W_reg) + b_reg
        loss_reg = tf.nn.l2_loss(y2 - y_reg)

    train_cls = tf.train.AdamOptimizer(flags["lr_cls"]).minimize(loss_cls)
    train_reg = tf.train.MomentumOptimizer(flags["lr_reg"], flags["momentum"]).minimize(loss_reg)
    return {"probs": y1, "value": y2}, loss_cls, loss_reg, train_cls, train_reg


def next_batch(step):
    rng = np.random.RandomState(step)
    x = rng.normal(size=[8, 6]).astype("float32")
    return {
        "x": x,
        "y_cls": np.eye(3, dtype="float32")[rng.randint(3, size=8)],
        "y_reg": 0.1 * np.sum(x, axis=1, keepdims=True),
    }


# tfport >
def graph():
    outputs, loss_cls, loss_reg, train_cls, train_reg = build_graph()
    losses = {"cls": loss_cls, "reg": loss_reg}
    return {"outputs": outputs, "losses": losses, "train_ops": {"cls": train_cls, "reg": train_reg}}


# < tfport
