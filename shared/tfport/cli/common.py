"""Flags that several verbs share; a verb adopts them, so that its help lists them."""

from __future__ import annotations

from absl import flags

flags.DEFINE_string("model", "vanilla_gan", "Model, by name; compare takes all too.")
flags.DEFINE_string("dataset", "digits", "Training images: digits (embedded), mnist, fashion_mnist, kmnist.")
flags.DEFINE_string("data_dir", None, "Folder with the four IDX files; without it they are downloaded once and cached.")
flags.DEFINE_integer(
    "steps", None, "Steps; by default the source's own number for train; 200 for compare, 20 with convolutions."
)
flags.DEFINE_integer("batch_size", None, "Images a batch; by default the source's.")
flags.DEFINE_integer("seed", 0, "Seed of initial weights, batch order and noise.")
flags.DEFINE_string("precision", "float32", "float32 or float64; compare runs the other too where it must.")
