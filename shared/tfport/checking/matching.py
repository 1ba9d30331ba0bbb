"""Which variable of the modern side is which of the legacy side: by name and shape, and then by the forward pass.

A first assignment comes from names, shapes, layouts, order and who trains what. Then both sides compute from one probe
state in which no two variables are alike. Where an intermediate of the modern side has inputs that the legacy side
knows and a value that it does not, the variables that it reads are tried in every other way that shapes allow, and the
one that agrees is taken. What the intermediates cannot tell apart is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np

from tfport.checking.report import MappedVariable
from tfport.checking.values import Index, Valued, first_apart, matched
from tfport.subject import VariableInfo

Array = np.ndarray[Any, Any]
TRIES = 300
"""Forward passes that may be spent on candidates."""
TOGETHER_TRIES = 60
"""Those of them that may be spent, at one intermediate, on several variables at once."""
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


Trial = Callable[[Sequence[MappedVariable]], Sequence[Valued]]
"""The modern side's intermediates at the probe state under a mapping."""


def ways(legacy: Sequence[VariableInfo], modern: VariableInfo) -> list[_Way]:
    """Every way in which some legacy variable has the modern one's shape: as it is, transposed, or without ones."""
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
        elif each.shape != modern.shape and _squeezed(each.shape) == _squeezed(modern.shape):
            found.append(_Way(each.name, (), True))
    return found


