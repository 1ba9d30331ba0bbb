"""Ports of torch_gan with one of PyTorch's conventions forgotten each; factories for `module:function`."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tf2_eager.gradient_tape.layers import Statistics
from tf2_eager.gradient_tape.subject import Computed, Tensors
from tf2_eager.gradient_tape.torch_gan import TorchGan
from tfport.models.spec import Adam, BatchNorm, ModelSpec


def biased_variance(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """The moving variance is fed the biased variance, as Keras does."""
    networks = tuple(
        dataclasses.replace(
            network,
            layers=tuple(
                dataclasses.replace(layer, unbiased=False) if isinstance(layer, BatchNorm) else layer
                for layer in network.layers
            ),
        )
        for network in spec.networks
    )
    return TorchGan(dataclasses.replace(spec, networks=networks), precision, seed)


class _SilentEpsilon(TorchGan):
    """Adam's epsilon before the bias correction, and the name of the one after it."""

    def build_model(self) -> None:
        super().build_model()
        for adam in self.optimizer_by_name.values():
            assert isinstance(adam.numbers, Adam)
            adam.numbers = dataclasses.replace(adam.numbers, epsilon_after_correction=False)


def epsilon_before_correction(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """Adam as TF1 and Keras have it."""
    return _SilentEpsilon(spec, precision, seed)


class _FrozenDiscriminator(TorchGan):
    """D in inference mode in G's step, as a frozen Keras model has it."""

    def generator_step(self, batch: Tensors) -> Computed:
        statistics: Statistics = []
        with tf.GradientTape() as tape:
            made = self.generate_images(batch["latent_generator"], statistics)
            loss = self.loss_of(self.discriminate(made["output_norm"], None)["output_norm"], 1.0)
        return Computed({"loss_G": loss}, tape.gradient(loss, self.generator), statistics)


class _MeanWithoutBias(TorchGan):
    """The moving means are fed the mean of what comes in without the bias in front, as where it is folded away."""

    def apply(self, phase: str, computed: Computed) -> None:
        biases = {
            id(self.g["hidden_norm"]): self.g["hidden"].bias,
            id(self.g["output_norm"]): self.g["output"].bias,
            id(self.d["output_norm"]): self.d["output"].bias,
        }
        shifted = [(norm, mean - biases[id(norm)], variance) for norm, mean, variance in computed.statistics]
        super().apply(phase, computed._replace(statistics=shifted))


def mean_without_bias(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """What a normalisation takes away in training is missing in inference."""
    return _MeanWithoutBias(spec, precision, seed)


def frozen_discriminator(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """D's batch normalisation leaves training mode where D is not trained."""
    return _FrozenDiscriminator(spec, precision, seed)


class _RealFirst(TorchGan):
    """Real images go through D before the fakes."""

    def discriminator_step(self, batch: Tensors) -> Computed:
        found = super().discriminator_step(batch)
        *made, fake, real = found.statistics
        return found._replace(statistics=[*made, real, fake])


def real_first(spec: ModelSpec, precision: str, seed: int) -> TorchGan:
    """The two passes through D move its statistics in the other order."""
    return _RealFirst(spec, precision, seed)
