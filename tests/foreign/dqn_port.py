"""Deep Q-learning in Keras 2 with a tape, and Keras 3's RMSprop, which has epsilon under the root as TF1 has."""

import keras
import tensorflow as tf
import tf_keras


class Bias(tf_keras.layers.Layer):
    """A bias of shape [1, n], as the original keeps it."""

    def build(self, shape):
        self.b = self.add_weight(name="b", shape=[1, shape[-1]], initializer=tf_keras.initializers.Constant(0.1))

    def call(self, x):
        return x + self.b


def q_network(name, actions=3, hidden=10):
    normal = tf_keras.initializers.RandomNormal(0.0, 0.3)
    return tf_keras.Sequential(
        [
            tf_keras.layers.InputLayer([4]),
            tf_keras.layers.Dense(hidden, use_bias=False, kernel_initializer=normal),
            Bias(),
            tf_keras.layers.ReLU(),
            tf_keras.layers.Dense(actions, use_bias=False, kernel_initializer=normal),
            Bias(),
        ],
        name=name,
    )


class Agent(tf.Module):
    def __init__(self, by_norm=True):
        super().__init__(name="agent")
        self.q = q_network("q")
        self.target = q_network("target")
        self.by_norm = by_norm
        self.optimizer = keras.optimizers.RMSprop(0.01, rho=0.95, epsilon=0.01)
        self.optimizer.build(self.q.trainable_variables)
        for slot in self.optimizer.variables[2:]:  # TF1's mean squares begin at one
            slot.assign(tf.ones_like(slot))

    @tf.function
    def replace(self):
        for target, source in zip(self.target.variables, self.q.variables, strict=True):
            target.assign(source)

    @tf.function
    def learn(self, s, a, r, s_, done):
        future = tf.reduce_max(self.target(s_), axis=1)
        wanted = r + 0.9 * (1.0 - done) * future
        with tf.GradientTape() as tape:
            values = tf.gather(self.q(s), a, batch_dims=1)
            loss = tf.reduce_mean(
                tf.where(tf.abs(wanted - values) < 1.0, 0.5 * (wanted - values) ** 2, tf.abs(wanted - values) - 0.5)
            )
        variables = self.q.trainable_variables
        gradients = tape.gradient(loss, variables)
        clip = tf.clip_by_norm if self.by_norm else lambda g, c: tf.clip_by_value(g, -c, c)
        self.optimizer.apply_gradients([(clip(g, 0.2), v) for g, v in zip(gradients, variables, strict=True)])
        return loss


def program(**options):
    agent = Agent(**options)
    # tfport >
    return {
        "module": agent,
        "phases": {"replace": lambda s: agent.replace(), "learn": agent.learn},
        "outputs": lambda s, s_: {"q": agent.q(s), "q_next": agent.target(s_)},
    }
    # < tfport


def right():
    return program()


def wrong():
    return program(by_norm=False)
