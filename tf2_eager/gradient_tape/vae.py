"""vae with tf.Module, tf.function and GradientTape: the noise is part of the batch, one tape, one RMSProp.

Siblings: tf1_graph/vae.py, tf2_eager/keras2/vae.py, tf2_eager/keras3/vae.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Weights
from tf2_eager.gradient_tape.optimizers import RMSProp
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.spec import ModelSpec


class Vae(TapeSubject):
    """The networks as functions of tf.Variables, and the one phase as a tape."""

    def build_model(self) -> None:
        """Creates variables and the optimizer; the networks, loss and phase are the methods below."""
        spec = self.spec

        # --- Variables ------------------------------------------------------------------------------------------------
        self.e = {layer.name: Weights(layer, self.precision, "encoder") for layer in spec.network("encoder").layers}
        self.d = {layer.name: Weights(layer, self.precision, "decoder") for layer in spec.network("decoder").layers}
        self.both = [*self.trained(self.e), *self.trained(self.d)]

        # --- Optimizers -----------------------------------------------------------------------------------------------
        self.optimizer_by_name = {"vae": RMSProp(spec.optimizer("vae"), self.both, name="rmsprop")}

    # --- Networks -----------------------------------------------------------------------------------------------------
    def encode(self, x: Any) -> dict[str, Any]:
        """Images [B, 784] to the encoder's hidden layer [B, 256], and the means and log variances of z, each [B, 2]."""
        e = self.e
        h = tf.nn.relu(tf.matmul(x, e["hidden"].kernel) + e["hidden"].bias)  # [B, 256]
        mean = tf.matmul(h, e["mean"].kernel) + e["mean"].bias  # [B, 2]
        log_variance = tf.matmul(h, e["log_variance"].kernel) + e["log_variance"].bias  # [B, 2]
        return {"hidden": h, "mean": mean, "log_variance": log_variance}

    def decode(self, z: Any) -> tuple[dict[str, Any], Any]:
        """z [B, 2] to every layer's output of the decoder, at last images [B, 784], and the images' logits."""
        d = self.d
        h = tf.nn.relu(tf.matmul(z, d["hidden"].kernel) + d["hidden"].bias)  # [B, 256]
        logit = tf.matmul(h, d["output"].kernel) + d["output"].bias  # [B, 784]
        return {"hidden": h, "output": tf.nn.sigmoid(logit)}, logit

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:  # noqa: ARG002  no layer has two modes
        """Every named output, in the order of computation."""
        encoded = self.encode(batch["images"])
        decoded, _ = self.decode(sample(encoded["mean"], encoded["log_variance"], batch["epsilon"]))
        return {
            **{f"encoder/{name}": value for name, value in encoded.items()},
            **{f"decoder/{name}": value for name, value in decoded.items()},
        }

    def images(self, inputs: Tensors) -> Any:
        """What the decoder makes of codes [N, 2]: [N, 784]."""
        return self.decode(inputs["code"])[0]["output"]

    # --- Losses, minimised, and their gradients -----------------------------------------------------------------------
    def vae_step(self, batch: Tensors) -> Computed:
        """mean(binary cross entropy) + mean(KL) / 784, and its gradient for both networks."""
        x = batch["images"]
        with tf.GradientTape() as tape:
            encoded = self.encode(x)
            mean, log_variance = encoded["mean"], encoded["log_variance"]
            _, logit = self.decode(sample(mean, log_variance, batch["epsilon"]))
            # Both terms are a pixel's share, since the cross entropy is a mean over the pixels.
            entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logit))
            divergence = -0.5 * tf.reduce_sum(1 + log_variance - tf.exp(log_variance) - tf.square(mean), axis=-1)
            loss = entropy + tf.reduce_mean(divergence) / self.spec.pixels
        return Computed({"loss": loss}, tape.gradient(loss, self.both), [])


def sample(mean: Any, log_variance: Any, epsilon: Any) -> Any:
    """z [B, 2] of N(mean, exp(log_variance)), given epsilon of N(0, 1)."""
    return mean + tf.exp(log_variance / 2) * epsilon


def build(spec: ModelSpec, precision: str, seed: int) -> Vae:
    """Creates the variables with the model's own initialisers."""
    return Vae(spec, precision, seed)
