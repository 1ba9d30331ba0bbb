"""autoencoder with Keras 3: two Sequential models, one after the other, driven by train_on_batch.

Siblings: tf1_graph/autoencoder.py, tf2_eager/gradient_tape/autoencoder.py, tf2_eager/keras2/autoencoder.py.
"""

from __future__ import annotations

from typing import Any

import keras

from tf2_eager.keras3.layers import adam, dense
from tf2_eager.keras3.subject import KerasSubject
from tfport.models.spec import ModelSpec
from tfport.subject import Array, Batch


class Autoencoder(KerasSubject):
    """The encoder, the decoder, and the compiled model that runs one after the other."""

    def build_models(self) -> None:
        """Builds and compiles the models; the optimizer is built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        self.encoder = keras.Sequential(
            [keras.Input((spec.pixels,)), *(dense(layer) for layer in spec.network("encoder").layers)],
            name="encoder",
        )
        self.decoder = keras.Sequential(
            [
                keras.Input((spec.network("decoder").inputs,)),
                *(dense(layer) for layer in spec.network("decoder").layers),
            ],
            name="decoder",
        )

        # --- Losses, minimised ----------------------------------------------------------------------------------------
        self.autoencoder = keras.Sequential(
            [keras.Input((spec.pixels,)), self.encoder, self.decoder], name="autoencoder"
        )
        self.autoencoder.compile(optimizer=adam(spec.optimizer("autoencoder")), loss="mean_squared_error")
        self.autoencoder.optimizer.build(self.autoencoder.trainable_variables)

        self.networks = {"encoder": self.encoder, "decoder": self.decoder}
        self.compiled = {"autoencoder": self.autoencoder}

    # --- Training step ------------------------------------------------------------------------------------------------
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[Array, Array]:  # noqa: ARG002  there is one
        """What train_on_batch gets: images [B, 784], and the same images as labels."""
        return batch["images"], batch["images"]

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def outputs(self, batch: Batch, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        encoded = self.named("encoder", batch["images"], training)
        return {**encoded, **self.named("decoder", encoded["encoder/code"], training)}

    def generate(self, inputs: Batch) -> Array:
        """Reconstructions: [B, 784]."""
        images: Array = self.autoencoder.predict_on_batch(inputs["images"])
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> Autoencoder:
    """Builds the models with Keras's own initialisers."""
    return Autoencoder(spec, precision, seed)
