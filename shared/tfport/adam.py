"""The arithmetic that ties Adam's beta powers (TF1) to an iteration count (Keras).

TF1 keeps beta1_power and beta2_power as variables and multiplies them up once a step, in the variables' precision:
after n steps they hold beta**(n + 1) as n rounded products make it. Keras keeps n and computes pow(beta, n + 1).

TensorFlow's threads flush denormals to zero: the power goes from the last normal number to 0 at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tfport.errors import CheckpointError

Array = np.ndarray[Any, Any]


@lru_cache(maxsize=8)
def _powers(beta: float, dtype: str) -> Array:
    """beta, beta*beta, ... multiplied up in `dtype` as TensorFlow does, until the product no longer changes."""
    chunks = [np.array([beta], dtype)]
    while True:
        factors = np.full(1 << 16, beta, dtype)
        factors[0] = chunks[-1][-1] * factors[0]
        with np.errstate(under="ignore"):
            chunk = np.multiply.accumulate(factors)
        chunk[chunk < np.finfo(dtype).tiny] = 0
        stuck = np.flatnonzero(np.diff(np.concatenate([chunks[-1][-1:], chunk])) == 0)
        if len(stuck):
            chunks.append(chunk[: stuck[0]])
            return np.concatenate(chunks)
        chunks.append(chunk)


def beta_power(beta: float, iterations: int, dtype: str) -> Any:
    """The beta power that TF1 holds after `iterations` steps, multiplied up in `dtype` as TF1 does."""
    powers = _powers(beta, dtype)
    return powers[min(iterations, len(powers) - 1)]


def iterations(beta: float, power: Any) -> int:
    """How many steps made this beta power; the inverse of `beta_power`.

    Once the product has underflowed the count can no longer be read and the first count that gives this power is
    returned (87,293 steps for beta .999 in float32, 126 for .5): every later step has the same arithmetic.

    Raises:
      CheckpointError: no count of steps gives this power, so it was not made with this beta.
    """
    dtype = np.asarray(power).dtype
    powers = _powers(beta, dtype.name)
    held = np.where(np.abs(power) < np.finfo(dtype).tiny, dtype.type(0), power)
    index = int(np.searchsorted(-powers, -held))
    if index < len(powers) and powers[index] == held:
        return index
    raise CheckpointError(
        f"Adam's beta power {float(power)!r} is not a power of beta {beta!r} multiplied up step by step; "
        "the state was made with another beta, or it is damaged."
    )
