"""Which variable of one checkpoint is which of another, and which optimizer: by a mapping or by name, no guesses."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfport.checking.mapping_file import READ, SCHEMA, block, check_tiles, load
from tfport.checking.mapping_file import entry as as_entry
from tfport.checkpoints.contents import Contents, Role, Stored
from tfport.errors import CheckpointError, UserError, unknown
from tfport.files import write_json
from tfport.layouts import MappedVariable

_VARIABLES = (Role.WEIGHT, Role.STATISTIC, Role.AVERAGE)

_ALIKE = {
    "weight": "kernel",
    "weights": "kernel",
    "w": "kernel",
    "biases": "bias",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
    "embedding": "kernel",
    "embeddings": "kernel",
}
"""What frameworks call one thing, by the last part of a name."""


@dataclass(frozen=True)
class Variable:
    """One variable of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role


@dataclass(frozen=True)
class Pairs:
    """Which is which."""

    variables: tuple[MappedVariable, ...]
    optimizers: Mapping[str, str]
    """Source's optimizer -> target's."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Source's variables that stay behind -> why."""


@dataclass(frozen=True)
class MappingFile:
    """A mapping file as it was read."""

    path: Path
    variables: tuple[Mapping[str, Any], ...]
    optimizers: tuple[tuple[str, str], ...]
    legacy_only: frozenset[str]
    modern_only: frozenset[str]


def variables_of(contents: Contents, tensors: Mapping[str, Stored]) -> dict[str, Variable]:
    """The variables of a checkpoint by canonical name, each once, in the file's order."""
    found: dict[str, Variable] = {}
    for entry in contents.entries:
        if entry.role in _VARIABLES:
            stored = tensors[entry.key]
            found.setdefault(entry.name, Variable(entry.name, stored.shape, stored.dtype, entry.role))
    return found


# --- Mapping files ----------------------------------------------------------------------------------------------------
def read_mapping(path: Path) -> MappingFile:
    """A mapping file: what `tfport check --write_mapping` writes, and optionally "optimizers", pairs as variables are.

    Raises:
      UserError: it cannot be read or is of another form.
    """
    tree = load(path)
    form = (
        f'{{"schema": {SCHEMA}, "variables": [{{"legacy": ..., "modern": ...}}, ...], "optimizers": [{{"legacy": ..., '
        '"modern": ...}]}'
    )
    if not isinstance(tree, dict) or tree.get("schema") not in READ:
        raise UserError(f"--mapping={path} is no mapping of schema {SCHEMA}: expected {form}.")
    lists: dict[str, list[Any]] = {}
    for key in ("variables", "optimizers"):
        entries = tree.get(key, [])
        if not isinstance(entries, list):
            raise UserError(f"--mapping={path}: {key} is no list; expected {form}.")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(side), str) for side in ("legacy", "modern")
            ):
                raise UserError(f"--mapping={path}: entry {number} of {key} needs the texts legacy and modern.")
        lists[key] = entries
    names = {}
    for key in ("legacy_only", "modern_only"):
        given = tree.get(key, [])
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise UserError(f"--mapping={path}: {key} is no list of names; expected {form}.")
        names[key] = frozenset(given)
    return MappingFile(
        path,
        tuple(lists["variables"]),
        tuple((entry["legacy"], entry["modern"]) for entry in lists["optimizers"]),
        names["legacy_only"],
        names["modern_only"],
    )


def write_draft(
    path: Path,
    source: Mapping[str, Variable],
    target: Mapping[str, Variable],
    layouts: tuple[str, str] = ("tf", "tf"),
) -> int:
    """Writes a mapping to look through: sure pairs, and a guess by shape and order for the rest, marked as such.

    Args:
      path: the file.
      source: the variables to carry.
      target: the variables to fill.
      layouts: whose kernels each side has: "tf" or "torch".

    Returns:
      How many pairs are guesses.

    Raises:
      RunError: the disk refused.
    """
    pairs = _by_names(source, target, layouts)
    taken = {pair.modern for pair in pairs.values()}
    left = [each for each in target.values() if each.name not in taken]
    entries = [as_entry(pair) for pair in pairs.values()]
    guesses = 0
    for variable in source.values():
        if variable.name in pairs:
            continue
        fitting = [each for each in left if _orders(variable, each)]
        if not fitting:
            continue
        left.remove(fitting[0])
        guesses += 1
        guess = _pair(variable, fitting[0], None, "a guess: the first of this shape; look at it")
        entries.append({**as_entry(guess), "ambiguous": [each.name for each in fitting[1:]]})
    named = {entry["legacy"] for entry in entries}
    write_json(
        path,
        {
            "schema": SCHEMA,
            "variables": entries,
            "optimizers": [],
            "legacy_only": [name for name in source if name not in named],
            "modern_only": [each.name for each in left],
        },
    )
    return guesses


