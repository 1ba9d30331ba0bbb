"""Where two computations part: intermediates are matched by value, and those beside the first mismatch by structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from tfport.checking.values import agree, apart, matched

Array = np.ndarray[Any, Any]
Token = tuple[str, str]
"""What a node reads that both sides may share: ("value", class of equal values), ("variable", name) or ("input", own
name)."""


class Intermediate(Protocol):
    """A node of either side."""

    @property
    def name(self) -> str:
        """Its own name."""
        ...

    @property
    def kind(self) -> str:
        """The op's type or the layer's class."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The nodes that it reads."""
        ...

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that it reads, under shared names."""
        ...

    @property
    def value(self) -> Array:
        """Its value."""
        ...

    @property
    def attributes(self) -> Mapping[str, str]:
        """Attributes and constant operands."""
        ...

    @property
    def where(self) -> str:
        """File and line."""
        ...


@dataclass(frozen=True)
class Input:
    """What the program is fed, as a node."""

    name: str
    value: Array
    kind: str = "input"
    inputs: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True)
class Parting:
    """The place where two sides part."""

    legacy: Intermediate | None
    """The node on the legacy side; None where only the modern side has one."""
    modern: Intermediate | None
    """The node on the modern side; None where only the legacy side has one."""
    agreeing: tuple[tuple[str, str], ...] = ()
    """Legacy and modern names of what both read and what is equal."""
    beside: tuple[Intermediate, Intermediate] | None = None
    """Where `legacy` or `modern` is None: the legacy and the modern node into which what only one has goes."""
    only_legacy: tuple[Intermediate, ...] = ()
    """Nodes behind the legacy node for which nothing stands on the modern side."""
    only_modern: tuple[Intermediate, ...] = ()
    reads_legacy: tuple[str, ...] = ()
    """What the legacy node is computed from and the modern one is not."""
    reads_modern: tuple[str, ...] = ()
    differing: tuple[tuple[str, str, str], ...] = ()
    """Attributes and constants that differ: name, on the legacy side, on the modern side; empty where it has none."""
    replaced: bool = False
    """Whether the two are of different kinds, and read the same."""
    opaque: tuple[Intermediate, ...] = ()
    """Loops, branches and functions behind the place that were not entered: what differs may lie in them."""
    exchanged: tuple[str, ...] = ()
    """Modern names of `agreeing` that agree with their axes exchanged only."""


_FAMILIES: dict[str, str] = {
    "addv2": "add",
    "biasadd": "add",
    "addn": "add",
    "resourcegather": "gather",
    "gatherv2": "gather",
    "embedding": "gather",
    "batchmatmul": "matmul",
    "batchmatmulv2": "matmul",
    "mm": "matmul",
    "bmm": "matmul",
    "linear": "matmul",
    "realdiv": "div",
    "truediv": "div",
    "divnonan": "div",
    "sub": "sub",
    "rsub": "sub",
    "selectv2": "select",
    "where": "select",
    "conv2dbackpropinput": "convtranspose2d",
    "conv_transpose2d": "convtranspose2d",
    "maxpool": "maxpool2d",
    "max_pool2d": "maxpool2d",
    "avgpool": "avgpool2d",
    "avg_pool2d": "avgpool2d",
    "view": "reshape",
    "flatten": "reshape",
    "permute": "transpose",
    "t": "transpose",
    "stridedslice": "slice",
    "getitem": "slice",
    "concatv2": "concat",
    "cat": "concat",
    "stack": "pack",
    "unbind": "unpack",
    "chunk": "split",
    "splitv": "split",
}
"""Kind in small letters -> what the frameworks' kinds for it have in common."""

MOVEMENT = frozenset(
    {
        "broadcastto",
        "clone",
        "concat",
        "contiguous",
        "expand",
        "expanddims",
        "identity",
        "pack",
        "repeat",
        "reshape",
        "slice",
        "split",
        "squeeze",
        "tensorarraygatherv3",
        "tensorarrayreadv3",
        "tensorlistgetitem",
        "tensorliststack",
        "tile",
        "transpose",
        "unpack",
        "unsqueeze",
    }
)
"""Families that move data and compute nothing."""


