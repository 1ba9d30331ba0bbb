"""infogan: a dense GAN that also maximises the mutual information of codes and images.

Chen et al. 2016, arXiv:1606.03657.

The notes name the kind. Its hidden size and batches are those of vanilla_gan; initialisers and length are ours, and so
is Adam's beta_1 of .5, without which D wins and G takes no notice of z.

D and Q share a hidden layer. Ports differ in who moves it, so it is declared: the discriminator's phase moves it with D
(Adam 2e-4), and the information phase moves it with Q's heads and G (Adam 1e-3). The generator's adversarial phase
moves G alone; were the shared layer moved there, G would be let off by spoiling D.
"""

from __future__ import annotations

from tfport.models.gan_parts import JOINT_SAME_NOISE
from tfport.models.spec import Adam, Batching, Dense, Input, Logged, ModelSpec, Network, Phase, Samples

_ADAM_D = Adam(learning_rate=2e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
_ADAM_G = Adam(learning_rate=1e-3, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
_EPOCH = 550

SPEC = ModelSpec(
    name="infogan",
    family="infogan",
    source="named in the notes as a kind; dense, one categorical code of 10 and two continuous codes",
    networks=(
        Network("generator", (Dense("hidden", 74, 256, "relu"), Dense("output", 256, 784, "sigmoid"))),
        Network("discriminator", (Dense("hidden", 784, 256, "relu"), Dense("output", 256, 1, "linear"))),
        Network("recognition", (Dense("category", 256, 10, "linear"), Dense("codes", 256, 2, "linear"))),
    ),
    inputs=(
        Input("images", 784, "images"),
        Input("latent", 62, "normal"),
        Input("category", 10, "category"),
        Input("codes", 2, "uniform"),
    ),
    image_size=28,
    data_range=(0.0, 1.0),
    optimizers=(("discriminator", _ADAM_D), ("generator", _ADAM_G), ("information", _ADAM_G)),
    phases=(
        Phase(
            "discriminator",
            "discriminator",
            ("discriminator",),
            "loss_D",
            "mean(-log s(D(x))) + mean(-log(1 - s(D(G(z, c))))), s the sigmoid",
            "minimised",
        ),
        Phase("generator", "generator", ("generator",), "loss_G", "mean(-log s(D(G(z, c))))", "minimised"),
        Phase(
            "information",
            "information",
            ("generator", "discriminator/hidden", "recognition"),
            "loss_I",
            "mean(cross entropy of the category) + 0.1 mean(0.5 sum((code - mean)^2))",
            "minimised",
        ),
    ),
    logged=(
        Logged("loss_D", ((1.0, "loss_D"),)),
        Logged("loss_G", ((1.0, "loss_G"),)),
        Logged("loss_I", ((1.0, "loss_I"),)),
    ),
    protocol=JOINT_SAME_NOISE,
    batching=Batching(batch_size=100, draw="permutation", last_batch="drop", held_out=5_000),
    samples=Samples("by_code", rows=10, columns=10, every=10 * _EPOCH, inputs=("latent", "category", "codes")),
    steps=100 * _EPOCH,
    steps_per_epoch=_EPOCH,
    log_every=_EPOCH,
)

CODE_WEIGHT = 0.1
"""Weight of the continuous codes in the mutual-information bound; the categorical code's is 1."""
