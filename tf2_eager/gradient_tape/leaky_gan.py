"""leaky_gan with tf.Module, tf.function and GradientTape: two half steps of D, then G on the same z or a fresh one.

Siblings: tf1_graph/leaky_gan.py, tf2_eager/keras2/leaky_gan.py, tf2_eager/keras3/leaky_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Weights
from tf2_eager.gradient_tape.optimizers import Adam
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.spec import ModelSpec


class LeakyGan(TapeSubject):
    """The networks as functions of tf.Variables, and each phase as a tape."""

    def build_model(self) -> None:
        """Creates variables and optimizers; the networks, losses and phases are the methods below."""
        spec = self.spec

        # --- Variables ------------------------------------------------------------------------------------------------
        generator, discriminator = spec.network("generator"), spec.network("discriminator")
        self.g_slope, self.d_slope = generator.layer("hidden").slope, discriminator.layer("hidden").slope
        self.g = {
            layer.name: Weights(layer, self.precision, "generator") for layer in generator.layers if layer.variables()
        }
        self.d = {layer.name: Weights(layer, self.precision, "discriminator") for layer in discriminator.layers}
        self.generator = self.trained(self.g)
        self.discriminator = self.trained(self.d)

        # --- Optimizers -----------------------------------------------------------------------------------------------
        self.optimizer_by_name = {
            "discriminator": Adam(spec.optimizer("discriminator"), self.discriminator, name="adam_d"),
            "generator": Adam(spec.optimizer("generator"), self.generator, name="adam_g"),
        }

    # --- Networks -----------------------------------------------------------------------------------------------------
    def generate_images(self, z: Any) -> dict[str, Any]:
        """G: z [B, 100] to its hidden layer [B, 128], or [B, 100] without Dense, and images [B, 784]."""
        g = self.g
        if "hidden" in g:  # one note forgets the Dense layer: its activation then takes z itself
            z = tf.matmul(z, g["hidden"].kernel) + g["hidden"].bias
        h = tf.nn.leaky_relu(z, self.g_slope)
        return {"hidden": h, "output": tf.nn.tanh(tf.matmul(h, g["output"].kernel) + g["output"].bias)}

    def discriminate(self, x: Any) -> tuple[dict[str, Any], Any]:
        """D: images [B, 784] to every layer's output, and the logit of being real [B, 1]."""
        d = self.d
        h = tf.nn.leaky_relu(tf.matmul(x, d["hidden"].kernel) + d["hidden"].bias, self.d_slope)  # [B, 128]
        logit = tf.matmul(h, d["output"].kernel) + d["output"].bias  # [B, 1]
        return {"hidden": h, "output": tf.nn.sigmoid(logit)}, logit

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:  # noqa: ARG002  no layer has two modes
        """Every named output, in the order of computation."""
        made = self.generate_images(batch["latent"])
        real, _ = self.discriminate(batch["images"])
        fake, _ = self.discriminate(made["output"])
        judged = {"real": real, "fake": fake}
        if "latent_generator" in batch:
            judged["fresh"], _ = self.discriminate(self.generate_images(batch["latent_generator"])["output"])
        return {
            **{f"generator/{name}": value for name, value in made.items()},
            **{f"discriminator/{name}/{of}": value for of, layers in judged.items() for name, value in layers.items()},
        }

    def images(self, inputs: Tensors) -> Any:
        """G(z): [B, 784]."""
        return self.generate_images(inputs["latent"])["output"]

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
        """Binary cross entropy of D on fakes, and its gradient for D."""
        made = self.generate_images(batch["latent"])
        with tf.GradientTape() as tape:
            fake, logit = self.discriminate(made["output"])
            loss = cross_entropy(0.0, logit)
        accuracy = tf.reduce_mean(tf.cast(fake["output"] <= 0.5, self.precision))
        reports = {"loss_D_fake": loss, "accuracy_D_fake": accuracy}
        return Computed(reports, tape.gradient(loss, self.discriminator), [])

    def generator_step(self, batch: Tensors) -> Computed:
        """Binary cross entropy of D on G's images against ones, and its gradient for G."""
        z = batch.get("latent_generator", batch["latent"])  # one note draws another z for G's own step
        with tf.GradientTape() as tape:
            made = self.generate_images(z)
            _, logit = self.discriminate(made["output"])
            loss = cross_entropy(1.0, logit)
        return Computed({"loss_G": loss}, tape.gradient(loss, self.generator), [])


def cross_entropy(label: float, logit: Any) -> Any:
    """Mean binary cross entropy of logits [B, 1] against one label."""
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logit), tf.constant(label, logit.dtype)), logit)
    )


def build(spec: ModelSpec, precision: str, seed: int) -> LeakyGan:
    """Creates the variables with the model's own initialisers."""
    return LeakyGan(spec, precision, seed)
