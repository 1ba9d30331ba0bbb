"""Every random number of the project as a pure function of (seed, stream, step).

Nothing here keeps a state, so resuming needs none. Two generators serve, each where it fits:

* z and other numbers a training step draws come from `tf.random.stateless_normal` with Philox: one op gives the
  same bits in a Session, eagerly, in a tf.function and under XLA, fed from the host or drawn in the graph;
* batch order and initial weights come from numpy's Philox, keyed by (seed, epoch) and (seed, name).

Values are drawn in float32 and widened for float64 runs, so both precisions see the same numbers.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tfport.models.spec import ModelSpec

Array = np.ndarray[Any, Any]

MAX_SEED = 2**31 - 1
MAX_STEP = 2**31 - 1


def _generator(*key: object) -> np.random.Generator:
    """A numpy Philox generator keyed by the words of `key`."""
    words = "/".join(str(each) for each in key).encode()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(hashlib.sha256(words).digest()[:16], "little")))


def stateless_seed(seed: int, stream: str, step: int) -> tuple[int, int]:
    """The int64 pair that keys tf.random.stateless_* for one step of one stream.

    Raises:
      ValueError: seed or step outside [0, 2**31 - 1].
    """
    if not (0 <= seed <= MAX_SEED and 0 <= step <= MAX_STEP):
        raise ValueError(f"seed {seed} and step {step} must lie in [0, {MAX_STEP}]")
    return seed, (zlib.crc32(stream.encode()) << 31) | step


def normal(seed: int, stream: str, step: int, shape: tuple[int, ...], precision: str = "float32") -> Array:
    """Standard normal numbers of `shape` for one step of one stream; see the module's text for the generator."""
    import tensorflow as tf

    def draw() -> Any:
        key = tf.constant(stateless_seed(seed, stream, step), tf.int64)
        return tf.random.stateless_normal(shape, key, dtype=tf.float32, alg="philox")

    values: Array
    with tf.init_scope(), tf.device("cpu"):
        if tf.executing_eagerly():
            values = draw().numpy()
        else:  # the caller has a v1 graph as default, or has switched eager execution off
            with tf.Graph().as_default(), tf.device("cpu"), tf.compat.v1.Session() as session:
                values = session.run(draw())
    return values.astype(precision)


def permutation(seed: int, epoch: int, count: int) -> Array:
    """The order of the training set in one epoch: int64 [count], each of 0..count-1 once."""
    return _generator("batches", seed, epoch).permutation(count)


def initial_weights(spec: ModelSpec, seed: int, precision: str = "float32") -> dict[str, Array]:
    """The weights every paradigm starts from: canonical name -> array of `precision`, biases zero."""
    weights: dict[str, Array] = {}
    for name, shape in spec.variable_shapes().items():
        stddev = spec.kernel_stddev(name)
        drawn = np.zeros(shape, np.float32)
        if stddev:
            drawn = _generator("weights", seed, name).standard_normal(shape, np.float32) * np.float32(stddev)
        weights[name] = drawn.astype(precision)
    return weights
