"""The batches of a check: from the user's function, and by the names that each side calls its inputs."""

from __future__ import annotations

import inspect
import itertools
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from tfport.checking.draws import DrawSource
from tfport.checking.quoting import said
from tfport.errors import UserError
from tfport.program import InputInfo, Program

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]
_END = object()
MADE_UP = 8
"""Examples in a batch where nobody gives one."""


class BatchSource:
    """Batch number `step` as often as asked, by one thread at a time."""

    def __init__(
        self, given: Any, name: str = "batches", around: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """Takes what a user gives.

        Args:
          given: one batch (a mapping or tuple of arrays), a sequence or iterator of them, or a function that takes a
            step's number, or nothing and gives one of the former.
          name: what messages call it.
          around: what the user's code runs within.

        Raises:
          UserError: it is none of these, or its function raises.
        """
        self.name = name
        self._around = around
        self._first: Batch | None = None
        self._function: Callable[[int], Any] | None = None
        self._taken: list[Batch] = []
        self._rest: Any = iter(())
        self._cycle = False
        self._lock = threading.Lock()
        if callable(given):
            if _parameters(given) > 1:
                raise UserError(
                    f"{name} takes {_parameters(given)} arguments: expected a function of the step's number, or of "
                    "nothing."
                )
            if _parameters(given):
                self._function = given
                return
            given = self._called(given)
        if isinstance(given, Mapping) or _is_tuple_of_arrays(given):
            self._taken, self._cycle = [self._batch(given, 0)], True
        elif isinstance(given, Sequence) and not isinstance(given, str):
            self._taken = [self._batch(each, number) for number, each in enumerate(given)]
            self._cycle = True
            if not self._taken:
                raise UserError(f"{name} is empty: expected at least one batch.")
        elif isinstance(given, Iterable) and not isinstance(given, str | np.ndarray):
            self._rest = iter(given)
        else:
            raise UserError(
                f"{name} gave {type(given).__name__}: expected a batch (a mapping of input names to arrays), a "
                "sequence of them, or a function of the step that returns one."
            )

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0; a sequence begins again at its end."""
        with self._lock:
            return self._batch_of(step)

    def _batch_of(self, step: int) -> Batch:
        if self._function is not None:
            return self._batch(self._called(self._function, step), step)
        while len(self._taken) <= step and not self._cycle:
            following = self._called(next, self._rest, _END)
            if following is _END:
                if not self._taken:
                    raise UserError(f"{self.name} is empty: expected at least one batch.")
                self._cycle = True
                break
            self._taken.append(self._batch(following, len(self._taken)))
        return self._taken[step % len(self._taken)]

    def _called(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            with self._around():
                return function(*arguments)
        except (Exception, SystemExit) as error:
            raise UserError(f"{self.name} raised {said(error)}") from error

    def _batch(self, given: Any, number: int) -> Batch:
        try:
            found = self._arrays(given, number)
        except UserError:
            raise
        except Exception as error:  # what an object does when it is made an array is its own affair
            text = " ".join(str(error).split())
            raise UserError(f"batch {number} of {self.name} cannot be made arrays: {text}") from error
        if not found:
            raise UserError(f"batch {number} of {self.name} is empty: expected an array for each input.")
        first = self._first = found if self._first is None else self._first
        for name, array in first.items():
            if name not in found:
                held = ", ".join(found)
                raise UserError(f"batch {number} of {self.name} has no {name}, which batch 0 has; it has {held}.")
            if found[name].ndim != array.ndim:
                raise UserError(
                    f"batch {number} of {self.name}: {name} has shape {found[name].shape}, in batch 0 {array.shape}."
                )
        return found

    def _arrays(self, given: Any, number: int) -> Batch:
        if isinstance(given, Mapping):
            named = {str(name): np.asarray(value) for name, value in given.items()}
        elif _is_tuple_of_arrays(given):
            named = {str(place): np.asarray(value) for place, value in enumerate(given)}
        elif isinstance(given, np.ndarray):
            named = {"0": given}
        else:
            raise UserError(
                f"batch {number} of {self.name} is {type(given).__name__}: expected a mapping of input names to "
                "arrays, or a tuple of arrays in the order of the inputs."
            )
        for name, array in named.items():
            if not array.size:
                raise UserError(
                    f"batch {number} of {self.name}: {name} has shape {array.shape}; give at least one example."
                )
            if array.dtype.kind not in "fiubUS":
                raise UserError(
                    f"batch {number} of {self.name}: {name} has dtype {array.dtype}, expected numbers, truth values or "
                    "strings."
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise UserError(f"batch {number} of {self.name}: {name} holds NaN or infinity; give finite numbers.")
        return named


def made_up(inputs: Sequence[InputInfo], seed: int) -> BatchSource:
    """Standard normal batches of the inputs' shapes, where the user gives none.

    Raises:
      UserError: an input is not floating, or its shape is not known, so that nothing can be made up for it.
    """
    for each in inputs:
        if each.shape is None or None in each.shape[1:]:
            raise UserError(f"input {each.name} has no known shape, so no batch can be made up: give --batches.")
        if each.dtype is None or np.dtype(each.dtype).kind != "f":
            raise UserError(
                f"input {each.name} is {each.dtype}, and only standard normal numbers can be made up: give --batches."
            )

    def batch(step: int) -> Batch:
        source = DrawSource(seed, step)
        source.begin("batch")
        found = {}
        for each in inputs:
            shape = each.shape or ()
            sizes = tuple(size if size is not None else MADE_UP for size in shape)
            found[each.name] = source.normal(sizes)
        return found

    return BatchSource(batch, "the made-up batches")


def assign(batch: Batch, inputs: Sequence[InputInfo], side: str) -> dict[str, str]:
    """Which entry of a batch feeds which input: input name -> batch name.

    By name; then by the name without scopes and numbers; then, where as many inputs as entries are left, in order by
    shape and dtype.

    Raises:
      UserError: an input gets nothing.
    """
    found: dict[str, str] = {}
    free = list(batch)
    for each in inputs:
        if each.name in batch:
            found[each.name] = each.name
    free = [name for name in free if name not in found.values()]
    for each in inputs:
        alike = [name for name in free if each.name not in found and _plain(name) == _plain(each.name)]
        if len(alike) == 1:
            found[each.name] = alike[0]
            free.remove(alike[0])
    left = [each for each in inputs if each.name not in found]
    for each, name in _in_order(left, free, batch):
        found[each.name] = name
    missing = [each.name for each in inputs if each.name not in found]
    if missing:
        held = ", ".join(f"{name} {batch[name].shape} {batch[name].dtype}" for name in batch) or "nothing"
        wanted = ", ".join(f"{each.name} {_shape(each)} {each.dtype or ''}".rstrip() for each in inputs)
        raise UserError(
            f"the batch has nothing for the {side} side's input {missing[0]}: it holds {held}; the inputs are "
            f"{wanted}. Name the entries of the batch as the inputs are named."
        )
    for each in inputs:
        array = batch[found[each.name]]
        if array.dtype.kind in "US" and each.dtype is not None:
            raise UserError(
                f"the batch's {found[each.name]} holds strings, and the {side} side's input {each.name} takes "
                f"{each.dtype}."
            )
        if not _fits(array, each):
            raise UserError(
                f"the batch's {found[each.name]} has shape {array.shape}, and the {side} side's input {each.name} "
                f"takes {_shape(each)}."
            )
    return found


def feeding(batch: Batch, program: Program, side: str) -> dict[str, str]:
    """What `assign` says, and what else the program may take, under its own name; the rest feeds nothing.

    Raises:
      UserError: an input gets nothing.
    """
    found = assign(batch, program.inputs(), side)
    spare = [name for name in batch if name not in found.values()]
    return found | {name: name for name in spare if name not in found and program.may_take(name)}


def fed(batch: Batch, assigned: Mapping[str, str], precision: str) -> Batch:
    """A batch under the names of a side's inputs, floats in its precision; halves are meant as such."""
    whole = {own: batch[name] for own, name in assigned.items()}
    return {name: array.astype(precision) if array.dtype.char in "fd" else array for name, array in whole.items()}


def _in_order(inputs: list[InputInfo], free: list[str], batch: Batch) -> list[tuple[InputInfo, str]]:
    """Pairs what is left where shapes and dtypes tell: as many of both and an order in which all fit."""
    if not inputs or len(free) < len(inputs):
        return []
    if len(free) == len(inputs):
        for order in itertools.islice(itertools.permutations(free), 720):
            if all(_fits(batch[name], each, strictly=True) for each, name in zip(inputs, order, strict=True)):
                return list(zip(inputs, order, strict=True))
        for order in itertools.islice(itertools.permutations(free), 720):
            if all(_fits(batch[name], each) for each, name in zip(inputs, order, strict=True)):
                return list(zip(inputs, order, strict=True))
    pairs = []
    for each in inputs:
        fitting = [name for name in free if _fits(batch[name], each, strictly=True)]
        if len(fitting) == 1:
            pairs.append((each, fitting[0]))
            free = [name for name in free if name != fitting[0]]
    return pairs


def _fits(array: Array, each: InputInfo, strictly: bool = False) -> bool:
    if each.shape is not None:
        if len(each.shape) != array.ndim:
            return False
        if any(size is not None and size != length for size, length in zip(each.shape, array.shape, strict=True)):
            return False
    if strictly and each.dtype is not None:
        return bool((np.dtype(each.dtype).kind == "f") == (array.dtype.kind == "f"))
    return True


def _shape(each: InputInfo) -> str:
    return "of any shape" if each.shape is None else str(each.shape)


def _plain(name: str) -> str:
    last = name.split(":")[0].split("/")[-1]
    return re.sub(r"(_ph|_placeholder|_input|_in)?_?\d*$", "", last.lower()) or last.lower()


def _parameters(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(
        (each.default is each.empty or each.name == "step")
        and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        for each in parameters
    )


def _is_tuple_of_arrays(given: Any) -> bool:
    return isinstance(given, tuple) and bool(given) and all(hasattr(each, "__array__") for each in given)
