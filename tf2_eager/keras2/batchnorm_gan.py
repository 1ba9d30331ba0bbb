"""batchnorm_gan with Keras 2 (tf_keras): two compiled models that share weights, driven by train_on_batch.

Siblings: tf1_graph/batchnorm_gan.py, tf2_eager/gradient_tape/batchnorm_gan.py, tf2_eager/keras3/batchnorm_gan.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras as keras

from tf2_eager.keras2.layers import adam, batch_norm, dense
from tf2_eager.keras2.subject import KerasSubject
from tfport.models.spec import ModelSpec
from tfport.subject import Array, Batch


class BatchnormGan(KerasSubject):
    """The generator, the compiled discriminator, and the compiled combined model in which D is frozen."""

    def build_models(self) -> None:
        """Builds and compiles the models; optimizers are built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        g, d = spec.network("generator").layer, spec.network("discriminator").layer
        self.generator = keras.Sequential(
            [
                keras.Input((spec.width("latent"),)),
                dense(g("hidden1")),
                batch_norm(g("norm1")),
                dense(g("hidden2")),
                batch_norm(g("norm2")),
                dense(g("hidden3")),
                batch_norm(g("norm3")),
                dense(g("output")),
            ],
            name="generator",
        )
        self.discriminator = keras.Sequential(
            [
                keras.Input((spec.pixels,)),
                dense(d("hidden1")),
                dense(d("hidden2")),
                dense(d("hidden3")),
                dense(d("output")),
            ],
            name="discriminator",
        )

        # --- Losses, minimised, and accuracies ------------------------------------------------------------------------
        self.discriminator.compile(
            optimizer=adam(spec.optimizer("discriminator")), loss="binary_crossentropy", metrics=["accuracy"]
        )
        self.discriminator.optimizer.build(self.discriminator.trainable_variables)

        # The combined model moves G alone, with G in training mode and D frozen.
        # Keras 2 remembers what was trainable when a model was compiled: D goes on training in its own train_on_batch.
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
            return self.generator.predict_on_batch(z), np.zeros_like(ones)  # G in inference mode
        return z, ones

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


def build(spec: ModelSpec, precision: str, seed: int) -> BatchnormGan:
    """Builds the models with Keras's own initialisers."""
    return BatchnormGan(spec, precision, seed)
