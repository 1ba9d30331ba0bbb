"""conditional_gan with tf.Module, tf.function and GradientTape: the label joined to both inputs, two tapes, two Adams.

Siblings: tf1_graph/conditional_gan.py, tf2_eager/keras2/conditional_gan.py, tf2_eager/keras3/conditional_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Weights
from tf2_eager.gradient_tape.optimizers import Adam
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.spec import ModelSpec


class ConditionalGan(TapeSubject):
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
    def generate_images(self, z: Any, y: Any) -> tuple[Any, Any]:
        """G: z [B, 128] and labels [B, 10] to its hidden layer [B, 256] and images [B, 784]."""
        joined = tf.concat([z, y], axis=1)  # [B, 138]
        h = tf.nn.relu(tf.matmul(joined, self.g_hidden.kernel) + self.g_hidden.bias)
        return h, tf.nn.sigmoid(tf.matmul(h, self.g_output.kernel) + self.g_output.bias)

    def discriminate(self, x: Any, y: Any) -> tuple[Any, Any]:
        """D: images [B, 784] and labels [B, 10] to its hidden layer [B, 256] and the logit of being real [B, 1]."""
        joined = tf.concat([x, y], axis=1)  # [B, 794]
        h = tf.nn.relu(tf.matmul(joined, self.d_hidden.kernel) + self.d_hidden.bias)
        return h, tf.matmul(h, self.d_output.kernel) + self.d_output.bias

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:  # noqa: ARG002  no layer has two modes
        """Every named output, in the order of computation."""
        generator_hidden, fake = self.generate_images(batch["latent"], batch["labels"])
        real_hidden, d_real = self.discriminate(batch["images"], batch["labels"])
        fake_hidden, d_fake = self.discriminate(fake, batch["labels"])
        return {
            "generator/hidden": generator_hidden,
            "generator/output": fake,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
        }

    def images(self, inputs: Tensors) -> Any:
        """G(z, y): [B, 784]."""
        return self.generate_images(inputs["latent"], inputs["labels"])[1]

    # --- Losses, both minimised, and their gradients ------------------------------------------------------------------
    def discriminator_step(self, batch: Tensors) -> Computed:
        """Cross entropy of D on real images plus that on fakes of the same labels, and its gradient for D."""
        with tf.GradientTape() as tape:
            _, fake = self.generate_images(batch["latent"], batch["labels"])
            _, d_real = self.discriminate(batch["images"], batch["labels"])
            _, d_fake = self.discriminate(fake, batch["labels"])
            loss_d = cross_entropy(1.0, d_real) + cross_entropy(0.0, d_fake)
        return Computed({"loss_D": loss_d}, tape.gradient(loss_d, self.discriminator), [])

    def generator_step(self, batch: Tensors) -> Computed:
        """Cross entropy of D on fakes against ones, and its gradient for G."""
        with tf.GradientTape() as tape:
            _, fake = self.generate_images(batch["latent"], batch["labels"])
            _, d_fake = self.discriminate(fake, batch["labels"])
            loss_g = cross_entropy(1.0, d_fake)
        return Computed({"loss_G": loss_g}, tape.gradient(loss_g, self.generator), [])


def cross_entropy(label: float, logit: Any) -> Any:
    """Mean binary cross entropy of logits [B, 1] against one label."""
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logit), tf.constant(label, logit.dtype)), logit)
    )


def build(spec: ModelSpec, precision: str, seed: int) -> ConditionalGan:
    """Creates the variables with the model's own initialisers."""
    return ConditionalGan(spec, precision, seed)
