"""dcgan with tf.Module, tf.function and GradientTape: two half steps of D, then G in training mode on a fresh z.

Siblings: tf1_graph/dcgan.py, tf2_eager/keras2/dcgan.py, tf2_eager/keras3/dcgan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Statistics, Weights, module
from tf2_eager.gradient_tape.optimizers import Adam
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.spec import Conv, Layer, ModelSpec


class Dcgan(TapeSubject):
    """The networks as functions of tf.Variables, and each phase as a tape."""

    def build_model(self) -> None:
        """Creates variables and optimizers; the networks, losses and phases are the methods below."""
        spec = self.spec

        # --- Variables ------------------------------------------------------------------------------------------------
        self.g_layer, self.d_layer = spec.network("generator").layer, spec.network("discriminator").layer
        self.g: dict[str, Any] = {
            layer.name: module(layer, self.precision, "generator") for layer in spec.network("generator").layers
        }
        self.d: dict[str, Any] = {
            layer.name: module(layer, self.precision, "discriminator") for layer in spec.network("discriminator").layers
        }
        self.generator = self.trained(self.g)
        self.discriminator = self.trained(self.d)

        # --- Optimizers -----------------------------------------------------------------------------------------------
        self.optimizer_by_name = {
            "discriminator": Adam(spec.optimizer("discriminator"), self.discriminator, name="adam_d"),
            "generator": Adam(spec.optimizer("generator"), self.generator, name="adam_g"),
        }

    # --- Networks -----------------------------------------------------------------------------------------------------
    def generate_images(self, z: Any, statistics: Statistics | None) -> tuple[dict[str, Any], Any]:
        """G: z [B, 100] to every layer's output, and images [B, 784]; in training mode with `statistics`."""
        g, g_layer = self.g, self.g_layer
        p = tf.matmul(z, g["project"].kernel) + g["project"].bias  # [B, 12544]
        u1 = enlarge(tf.reshape(p, [-1, *seed_shape(g_layer("up1"))]), g["up1"], g_layer("up1"))  # [B, 14, 14, 128]
        n1 = g["norm1"](u1, statistics)
        n1 = tf.nn.leaky_relu(n1, g_layer("norm1").slope)
        u2 = enlarge(n1, g["up2"], g_layer("up2"))  # [B, 14, 14, 64]
        n2 = g["norm2"](u2, statistics)
        n2 = tf.nn.leaky_relu(n2, g_layer("norm2").slope)
        u3 = tf.nn.tanh(enlarge(n2, g["up3"], g_layer("up3")))  # [B, 28, 28, 1]
        made = {"project": p, "up1": u1, "norm1": n1, "up2": u2, "norm2": n2, "up3": u3}
        return made, tf.reshape(u3, [-1, self.spec.pixels])

    def discriminate(self, x: Any) -> tuple[dict[str, Any], Any]:
        """D: images [B, 784] to every layer's output, and the logit of being real [B, 1]."""
        d, d_layer = self.d, self.d_layer
        pixels = tf.reshape(x, [-1, self.spec.image_size, self.spec.image_size, 1])
        h1 = tf.nn.leaky_relu(convolve(pixels, d["down1"], d_layer("down1")), d_layer("down1").slope)  # [B, 14, 14, 32]
        h2 = tf.nn.leaky_relu(convolve(h1, d["down2"], d_layer("down2")), d_layer("down2").slope)  # [B, 7, 7, 64]
        h3 = tf.nn.leaky_relu(convolve(h2, d["down3"], d_layer("down3")), d_layer("down3").slope)  # [B, 4, 4, 128]
        flat = tf.reshape(h3, [-1, d_layer("output").inputs])  # [B, 2048]
        logit = tf.matmul(flat, d["output"].kernel) + d["output"].bias  # [B, 1]
        return {"down1": h1, "down2": h2, "down3": h3, "output": tf.nn.sigmoid(logit)}, logit

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        made, image = self.generate_images(batch["latent"], [] if training else None)
        _, fresh_image = self.generate_images(batch["latent_generator"], [] if training else None)
        real, _ = self.discriminate(batch["images"])
        fake, _ = self.discriminate(image)
        fresh, _ = self.discriminate(fresh_image)
        return {
            **{f"generator/{name}": value for name, value in made.items()},
            **{f"discriminator/{name}/real": value for name, value in real.items()},
            **{f"discriminator/{name}/fake": value for name, value in fake.items()},
            **{f"discriminator/{name}/fresh": value for name, value in fresh.items()},
        }

    def images(self, inputs: Tensors) -> Any:
        """G(z): [B, 784]."""
        return self.generate_images(inputs["latent"], None)[1]

    # --- Losses and accuracies, and their gradients -------------------------------------------------------------------
    def discriminator_real_step(self, batch: Tensors) -> Computed:
        """Binary cross entropy of D on real images, and its gradient for D."""
        with tf.GradientTape() as tape:
            real, logit = self.discriminate(batch["images"])
            loss = cross_entropy(1.0, logit)
        accuracy = tf.reduce_mean(tf.cast(real["output"] > 0.5, self.precision))
        reports = {"loss_D_real": loss, "accuracy_D_real": accuracy}
        return Computed(reports, tape.gradient(loss, self.discriminator), [])

    def discriminator_fake_step(self, batch: Tensors) -> Computed:
        """Binary cross entropy of D on fakes from G in inference mode, and its gradient for D."""
        _, image = self.generate_images(batch["latent"], None)
        with tf.GradientTape() as tape:
            fake, logit = self.discriminate(image)
            loss = cross_entropy(0.0, logit)
        accuracy = tf.reduce_mean(tf.cast(fake["output"] <= 0.5, self.precision))
        reports = {"loss_D_fake": loss, "accuracy_D_fake": accuracy}
        return Computed(reports, tape.gradient(loss, self.discriminator), [])

    def generator_step(self, batch: Tensors) -> Computed:
        """Binary cross entropy of D on G's images against ones, and its gradient for G, which is in training mode."""
        statistics: Statistics = []
        with tf.GradientTape() as tape:
            _, image = self.generate_images(batch["latent_generator"], statistics)
            _, logit = self.discriminate(image)
            loss = cross_entropy(1.0, logit)
        return Computed({"loss_G": loss}, tape.gradient(loss, self.generator), statistics)


