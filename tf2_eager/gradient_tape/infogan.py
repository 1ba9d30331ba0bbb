"""infogan with tf.Module, tf.function and GradientTape: three tapes, and two Adams that hold the shared hidden layer.

Siblings: tf1_graph/infogan.py, tf2_eager/keras2/infogan.py, tf2_eager/keras3/infogan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Weights
from tf2_eager.gradient_tape.optimizers import Adam
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.infogan import CODE_WEIGHT
from tfport.models.spec import ModelSpec


class Infogan(TapeSubject):
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
        self.q_category, self.q_codes = (
            Weights(layer, self.precision, "recognition") for layer in spec.network("recognition").layers
        )
        shared = [self.d_hidden.kernel, self.d_hidden.bias]
        self.generator = [self.g_hidden.kernel, self.g_hidden.bias, self.g_output.kernel, self.g_output.bias]
        self.discriminator = [*shared, self.d_output.kernel, self.d_output.bias]
        self.recognition = [self.q_category.kernel, self.q_category.bias, self.q_codes.kernel, self.q_codes.bias]
        self.information = [*self.generator, *shared, *self.recognition]

        # --- Optimizers -----------------------------------------------------------------------------------------------
        # D's hidden layer is moved by two Adams, each with slots of its own: D's, and the information phase's.
        self.optimizer_by_name = {
            "discriminator": Adam(spec.optimizer("discriminator"), self.discriminator, name="adam_d"),
            "generator": Adam(spec.optimizer("generator"), self.generator, name="adam_g"),
            "information": Adam(spec.optimizer("information"), self.information, name="adam_i"),
        }

    # --- Networks -----------------------------------------------------------------------------------------------------
    def generate_images(self, inputs: Tensors) -> tuple[Any, Any]:
        """G: z [B, 62], category [B, 10] and codes [B, 2] to its hidden layer [B, 256] and images [B, 784]."""
        joined = tf.concat([inputs["latent"], inputs["category"], inputs["codes"]], axis=1)  # [B, 74]
        h = tf.nn.relu(tf.matmul(joined, self.g_hidden.kernel) + self.g_hidden.bias)
        return h, tf.nn.sigmoid(tf.matmul(h, self.g_output.kernel) + self.g_output.bias)

    def discriminate(self, x: Any) -> tuple[Any, Any]:
        """D: images [B, 784] to its hidden layer [B, 256], which Q takes too, and the logit of being real [B, 1]."""
        h = tf.nn.relu(tf.matmul(x, self.d_hidden.kernel) + self.d_hidden.bias)
        return h, tf.matmul(h, self.d_output.kernel) + self.d_output.bias

    def recognise(self, h: Any) -> tuple[Any, Any]:
        """Q: D's hidden layer [B, 256] to logits of the category [B, 10] and the means of unit normals [B, 2]."""
        logits = tf.matmul(h, self.q_category.kernel) + self.q_category.bias
        return logits, tf.matmul(h, self.q_codes.kernel) + self.q_codes.bias

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:  # noqa: ARG002  no layer has two modes
        """Every named output, in the order of computation."""
        generator_hidden, fake = self.generate_images(batch)
        real_hidden, d_real = self.discriminate(batch["images"])
        fake_hidden, d_fake = self.discriminate(fake)
        logits, means = self.recognise(fake_hidden)
        return {
            "generator/hidden": generator_hidden,
            "generator/output": fake,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
            "recognition/category": logits,
            "recognition/codes": means,
        }

    def images(self, inputs: Tensors) -> Any:
        """G(z, category, codes): [B, 784]."""
        return self.generate_images(inputs)[1]

    # --- Losses, all minimised, and their gradients -------------------------------------------------------------------
    def discriminator_step(self, batch: Tensors) -> Computed:
        """Cross entropy of D on real images plus that on fakes, and its gradient for D."""
        with tf.GradientTape() as tape:
            _, fake = self.generate_images(batch)
            _, d_real = self.discriminate(batch["images"])
            _, d_fake = self.discriminate(fake)
            loss_d = cross_entropy(1.0, d_real) + cross_entropy(0.0, d_fake)
        return Computed({"loss_D": loss_d}, tape.gradient(loss_d, self.discriminator), [])

    def generator_step(self, batch: Tensors) -> Computed:
        """Cross entropy of D on fakes against ones, and its gradient for G."""
        with tf.GradientTape() as tape:
            _, fake = self.generate_images(batch)
            _, d_fake = self.discriminate(fake)
            loss_g = cross_entropy(1.0, d_fake)
        return Computed({"loss_G": loss_g}, tape.gradient(loss_g, self.generator), [])

    def information_step(self, batch: Tensors) -> Computed:
        """How far Q is from the codes that made the fakes, and its gradient for G, the shared layer and Q's heads."""
        with tf.GradientTape() as tape:
            _, fake = self.generate_images(batch)
            fake_hidden, _ = self.discriminate(fake)
            logits, means = self.recognise(fake_hidden)
            loss_category = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(batch["category"], logits))
            loss_codes = tf.reduce_mean(0.5 * tf.reduce_sum(tf.square(batch["codes"] - means), axis=1))
            loss_i = loss_category + CODE_WEIGHT * loss_codes
        return Computed({"loss_I": loss_i}, tape.gradient(loss_i, self.information), [])


def cross_entropy(label: float, logit: Any) -> Any:
    """Mean binary cross entropy of logits [B, 1] against one label."""
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logit), tf.constant(label, logit.dtype)), logit)
    )


def build(spec: ModelSpec, precision: str, seed: int) -> Infogan:
    """Creates the variables with the model's own initialisers."""
    return Infogan(spec, precision, seed)
