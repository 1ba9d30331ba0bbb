"""DDPG with soft target updates: scopes, collections by scope name, -dQ/da by tf.gradients with grad_ys."""

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

S_DIM, A_DIM, A_BOUND = 3, 1, 2.0
LR_A, LR_C, GAMMA, TAU = 0.001, 0.002, 0.9, 0.01


class DDPG:
    def __init__(self):
        self.S = tf.placeholder(tf.float32, [None, S_DIM], "s")
        self.S_ = tf.placeholder(tf.float32, [None, S_DIM], "s_")
        self.R = tf.placeholder(tf.float32, [None, 1], "r")
        with tf.variable_scope("Actor"):
            self.a = self._build_a(self.S, scope="eval", trainable=True)
            a_ = self._build_a(self.S_, scope="target", trainable=False)
        with tf.variable_scope("Critic"):
            # assign self.a = a in memory when calculating q for td_error
            self.q = self._build_c(self.S, self.a, scope="eval", trainable=True)
            q_ = self._build_c(self.S_, a_, scope="target", trainable=False)

        self.ae_params = tf.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, scope="Actor/eval")
        self.at_params = tf.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, scope="Actor/target")
        self.ce_params = tf.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, scope="Critic/eval")
        self.ct_params = tf.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, scope="Critic/target")
        self.soft_replace = [
            tf.assign(t, (1 - TAU) * t + TAU * e)
            for t, e in zip(self.at_params + self.ct_params, self.ae_params + self.ce_params)
        ]
        q_target = self.R + GAMMA * q_
        self.td_error = tf.losses.mean_squared_error(labels=q_target, predictions=self.q)
        self.ctrain = tf.train.AdamOptimizer(LR_C).minimize(self.td_error, var_list=self.ce_params)
        self.a_loss = -tf.reduce_mean(self.q)  # maximize the q
        self.atrain = tf.train.AdamOptimizer(LR_A).minimize(self.a_loss, var_list=self.ae_params)

    def _dense(self, x, units, name, trainable, activation=None):
        with tf.variable_scope(name):
            n_in = int(x.get_shape()[-1])
            w = tf.get_variable("kernel", [n_in, units], trainable=trainable)
            b = tf.get_variable("bias", [units], initializer=tf.zeros_initializer(), trainable=trainable)
            y = tf.matmul(x, w) + b
            return activation(y) if activation is not None else y

    def _build_a(self, s, scope, trainable):
        with tf.variable_scope(scope):
            net = self._dense(s, 8, "l1", trainable, tf.nn.relu)
            a = self._dense(net, A_DIM, "a", trainable, tf.nn.tanh)
            return tf.multiply(a, A_BOUND, name="scaled_a")

    def _build_c(self, s, a, scope, trainable):
        with tf.variable_scope(scope):
            n_l1 = 8
            w1_s = tf.get_variable("w1_s", [S_DIM, n_l1], trainable=trainable)
            w1_a = tf.get_variable("w1_a", [A_DIM, n_l1], trainable=trainable)
            b1 = tf.get_variable("b1", [1, n_l1], trainable=trainable)
            net = tf.nn.relu(tf.matmul(s, w1_s) + tf.matmul(a, w1_a) + b1)
            return self._dense(net, 1, "q", trainable)


def next_batch(step):
    rng = np.random.RandomState(step)
    return {
        "s": rng.normal(size=[8, S_DIM]).astype("float32"),
        "s_": rng.normal(size=[8, S_DIM]).astype("float32"),
        "r": rng.normal(size=[8, 1]).astype("float32"),
    }


# tfport >
def graph():
    agent = DDPG()
    return {
        "outputs": {"a": agent.a, "q": agent.q},
        "losses": {"actor": agent.a_loss, "critic": agent.td_error},
        "train_ops": {"soft": tf.group(*agent.soft_replace), "actor": agent.atrain, "critic": agent.ctrain},
    }


# < tfport
