"""dcgan with Keras 3: two compiled convolutional models that share weights, driven by train_on_batch.

Siblings: tf1_graph/dcgan.py, tf2_eager/gradient_tape/dcgan.py, tf2_eager/keras2/dcgan.py.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tf2_eager.keras3.layers import adam, batch_norm, conv, dense, leaky_relu
from tf2_eager.keras3.subject import KerasSubject
from tfport.models.spec import Conv, Layer, ModelSpec
from tfport.subject import Array, Batch


class Dcgan(KerasSubject):
    """The generator, the compiled discriminator, and the compiled combined model in which D is frozen."""

    def build_models(self) -> None:
        """Builds and compiles the models; optimizers are built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        g, d = spec.network("generator").layer, spec.network("discriminator").layer
        self.flat = keras.layers.Reshape((spec.pixels,), name="flat")
        self.generator = keras.Sequential(
            [
                keras.Input((spec.width("latent"),)),
                dense(g("project")),
                keras.layers.Reshape(seed_shape(g("up1"))),
                conv(g("up1")),
                batch_norm(g("norm1")),
                leaky_relu(g("norm1")),
                conv(g("up2")),
                batch_norm(g("norm2")),
                leaky_relu(g("norm2")),
                conv(g("up3")),
                self.flat,
            ],
            name="generator",
        )
        self.discriminator = keras.Sequential(
            [
                keras.Input((spec.pixels,)),
                keras.layers.Reshape((spec.image_size, spec.image_size, 1)),
                conv(d("down1")),
                leaky_relu(d("down1")),
                conv(d("down2")),
                leaky_relu(d("down2")),
                conv(d("down3")),
                leaky_relu(d("down3")),
                keras.layers.Flatten(),
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
        # Keras 3 looks at trainable when it traces, not when it compiles: run_phase sets the flag before every call.
        self.discriminator.trainable = False
        z = keras.Input((spec.width("latent_generator"),))
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
        return batch["latent_generator"], ones

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
        fresh = self.generator(batch["latent_generator"], training=training)
        return {
            **made,
            **self.named("discriminator", batch["images"], training, "/real"),
            **self.named("discriminator", self.flat(made["generator/up3"]), training, "/fake"),
            **self.named("discriminator", fresh, training, "/fresh"),
        }

    def generate(self, inputs: Batch) -> Array:
        """G(z): [B, 784]."""
        images: Array = self.generator.predict_on_batch(inputs["latent"])
        return images


def seed_shape(layer: Layer) -> tuple[int, int, int]:
    """The image [height, width, channels] that a transposed convolution takes."""
    assert isinstance(layer, Conv)
    side = layer.side // layer.stride
    return side, side, layer.inputs


def build(spec: ModelSpec, precision: str, seed: int) -> Dcgan:
    """Builds the models with Keras's own initialisers."""
    return Dcgan(spec, precision, seed)
