"""leaky_gan with Keras 3: LeakyReLU as a layer, two compiled models that share D, train_on_batch.

Siblings: tf1_graph/leaky_gan.py, tf2_eager/gradient_tape/leaky_gan.py, tf2_eager/keras2/leaky_gan.py.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf2_eager.keras3.layers import adam, dense, leaky_relu
from tf2_eager.keras3.subject import KerasSubject
from tfport.models.spec import Dense, ModelSpec
from tfport.subject import Array, Batch


class LeakyGan(KerasSubject):
    """The generator, the compiled discriminator, and the compiled combined model in which D is frozen."""

    def build_models(self) -> None:
        """Builds and compiles the models; optimizers are built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        g, d = spec.network("generator").layer, spec.network("discriminator").layer
        self.generator = keras.Sequential(
            [
                keras.Input((spec.width("latent"),)),
                # One note forgets the Dense layer: its activation then takes z itself.
                *([dense(g("hidden"))] if isinstance(g("hidden"), Dense) else []),
                leaky_relu(g("hidden")),
                dense(g("output")),
            ],
            name="generator",
        )
        self.discriminator = keras.Sequential(
            [
                keras.Input((spec.pixels,)),
                dense(d("hidden")),
                leaky_relu(d("hidden")),
                dense(d("output")),
            ],
            name="discriminator",
        )

        # --- Losses, minimised, and accuracies ------------------------------------------------------------------------
        self.discriminator.compile(
            optimizer=adam(spec.optimizer("discriminator")), loss="binary_crossentropy", metrics=["accuracy"]
        )
        self.discriminator.optimizer.build(self.discriminator.trainable_variables)

        # The combined model moves G alone, with D frozen.
        # Keras 3 looks at trainable when it traces, not when it compiles: run_phase sets the flag before every call.
        self.discriminator.trainable = False
        z = keras.Input((spec.width("latent"),))
        self.gan = keras.Model(z, self.discriminator(self.generator(z)), name="gan")
        self.gan.compile(optimizer=adam(spec.optimizer("generator")), loss="binary_crossentropy")
        self.gan.optimizer.build(self.gan.trainable_variables)

        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.compiled = {
            "discriminator_real": self.discriminator,
            "discriminator_fake": self.discriminator,
            "generator": self.gan,
        }

    # --- Training step ------------------------------------------------------------------------------------------------
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[Array, Array]:
        """What train_on_batch gets: images [B, 784] with ones or zeros [B, 1] for D, z [B, 100] with ones for G."""
        z = batch["latent"]
        ones = np.ones((len(z), 1), self.precision)
        if phase == "discriminator_real":
            return batch["images"], ones
        if phase == "discriminator_fake":
            return self.generator.predict_on_batch(z), np.zeros_like(ones)
        return batch.get("latent_generator", z), ones  # one note draws another z for G's own step

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
        judged = {"real": batch["images"], "fake": made["generator/output"]}
        if "latent_generator" in batch:
            judged["fresh"] = self.generator(batch["latent_generator"], training=training)
        found = dict(made)
        for of, images in judged.items():
            found |= self.named("discriminator", images, training, f"/{of}")
        return found

    def generate(self, inputs: Batch) -> Array:
        """G(z): [B, 784]."""
        images: Array = self.generator.predict_on_batch(inputs["latent"])
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> LeakyGan:
    """Builds the models with Keras's own initialisers."""
    return LeakyGan(spec, precision, seed)
