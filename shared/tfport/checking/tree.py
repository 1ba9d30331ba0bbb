"""Dataclasses as a tree of JSON values, with their arrays beside it in a file: nothing in either is ever executed.

What a type is written as: a dataclass as an object of its fields, a mapping as an object where its keys are text and
as a list of pairs elsewhere, tuples, lists and sets as lists, a number that is not finite as text ("nan", "inf"), and
an array by its place: offset, dtype, shape and SHA-256.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tfport.checking.store import Kept, Place

Put = Callable[[Any], Place]
"""Keeps an array, or what lies at another place."""
KINDS = "fiubSU"
"""Of dtypes that a file may name; of objects there is none."""


class Malformed(Exception):
    """A tree is none of the type that it was read as; says where."""


# --- Writing ----------------------------------------------------------------------------------------------------------
def plain(value: Any, put: Put) -> Any:
    """A value as JSON values; its arrays go where `put` says."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Kept):
        return {name: plain(place, put) for name, place in value.places.items()}
    if isinstance(value, Place | np.ndarray | np.generic):
        place = put(value)
        return [place.offset, place.dtype, list(place.shape), place.digest.hex()]
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name), put) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        if all(isinstance(name, str) for name in value):
            return {name: plain(each, put) for name, each in value.items()}
        return [[plain(name, put), plain(each, put)] for name, each in value.items()]
    if isinstance(value, set | frozenset):
        return [plain(each, put) for each in sorted(value)]
    return [plain(each, put) for each in value]


# --- Reading ----------------------------------------------------------------------------------------------------------
def read(kind: Any, tree: Any, place: Callable[[Sequence[Any]], Place], where: str = "") -> Any:
    """What `plain` wrote, as a value of a type.

    Args:
      kind: the type, as hints write it.
      tree: JSON values.
      place: what an array's entry means; it checks the entry.
      where: the path that led here, for messages.

    Raises:
      Malformed: the tree does not fit the type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if tree is None and type(None) in inner:
            return None
        (kind,) = (each for each in inner if each is not type(None))
        return read(kind, tree, place, where)
    if kind is Kept:
        return Kept({name: place(each) for name, each in _object(tree, where).items()})
    if kind is Place:
        return place(tree)
    if origin is np.ndarray:
        return place(tree).read()
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, _object(tree, where), place, where)
    if origin in (dict, Mapping):
        pairs = list(tree.items()) if inner[0] is str and isinstance(tree, dict) else _pairs(tree, where)
        return {
            read(inner[0], name, place, where): read(inner[1], each, place, f"{where}/{name}") for name, each in pairs
        }
    if origin in (list, set, frozenset) or (origin is tuple and inner[1:] == (...,)):
        return origin(read(inner[0], each, place, f"{where}/{at}") for at, each in enumerate(_list(tree, where)))
    if origin is tuple:
        if len(_list(tree, where)) != len(inner):
            raise Malformed(f"{where} holds {len(tree)} values, expected {len(inner)}")
        return tuple(read(each, value, place, where) for each, value in zip(inner, tree, strict=True))
    return _scalar(kind, tree, where)


def _scalar(kind: Any, tree: Any, where: str) -> Any:
    if kind is float and (type(tree) in (int, float) or tree in ("nan", "inf", "-inf")):
        return float(tree)
    if type(tree) is not kind:
        raise Malformed(f"{where} is {type(tree).__name__}, expected {kind.__name__}")
    return tree


def _dataclass(kind: Any, tree: Mapping[str, Any], place: Callable[[Sequence[Any]], Place], where: str) -> Any:
    hints = _hints(kind)
    for name in (*(tree.keys() - hints.keys()), *(hints.keys() - tree.keys())):
        raise Malformed(f"{where or 'its top level'} {'has' if name in tree else 'lacks'} {name!r}")
    return kind(**{name: read(hint, tree[name], place, f"{where}/{name}") for name, hint in hints.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {each.name: hints[each.name] for each in dataclasses.fields(kind)}


def _object(tree: Any, where: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise Malformed(f"{where} is {type(tree).__name__}, expected an object")
    return tree


def _list(tree: Any, where: str) -> list[Any]:
    if not isinstance(tree, list):
        raise Malformed(f"{where} is {type(tree).__name__}, expected a list")
    return tree


def _pairs(tree: Any, where: str) -> list[Any]:
    if not all(isinstance(each, list) and len(each) == 2 for each in _list(tree, where)):
        raise Malformed(f"{where} is no list of pairs")
    return list(tree)