def _squeezed(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


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
            cost = 4.0 * (1.0 - _alike(each.name, other.name))
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
    likeness = _alike(one.name, other.name)
    rivals = [_alike(each.name, other.name) for each in legacy if each.name in fits and each.name != one.name]
    return "the likest name" if likeness > max(rivals, default=0.0) else "the order of the variables"


def _mapped(one: VariableInfo, other: VariableInfo, way: _Way, reason: str) -> MappedVariable:
    return MappedVariable(one.name, other.name, one.shape, other.shape, way.transpose, way.reshape, reason)


def _tokens(name: str) -> set[str]:
    words = re.split(r"[/._:\s]+|(?<=[a-z])(?=\d)", name.lower())
    return {_ROLES.get(word, word) for word in words if word}


def _alike(one: str, other: str) -> float:
    """How alike two names are: 1 where they are equal, else the share of words that both have."""
    if one == other:
        return 1.0
    left, right = _tokens(one), _tokens(other)
    return 0.9 * len(left & right) / max(len(left | right), 1)


def _role(name: str) -> str:
    last = re.split(r"[/.]", name.lower())[-1]
    last = re.sub(r"_?\d+$", "", last)
    return _ROLES.get(last, next((role for word, role in _ROLES.items() if last.endswith("_" + word)), ""))


def settle(
    guess: Sequence[MappedVariable],
    legacy: Sequence[VariableInfo],
    modern: Sequence[VariableInfo],
    legacy_nodes: Sequence[Valued],
    trial: Trial,
    fixed: Iterable[str] = (),
) -> tuple[list[MappedVariable], list[str]]:
    """The assignment under which most of the modern side's intermediates are the legacy side's.

    Args:
      guess: where to start.
      legacy: the legacy side's variables.
      modern: the modern side's.
      legacy_nodes: the legacy side's intermediates at the probe state, in order.
      trial: the modern side's, under a mapping.
      fixed: modern names that a mapping file has settled.

    Returns:
      The mapping with reasons and ambiguities, and what a person should know of how it was found.
    """
    search = _Search(list(guess), legacy, modern, legacy_nodes, trial, set(fixed))
    search.improve()
    search.ambiguities()
    return search.finished()


class _Search:
    def __init__(
        self,
        mapping: list[MappedVariable],
        legacy: Sequence[VariableInfo],
        modern: Sequence[VariableInfo],
        legacy_nodes: Sequence[Valued],
        trial: Trial,
        fixed: set[str],
    ) -> None:
        self.mapping = {pair.modern: pair for pair in mapping}
        self.legacy, self.modern = legacy, {each.name: each for each in modern}
        self.legacy_nodes, self.trial, self.fixed = legacy_nodes, trial, fixed
        self.infos = {each.name: each for each in legacy}
        self.index = Index(legacy_nodes)
        self.tries = 0
        self.notes: list[str] = []
        self.nodes: Sequence[Valued] = []
        self.partners: dict[str, str] = {}

    def look(self, mapping: Mapping[str, MappedVariable]) -> tuple[Sequence[Valued], dict[str, str]]:
        """The modern intermediates under a mapping, and their partners."""
        self.tries += 1
        nodes = self.trial(list(mapping.values()))
        return nodes, matched(self.legacy_nodes, nodes)

    def improve(self) -> None:
        """Goes from one intermediate without partner to the next, and tries what its variables could be instead."""
        self.nodes, self.partners = self.look(self.mapping)
        while self.tries < TRIES:
            apart = first_apart(self.nodes, self.partners)
            if apart is None:
                return
            if not self._mend(apart):
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
        for modern in read - agreeing - self.fixed:
            if modern in self.mapping and self.mapping[modern].reason != "the only one of its shape":
                pair = self.mapping[modern]
                self.mapping[modern] = replace(
                    pair, reason=f"{pair.reason}; not settled, it is read behind a difference"
                )

    def _mend(self, node: Valued) -> bool:
        """Tries other candidates for the variables near a node; keeps the first that gives it a partner."""
        variables = [each for each in self._read_by(node) if each in self.mapping and each not in self.fixed]
        for modern in variables:
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

    def _taken(self, node: Valued, candidate: dict[str, MappedVariable], settled: Sequence[str]) -> bool:
        """Whether a mapping gives the node a partner; it is kept then."""
        nodes, partners = self.look(candidate)
        if not self._better(node, nodes, partners):
            return False
        for modern, changed in candidate.items():
            if modern in settled:
                how = f"forward pass: 1 of {len(ways(self.legacy, self.modern[modern]))} candidates agrees"
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
        return [each for each in found if each in self.mapping and each not in self.fixed]

    def _better(self, node: Valued, nodes: Sequence[Valued], partners: Mapping[str, str]) -> bool:
        apart = first_apart(nodes, partners)
        if apart is None:
            return True
        order = [each.name for each in nodes]
        if node.name not in order or apart.name not in order:
            return len(partners) > len(self.partners)
        return order.index(apart.name) > order.index(node.name) and len(partners) > len(self.partners)

    def _read_by(self, node: Valued) -> list[str]:
        """Modern names of the variables that the node reads, or those behind it up to nodes that agree."""
        by_name = {each.name: each for each in self.nodes}
        found: dict[str, None] = {}
        pending, seen = [node.name], set()
        while pending:
            each = by_name.get(pending.pop(0))
            if each is None or each.name in seen:
                continue
            seen.add(each.name)
            found.update(dict.fromkeys(getattr(each, "variables", ())))
            pending += [name for name in each.inputs if name not in self.partners]
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
        for way in ways(self.legacy, info):
            if (way.legacy, way.transpose, way.reshape) == (present.legacy, present.transpose, present.reshape):
                continue
            if alike and _role(way.legacy) and _role(modern) and _role(way.legacy) != _role(modern):
                continue
            mapping = dict(given)
            mapping[modern] = _mapped(self.infos[way.legacy], info, way, present.reason)
            other = holder.get(way.legacy)
            if other is not None and other != modern:
                if other in self.fixed:
                    continue
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
            if modern in self.fixed or pair.reason in ("same name", "the only one of its shape", "mapping file"):
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

    def finished(self) -> tuple[list[MappedVariable], list[str]]:
        """The mapping in the legacy side's order."""
        order = {each.name: number for number, each in enumerate(self.legacy)}
        return sorted(self.mapping.values(), key=lambda pair: order[pair.legacy]), self.notes
