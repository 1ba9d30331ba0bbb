"""Gradient accumulation over micro-batches: accumulator variables, zero ops, accumulate ops, one apply op."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

MICRO_BATCHES = 3
n_in, n_hidden, n_out = 5, 8, 1


def multilayer_perceptron(x, weights, biases):
    layer_1 = tf.nn.relu(tf.add(tf.matmul(x, weights["h1"]), biases["b1"]))
    return tf.add(tf.matmul(layer_1, weights["out"]), biases["out"])


def make():
    x = tf.placeholder("float", [None, n_in], name="x")
    y = tf.placeholder("float", [None, n_out], name="y")
    weights = {
        "h1": tf.Variable(tf.random_normal([n_in, n_hidden], stddev=0.5), name="h1"),
        "out": tf.Variable(tf.random_normal([n_hidden, n_out], stddev=0.5), name="out"),
    }
    biases = {
        "b1": tf.Variable(tf.random_normal([n_hidden], stddev=0.5), name="b1"),
        "out": tf.Variable(tf.random_normal([n_out], stddev=0.5), name="bout"),
    }
    pred = multilayer_perceptron(x, weights, biases)
    cost = tf.reduce_mean(tf.square(pred - y))
    opt = tf.train.MomentumOptimizer(0.05, 0.9, use_nesterov=True)

    tvs = tf.trainable_variables()
    accum_vars = [tf.Variable(tf.zeros_like(tv.initialized_value()), trainable=False, name="acc") for tv in tvs]
    zero_ops = [tv.assign(tf.zeros_like(tv)) for tv in accum_vars]
    gvs = opt.compute_gradients(cost, tvs)
    accum_ops = [accum_vars[i].assign_add(gv[0]) for i, gv in enumerate(gvs)]
    train_step = opt.apply_gradients([(accum_vars[i] / MICRO_BATCHES, gv[1]) for i, gv in enumerate(gvs)])
    return x, y, pred, cost, zero_ops, accum_ops, train_step


def next_batch(step):
    rng = np.random.RandomState(step)
    x = rng.normal(size=[4, n_in]).astype("float32")
    return {"x": x, "y": np.sin(x.sum(axis=1, keepdims=True))}


def train(sess, x, y, zero_ops, accum_ops, train_step):
    for update in range(100):
        sess.run(zero_ops)
        for i in range(MICRO_BATCHES):
            batch = next_batch(update * MICRO_BATCHES + i)
            sess.run(accum_ops, feed_dict={x: batch["x"], y: batch["y"]})
        sess.run(train_step)


# tfport >
def graph():
    x, y, pred, cost, zero_ops, accum_ops, train_step = make()
    return {
        "outputs": {"pred": pred},
        "losses": {"one": cost, "two": cost},
        "train_ops": {"zero": zero_ops, "one": accum_ops, "two": accum_ops, "apply": train_step},
    }


# < tfport
