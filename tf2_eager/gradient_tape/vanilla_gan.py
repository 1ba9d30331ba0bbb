"""vanilla_gan with tf.Module, tf.function and GradientTape: the same maximised log losses, two tapes, two Adams.

Siblings: tf1_graph/vanilla_gan.py, tf2_eager/keras2/vanilla_gan.py, tf2_eager/keras3/vanilla_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Weights
from tf2_eager.gradient_tape.optimizers import Adam
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.spec import ModelSpec


class VanillaGan(TapeSubject):
    """The networks as functions of tf.Variables, and each phase as a tape."""

    def build_model(self) -> None:
        """Creates variables and optimizers; the networks, losses and phases are the methods below."""
        spec = self.spec

        # --- Variables ------------------------------------------------------------------------------------------------
        self.g_hidden, self.g_output = (
            Weights(layer, self.precision, "generator") for layer in spec.network("generator").layers
        )
        self.d_hidden, self.d_output = (
            Weights(layer, self.precision, "discriminator") for layer in spec.network("discriminator").layers
        )
        self.generator = [self.g_hidden.kernel, self.g_hidden.bias, self.g_output.kernel, self.g_output.bias]
        self.discriminator = [self.d_hidden.kernel, self.d_hidden.bias, self.d_output.kernel, self.d_output.bias]

        # --- Optimizers -----------------------------------------------------------------------------------------------
        self.optimizer_by_name = {
            "discriminator": Adam(spec.optimizer("discriminator"), self.discriminator, name="adam_d"),
            "generator": Adam(spec.optimizer("generator"), self.generator, name="adam_g"),
        }

    # --- Networks -----------------------------------------------------------------------------------------------------
    def generate_images(self, z: Any) -> tuple[Any, Any]:
        """G: z [B, 128] to its hidden layer [B, 256] and images [B, 784]."""
        h = tf.nn.relu(tf.matmul(z, self.g_hidden.kernel) + self.g_hidden.bias)
        return h, tf.nn.sigmoid(tf.matmul(h, self.g_output.kernel) + self.g_output.bias)

    def discriminate(self, x: Any) -> tuple[Any, Any]:
        """D: images [B, 784] to its hidden layer [B, 256] and the probability of being real [B, 1]."""
        h = tf.nn.relu(tf.matmul(x, self.d_hidden.kernel) + self.d_hidden.bias)
        return h, tf.nn.sigmoid(tf.matmul(h, self.d_output.kernel) + self.d_output.bias)

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:  # noqa: ARG002  no layer has two modes
        """Every named output, in the order of computation."""
        generator_hidden, fake = self.generate_images(batch["latent"])
        real_hidden, d_real = self.discriminate(batch["images"])
        fake_hidden, d_fake = self.discriminate(fake)
        return {
            "generator/hidden": generator_hidden,
            "generator/output": fake,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
        }

    def images(self, inputs: Tensors) -> Any:
        """G(z): [B, 784]."""
        return self.generate_images(inputs["latent"])[1]

    # --- Losses, both maximised, and their gradients ------------------------------------------------------------------
    def discriminator_step(self, batch: Tensors) -> Computed:
        """mean(log D(x) + log(1 - D(G(z)))), and the gradient of its negative for D."""
        with tf.GradientTape() as tape:
            _, fake = self.generate_images(batch["latent"])
            _, d_real = self.discriminate(batch["images"])
            _, d_fake = self.discriminate(fake)
            loss_d = tf.reduce_mean(tf.math.log(d_real) + tf.math.log(1 - d_fake))
            objective = -loss_d
        return Computed({"loss_D": loss_d}, tape.gradient(objective, self.discriminator), [])

    def generator_step(self, batch: Tensors) -> Computed:
        """mean(log D(G(z))), and the gradient of its negative for G."""
        with tf.GradientTape() as tape:
            _, fake = self.generate_images(batch["latent"])
            _, d_fake = self.discriminate(fake)
            loss_g = tf.reduce_mean(tf.math.log(d_fake))
            objective = -loss_g
        return Computed({"loss_G": loss_g}, tape.gradient(objective, self.generator), [])


def build(spec: ModelSpec, precision: str, seed: int) -> VanillaGan:
    """Creates the variables with the model's own initialisers."""
    return VanillaGan(spec, precision, seed)
