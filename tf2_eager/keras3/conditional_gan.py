"""conditional_gan with Keras 3: functional models of two inputs, driven by train_on_batch.

Siblings: tf1_graph/conditional_gan.py, tf2_eager/gradient_tape/conditional_gan.py, tf2_eager/keras2/conditional_gan.py.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf2_eager.keras3.layers import adam, dense
from tf2_eager.keras3.subject import KerasSubject
from tfport.models.spec import ModelSpec
from tfport.subject import Array, Batch


class ConditionalGan(KerasSubject):
    """The generator, the compiled discriminator, and the compiled combined model in which D is frozen."""

    def build_models(self) -> None:
        """Builds and compiles the models; optimizers are built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        g, d = spec.network("generator").layer, spec.network("discriminator").layer
        x, y, z = (keras.Input((spec.width(name),)) for name in ("images", "labels", "latent"))

        h = dense(g("hidden"))(keras.layers.Concatenate()([z, y]))  # [B, 138] to [B, 256]
        self.generator = keras.Model([z, y], dense(g("output"))(h), name="generator")

        h = dense(d("hidden"))(keras.layers.Concatenate()([x, y]))  # [B, 794] to [B, 256]
        self.discriminator = keras.Model([x, y], dense(d("output"))(h), name="discriminator")

        # --- Losses, both minimised -----------------------------------------------------------------------------------
        # The joint step gives D one batch of B real and B fake images. Binary cross entropy is a mean over all 2B, half
        # of the sum of the real images' mean and the fakes', so the weight of 2 makes it loss_D.
        self.discriminator.compile(
            optimizer=adam(spec.optimizer("discriminator")),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            loss_weights=[2.0],
        )
        self.discriminator.optimizer.build(self.discriminator.trainable_variables)

        # The combined model moves G alone, and D sees the label that G was given.
        # Keras 3 looks at trainable when it traces, not when it compiles: run_phase sets the flag before every call.
        self.discriminator.trainable = False
        self.gan = keras.Model([z, y], self.discriminator([self.generator([z, y]), y]), name="gan")
        self.gan.compile(
            optimizer=adam(spec.optimizer("generator")), loss=keras.losses.BinaryCrossentropy(from_logits=True)
        )
        self.gan.optimizer.build(self.gan.trainable_variables)

        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.compiled = {"discriminator": self.discriminator, "generator": self.gan}

    # --- Training step ------------------------------------------------------------------------------------------------
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[list[Array], Array]:
        """What train_on_batch gets: 2B images, their digits and real or fake for D; z, digits and ones [B, 1] for G."""
        z, y = batch["latent"], batch["labels"]
        ones = np.ones((len(z), 1), self.precision)
        if phase == "discriminator":
            fake = self.generator.predict_on_batch([z, y])
            images = np.concatenate([batch["images"], fake])  # [2B, 784]
            return [images, np.concatenate([y, y])], np.concatenate([ones, np.zeros_like(ones)])
        return [z, y], ones

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """One train_on_batch, with D's flag as its trace must find it."""
        self.discriminator.trainable = phase != "generator"
        reports = super().run_phase(phase, batch)
        self.discriminator.trainable = False
        return reports

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def outputs(self, batch: Batch, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        y = batch["labels"]
        made = self.named("generator", [batch["latent"], y], training)
        return {
            **made,
            **self.named("discriminator", [batch["images"], y], training, "/real"),
            **self.named("discriminator", [made["generator/output"], y], training, "/fake"),
        }

    def generate(self, inputs: Batch) -> Array:
        """G(z, y): [B, 784]."""
        images: Array = self.generator.predict_on_batch([inputs["latent"], inputs["labels"]])
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> ConditionalGan:
    """Builds the models with Keras's own initialisers."""
    return ConditionalGan(spec, precision, seed)
