"""Which variable of the modern side is which of the legacy side: by name and shape, and then by the forward pass.

A first assignment comes from names, shapes, layouts, order and who trains what. Then both sides compute from one probe
state in which no two variables are alike. Where an intermediate of the modern side has inputs that the legacy side
knows and a value that it does not, the variables that it reads are tried in every other way that shapes allow, and the
one that agrees is taken. What the intermediates cannot tell apart is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np

from tfport.checking import cells
from tfport.checking.values import Valued, first_apart, matched
from tfport.layouts import MappedVariable
from tfport.subject import VariableInfo

Array = np.ndarray[Any, Any]
TRIES = 300
"""Forward passes that may be spent on candidates."""
TOGETHER_TRIES = 60
"""Those of them that may be spent, at one intermediate, on several variables at once."""
ORDER_TRIES = 60
"""Those of them that may be spent, at one intermediate, on orders of gates."""
AMBIGUITY_TRIES = 40
"""Those of them that may be spent on looking for other partners of what agrees."""

_TOGETHER = 4
"""Variables that are tried together at most: those of a normalisation."""
_ROLES: dict[str, str] = {
    **dict.fromkeys(("kernel", "weights", "weight", "w", "filters", "filter", "kernels", "matrix"), "kernel"),
    **dict.fromkeys(("bias", "biases", "b"), "bias"),
    **dict.fromkeys(("gamma", "scale"), "gamma"),
    **dict.fromkeys(("beta", "offset", "shift"), "beta"),
    **dict.fromkeys(("moving_mean", "running_mean", "pop_mean", "mean", "mu"), "moving_mean"),
    **dict.fromkeys(
        ("moving_variance", "running_var", "pop_var", "var", "variance", "moving_var", "pop_variance"),
        "moving_variance",
    ),
    **dict.fromkeys(("embeddings", "embedding", "embed"), "embedding"),
    "recurrent_kernel": "recurrent_kernel",
}


@dataclass(frozen=True)
class _Way:
    """One way in which a modern variable can hold a legacy one."""

    legacy: str
    transpose: tuple[int, ...] = ()
    reshape: bool = False
    view: tuple[int, ...] = ()


Images = Mapping[int, Sequence[tuple[int, ...]]]
"""Number of elements -> the shapes, of one example, that the legacy side's intermediates of that size have."""
Trial = Callable[[Sequence[MappedVariable]], Sequence[Valued]]
"""The modern side's intermediates at the probe state under a mapping."""


def ways(legacy: Sequence[VariableInfo], modern: VariableInfo, images: Images | None = None) -> list[_Way]:
    """Every way in which some legacy variable has the modern one's shape.

    As it is, transposed, without ones, with neighbouring axes merged or split (a depthwise kernel's channels), or with
    the rows of a flattened image in the order of another image layout.
    """
    found = []
    for each in legacy:
        if np.dtype(each.dtype).kind != np.dtype(modern.dtype).kind:
            continue
        if each.shape == modern.shape:
            found.append(_Way(each.name))
        if len(each.shape) in (2, 3, 4, 5) and sorted(each.shape) == sorted(modern.shape):
            straight = tuple(range(len(each.shape)))
            found += [
                _Way(each.name, order)
                for order in permutations(straight)
                if order != straight and tuple(each.shape[axis] for axis in order) == modern.shape
            ]
        elif each.shape != modern.shape and _merged(each.shape, modern.shape):
            found.append(_Way(each.name, (), True))
        if len(each.shape) == 4 and _merged(_turned(each.shape, _DEPTHWISE), modern.shape):
            found.append(_Way(each.name, _DEPTHWISE, True))
        if len(each.shape) == 2 and images:
            found += _flattened(each, modern, images.get(each.shape[0], ()))
    return found


_DEPTHWISE = (2, 3, 0, 1)
"""A depthwise kernel of TensorFlow's with its channels first, as PyTorch's has them."""


def _turned(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in order)


