"""Layouts of recurrent cells and of other joined variables: every way in which a few variables hold the same gates.

No framework is named here. A cell is read off shapes alone: kernels of inputs and of the state, joined in one matrix or
apart, turned or not, one matrix for all gates or several, one bias, two or none. Two readings of one size, one on each
side, give candidates: every order of the gates, and offsets that the initial biases show. The forward pass decides.

| | kernels | gates | biases |
| --- | --- | --- | --- |
| TF1 BasicLSTMCell, LSTMCell | joined [in + state, 4 units] | i, c, f, o | one, 1 added to f at run time |
| TF1 GRUCell | joined, r and u apart from the candidate | r, u, c | one |
| Keras LSTM | [in, 4 units], [state, 4 units] | i, f, c, o | one |
| Keras GRU | the same | z, r, h | one, or [2, 3 units] |
| CuDNN layers of Keras 2 | the same | i, f, c, o; z, r, h | one of twice the length |
| PyTorch | [4 units, in], [4 units, state] | i, f, c, o; r, z, n | two |
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations, product
from typing import Any

import numpy as np

from tfport.layouts import Block, MappedVariable, merged, sizes
from tfport.subject import VariableInfo

Array = np.ndarray[Any, Any]
MOST_VARIABLES = 16
"""Variables of one cell at most: two kernels and two biases for each of four gates."""
_DOUBTFUL = 3
"""Variables of one or two rows that may be kernels or biases: so many are tried as both."""
_NEAR = 24
"""How many readings of one side are tried for one of the other, before its place and after."""
MOST_GATES = 4
"""Parts whose every order is tried; more of them are taken in their order."""


@dataclass(frozen=True)
class Matrix:
    """A kernel: its last axis, or its first where it is turned, holds the gates."""

    info: VariableInfo
    turned: bool

    @property
    def rows(self) -> int:
        """The size of the axis that is summed over; the next to last for a convolution."""
        return self.info.shape[1] if self.turned else self.info.shape[-2]

    @property
    def columns(self) -> int:
        """The size of the axis of gates."""
        return self.info.shape[0] if self.turned else self.info.shape[-1]

    @property
    def window(self) -> tuple[int, ...]:
        """A convolution's other axes."""
        return self.info.shape[2:] if self.turned else self.info.shape[:-2]

    def block(self, rows: tuple[int, int], columns: tuple[int, int]) -> Block:
        """Some of its rows and columns."""
        window = tuple((0, size) for size in self.window)
        return (columns, rows, *window) if self.turned else (*window, rows, columns)


