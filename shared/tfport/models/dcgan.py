"""dcgan: the convolutional Keras GAN; Radford et al. 2016, arXiv:1511.06434, with the note's sizes."""

from __future__ import annotations

from tfport.models.gan_parts import FRESH_NOISE, HALF_STEP_LOG, HALF_STEPS, generator_phase
from tfport.models.spec import Adam, Batching, BatchNorm, Conv, Dense, Input, ModelSpec, Network, Samples

_ADAM = Adam(learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
_SLOPE = 0.01


def _norm(name: str, channels: int) -> BatchNorm:
    return BatchNorm(name, (14, 14, channels), 0.99, 1e-3, activation="leaky_relu", slope=_SLOPE)


SPEC = ModelSpec(
    name="dcgan",
    family="dcgan",
    source="lecture note, Keras: Conv2DTranspose, BatchNormalization, LeakyReLU, train_on_batch",
    networks=(
        Network(
            "generator",
            (
                Dense("project", 100, 12_544, "linear"),
                Conv("up1", 256, 128, size=3, stride=2, side=14, activation="linear", transposed=True),
                _norm("norm1", 128),
                Conv("up2", 128, 64, size=3, stride=1, side=14, activation="linear", transposed=True),
                _norm("norm2", 64),
                Conv("up3", 64, 1, size=3, stride=2, side=28, activation="tanh", transposed=True),
            ),
        ),
        Network(
            "discriminator",
            (
                Conv("down1", 1, 32, size=3, stride=2, side=14, activation="leaky_relu", slope=_SLOPE),
                Conv("down2", 32, 64, size=3, stride=2, side=7, activation="leaky_relu", slope=_SLOPE),
                Conv("down3", 64, 128, size=3, stride=2, side=4, activation="leaky_relu", slope=_SLOPE),
                Dense("output", 2_048, 1, "sigmoid"),
            ),
        ),
    ),
    inputs=(
        Input("images", 784, "images"),
        Input("latent", 100, "normal"),
        Input("latent_generator", 100, "normal"),
    ),
    image_size=28,
    data_range=(-1.0, 1.0),
    optimizers=(("discriminator", _ADAM), ("generator", _ADAM)),
    phases=(*HALF_STEPS, generator_phase(statistics=("generator",))),
    logged=HALF_STEP_LOG,
    protocol=FRESH_NOISE,
    batching=Batching(batch_size=128, draw="replacement", last_batch="drop", held_out=0),
    samples=Samples("grid", rows=4, columns=4, every=1_000, inputs=("latent",)),
    steps=20_000,
    steps_per_epoch=60_000 // 128,
    log_every=1_000,
)
