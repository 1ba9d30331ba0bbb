"""vanilla_gan as a TF1 graph: variables by hand, raw log losses maximised, two train ops, a Session and feed_dict.

Siblings: tf2_eager/gradient_tape/vanilla_gan.py, tf2_eager/keras2/vanilla_gan.py, tf2_eager/keras3/vanilla_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import adam, minimise, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import ModelSpec


class VanillaGan(GraphSubject):
    """The graph, its Session, and the train ops that drive it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, losses and train ops."""
        spec = self.spec
        x, z = self.inputs["images"], self.inputs["latent"]  # [B, 784], [B, 128]

        # --- Variables ------------------------------------------------------------------------------------------------
        with tf.variable_scope("generator"):
            g_hidden, g_output = (weights(layer, self.precision) for layer in spec.network("generator").layers)
        with tf.variable_scope("discriminator"):
            d_hidden, d_output = (weights(layer, self.precision) for layer in spec.network("discriminator").layers)

        # --- Networks -------------------------------------------------------------------------------------------------
        def generate(z: Any) -> tuple[Any, Any]:
            h = tf.nn.relu(tf.matmul(z, g_hidden.kernel) + g_hidden.bias)  # [B, 256]
            return h, tf.nn.sigmoid(tf.matmul(h, g_output.kernel) + g_output.bias)  # [B, 784]

        def discriminate(x: Any) -> tuple[Any, Any]:
            h = tf.nn.relu(tf.matmul(x, d_hidden.kernel) + d_hidden.bias)  # [B, 256]
            return h, tf.nn.sigmoid(tf.matmul(h, d_output.kernel) + d_output.bias)  # [B, 1]

        generator_hidden, self.images = generate(z)
        real_hidden, d_real = discriminate(x)
        fake_hidden, d_fake = discriminate(self.images)
        outputs = {
            "generator/hidden": generator_hidden,
            "generator/output": self.images,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
        }
        self.outputs = {True: outputs, False: outputs}  # no layer has two modes

        # --- Losses, both maximised -----------------------------------------------------------------------------------
        loss_d = tf.reduce_mean(tf.log(d_real) + tf.log(1 - d_fake))
        loss_g = tf.reduce_mean(tf.log(d_fake))

        # --- Train ops ------------------------------------------------------------------------------------------------
        adam_d = adam(spec.optimizer("discriminator"), self.precision, "adam_d")
        adam_g = adam(spec.optimizer("generator"), self.precision, "adam_g")
        train_d = minimise(adam_d, -loss_d, [*d_hidden, *d_output])
        train_g = minimise(adam_g, -loss_g, [*g_hidden, *g_output])
        self.train_ops = {
            "discriminator": TrainOp(train_d, {"loss_D": loss_d}, adam_d),
            "generator": TrainOp(train_g, {"loss_G": loss_g}, adam_g),
        }


def build(spec: ModelSpec, precision: str, seed: int) -> VanillaGan:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return VanillaGan(spec, precision, seed)
