"""How the variables of one program lie in those of another, as data: blocks, split, joined, permuted and turned.

A mapping is a list of `MappedVariable`s. Each carries one block of a legacy variable to one block of a modern variable;
a pair of whole variables is the block that covers both. The blocks of every variable tile it. Weights, gradients and
slots follow the same blocks; an offset applies to the weights alone.

>>> kernel = MappedVariable("lstm/kernel", "rnn/kernel", (7, 12), (4, 12), legacy_block=((0, 4), (0, 12)))
>>> laid_out(np.zeros((7, 12)), kernel).shape
(4, 12)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Block = tuple[tuple[int, int], ...]
"""A start and a stop for each axis."""


@dataclass(frozen=True)
class MappedVariable:
    """A variable of the legacy side, or a block of one, and where it lies on the modern side."""

    legacy: str
    modern: str
    legacy_shape: tuple[int, ...]
    modern_shape: tuple[int, ...]
    transpose: tuple[int, ...] = ()
    """Axes by which the legacy block is transposed to become the modern one; empty where it is taken as it is."""
    reshape: bool = False
    """Whether it is then reshaped to the modern block's shape."""
    reason: str = ""
    """Why these two: "same name", "the only one of its shape", "forward pass: 1 of 6 candidates agrees"."""
    ambiguous: tuple[str, ...] = ()
    """Other partners that the outputs cannot tell from this one."""
    legacy_block: Block = ()
    """The part of the legacy variable; empty for the whole."""
    modern_block: Block = ()
    """The part of the modern variable; empty for the whole."""
    view: tuple[int, ...] = ()
    """The shape in which the legacy block is looked at before it is transposed; empty for its own."""
    flip: tuple[int, ...] = ()
    """Axes along which it is reversed once transposed."""
    offset: float = 0.0
    """What the modern weights have added."""
    summed: bool = False
    """Whether this block is one of several that are added up: two biases on one side for one on the other."""

    @property
    def changes(self) -> bool:
        """Whether anything but the name differs."""
        return self.in_part or bool(self.transpose) or self.reshape

    @property
    def in_part(self) -> bool:
        """Whether more is done than to transpose and reshape the whole variable."""
        parts = self.legacy_block, self.modern_block, self.view, self.flip
        return any(parts) or bool(self.offset) or self.summed

    @property
    def legacy_size(self) -> tuple[int, ...]:
        """The shape of the legacy block."""
        return sizes(self.legacy_block) or self.legacy_shape

    @property
    def modern_size(self) -> tuple[int, ...]:
        """The shape of the modern block."""
        return sizes(self.modern_block) or self.modern_shape

    @property
    def viewed(self) -> tuple[int, ...]:
        """The shape of the legacy block once it is looked at in another shape and transposed."""
        shape = self.view or self.legacy_size
        return tuple(shape[axis] for axis in self.transpose) or shape


def sizes(block: Block) -> tuple[int, ...]:
    """The shape of a block."""
    return tuple(stop - start for start, stop in block)


def _slices(block: Block) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in block)


def laid_out(array: Array, pair: MappedVariable) -> Array:
    """The block of a whole legacy array, in the modern side's layout; without the offset."""
    array = array[_slices(pair.legacy_block)]
    if pair.view:
        array = array.reshape(pair.view)
    if pair.transpose:
        array = array.transpose(pair.transpose)
    if pair.flip:
        array = np.flip(array, pair.flip)
    return array.reshape(pair.modern_size) if pair.reshape else array


def laid_back(array: Array, pair: MappedVariable) -> Array:
    """The block of a whole modern array, in the legacy side's layout; the offset is still in it."""
    array = array[_slices(pair.modern_block)]
    if pair.reshape:
        array = array.reshape(pair.viewed)
    if pair.flip:
        array = np.flip(array, pair.flip)
    if pair.transpose:
        array = array.transpose(np.argsort(pair.transpose))
    return array.reshape(pair.legacy_size) if pair.view else array


def to_modern(parts: Sequence[tuple[MappedVariable, Array]], weights: bool, base: Array | None = None) -> Array:
    """One modern array, from the legacy arrays of its blocks.

    Args:
      parts: blocks of one modern variable, each with its whole legacy array.
      weights: whether these are weights; of gradients and slots, summands give their mean and offsets nothing.
      base: what stays where no block is given; zeros where there is none.
    """
    (first, array), *more = parts
    if not more and not first.modern_block:
        found = laid_out(array, first)
        return found + np.asarray(first.offset, found.dtype) if weights and first.offset else found
    whole = np.zeros(first.modern_shape, array.dtype) if base is None else np.array(base)
    for block, group in _grouped(parts, lambda pair: pair.modern_block):
        terms = [laid_out(each, pair) + np.asarray(pair.offset * weights, array.dtype) for pair, each in group]
        whole[_slices(block)] = sum(terms[1:], terms[0]) if weights else _mean(terms)
    return whole


