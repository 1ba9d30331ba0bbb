"""vanilla_gan with Keras 3: two compiled models that share weights, driven by train_on_batch.

Siblings: tf1_graph/vanilla_gan.py, tf2_eager/gradient_tape/vanilla_gan.py, tf2_eager/keras2/vanilla_gan.py.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf2_eager.keras3.layers import adam, dense
from tf2_eager.keras3.subject import KerasSubject
from tfport.models.spec import ModelSpec
from tfport.subject import Array, Batch


class VanillaGan(KerasSubject):
    """The generator, the compiled discriminator, and the compiled combined model in which D is frozen."""

    def build_models(self) -> None:
        """Builds and compiles the models; optimizers are built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        self.generator = keras.Sequential(
            [keras.Input((spec.width("latent"),)), *(dense(layer) for layer in spec.network("generator").layers)],
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
        # Keras 3 looks at trainable when it traces, not when it compiles: run_phase sets the flag before every call.
        self.discriminator.trainable = False
        z = keras.Input((spec.width("latent"),))
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

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """One train_on_batch, with D's flag as its trace must find it."""
        self.discriminator.trainable = phase != "generator"
        reports = super().run_phase(phase, batch)
        self.discriminator.trainable = False
        return reports

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def outputs(self, batch: Batch, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        made = self.named("generator", batch["latent"], training)
        return {
            **made,
            **self.named("discriminator", batch["images"], training, "/real"),
            **self.named("discriminator", made["generator/output"], training, "/fake"),
        }

    def generate(self, inputs: Batch) -> Array:
        """G(z): [B, 784]."""
        images: Array = self.generator.predict_on_batch(inputs["latent"])
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> VanillaGan:
    """Builds the models with Keras's own initialisers."""
    return VanillaGan(spec, precision, seed)
