"""autoencoder: the Keras note's dense autoencoder with a code of 32.

The note gives neither loss nor optimizer: mean squared error, Adam 1e-3, batch 100, 50 epochs, [0, 1] are ours.
"""

from __future__ import annotations

from tfport.models.spec import Adam, Batching, Dense, Input, Logged, ModelSpec, Network, Phase, Samples

_EPOCH = 600

SPEC = ModelSpec(
    name="autoencoder",
    family="autoencoder",
    source="lecture note, Keras: two Sequential models, one after the other",
    networks=(
        Network(
            "encoder",
            (
                Dense("hidden1", 784, 512, "relu"),
                Dense("hidden2", 512, 256, "relu"),
                Dense("code", 256, 32, "linear"),
            ),
        ),
        Network(
            "decoder",
            (
                Dense("hidden1", 32, 256, "relu"),
                Dense("hidden2", 256, 512, "relu"),
                Dense("output", 512, 784, "linear"),
            ),
        ),
    ),
    inputs=(Input("images", 784, "images"),),
    image_size=28,
    data_range=(0.0, 1.0),
    optimizers=(("autoencoder", Adam(learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7)),),
    phases=(
        Phase(
            "autoencoder",
            "autoencoder",
            ("encoder", "decoder"),
            "loss",
            "mean((x - decoder(encoder(x)))^2)",
            "minimised",
        ),
    ),
    logged=(Logged("loss", ((1.0, "loss"),)),),
    protocol=None,
    batching=Batching(batch_size=100, draw="permutation", last_batch="drop", held_out=0),
    samples=Samples("reconstructions", rows=2, columns=10, every=10 * _EPOCH, inputs=("images",)),
    steps=50 * _EPOCH,
    steps_per_epoch=_EPOCH,
    log_every=_EPOCH,
    loss_unit="squared error",
)
