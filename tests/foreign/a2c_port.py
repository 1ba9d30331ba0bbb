"""Advantage actor-critic in Keras 3: a functional net, and a subclass whose train_step has the losses."""

import keras
import tensorflow as tf


def network():
    ob = keras.Input([5], name="Ob")
    ortho = keras.initializers.Orthogonal
    x = keras.layers.Dense(8, "tanh", kernel_initializer=ortho(2**0.5), name="fc1")(ob)
    x = keras.layers.Dense(8, "tanh", kernel_initializer=ortho(2**0.5), name="fc2")(x)
    pi = keras.layers.Dense(3, kernel_initializer=ortho(0.01), name="pi")(x)
    v = keras.layers.Dense(1, kernel_initializer=ortho(1.0), name="v")(x)
    return keras.Model(ob, {"pi": pi, "v": v})


class Learner:
    def __init__(self, value_weight):
        self.net = network()
        self.value_weight = value_weight
        self.optimizer = keras.optimizers.RMSprop(7e-3, rho=0.99, epsilon=1e-5)
        self.optimizer.build(self.net.trainable_variables)
        for slot in self.optimizer.variables[2:]:  # TF1's mean squares begin at one
            slot.assign(tf.ones_like(slot))

    @tf.function
    def train(self, Ob, A, ADV, R):
        with tf.GradientTape() as tape:
            out = self.net(Ob, training=True)
            logits, value = out["pi"], tf.squeeze(out["v"], axis=1)
            policy = tf.reduce_mean(ADV * tf.nn.sparse_softmax_cross_entropy_with_logits(A, logits))
            log_p = tf.nn.log_softmax(logits)
            entropy = -tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * log_p, axis=1))
            value_loss = 0.5 * tf.reduce_mean((value - R) ** 2)
            loss = policy - 0.01 * entropy + self.value_weight * value_loss
        weights = self.net.trainable_variables
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, weights), 0.5)
        self.optimizer.apply(gradients, weights)
        return loss


def program(value_weight):
    learner = Learner(value_weight)
    # tfport >
    return {"module": learner, "step": learner.train, "outputs": lambda Ob: learner.net(Ob)}
    # < tfport


def right():
    return program(0.5)


def wrong():
    return program(1.0)
