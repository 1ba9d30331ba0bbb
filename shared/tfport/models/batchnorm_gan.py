"""batchnorm_gan: the Keras note's GAN with batch normalisation in the generator, D trained in two half steps.

The note has neither batch size nor epochs: 64 and 100 are ours.
"""

from __future__ import annotations

from tfport.models.gan_parts import HALF_STEP_LOG, HALF_STEPS, SAME_NOISE, generator_phase
from tfport.models.spec import Adam, Batching, BatchNorm, Dense, Input, ModelSpec, Network, Normal, Samples

_ADAM = Adam(learning_rate=2e-4, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
_FIRST = Normal(0.02)
_EPOCH = 60_000 // 64


def _norm(name: str, units: int) -> BatchNorm:
    return BatchNorm(name, (units,), momentum=0.99, epsilon=1e-3)


SPEC = ModelSpec(
    name="batchnorm_gan",
    family="batchnorm_gan",
    source="lecture note, Keras: Dense and BatchNormalization, train_on_batch",
    networks=(
        Network(
            "generator",
            (
                Dense("hidden1", 100, 128, "relu", _FIRST),
                _norm("norm1", 128),
                Dense("hidden2", 128, 256, "relu"),
                _norm("norm2", 256),
                Dense("hidden3", 256, 512, "relu"),
                _norm("norm3", 512),
                Dense("output", 512, 784, "tanh"),
            ),
        ),
        Network(
            "discriminator",
            (
                Dense("hidden1", 784, 128, "linear", _FIRST),
                Dense("hidden2", 128, 256, "relu"),
                Dense("hidden3", 256, 512, "relu"),
                Dense("output", 512, 1, "sigmoid"),
            ),
        ),
    ),
    inputs=(Input("images", 784, "images"), Input("latent", 100, "normal")),
    image_size=28,
    data_range=(-1.0, 1.0),
    optimizers=(("discriminator", _ADAM), ("generator", _ADAM)),
    phases=(*HALF_STEPS, generator_phase(statistics=("generator",))),
    logged=HALF_STEP_LOG,
    protocol=SAME_NOISE,
    batching=Batching(batch_size=64, draw="replacement", last_batch="drop", held_out=0),
    samples=Samples("grid", rows=2, columns=5, every=5 * _EPOCH, inputs=("latent",)),
    steps=100 * _EPOCH,
    steps_per_epoch=_EPOCH,
    log_every=_EPOCH,
)
