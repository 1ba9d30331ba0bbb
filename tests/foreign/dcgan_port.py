"""DCGAN in Keras 3: two functional networks and a keras.Model of one's own steps."""

import keras
import tensorflow as tf
from keras import layers


def weights(stddev=0.02, mean=0.0):
    return keras.initializers.RandomNormal(mean, stddev)


def norm(name, momentum):
    return layers.BatchNormalization(momentum=momentum, epsilon=1e-5, gamma_initializer=weights(mean=1.0), name=name)


def build_generator(momentum):
    z = keras.Input([4], name="z")
    x = layers.Dense(16, kernel_initializer=weights(), name="project")(z)
    x = layers.Reshape([2, 2, 4])(x)
    x = layers.ReLU()(norm("bn0", momentum)(x))
    x = layers.Conv2DTranspose(2, 5, 2, "same", kernel_initializer=weights(), name="up1")(x)
    x = layers.ReLU()(norm("bn1", momentum)(x))
    x = layers.Conv2DTranspose(1, 5, 2, "same", kernel_initializer=weights(), activation="tanh", name="up2")(x)
    return keras.Model(z, x, name="generator")


def build_discriminator():
    truncated = keras.initializers.TruncatedNormal(stddev=0.02)
    image = keras.Input([8, 8, 1], name="image")
    x = layers.Conv2D(2, 5, 2, "same", kernel_initializer=truncated, name="conv0")(image)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.Conv2D(4, 5, 2, "same", kernel_initializer=truncated, name="conv1")(x)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.Dense(1, kernel_initializer=weights(), name="logits")(layers.Flatten()(x))
    return keras.Model(image, x, name="discriminator")


def bce(logits, target):
    labels = tf.fill(tf.shape(logits), tf.cast(target, logits.dtype))
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def program(momentum=0.9):
    generator = build_generator(momentum)
    discriminator = build_discriminator()
    d_adam = keras.optimizers.Adam(0.002, beta_1=0.5, epsilon=1e-8)
    g_adam = keras.optimizers.Adam(0.002, beta_1=0.5, epsilon=1e-8)

    @tf.function
    def d_step(real_images, z):
        with tf.GradientTape() as tape:
            real = discriminator(real_images, training=True)
            fake = discriminator(generator(z, training=True), training=True)
            loss = bce(real, 1.0) + bce(fake, 0.0)
        variables = discriminator.trainable_variables
        d_adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function
    def g_step(z):
        with tf.GradientTape() as tape:
            loss = bce(discriminator(generator(z, training=True), training=True), 1.0)
        variables = generator.trainable_variables
        g_adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    # tfport >
    return {
        "models": {"generator": generator, "discriminator": discriminator},
        "phases": {"d": d_step, "g": g_step},
        "outputs": lambda z: {"sampler": generator(z, training=False)},
    }
    # < tfport


def right():
    return program()


def wrong():
    return program(momentum=0.99)