def _merged(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes of as many elements differ by ones, and by neighbouring axes that one of them has merged."""
    left, right = (tuple(size for size in shape if size != 1) for shape in (one, other))
    if left == right:
        return tuple(one) != tuple(other)
    few, many = sorted((left, right), key=len)
    if len(few) < 2 or math.prod(few) != math.prod(many):
        return False
    rest = list(many)
    for size in few:
        product = 1
        while rest and product < size:
            product *= rest.pop(0)
        if product != size:
            return False
    return not rest


def _flattened(one: VariableInfo, other: VariableInfo, shapes: Iterable[tuple[int, ...]]) -> Iterable[_Way]:
    """Ways in which the rows of a kernel are those of an image whose axes are in another order."""
    rows, columns = one.shape
    for shape in shapes:
        axes = len(shape)
        for order in permutations(range(axes)):
            if order == tuple(range(axes)):
                continue
            if other.shape == (rows, columns):
                yield _Way(one.name, (*order, axes), True, (*shape, columns))
            if other.shape == (columns, rows):
                yield _Way(one.name, (axes, *order), True, (*shape, columns))


def _images(shapes: Iterable[tuple[int, ...]], legacy: Sequence[VariableInfo]) -> dict[int, list[tuple[int, ...]]]:
    """See `Images`; for the sizes that kernels have rows."""
    rows = {each.shape[0] for each in legacy if len(each.shape) == 2}
    found: dict[int, list[tuple[int, ...]]] = {}
    for whole in shapes:
        shape = tuple(size for size in whole[1:] if size != 1)
        size = math.prod(shape)
        if len(shape) in (2, 3) and size in rows and shape not in found.setdefault(size, []):
            found[size].append(shape)
    return found


def first_guess(legacy: Sequence[VariableInfo], modern: Sequence[VariableInfo]) -> list[MappedVariable]:
    """The assignment that names, shapes, order and trainability make likeliest, each with its reason."""
    from scipy.optimize import linear_sum_assignment

    if not legacy or not modern:
        return []
    possible = [{way.legacy: way for way in reversed(ways(legacy, each))} for each in modern]
    costs = np.full((len(modern), len(legacy)), 1e6)
    for row, each in enumerate(modern):
        for column, other in enumerate(legacy):
            if other.name not in possible[row]:
                continue
            way = possible[row][other.name]
            cost = 4.0 * (1.0 - alike(each.name, other.name))
            cost += 2.0 * (_role(each.name) != _role(other.name) and bool(_role(each.name)) and bool(_role(other.name)))
            cost += 1.5 * (bool(each.optimizers) != bool(other.optimizers))
            cost += 0.5 * bool(way.transpose or way.reshape)
            cost += 3.0 * abs(row / len(modern) - column / len(legacy))
            costs[row, column] = cost
    found = []
    for row, column in zip(*linear_sum_assignment(costs), strict=True):
        if costs[row, column] >= 1e6:
            continue
        one, other = legacy[column], modern[row]
        way = possible[row][one.name]
        found.append(_mapped(one, other, way, _reason(one, other, legacy, possible[row])))
    order = {each.name: number for number, each in enumerate(legacy)}
    return sorted(found, key=lambda pair: order[pair.legacy])


def _reason(one: VariableInfo, other: VariableInfo, legacy: Sequence[VariableInfo], fits: Mapping[str, _Way]) -> str:
    if one.name == other.name:
        return "same name"
    if len(fits) == 1:
        return "the only one of its shape"
    likeness = alike(one.name, other.name)
    rivals = [alike(each.name, other.name) for each in legacy if each.name in fits and each.name != one.name]
    return "the likest name" if likeness > max(rivals, default=0.0) else "the order of the variables"


def _mapped(one: VariableInfo, other: VariableInfo, way: _Way, reason: str) -> MappedVariable:
    return MappedVariable(
        one.name, other.name, one.shape, other.shape, way.transpose, way.reshape, reason, view=way.view
    )


def _tokens(name: str) -> set[str]:
    words = re.split(r"[/._:\s]+|(?<=[a-z])(?=\d)", name.lower())
    return {_ROLES.get(word, word) for word in words if word}


def alike(one: str, other: str) -> float:
    """How alike two names are: 1 where they are equal, else the share of words that both have."""
    if one == other:
        return 1.0
    left, right = _tokens(one), _tokens(other)
    return 0.9 * len(left & right) / max(len(left | right), 1)


def _role(name: str) -> str:
    last = re.split(r"[/.]", name.lower())[-1]
    last = re.sub(r"_?\d+$", "", last)
    return _ROLES.get(last, next((role for word, role in _ROLES.items() if last.endswith("_" + word)), ""))


_PARTS = re.compile("split|slice|chunk|unpack|unbind|lstm|gru", re.IGNORECASE)
"""Kinds of node that take gates apart."""


def _place(nodes: Sequence[Valued], node: Valued) -> int:
    return next(number for number, each in enumerate(nodes) if each.name == node.name)


def _as_read(variables: Sequence[VariableInfo], nodes: Sequence[Valued]) -> list[VariableInfo]:
    """Variables in the order in which they are first read; those that no node reads last."""
    read = dict.fromkeys(name for node in nodes for name in getattr(node, "variables", ()))
    order = {name: number for number, name in enumerate(read)}
    return sorted(variables, key=lambda each: order.get(each.name, len(order)))


@dataclass
class _Settling:
    """A cell, and how it is laid out by now."""

    cell: cells.Cell
    choice: cells.Choice
    blocks: list[MappedVariable]
    settled: bool = False
    ambiguous: tuple[str, ...] = ()

    def reason(self, agrees: bool) -> str:
        """Why it is laid out so."""
        order = ", ".join(str(gate + 1) for gate in self.choice.order)
        told = f"gates taken in the order {order}" if len(self.choice.order) > 1 else "of one size"
        return f"forward pass: {told}" if agrees or self.settled else f"a cell of its size, {told}; not settled"


def settle(
    guess: Sequence[MappedVariable],
    legacy: Sequence[VariableInfo],
    modern: Sequence[VariableInfo],
    legacy_nodes: Sequence[Valued],
    trial: Trial,
    fixed: Sequence[MappedVariable] = (),
    initial: tuple[Mapping[str, Array], Mapping[str, Array]] = ({}, {}),
    inputs: Iterable[tuple[int, ...]] = (),
) -> tuple[list[MappedVariable], list[str]]:
    """The assignment under which most of the modern side's intermediates are the legacy side's.

    Args:
      guess: where to start; variables that it leaves without a partner may turn out to be parts of others.
      legacy: the legacy side's variables.
      modern: the modern side's.
      legacy_nodes: the legacy side's intermediates at the probe state, in order.
      trial: the modern side's, under a mapping.
      fixed: what a mapping file has settled.
      initial: the values that each side's variables begin with, by its own names.
      inputs: the shapes of what is fed.

    Returns:
      The mapping with reasons and ambiguities, and what a person should know of how it was found.
    """
    search = _Search(guess, legacy, modern, legacy_nodes, trial, fixed, initial, inputs)
    search.improve()
    search.ambiguities()
    return search.finished()


class _Search:
    def __init__(
        self,
        guess: Sequence[MappedVariable],
        legacy: Sequence[VariableInfo],
        modern: Sequence[VariableInfo],
        legacy_nodes: Sequence[Valued],
        trial: Trial,
        fixed: Sequence[MappedVariable],
        initial: tuple[Mapping[str, Array], Mapping[str, Array]],
        inputs: Iterable[tuple[int, ...]],
    ) -> None:
        self.order, self.modern = [each.name for each in legacy], {each.name: each for each in modern}
        self.fixed = list(fixed)
        held = {("legacy", pair.legacy) for pair in fixed} | {("modern", pair.modern) for pair in fixed}
        self.legacy = [each for each in legacy if ("legacy", each.name) not in held]
        """Those that are paired as wholes."""
        self.free = [each for each in modern if ("modern", each.name) not in held]
        self.cells: list[_Settling] = []
        self.initial = initial
        self.legacy_nodes, self.trial = legacy_nodes, trial
        self.images = _images([*inputs, *(node.value.shape for node in legacy_nodes)], self.legacy)
        self.tries = 0
        self.nodes: Sequence[Valued] = []
        self.partners: dict[str, str] = {}
        paired = {("legacy", pair.legacy) for pair in guess} | {("modern", pair.modern) for pair in guess}
        alone = {("legacy", each.name) for each in self.legacy} | {("modern", each.name) for each in self.free}
        self.mapping = {pair.modern: pair for pair in guess if ("modern", pair.modern) in alone}
        if alone - paired:
            self.nodes, self.partners = self.look(self.mapping)
            self._add(self._cells(alone - paired))
            self.mapping = {pair.modern: pair for pair in first_guess(self.legacy, self.free)}
        self.infos = {each.name: each for each in legacy}
        self.notes: list[str] = []

    def _cells(self, wanted: set[tuple[str, str]], whole: bool = False) -> list[cells.Cell]:
        """See `cells.find`."""
        return cells.find(
            _as_read(self.legacy, self.legacy_nodes), _as_read(self.free, self.nodes), wanted, alike, whole
        )

    def _add(self, found: Iterable[cells.Cell]) -> None:
        """Takes variables for cells; they are no longer paired as wholes."""
        for cell in found:
            self.legacy = [each for each in self.legacy if each.name not in cell.legacy]
            self.free = [each for each in self.free if each.name not in cell.modern]
            choice = next(iter(cell.choices()))
            self.cells.append(_Settling(cell, choice, cell.mapped(choice, *self.initial)))

    def look(
        self, mapping: Mapping[str, MappedVariable], settling: Sequence[_Settling] | None = None
    ) -> tuple[Sequence[Valued], dict[str, str]]:
        """The modern intermediates under a mapping, and their partners."""
        self.tries += 1
        blocks = [pair for each in (self.cells if settling is None else settling) for pair in each.blocks]
        nodes = self.trial([*self.fixed, *mapping.values(), *blocks])
        return nodes, matched(self.legacy_nodes, nodes)

    def improve(self) -> None:
        """Goes from one intermediate without partner to the next, and tries what its variables could be instead."""
        self.nodes, self.partners = self.look(self.mapping)
        while self.tries < TRIES:
            apart = first_apart(self.nodes, self.partners)
            if apart is None:
                return
            if not (self._mend_cells(apart) or self._mend(apart) or self._mend_orders(apart)):
                self._unsettled(apart)
                return
        self.notes.append(
            f"the search for variables ended after {TRIES} forward passes; give --mapping to settle the rest"
        )

    def _unsettled(self, apart: Valued) -> None:
        """Nothing that is computed from what differs can agree, so its variables stay as they were guessed."""
        behind, order = {apart.name}, {each.name: each for each in self.nodes}
        for node in self.nodes:
            if behind & set(node.inputs):
                behind.add(node.name)
        agreeing = {
            name for node in self.nodes if node.name in self.partners for name in getattr(node, "variables", ())
        }
        read = {name for node in behind for name in getattr(order[node], "variables", ())}
        for settling in self.cells:
            settling.settled = settling.settled or not settling.cell.modern & read
        for modern in read - agreeing:
            if modern in self.mapping and self.mapping[modern].reason != "the only one of its shape":
                pair = self.mapping[modern]
                self.mapping[modern] = replace(
                    pair, reason=f"{pair.reason}; not settled, it is read behind a difference"
                )

    def _mend(self, node: Valued) -> bool:
        """Tries other candidates for the variables near a node; keeps the first that gives it a partner."""
        variables = [each for each in self._read_by(node) if each in self.mapping]
        for modern in variables or self._near(node):
            for candidate in self._candidates(modern, self.mapping):
                if self.tries >= TRIES:
                    return False
                if self._taken(node, candidate, (modern,)):
                    return True
        most = min(TRIES, self.tries + TOGETHER_TRIES)
        for several, candidate in self._together(self._near(node)):
            if self.tries >= most:
                return False
            if self._taken(node, candidate, several):
                return True
        return False

    def _mend_cells(self, node: Valued) -> bool:
        """Tries other layouts of the cells near a node, of all cells alike and of each alone; keeps the first that
        gives it a partner.
        """
        unsettled = [each for each in self.cells if not each.settled]
        behind = self._read_by(node, past=True)
        beside = [each for each in unsettled if each.cell.modern & set(behind)]
        beside.sort(key=lambda each: min(behind.index(name) for name in each.cell.modern if name in behind))
        beside = beside or unsettled  # where the legacy side shows nothing of its cell's inside
        choices = [choice for each in beside for choice in each.choice.offsets()]
        choices += [choice for each in beside for choice in each.cell.choices()]
        for choice in dict.fromkeys(choices):
            for group in [unsettled, *([each] for each in beside if len(unsettled) > 1)]:
                if self.tries >= TRIES:
                    return False
                if self._chosen(node, group, choice):
                    return True
        return False

    def _mend_orders(self, node: Valued) -> bool:
        """Tries other orders of gates in variables that have partners as wholes."""
        near = [each for each in self._read_by(node, past=True) if each in self.mapping]
        if not any(_PARTS.search(each.kind) for each in self.nodes[: _place(self.nodes, node) + 1]):
            return False
        before = self.legacy, self.free, self.mapping, list(self.cells)
        count = len(self.cells)
        wanted = {("modern", name) for name in near}
        self._add(self._cells(wanted, whole=True)[:1])
        if len(self.cells) == count:
            return False
        added = self.cells[count]
        self.mapping = {name: pair for name, pair in self.mapping.items() if name not in added.cell.modern}
        most = min(TRIES, self.tries + ORDER_TRIES)
        for choice in added.cell.choices():
            if self.tries >= most:
                break
            if self._chosen(node, [added], choice):
                return True
        self.legacy, self.free, self.mapping, self.cells = before
        return False

    def _chosen(self, node: Valued, group: Sequence[_Settling], choice: cells.Choice) -> bool:
        """Whether another layout of some cells gives the node a partner; it is kept then."""
        changed = list(self.cells)
        for each in group:
            blocks = each.cell.mapped(choice, *self.initial)
            if blocks and blocks != each.blocks:
                changed[self.cells.index(each)] = _Settling(each.cell, choice, blocks)
        if changed == self.cells:
            return False
        nodes, partners = self.look(self.mapping, changed)
        if not self._better(node, nodes, partners):
            return False
        self.cells, self.nodes, self.partners = changed, nodes, partners
        return True

    def _taken(self, node: Valued, candidate: dict[str, MappedVariable], settled: Sequence[str]) -> bool:
        """Whether a mapping gives the node a partner; it is kept then."""
        nodes, partners = self.look(candidate)
        if not self._better(node, nodes, partners):
            return False
        for modern, changed in candidate.items():
            if modern in settled:
                count = len(ways(self.legacy, self.modern[modern], self.images))
                how = f"forward pass: 1 of {count} candidates agrees"
                candidate[modern] = replace(changed, reason=how)
            elif changed != self.mapping.get(modern):
                candidate[modern] = replace(changed, reason="exchanged with one that the forward pass settled")
        self.mapping, self.nodes, self.partners = candidate, nodes, partners
        return True

    def _together(self, variables: Sequence[str]) -> Iterable[tuple[tuple[str, ...], dict[str, MappedVariable]]]:
        """Mappings with another way for several variables at once: a scale and an offset show only together."""
        settled = ("same name", "the only one of its shape")
        unsure = [each for each in variables if self.mapping[each].reason not in settled]
        for count in range(2, len(unsure) + 1):
            for chosen in combinations(unsure, count):
                for candidate in self._changed(chosen, self.mapping):
                    yield chosen, candidate

    def _changed(
        self, chosen: Sequence[str], given: Mapping[str, MappedVariable]
    ) -> Iterable[dict[str, MappedVariable]]:
        """A mapping with another way for each of some variables."""
        if not chosen:
            yield dict(given)
            return
        for candidate in self._candidates(chosen[0], given, alike=True):
            for found in self._changed(chosen[1:], candidate):
                if found[chosen[0]] == candidate[chosen[0]]:
                    yield found

    def _near(self, node: Valued) -> list[str]:
        """The variables that a node is computed from, and the next ones that what is computed from it reads."""
        found = dict.fromkeys(self._read_by(node))
        after = {node.name}
        for each in self.nodes:
            if after & set(each.inputs) and len(found) < _TOGETHER:
                after.add(each.name)
                found.update(dict.fromkeys(getattr(each, "variables", ())))
        return [each for each in found if each in self.mapping]

    def _better(self, node: Valued, nodes: Sequence[Valued], partners: Mapping[str, str]) -> bool:
        apart = first_apart(nodes, partners)
        if apart is None:
            return True
        order = [each.name for each in nodes]
        if node.name not in order or apart.name not in order:
            return len(partners) > len(self.partners)
        return order.index(apart.name) > order.index(node.name) and len(partners) > len(self.partners)

    def _read_by(self, node: Valued, past: bool = False) -> list[str]:
        """Modern names of the variables that the node reads, or that what is behind it does, up to nodes that agree.

        Args:
          node: the node.
          past: whether to go on behind nodes that agree.
        """
        by_name = {each.name: each for each in self.nodes}
        found: dict[str, None] = {}
        pending, seen = [node.name], set()
        while pending:
            each = by_name.get(pending.pop(0))
            if each is None or each.name in seen:
                continue
            seen.add(each.name)
            found.update(dict.fromkeys(getattr(each, "variables", ())))
            pending += [name for name in each.inputs if past or name not in self.partners]
        return list(found)

    def _candidates(
        self, modern: str, given: Mapping[str, MappedVariable], alike: bool = False
    ) -> Iterable[dict[str, MappedVariable]]:
        """A mapping with another way for one variable; a legacy variable in use is exchanged, layouts as fit.

        Args:
          modern: the variable.
          given: the mapping.
          alike: whether only legacy variables are tried whose names say nothing else than the variable's own.
        """
        present = given[modern]
        info = self.modern[modern]
        holder = {pair.legacy: name for name, pair in given.items()}
        held = present.legacy, present.transpose, present.reshape, present.view
        for way in ways(self.legacy, info, self.images):
            if (way.legacy, way.transpose, way.reshape, way.view) == held:
                continue
            if alike and _role(way.legacy) and _role(modern) and _role(way.legacy) != _role(modern):
                continue
            mapping = dict(given)
            mapping[modern] = _mapped(self.infos[way.legacy], info, way, present.reason)
            other = holder.get(way.legacy)
            if other is not None and other != modern:
                back = ways([self.infos[present.legacy]], self.modern[other])
                if back:
                    mapping[other] = _mapped(
                        self.infos[present.legacy], self.modern[other], back[0], given[other].reason
                    )
                else:
                    del mapping[other]
            yield mapping

    def ambiguities(self) -> None:
        """For variables that neither name nor shape settles: other partners under which as much agrees."""
        if first_apart(self.nodes, self.partners) is not None:
            return
        most = min(TRIES, self.tries + AMBIGUITY_TRIES)
        for modern, pair in list(self.mapping.items()):
            if pair.reason in ("same name", "the only one of its shape"):
                continue
            others = []
            for candidate in self._candidates(modern, self.mapping):
                if self.tries >= most:
                    return
                nodes, partners = self.look(candidate)
                if first_apart(nodes, partners) is None and len(partners) >= len(self.partners):
                    others.append(candidate[modern].legacy)
            if others:
                told = tuple(dict.fromkeys(others))
                self.mapping[modern] = replace(pair, ambiguous=told)
        self._interchangeable(most)

    def _interchangeable(self, most: int) -> None:
        """For each kind of cell: gates that could as well change places."""
        kinds: set[Any] = set()
        for place, each in enumerate(self.cells):
            if each.choice in kinds:
                continue
            kinds.add(each.choice)
            for one, other in combinations(range(len(each.choice.order)), 2):
                if self.tries >= most:
                    return
                order = list(each.choice.order)
                order[one], order[other] = order[other], order[one]
                choice = replace(each.choice, order=tuple(order))
                blocks = each.cell.mapped(choice, *self.initial)
                changed = [*self.cells[:place], _Settling(each.cell, choice, blocks), *self.cells[place + 1 :]]
                nodes, partners = self.look(self.mapping, changed)
                if first_apart(nodes, partners) is None and len(partners) >= len(self.partners):
                    each.ambiguous += (f"gates {one + 1} and {other + 1} exchanged",)

    def finished(self) -> tuple[list[MappedVariable], list[str]]:
        """The mapping in the legacy side's order."""
        order = {name: number for number, name in enumerate(self.order)}
        whole = first_apart(self.nodes, self.partners) is None
        blocks = [
            replace(pair, reason=each.reason(whole), ambiguous=each.ambiguous)
            for each in self.cells
            for pair in each.blocks
        ]
        return sorted([*self.fixed, *self.mapping.values(), *blocks], key=lambda pair: order[pair.legacy]), self.notes
