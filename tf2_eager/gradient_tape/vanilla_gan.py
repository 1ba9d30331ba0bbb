"""vanilla_gan with tf.Module, tf.function and GradientTape: the same maximised log losses, two tapes, two Adams.

Siblings: tf1_graph/vanilla_gan.py, tf2_eager/keras2/vanilla_gan.py, tf2_eager/keras3/vanilla_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.adam import Adam
from tf2_eager.gradient_tape.subject import TapeSubject
from tfport.models.spec import Dense, ModelSpec
from tfport.subject import Array, Batch


# --- Variables --------------------------------------------------------------------------------------------------------
def dense_variables(layer: Dense, precision: str, network: str) -> tuple[Any, Any]:
    """kernel [inputs, units] from N(0, stddev) and bias [units] of zeros."""
    initial = tf.random.normal([layer.inputs, layer.units], stddev=layer.kernel_stddev, dtype=precision)
    kernel = tf.Variable(initial, name=f"{network}/{layer.name}/kernel")
    bias = tf.Variable(tf.zeros([layer.units], precision), name=f"{network}/{layer.name}/bias")
    return kernel, bias


class VanillaGan(TapeSubject):
    """The networks as functions of tf.Variables, and the training step as tf.functions."""

    paradigm = "gradient_tape"

    def build_model(self) -> None:
        """Creates variables and optimizers; the networks, losses and phases are the methods below."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        hidden, output = (
            dense_variables(each, self.precision, "generator") for each in spec.network("generator").layers
        )
        self.generator = [*hidden, *output]

        hidden, output = (
            dense_variables(each, self.precision, "discriminator") for each in spec.network("discriminator").layers
        )
        self.discriminator = [*hidden, *output]

        self.variable_lists = {"generator": self.generator, "discriminator": self.discriminator}

        # --- Optimizers -----------------------------------------------------------------------------------------------
        self.adams = {
            "discriminator": Adam(spec.optimizer("discriminator"), self.discriminator, name="adam_d"),
            "generator": Adam(spec.optimizer("generator"), self.generator, name="adam_g"),
        }

    def generate_images(self, z: Any) -> tuple[Any, Any]:
        """G: z [B, 128] to its hidden layer [B, 256] and images [B, 784]."""
        h = tf.nn.relu(tf.matmul(z, self.generator[0]) + self.generator[1])
        return h, tf.nn.sigmoid(tf.matmul(h, self.generator[2]) + self.generator[3])

    def discriminate(self, x: Any) -> tuple[Any, Any]:
        """D: images [B, 784] to its hidden layer [B, 256] and the probability of being real [B, 1]."""
        h = tf.nn.relu(tf.matmul(x, self.discriminator[0]) + self.discriminator[1])
        return h, tf.nn.sigmoid(tf.matmul(h, self.discriminator[2]) + self.discriminator[3])

    # --- Losses, both maximised ---------------------------------------------------------------------------------------
    def loss_d(self, x: Any, z: Any) -> Any:
        """mean(log D(x) + log(1 - D(G(z)))), a scalar."""
        _, fake = self.generate_images(z)
        _, d_real = self.discriminate(x)
        _, d_fake = self.discriminate(fake)
        return tf.reduce_mean(tf.math.log(d_real) + tf.math.log(1 - d_fake))

    def loss_g(self, z: Any) -> Any:
        """mean(log D(G(z))), a scalar."""
        _, fake = self.generate_images(z)
        _, d_fake = self.discriminate(fake)
        return tf.reduce_mean(tf.math.log(d_fake))

    # --- Gradients and updates ----------------------------------------------------------------------------------------
    def loss_and_gradients(self, phase: str, x: Any, z: Any) -> tuple[Any, list[Any]]:
        """The phase's maximised loss, and the gradient of its negative for the network that the phase moves."""
        with tf.GradientTape() as tape:
            loss = self.loss_d(x, z) if phase == "discriminator" else self.loss_g(z)
            objective = -loss
        return loss, tape.gradient(objective, self.adams[phase].held)

    @tf.function
    def gradients_function(self, phase: str, x: Any, z: Any) -> list[Any]:
        """Gradients alone, with nothing updated."""
        return self.loss_and_gradients(phase, x, z)[1]

    @tf.function
    def phase_function(self, phase: str, x: Any, z: Any) -> Any:
        """One phase: loss, gradients, update."""
        loss, gradients = self.loss_and_gradients(phase, x, z)
        self.adams[phase].apply(gradients)
        return loss

    @tf.function
    def step_function(self, x: Any, z: Any) -> tuple[Any, Any]:
        """The discriminator moves, then the generator against the moved discriminator, with the same z."""
        loss_d = self.phase_function("discriminator", x, z)
        loss_g = self.phase_function("generator", x, z)
        return loss_d, loss_g

    @tf.function
    def forward_function(self, x: Any, z: Any) -> dict[str, Any]:
        """Every named output."""
        generator_hidden, fake = self.generate_images(z)
        real_hidden, d_real = self.discriminate(x)
        fake_hidden, d_fake = self.discriminate(fake)
        return {
            "generator/hidden": generator_hidden,
            "generator/output": fake,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
        }

    @tf.function
    def generate_function(self, z: Any) -> Any:
        """Images alone."""
        return self.generate_images(z)[1]

    # --- Training step ------------------------------------------------------------------------------------------------
    def run_phase(self, phase: str, batch: Batch) -> float:
        """One phase; the loss is the one before the update."""
        return float(self.phase_function(phase, *self.tensors(batch)))

    def step(self, batch: Batch) -> dict[str, float]:
        """Both phases in one tf.function."""
        loss_d, loss_g = self.step_function(*self.tensors(batch))
        return {"discriminator": float(loss_d), "generator": float(loss_g)}

    def generate(self, latent: Array) -> Array:
        """G(z): [B, 784]."""
        images: Array = self.generate_function(tf.constant(latent, self.precision)).numpy()
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> VanillaGan:
    """Creates the variables with the model's own initialisers."""
    return VanillaGan(spec, precision, seed)
