"""torch_gan as a TF1 graph: three passes through D in training mode, and the order in which they move its statistics.

Siblings: tf2_eager/gradient_tape/torch_gan.py, tf2_eager/keras2/torch_gan.py, tf2_eager/keras3/torch_gan.py.
The original: shared/tfport/peers/pytorch/torch_gan.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import adam, minimise, norm, normalise, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import BatchNorm, ModelSpec, Network
from tfport.models.torch_gan import GRADIENT_FLOOR, LOG_FLOOR


class TorchGan(GraphSubject):
    """The graph, its Session, and the train ops that drive it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, losses and train ops."""
        spec = self.spec
        x = self.inputs["images"]  # [B, 784]
        z, z_generator = self.inputs["latent"], self.inputs["latent_generator"]  # [B, 50] each

        # --- Variables ------------------------------------------------------------------------------------------------
        generator, discriminator = spec.network("generator"), spec.network("discriminator")
        with tf.variable_scope("generator"):
            g = _variables(generator, self.precision)
        with tf.variable_scope("discriminator"):
            d = _variables(discriminator, self.precision)

        # --- Networks -------------------------------------------------------------------------------------------------
        def generate(z: Any, training: bool) -> dict[str, Any]:
            h = tf.matmul(z, g["hidden"].kernel) + g["hidden"].bias  # [B, 200]
            n = tf.nn.relu(normalise(h, g["hidden_norm"], generator.layer("hidden_norm"), training))
            y = tf.matmul(n, g["output"].kernel) + g["output"].bias  # [B, 784]
            image = tf.nn.tanh(normalise(y, g["output_norm"], generator.layer("output_norm"), training))
            return {"hidden": h, "hidden_norm": n, "output": y, "output_norm": image}

        def discriminate(x: Any, training: bool, after: Sequence[Any] = ()) -> dict[str, Any]:
            h = tf.matmul(x, d["hidden"].kernel) + d["hidden"].bias  # [B, 200]
            h = tf.nn.leaky_relu(h, discriminator.layer("hidden").slope)
            y = tf.matmul(h, d["output"].kernel) + d["output"].bias  # [B, 1]
            p = tf.nn.sigmoid(normalise(y, d["output_norm"], discriminator.layer("output_norm"), training, after))
            return {"hidden": h, "output": y, "output_norm": p}

        # Each pass in training mode has a scope of its own, by which its updates are told from the others'.
        # D's step goes through D twice: what the real images do to its statistics comes after what the fakes do.
        with tf.name_scope("fakes") as fakes:
            made = generate(z, training=True)
        with tf.name_scope("d_fake") as d_fake:
            fake = discriminate(made["output_norm"], training=True)
        with tf.name_scope("d_real") as d_real:
            real = discriminate(x, training=True, after=tf.get_collection(tf.GraphKeys.UPDATE_OPS, d_fake))
        with tf.name_scope("fresh") as fresh:
            made_fresh = generate(z_generator, training=True)
            fresh_d = discriminate(made_fresh["output_norm"], training=True)
        with tf.name_scope("inference"):
            still = generate(z, training=False)
            still_d = {
                "real": discriminate(x, training=False),
                "fake": discriminate(still["output_norm"], training=False),
                "fresh": discriminate(generate(z_generator, training=False)["output_norm"], training=False),
            }
        self.images = still["output_norm"]
        self.outputs = {
            training: {
                **{f"generator/{name}": value for name, value in images.items()},
                **{f"discriminator/{name}/{of}": value for of, made in judged.items() for name, value in made.items()},
            }
            for training, images, judged in (
                (True, made, {"real": real, "fake": fake, "fresh": fresh_d}),
                (False, still, still_d),
            )
        }

        # --- Losses, both minimised -----------------------------------------------------------------------------------
        loss_of = {"bce": cross_entropy, "least_squares": squared_error}[spec.variant]
        loss_d = loss_of(real["output_norm"], 1.0) + loss_of(fake["output_norm"], 0.0)
        loss_g = loss_of(fresh_d["output_norm"], 1.0)

        # --- Train ops ------------------------------------------------------------------------------------------------
        trained = {name: tf.trainable_variables(name) for name in ("generator", "discriminator")}
        updates = {scope: tf.get_collection(tf.GraphKeys.UPDATE_OPS, scope) for scope in (fakes, d_fake, d_real, fresh)}
        adam_d = adam(spec.optimizer("discriminator"), self.precision, "adam_d")
        adam_g = adam(spec.optimizer("generator"), self.precision, "adam_g")
        passes_d = [*updates[fakes], *updates[d_fake], *updates[d_real]]
        train_d = minimise(adam_d, loss_d, trained["discriminator"], passes_d)
        train_g = minimise(adam_g, loss_g, trained["generator"], updates[fresh])
        self.train_ops = {
            "discriminator": TrainOp(train_d, {"loss_D": loss_d}, adam_d),
            "generator": TrainOp(train_g, {"loss_G": loss_g}, adam_g),
        }


def _variables(network: Network, precision: str) -> dict[str, Any]:
    return {
        layer.name: norm(layer, precision) if isinstance(layer, BatchNorm) else weights(layer, precision)
        for layer in network.layers
    }


def cross_entropy(probability: Any, label: float) -> Any:
    """BCELoss of probabilities [B, 1] against one label, and its gradient as PyTorch writes it: finite at 0 and 1."""

    @tf.custom_gradient
    def each(p: Any) -> tuple[Any, Any]:
        logs = label * tf.maximum(tf.log(p), LOG_FLOOR) + (1 - label) * tf.maximum(tf.log1p(-p), LOG_FLOOR)
        return -logs, lambda upstream: upstream * (p - label) / tf.maximum(p * (1 - p), GRADIENT_FLOOR)

    return tf.reduce_mean(each(probability))


def squared_error(probability: Any, label: float) -> Any:
    """Mean squared distance of probabilities [B, 1] from one label."""
    return tf.reduce_mean(tf.square(probability - label))


def build(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return TorchGan(spec, precision, seed)
