"""One encoder block of a translation model: masks of -1e9, layer norm by hand, label smoothing, a Noam schedule."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


class hp:
    vocab, d_model, d_ff, num_heads, maxlen, warmup_steps, lr = 11, 8, 16, 2, 6, 3.0, 0.05


def ln(inputs, epsilon=1e-8, scope="ln"):
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
        params_shape = inputs.get_shape()[-1:]
        mean, variance = tf.nn.moments(inputs, [-1], keep_dims=True)
        beta = tf.get_variable("beta", params_shape, initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", params_shape, initializer=tf.ones_initializer())
        normalized = (inputs - mean) / ((variance + epsilon) ** 0.5)
        return gamma * normalized + beta


def dense(x, n, scope, activation=None):
    with tf.variable_scope(scope):
        W = tf.get_variable("kernel", [x.get_shape().as_list()[-1], n])
        b = tf.get_variable("bias", [n], initializer=tf.zeros_initializer())
        y = tf.tensordot(x, W, [[2], [0]]) + b
        y.set_shape([None, x.get_shape().as_list()[1], n])
        return activation(y) if activation else y


def mask(inputs, key_masks):
    padding_num = -(2**32) + 1
    key_masks = tf.to_float(key_masks)
    key_masks = tf.tile(key_masks, [tf.shape(inputs)[0] // tf.shape(key_masks)[0], 1])
    key_masks = tf.expand_dims(key_masks, 1)  # (h*N, 1, seqlen)
    return inputs + key_masks * padding_num


def multihead_attention(queries, keys, key_masks, scope="multihead_attention"):
    with tf.variable_scope(scope):
        Q = dense(queries, hp.d_model, "q")
        K = dense(keys, hp.d_model, "k")
        V = dense(keys, hp.d_model, "v")
        Q_ = tf.concat(tf.split(Q, hp.num_heads, axis=2), axis=0)  # (h*N, T_q, d_model/h)
        K_ = tf.concat(tf.split(K, hp.num_heads, axis=2), axis=0)
        V_ = tf.concat(tf.split(V, hp.num_heads, axis=2), axis=0)
        d_k = Q_.get_shape().as_list()[-1]
        outputs = tf.matmul(Q_, tf.transpose(K_, [0, 2, 1]))
        outputs /= d_k**0.5
        outputs = tf.nn.softmax(mask(outputs, key_masks))
        outputs = tf.concat(tf.split(tf.matmul(outputs, V_), hp.num_heads, axis=0), axis=2)
        return ln(outputs + queries)


def ff(inputs, scope="positionwise_feedforward"):
    with tf.variable_scope(scope):
        outputs = dense(inputs, hp.d_ff, "1", tf.nn.relu)
        outputs = dense(outputs, hp.d_model, "2")
        return ln(outputs + inputs)


def positional_encoding(inputs):
    position_enc = np.array(
        [[pos / np.power(10000, (i - i % 2) / hp.d_model) for i in range(hp.d_model)] for pos in range(hp.maxlen)]
    )
    position_enc[:, 0::2] = np.sin(position_enc[:, 0::2])
    position_enc[:, 1::2] = np.cos(position_enc[:, 1::2])
    return inputs + tf.convert_to_tensor(position_enc, tf.float32)


def label_smoothing(inputs, epsilon=0.1):
    V = inputs.get_shape().as_list()[-1]
    return ((1 - epsilon) * inputs) + (epsilon / V)


def noam_scheme(init_lr, global_step, warmup_steps=hp.warmup_steps):
    step = tf.cast(global_step + 1, dtype=tf.float32)
    return init_lr * warmup_steps**0.5 * tf.minimum(step * warmup_steps**-1.5, step**-0.5)


def build():
    x = tf.placeholder(tf.int32, [None, hp.maxlen], name="x")
    y = tf.placeholder(tf.int32, [None, hp.maxlen], name="y")
    with tf.variable_scope("encoder"):
        src_masks = tf.equal(x, 0)
        embeddings = tf.get_variable("embeddings", [hp.vocab, hp.d_model])
        enc = tf.nn.embedding_lookup(embeddings, x) * hp.d_model**0.5
        enc = positional_encoding(enc)
        enc = ff(multihead_attention(enc, enc, src_masks))
        logits = tf.einsum("ntd,dk->ntk", enc, tf.transpose(embeddings))
    y_ = label_smoothing(tf.one_hot(y, depth=hp.vocab))
    ce = tf.nn.softmax_cross_entropy_with_logits_v2(logits=logits, labels=y_)
    nonpadding = tf.to_float(tf.not_equal(y, 0))
    loss = tf.reduce_sum(ce * nonpadding) / (tf.reduce_sum(nonpadding) + 1e-7)
    global_step = tf.train.get_or_create_global_step()
    lr = noam_scheme(hp.lr, global_step)
    train_op = tf.train.AdamOptimizer(lr).minimize(loss, global_step=global_step)
    return logits, loss, train_op


def next_batch(step):
    rng = np.random.RandomState(step)
    words = rng.randint(1, hp.vocab, size=[4, hp.maxlen]) * (np.arange(hp.maxlen) < rng.randint(3, 7, size=[4, 1]))
    return {"x": words.astype("int32"), "y": words[:, ::-1].astype("int32")}


# tfport >
def graph():
    logits, loss, train_op = build()
    return {"outputs": {"logits": logits}, "loss": loss, "train_op": train_op}


# < tfport