# --- Variables --------------------------------------------------------------------------------------------------------
def pair_variables(
    source: Mapping[str, Variable],
    target: Mapping[str, Variable],
    mapping: MappingFile | None,
    leave_out: Sequence[str] = (),
    layouts: tuple[str, str] = ("tf", "tf"),
) -> dict[str, tuple[MappedVariable, ...]]:
    """Target's variable -> its blocks.

    Args:
      source: the variables to carry.
      target: the variables to fill.
      mapping: what a person says; it comes first.
      leave_out: source's variables that are to stay behind.
      layouts: whose kernels each side has: "tf" or "torch".

    Raises:
      UserError: the mapping names what is not there, shapes do not fit, or blocks do not tile a variable.
    """
    given: dict[str, tuple[MappedVariable, ...]] = {}
    if mapping is not None:
        for entry in mapping.variables:
            one = _named(mapping.path, "legacy", entry["legacy"], source)
            other = _named(mapping.path, "modern", entry["modern"], target)
            named = {**entry, "legacy": one.name, "modern": other.name}
            given[other.name] = (*given.get(other.name, ()), _given(mapping.path, named, one, other, layouts))
        check_tiles(mapping.path, [pair for blocks in given.values() for pair in blocks])
    used = {pair.legacy for blocks in given.values() for pair in blocks}
    behind = {*leave_out, *(mapping.legacy_only if mapping else ())}
    kept = mapping.modern_only if mapping else frozenset()
    free = {name: each for name, each in source.items() if name not in used and name not in behind}
    open_ = {name: each for name, each in target.items() if name not in given and name not in kept}
    found = _by_names(free, open_, layouts)
    return {**given, **{pair.modern: (pair,) for pair in found.values()}}


def _named(path: Path, side: str, name: str, known: Mapping[str, Variable]) -> Variable:
    """The variable of that name; a program may have its model's name in front, which the model's own file leaves out.

    Raises:
      UserError: there is none, or several.
    """
    if name in known:
        return known[name]
    inner = [each for each in known if name.endswith(f"/{each}")]
    if len(inner) != 1:
        raise UserError(f"--mapping={path}: {unknown(f'{side} variable', name, known)}")
    return known[inner[0]]


_HOW = {"transpose", "reshape", "legacy_block", "modern_block", "view", "flip", "offset", "sum"}
"""The keys of an entry that say how one variable becomes the other; without any, the frameworks' layouts do."""


def _given(
    path: Path, entry: Mapping[str, Any], one: Variable, other: Variable, layouts: tuple[str, str]
) -> MappedVariable:
    if entry.keys() & _HOW or (one.shape == other.shape and layouts[0] == layouts[1]):
        return block(path, entry, one.shape, other.shape)
    return _pair(one, other, _order(one, other, layouts, str(path)), "mapping file")


def _by_names(
    source: Mapping[str, Variable],
    target: Mapping[str, Variable],
    layouts: tuple[str, str] = ("tf", "tf"),
) -> dict[str, MappedVariable]:
    """Source's name -> pair, for what names and shapes settle; each rule works on what those before it left."""
    found: dict[str, MappedVariable] = {}

    def take(one: str, other: str, reason: str) -> None:
        order = _order(source[one], target[other], layouts, None)
        if order is not None:
            found[one] = _pair(source[one], target[other], order, reason)

    for name in source:
        if name in target:
            take(name, name, "the same name")
    for key, reason in ((_usual, "the same name in the other framework's words"), (_last_two, "the same ending")):
        open_source = [name for name in source if name not in found]
        taken = {pair.modern for pair in found.values()}
        open_target = [name for name in target if name not in taken]
        left, right = _unique(open_source, key), _unique(open_target, key)
        for word in left.keys() & right.keys():
            take(left[word], right[word], reason)
    modern = {pair.modern for pair in found.values()}
    torn = _torn(source, set(found)), _torn(target, modern)
    return {
        name: found[name]
        for name in source
        if name in found and not (_layer(name) in torn[0] and _layer(found[name].modern) in torn[1])
    }


def _torn(variables: Mapping[str, Variable], paired: set[str]) -> set[str]:
    """The layers of which a kernel has no partner: where neither side has one, gates or groups are held otherwise,
    and what a name says of the bias does not tell their order.
    """
    return {_layer(name) for name, each in variables.items() if len(each.shape) > 1 and name not in paired} - {""}


def _layer(name: str) -> str:
    return name.replace(".", "/").rpartition("/")[0]


