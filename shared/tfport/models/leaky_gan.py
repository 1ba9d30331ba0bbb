"""leaky_gan: the small Keras GAN with LeakyReLU that two of the notes share, in the forms in which they have it."""

from __future__ import annotations

import dataclasses

from tfport.models.gan_parts import FRESH_NOISE, HALF_STEP_LOG, HALF_STEPS, SAME_NOISE, generator_phase
from tfport.models.spec import Activation, Adam, Batching, Dense, Input, ModelSpec, Network, Samples

_ADAM = Adam(learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
_IMAGES, _LATENT = Input("images", 784, "images"), Input("latent", 100, "normal")


def _networks(slope: float) -> tuple[Network, Network]:
    return (
        Network(
            "generator",
            (Dense("hidden", 100, 128, "leaky_relu", slope=slope), Dense("output", 128, 784, "tanh")),
        ),
        Network(
            "discriminator",
            (Dense("hidden", 784, 128, "leaky_relu", slope=slope), Dense("output", 128, 1, "sigmoid")),
        ),
    )


SPEC = ModelSpec(
    name="leaky_gan",
    family="leaky_gan",
    source="lecture note, Keras: LeakyReLU(0.01) as a layer, the same z for both networks",
    networks=_networks(0.01),
    inputs=(_IMAGES, _LATENT),
    image_size=28,
    data_range=(-1.0, 1.0),
    optimizers=(("discriminator", _ADAM), ("generator", _ADAM)),
    phases=(*HALF_STEPS, generator_phase()),
    logged=HALF_STEP_LOG,
    protocol=SAME_NOISE,
    batching=Batching(batch_size=128, draw="replacement", last_batch="drop", held_out=0),
    samples=Samples("grid", rows=4, columns=4, every=1_000, inputs=("latent",)),
    steps=20_000,
    steps_per_epoch=60_000 // 128,
    log_every=1_000,
)

SLOPE_02 = dataclasses.replace(
    SPEC,
    name="leaky_gan_slope02",
    source="lecture note, Keras: activation='leaky_relu', whose slope is 0.2, and a fresh z for the generator",
    networks=_networks(0.2),
    inputs=(_IMAGES, _LATENT, Input("latent_generator", 100, "normal")),
    protocol=FRESH_NOISE,
)

SHALLOW = dataclasses.replace(
    SPEC,
    name="leaky_gan_shallow",
    source="lecture note, Keras: as one note writes it, without Dense(128) in the generator",
    networks=(
        Network(
            "generator",
            (Activation("hidden", 100, "leaky_relu", slope=0.01), Dense("output", 100, 784, "tanh")),
        ),
        _networks(0.01)[1],
    ),
)
