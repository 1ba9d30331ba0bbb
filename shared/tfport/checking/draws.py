"""Random numbers that both sides of a check are fed: functions of what is drawn and when, and of nothing else.

A draw is keyed by (seed, step, phase, kind, shape, how many of that kind and shape came before it in this call). Two
programs that draw the same kinds of arrays in the same order therefore see the same numbers, whatever their frameworks
would have drawn and whatever the draws are called. Kinds are those of the raw ops: a dropout of any framework is a
"uniform" in [0, 1) of the shape of its mask, and an element is kept where uniform >= rate.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from tfport.checking.store import Place

Array = np.ndarray[Any, Any]


def _generator(*key: object) -> np.random.Generator:
    words = "/".join(str(each) for each in key).encode()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(hashlib.sha256(words).digest()[:16], "little")))


Drawn = tuple[int, str, str, tuple[int, ...], int, Place]
"""Step, phase, kind, shape, how many of that kind and shape came before it, and the array."""


def write_recorded(path: Path, drawn: Sequence[Drawn]) -> None:
    """Writes the arrays' places into a file, which the process of a side can read."""
    path.write_text(json.dumps([[*key, place.to_json()] for *key, place in drawn]))


@cache
def _recorded(path: Path) -> dict[tuple[Any, ...], Place]:
    told = json.loads(path.read_text())
    return {
        (step, phase, kind, tuple(shape), nth): Place.from_json(place) for step, phase, kind, shape, nth, place in told
    }


class _Replayed:
    """Stands for a generator whose numbers were recorded: whatever it is asked for is what was drawn then."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._singles = iter(array.reshape(-1))

    def random(self, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Any:  # noqa: ARG002
        """The whole array in a shape, or its next number."""
        return next(self._singles) if shape is None else self._array.reshape(shape)

    def standard_normal(self, shape: Any, dtype: Any = None) -> Array:  # noqa: ARG002
        """The whole array."""
        return self._array.reshape(shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:  # noqa: ARG002
        """The whole array."""
        return self._array.reshape(shape)

    def gumbel(self, size: tuple[int, ...]) -> Array:
        """The whole array."""
        return self._array.reshape(size)

    def permutation(self, count: int) -> Array:  # noqa: ARG002
        """The whole array."""
        return self._array


@dataclass
class DrawSource:
    """Recorded arrays for the draws of one program."""

    seed: int = 0
    step: int = 0
    """Set by the check before each step; what is drawn is a function of it."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """The program's own phase name -> the name that both sides' draws are keyed by."""
    recorded: Path | None = None
    """A file with the arrays that a record's original drew (see `write_recorded`); other draws go by their keys."""
    _phase: str = ""
    _counts: dict[tuple[str, tuple[int, ...]], int] = field(default_factory=dict)

    def begin(self, phase: str) -> None:
        """Starts the draws of one call: a phase by name, or "forward" for a pass that belongs to none.

        A program calls it at the start of each `run_phase`, `gradients`, `loss`, `forward` and `nodes`, so that the
        gradients of a phase see the noise that its update will see.
        """
        self._phase = self.aliases.get(phase, phase)
        self._counts = {}

    def number(self, kind: str, shape: tuple[int, ...]) -> np.random.Generator:
        """The generator of the next draw of that kind and shape, for adapters that draw something of their own."""
        nth = self._counts.get((kind, shape), 0)
        self._counts[kind, shape] = nth + 1
        place = _recorded(self.recorded).get((self.step, self._phase, kind, shape, nth)) if self.recorded else None
        if place is not None:
            return cast(np.random.Generator, _Replayed(place.read()))
        return _generator("draw", self.seed, self.step, self._phase, kind, shape, nth)

    def uniform(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """U[0, 1), drawn in float32 and widened, so that both precisions see the same numbers."""
        return self.number("uniform", shape).random(shape, np.float32).astype(dtype)

    def normal(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """N(0, 1), drawn in float32."""
        return self.number("normal", shape).standard_normal(shape, np.float32).astype(dtype)

    def truncated_normal(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """N(0, 1) with what lies beyond two deviations drawn again, as TensorFlow's op has it."""
        generator = self.number("truncated_normal", shape)
        values = generator.standard_normal(math.prod(shape), np.float32)
        while (beyond := np.abs(values) > 2).any():
            values[beyond] = generator.standard_normal(int(beyond.sum()), np.float32)
        return values.reshape(shape).astype(dtype)

    def integers(self, shape: tuple[int, ...], low: int, high: int, dtype: str = "int32") -> Array:
        """Whole numbers in [low, high)."""
        return self.number(f"integers {low} {high}", shape).integers(low, high, shape).astype(dtype)

    def shuffle(self, count: int) -> Array:
        """A permutation of `count` things."""
        return self.number("shuffle", (count,)).permutation(count)

    def bits(self) -> int:
        """A seed below 2**32 for a generator that takes nothing else, such as numpy's global one."""
        return int(self.number("bits", ()).integers(0, 2**32))
