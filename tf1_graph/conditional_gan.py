"""conditional_gan as a TF1 graph: the label joined to both inputs, cross entropy on logits, two train ops.

Siblings: tf2_eager/gradient_tape/conditional_gan.py, tf2_eager/keras2/conditional_gan.py,
tf2_eager/keras3/conditional_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import adam, minimise, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import ModelSpec


class ConditionalGan(GraphSubject):
    """The graph, its Session, and the train ops that drive it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, losses and train ops."""
        spec = self.spec
        x, y, z = (self.inputs[name] for name in ("images", "labels", "latent"))  # [B, 784], [B, 10], [B, 128]

        # --- Variables ------------------------------------------------------------------------------------------------
        with tf.variable_scope("generator"):
            g_hidden, g_output = (weights(layer, self.precision) for layer in spec.network("generator").layers)
        with tf.variable_scope("discriminator"):
            d_hidden, d_output = (weights(layer, self.precision) for layer in spec.network("discriminator").layers)

        # --- Networks -------------------------------------------------------------------------------------------------
        def generate(z: Any, y: Any) -> tuple[Any, Any]:
            joined = tf.concat([z, y], axis=1)  # [B, 138]
            h = tf.nn.relu(tf.matmul(joined, g_hidden.kernel) + g_hidden.bias)  # [B, 256]
            return h, tf.nn.sigmoid(tf.matmul(h, g_output.kernel) + g_output.bias)  # [B, 784]

        def discriminate(x: Any, y: Any) -> tuple[Any, Any]:
            joined = tf.concat([x, y], axis=1)  # [B, 794]
            h = tf.nn.relu(tf.matmul(joined, d_hidden.kernel) + d_hidden.bias)  # [B, 256]
            return h, tf.matmul(h, d_output.kernel) + d_output.bias  # [B, 1], a logit

        generator_hidden, self.images = generate(z, y)
        real_hidden, d_real = discriminate(x, y)
        fake_hidden, d_fake = discriminate(self.images, y)
        outputs = {
            "generator/hidden": generator_hidden,
            "generator/output": self.images,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
        }
        self.outputs = {True: outputs, False: outputs}  # no layer has two modes

        # --- Losses, both minimised -----------------------------------------------------------------------------------
        def cross_entropy(label: float, logit: Any) -> Any:
            labels = tf.fill(tf.shape(logit), tf.constant(label, self.precision))
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logit))

        loss_d = cross_entropy(1.0, d_real) + cross_entropy(0.0, d_fake)
        loss_g = cross_entropy(1.0, d_fake)

        # --- Train ops ------------------------------------------------------------------------------------------------
        adam_d = adam(spec.optimizer("discriminator"), self.precision, "adam_d")
        adam_g = adam(spec.optimizer("generator"), self.precision, "adam_g")
        train_d = minimise(adam_d, loss_d, [*d_hidden, *d_output])
        train_g = minimise(adam_g, loss_g, [*g_hidden, *g_output])
        self.train_ops = {
            "discriminator": TrainOp(train_d, {"loss_D": loss_d}, adam_d),
            "generator": TrainOp(train_g, {"loss_G": loss_g}, adam_g),
        }


def build(spec: ModelSpec, precision: str, seed: int) -> ConditionalGan:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return ConditionalGan(spec, precision, seed)
