"""A small classifier of 28x28 images, trained here: the features and class probabilities that figures rest on.

Two convolutions with pooling, a layer of 64 features, a layer of 10 logits: see `SHAPES`. ELU between them, since
under ReLU a third of the features died. It learns from training images that are shifted by up to two pixels, with
dropout on the features. From 10,000 of MNIST's training images it learns to read about 99% of the test images right;
from the 1,500 embedded digits, about 97%.

It is a graph and a Session of its own, so Keras' floatx, eager execution switched off, or another default graph do not
touch it, and it touches none of them. Its random numbers are functions of the seed (`tfport.randomness`). The same seed
and data give the same bits on the same machine; another number of cores rounds otherwise, hence `Classifier.digest`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfport import randomness, state
from tfport.data import Dataset, scaled
from tfport.errors import CheckpointError, DataError, RunError
from tfport.quality.progress import bar
from tfport.state import State

Array = np.ndarray[Any, Any]

VERSION = 1
"""Of the architecture and the training: a cached classifier of another version is not used."""
FEATURES = 64
SHAPES: Mapping[str, tuple[int, ...]] = {
    "conv1": (5, 5, 1, 16),
    "conv2": (5, 5, 16, 32),
    "features": (7 * 7 * 32, FEATURES),
    "logits": (FEATURES, 10),
}
"""Layer -> shape of its kernel; its bias has the last of these dimensions."""

_SIDE = 28
_BATCH = 100
_RATE = 2e-3  # of Adam, falling to zero in a straight line
_DROPOUT = 0.3
_SHIFT = 2  # pixels, in each direction
_FEWEST_STEPS, _MOST_STEPS, _EPOCHS = 600, 2000, 20
_CHUNK = 500  # images at a time when none is learnt from


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a classifier says of N images."""

    features: Array
    """float32 [N, 64], above -1."""
    probabilities: Array
    """float32 [N, 10]."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier."""

    weights: State
    notes: tuple[str, ...] = ()
    """What a person should know of where it came from, such as that a damaged file was put aside."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights: figures compare only between equal ones."""
        return self.weights.digest()

    def outputs(self, images: Array) -> Outputs:
        """Features and class probabilities of images [N, 784]."""
        with _session() as (tf, session):
            rows = tf.compat.v1.placeholder(tf.float32, [None, _SIDE * _SIDE])
            weights = {name: tf.constant(array) for name, array in self.weights.arrays.items()}
            features = _features(tf, rows, weights)
            wanted = (features, tf.nn.softmax(_logits(tf, features, weights)))
            chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
            found = [session.run(wanted, {rows: chunk}) for chunk in chunks]
        features, probabilities = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Outputs(features, probabilities)