OPAQUE = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "Exit", "Merge"}) | {
    "PartitionedCall",
    "StatefulPartitionedCall",
    "XlaCallModule",
}
"""Kinds that stand for computations that are not entered."""


def family(kind: str) -> str:
    """A kind of node, alike for all frameworks."""
    small = kind.lower()
    return _FAMILIES.get(small, small)


class _Side:
    """One side's nodes with what it is fed."""

    def __init__(self, nodes: Sequence[Intermediate], fed: Mapping[str, Array]) -> None:
        self.fed = [Input(name, np.asarray(value)) for name, value in fed.items()]
        self.nodes: list[Any] = [*self.fed, *_leading_to_last(nodes)]
        self.by_name: dict[str, Any] = {node.name: node for node in self.nodes}
        self.order = {node.name: number for number, node in enumerate(self.nodes)}
        self.apart: list[Any] = []
        self.classes: dict[str, str] = {}
        """Node with an equal on the other side -> the name of its class of equal values."""

    def tokens(self, node: Any, through: set[str] | None = None) -> set[Token]:
        """What a node reads of what both sides have, looking through what has no equal of its own.

        Args:
          node: a node of this side.
          through: names of nodes without an equal that are looked through; by default none of those that are apart.
        """
        return set(self._read(node, through))

    def names(self, node: Any, through: set[str] | None = None) -> dict[Token, str]:
        """The same with a name of this side for each: a node, a variable, or what is fed, by its own name."""
        fed = {("value", self.classes[each.name]): each.name for each in self.fed if each.name in self.classes}
        return {token: fed.get(token, name) for token, name in self._read(node, through).items()}

    def _read(self, node: Any, through: set[str] | None) -> dict[Token, str]:
        found: dict[Token, str] = {("variable", name): name for name in node.variables}
        lone = {each.name for each in self.apart}
        pending, seen = list(node.inputs), set()
        while pending:
            name = pending.pop(0)
            if name in seen:
                continue
            seen.add(name)
            each = self.by_name.get(name)
            if name in self.classes:
                found.setdefault(("value", self.classes[name]), name)
            elif each is None or isinstance(each, Input):
                found[("input", name)] = name
            elif name not in lone or (through is not None and name in through):
                found |= {("variable", variable): variable for variable in each.variables}
                pending += each.inputs
        return found

    def alone(self, node: Any, beside: set[Token], through: set[str]) -> tuple[str, ...]:
        """Names of what a node is computed from and another is not; of equal values the program's input is named.

        Args:
          node: a node of this side.
          beside: the other's tokens.
          through: as `tokens` takes it.
        """
        fed = {self.classes[each.name]: each.name for each in self.fed if each.name in self.classes}
        reads = self._read(node, through)
        return tuple(dict.fromkeys(fed.get(token[1], reads[token]) for token in reads if token not in beside))

    def behind(self, node: Any) -> list[Any]:
        """The nodes apart that a node is computed from, in order."""
        lone = {each.name for each in self.apart}
        found: set[str] = set()
        pending = list(node.inputs)
        while pending:
            name = pending.pop()
            if name in self.by_name and name not in found and name not in self.classes:
                found.add(name)
                pending += self.by_name[name].inputs
        return [each for each in self.nodes if each.name in found and each.name in lone]

    def moves(self, node: Any) -> list[Any]:
        """The nodes that only move data, from what computes to what a node reads, in order."""
        found: set[str] = set()
        pending = list(node.inputs)
        while pending:
            each = self.by_name.get(pending.pop())
            if each is not None and each.name not in found and family(each.kind) in MOVEMENT:
                found.add(each.name)
                pending += each.inputs
        return [each for each in self.nodes if each.name in found]

    def hands_on(self, node: Any) -> bool:
        """Whether a node's value is that of something it reads: x + 0, x * 1, a rectifier of what is positive."""
        return any(
            name in self.by_name
            and self.by_name[name].value.size == node.value.size
            and np.array_equal(self.by_name[name].value.reshape(-1), node.value.reshape(-1))
            for name in node.inputs
        )


