"""leaky_gan as a TF1 graph: leaky rectifiers by hand, D in two half steps, and the notes' three forms in one graph.

Siblings: tf2_eager/gradient_tape/leaky_gan.py, tf2_eager/keras2/leaky_gan.py, tf2_eager/keras3/leaky_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import adam, minimise, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import ModelSpec


class LeakyGan(GraphSubject):
    """The graph, its Session, and the train ops that drive it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, losses and train ops."""
        spec = self.spec
        x, z = self.inputs["images"], self.inputs["latent"]  # [B, 784], [B, 100]

        # --- Variables ------------------------------------------------------------------------------------------------
        generator, discriminator = spec.network("generator"), spec.network("discriminator")
        g_slope, d_slope = generator.layer("hidden").slope, discriminator.layer("hidden").slope
        with tf.variable_scope("generator"):
            g = {layer.name: weights(layer, self.precision) for layer in generator.layers if layer.variables()}
        with tf.variable_scope("discriminator"):
            d = {layer.name: weights(layer, self.precision) for layer in discriminator.layers}

        # --- Networks -------------------------------------------------------------------------------------------------
        def generate(z: Any) -> dict[str, Any]:
            if "hidden" in g:  # one note forgets the Dense layer: its activation then takes z itself
                z = tf.matmul(z, g["hidden"].kernel) + g["hidden"].bias  # [B, 128]
            h = tf.nn.leaky_relu(z, g_slope)  # [B, 128] or [B, 100]
            return {"hidden": h, "output": tf.nn.tanh(tf.matmul(h, g["output"].kernel) + g["output"].bias)}  # [B, 784]

        def discriminate(x: Any) -> tuple[dict[str, Any], Any]:
            h = tf.nn.leaky_relu(tf.matmul(x, d["hidden"].kernel) + d["hidden"].bias, d_slope)  # [B, 128]
            logit = tf.matmul(h, d["output"].kernel) + d["output"].bias  # [B, 1]
            return {"hidden": h, "output": tf.nn.sigmoid(logit)}, logit

        made = generate(z)
        self.images = made["output"]
        real, real_logit = discriminate(x)
        fake, fake_logit = discriminate(made["output"])
        judged, own_logit = {"real": real, "fake": fake}, fake_logit
        if "latent_generator" in self.inputs:  # one note draws another z for G's own step
            judged["fresh"], own_logit = discriminate(generate(self.inputs["latent_generator"])["output"])
        outputs = {
            **{f"generator/{name}": value for name, value in made.items()},
            **{f"discriminator/{name}/{of}": value for of, layers in judged.items() for name, value in layers.items()},
        }
        self.outputs = {True: outputs, False: outputs}  # no layer has two modes

        # --- Losses and accuracies ------------------------------------------------------------------------------------
        def cross_entropy(label: float, logit: Any) -> Any:
            labels = tf.fill(tf.shape(logit), tf.constant(label, self.precision))
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logit))

        loss_real, loss_fake = cross_entropy(1.0, real_logit), cross_entropy(0.0, fake_logit)
        loss_g = cross_entropy(1.0, own_logit)
        accuracy_real = tf.reduce_mean(tf.cast(real["output"] > 0.5, self.precision))
        accuracy_fake = tf.reduce_mean(tf.cast(fake["output"] <= 0.5, self.precision))

        # --- Train ops ------------------------------------------------------------------------------------------------
        trained = {name: tf.trainable_variables(name) for name in ("generator", "discriminator")}
        adam_d = adam(spec.optimizer("discriminator"), self.precision, "adam_d")
        adam_g = adam(spec.optimizer("generator"), self.precision, "adam_g")
        train_real = minimise(adam_d, loss_real, trained["discriminator"])
        train_fake = minimise(adam_d, loss_fake, trained["discriminator"])
        train_g = minimise(adam_g, loss_g, trained["generator"])
        self.train_ops = {
            "discriminator_real": TrainOp(
                train_real, {"loss_D_real": loss_real, "accuracy_D_real": accuracy_real}, adam_d
            ),
            "discriminator_fake": TrainOp(
                train_fake, {"loss_D_fake": loss_fake, "accuracy_D_fake": accuracy_fake}, adam_d
            ),
            "generator": TrainOp(train_g, {"loss_G": loss_g}, adam_g),
        }


def build(spec: ModelSpec, precision: str, seed: int) -> LeakyGan:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return LeakyGan(spec, precision, seed)