def cross_entropy(label: float, logit: Any) -> Any:
    """Mean binary cross entropy of logits [B, 1] against one label."""
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logit), tf.constant(label, logit.dtype)), logit)
    )


# --- Convolutions -----------------------------------------------------------------------------------------------------
def seed_shape(layer: Layer) -> tuple[int, int, int]:
    """The image [height, width, channels] that a transposed convolution takes."""
    assert isinstance(layer, Conv)
    side = layer.side // layer.stride
    return side, side, layer.inputs


def convolve(x: Any, weights: Weights, layer: Layer) -> Any:
    """A convolution with 'same' padding, and its bias: [B, H, W, C] to [B, side, side, units]."""
    assert isinstance(layer, Conv)
    return tf.nn.conv2d(x, weights.kernel, strides=layer.stride, padding="SAME") + weights.bias


def enlarge(x: Any, weights: Weights, layer: Layer) -> Any:
    """A transposed convolution with 'same' padding, and its bias: [B, H, W, C] to [B, side, side, units]."""
    assert isinstance(layer, Conv)
    shape = tf.stack([tf.shape(x)[0], layer.side, layer.side, layer.units])
    return tf.nn.conv2d_transpose(x, weights.kernel, shape, strides=layer.stride, padding="SAME") + weights.bias


def build(spec: ModelSpec, precision: str, seed: int) -> Dcgan:
    """Creates the variables with the model's own initialisers."""
    return Dcgan(spec, precision, seed)
