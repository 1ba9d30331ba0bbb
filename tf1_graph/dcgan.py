"""dcgan as a TF1 graph: convolutions by hand, batch moments over all pixels, a fresh z for G's step.

Siblings: tf2_eager/gradient_tape/dcgan.py, tf2_eager/keras2/dcgan.py, tf2_eager/keras3/dcgan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.layers import Weights, adam, minimise, norm, normalise, weights
from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import BatchNorm, Conv, Layer, ModelSpec


class Dcgan(GraphSubject):
    """The graph, its Session, and the train ops that drive it."""

    def build_graph(self) -> None:
        """Builds the whole graph: variables, networks, losses and train ops."""
        spec = self.spec
        x, z, z_g = (self.inputs[name] for name in ("images", "latent", "latent_generator"))  # [B, 784], 2 x [B, 100]

        # --- Variables ------------------------------------------------------------------------------------------------
        g_layer, d_layer = spec.network("generator").layer, spec.network("discriminator").layer
        with tf.variable_scope("generator"):
            g: dict[str, Any] = {
                layer.name: norm(layer, self.precision)
                if isinstance(layer, BatchNorm)
                else weights(layer, self.precision)
                for layer in spec.network("generator").layers
            }
        with tf.variable_scope("discriminator"):
            d: dict[str, Any] = {
                layer.name: weights(layer, self.precision) for layer in spec.network("discriminator").layers
            }

        # --- Networks -------------------------------------------------------------------------------------------------
        def generate(z: Any, training: bool) -> tuple[dict[str, Any], Any]:
            p = tf.matmul(z, g["project"].kernel) + g["project"].bias  # [B, 12544]
            u1 = enlarge(tf.reshape(p, [-1, *seed_shape(g_layer("up1"))]), g["up1"], g_layer("up1"))  # [B, 14, 14, 128]
            n1 = normalise(u1, g["norm1"], g_layer("norm1"), training)
            n1 = tf.nn.leaky_relu(n1, g_layer("norm1").slope)
            u2 = enlarge(n1, g["up2"], g_layer("up2"))  # [B, 14, 14, 64]
            n2 = normalise(u2, g["norm2"], g_layer("norm2"), training)
            n2 = tf.nn.leaky_relu(n2, g_layer("norm2").slope)
            u3 = tf.nn.tanh(enlarge(n2, g["up3"], g_layer("up3")))  # [B, 28, 28, 1]
            made = {"project": p, "up1": u1, "norm1": n1, "up2": u2, "norm2": n2, "up3": u3}
            return made, tf.reshape(u3, [-1, spec.pixels])  # [B, 784]

        def discriminate(x: Any) -> tuple[dict[str, Any], Any]:
            pixels = tf.reshape(x, [-1, spec.image_size, spec.image_size, 1])
            h1 = tf.nn.leaky_relu(convolve(pixels, d["down1"], d_layer("down1")), d_layer("down1").slope)  # 14, 14, 32
            h2 = tf.nn.leaky_relu(convolve(h1, d["down2"], d_layer("down2")), d_layer("down2").slope)  # [B, 7, 7, 64]
            h3 = tf.nn.leaky_relu(convolve(h2, d["down3"], d_layer("down3")), d_layer("down3").slope)  # [B, 4, 4, 128]
            flat = tf.reshape(h3, [-1, d_layer("output").inputs])  # [B, 2048]
            logit = tf.matmul(flat, d["output"].kernel) + d["output"].bias  # [B, 1]
            return {"down1": h1, "down2": h2, "down3": h3, "output": tf.nn.sigmoid(logit)}, logit

        # D's step sees fakes from G in inference mode; G's own step goes through G in training mode, on its own z.
        _, moving_image = generate(z_g, training=True)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)  # of this pass alone: later ones only look
        moving_fresh, moving_logit = discriminate(moving_image)
        real, real_logit = discriminate(x)
        still, self.images = generate(z, training=False)
        still_fake, still_logit = discriminate(self.images)
        _, still_image = generate(z_g, training=False)
        still_fresh, _ = discriminate(still_image)
        moving, seen_image = generate(z, training=True)
        moving_fake, _ = discriminate(seen_image)
        self.outputs = {
            training: {
                **{f"generator/{name}": value for name, value in made.items()},
                **{f"discriminator/{name}/real": value for name, value in real.items()},
                **{f"discriminator/{name}/fake": value for name, value in fake.items()},
                **{f"discriminator/{name}/fresh": value for name, value in fresh.items()},
            }
            for training, made, fake, fresh in (
                (True, moving, moving_fake, moving_fresh),
                (False, still, still_fake, still_fresh),
            )
        }

        # --- Losses and accuracies ------------------------------------------------------------------------------------
        def cross_entropy(label: float, logit: Any) -> Any:
            labels = tf.fill(tf.shape(logit), tf.constant(label, self.precision))
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logit))

        loss_real, loss_fake = cross_entropy(1.0, real_logit), cross_entropy(0.0, still_logit)
        loss_g = cross_entropy(1.0, moving_logit)
        accuracy_real = tf.reduce_mean(tf.cast(real["output"] > 0.5, self.precision))
        accuracy_fake = tf.reduce_mean(tf.cast(still_fake["output"] <= 0.5, self.precision))

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


# --- Convolutions -----------------------------------------------------------------------------------------------------
def seed_shape(layer: Layer) -> tuple[int, int, int]:
    """The image [height, width, channels] that a transposed convolution takes."""
    assert isinstance(layer, Conv)
    side = layer.side // layer.stride
    return side, side, layer.inputs


def convolve(x: Any, weights: Weights, layer: Layer) -> Any:
    """A convolution with 'same' padding, and its bias: [B, H, W, C] to [B, side, side, units]."""
    assert isinstance(layer, Conv)
    return tf.nn.conv2d(x, weights.kernel, strides=layer.stride, padding="SAME") + weights.bias


def enlarge(x: Any, weights: Weights, layer: Layer) -> Any:
    """A transposed convolution with 'same' padding, and its bias: [B, H, W, C] to [B, side, side, units]."""
    assert isinstance(layer, Conv)
    shape = tf.stack([tf.shape(x)[0], layer.side, layer.side, layer.units])
    return tf.nn.conv2d_transpose(x, weights.kernel, shape, strides=layer.stride, padding="SAME") + weights.bias


def build(spec: ModelSpec, precision: str, seed: int) -> Dcgan:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return Dcgan(spec, precision, seed)
