"""batchnorm_gan as a TF1 graph: batch moments by hand, moving averages in UPDATE_OPS, D reused on real and fake.

Siblings: tf2_eager/gradient_tape/batchnorm_gan.py, tf2_eager/keras2/batchnorm_gan.py,
tf2_eager/keras3/batchnorm_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import adam, minimise, norm, normalise, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import BatchNorm, ModelSpec


class BatchnormGan(GraphSubject):
    """The graph, its Session, and the train ops that drive it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, losses and train ops."""
        spec = self.spec
        x, z = self.inputs["images"], self.inputs["latent"]  # [B, 784], [B, 100]

        # --- Variables ------------------------------------------------------------------------------------------------
        generator_layers = spec.network("generator").layers
        norms = {layer.name: layer for layer in generator_layers if isinstance(layer, BatchNorm)}
        with tf.variable_scope("generator"):
            g: dict[str, Any] = {
                layer.name: norm(layer, self.precision)
                if isinstance(layer, BatchNorm)
                else weights(layer, self.precision)
                for layer in generator_layers
            }
        with tf.variable_scope("discriminator"):
            d: dict[str, Any] = {
                layer.name: weights(layer, self.precision) for layer in spec.network("discriminator").layers
            }

        # --- Networks -------------------------------------------------------------------------------------------------
        def generate(z: Any, training: bool) -> dict[str, Any]:
            h1 = tf.nn.relu(tf.matmul(z, g["hidden1"].kernel) + g["hidden1"].bias)  # [B, 128]
            n1 = normalise(h1, g["norm1"], norms["norm1"], training)
            h2 = tf.nn.relu(tf.matmul(n1, g["hidden2"].kernel) + g["hidden2"].bias)  # [B, 256]
            n2 = normalise(h2, g["norm2"], norms["norm2"], training)
            h3 = tf.nn.relu(tf.matmul(n2, g["hidden3"].kernel) + g["hidden3"].bias)  # [B, 512]
            n3 = normalise(h3, g["norm3"], norms["norm3"], training)
            image = tf.nn.tanh(tf.matmul(n3, g["output"].kernel) + g["output"].bias)  # [B, 784]
            return {"hidden1": h1, "norm1": n1, "hidden2": h2, "norm2": n2, "hidden3": h3, "norm3": n3, "output": image}

        def discriminate(x: Any) -> tuple[dict[str, Any], Any]:
            h1 = tf.matmul(x, d["hidden1"].kernel) + d["hidden1"].bias  # [B, 128], linear as the note has it
            h2 = tf.nn.relu(tf.matmul(h1, d["hidden2"].kernel) + d["hidden2"].bias)  # [B, 256]
            h3 = tf.nn.relu(tf.matmul(h2, d["hidden3"].kernel) + d["hidden3"].bias)  # [B, 512]
            logit = tf.matmul(h3, d["output"].kernel) + d["output"].bias  # [B, 1]
            return {"hidden1": h1, "hidden2": h2, "hidden3": h3, "output": tf.nn.sigmoid(logit)}, logit

        # D's step sees fakes from G in inference mode; G's own step goes through G in training mode.
        real, real_logit = discriminate(x)
        still = generate(z, training=False)
        still_d, still_logit = discriminate(still["output"])
        moving = generate(z, training=True)
        moving_d, moving_logit = discriminate(moving["output"])
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)  # made by the one pass in training mode
        self.images = still["output"]
        self.outputs = {
            training: {
                **{f"generator/{name}": value for name, value in made.items()},
                **{f"discriminator/{name}/real": value for name, value in real.items()},
                **{f"discriminator/{name}/fake": value for name, value in judged.items()},
            }
            for training, made, judged in ((True, moving, moving_d), (False, still, still_d))
        }

        # --- Losses and accuracies ------------------------------------------------------------------------------------
        def cross_entropy(label: float, logit: Any) -> Any:
            labels = tf.fill(tf.shape(logit), tf.constant(label, self.precision))
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logit))

        loss_real, loss_fake = cross_entropy(1.0, real_logit), cross_entropy(0.0, still_logit)
        loss_g = cross_entropy(1.0, moving_logit)
        accuracy_real = tf.reduce_mean(tf.cast(real["output"] > 0.5, self.precision))
        accuracy_fake = tf.reduce_mean(tf.cast(still_d["output"] <= 0.5, self.precision))

        # --- Train ops ------------------------------------------------------------------------------------------------
        trained = {name: tf.trainable_variables(name) for name in ("generator", "discriminator")}
        adam_d = adam(spec.optimizer("discriminator"), self.precision, "adam_d")
        adam_g = adam(spec.optimizer("generator"), self.precision, "adam_g")
        train_real = minimise(adam_d, loss_real, trained["discriminator"])
        train_fake = minimise(adam_d, loss_fake, trained["discriminator"])
        train_g = minimise(adam_g, loss_g, trained["generator"], updates)
        self.train_ops = {
            "discriminator_real": TrainOp(
                train_real, {"loss_D_real": loss_real, "accuracy_D_real": accuracy_real}, adam_d
            ),
            "discriminator_fake": TrainOp(
                train_fake, {"loss_D_fake": loss_fake, "accuracy_D_fake": accuracy_fake}, adam_d
            ),
            "generator": TrainOp(train_g, {"loss_G": loss_g}, adam_g),
        }


def build(spec: ModelSpec, precision: str, seed: int) -> BatchnormGan:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return BatchnormGan(spec, precision, seed)
