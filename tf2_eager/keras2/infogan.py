"""infogan with Keras 2 (tf_keras): three compiled models that share weights, the third with two losses.

Siblings: tf1_graph/infogan.py, tf2_eager/gradient_tape/infogan.py, tf2_eager/keras3/infogan.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras as keras

from tf2_eager.keras2.layers import adam, dense
from tf2_eager.keras2.subject import KerasSubject
from tfport.models.infogan import CODE_WEIGHT
from tfport.models.spec import ModelSpec
from tfport.subject import Array, Batch

_DRAWN = ("latent", "category", "codes")
"""What G is given, in the order in which it is joined."""


class Infogan(KerasSubject):
    """The compiled discriminator, the compiled combined model with D frozen, and the compiled information model."""

    def build_models(self) -> None:
        """Builds and compiles the models; optimizers are built too, so that slots exist before the first step."""
        spec = self.spec

        # --- Networks -------------------------------------------------------------------------------------------------
        g, q = spec.network("generator").layer, spec.network("recognition").layer
        drawn = [keras.Input((spec.width(name),)) for name in _DRAWN]
        h = dense(g("hidden"))(keras.layers.Concatenate()(drawn))  # [B, 74] to [B, 256]
        self.generator = keras.Model(drawn, dense(g("output"))(h), name="generator")

        self.discriminator = keras.Sequential(
            [keras.Input((spec.pixels,)), *(dense(layer) for layer in spec.network("discriminator").layers)],
            name="discriminator",
        )
        # D without its last layer, which Q starts from: the same layer and the same variables.
        self.shared = keras.Model(
            self.discriminator.inputs, self.discriminator.get_layer("hidden").output, name="shared"
        )
        h = keras.Input((spec.network("recognition").inputs,))
        self.recognition = keras.Model(h, [dense(q("category"))(h), dense(q("codes"))(h)], name="recognition")

        # --- Losses, all minimised ------------------------------------------------------------------------------------
        # The joint step gives D one batch of B real and B fake images. Binary cross entropy is a mean over all 2B, half
        # of the sum of the real images' mean and the fakes', so the weight of 2 makes it loss_D.
        self.discriminator.compile(
            optimizer=adam(spec.optimizer("discriminator")),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            loss_weights=[2.0],
        )
        self.discriminator.optimizer.build(self.discriminator.trainable_variables)

        # The information model moves G, the shared layer and Q's heads: D's Adam holds the shared layer, and so does
        # this one. A mean squared error is a mean over the codes too: times half their number it is half their sum.
        fake = self.generator(drawn)
        self.information = keras.Model(drawn, self.recognition(self.shared(fake)), name="information")
        self.information.compile(
            optimizer=adam(spec.optimizer("information")),
            loss=[keras.losses.CategoricalCrossentropy(from_logits=True), keras.losses.MeanSquaredError()],
            loss_weights=[1.0, CODE_WEIGHT * 0.5 * spec.width("codes")],
        )
        self.information.optimizer.build(self.information.trainable_variables)

        # The combined model moves G alone, by the adversarial loss.
        # Keras 2 remembers what was trainable when a model was compiled: the models above go on training D.
        self.discriminator.trainable = False
        self.gan = keras.Model(drawn, self.discriminator(fake), name="gan")
        self.gan.compile(
            optimizer=adam(spec.optimizer("generator")), loss=keras.losses.BinaryCrossentropy(from_logits=True)
        )
        self.gan.optimizer.build(self.gan.trainable_variables)

        self.networks = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "recognition": self.recognition,
        }
        self.compiled = {
            "discriminator": self.discriminator,
            "generator": self.gan,
            "information": self.information,
        }

    # --- Training step ------------------------------------------------------------------------------------------------
    def phase_inputs(self, phase: str, batch: Batch) -> tuple[Any, Any]:
        """What train_on_batch gets: 2B images for D; z, category and codes for the others, the last two for Q again."""
        drawn = [batch[name] for name in _DRAWN]
        ones = np.ones((len(batch["latent"]), 1), self.precision)
        if phase == "discriminator":
            fake = self.generator.predict_on_batch(drawn)
            return np.concatenate([batch["images"], fake]), np.concatenate([ones, np.zeros_like(ones)])
        if phase == "information":
            return drawn, [batch["category"], batch["codes"]]
        return drawn, ones

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def outputs(self, batch: Batch, training: bool) -> dict[str, Any]:
        """Every named output, in the order of computation."""
        made = self.named("generator", [batch[name] for name in _DRAWN], training)
        fake = self.named("discriminator", made["generator/output"], training, "/fake")
        return {
            **made,
            **self.named("discriminator", batch["images"], training, "/real"),
            **fake,
            **self.named("recognition", fake["discriminator/hidden/fake"], training),
        }

    def generate(self, inputs: Batch) -> Array:
        """G(z, category, codes): [B, 784]."""
        images: Array = self.generator.predict_on_batch([inputs[name] for name in _DRAWN])
        return images


def build(spec: ModelSpec, precision: str, seed: int) -> Infogan:
    """Builds the models with Keras's own initialisers."""
    return Infogan(spec, precision, seed)
