"""Ports of vanilla_gan with one mistake each, as people make them; factories for `module:function`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from tf2_eager.gradient_tape.subject import Tensors
from tf2_eager.gradient_tape.vanilla_gan import VanillaGan as TapeGan
from tf2_eager.keras3 import layers as keras3_layers
from tf2_eager.keras3 import vanilla_gan as keras3
from tfport.models.spec import Layer, ModelSpec
from tfport.subject import Array, Batch

MISTAKES = (
    "epsilon_1e_7",
    "frozen_discriminator",
    "half_steps",
    "no_bias",
    "swapped_slots",
    "frozen_noise",
    "simultaneous",
    "half_reported",
    "wide_weights",
)
"""The ports that train wrongly or report wrongly; what must be found of each stands in test_broken_ports.py."""


def epsilon_1e_7(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """Adam with Keras's default epsilon in place of TF1's."""
    optimizers = tuple((name, dataclasses.replace(adam, epsilon=1e-7)) for name, adam in spec.optimizers)
    return TapeGan(dataclasses.replace(spec, optimizers=optimizers), precision, seed)


class _FrozenDiscriminator(keras3.VanillaGan):
    """The tutorial's order under Keras 3: D is frozen before its optimizer ever sees what it should train."""

    def build_models(self) -> None:
        super().build_models()
        adam = keras3_layers.adam(self.spec.optimizer("discriminator"))
        self.discriminator.compile(optimizer=adam, loss="binary_crossentropy", loss_weights=[2.0])
        self.discriminator.optimizer.build(self.discriminator.trainable_variables)

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        inputs, labels = self.phase_inputs(phase, batch)
        return {self.spec.phase(phase).loss: -float(self.compiled[phase].train_on_batch(inputs, labels))}


def frozen_discriminator(spec: ModelSpec, precision: str, seed: int) -> keras3.VanillaGan:
    """D never trains, and nothing says so."""
    return _FrozenDiscriminator(spec, precision, seed)


class _HalfSteps(TapeGan):
    """D takes a step on the real half of the batch and another on the fake half."""

    @tf.function
    def half_step(self, which: str, batch: Tensors) -> Any:
        with tf.GradientTape() as tape:
            if which == "real":
                loss = tf.reduce_mean(tf.math.log(self.discriminate(batch["images"])[1]))
            else:
                fake = self.generate_images(batch["latent"])[1]
                loss = tf.reduce_mean(tf.math.log(1 - self.discriminate(fake)[1]))
            objective = -loss
        self.optimizer_by_name["discriminator"].apply(tape.gradient(objective, self.discriminator))
        return loss

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        if phase == "generator":
            return super().run_phase(phase, batch)
        tensors = self.tensors(batch)
        return {"loss_D": float(self.half_step("real", tensors)) + float(self.half_step("fake", tensors))}

    def step(self, batch: Batch) -> dict[str, float]:
        reports: dict[str, float] = {}
        for phase in self.phases:
            reports |= self.run_phase(phase, batch)
        return reports


def half_steps(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """Two updates of D a step in place of the joint one."""
    return _HalfSteps(spec, precision, seed)


class _NoBias(keras3.VanillaGan):
    """The generator's output layer without its bias."""

    def build_models(self) -> None:
        original = keras3_layers.dense

        def dense(layer: Layer) -> Any:
            made = original(layer)
            if (layer.name, layer.units) == ("output", self.spec.pixels):
                made.use_bias = False
            return made

        with mock.patch.object(keras3, "dense", dense):
            super().build_models()


def no_bias(spec: ModelSpec, precision: str, seed: int) -> keras3.VanillaGan:
    """A bias left out."""
    return _NoBias(spec, precision, seed)


class _SwappedSlots(TapeGan):
    """A converter that takes Adam's first moment for the second."""

    def _slots(self) -> dict[str, Any]:
        slots = super()._slots()
        swap = {"m": "v", "v": "m"}
        parts = {name: name.split("/", 3) for name in slots}
        return {f"{a}/{b}/{swap[slot]}/{rest}": slots[name] for name, (a, b, slot, rest) in parts.items()}


def swapped_slots(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """m and v change places when state is carried over."""
    return _SwappedSlots(spec, precision, seed)


class _FrozenNoise(TapeGan):
    """The training step keeps the first z it ever saw, as np.random inside a tf.function does."""

    kept: Array | None = None

    def with_kept_noise(self, batch: Batch) -> Batch:
        if self.kept is None:
            self.kept = batch["latent"]
        return {**batch, "latent": self.kept}

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        return super().run_phase(phase, self.with_kept_noise(batch))

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        return super().gradients(phase, self.with_kept_noise(batch))

    def step(self, batch: Batch) -> dict[str, float]:
        return super().step(self.with_kept_noise(batch))


def frozen_noise(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """z is frozen when the step is traced."""
    return _FrozenNoise(spec, precision, seed)


class _Simultaneous(TapeGan):
    """Both gradients are taken before either network moves."""

    @tf.function
    def step_function(self, batch: Tensors) -> dict[str, Any]:
        computed = {phase: self.compute(phase, batch) for phase in self.phases}
        for phase, each in computed.items():
            self.apply(phase, each)
        return {name: value for each in computed.values() for name, value in each.reports.items()}


def simultaneous(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """D and G are updated at once in place of one after the other."""
    return _Simultaneous(spec, precision, seed)


class _HalfReported(TapeGan):
    """Trains rightly and logs the mean over the joined batch, half of loss_D."""

    def _told(self, reports: Mapping[str, Any]) -> dict[str, float]:
        told = super()._told(reports)
        return {name: value / 2 if name == "loss_D" else value for name, value in told.items()}


def half_reported(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """The reported loss is not the loss."""
    return _HalfReported(spec, precision, seed)


class _WideWeights(TapeGan):
    """Initial weights from the framework's default deviation."""

    def initialise(self, seed: int) -> None:
        super().initialise(seed)
        for variable in self._by_name.values():
            variable.assign(variable * 5.0)


def wide_weights(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """Kernels drawn from N(0, .05) for N(0, .01)."""
    return _WideWeights(spec, precision, seed)


class _Unseeded(TapeGan):
    """Noise of its own in every step, drawn from the operating system."""

    def step(self, batch: Batch) -> dict[str, float]:
        noise = np.asarray(np.random.default_rng().normal(size=batch["latent"].shape))
        return super().step({**batch, "latent": noise.astype(batch["latent"].dtype)})


def unseeded(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """A side that does not repeat itself."""
    return _Unseeded(spec, precision, seed)


def raising(spec: ModelSpec, precision: str, seed: int) -> TapeGan:
    """A factory with a mistake of its own."""
    raise ZeroDivisionError("by hand")
