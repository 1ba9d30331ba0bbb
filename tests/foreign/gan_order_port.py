"""The GAN in TensorFlow 2: a function for each of the two."""

import keras
import tensorflow as tf


def normal(shape):
    return tf.Variable(tf.random.normal(shape, stddev=(2.0 / shape[0]) ** 0.5))


class Net(tf.Module):
    def __init__(self, sizes, name):
        super().__init__(name=name)
        self.w1, self.b1 = normal(sizes[:2]), tf.Variable(tf.zeros(sizes[1:2]))
        self.w2, self.b2 = normal(sizes[1:]), tf.Variable(tf.zeros(sizes[2:]))

    def __call__(self, x):
        return tf.sigmoid(tf.nn.relu(x @ self.w1 + self.b1) @ self.w2 + self.b2)


class Gan(tf.Module):
    def __init__(self):
        super().__init__(name="gan")
        self.generator, self.discriminator = Net([4, 8, 12], "generator"), Net([12, 8, 1], "discriminator")
        self.g_adam = keras.optimizers.Adam(0.01, epsilon=1e-8)
        self.d_adam = keras.optimizers.Adam(0.01, epsilon=1e-8)

    @tf.function
    def train_discriminator(self, disc_input, input_noise):
        with tf.GradientTape() as tape:
            real, fake = self.discriminator(disc_input), self.discriminator(self.generator(input_noise))
            loss = -tf.reduce_mean(tf.math.log(real) + tf.math.log(1.0 - fake))
        variables = self.discriminator.trainable_variables
        self.d_adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function
    def train_generator(self, input_noise):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tf.math.log(self.discriminator(self.generator(input_noise))))
        variables = self.generator.trainable_variables
        self.g_adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss


def program(generator_first):
    gan = Gan()
    phases = {"disc": gan.train_discriminator, "gen": gan.train_generator}
    if generator_first:
        phases = {"gen": gan.train_generator, "disc": gan.train_discriminator}
    # tfport >
    return {
        "module": gan,
        "phases": phases,
        "outputs": lambda input_noise, disc_input: {
            "sample": gan.generator(input_noise),
            "verdict": gan.discriminator(disc_input),
        },
    }
    # < tfport


def right():
    return program(False)


def wrong():
    return program(True)