def _leading_to_last(nodes: Sequence[Intermediate]) -> list[Intermediate]:
    """The nodes from which the last one, the loss or the last output, is computed."""
    by_name = {node.name: node for node in nodes}
    wanted: set[str] = set()
    pending = [nodes[-1].name] if nodes else []
    while pending:
        name = pending.pop()
        if name in by_name and name not in wanted:
            wanted.add(name)
            pending += by_name[name].inputs
    return [node for node in nodes if node.name in wanted]


def parting(
    legacy: Sequence[Intermediate],
    modern: Sequence[Intermediate],
    close: float,
    fed_legacy: Mapping[str, Array],
    fed_modern: Mapping[str, Array],
) -> Parting | None:
    """Where two computations part; None where every intermediate that leads to the end agrees.

    Args:
      legacy: the legacy side's nodes, in the order of computation.
      modern: the modern side's.
      close: how far apart, as a share of the largest magnitude, is still one value.
      fed_legacy: what the legacy side was fed, by its own names.
      fed_modern: what the modern side was fed.
    """
    left, right = _Side(legacy, fed_legacy), _Side(modern, fed_modern)
    partners = matched(left.nodes, right.nodes, close)
    for one in left.fed:  # what tells nothing, such as a single number, is known by its name
        other = right.by_name.get(one.name)
        if isinstance(other, Input) and other.name not in partners and np.array_equal(one.value, other.value):
            partners[other.name] = one.name
    back = {**matched(right.nodes, left.nodes, close), **{one: other for other, one in partners.items()}}
    right.apart, left.apart = apart(right.nodes, partners), apart(left.nodes, back)
    if not right.apart and not left.apart:
        return None
    _classify(left, right, partners, back)
    return _Alignment(left, right, partners, close).found()


def _classify(left: _Side, right: _Side, partners: Mapping[str, str], back: Mapping[str, str]) -> None:
    """Gives every node that has an equal the name of its class; what a mere move makes is of its source's class."""
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while above.get(key, key) != key:
            key = above[key]
        return key

    def join(one: tuple[str, str], other: tuple[str, str]) -> None:
        one, other = sorted((root(one), root(other)))
        above[other] = one

    for modern, legacy in partners.items():
        join(("legacy", legacy), ("modern", modern))
    for legacy, modern in back.items():
        join(("legacy", legacy), ("modern", modern))
    for label, side, known in (("legacy", left, back), ("modern", right, partners)):
        for node in side.nodes:
            if node.name in known and family(node.kind) in MOVEMENT and len(node.inputs) == 1:
                source = side.by_name.get(node.inputs[0])
                if source is not None and source.name in known and source.value.size == node.value.size:
                    join((label, source.name), (label, node.name))
        side.classes = {name: "/".join(root((label, name))) for name in known}