def _usual(name: str) -> str:
    """A name in TensorFlow's words and separators."""
    parts = name.replace(".", "/").removesuffix(":0").split("/")
    return "/".join([*parts[:-1], _ALIKE.get(parts[-1], parts[-1])]).lower()


def _last_two(name: str) -> str:
    """The layer and what of it; "" for a name without a layer."""
    parts = _usual(name).split("/")
    return "/".join(parts[-2:]) if len(parts) > 1 else ""


def _unique(names: Iterable[str], key: Any) -> dict[str, str]:
    """Key -> name, for keys that one name alone has."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return {word: group[0] for word, group in groups.items() if word and len(group) == 1}


def _pair(one: Variable, other: Variable, order: tuple[int, ...] | None, reason: str) -> MappedVariable:
    if order is None:
        order = next(iter(_orders(one, other)), ())
    return MappedVariable(one.name, other.name, one.shape, other.shape, order, False, reason)


def _orders(one: Variable, other: Variable) -> list[tuple[int, ...]]:
    """The orders of axes that bring one shape to the other, the unchanged one first, as ()."""
    if len(one.shape) != len(other.shape):
        return []
    if one.shape == other.shape:
        return [()]
    return [
        order
        for order in itertools.permutations(range(len(one.shape)))
        if tuple(one.shape[axis] for axis in order) == other.shape
    ][:2]


_LAYOUTS: dict[tuple[str, str], dict[int, tuple[int, ...]]] = {
    ("torch", "tf"): {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)},
    ("tf", "torch"): {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)},
}
"""How kernels of dense layers and convolutions are turned; a transposed convolution's by the same order, since both
frameworks swap its two channel axes alike."""


def _order(one: Variable, other: Variable, layouts: tuple[str, str], path: str | None) -> tuple[int, ...] | None:
    """How the axes are to be ordered; None where that cannot be told and `path` is None.

    Raises:
      UserError: it cannot be told, and `path` is the mapping that should say.
    """
    turns = _LAYOUTS.get(layouts, {}).get(len(one.shape))
    plain = one.shape == other.shape
    turned = turns is not None and tuple(one.shape[axis] for axis in turns) == other.shape
    kernel = _usual(one.name).endswith("kernel") and "embed" not in one.name.lower()
    if turns is not None and turned and (kernel or not plain):
        return turns
    if plain and not (turned and not kernel and "embed" not in one.name.lower()):
        return ()
    if path is not None:
        raise UserError(
            f"--mapping={path}: {one.name} has shape {one.shape} and {other.name} has {other.shape}; say how with "
            '"transpose": [order of the axes] or "reshape": true, or give another partner.'
        )
    return None


# --- Optimizers -------------------------------------------------------------------------------------------------------
def pair_optimizers(
    source: Contents, target: Contents, variables: Iterable[MappedVariable], mapping: MappingFile | None
) -> dict[str, str]:
    """Source's optimizer -> target's: by the mapping, by what they train, by name, or as the only two.

    Raises:
      UserError: the mapping names what is not there.
      CheckpointError: several are left on both sides and nothing tells which is which.
    """
    left = {each.name: each for each in source.optimizers}
    right = {each.name: each for each in target.optimizers}
    found: dict[str, str] = {}
    for one, other in mapping.optimizers if mapping else ():
        where = f"--mapping={mapping.path}: " if mapping else ""
        if one not in left:
            raise UserError(where + str(unknown("legacy optimizer", one, left)))
        if other not in right:
            raise UserError(where + str(unknown("modern optimizer", other, right)))
        found[one] = other
    partners: dict[str, list[str]] = {}
    for pair in variables:
        partners.setdefault(pair.legacy, []).append(pair.modern)

    def rest() -> tuple[list[str], list[str]]:
        return [each for each in left if each not in found], [each for each in right if each not in found.values()]

    held = {
        name: frozenset(other for each in one.variables for other in partners.get(each, [each]))
        for name, one in left.items()
    }
    ones, others = rest()
    for one in ones:
        same = [other for other in others if held[one] and held[one] == frozenset(right[other].variables)]
        rivals = [each for each in ones if held[each] == held[one]]
        if len(same) == 1 and len(rivals) == 1:
            found[one] = same[0]
    ones, others = rest()
    for one in ones:
        if one in others and not (held[one] and right[one].variables and held[one] != frozenset(right[one].variables)):
            found[one] = one
    ones, others = rest()
    if len(ones) == 1 and len(others) == 1:
        found[ones[0]] = others[0]
    elif ones and others:
        raise CheckpointError(
            f"which optimizer is which cannot be told: {', '.join(ones)} here, {', '.join(others)} there. "
            'Say it in the mapping file: "optimizers": [{"legacy": ..., "modern": ...}].'
        )
    return found
