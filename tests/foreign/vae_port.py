"""The VAE in TensorFlow 2: a tf.Module and a tape."""

import keras
import tensorflow as tf


class Linear(tf.Module):
    def __init__(self, units_in, units_out, name):
        super().__init__(name=name)
        stddev = 1.0 / (units_in / 2.0) ** 0.5
        self.w = tf.Variable(tf.random.normal([units_in, units_out], stddev=stddev), name="w")
        self.b = tf.Variable(tf.zeros([units_out]), name="b")

    def __call__(self, x):
        return x @ self.w + self.b


class VAE(tf.Module):
    def __init__(self, latent=4, pixels=36, hidden=12, beta=1.0):
        super().__init__(name="vae")
        self.encoder = Linear(pixels, hidden, "encoder")
        self.mean = Linear(hidden, latent, "mean")
        self.log_variance = Linear(hidden, latent, "log_variance")
        self.decoder = Linear(latent, hidden, "decoder")
        self.pixels = Linear(hidden, pixels, "pixels")
        self.beta = beta
        self.optimizer = keras.optimizers.Adam(1e-2, epsilon=1e-8)

    def encode(self, x):
        hidden = tf.nn.relu(self.encoder(x))
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z):
        return self.pixels(tf.nn.relu(self.decoder(z)))

    @tf.function
    def train_step(self, x):
        with tf.GradientTape() as tape:
            mean, log_variance = self.encode(x)
            z = mean + tf.exp(0.5 * log_variance) * tf.random.normal(tf.shape(mean))
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=self.decode(z))
            reconstruction = tf.reduce_sum(losses, axis=1)
            divergence = -0.5 * tf.reduce_sum(1.0 + log_variance - mean**2 - tf.exp(log_variance), axis=1)
            loss = tf.reduce_mean(reconstruction + self.beta * divergence)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss


def program(**options):
    vae = VAE(**options)
    # tfport >
    return {
        "module": vae,
        "step": lambda X: vae.train_step(X),
        "outputs": lambda X, z: {"mu": vae.encode(X)[0], "samples": tf.sigmoid(vae.decode(z))},
    }
    # < tfport


def right():
    return program()


def wrong():
    return program(beta=0.5)
