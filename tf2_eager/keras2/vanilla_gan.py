"""vanilla_gan with Keras 2 (tf_keras): two compiled models that share weights, driven by train_on_batch.

Siblings: tf1_graph/vanilla_gan.py, tf2_eager/gradient_tape/vanilla_gan.py, tf2_eager/keras3/vanilla_gan.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras as keras

from tf2_eager.keras2.subject import KerasSubject
from tfport.models.spec import Adam, Dense, ModelSpec
from tfport.subject import Array, Batch


# --- Variables --------------------------------------------------------------------------------------------------------
def dense(layer: Dense) -> Any:
    """A Dense layer with kernel [inputs, units] from N(0, stddev) and bias [units] of zeros."""
    return keras.layers.Dense(
        layer.units,
        activation=layer.activation,
        kernel_initializer=keras.initializers.RandomNormal(stddev=layer.kernel_stddev),
        name=layer.name,
    )


def adam(numbers: Adam) -> Any:
    """Keras's Adam with every number given: its own defaults are another rate and epsilon 1e-7."""
    return keras.optimizers.Adam(
        learning_rate=numbers.learning_rate,
        beta_1=numbers.beta_1,
        beta_2=numbers.beta_2,
        epsilon=numbers.epsilon,
    )


class VanillaGan(KerasSubject):
    """The generator, the compiled discriminator, and the compiled combined model in which D is frozen."""

    paradigm = "keras2"

    def build_models(self) -> None:
        """Builds and compiles the models; optimizers are built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        self.generator = keras.Sequential(
            [keras.Input((spec.latent,)), *(dense(layer) for layer in spec.network("generator").layers)],
            name="generator",
        )
        self.discriminator = keras.Sequential(
            [keras.Input((spec.pixels,)), *(dense(layer) for layer in spec.network("discriminator").layers)],
            name="discriminator",
        )

        # --- Losses, both minimised -----------------------------------------------------------------------------------
        # The joint step gives D one batch of B real and B fake images. Binary cross entropy is a mean over all 2B, half
        # of mean(-log D(x)) + mean(-log(1 - D(G(z)))), so the weight of 2 makes it the negative of the source's loss_D.
        # Keras goes back from the sigmoid to its logits here, so a saturated D gives a finite loss: known difference 1.
        self.discriminator.compile(
            optimizer=adam(spec.optimizer("discriminator")), loss="binary_crossentropy", loss_weights=[2.0]
        )

        self.discriminator.optimizer.build(self.discriminator.trainable_variables)

        # The combined model moves G alone, by mean(-log D(G(z))): the negative of the source's loss_G.
        # Keras 2 remembers what was trainable when a model was compiled: D goes on training in its own train_on_batch.
        self.discriminator.trainable = False
        z = keras.Input((spec.latent,))
        self.gan = keras.Model(z, self.discriminator(self.generator(z)), name="gan")
        self.gan.compile(optimizer=adam(spec.optimizer("generator")), loss="binary_crossentropy")
        self.gan.optimizer.build(self.gan.trainable_variables)

        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.compiled = {"discriminator": self.discriminator, "generator": self.gan}

    # --- Training step ------------------------------------------------------------------------------------------------
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[Array, Array]:
        """What train_on_batch gets: [2B, 784] images and [2B, 1] labels for D, [B, 128] z and [B, 1] for G."""
        z = batch["latent"]
        ones = np.ones((len(z), 1), self.precision)
        if phase == "discriminator":
            fake = self.generator.predict_on_batch(z)
            return np.concatenate([batch["images"], fake]), np.concatenate([ones, np.zeros_like(ones)])
        return z, ones

    def run_phase(self, phase: str, batch: Batch) -> float:
        """One train_on_batch; the reported loss is minimised, so the source's is its negative."""
        inputs, labels = self.phase_inputs(phase, batch)
        reported = self.compiled[phase].train_on_batch(inputs, labels)
        return -float(reported)

    def step(self, batch: Batch) -> dict[str, float]:
        """The discriminator moves, then the generator against the moved discriminator, with the same z."""
        loss_d = self.run_phase("discriminator", batch)
        loss_g = self.run_phase("generator", batch)
        return {"discriminator": loss_d, "generator": loss_g}

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def outputs(self, x: Any, z: Any, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        generator_hidden, fake = self.layers_of["generator"](z, training=training)
        real_hidden, d_real = self.layers_of["discriminator"](x, training=training)
        fake_hidden, d_fake = self.layers_of["discriminator"](fake, training=training)
        return {
            "generator/hidden": generator_hidden,
            "generator/output": fake,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
        }

    def generate(self, latent: Array) -> Array:
        """G(z): [B, 784]."""
        images: Array = self.generator.predict_on_batch(latent)
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> VanillaGan:
    """Builds the models with Keras's own initialisers."""
    return VanillaGan(spec, precision, seed)
