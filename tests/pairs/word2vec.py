"""Word vectors by noise contrastive estimation: a TF1 graph, and its port to a tf.Module.

Only the rows that a batch looks up are updated, by Adagrad, whose sums TF1 starts at 0.1 and divides by without an
epsilon. Where a word stands twice in a batch TF1 adds its two gradients and squares the sum; Keras 3, given the slices,
adds two squares, so the port hands it dense gradients. TensorFlow's nce_loss takes float32 only, so there is no run in
float64 to hold the rounding against: neither factory has a dtype.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

from pairs_common import Broken

WORDS, WIDTH, NEGATIVES = 24, 6, 4
BATCH = 8


# --- The original -----------------------------------------------------------------------------------------------------
def legacy() -> dict[str, Any]:
    centres = tf1.placeholder(tf1.int32, [None], name="centres")
    contexts = tf1.placeholder(tf1.int32, [None, 1], name="contexts")
    embeddings = tf1.get_variable("embeddings", [WORDS, WIDTH], initializer=tf1.random_uniform_initializer(-1.0, 1.0))
    weights = tf1.get_variable(
        "nce_weights",
        [WORDS, WIDTH],
        initializer=tf1.truncated_normal_initializer(stddev=1.0 / math.sqrt(WIDTH)),
    )
    biases = tf1.get_variable("nce_biases", [WORDS], initializer=tf1.zeros_initializer())
    looked_up = tf1.nn.embedding_lookup(embeddings, centres)
    losses = tf1.nn.nce_loss(
        weights=weights,
        biases=biases,
        labels=contexts,
        inputs=looked_up,
        num_sampled=NEGATIVES,
        num_classes=WORDS,
    )
    loss = tf1.reduce_mean(losses, name="loss")
    train_op = tf1.train.AdagradOptimizer(0.2).minimize(loss)
    unit = embeddings / tf1.sqrt(tf1.reduce_sum(tf1.square(embeddings), 1, keepdims=True))
    similarity = tf1.matmul(tf1.nn.embedding_lookup(unit, centres), unit, transpose_b=True, name="similarity")
    return {"outputs": {"similarity": similarity}, "loss": loss, "train_op": train_op}


# --- The port ---------------------------------------------------------------------------------------------------------
class WordVectors(tf.Module):  # type: ignore[misc]
    """The vectors and their training step."""

    def __init__(
        self,
        *,
        negatives: int = NEGATIVES,
        initial: float = 0.1,
        trained: bool = True,
        normalised: bool = True,
        softmax: bool = False,
        dense: bool = True,
        reduce: Any = tf.reduce_mean,
        learning_rate: float = 0.2,
    ):
        super().__init__(name="word_vectors")
        self.vectors = tf.Variable(tf.random.uniform([WORDS, WIDTH], -1.0, 1.0), name="vectors")
        self.kernel = tf.Variable(
            tf.random.truncated_normal([WORDS, WIDTH], stddev=1.0 / math.sqrt(WIDTH)), name="kernel"
        )
        self.bias = tf.Variable(tf.zeros([WORDS]), name="bias")
        self.negatives, self.normalised, self.dense, self.reduce = negatives, normalised, dense, reduce
        self.loss = tf.nn.sampled_softmax_loss if softmax else tf.nn.nce_loss
        self.trained = [self.vectors, self.kernel, self.bias] if trained else [self.kernel, self.bias]
        self.optimizer = keras.optimizers.Adagrad(learning_rate, initial_accumulator_value=initial, epsilon=0.0)
        self.optimizer.build(self.trained)

    @tf.function
    def similarity(self, centres: Any) -> dict[str, Any]:
        vectors = self.vectors / tf.norm(self.vectors, axis=1, keepdims=True) if self.normalised else self.vectors
        return {"similarity": tf.matmul(tf.gather(vectors, centres), vectors, transpose_b=True)}

    @tf.function
    def train_step(self, centres: Any, contexts: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            inputs = tf.nn.embedding_lookup(self.vectors, centres)
            losses = self.loss(self.kernel, self.bias, contexts, inputs, self.negatives, WORDS)
            loss = self.reduce(losses)
        gradients = tape.gradient(loss, self.trained)
        if self.dense:
            gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        self.optimizer.apply(gradients, self.trained)
        return {"loss": loss}


def build(**options: Any) -> Any:
    model = WordVectors(**options)
    return {
        "module": model,
        "step": model.train_step,
        "outputs": model.similarity,
        "optimizer": model.optimizer,
    }


def modern() -> Any:
    return build()


# --- Ports with one mistake -------------------------------------------------------------------------------------------
def raw_products() -> Any:
    return build(normalised=False)


def half_the_negatives() -> Any:
    return build(negatives=NEGATIVES // 2)


def sampled_softmax() -> Any:
    return build(softmax=True)


def summed_loss() -> Any:
    return build(reduce=tf.reduce_sum)


def untrained() -> Any:
    return build(trained=False)


def as_slices() -> Any:
    return build(dense=False)


def small_sums() -> Any:
    return build(initial=0.01)


def tenfold_rate() -> Any:
    return build(learning_rate=2.0)


BROKEN = (
    Broken("raw_products", "vectors are compared without being normalised", "forward", None, "similarity", slow=True),
    Broken("half_the_negatives", "two negatives are sampled, not four", "loss", "train", "train/", node="Candidate"),
    Broken("sampled_softmax", "the sampled softmax in place of the NCE loss", "loss", "train", "train/", slow=True),
    Broken("summed_loss", "the sum over the batch, not the mean", "loss", "train", "train/", node="Sum", slow=True),
    Broken("untrained", "the vectors themselves are not trained", "gradient", "train", "embeddings"),
    Broken(
        "as_slices",
        "a word that comes twice adds two squares to Adagrad's sum",
        "update",
        "train",
        "nce_weights",
        slow=True,
    ),
    Broken("small_sums", "Adagrad's sums start at 0.01, not 0.1", "initialisation", None, "accumulator", slow=True),
    Broken("tenfold_rate", "2.0 for 0.2", "update", "train", "embeddings", slow=True),
)


def batches(step: int) -> dict[str, Any]:
    draw = np.random.default_rng([19, step])
    centres = draw.integers(0, WORDS, BATCH)
    contexts = (centres + draw.integers(1, 4, BATCH)) % WORDS
    return {"centres": centres.astype(np.int32), "contexts": contexts.astype(np.int32)[:, None]}