@dataclass(frozen=True)
class Reading:
    """One way to see a few variables as a cell."""

    inputs: tuple[Matrix, ...]
    """What reads the cell's inputs, and its state too where `state` is empty."""
    state: tuple[Matrix, ...]
    biases: tuple[tuple[tuple[VariableInfo, int], ...], ...]
    """Each bias: the variables that make it up, and where in the first axis, or as which row, it begins."""

    @cached_property
    def columns(self) -> int:
        """All gates together."""
        return sum(each.columns for each in self.inputs)

    @cached_property
    def rows(self) -> int:
        """Inputs and state together."""
        return self.inputs[0].rows + (self.state[0].rows if self.state else 0)

    @cached_property
    def names(self) -> frozenset[str]:
        """Its variables."""
        biases = (info.name for bias in self.biases for info, _ in bias)
        return frozenset([*(each.info.name for each in (*self.inputs, *self.state)), *biases])

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of its variables, whichever way they are turned."""
        biases = {info.name: info for bias in self.biases for info, _ in bias}
        infos = [*(each.info for each in (*self.inputs, *self.state)), *biases.values()]
        return sorted(tuple(sorted(each.shape)) for each in infos)

    def fits(self, units: int) -> bool:
        """Whether no matrix and no bias holds a part of a gate."""
        sizes = [each.columns for each in (*self.inputs, *self.state)]
        sizes += [info.parameters for bias in self.biases for info, _ in bias]
        return all(size % units == 0 for size in sizes)


def readings(variables: Sequence[VariableInfo]) -> Iterator[Reading]:
    """Every way to see all of some variables as one cell."""
    if any(not each.parameters for each in variables):
        return
    doubtful = [each for each in variables if len(each.shape) == 2 and each.shape[0] <= 2]
    for as_kernels in product((False, True), repeat=min(len(doubtful), _DOUBTFUL)):
        flat = {each.name for each, kernel in zip(doubtful, as_kernels, strict=False) if not kernel}
        kernels = [each for each in variables if len(each.shape) >= 2 and each.name not in flat]
        vectors = [each for each in variables if len(each.shape) == 1 or each.name in flat]
        if not kernels or len(kernels) + len(vectors) < len(variables):
            continue
        for turned in (False, True):
            for inputs, state in _bundles([Matrix(each, turned) for each in kernels]):
                for biases in _biases(vectors, sum(each.columns for each in inputs)):
                    yield Reading(inputs, state, biases)


def _bundles(matrices: Sequence[Matrix]) -> Iterator[tuple[tuple[Matrix, ...], tuple[Matrix, ...]]]:
    """Matrices as those of the inputs and those of the state; all of them as one bundle first."""
    if len({each.window for each in matrices}) != 1:
        return
    rows = list(dict.fromkeys(each.rows for each in matrices))
    whole = tuple(matrices)
    if len(rows) == 1:
        yield whole, ()
    if whole[0].window:
        return
    halves: list[tuple[tuple[Matrix, ...], tuple[Matrix, ...]]] = []
    if len(rows) == 2:
        one, other = (tuple(each for each in matrices if each.rows == size) for size in rows)
        halves = [(one, other), (other, one)]
    elif len(rows) == 1 and len(matrices) % 2 == 0:
        half = len(matrices) // 2
        halves = [(whole[:half], whole[half:]), (whole[::2], whole[1::2])]
        halves += [(other, one) for one, other in halves]
    for one, other in dict.fromkeys(halves):
        if sum(each.columns for each in one) == sum(each.columns for each in other):
            yield one, other


def _biases(
    vectors: Sequence[VariableInfo], columns: int
) -> Iterator[tuple[tuple[tuple[VariableInfo, int], ...], ...]]:
    """Vectors as the biases of so many columns: none, one or two."""
    total = sum(each.parameters for each in vectors)
    if total == 0:
        yield ()
    elif total == columns:
        yield (tuple((each, 0) for each in vectors),)
    elif total == 2 * columns and len(vectors) == 1:
        yield tuple(((vectors[0], start),) for start in (0, columns))
    elif total == 2 * columns and len(vectors) % 2 == 0:
        half = len(vectors) // 2
        for one, other in dict.fromkeys(
            [(tuple(vectors[:half]), tuple(vectors[half:])), (tuple(vectors[::2]), tuple(vectors[1::2]))]
        ):
            if all(sum(each.parameters for each in bias) == columns for bias in (one, other)):
                yield tuple(tuple((each, 0) for each in bias) for bias in (one, other))


# --- One reading against another --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Choice:
    """How one cell is the other: what candidates of several cells have in common."""

    gates: int
    order: tuple[int, ...]
    """For each gate of the modern side, which of the legacy side's it is."""
    reading: int = 0
    """Which of several ways to read the variables."""
    exchanged: bool = False
    """Whether the two biases change places."""
    offset: int = 0
    """What is added to the modern bias: 0 for nothing, 1 for what the initial biases differ by, and from 2 on, where
    these are drawn and tell nothing, 1 for that gate, as TF1 adds it to the forget gate at run time.
    """

    def offsets(self) -> list[Choice]:
        """The same with every offset that may be."""
        return [replace(self, offset=offset) for offset in range(2 + self.gates * (self.gates > 2))]


