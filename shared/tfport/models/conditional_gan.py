"""conditional_gan: a dense GAN with a one-hot label joined to both inputs; Mirza and Osindero 2014, arXiv:1411.1784.

The notes name the kind. It has the sizes and batches of vanilla_gan, so that it stands beside it; the initialisers
(glorot uniform) and the length are ours. Fakes are made for the labels of the batch's own images.
"""

from __future__ import annotations

from tfport.models.gan_parts import JOINT_SAME_NOISE
from tfport.models.spec import Adam, Batching, Dense, Input, Logged, ModelSpec, Network, Phase, Samples

_ADAM = Adam(learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
_EPOCH = 550

SPEC = ModelSpec(
    name="conditional_gan",
    family="conditional_gan",
    source="named in the notes as a kind; dense, label joined to both inputs, sigmoid cross entropy on logits",
    networks=(
        Network("generator", (Dense("hidden", 138, 256, "relu"), Dense("output", 256, 784, "sigmoid"))),
        Network("discriminator", (Dense("hidden", 794, 256, "relu"), Dense("output", 256, 1, "linear"))),
    ),
    inputs=(Input("images", 784, "images"), Input("labels", 10, "labels"), Input("latent", 128, "uniform")),
    image_size=28,
    data_range=(0.0, 1.0),
    optimizers=(("discriminator", _ADAM), ("generator", _ADAM)),
    phases=(
        Phase(
            "discriminator",
            "discriminator",
            ("discriminator",),
            "loss_D",
            "mean(-log s(D(x, y))) + mean(-log(1 - s(D(G(z, y), y)))), s the sigmoid",
            "minimised",
        ),
        Phase("generator", "generator", ("generator",), "loss_G", "mean(-log s(D(G(z, y), y)))", "minimised"),
    ),
    logged=(Logged("loss_D", ((1.0, "loss_D"),)), Logged("loss_G", ((1.0, "loss_G"),))),
    protocol=JOINT_SAME_NOISE,
    batching=Batching(batch_size=100, draw="permutation", last_batch="drop", held_out=5_000),
    samples=Samples("by_label", rows=10, columns=10, every=10 * _EPOCH, inputs=("latent", "labels")),
    steps=100 * _EPOCH,
    steps_per_epoch=_EPOCH,
    log_every=_EPOCH,
)
