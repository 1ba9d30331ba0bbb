"""vanilla_gan as a TF1 graph: variables by hand, raw log losses maximised, two train ops, a Session and feed_dict.

Siblings: tf2_eager/gradient_tape/vanilla_gan.py, tf2_eager/keras2/vanilla_gan.py, tf2_eager/keras3/vanilla_gan.py.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from tf1_graph.subject import GraphSubject, TrainOp
from tfport.models.spec import Adam, Dense, ModelSpec
from tfport.subject import Array, Batch


# --- Variables --------------------------------------------------------------------------------------------------------
def dense_variables(layer: Dense, precision: str) -> tuple[Any, Any]:
    """kernel [inputs, units] from N(0, stddev) and bias [units] of zeros: reference variables, as in TF 1.15."""
    initial = tf.random_normal([layer.inputs, layer.units], stddev=layer.kernel_stddev, dtype=precision)
    kernel = tf.Variable(initial, name=f"{layer.name}/kernel", use_resource=False)
    bias = tf.Variable(tf.zeros([layer.units], precision), name=f"{layer.name}/bias", use_resource=False)
    return kernel, bias


class VanillaGan(GraphSubject):
    """The graph, its Session, and the training step that drives them."""

    paradigm = "tf1_graph"

    def build_graph(self) -> None:
        """Builds the whole graph: placeholders, variables, networks, losses and train ops."""
        spec = self.spec

        # --- Inputs ---------------------------------------------------------------------------------------------------
        x = tf.placeholder(self.precision, [None, spec.pixels], name="x")  # [B, 784]
        z = tf.placeholder(self.precision, [None, spec.latent], name="z")  # [B, 128]
        self.inputs = {"images": x, "latent": z}

        # --- Networks -------------------------------------------------------------------------------------------------
        with tf.variable_scope("generator"):
            hidden, output = (dense_variables(layer, self.precision) for layer in spec.network("generator").layers)
        generator = [*hidden, *output]

        def generate(z: Any) -> tuple[Any, Any]:
            h = tf.nn.relu(tf.matmul(z, generator[0]) + generator[1])  # [B, 256]
            return h, tf.nn.sigmoid(tf.matmul(h, generator[2]) + generator[3])  # [B, 784]

        with tf.variable_scope("discriminator"):
            hidden, output = (dense_variables(layer, self.precision) for layer in spec.network("discriminator").layers)
        discriminator = [*hidden, *output]

        def discriminate(x: Any) -> tuple[Any, Any]:
            h = tf.nn.relu(tf.matmul(x, discriminator[0]) + discriminator[1])  # [B, 256]
            return h, tf.nn.sigmoid(tf.matmul(h, discriminator[2]) + discriminator[3])  # [B, 1]

        self.variable_lists = {"generator": generator, "discriminator": discriminator}

        generator_hidden, fake = generate(z)
        real_hidden, d_real = discriminate(x)
        fake_hidden, d_fake = discriminate(fake)
        self.outputs = {
            "generator/hidden": generator_hidden,
            "generator/output": fake,
            "discriminator/hidden/real": real_hidden,
            "discriminator/output/real": d_real,
            "discriminator/hidden/fake": fake_hidden,
            "discriminator/output/fake": d_fake,
        }

        # --- Losses, both maximised -----------------------------------------------------------------------------------
        loss_d = tf.reduce_mean(tf.log(d_real) + tf.log(1 - d_fake))
        loss_g = tf.reduce_mean(tf.log(d_fake))

        # --- Train ops ------------------------------------------------------------------------------------------------
        optimizer_d = self.adam(spec.optimizer("discriminator"), "adam_d")
        optimizer_g = self.adam(spec.optimizer("generator"), "adam_g")
        train_d = optimizer_d.minimize(-loss_d, var_list=discriminator)
        train_g = optimizer_g.minimize(-loss_g, var_list=generator)
        self.train_ops = {
            "discriminator": TrainOp(train_d, loss_d, optimizer_d),
            "generator": TrainOp(train_g, loss_g, optimizer_g),
        }

    def adam(self, numbers: Adam, name: str) -> Any:
        """TF1's Adam with its numbers as tensors of the run's dtype: given as floats they would be float32 always."""
        with tf.name_scope(name):
            rate, beta_1, beta_2, epsilon = (
                tf.constant(number, self.precision)
                for number in (numbers.learning_rate, numbers.beta_1, numbers.beta_2, numbers.epsilon)
            )
        return tf.train.AdamOptimizer(rate, beta_1, beta_2, epsilon, name=name)

    # --- Training step ------------------------------------------------------------------------------------------------
    def run_phase(self, phase: str, batch: Batch) -> float:
        """One session.run: the loss is computed on the way to the gradient, so it is the loss before the update."""
        op = self.train_ops[phase]
        feed = {self.inputs["latent"]: batch["latent"]}
        if phase == "discriminator":
            feed[self.inputs["images"]] = batch["images"]
        _, loss = self.session.run([op.train, op.loss], feed_dict=feed)
        return float(loss)

    def step(self, batch: Batch) -> dict[str, float]:
        """The discriminator moves, then the generator against the moved discriminator, with the same z."""
        loss_d = self.run_phase("discriminator", batch)
        loss_g = self.run_phase("generator", batch)
        return {"discriminator": loss_d, "generator": loss_g}

    def generate(self, latent: Array) -> Array:
        """G(z): [B, 784]; the Session computes what is fetched, so no image need be fed."""
        images: Array = self.fetch(self.outputs["generator/output"], {"latent": latent})
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> VanillaGan:
    """Builds the graph, opens a Session and initialises the variables with the graph's own initialisers."""
    return VanillaGan(spec, precision, seed)
