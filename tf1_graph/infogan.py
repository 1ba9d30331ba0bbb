"""infogan as a TF1 graph: a hidden layer that D and Q share, three train ops, and two Adams that hold that layer.

Siblings: tf2_eager/gradient_tape/infogan.py, tf2_eager/keras2/infogan.py, tf2_eager/keras3/infogan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import adam, minimise, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.infogan import CODE_WEIGHT
from tfport.models.spec import ModelSpec


class Infogan(GraphSubject):
    """The graph, its Session, and the train ops that drive it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, losses and train ops."""
        spec = self.spec
        x, z = self.inputs["images"], self.inputs["latent"]  # [B, 784], [B, 62]
        category, codes = self.inputs["category"], self.inputs["codes"]  # [B, 10], [B, 2]

        # --- Variables ------------------------------------------------------------------------------------------------
        with tf.variable_scope("generator"):
            g_hidden, g_output = (weights(layer, self.precision) for layer in spec.network("generator").layers)
        with tf.variable_scope("discriminator"):
            d_hidden, d_output = (weights(layer, self.precision) for layer in spec.network("discriminator").layers)
        with tf.variable_scope("recognition"):
            q_category, q_codes = (weights(layer, self.precision) for layer in spec.network("recognition").layers)

        # --- Networks -------------------------------------------------------------------------------------------------
        def generate(z: Any, category: Any, codes: Any) -> tuple[Any, Any]:
            joined = tf.concat([z, category, codes], axis=1)  # [B, 74]
            h = tf.nn.relu(tf.matmul(joined, g_hidden.kernel) + g_hidden.bias)  # [B, 256]
            return h, tf.nn.sigmoid(tf.matmul(h, g_output.kernel) + g_output.bias)  # [B, 784]

        def discriminate(x: Any) -> tuple[Any, Any]:
            h = tf.nn.relu(tf.matmul(x, d_hidden.kernel) + d_hidden.bias)  # [B, 256], which Q takes too
            return h, tf.matmul(h, d_output.kernel) + d_output.bias  # [B, 1], a logit

        def recognise(h: Any) -> tuple[Any, Any]:
            logits = tf.matmul(h, q_category.kernel) + q_category.bias  # [B, 10]
            return logits, tf.matmul(h, q_codes.kernel) + q_codes.bias  # [B, 2], the means of unit normals

        generator_hidden, self.images = generate(z, category, codes)
        real_hidden, d_real = discriminate(x)
        fake_hidden, d_fake = discriminate(self.images)
        logits, means = recognise(fake_hidden)
        outputs = {
            "generator/hidden": generator_hidden,
            "generator/output": self.images,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
            "recognition/category": logits,
            "recognition/codes": means,
        }
        self.outputs = {True: outputs, False: outputs}  # no layer has two modes

        # --- Losses, all minimised ------------------------------------------------------------------------------------
        def cross_entropy(label: float, logit: Any) -> Any:
            labels = tf.fill(tf.shape(logit), tf.constant(label, self.precision))
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logit))

        loss_d = cross_entropy(1.0, d_real) + cross_entropy(0.0, d_fake)
        loss_g = cross_entropy(1.0, d_fake)
        loss_category = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(labels=category, logits=logits))
        loss_codes = tf.reduce_mean(0.5 * tf.reduce_sum(tf.square(codes - means), axis=1))
        loss_i = loss_category + CODE_WEIGHT * loss_codes

        # --- Train ops ------------------------------------------------------------------------------------------------
        # D's hidden layer is moved by two Adams, each with slots of its own: D's, and the information phase's.
        adam_d = adam(spec.optimizer("discriminator"), self.precision, "adam_d")
        adam_g = adam(spec.optimizer("generator"), self.precision, "adam_g")
        adam_i = adam(spec.optimizer("information"), self.precision, "adam_i")
        train_d = minimise(adam_d, loss_d, [*d_hidden, *d_output])
        train_g = minimise(adam_g, loss_g, [*g_hidden, *g_output])
        train_i = minimise(adam_i, loss_i, [*g_hidden, *g_output, *d_hidden, *q_category, *q_codes])
        self.train_ops = {
            "discriminator": TrainOp(train_d, {"loss_D": loss_d}, adam_d),
            "generator": TrainOp(train_g, {"loss_G": loss_g}, adam_g),
            "information": TrainOp(train_i, {"loss_I": loss_i}, adam_i),
        }


def build(spec: ModelSpec, precision: str, seed: int) -> Infogan:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return Infogan(spec, precision, seed)
