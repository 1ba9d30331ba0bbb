"""The gradient-penalty GAN with Keras 3 layers and nested tapes."""

import keras
import tensorflow as tf


def mlp(name, outputs, dim=16):
    return keras.Sequential(
        [
            keras.Input([2]),
            keras.layers.Dense(dim, activation="relu"),
            keras.layers.Dense(dim, activation="relu"),
            keras.layers.Dense(outputs),
        ],
        name=name,
    )


class WGAN:
    def __init__(self, penalty_axis):
        self.penalty_axis = penalty_axis
        self.generator = mlp("generator", 2)
        self.critic = mlp("critic", 1)
        self.g_optimizer = keras.optimizers.Adam(1e-3, beta_1=0.5, beta_2=0.9, epsilon=1e-8)
        self.d_optimizer = keras.optimizers.Adam(1e-3, beta_1=0.5, beta_2=0.9, epsilon=1e-8)

    def penalty(self, real, fake):
        alpha = tf.random.uniform([tf.shape(real)[0], 1], dtype=real.dtype)
        mixed = alpha * real + (1 - alpha) * fake
        with tf.GradientTape() as tape:
            tape.watch(mixed)
            score = self.critic(mixed, training=True)
        slopes = tf.sqrt(tf.reduce_sum(tf.square(tape.gradient(score, mixed)), axis=self.penalty_axis))
        return tf.reduce_mean((slopes - 1.0) ** 2)

    @tf.function
    def train_critic(self, real_data):
        noise = tf.random.normal([tf.shape(real_data)[0], 2], dtype=real_data.dtype)
        with tf.GradientTape() as tape:
            fake = self.generator(noise, training=True)
            real_score = self.critic(real_data, training=True)
            fake_score = self.critic(fake, training=True)
            loss = tf.reduce_mean(fake_score) - tf.reduce_mean(real_score) + 0.1 * self.penalty(real_data, fake)
        weights = self.critic.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}

    @tf.function
    def train_generator(self, real_data):
        noise = tf.random.normal([tf.shape(real_data)[0], 2], dtype=real_data.dtype)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.critic(self.generator(noise, training=True), training=True))
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def program(penalty_axis):
    gan = WGAN(penalty_axis)
    # tfport >
    return {
        "models": {"generator": gan.generator, "critic": gan.critic},
        "phases": {"disc": gan.train_critic, "gen": gan.train_generator},
        "outputs": lambda real_data: {"disc_real": gan.critic(real_data)[:, 0]},
    }
    # < tfport


def right():
    return program(1)


def wrong():
    return program(None)
