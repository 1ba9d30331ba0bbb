"""torch_gan with Keras 2 (tf_keras): a train_step of its own for each phase, since a frozen D leaves training mode.

Siblings: tf1_graph/torch_gan.py, tf2_eager/gradient_tape/torch_gan.py, tf2_eager/keras3/torch_gan.py.
The original: shared/tfport/peers/pytorch/torch_gan.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tf2_eager.keras2.layers import activation, adam, batch_norm, dense, leaky_relu
from tf2_eager.keras2.subject import KerasSubject
from tfport.models.spec import ModelSpec
from tfport.models.torch_gan import GRADIENT_FLOOR, LOG_FLOOR
from tfport.subject import Array, Batch

Loss = Callable[[Any, Any], Any]


class TorchGan(KerasSubject):
    """The generator, the discriminator, and the two compiled models that train them."""

    def build_models(self) -> None:
        """Builds and compiles the models; optimizers are built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        g, d = spec.network("generator").layer, spec.network("discriminator").layer
        self.generator = keras.Sequential(
            [
                keras.Input((spec.width("latent"),)),
                dense(g("hidden")),
                batch_norm(g("hidden_norm")),
                activation(g("hidden_norm")),
                dense(g("output")),
                batch_norm(g("output_norm")),
                activation(g("output_norm")),
            ],
            name="generator",
        )
        self.discriminator = keras.Sequential(
            [
                keras.Input((spec.pixels,)),
                dense(d("hidden")),
                leaky_relu(d("hidden")),
                dense(d("output")),
                batch_norm(d("output_norm")),
                activation(d("output_norm")),
            ],
            name="discriminator",
        )

        # --- Losses, both minimised -----------------------------------------------------------------------------------
        loss = {"bce": cross_entropy, "least_squares": squared_error}[spec.variant]
        discriminator_step = DiscriminatorStep(self.generator, self.discriminator, loss)
        discriminator_step.compile(optimizer=adam(spec.optimizer("discriminator")))
        discriminator_step.optimizer.build(self.discriminator.trainable_variables)
        generator_step = GeneratorStep(self.generator, self.discriminator, loss)
        generator_step.compile(optimizer=adam(spec.optimizer("generator")))
        generator_step.optimizer.build(self.generator.trainable_variables)

        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.compiled = {"discriminator": discriminator_step, "generator": generator_step}

    # --- Training step ------------------------------------------------------------------------------------------------
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[Any, Any]:
        """What train_on_batch gets: images and z with labels of real and of fake for D, another z and ones for G."""
        ones = np.ones((len(batch["images"]), 1), self.precision)
        if phase == "discriminator":
            return (batch["images"], batch["latent"]), (ones, np.zeros_like(ones))
        return batch["latent_generator"], ones

    def _gradient_function(self, phase: str) -> Any:
        """A graph of what the phase's train_step computes before it moves anything."""
        model = self.compiled[phase]

        @tf.function
        def gradient(inputs: Any, labels: Any) -> list[Any]:
            _, gradients = model.loss_and_gradients(inputs, labels)
            return list(gradients)

        return gradient

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def outputs(self, batch: Batch, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        made = self.named("generator", batch["latent"], training)
        fresh = self.named("generator", batch["latent_generator"], training)
        return {
            **made,
            **self.named("discriminator", batch["images"], training, "/real"),
            **self.named("discriminator", made["generator/output_norm"], training, "/fake"),
            **self.named("discriminator", fresh["generator/output_norm"], training, "/fresh"),
        }

    def generate(self, inputs: Batch) -> Array:
        """G(z): [B, 784]."""
        images: Array = self.generator.predict_on_batch(inputs["latent"])
        return images


class Step(keras.Model):  # type: ignore[misc]
    """Both networks, and a train_step that moves one of them with all batch normalisation in training mode."""

    def __init__(self, generator: Any, discriminator: Any, loss_of: Loss) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.loss_of = loss_of
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """D(G(z)): what Keras asks of every model; no step is trained by it."""
        return self.discriminator(self.generator(inputs, training=training), training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """The loss and its gradients, then the optimizer; the statistics have moved on the way."""
        inputs, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        loss, gradients = self.loss_and_gradients(inputs, labels)
        self.optimizer.apply_gradients(zip(gradients, self.moved.trainable_variables, strict=True))
        return {"loss": loss}


class DiscriminatorStep(Step):
    """D on fakes, then on real images: two passes, of which each moves D's statistics."""

    @property
    def moved(self) -> Any:
        """The network whose variables move."""
        return self.discriminator

    def loss_and_gradients(self, inputs: Any, labels: Any) -> tuple[Any, Any]:
        """D on real images against ones and on fakes against zeros, and the gradient for D."""
        (x, z), (ones, zeros) = inputs, labels
        made = self.generator(z, training=True)
        with tf.GradientTape() as tape:
            fake = self.discriminator(made, training=True)
            real = self.discriminator(x, training=True)
            loss = self.loss_of(real, ones) + self.loss_of(fake, zeros)
        return loss, tape.gradient(loss, self.discriminator.trainable_variables)


class GeneratorStep(Step):
    """D on images of another z, in training mode."""

    @property
    def moved(self) -> Any:
        """The network whose variables move."""
        return self.generator

    def loss_and_gradients(self, z: Any, ones: Any) -> tuple[Any, Any]:
        """D on G's images against ones, and the gradient for G."""
        with tf.GradientTape() as tape:
            fresh = self.discriminator(self.generator(z, training=True), training=True)
            loss = self.loss_of(fresh, ones)
        return loss, tape.gradient(loss, self.generator.trainable_variables)


def cross_entropy(probability: Any, label: Any) -> Any:
    """BCELoss of probabilities [B, 1] against labels, and its gradient as PyTorch writes it: finite at 0 and 1."""

    @tf.custom_gradient
    def each(p: Any) -> tuple[Any, Any]:
        logs = label * tf.maximum(tf.math.log(p), LOG_FLOOR) + (1 - label) * tf.maximum(tf.math.log1p(-p), LOG_FLOOR)
        return -logs, lambda upstream: upstream * (p - label) / tf.maximum(p * (1 - p), GRADIENT_FLOOR)

    return tf.reduce_mean(each(probability))


def squared_error(probability: Any, label: Any) -> Any:
    """Mean squared distance of probabilities [B, 1] from labels."""
    return tf.reduce_mean(tf.square(probability - label))


def build(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """Builds the models with Keras's own initialisers."""
    return TorchGan(spec, precision, seed)
