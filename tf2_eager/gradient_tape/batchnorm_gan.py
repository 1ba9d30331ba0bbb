"""batchnorm_gan with tf.Module, tf.function and GradientTape: two half steps of D, then G in training mode.

Siblings: tf1_graph/batchnorm_gan.py, tf2_eager/keras2/batchnorm_gan.py, tf2_eager/keras3/batchnorm_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Statistics, module
from tf2_eager.gradient_tape.optimizers import Adam
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.spec import ModelSpec


class BatchnormGan(TapeSubject):
    """The networks as functions of tf.Variables, and each phase as a tape."""

    def build_model(self) -> None:
        """Creates variables and optimizers; the networks, losses and phases are the methods below."""
        spec = self.spec

        # --- Variables ------------------------------------------------------------------------------------------------
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
    def generate_images(self, z: Any, statistics: Statistics | None) -> dict[str, Any]:
        """G: z [B, 100] to every layer's output, at last images [B, 784]; in training mode with `statistics`."""
        g = self.g
        h1 = tf.nn.relu(tf.matmul(z, g["hidden1"].kernel) + g["hidden1"].bias)  # [B, 128]
        n1 = g["norm1"](h1, statistics)
        h2 = tf.nn.relu(tf.matmul(n1, g["hidden2"].kernel) + g["hidden2"].bias)  # [B, 256]
        n2 = g["norm2"](h2, statistics)
        h3 = tf.nn.relu(tf.matmul(n2, g["hidden3"].kernel) + g["hidden3"].bias)  # [B, 512]
        n3 = g["norm3"](h3, statistics)
        image = tf.nn.tanh(tf.matmul(n3, g["output"].kernel) + g["output"].bias)  # [B, 784]
        return {"hidden1": h1, "norm1": n1, "hidden2": h2, "norm2": n2, "hidden3": h3, "norm3": n3, "output": image}

    def discriminate(self, x: Any) -> tuple[dict[str, Any], Any]:
        """D: images [B, 784] to every layer's output, and the logit of being real [B, 1]."""
        d = self.d
        h1 = tf.matmul(x, d["hidden1"].kernel) + d["hidden1"].bias  # [B, 128], linear as the note has it
        h2 = tf.nn.relu(tf.matmul(h1, d["hidden2"].kernel) + d["hidden2"].bias)  # [B, 256]
        h3 = tf.nn.relu(tf.matmul(h2, d["hidden3"].kernel) + d["hidden3"].bias)  # [B, 512]
        logit = tf.matmul(h3, d["output"].kernel) + d["output"].bias  # [B, 1]
        return {"hidden1": h1, "hidden2": h2, "hidden3": h3, "output": tf.nn.sigmoid(logit)}, logit

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        made = self.generate_images(batch["latent"], [] if training else None)
        real, _ = self.discriminate(batch["images"])
        fake, _ = self.discriminate(made["output"])
        return {
            **{f"generator/{name}": value for name, value in made.items()},
            **{f"discriminator/{name}/real": value for name, value in real.items()},
            **{f"discriminator/{name}/fake": value for name, value in fake.items()},
        }

    def images(self, inputs: Tensors) -> Any:
        """G(z): [B, 784]."""
        return self.generate_images(inputs["latent"], None)["output"]

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
        made = self.generate_images(batch["latent"], None)
        with tf.GradientTape() as tape:
            fake, logit = self.discriminate(made["output"])
            loss = cross_entropy(0.0, logit)
        accuracy = tf.reduce_mean(tf.cast(fake["output"] <= 0.5, self.precision))
        reports = {"loss_D_fake": loss, "accuracy_D_fake": accuracy}
        return Computed(reports, tape.gradient(loss, self.discriminator), [])

    def generator_step(self, batch: Tensors) -> Computed:
        """Binary cross entropy of D on G's images against ones, and its gradient for G, which is in training mode."""
        statistics: Statistics = []
        with tf.GradientTape() as tape:
            made = self.generate_images(batch["latent"], statistics)
            _, logit = self.discriminate(made["output"])
            loss = cross_entropy(1.0, logit)
        return Computed({"loss_G": loss}, tape.gradient(loss, self.generator), statistics)


def cross_entropy(label: float, logit: Any) -> Any:
    """Mean binary cross entropy of logits [B, 1] against one label."""
    return tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logit), tf.constant(label, logit.dtype)), logit)
    )


def build(spec: ModelSpec, precision: str, seed: int) -> BatchnormGan:
    """Creates the variables with the model's own initialisers."""
    return BatchnormGan(spec, precision, seed)