class _Alignment:
    """Finds what stands beside what, among the nodes that are apart."""

    def __init__(self, left: _Side, right: _Side, partners: Mapping[str, str], close: float) -> None:
        self.left, self.right, self.partners, self.close = left, right, partners, close

    def found(self) -> Parting:
        left, right = self.left, self.right
        one, other = next(iter(left.apart), None), next(iter(right.apart), None)
        if one is not None and other is not None and family(one.kind) != family(other.kind):
            same = left.tokens(one) == right.tokens(other) and not self._waits(one, other)
            if same and self._takes_its_place(one, other):
                trivial = self._without_effect(one, other)
                return trivial or self._pair(one, other, replaced=True)
            trivial = self._without_effect(one, other)
            if trivial is not None:
                return trivial
        anchor = self._anchor()
        if one is None or other is None:
            agreeing = self._named(right.names(other)) if other is not None else ()
            return Parting(one, other, agreeing, only_legacy=tuple(left.apart), only_modern=tuple(right.apart))
        if anchor is None:
            if left.tokens(one) == right.tokens(other):
                return self._pair(one, other, replaced=True)
            return Parting(None, other, self._named(right.names(other)))
        return self._behind(*anchor)

    def _waits(self, one: Any, other: Any) -> bool:
        """Whether either reads something that is apart itself."""
        return bool(self.left.behind(one) or self.right.behind(other))

    def _takes_its_place(self, one: Any, other: Any) -> bool:
        """Whether what reads the one is of the kind of what reads the other, and neither is put before the other."""
        after = {family(each.kind) for each in self.left.nodes if one.name in each.inputs}
        follow = {family(each.kind) for each in self.right.nodes if other.name in each.inputs}
        inserted = family(one.kind) in follow or family(other.kind) in after
        return bool(after & follow) or not inserted

    def _without_effect(self, one: Any, other: Any) -> Parting | None:
        """A partner that hands on what it reads: the addition of 0 on one side, beside that of 1 on the other."""
        for node, side, opposite, beside in ((other, self.right, self.left, one), (one, self.left, self.right, other)):
            for name in node.inputs:
                idle = side.by_name.get(name)
                if idle is None or isinstance(idle, Input) or family(idle.kind) != family(beside.kind):
                    continue
                if family(idle.kind) in MOVEMENT or not side.hands_on(idle):
                    continue
                if side.tokens(idle) & opposite.tokens(beside):
                    return self._pair(beside, idle) if side is self.right else self._pair(idle, beside)
        return None

    def _anchor(self) -> tuple[Any, Any] | None:
        """The first pair of nodes of one kind that read the same variables, or something else that both have.

        None of them lies behind what the other side has later: a product in the loss is no partner of one in a layer.
        """
        best: tuple[int, Any, Any] | None = None
        lone_left = {each.name for each in self.left.apart}
        lone_right = {each.name for each in self.right.apart}
        reads = [(each, self.left.tokens(each, lone_left)) for each in self.left.apart]
        for number, other in enumerate(self.right.apart):
            if best is not None and number >= best[0]:
                break
            tokens = self.right.tokens(other, lone_right)
            for place, (one, its) in enumerate(reads):
                if best is not None and number + place >= best[0]:
                    break
                if family(one.kind) != family(other.kind) or (
                    family(one.kind) in MOVEMENT and not self._moves(one, other)
                ):
                    continue
                alike = set(one.variables) == set(other.variables) if one.variables or other.variables else tokens & its
                if alike and not self._crossed(one, other):
                    best = (number + place, one, other)
                    break
        return None if best is None else best[1:]

    def _crossed(self, one: Any, other: Any) -> bool:
        """Whether one reads variables, by nodes that are apart, that the other side reads only elsewhere."""
        before = [
            {name for node in side.behind(each) for name in node.variables}
            for side, each in ((self.left, one), (self.right, other))
        ]
        elsewhere = [{name for node in side.apart for name in node.variables} for side in (self.left, self.right)]
        return bool((before[0] - before[1]) & elsewhere[1] or (before[1] - before[0]) & elsewhere[0])

    def _moves(self, one: Any, other: Any) -> bool:
        """Whether two moves of the same data are known to differ in how they move it."""
        same = self.left.tokens(one) == self.right.tokens(other) and not self._waits(one, other)
        return same and one.kind == other.kind and bool(_differing(one, other))

    def _behind(self, one: Any, other: Any) -> Parting:
        """What keeps an anchor apart: itself, or what stands behind it on one side alone."""
        left, right = self.left, self.right
        behind_left, behind_right = left.behind(one), right.behind(other)
        closed = [each for each in [*behind_left, *behind_right] if each.kind in OPAQUE]
        if closed:
            return Parting(one, other, opaque=tuple(closed))
        attributes = [each for each in _differing(one, other) if each[1] and each[2]]
        if all(family(each.kind) in MOVEMENT for each in [*behind_left, *behind_right]) and not attributes:
            behind_left, behind_right = left.moves(one), right.moves(other)
        only_left, only_right = _unpaired(behind_left, behind_right)
        lone_left = {each.name for each in left.apart}
        lone_right = {each.name for each in right.apart}
        reads_left, reads_right = left.names(one, lone_left), right.names(other, lone_right)
        differ = set(reads_left) != set(reads_right)
        if not only_left and not only_right:
            return self._pair(one, other)
        if len(only_left) == len(only_right) == 1 and not differ:
            first, second = only_left[0], only_right[0]
            if left.tokens(first) == right.tokens(second):
                return self._pair(first, second, replaced=True)
        if (lone := self._reads_alone(only_left, right, (one, other))) is not None:
            return Parting(lone, None, beside=(one, other), only_legacy=(lone,))
        if (lone := self._reads_alone(only_right, left, (one, other))) is not None:
            return Parting(None, lone, self._named(right.names(lone)), (one, other), only_modern=(lone,))
        if (only_left and only_right) or attributes or (set(reads_left) - set(reads_right) and only_right):
            found = self._pair(one, other)
            return replace(found, only_legacy=tuple(only_left), only_modern=tuple(only_right))
        agreeing = self._shared(reads_left, reads_right)
        if only_right:
            return Parting(
                None,
                only_right[0],
                self._named(right.names(only_right[0])),
                (one, other),
                only_modern=tuple(only_right),
                reads_legacy=left.alone(one, set(reads_right), lone_left),
                reads_modern=right.alone(other, set(reads_left), lone_right),
            )
        return Parting(
            only_left[0],
            None,
            agreeing,
            (one, other),
            only_legacy=tuple(only_left),
            reads_legacy=left.alone(one, set(reads_right), lone_left),
            reads_modern=right.alone(other, set(reads_left), lone_right),
        )

    def _reads_alone(self, only: Sequence[Any], opposite: _Side, anchor: tuple[Any, Any]) -> Any:
        """The first of one side's own nodes with a variable that the opposite side, up to the anchor, does not read."""
        there = anchor[1] if opposite is self.right else anchor[0]
        read = {name for each in [*opposite.behind(there), there] for name in each.variables}
        read |= {name for token, name in opposite.names(there).items() if token[0] == "variable"}
        return next((each for each in only if set(each.variables) - read), None)

    def _pair(self, one: Any, other: Any, replaced: bool = False) -> Parting:
        lone_left = {each.name for each in self.left.apart} - {one.name}
        lone_right = {each.name for each in self.right.apart} - {other.name}
        left, right = self.left.names(one, lone_left), self.right.names(other, lone_right)
        agreeing = self._shared(left, right)
        return Parting(
            one,
            other,
            agreeing,
            exchanged=tuple(second for first, second in agreeing if not self._in_order(first, second)),
            reads_legacy=self.left.alone(one, set(right), lone_left),
            reads_modern=self.right.alone(other, set(left), lone_right),
            differing=() if replaced else _differing(one, other),
            replaced=replaced,
        )

    def _shared(self, left: Mapping[Token, str], right: Mapping[Token, str]) -> tuple[tuple[str, str], ...]:
        """Names of what both read and what is equal, array by array."""
        found = []
        for token, other in right.items():
            if token[0] == "value" and token in left:
                one = self.partners.get(other, left[token])
                if not self._equal(left[token], other):
                    if not self._equal(one, other):
                        continue
                    found.append((one, other))
                else:
                    found.append((left[token], other))
        return tuple(found)

    def _named(self, reads: Mapping[Token, str]) -> tuple[tuple[str, str], ...]:
        """What a node of the modern side reads that has an equal, with the equal's name."""
        return tuple(
            (self.partners[name], name)
            for token, name in reads.items()
            if token[0] == "value" and name in self.partners
        )

    def _in_order(self, one: str, other: str) -> bool:
        left, right = self.left.by_name[one].value, self.right.by_name[other].value
        return agree(left.reshape(-1), right.reshape(-1), self.close)

    def _equal(self, one: str, other: str) -> bool:
        left, right = self.left.by_name.get(one), self.right.by_name.get(other)
        return left is not None and right is not None and agree(left.value, right.value, self.close)


def _unpaired(left: Iterable[Any], right: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """What one side has more of a kind than the other, by kind and in order."""
    rest: list[Any] = list(right)
    alone = []
    for each in left:
        partner = next((other for other in rest if family(other.kind) == family(each.kind)), None)
        if partner is None:
            alone.append(each)
        else:
            rest.remove(partner)
    return alone, rest


def _differing(one: Any, other: Any) -> tuple[tuple[str, str, str], ...]:
    """Attributes and constants of two nodes of one kind that differ; empty on a side that has no such constant."""
    if one.kind != other.kind:
        return ()
    names = dict.fromkeys([*one.attributes, *other.attributes])
    return tuple(
        (name, one.attributes.get(name, ""), other.attributes.get(name, ""))
        for name in names
        if one.attributes.get(name, "") != other.attributes.get(name, "")
    )