@dataclass(frozen=True)
class Cell:
    """Variables of both sides that may hold one cell."""

    pairs: tuple[tuple[Reading, Reading], ...]
    """Ways to read them, the likeliest first."""

    @property
    def legacy(self) -> frozenset[str]:
        """Names of the legacy side's variables."""
        return self.pairs[0][0].names

    @property
    def modern(self) -> frozenset[str]:
        """Names of the modern side's variables."""
        return self.pairs[0][1].names

    def choices(self) -> Iterator[Choice]:
        """Everything that can be tried, the likeliest first."""
        found = [
            Choice(gates, order, number, exchanged)
            for number, (one, other) in enumerate(self.pairs)
            for gates in _gates(one, other)
            for order in _orders(gates)
            for exchanged in ((False, True) if len(one.biases) == len(other.biases) == 2 else (False,))
        ]
        usual = {order: place for place, order in enumerate(_USUAL)}
        for choice in sorted(found, key=lambda each: (each.order not in usual, each.reading, usual.get(each.order, 0))):
            yield from choice.offsets()[: None if choice.order in usual else 2]

    def mapped(
        self, choice: Choice, legacy: Mapping[str, Array], modern: Mapping[str, Array], reason: str = ""
    ) -> list[MappedVariable]:
        """The blocks of a choice; none where it asks for an offset and the initial biases show none.

        Args:
          choice: one of `choices`.
          legacy: initial values of the legacy side's variables, by name.
          modern: those of the modern side's.
          reason: what the report says of it.
        """
        if choice.reading >= len(self.pairs):
            return []
        one, other = self.pairs[choice.reading]
        if choice.gates not in _gates(one, other):
            return []
        units = one.columns // choice.gates
        found: list[MappedVariable] = []
        for gate, origin in enumerate(choice.order):
            found += _kernels(one, other, origin * units, gate * units, units)
        found += _bias_pairs(one, other, choice, units)
        if choice.offset:
            seen = [_seen_offset(pair, legacy, modern) for pair in found]
            if choice.offset == 1:
                found = [replace(pair, offset=offset or 0.0) for pair, offset in zip(found, seen, strict=True)]
            elif None not in seen:
                return []
            if not any(pair.offset for pair in found):
                return []
        return [replace(pair, reason=reason) for pair in merged(found)]


_USUAL = ((0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 2), (1, 0, 2), (0, 1), (0,))
"""Orders that frameworks have: equal ones; i, c, f, o and i, f, c, o; r, z, n and z, r, h."""


