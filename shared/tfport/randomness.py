"""Every random number of the project as a pure function of (seed, stream, step).

Nothing here keeps a state, so resuming needs none. Two generators serve, each where it fits:

* z and other numbers a training step draws come from `tf.random.stateless_*` with Philox: one op gives the
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
    from tfport.models.spec import ModelSpec, VariableSpec

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
    return _drawn("stateless_normal", seed, stream, step, shape, {}).astype(precision)


def uniform(seed: int, stream: str, step: int, shape: tuple[int, ...], precision: str = "float32") -> Array:
    """Numbers from U(-1, 1) of `shape` for one step of one stream."""
    return _drawn("stateless_uniform", seed, stream, step, shape, {"minval": -1.0, "maxval": 1.0}).astype(precision)


def one_hot(seed: int, stream: str, step: int, shape: tuple[int, int], precision: str = "float32") -> Array:
    """Rows [N, K] with a single 1, each of the K places alike, for one step of one stream."""
    limits = {"minval": 0, "maxval": shape[1]}
    chosen = _drawn("stateless_uniform", seed, stream, step, shape[:1], limits, "int32")
    return np.eye(shape[1], dtype=precision)[chosen]


def _drawn(
    op: str, seed: int, stream: str, step: int, shape: tuple[int, ...], limits: dict[str, Any], dtype: str = "float32"
) -> Array:
    """What tf.random's `op` gives with Philox for one step of one stream, wherever the caller stands."""
    import tensorflow as tf

    def draw() -> Any:
        key = tf.constant(stateless_seed(seed, stream, step), tf.int64)
        return getattr(tf.random, op)(shape, key, dtype=dtype, alg="philox", **limits)

    with tf.init_scope(), tf.device("cpu"):
        if tf.executing_eagerly():
            values: Array = draw().numpy()
        else:  # the caller has a v1 graph as default, or has switched eager execution off
            with tf.Graph().as_default(), tf.device("cpu"), tf.compat.v1.Session() as session:
                values = session.run(draw())
    return values


def permutation(seed: int, epoch: int, count: int) -> Array:
    """The order of the training set in one epoch: int64 [count], each of 0..count-1 once."""
    return _generator("batches", seed, epoch).permutation(count)


def with_replacement(seed: int, step: int, population: int, count: int) -> Array:
    """The indices of one step's batch, each drawn from the whole set: int64 [count] in 0..population-1."""
    return _generator("replacement", seed, step).integers(0, population, count)


def initial_weights(spec: ModelSpec, seed: int, precision: str = "float32") -> dict[str, Array]:
    """The weights every paradigm starts from: canonical name -> array of `precision`."""
    return {
        name: _initial(variable, _generator("weights", seed, name)).astype(precision)
        for name, variable in spec.variables().items()
    }


def _initial(variable: VariableSpec, generator: np.random.Generator) -> Array:
    """One variable's initial value in float32."""
    from tfport.models.spec import Constant, Normal, Uniform

    initialiser, shape = variable.initialiser, variable.shape
    if isinstance(initialiser, Constant):
        return np.full(shape, initialiser.value, np.float32)
    if isinstance(initialiser, Normal):
        return generator.standard_normal(shape, np.float32) * np.float32(initialiser.stddev)
    limit = initialiser.limit if isinstance(initialiser, Uniform) else initialiser.limit(shape)
    return (generator.random(shape, np.float32) * np.float32(2) - np.float32(1)) * np.float32(limit)
