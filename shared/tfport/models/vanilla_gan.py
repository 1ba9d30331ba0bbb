"""vanilla_gan: the GAN of the TF1 lecture note, two dense networks and raw log losses that are maximised.

Goodfellow et al. 2014, arXiv:1406.2661, with the note's sizes and hyperparameters.
"""

from __future__ import annotations

from tfport.models.spec import (
    Adam,
    Batching,
    Dense,
    Input,
    Logged,
    ModelSpec,
    Network,
    Normal,
    Phase,
    Samples,
    UpdateProtocol,
)

_ADAM = Adam(learning_rate=2e-4, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
_KERNEL = Normal(0.01)
_EPOCH = 550

SPEC = ModelSpec(
    name="vanilla_gan",
    family="vanilla_gan",
    source="lecture note, TF1 style: tf.Variable, placeholders, losses maximised as logs",
    networks=(
        Network(
            "generator",
            (
                Dense("hidden", 128, 256, "relu", _KERNEL),
                Dense("output", 256, 784, "sigmoid", _KERNEL),
            ),
        ),
        Network(
            "discriminator",
            (
                Dense("hidden", 784, 256, "relu", _KERNEL),
                Dense("output", 256, 1, "sigmoid", _KERNEL),
            ),
        ),
    ),
    inputs=(Input("images", 784, "images"), Input("latent", 128, "normal")),
    image_size=28,
    data_range=(0.0, 1.0),
    optimizers=(("discriminator", _ADAM), ("generator", _ADAM)),
    phases=(
        Phase(
            "discriminator",
            "discriminator",
            ("discriminator",),
            "loss_D",
            "mean(log D(x) + log(1 - D(G(z))))",
            "maximised",
        ),
        Phase("generator", "generator", ("generator",), "loss_G", "mean(log D(G(z)))", "maximised"),
    ),
    logged=(Logged("loss_D", ((1.0, "loss_D"),)), Logged("loss_G", ((1.0, "loss_G"),))),
    protocol=UpdateProtocol(discriminator="joint", order="alternating", generator_noise="same"),
    batching=Batching(batch_size=100, draw="permutation", last_batch="drop", held_out=5_000),
    samples=Samples("grid", rows=1, columns=10, every=10 * _EPOCH, inputs=("latent",)),
    steps=100 * _EPOCH,
    steps_per_epoch=_EPOCH,
    log_every=_EPOCH,
)
