"""torch_gan with tf.Module, tf.function and GradientTape: three passes through D in training mode, fake before real.

Siblings: tf1_graph/torch_gan.py, tf2_eager/keras2/torch_gan.py, tf2_eager/keras3/torch_gan.py.
The original: shared/tfport/peers/pytorch/torch_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Statistics, module
from tf2_eager.gradient_tape.optimizers import Adam
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.spec import Dense, ModelSpec
from tfport.models.torch_gan import GRADIENT_FLOOR, LOG_FLOOR


class TorchGan(TapeSubject):
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
        hidden = spec.network("discriminator").layer("hidden")
        assert isinstance(hidden, Dense)
        self.slope = hidden.slope
        self.loss_of = {"bce": cross_entropy, "least_squares": squared_error}[spec.variant]

        # --- Optimizers -----------------------------------------------------------------------------------------------
        self.optimizer_by_name = {
            "discriminator": Adam(spec.optimizer("discriminator"), self.discriminator, name="adam_d"),
            "generator": Adam(spec.optimizer("generator"), self.generator, name="adam_g"),
        }

    # --- Networks -----------------------------------------------------------------------------------------------------
    def generate_images(self, z: Any, statistics: Statistics | None) -> dict[str, Any]:
        """G: z [B, 50] to every layer's output, at last images [B, 784]; in training mode with `statistics`."""
        g = self.g
        h = tf.matmul(z, g["hidden"].kernel) + g["hidden"].bias  # [B, 200]
        n = tf.nn.relu(g["hidden_norm"](h, statistics))
        y = tf.matmul(n, g["output"].kernel) + g["output"].bias  # [B, 784]
        image = tf.nn.tanh(g["output_norm"](y, statistics))
        return {"hidden": h, "hidden_norm": n, "output": y, "output_norm": image}

    def discriminate(self, x: Any, statistics: Statistics | None) -> dict[str, Any]:
        """D: images [B, 784] to every layer's output, at last the probability of being real [B, 1]."""
        d = self.d
        h = tf.matmul(x, d["hidden"].kernel) + d["hidden"].bias  # [B, 200]
        h = tf.nn.leaky_relu(h, self.slope)
        y = tf.matmul(h, d["output"].kernel) + d["output"].bias  # [B, 1]
        p = tf.nn.sigmoid(d["output_norm"](y, statistics))
        return {"hidden": h, "output": y, "output_norm": p}

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        statistics: Statistics | None = [] if training else None
        made = self.generate_images(batch["latent"], statistics)
        fresh = self.generate_images(batch["latent_generator"], statistics)
        judged = {"real": batch["images"], "fake": made["output_norm"], "fresh": fresh["output_norm"]}
        return {
            **{f"generator/{name}": value for name, value in made.items()},
            **{
                f"discriminator/{name}/{of}": value
                for of, images in judged.items()
                for name, value in self.discriminate(images, statistics).items()
            },
        }

    def images(self, inputs: Tensors) -> Any:
        """G(z): [B, 784]."""
        return self.generate_images(inputs["latent"], None)["output_norm"]

    # --- Losses, both minimised, and their gradients ------------------------------------------------------------------
    def discriminator_step(self, batch: Tensors) -> Computed:
        """D on real images against ones and on fakes against zeros, and the gradient for D.

        All three passes move statistics, in the order in which they are made: G's, then D's by the fakes, then D's by
        the real images.
        """
        statistics: Statistics = []
        made = self.generate_images(batch["latent"], statistics)
        with tf.GradientTape() as tape:
            fake = self.discriminate(made["output_norm"], statistics)
            real = self.discriminate(batch["images"], statistics)
            loss = self.loss_of(real["output_norm"], 1.0) + self.loss_of(fake["output_norm"], 0.0)
        return Computed({"loss_D": loss}, tape.gradient(loss, self.discriminator), statistics)

    def generator_step(self, batch: Tensors) -> Computed:
        """D on images of another z against ones, and the gradient for G; D is in training mode here too."""
        statistics: Statistics = []
        with tf.GradientTape() as tape:
            made = self.generate_images(batch["latent_generator"], statistics)
            fresh = self.discriminate(made["output_norm"], statistics)
            loss = self.loss_of(fresh["output_norm"], 1.0)
        return Computed({"loss_G": loss}, tape.gradient(loss, self.generator), statistics)


def cross_entropy(probability: Any, label: float) -> Any:
    """BCELoss of probabilities [B, 1] against one label, and its gradient as PyTorch writes it: finite at 0 and 1."""

    @tf.custom_gradient
    def each(p: Any) -> tuple[Any, Any]:
        logs = label * tf.maximum(tf.math.log(p), LOG_FLOOR) + (1 - label) * tf.maximum(tf.math.log1p(-p), LOG_FLOOR)
        return -logs, lambda upstream: upstream * (p - label) / tf.maximum(p * (1 - p), GRADIENT_FLOOR)

    return tf.reduce_mean(each(probability))


def squared_error(probability: Any, label: float) -> Any:
    """Mean squared distance of probabilities [B, 1] from one label."""
    return tf.reduce_mean(tf.square(probability - label))


def build(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """Creates the variables with the model's own initialisers."""
    return TorchGan(spec, precision, seed)