def to_legacy(parts: Sequence[tuple[MappedVariable, Array]], weights: bool) -> Array:
    """One legacy array, from the modern arrays of its blocks.

    Args:
      parts: blocks of one legacy variable, each with its whole modern array.
      weights: whether these are weights; of gradients and slots, summands give their mean and offsets nothing.
    """
    (first, array), *more = parts
    if not more and not first.legacy_block:
        found = laid_back(array, first)
        return found - np.asarray(first.offset, found.dtype) if weights and first.offset else found
    whole = np.zeros(first.legacy_shape, array.dtype)
    for block, group in _grouped(parts, lambda pair: pair.legacy_block):
        terms = [laid_back(each, pair) - np.asarray(pair.offset * weights, array.dtype) for pair, each in group]
        whole[_slices(block)] = sum(terms[1:], terms[0]) if weights else _mean(terms)
    return whole


def further_terms(pairs: Iterable[MappedVariable]) -> set[MappedVariable]:
    """Of the modern blocks that add up to one legacy block, all but the first: that one is loaded, these are zero."""
    first: dict[tuple[str, Block], MappedVariable] = {}
    return {pair for pair in pairs if pair.summed and first.setdefault((pair.legacy, pair.legacy_block), pair) != pair}


def share(
    array: Array, pair: MappedVariable, summands: Sequence[MappedVariable], loaded: tuple[Array, Array] | None
) -> Array:
    """A modern array with one summand in the place of the sum.

    A sum does not tell its summands. Each is what it was when the sum was loaded, and an equal share of what the sum
    has moved since.

    Args:
      array: the modern array.
      pair: the summand's block.
      summands: all blocks that lie there.
      loaded: the legacy array, and the modern one that was made of it and the others; None where none was loaded.
    """
    where = _slices(pair.modern_block)
    found = np.array(array)
    if loaded is None:
        found[where] = (array[where] - sum(each.offset for each in summands)) / len(summands) + pair.offset
    else:
        legacy, modern = loaded
        found[where] = laid_out(legacy, pair) + (array[where] - modern[where]) / len(summands) + pair.offset
    return found


def _grouped(
    parts: Sequence[tuple[MappedVariable, Array]], block: Callable[[MappedVariable], Block]
) -> list[tuple[Block, list[tuple[MappedVariable, Array]]]]:
    found: dict[Block, list[tuple[MappedVariable, Array]]] = {}
    for pair, array in parts:
        found.setdefault(block(pair), []).append((pair, array))
    return list(found.items())


def _mean(terms: Sequence[Array]) -> Array:
    return terms[0] if len(terms) == 1 else np.asarray(sum(terms[1:], terms[0]) / len(terms), terms[0].dtype)


# --- What a mapping must be -------------------------------------------------------------------------------------------
def fault(pairs: Iterable[MappedVariable]) -> str:
    """What is wrong with the blocks of a mapping, in a sentence with the remedy; empty where each variable is tiled."""
    tiles: dict[tuple[str, str], list[tuple[Block, bool]]] = {}
    shapes: dict[tuple[str, str], tuple[int, ...]] = {}
    for pair in pairs:
        for side, name, shape, block in (
            ("legacy", pair.legacy, pair.legacy_shape, pair.legacy_block),
            ("modern", pair.modern, pair.modern_shape, pair.modern_block),
        ):
            shapes[side, name] = shape
            tiles.setdefault((side, name), []).append((block or tuple((0, size) for size in shape), pair.summed))
    for (side, name), blocks in tiles.items():
        found = _untiled(blocks, shapes[side, name])
        if found:
            return f"the blocks of the {side} variable {name} {shapes[side, name]} {found}."
    return ""


def _untiled(blocks: Sequence[tuple[Block, bool]], shape: tuple[int, ...]) -> str:
    for block, _ in blocks:
        if len(block) != len(shape) or any(
            not 0 <= start < stop <= size for (start, stop), size in zip(block, shape, strict=True)
        ):
            return f"exceed it: {_ranges(block)}; give one [start, stop] for each axis, within the shape"
    edges = [
        sorted({edge for block, _ in blocks for edge in block[axis]} | {0, size}) for axis, size in enumerate(shape)
    ]
    for cell in itertools.product(*(itertools.pairwise(row) for row in edges)):
        over = [
            (block, summed)
            for block, summed in blocks
            if all(start <= low and high <= stop for (start, stop), (low, high) in zip(block, cell, strict=True))
        ]
        if not over:
            return f"leave a gap: nothing maps {_ranges(cell)}; add a block for it"
        if len(over) > 1 and not (all(summed for _, summed in over) and len({block for block, _ in over}) == 1):
            return (
                f"overlap: {' and '.join(_ranges(block) for block, _ in over[:2])}; each element belongs to one block, "
                'or to several equal ones with "sum": true that are added up'
            )
    return ""


def _ranges(block: Block) -> str:
    return "[" + ", ".join(f"{start}:{stop}" for start, stop in block) + "]"


