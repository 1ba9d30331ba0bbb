"""vanilla_gan: the GAN of the TF1 lecture note, two dense networks and raw log losses that are maximised.

Goodfellow et al. 2014, arXiv:1406.2661, with the note's sizes and hyperparameters.
"""

from __future__ import annotations

from tfport.models.spec import (
    Adam,
    Batching,
    Dense,
    ModelSpec,
    Network,
    Phase,
    SampleGrid,
    UpdateProtocol,
)

_ADAM = Adam(learning_rate=2e-4, beta_1=0.9, beta_2=0.999, epsilon=1e-8)

SPEC = ModelSpec(
    name="vanilla_gan",
    source="lecture note, TF1 style: tf.Variable, placeholders, losses maximised as logs",
    networks=(
        Network(
            "generator",
            (
                Dense("hidden", 128, 256, "relu", kernel_stddev=0.01),
                Dense("output", 256, 784, "sigmoid", kernel_stddev=0.01),
            ),
        ),
        Network(
            "discriminator",
            (
                Dense("hidden", 784, 256, "relu", kernel_stddev=0.01),
                Dense("output", 256, 1, "sigmoid", kernel_stddev=0.01),
            ),
        ),
    ),
    latent=128,
    image_size=28,
    data_range=(0.0, 1.0),
    optimizers=(("discriminator", _ADAM), ("generator", _ADAM)),
    phases=(
        Phase("discriminator", "discriminator", "loss_D", "mean(log D(x) + log(1 - D(G(z))))", "maximised"),
        Phase("generator", "generator", "loss_G", "mean(log D(G(z)))", "maximised"),
    ),
    protocol=UpdateProtocol(discriminator="joint", order="alternating", generator_noise="same"),
    batching=Batching(batch_size=100, draw="permutation", last_batch="drop", held_out=5_000),
    samples=SampleGrid(rows=1, columns=10, every_epochs=10),
    steps=55_000,
    steps_per_epoch=550,
)
