"""autoencoder with tf.Module, tf.function and GradientTape: the same mean squared error, one tape, one Adam.

Siblings: tf1_graph/autoencoder.py, tf2_eager/keras2/autoencoder.py, tf2_eager/keras3/autoencoder.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Weights
from tf2_eager.gradient_tape.optimizers import Adam
from tf2_eager.gradient_tape.subject import Computed, TapeSubject, Tensors
from tfport.models.spec import ModelSpec


class Autoencoder(TapeSubject):
    """The networks as functions of tf.Variables, and the one phase as a tape."""

    def build_model(self) -> None:
        """Creates variables and the optimizer; the networks, loss and phase are the methods below."""
        spec = self.spec

        # --- Variables ------------------------------------------------------------------------------------------------
        self.e = {layer.name: Weights(layer, self.precision, "encoder") for layer in spec.network("encoder").layers}
        self.d = {layer.name: Weights(layer, self.precision, "decoder") for layer in spec.network("decoder").layers}
        self.both = [*self.trained(self.e), *self.trained(self.d)]

        # --- Optimizers -----------------------------------------------------------------------------------------------
        self.optimizer_by_name = {"autoencoder": Adam(spec.optimizer("autoencoder"), self.both, name="adam")}

    # --- Networks -----------------------------------------------------------------------------------------------------
    def encode(self, x: Any) -> dict[str, Any]:
        """Images [B, 784] to every layer's output of the encoder, at last the code [B, 32]."""
        e = self.e
        h1 = tf.nn.relu(tf.matmul(x, e["hidden1"].kernel) + e["hidden1"].bias)  # [B, 512]
        h2 = tf.nn.relu(tf.matmul(h1, e["hidden2"].kernel) + e["hidden2"].bias)  # [B, 256]
        code = tf.matmul(h2, e["code"].kernel) + e["code"].bias  # [B, 32]
        return {"hidden1": h1, "hidden2": h2, "code": code}

    def decode(self, code: Any) -> dict[str, Any]:
        """A code [B, 32] to every layer's output of the decoder, at last images [B, 784]."""
        d = self.d
        h1 = tf.nn.relu(tf.matmul(code, d["hidden1"].kernel) + d["hidden1"].bias)  # [B, 256]
        h2 = tf.nn.relu(tf.matmul(h1, d["hidden2"].kernel) + d["hidden2"].bias)  # [B, 512]
        image = tf.matmul(h2, d["output"].kernel) + d["output"].bias  # [B, 784], linear: it may leave [0, 1]
        return {"hidden1": h1, "hidden2": h2, "output": image}

    def outputs(self, batch: Tensors, training: bool) -> dict[str, Any]:  # noqa: ARG002  no layer has two modes
        """Every named output, in the order of computation."""
        encoded = self.encode(batch["images"])
        decoded = self.decode(encoded["code"])
        return {
            **{f"encoder/{name}": value for name, value in encoded.items()},
            **{f"decoder/{name}": value for name, value in decoded.items()},
        }

    def images(self, inputs: Tensors) -> Any:
        """Reconstructions: [B, 784]."""
        return self.decode(self.encode(inputs["images"])["code"])["output"]

    # --- Losses, minimised, and their gradients -----------------------------------------------------------------------
    def autoencoder_step(self, batch: Tensors) -> Computed:
        """mean((x - decoder(encoder(x)))^2), and its gradient for both networks."""
        x = batch["images"]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(x - self.decode(self.encode(x)["code"])["output"]))
        return Computed({"loss": loss}, tape.gradient(loss, self.both), [])


def build(spec: ModelSpec, precision: str, seed: int) -> Autoencoder:
    """Creates the variables with the model's own initialisers."""
    return Autoencoder(spec, precision, seed)
