"""Advantage actor-critic after the baselines: one net with two heads, entropy bonus, global-norm clipping, RMSProp."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


def ortho_init(scale=1.0):
    def _ortho_init(shape, dtype, partition_info=None):
        shape = tuple(int(d) for d in shape)
        a = np.random.normal(0.0, 1.0, shape)
        u, _, v = np.linalg.svd(a, full_matrices=False)
        q = u if u.shape == shape else v
        return (scale * q[: shape[0], : shape[1]]).astype(np.float32)

    return _ortho_init


def fc(x, scope, nh, init_scale=1.0, init_bias=0.0):
    with tf.variable_scope(scope):
        nin = x.get_shape()[1].value if hasattr(x.get_shape()[1], "value") else x.get_shape()[1]
        w = tf.get_variable("w", [nin, nh], initializer=ortho_init(init_scale))
        b = tf.get_variable("b", [nh], initializer=tf.constant_initializer(init_bias))
        return tf.matmul(x, w) + b


def cat_entropy(logits):
    a0 = logits - tf.reduce_max(logits, 1, keepdims=True)
    ea0 = tf.exp(a0)
    z0 = tf.reduce_sum(ea0, 1, keepdims=True)
    p0 = ea0 / z0
    return tf.reduce_sum(p0 * (tf.log(z0) - a0), 1)


def mse(pred, target):
    return tf.square(pred - target) / 2.0


class Model:
    def __init__(
        self, nact=3, nobs=5, ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5, lr=7e-3, alpha=0.99, epsilon=1e-5
    ):
        self.X = tf.placeholder(tf.float32, [None, nobs], name="Ob")
        self.A = tf.placeholder(tf.int32, [None], name="A")
        self.ADV = tf.placeholder(tf.float32, [None], name="ADV")
        self.R = tf.placeholder(tf.float32, [None], name="R")
        with tf.variable_scope("model"):
            h1 = tf.tanh(fc(self.X, "fc1", nh=8, init_scale=np.sqrt(2)))
            h2 = tf.tanh(fc(h1, "fc2", nh=8, init_scale=np.sqrt(2)))
            self.pi = fc(h2, "pi", nact, init_scale=0.01)
            self.vf = fc(h2, "v", 1)

        neglogpac = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=self.pi, labels=self.A)
        self.pg_loss = tf.reduce_mean(self.ADV * neglogpac)
        self.vf_loss = tf.reduce_mean(mse(tf.squeeze(self.vf), self.R))
        self.entropy = tf.reduce_mean(cat_entropy(self.pi))
        self.loss = self.pg_loss - self.entropy * ent_coef + self.vf_loss * vf_coef

        with tf.variable_scope("model"):
            params = tf.trainable_variables()
        grads = tf.gradients(self.loss, params)
        if max_grad_norm is not None:
            grads, grad_norm = tf.clip_by_global_norm(grads, max_grad_norm)
        grads = list(zip(grads, params))
        trainer = tf.train.RMSPropOptimizer(learning_rate=lr, decay=alpha, epsilon=epsilon)
        self._train = trainer.apply_gradients(grads)


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "Ob": rng.normal(size=[6, 5]).astype("float32"),
        "A": rng.randint(3, size=[6]).astype("int32"),
        "ADV": (2 * rng.normal(size=[6])).astype("float32"),
        "R": (2 * rng.normal(size=[6])).astype("float32"),
    }


# tfport >
def graph():
    model = Model()
    return {"outputs": {"pi": model.pi, "v": model.vf}, "loss": model.loss, "train_op": model._train}


# < tfport
