"""vae with Keras 2 (tf_keras): a functional model with add_loss, driven by train_on_batch.

Siblings: tf1_graph/vae.py, tf2_eager/gradient_tape/vae.py, tf2_eager/keras3/vae.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tf2_eager.keras2.layers import dense, rmsprop
from tf2_eager.keras2.subject import KerasSubject
from tfport.models.spec import ModelSpec
from tfport.subject import Array, Batch


class Sampling(keras.layers.Layer):  # type: ignore[misc]
    """z [B, 2] of N(mean, exp(log_variance)), given epsilon of N(0, 1): noise is fed, and never drawn in here."""

    def call(self, inputs: Any) -> Any:
        """(mean, log_variance, epsilon), each [B, 2], to z."""
        mean, log_variance, epsilon = inputs
        return mean + tf.exp(log_variance / 2) * epsilon


def divergence(mean: Any, log_variance: Any) -> Any:
    """Mean over the batch of KL(N(mean, exp(log_variance)) || N(0, 1)), means and log variances [B, 2]."""
    kl = -0.5 * tf.reduce_sum(1 + log_variance - tf.exp(log_variance) - tf.square(mean), axis=-1)  # [B]
    return tf.reduce_mean(kl)


class Vae(KerasSubject):
    """The encoder, the decoder, and the compiled model that samples between them."""

    def build_models(self) -> None:
        """Builds and compiles the models; the optimizer is built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        e, d = spec.network("encoder").layer, spec.network("decoder").layer
        x = keras.Input((spec.pixels,), name="images")
        hidden = dense(e("hidden"))(x)
        self.encoder = keras.Model(x, [dense(e("mean"))(hidden), dense(e("log_variance"))(hidden)], name="encoder")
        self.decoder = keras.Sequential(
            [keras.Input((spec.network("decoder").inputs,)), dense(d("hidden")), dense(d("output"))], name="decoder"
        )
        self.sampling = Sampling(name="sampling")

        # --- Losses, minimised ----------------------------------------------------------------------------------------
        # Binary cross entropy is a mean over the pixels, so the divergence is taken by the pixel too.
        # Keras 2 takes a symbolic tensor into a model's loss; Keras 3 refuses it.
        epsilon = keras.Input((spec.width("epsilon"),), name="epsilon")
        mean, log_variance = self.encoder(x)
        self.vae = keras.Model([x, epsilon], self.decoder(self.sampling([mean, log_variance, epsilon])), name="vae")
        self.vae.add_loss(divergence(mean, log_variance) / spec.pixels)
        self.vae.compile(optimizer=rmsprop(spec.optimizer("vae")), loss="binary_crossentropy")
        self.vae.optimizer.build(self.vae.trainable_variables)

        self.networks = {"encoder": self.encoder, "decoder": self.decoder}
        self.compiled = {"vae": self.vae}

    # --- Training step ------------------------------------------------------------------------------------------------
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[list[Array], Array]:  # noqa: ARG002  there is one
        """What train_on_batch gets: images [B, 784] and noise [B, 2], and the same images as labels."""
        return [batch["images"], batch["epsilon"]], batch["images"]

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def outputs(self, batch: Batch, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        encoded = self.named("encoder", batch["images"], training)
        z = self.sampling([encoded["encoder/mean"], encoded["encoder/log_variance"], batch["epsilon"]])
        return {**encoded, **self.named("decoder", z, training)}

    def generate(self, inputs: Batch) -> Array:
        """What the decoder makes of codes [N, 2]: [N, 784]."""
        images: Array = self.decoder.predict_on_batch(inputs["code"])
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> Vae:
    """Builds the models with Keras's own initialisers."""
    return Vae(spec, precision, seed)