def _gates(one: Reading, other: Reading) -> list[int]:
    """How many gates two cells may have, the likeliest first: that many in which the state is as wide as a gate."""
    separate = one if one.state else other
    state = separate.state[0].rows if separate.state else 0
    most = max(len(one.inputs), len(other.inputs))
    possible = [
        gates
        for gates in dict.fromkeys((*range(MOST_GATES, 0, -1), most))
        if one.columns % gates == 0 and one.fits(one.columns // gates) and other.fits(one.columns // gates)
    ]
    return sorted(possible, key=lambda gates: one.columns // gates != state)


def _recurrent(one: Reading, other: Reading, shapes: set[tuple[int, ...]]) -> int:
    """The gates of the recurrent cell that two readings have the shape of; 0 where they have that of no cell.

    Args:
      one: of one side.
      other: of the other.
      shapes: of all kernels: a state that is narrower than its gates has a projection.
    """
    if one.inputs[0].window or not (one.state or other.state):
        return 0
    state = (one.state or other.state)[0].rows
    for gates in (4, 3, 1):
        units = one.columns // gates
        if gates in _gates(one, other) and (units == state or not shapes.isdisjoint({(units, state), (state, units)})):
            return gates
    return 0


def _may_be_permuted(one: Reading, other: Reading) -> bool:
    """Whether two readings of the same shapes may be one cell whose gates are in another order on each side."""
    separate = one if one.state else other
    return not one.inputs[0].window and any(
        separate.state[0].rows == one.columns // gates if separate.state else one.rows > one.columns // gates
        for gates in _gates(one, other)
        if gates > 2
    )


def _orders(gates: int) -> list[tuple[int, ...]]:
    return list(permutations(range(gates))) if gates <= MOST_GATES else [tuple(range(gates))]


def comparable(one: Reading, other: Reading) -> bool:
    """Whether two readings may be one cell."""
    if (one.columns, one.rows, one.inputs[0].window) != (other.columns, other.rows, other.inputs[0].window):
        return False
    if bool(one.biases) != bool(other.biases) or (len(one.biases) != len(other.biases) and not one.state + other.state):
        return False
    if one.state and other.state:
        return one.inputs[0].rows == other.inputs[0].rows
    return True


def _kernels(one: Reading, other: Reading, origin: int, place: int, units: int) -> list[MappedVariable]:
    """The blocks of one gate's kernels."""
    found = []
    for left, right, skipped, begun, rows in _rows(one, other):
        matrix, start = _at([(each, each.columns) for each in left], origin)
        partner, begin = _at([(each, each.columns) for each in right], place)
        axes = len(matrix.info.shape)
        turn: tuple[int, ...] = ()
        if matrix.turned != partner.turned:
            turn = (axes - 1, axes - 2, *range(axes - 2)) if partner.turned else (*range(2, axes), 1, 0)
        found.append(
            MappedVariable(
                matrix.info.name,
                partner.info.name,
                matrix.info.shape,
                partner.info.shape,
                turn,
                legacy_block=matrix.block((skipped, skipped + rows), (start, start + units)),
                modern_block=partner.block((begun, begun + rows), (begin, begin + units)),
            )
        )
    return found


def _rows(one: Reading, other: Reading) -> list[tuple[tuple[Matrix, ...], tuple[Matrix, ...], int, int, int]]:
    """Matrices of both sides, where in each the rows begin that they share, and how many these are."""
    separate = one if one.state else other
    if not separate.state:
        return [(one.inputs, other.inputs, 0, 0, one.rows)]
    inputs, state = separate.inputs[0].rows, separate.state[0].rows
    return [
        (one.inputs, other.inputs, 0, 0, inputs),
        (
            one.state or one.inputs,
            other.state or other.inputs,
            0 if one.state else inputs,
            0 if other.state else inputs,
            state,
        ),
    ]


def _bias_pairs(one: Reading, other: Reading, choice: Choice, units: int) -> list[MappedVariable]:
    left, right = list(one.biases), list(other.biases)
    if choice.exchanged:
        right.reverse()
    summed = len(left) != len(right)
    if summed and len(left) == 1:
        left *= len(right)
    elif summed:
        right *= len(left)
    found = []
    for number, (bias, partner) in enumerate(zip(left, right, strict=True)):
        for gate, origin in enumerate(choice.order):
            (info, row), start = _at([(each, each[0].parameters) for each in bias], origin * units)
            (own, begun), begin = _at([(each, each[0].parameters) for each in partner], gate * units)
            block, there = _span(info, row, start, units), _span(own, begun, begin, units)
            reshape = sizes(block) != sizes(there)
            found.append(
                MappedVariable(
                    info.name,
                    own.name,
                    info.shape,
                    own.shape,
                    reshape=reshape,
                    legacy_block=block,
                    modern_block=there,
                    summed=summed,
                    offset=float(number == 0 and gate == choice.offset - 2),
                )
            )
    return found


def _span(info: VariableInfo, row: int, start: int, units: int) -> Block:
    """Elements of a vector, or of a row of a matrix of biases."""
    if len(info.shape) == 1:
        return ((row + start, row + start + units),)
    number = row // info.shape[1]
    return ((number, number + 1), (start, start + units))


def _at(parts: Iterable[tuple[Any, int]], place: int) -> tuple[Any, int]:
    """Which of several things laid end to end a place is in, and where."""
    for thing, size in parts:
        if place < size:
            return thing, place
        place -= size
    raise IndexError(place)


def _seen_offset(pair: MappedVariable, legacy: Mapping[str, Array], modern: Mapping[str, Array]) -> float | None:
    """What a modern bias begins with more than the legacy one; None where one of them begins with several numbers."""
    if len(pair.legacy_size) != 1 and pair.legacy_size[0] != 1:
        return 0.0
    one, other = (
        np.asarray(arrays[name])[tuple(slice(*edge) for edge in block)]
        for arrays, name, block in (
            (legacy, pair.legacy, pair.legacy_block),
            (modern, pair.modern, pair.modern_block),
        )
    )
    if one.min() != one.max() or other.min() != other.max():
        return None
    return float(other.flat[0]) - float(one.flat[0])


# --- Finding them -----------------------------------------------------------------------------------------------------
def find(
    legacy: Sequence[VariableInfo],
    modern: Sequence[VariableInfo],
    wanted: Collection[tuple[str, str]],
    alike: Callable[[str, str], float],
    whole: bool = False,
) -> list[Cell]:
    """Cells that certain variables belong to, none of which shares a variable with another.

    Args:
      legacy: the legacy side's variables in the order of computation.
      modern: the modern side's.
      wanted: ("legacy" or "modern", name) of the variables that are to be accounted for.
      alike: how alike two names are, from 0 to 1.
      whole: whether cells are looked for whose variables have the same shapes on both sides, or whose have not.
    """
    every, asked = _Runs(legacy), _Runs(legacy, {name for side, name in wanted if side == "legacy"})
    mine = {name for side, name in wanted if side == "modern"}
    shapes: set[tuple[int, ...]] = {each.shape for each in (*legacy, *modern) if len(each.shape) == 2}
    held: dict[tuple[frozenset[str], frozenset[str]], list[tuple[tuple[float, ...], Reading, Reading]]] = {}
    for place, reading in _runs(modern):
        for origin, partner in (every if mine & reading.names else asked).near(reading, place / len(modern)):
            if (partner.shapes == reading.shapes) != whole or not comparable(partner, reading):
                continue
            if not (_may_be_permuted(partner, reading) if whole else _gates(partner, reading)):
                continue
            names = partner.names, reading.names
            gates, together = _recurrent(partner, reading, shapes), tuple(map(_shared_path, names))
            if len(partner.biases) != len(reading.biases) and gates < 3 and not all(together):
                continue  # two layers, and not one simple recurrent cell with a bias more
            apart = 3 * abs(origin - place / len(modern)) - alike(min(names[0]), min(names[1]))
            cost = (
                -gates,
                min(len(each.inputs) + len(each.state) for each in (partner, reading)),
                -sum(("legacy", name) in wanted for name in names[0]) - len(names[1] & mine),
                not reading.biases,
                len(names[0]) + len(names[1]),
                -sum(together),
                apart,
            )
            held.setdefault(names, []).append((cost, partner, reading))
    cells: list[Cell] = []
    taken: tuple[set[str], set[str]] = set(), set()
    for names, pairs in sorted(held.items(), key=lambda each: min(cost for cost, *_ in each[1])):
        if not names[0] & taken[0] and not names[1] & taken[1]:
            pairs.sort(key=lambda each: each[0])
            cells.append(Cell(tuple((one, other) for _, one, other in pairs)))
            taken[0].update(names[0])
            taken[1].update(names[1])
    return cells


def _shared_path(names: Iterable[str]) -> int:
    """How many of their first parts names have in common."""
    parts = [name.split("/")[:-1] for name in names]
    return next(
        (depth for depth, each in enumerate(zip(*parts, strict=False)) if len(set(each)) > 1), min(map(len, parts))
    )


class _Runs:
    """The readings of one side by their size, in order."""

    def __init__(self, variables: Sequence[VariableInfo], wanted: Collection[str] | None = None) -> None:
        self._by_size: dict[tuple[int, int], list[tuple[float, Reading]]] = {}
        for place, reading in _runs(variables):
            if wanted is None or not reading.names.isdisjoint(wanted):
                row = self._by_size.setdefault((reading.columns, reading.rows), [])
                row.append((place / len(variables), reading))

    def near(self, reading: Reading, place: float) -> Sequence[tuple[float, Reading]]:
        """The readings of another's size that lie at about its place, as a share of the whole."""
        row = self._by_size.get((reading.columns, reading.rows), [])
        middle = bisect_left(row, place, key=lambda each: each[0])
        return row[max(0, middle - _NEAR) : middle + _NEAR]


def _runs(variables: Sequence[VariableInfo]) -> Iterator[tuple[int, Reading]]:
    """Readings of every run of neighbours that could be one cell, with its place; a bias stands behind its kernel."""
    floating = [each for each in variables if np.dtype(each.dtype).kind == "f"]
    for start in range(len(floating)):
        if len(floating[start].shape) < 2:
            continue
        for stop in range(start + 1, min(start + MOST_VARIABLES, len(floating)) + 1):
            run = floating[start:stop]
            if len({bool(each.optimizers) for each in run}) == 1:  # no bias is trained where its kernel is not
                for reading in readings(run):
                    yield start, reading
