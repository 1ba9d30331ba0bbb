"""vae as a TF1 graph: the noise is fed, the loss is written out, RMSProp counts its steps in a global step.

Siblings: tf2_eager/gradient_tape/vae.py, tf2_eager/keras2/vae.py, tf2_eager/keras3/vae.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import minimise, rmsprop, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import ModelSpec


class Vae(GraphSubject):
    """The graph, its Session, and the train op that drives it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, loss and train op."""
        spec = self.spec
        x, epsilon = self.inputs["images"], self.inputs["epsilon"]  # [B, 784], [B, 2]
        code = tf.placeholder(self.precision, [None, spec.network("decoder").inputs], name="code")  # [N, 2]
        self.inputs["code"] = code  # what `generate` is given

        # --- Variables ------------------------------------------------------------------------------------------------
        with tf.variable_scope("encoder"):
            e = {layer.name: weights(layer, self.precision) for layer in spec.network("encoder").layers}
        with tf.variable_scope("decoder"):
            d = {layer.name: weights(layer, self.precision) for layer in spec.network("decoder").layers}

        # --- Networks -------------------------------------------------------------------------------------------------
        def encode(x: Any) -> dict[str, Any]:
            h = tf.nn.relu(tf.matmul(x, e["hidden"].kernel) + e["hidden"].bias)  # [B, 256]
            mean = tf.matmul(h, e["mean"].kernel) + e["mean"].bias  # [B, 2]
            log_variance = tf.matmul(h, e["log_variance"].kernel) + e["log_variance"].bias  # [B, 2]
            return {"hidden": h, "mean": mean, "log_variance": log_variance}

        def decode(z: Any) -> tuple[dict[str, Any], Any]:
            h = tf.nn.relu(tf.matmul(z, d["hidden"].kernel) + d["hidden"].bias)  # [B, 256]
            logit = tf.matmul(h, d["output"].kernel) + d["output"].bias  # [B, 784]
            return {"hidden": h, "output": tf.nn.sigmoid(logit)}, logit

        encoded = encode(x)
        mean, log_variance = encoded["mean"], encoded["log_variance"]
        z = mean + tf.exp(log_variance / 2) * epsilon
        decoded, logit = decode(z)
        self.images = decode(code)[0]["output"]
        outputs = {
            **{f"encoder/{name}": value for name, value in encoded.items()},
            **{f"decoder/{name}": value for name, value in decoded.items()},
        }
        self.outputs = {True: outputs, False: outputs}  # no layer has two modes

        # --- Losses, minimised ----------------------------------------------------------------------------------------
        # Both terms are a pixel's share, since the cross entropy is a mean over the pixels.
        entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logit))
        divergence = -0.5 * tf.reduce_sum(1 + log_variance - tf.exp(log_variance) - tf.square(mean), axis=-1)  # [B]
        loss = entropy + tf.reduce_mean(divergence) / spec.pixels

        # --- Train ops ------------------------------------------------------------------------------------------------
        optimizer = rmsprop(spec.optimizer("vae"), self.precision, "rmsprop")
        steps = tf.train.get_or_create_global_step()
        train = minimise(optimizer, loss, tf.trainable_variables(), global_step=steps)
        self.train_ops = {"vae": TrainOp(train, {"loss": loss}, optimizer)}
        # TF1's RMSProp starts its mean square at one, Keras's at zero, and the source is Keras. Left at one, the first
        # step of a gradient of 0.01 is 300 times smaller, and nothing says so.
        slots = [optimizer.get_slot(variable, "rms") for variable in tf.trainable_variables()]
        self.start_ops = [tf.assign(slot, tf.zeros_like(slot)) for slot in slots]


def build(spec: ModelSpec, precision: str, seed: int) -> Vae:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return Vae(spec, precision, seed)
