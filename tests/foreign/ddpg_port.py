"""DDPG in Keras 3."""

import keras
import tensorflow as tf


def make_actor(name):
    s = keras.Input([3])
    x = keras.layers.Dense(8, "relu", name="l1")(s)
    x = keras.layers.Dense(1, "tanh", name="a")(x)
    return keras.Model(s, x * 2.0, name=name)


class Critic(keras.Model):
    def build(self, _):
        self.w1_s = self.add_weight(name="w1_s", shape=[3, 8], initializer="glorot_uniform")
        self.w1_a = self.add_weight(name="w1_a", shape=[1, 8], initializer="glorot_uniform")
        self.b1 = self.add_weight(name="b1", shape=[1, 8], initializer="glorot_uniform")
        self.head = keras.layers.Dense(1, name="q")
        self.head.build([None, 8])

    def call(self, inputs):
        s, a = inputs
        return self.head(tf.nn.relu(s @ self.w1_s + a @ self.w1_a + self.b1))


class Agent:
    def __init__(self, tau):
        self.tau = tau
        self.actor, self.actor_target = make_actor("actor"), make_actor("actor_target")
        self.critic, self.critic_target = Critic(name="critic"), Critic(name="critic_target")
        for critic in (self.critic, self.critic_target):
            critic.build(None)
        self.actor_adam = keras.optimizers.Adam(0.001, epsilon=1e-8)
        self.critic_adam = keras.optimizers.Adam(0.002, epsilon=1e-8)
        self.actor_adam.build(self.actor.trainable_variables)
        self.critic_adam.build(self.critic.trainable_variables)

    @tf.function
    def soft(self):
        for net, target in ((self.actor, self.actor_target), (self.critic, self.critic_target)):
            for source, copy in zip(net.weights, target.weights, strict=True):
                copy.assign((1 - self.tau) * copy + self.tau * source)

    @tf.function
    def train_actor(self, s):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.critic([s, self.actor(s)]))
        variables = self.actor.trainable_variables
        self.actor_adam.apply(tape.gradient(loss, variables), variables)
        return loss

    @tf.function
    def train_critic(self, s, s_, r):
        target = r + 0.9 * self.critic_target([s_, self.actor_target(s_)])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((target - self.critic([s, self.actor(s)])) ** 2)
        variables = self.critic.trainable_variables
        self.critic_adam.apply(tape.gradient(loss, variables), variables)
        return loss


def program(tau):
    agent = Agent(tau)
    # tfport >
    return {
        "module": agent,
        "phases": {"soft": lambda s: agent.soft(), "actor": agent.train_actor, "critic": agent.train_critic},
        "outputs": lambda s: {"a": agent.actor(s), "q": agent.critic([s, agent.actor(s)])},
    }
    # < tfport


def right():
    return program(0.01)


def wrong():
    return program(0.001)
