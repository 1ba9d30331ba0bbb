"""Mixed precision by hand: a custom getter that keeps float32 masters, and a static loss scale."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

LOSS_SCALE = 128.0


def float32_variable_storage_getter(
    getter, name, shape=None, dtype=None, initializer=None, regularizer=None, trainable=True, *args, **kwargs
):
    """Custom variable getter that forces trainable variables to be stored in float32 precision."""
    storage_dtype = tf.float32 if trainable else dtype
    variable = getter(
        name,
        shape,
        dtype=storage_dtype,
        initializer=initializer,
        regularizer=regularizer,
        trainable=trainable,
        *args,
        **kwargs,
    )
    if trainable and dtype != tf.float32:
        variable = tf.cast(variable, dtype)
    return variable


def gradients_with_loss_scaling(loss, variables, loss_scale):
    return [grad / loss_scale for grad in tf.gradients(loss * loss_scale, variables)]


def create_simple_model(nbatch, nin, nout, dtype):
    data = tf.placeholder(dtype, shape=(nbatch, nin), name="data")
    weights = tf.get_variable("weights", (nin, nout), dtype, initializer=tf.random_normal_initializer(stddev=0.3))
    biases = tf.get_variable("biases", nout, dtype, initializer=tf.zeros_initializer())
    logits = tf.matmul(data, weights) + biases
    target = tf.placeholder(tf.float32, shape=(nbatch, nout), name="target")
    loss = tf.losses.softmax_cross_entropy(target, tf.cast(logits, tf.float32))
    return data, target, logits, loss


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "data": rng.normal(size=(8, 12)).astype("float16"),
        "target": np.eye(5, dtype="float32")[rng.randint(5, size=8)],
    }


# tfport >
def graph():
    with tf.variable_scope("fp32_storage", custom_getter=float32_variable_storage_getter, dtype=tf.float16):
        data, target, logits, loss = create_simple_model(8, 12, 5, tf.float16)
    variables = tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)
    grads = gradients_with_loss_scaling(loss, variables, LOSS_SCALE)
    train_op = tf.train.MomentumOptimizer(0.05, 0.9).apply_gradients(zip(grads, variables))
    return {"outputs": {"logits": logits}, "loss": loss, "train_op": train_op}


# < tfport
