"""torch_gan: the PyTorch GAN whose discriminator ends in a batch normalisation, by cross entropy or least squares.

PyTorch's own conventions are facts of the model: weights and biases from U(-1/sqrt(fan in), 1/sqrt(fan in)), epsilon
1e-5 and momentum .1 (.9 in Keras's sense) in batch normalisation, an unbiased running variance, BCELoss's logarithms
held above -100, and Adam's epsilon after the bias correction. Length and cadence of the run are ours.
"""

from __future__ import annotations

import dataclasses
import math

from tfport.models.spec import (
    ActivationName,
    Adam,
    Batching,
    BatchNorm,
    Dense,
    Input,
    Logged,
    ModelSpec,
    Network,
    Phase,
    Samples,
    Uniform,
    UpdateProtocol,
    float32,
)

LOG_FLOOR = -100.0
"""Where BCELoss holds its logarithms."""
GRADIENT_FLOOR = float32(1e-12)
"""Where BCELoss holds p(1 - p), by which it divides in its gradient: a float32 in float64 too."""

_ADAM = Adam(learning_rate=2e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8, epsilon_after_correction=True)
_EPOCH = math.ceil(60_000 / 512)
_BOTH = ("generator", "discriminator")


def _linear(name: str, inputs: int, units: int, activation: ActivationName = "linear", slope: float = 0.0) -> Dense:
    drawn = Uniform(1 / math.sqrt(inputs))
    return Dense(name, inputs, units, activation, drawn, drawn, slope)


def _norm(name: str, units: int, activation: ActivationName) -> BatchNorm:
    return BatchNorm(name, (units,), momentum=0.9, epsilon=1e-5, activation=activation, unbiased=True)


def _phases(loss_d: str, loss_g: str) -> tuple[Phase, Phase]:
    return (
        Phase("discriminator", "discriminator", ("discriminator",), "loss_D", loss_d, "minimised", statistics=_BOTH),
        Phase("generator", "generator", ("generator",), "loss_G", loss_g, "minimised", statistics=_BOTH),
    )


SPEC = ModelSpec(
    name="torch_gan",
    family="torch_gan",
    source="PyTorch modules: Linear, BatchNorm1d, BCELoss; real and fake go through D apart, fake first",
    networks=(
        Network(
            "generator",
            (
                _linear("hidden", 50, 200),
                _norm("hidden_norm", 200, "relu"),
                _linear("output", 200, 784),
                _norm("output_norm", 784, "tanh"),
            ),
        ),
        Network(
            "discriminator",
            (
                _linear("hidden", 784, 200, "leaky_relu", slope=0.01),
                _linear("output", 200, 1),
                _norm("output_norm", 1, "sigmoid"),
            ),
        ),
    ),
    inputs=(
        Input("images", 784, "images"),
        Input("latent", 50, "normal", 0.1),
        Input("latent_generator", 50, "normal", 0.1),
    ),
    image_size=28,
    data_range=(0.0, 1.0),
    optimizers=(("discriminator", _ADAM), ("generator", _ADAM)),
    phases=_phases("mean(-log D(x)) + mean(-log(1 - D(G(z))))", "mean(-log D(G(z)))"),
    logged=(Logged("loss_D", ((1.0, "loss_D"),)), Logged("loss_G", ((1.0, "loss_G"),))),
    protocol=UpdateProtocol("joint", "alternating", "fresh", fakes="training", frozen_discriminator="training"),
    batching=Batching(batch_size=512, draw="permutation", last_batch="keep", held_out=0),
    samples=Samples("grid", rows=5, columns=5, every=10 * _EPOCH, inputs=("latent",)),
    steps=100 * _EPOCH,
    steps_per_epoch=_EPOCH,
    log_every=_EPOCH,
    variant="bce",
)

LEAST_SQUARES = dataclasses.replace(
    SPEC,
    name="torch_gan_l2",
    source="PyTorch modules: Linear, BatchNorm1d, MSELoss; real and fake go through D apart, fake first",
    phases=_phases("mean((D(x) - 1)^2) + mean(D(G(z))^2)", "mean((D(G(z)) - 1)^2)"),
    loss_unit="squared error",
    variant="least_squares",
)
