"""autoencoder as a TF1 graph: variables by hand, mean squared error, one train op, a Session and feed_dict.

Siblings: tf2_eager/gradient_tape/autoencoder.py, tf2_eager/keras2/autoencoder.py, tf2_eager/keras3/autoencoder.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import adam, minimise, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import ModelSpec


class Autoencoder(GraphSubject):
    """The graph, its Session, and the train op that drives it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, loss and train op."""
        spec = self.spec
        x = self.inputs["images"]  # [B, 784]

        # --- Variables ------------------------------------------------------------------------------------------------
        with tf.variable_scope("encoder"):
            e = {layer.name: weights(layer, self.precision) for layer in spec.network("encoder").layers}
        with tf.variable_scope("decoder"):
            d = {layer.name: weights(layer, self.precision) for layer in spec.network("decoder").layers}

        # --- Networks -------------------------------------------------------------------------------------------------
        def encode(x: Any) -> dict[str, Any]:
            h1 = tf.nn.relu(tf.matmul(x, e["hidden1"].kernel) + e["hidden1"].bias)  # [B, 512]
            h2 = tf.nn.relu(tf.matmul(h1, e["hidden2"].kernel) + e["hidden2"].bias)  # [B, 256]
            code = tf.matmul(h2, e["code"].kernel) + e["code"].bias  # [B, 32]
            return {"hidden1": h1, "hidden2": h2, "code": code}

        def decode(code: Any) -> dict[str, Any]:
            h1 = tf.nn.relu(tf.matmul(code, d["hidden1"].kernel) + d["hidden1"].bias)  # [B, 256]
            h2 = tf.nn.relu(tf.matmul(h1, d["hidden2"].kernel) + d["hidden2"].bias)  # [B, 512]
            image = tf.matmul(h2, d["output"].kernel) + d["output"].bias  # [B, 784], linear: it may leave [0, 1]
            return {"hidden1": h1, "hidden2": h2, "output": image}

        encoded = encode(x)
        decoded = decode(encoded["code"])
        self.images = decoded["output"]
        outputs = {
            **{f"encoder/{name}": value for name, value in encoded.items()},
            **{f"decoder/{name}": value for name, value in decoded.items()},
        }
        self.outputs = {True: outputs, False: outputs}  # no layer has two modes

        # --- Losses, minimised ----------------------------------------------------------------------------------------
        loss = tf.reduce_mean(tf.square(x - self.images))

        # --- Train ops ------------------------------------------------------------------------------------------------
        optimizer = adam(spec.optimizer("autoencoder"), self.precision, "adam")
        train = minimise(optimizer, loss, tf.trainable_variables())
        self.train_ops = {"autoencoder": TrainOp(train, {"loss": loss}, optimizer)}


def build(spec: ModelSpec, precision: str, seed: int) -> Autoencoder:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return Autoencoder(spec, precision, seed)
