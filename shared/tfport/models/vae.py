"""vae: the variational autoencoder with a latent plane; Kingma and Welling 2014, arXiv:1312.6114."""

from __future__ import annotations

from tfport.models.spec import Batching, Dense, Input, Logged, ModelSpec, Network, Phase, RMSProp, Samples

_EPOCH = 600

SPEC = ModelSpec(
    name="vae",
    family="vae",
    source="lecture note, Keras: functional model, add_loss, RMSProp",
    networks=(
        Network(
            "encoder",
            (
                Dense("hidden", 784, 256, "relu"),
                Dense("mean", 256, 2, "linear"),
                Dense("log_variance", 256, 2, "linear"),
            ),
        ),
        Network("decoder", (Dense("hidden", 2, 256, "relu"), Dense("output", 256, 784, "sigmoid"))),
    ),
    inputs=(Input("images", 784, "images"), Input("epsilon", 2, "normal")),
    image_size=28,
    data_range=(0.0, 1.0),
    optimizers=(("vae", RMSProp(learning_rate=1e-3, rho=0.9, epsilon=1e-7)),),
    phases=(
        Phase(
            "vae",
            "vae",
            ("encoder", "decoder"),
            "loss",
            "mean(binary cross entropy) + mean(KL)/784, KL = -0.5 sum(1 + logvar - exp(logvar) - mean^2)",
            "minimised",
        ),
    ),
    logged=(Logged("loss", ((1.0, "loss"),)),),
    protocol=None,
    batching=Batching(batch_size=100, draw="permutation", last_batch="drop", held_out=0),
    samples=Samples("manifold", rows=15, columns=15, every=10 * _EPOCH, inputs=("code",)),
    steps=50 * _EPOCH,
    steps_per_epoch=_EPOCH,
    log_every=_EPOCH,
)