# --- Making mappings --------------------------------------------------------------------------------------------------
def merged(pairs: Sequence[MappedVariable]) -> list[MappedVariable]:
    """The same mapping in as few blocks as can be: neighbours that lie alike on both sides are one."""
    found = [replace(pair, legacy_block=_full(pair, "legacy"), modern_block=_full(pair, "modern")) for pair in pairs]
    place = 0
    while place < len(found):
        joined = next(
            (
                (number, both)
                for number in range(place + 1, len(found))
                if (both := _joined(found[place], found[number])) is not None
            ),
            None,
        )
        if joined is None:
            place += 1
        else:
            number, found[place] = joined
            del found[number]
            place = 0
    return [replace(pair, legacy_block=_short(pair, "legacy"), modern_block=_short(pair, "modern")) for pair in found]


def _full(pair: MappedVariable, side: str) -> Block:
    block, shape = getattr(pair, f"{side}_block"), getattr(pair, f"{side}_shape")
    return block or tuple((0, size) for size in shape)


def _short(pair: MappedVariable, side: str) -> Block:
    block, shape = getattr(pair, f"{side}_block"), getattr(pair, f"{side}_shape")
    return () if block == tuple((0, size) for size in shape) else block


def _joined(one: MappedVariable, other: MappedVariable) -> MappedVariable | None:
    """Two blocks as one, where they are neighbours along one axis on both sides; None where they are not."""
    if replace(one, legacy_block=(), modern_block=()) != replace(other, legacy_block=(), modern_block=()):
        return None
    if one.view or one.flip or one.reshape or one.summed:  # summands must stay alike
        return None
    left = _beside(one.legacy_block, other.legacy_block)
    right = _beside(one.modern_block, other.modern_block)
    if left is None or right is None or (one.transpose[right[0]] if one.transpose else right[0]) != left[0]:
        return None
    if (left[1] < 0) != (right[1] < 0):
        return None
    return replace(one, legacy_block=left[2], modern_block=right[2])


def _beside(one: Block, other: Block) -> tuple[int, int, Block] | None:
    """The axis along which two blocks touch, the direction, and both as one."""
    axes = [axis for axis in range(len(one)) if one[axis] != other[axis]]
    if len(axes) != 1:
        return None
    (axis,) = axes
    (start, stop), (low, high) = one[axis], other[axis]
    if stop == low:
        return axis, 1, (*one[:axis], (start, high), *one[axis + 1 :])
    if high == start:
        return axis, -1, (*one[:axis], (low, stop), *one[axis + 1 :])
    return None


# --- Words ------------------------------------------------------------------------------------------------------------
def by_variables(mapping: Iterable[MappedVariable]) -> list[tuple[MappedVariable, ...]]:
    """The blocks that lead from one variable to another, together, in the order of the modern one's."""
    found: dict[tuple[str, str], list[MappedVariable]] = {}
    for pair in mapping:
        found.setdefault((pair.legacy, pair.modern), []).append(pair)
    return [tuple(sorted(pairs, key=lambda pair: pair.modern_block)) for pairs in found.values()]


def in_words(pairs: Sequence[MappedVariable]) -> str:
    """What is done to a legacy variable to become a modern one: "rows 0 to 3; columns 0 to 2, 6 to 8, 3 to 5".

    Args:
      pairs: the blocks that lead from one to the other.

    Returns:
      The text; empty where the variable is taken as it is.
    """
    first = pairs[0]
    done = [text] if (text := _taken(pairs)) else []
    if first.view:
        done.append(f"seen as {first.view}")
    if first.transpose:
        done.append(f"transposed {first.transpose}")
    if first.flip:
        done.append(f"flipped along {', '.join(map(str, first.flip))}")
    if first.reshape:
        done.append("reshaped")
    done += [
        f"{pair.offset:g} added"
        + (f" to {_block_text(pair.legacy_block, pair.legacy_shape)}" if len(pairs) > 1 else "")
        for pair in pairs
        if pair.offset
    ]
    if first.summed:
        done.append("added up with others")
    if any(pair.modern_block for pair in pairs) and len(pairs) == 1:
        done.append(f"as {_block_text(first.modern_block, first.modern_shape)}")
    return "; ".join(done)


def _taken(pairs: Sequence[MappedVariable]) -> str:
    """Which parts of the legacy variable are taken, axis by axis, in the modern one's order."""
    shape = pairs[0].legacy_shape
    parts = []
    for axis, size in enumerate(shape):
        edges = _runs(pair.legacy_block[axis] if pair.legacy_block else (0, size) for pair in pairs)
        if edges != [(0, size)]:
            parts.append(f"{_axis(axis, shape)} {', '.join(f'{start} to {stop - 1}' for start, stop in edges)}")
    return " of ".join(reversed(parts))


def _runs(edges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges, each once; one that begins where the one before it ends goes on with it."""
    found: list[tuple[int, int]] = []
    for start, stop in dict.fromkeys(edges):
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return found


def _block_text(block: Block, shape: tuple[int, ...]) -> str:
    edges = enumerate(zip(block, shape, strict=True))
    return ", ".join(
        f"{_axis(axis, shape)} {start} to {stop - 1}"
        for axis, ((start, stop), size) in edges
        if (start, stop) != (0, size)
    )


def _axis(axis: int, shape: tuple[int, ...]) -> str:
    """What is counted along an axis."""
    return "elements" if len(shape) == 1 else ("rows", "columns")[axis] if len(shape) == 2 else f"axis {axis}:"