def accuracy(probabilities: Array, labels: Array) -> float:
    """The share of `labels` [N] that are the likeliest class by `probabilities` [N, 10]."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def train(images: Array, labels: Array, seed: int, steps: int | None = None, progress: bool = False) -> Classifier:
    """Trains a classifier: 20 epochs, but not fewer than 600 steps of 100 images, nor more than 2,000.

    Args:
      images: [N, 784], N at least 100.
      labels: [N], 0 to 9.
      seed: of initial weights, order, shifts and dropout.
      steps: another number of steps.
      progress: whether to show a bar on standard error.

    Raises:
      ValueError: there are fewer images than a batch has.
    """
    if len(images) < _BATCH:
        raise ValueError(f"a classifier needs at least {_BATCH} training images, found {len(images)}")
    steps = steps or min(max(_FEWEST_STEPS, _EPOCHS * len(images) // _BATCH), _MOST_STEPS)
    batches = _batches(np.asarray(images, np.float32).reshape(-1, _SIDE, _SIDE), seed)
    initial = _initial(seed)
    with _session() as (tf, session):
        v1 = tf.compat.v1
        rows, truth = v1.placeholder(tf.float32, [None, _SIDE * _SIDE]), v1.placeholder(tf.int64, [None])
        rate, key = v1.placeholder(tf.float32, []), v1.placeholder(tf.int64, [2])
        weights = {name: v1.Variable(array, use_resource=True) for name, array in initial.items()}
        features = tf.nn.experimental.stateless_dropout(_features(tf, rows, weights), _DROPOUT, key, rng_alg="philox")
        logits = _logits(tf, features, weights)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=truth, logits=logits))
        update = v1.train.AdamOptimizer(rate).minimize(loss, var_list=list(weights.values()))
        session.run(v1.global_variables_initializer())
        with bar(steps, "classifier", "step", progress) as shown:
            for step in range(steps):
                where, shifted = next(batches)
                drawn = randomness.stateless_seed(seed, "classifier/dropout", step)
                fed = {rows: shifted, truth: labels[where], rate: _RATE * (1 - step / steps), key: drawn}
                session.run(update, fed)
                shown.update()
        arrays = session.run(weights)
    return Classifier(State(_name("", seed), arrays))


def load_or_train(dataset: Dataset, seed: int, cache_dir: Path | None = None, progress: bool = False) -> Classifier:
    """The classifier of a data set's training images: from the cache, else trained and put there.

    A cached file that is damaged, or not of this data, seed and version, is replaced. A cache that cannot be written
    costs nothing but the time to train again. Either is said in the classifier's `notes`.

    Args:
      dataset: whose training images and labels.
      seed: see `train`.
      cache_dir: the folder of the cached files; `classifiers` in the user's cache when None.
      progress: whether to show a bar on standard error.
    """
    name = _name(dataset.digest, seed)
    path, notes = _cache_path(name, cache_dir)
    if path is not None and _exists(path):
        try:
            return Classifier(_read(path, name, seed))
        except CheckpointError as error:
            notes.append(f"The cached classifier {path} was not used but trained again: {error}")
    trained = train(scaled(dataset.images, 0, 1, "float32"), dataset.labels, seed, progress=progress)
    weights = State(name, trained.weights.arrays)
    if path is not None:
        try:
            state.write(path, weights)
        except RunError as error:
            notes.append(f"The classifier was not kept for next time: {error}")
    return Classifier(weights, tuple(notes))


def _name(digest: str, seed: int) -> str:
    """What a classifier was made of, as its file says it."""
    return f"quality classifier {VERSION} data {digest or 'unnamed'} seed {seed}"


def _cache_path(name: str, cache_dir: Path | None) -> tuple[Path | None, list[str]]:
    """Where the classifier of that name is kept, None without a home folder, and what is to be said of it."""
    if cache_dir is None:
        from tfport.data import download  # lazy: urllib

        try:
            cache_dir = download.cache_folder("classifiers")
        except DataError as error:
            return None, [f"The classifier is not kept for next time: {error}"]
    return cache_dir / f"classifier-v{VERSION}-{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz", []


def _exists(path: Path) -> bool:
    """Whether the path can be seen to exist."""
    with contextlib.suppress(OSError):
        return path.exists()
    return False


def _read(path: Path, name: str, seed: int) -> State:
    """The weights in a cached file.

    Raises:
      CheckpointError: it is damaged or another classifier's.
    """
    found = state.read(path)
    if found.model != name:
        raise CheckpointError(f"{path} holds {found.model!r}, expected {name!r}.")
    State(name, _initial(seed)).check_fits(found)
    for each, array in found.arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise CheckpointError(f"{path} is damaged: {each} is not float32 or not finite.")
    return found


def _initial(seed: int) -> dict[str, Array]:
    """The weights before training: kernels by He et al. 2015, biases zero."""
    weights: dict[str, Array] = {}
    for layer, shape in SHAPES.items():
        drawn = randomness.normal(seed, f"classifier/{layer}", 0, shape)
        weights[f"{layer}/kernel"] = drawn * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        weights[f"{layer}/bias"] = np.zeros(shape[-1], np.float32)
    return weights


def _batches(images: Array, seed: int) -> Iterator[tuple[Array, Array]]:
    """Without end: which images [N, 28, 28] are in a batch, and they, each shifted, as rows."""
    sides = 2 * _SHIFT + 1
    padded = np.pad(images, ((0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_SIDE, _SIDE), axis=(1, 2))
    epoch = 0
    while True:
        order = randomness.permutation(seed, epoch, len(images))
        down, right = np.divmod(randomness.permutation(seed, -1 - epoch, len(images)) % sides**2, sides)
        for start in range(0, len(images) - _BATCH + 1, _BATCH):
            where = order[start : start + _BATCH]
            yield where, windows[where, down[where], right[where]].reshape(_BATCH, -1)
        epoch += 1


@contextlib.contextmanager
def _session() -> Iterator[tuple[Any, Any]]:
    """TensorFlow and a Session of a new graph, which is the default one within; both vanish after."""
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    with tf.init_scope(), tf.Graph().as_default(), tf.device("cpu"), tf.compat.v1.Session(config=config) as session:
        yield tf, session


def _features(tf: Any, rows: Any, weights: Mapping[str, Any]) -> Any:
    """The features [N, 64] of images [N, 784]."""
    hidden = tf.reshape(rows, [-1, _SIDE, _SIDE, 1])
    for layer in ("conv1", "conv2"):
        hidden = tf.nn.conv2d(hidden, weights[f"{layer}/kernel"], strides=1, padding="SAME") + weights[f"{layer}/bias"]
        hidden = tf.nn.max_pool2d(tf.nn.elu(hidden), ksize=2, strides=2, padding="VALID")
    flat = tf.reshape(hidden, [-1, SHAPES["features"][0]])
    return tf.nn.elu(tf.matmul(flat, weights["features/kernel"]) + weights["features/bias"])


def _logits(tf: Any, features: Any, weights: Mapping[str, Any]) -> Any:
    """The logits [N, 10] of features [N, 64]."""
    return tf.matmul(features, weights["logits/kernel"]) + weights["logits/bias"]
