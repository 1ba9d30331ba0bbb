"""How a user's own step function is called, what it reports, and what can be found from it; no framework is imported.

A function takes its batch in one of two ways, told apart by the names of its parameters: every required parameter is
the name of an input (`step(x, y)`), or there is one parameter and it gets the whole mapping (`step(batch)`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import functools
import hashlib
import inspect
import random
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfport.checking.draws import DrawSource
from tfport.errors import UserError
from tfport.program import Array, InputInfo

Function = Callable[..., Any]
Inputs = Mapping[str, Any] | Sequence[Any] | None
"""`inputs` as a user gives it: names, InputInfos, or name -> InputInfo, shape, or (shape, dtype)."""

_MAPPINGS = ("batch", "inputs", "data", "feed", "features", "example", "examples")
"""What a parameter that gets the whole batch is called."""
_SHORT = 32
"""Items of a list up to which it is looked through for numbers."""
_DEPTH = 5
"""How far from a function things are looked for."""


# --- Functions --------------------------------------------------------------------------------------------------------
def plain(function: Any) -> Any:
    """The Python function behind a tf.function or a compiled one."""
    for attribute in ("python_function", "_torchdynamo_orig_callable"):
        function = getattr(function, attribute, function)
    return function


def called(function: Any) -> str:
    """What a person calls the function."""
    function = plain(function)
    if isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def check_functions(maker: str, step: Any, phases: Any) -> dict[str, Function]:
    """Phase -> function, of what the user gave as `step` or `phases`.

    Raises:
      UserError: neither or both were given, or something is not a function.
    """
    if (step is None) == (phases is None):
        raise UserError(
            f"{maker} got {'neither step= nor' if step is None else 'both step= and'} phases=: "
            "give step=function, or phases={name: function} where a step has parts."
        )
    if phases is not None and (not isinstance(phases, Mapping) or not phases):
        raise UserError(f"{maker}'s phases= is a mapping of phase name -> function; found {phases!r}.")
    found: dict[str, Function] = dict(phases) if phases is not None else {"step": step}
    for name, function in found.items():
        if not callable(function):
            raise UserError(
                f"{maker}: the phase {name!r} is a {type(function).__name__}; give a function that takes a batch "
                "and does one update."
            )
    return found


def _parameters(function: Any) -> dict[str, inspect.Parameter] | None:
    """The parameters that can be given by name, without *args and **kwargs; None where nothing is known."""
    try:
        found = inspect.signature(plain(function)).parameters
    except (TypeError, ValueError):
        return None
    return {
        name: each
        for name, each in found.items()
        if each.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }


def _required(known: Mapping[str, inspect.Parameter]) -> list[str]:
    return [name for name, each in known.items() if each.default is inspect.Parameter.empty]


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters that a function can be given by name; empty where nothing is known."""
    return _parameters(function) or {}


def call(function: Any, what: str, batch: Mapping[str, Any], **more: Any) -> Any:
    """Calls a user's function with what it takes of a batch.

    Args:
      function: the function.
      what: what a person calls it: "the phase 'step'".
      batch: input name -> tensor.
      more: further arguments, handed over where the function has a parameter of that name.

    Raises:
      UserError: its parameters are neither inputs nor one mapping.
    """
    known = _parameters(function)
    if known is None:
        return function(dict(batch))
    further = {name: value for name, value in more.items() if name in known}
    names = {name: each for name, each in known.items() if name not in further}
    required = _required(names)
    if not names:
        return function(**further)
    if any(name in batch for name in names) and all(name in batch for name in required):
        return function(**{name: batch[name] for name in names if name in batch}, **further)
    if len(required) == 1 or (not required and len(names) == 1):
        return function(**{(required or list(names))[0]: dict(batch)}, **further)
    raise UserError(
        f"{what} takes {', '.join(required)}, and the batch has {', '.join(batch) or 'nothing'}: name the parameters "
        "as the inputs are named, or take one parameter, which then gets the whole batch as a mapping."
    )


def _keys(function: Any, parameter: str) -> list[str]:
    """The keys that a function's own code asks of its parameter: `batch["x"]`."""
    code = getattr(inspect.unwrap(plain(function)), "__code__", None)
    if code is None:
        return []
    found: dict[str, None] = {}
    code_units = [code, *(each for each in code.co_consts if isinstance(each, types.CodeType))]
    for unit in code_units:
        instructions = [each for each in dis.get_instructions(unit) if each.opname != "CACHE"]
        for load, key, ask in zip(instructions, instructions[1:], instructions[2:], strict=False):
            if load.argval != parameter or not load.opname.startswith("LOAD_"):
                continue
            if key.opname == "LOAD_CONST" and isinstance(key.argval, str) and ask.opname.startswith("BINARY_"):
                found[key.argval] = None
    return list(found)


def names_of(function: Any) -> tuple[str, ...]:
    """The inputs that a function asks for, in its order; empty where that cannot be read off it."""
    known = _parameters(function)
    if not known:
        return ()
    required = [name for name in _required(known) if name != "training"]
    if len(required) > 1:
        return tuple(required)
    (name,) = required or list(known)[:1]
    annotation = str(known[name].annotation)
    mapping = name in _MAPPINGS or any(word in annotation for word in ("Mapping", "dict", "Dict", "Batch"))
    keys = _keys(function, name)
    if keys:
        return tuple(keys)
    return () if mapping else (name,)


def takes(function: Any, name: str) -> bool:
    """Whether a function may use an entry of this name in its batch, as far as can be read off it."""
    known = _parameters(function)
    if known is None or name in known:
        return True
    required = [each for each in _required(known) if each != "training"] or list(known)[:1]
    return (len(required) == 1 and not names_of(function)) or any(_handed_on(function, each) for each in required)


def _handed_on(function: Any, parameter: str) -> bool:
    """Whether a mapping's parameter is used otherwise than by asking it for one key after the other."""
    if not _keys(function, parameter):
        return False
    code = getattr(inspect.unwrap(plain(function)), "__code__", None)
    units = [code, *(each for each in code.co_consts if isinstance(each, types.CodeType))] if code else []
    loads = asked = 0
    for unit in units:
        instructions = [each for each in dis.get_instructions(unit) if each.opname != "CACHE"]
        for load, key, ask in zip(instructions, instructions[1:], instructions[2:], strict=False):
            if load.argval == parameter and load.opname.startswith("LOAD_") and load.opname != "LOAD_CLOSURE":
                loads += 1
                constant = key.opname == "LOAD_CONST" and isinstance(key.argval, str)
                asked += constant and ask.opname.startswith("BINARY_")
    return loads > asked


def input_infos(given: Inputs, functions: Sequence[Any]) -> tuple[InputInfo, ...]:
    """What a batch must hold: as the user gave it, else as the functions ask for it; empty where that is open.

    Raises:
      UserError: `given` is nothing that names inputs.
    """
    if given is None:
        asked = [names_of(function) for function in functions]
        if not all(asked):
            return ()
        return tuple(InputInfo(name, None, None) for name in dict.fromkeys(name for names in asked for name in names))
    items = given.items() if isinstance(given, Mapping) else [(getattr(each, "name", each), each) for each in given]
    return tuple(_input_info(name, each) for name, each in items)


def _input_info(name: Any, given: Any) -> InputInfo:
    if isinstance(given, InputInfo) or given is None or (isinstance(given, str) and given == name):
        return given if isinstance(given, InputInfo) else InputInfo(str(name), None, None)
    shape, dtype = getattr(given, "shape", given), getattr(given, "dtype", None)
    if isinstance(given, (list, tuple)) and len(given) == 2 and isinstance(given[0], (list, tuple)):
        shape, dtype = given
    try:
        sizes = None if shape is None else tuple(None if size is None else int(size) for size in shape)
        kind = None if dtype is None else np.dtype(getattr(dtype, "name", dtype)).name
    except (TypeError, ValueError):
        raise UserError(
            f"inputs= describes {name!r} as {given!r}; give a shape such as (None, 784), (shape, dtype), or an "
            "InputInfo."
        ) from None
    return InputInfo(str(name), sizes, kind)


def reports(
    value: Any, what: str, number: Callable[[Any], Any], loss: Any = None, *, only: bool = False
) -> dict[str, float]:
    """What a function returned, as floats with "loss" first; nothing of one of several that has no loss to tell.

    Args:
      value: a scalar, a mapping, a tuple whose first is the loss, or None.
      what: what a person calls the function.
      number: a scalar of the framework -> a float; raises where it is none.
      loss: what stands in where no loss was returned.
      only: whether there is no other phase, which one that copies or resets something has beside it.

    Raises:
      UserError: it returned something else.
    """
    if isinstance(value, Mapping):
        found = {str(name): each for name, each in value.items()}
    elif isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", None) or [f"report_{index}" for index in range(len(value))]
        found = dict(zip(names, value, strict=True))
        if found and "loss" not in found:
            found = {"loss": next(iter(found.values()))} | dict(list(found.items())[1:])
    else:
        found = {} if value is None else {"loss": value}
    if "loss" not in found and loss is not None:
        found["loss"] = loss
    try:
        told = {name: float(number(each)) for name, each in found.items() if each is not None}
    except (TypeError, ValueError, RuntimeError):
        shapes = {name: tuple(getattr(each, "shape", ())) or type(each).__name__ for name, each in found.items()}
        raise UserError(
            f"{what} returned {shapes}, and what a step reports are scalars: return the loss, or a mapping of "
            'names to scalars with the loss as "loss".'
        ) from None
    if value is None and not told and not only:  # it copies to a target network, or resets what is accumulated
        return {}
    if "loss" not in told:
        raise UserError(
            f"{what} returned {'nothing' if value is None else sorted(told)} and no loss; return the loss (a scalar), "
            'or a mapping with the loss as "loss".'
        )
    return {"loss": told.pop("loss")} | told


def batch_checked(batch: Mapping[str, Any], infos: Sequence[InputInfo]) -> dict[str, Array]:
    """The batch as arrays.

    Raises:
      UserError: an input is missing.
    """
    missing = [info.name for info in infos if info.name not in batch]
    if missing:
        raise UserError(
            f"the batch lacks {', '.join(missing)}; it has {', '.join(batch) or 'nothing'}. Give every input by name."
        )
    return {name: np.asarray(value) for name, value in batch.items()}


def named_outputs(value: Any, what: str) -> dict[str, Any]:
    """What a forward function returned, by name.

    Raises:
      UserError: it returned nothing.
    """
    if isinstance(value, Mapping):
        return {str(name): each for name, each in value.items() if each is not None}
    if isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", None) or [f"output_{index}" for index in range(len(value))]
        return {name: each for name, each in zip(names, value, strict=True) if each is not None}
    if value is None:
        raise UserError(f"{what} returned nothing; return a tensor, or a mapping of names to tensors.")
    return {"output": value}


# --- What a function can reach ----------------------------------------------------------------------------------------
def reachable(functions: Sequence[Any], stop: Callable[[Any], bool], outside: tuple[str, ...]) -> dict[str, Any]:
    """Name -> object, for what functions can reach by closures, globals, attributes and containers.

    Args:
      functions: where to begin.
      stop: whether an object is what is looked for; it is not looked into.
      outside: top-level packages whose functions and objects are not looked into.
    """
    found: dict[str, Any] = {}
    seen: set[tuple[int, ...]] = set()
    queue: list[tuple[str, Any, int]] = [("", function, 0) for function in functions]
    while queue:
        name, each, depth = queue.pop(0)
        method = isinstance(each, types.MethodType)
        identity = (id(each.__func__), id(each.__self__)) if method else (id(each),)
        if identity in seen or depth > _DEPTH:
            continue
        seen.add(identity)
        if stop(each):
            unique, number = name, 1
            while unique in found:
                number += 1
                unique = f"{name}_{number}"
            found[unique] = each
            continue
        queue.extend((child, value, depth + 1) for child, value in _children(name, each, outside))
    return found


def _children(name: str, each: Any, outside: tuple[str, ...]) -> list[tuple[str, Any]]:
    each = plain(each)
    if isinstance(each, functools.partial):
        given = [("", each.func), *(("", value) for value in each.args), *each.keywords.items()]
        return [(key, value) for key, value in given if not _simple(value)]
    if isinstance(each, types.MethodType):
        used = each.__func__.__code__.co_names if isinstance(each.__func__, types.FunctionType) else ()
        called = [(key, getattr(each.__self__, key)) for key in used if _is_method(each.__self__, key)]
        return [("", each.__func__), (name, each.__self__), *called]
    if isinstance(each, weakref.ref):
        return [(name, each())]
    if isinstance(each, types.FunctionType) and hasattr(each, "__wrapped__"):
        # A decorated function, or the method of a tf.function, whose object is behind a weak reference.
        cells = [cell.cell_contents for cell in each.__closure__ or () if not _empty(cell)]
        return [("", each.__wrapped__), *((name, cell) for cell in cells if isinstance(cell, weakref.ref))]
    if isinstance(each, types.FunctionType):
        if (each.__module__ or "").split(".")[0] in outside:
            return []
        found: dict[str, Any] = {}
        for key, cell in zip(each.__code__.co_freevars, each.__closure__ or (), strict=True):
            if not _empty(cell):
                found[key] = cell.cell_contents
        names = list(each.__code__.co_names)
        names += [n for unit in each.__code__.co_consts if isinstance(unit, types.CodeType) for n in unit.co_names]
        found |= {key: each.__globals__[key] for key in names if key in each.__globals__}
        found |= {k: p.default for k, p in inspect.signature(each).parameters.items() if p.default is not p.empty}
        return [(key, value) for key, value in found.items() if not _simple(value)]
    if isinstance(each, Mapping):
        return [(str(key), value) for key, value in list(each.items()) if not _simple(value)]
    if isinstance(each, (list, tuple, set, frozenset)):
        return [(name, value) for value in list(each) if not _simple(value)]
    if isinstance(each, type) or _simple(each) or type(each).__module__.split(".")[0] in outside:
        return []
    return [(key.lstrip("_"), value) for key, value in (attributes(each) or {}).items() if not _simple(value)]


def _is_method(thing: Any, name: str) -> bool:
    """Whether an object's class has a plain function of this name."""
    own = getattr(thing, "__dict__", {})
    return name not in own and isinstance(inspect.getattr_static(type(thing), name, None), types.FunctionType)


class PythonCounts:
    """Whole numbers of Python's that a user's functions can reach, and that every step moves: no state holds them."""

    def __init__(self, functions: Sequence[Any], outside: tuple[str, ...]) -> None:
        self._functions, self._outside = list(functions), outside
        self._runs: dict[str, int] = {}
        self.found: dict[str, None] = {}
        """Their names, once they were seen to move."""

    @contextlib.contextmanager
    def watching(self, phase: str) -> Iterator[None]:
        """Around one run of a phase; the first, which traces, and all but a few later ones are let be."""
        run = self._runs[phase] = self._runs.get(phase, 0) + 1
        if not 2 <= run <= 4:
            yield
            return
        before = self._numbers()
        yield
        after = self._numbers()
        self.found |= {key[1]: None for key in before if key in after and before[key] != after[key]}

    def _numbers(self) -> dict[tuple[int, str], int]:
        visited: list[Any] = []

        def look(each: Any) -> bool:
            visited.append(each)
            return False

        reachable(self._functions, look, self._outside)
        found: dict[tuple[int, str], int] = {}
        for each in map(plain, visited):
            held: Mapping[Any, Any] = {}
            if isinstance(each, types.FunctionType):
                if (each.__module__ or "").split(".")[0] not in self._outside:
                    cells = zip(each.__code__.co_freevars, each.__closure__ or (), strict=True)
                    held = {key: cell.cell_contents for key, cell in cells if not _empty(cell)}
                    held |= {key: each.__globals__[key] for key in each.__code__.co_names if key in each.__globals__}
            elif isinstance(each, Mapping):
                held = {key: value for key, value in each.items() if isinstance(key, (str, int))}
            elif isinstance(each, list):
                held = dict(enumerate(each)) if len(each) <= _SHORT else {}
            elif type(each).__module__.split(".")[0] not in self._outside and not isinstance(each, type):
                held = attributes(each) or {}
            found |= {(id(each), str(key)): value for key, value in held.items() if type(value) is int}
        return found


def attributes(thing: Any) -> dict[str, Any] | None:
    """An object's own attributes, those in the slots of a dataclass too; None where it has none."""
    try:
        return dict(vars(thing))
    except TypeError:
        if not dataclasses.is_dataclass(thing):
            return None
        return {each.name: getattr(thing, each.name) for each in dataclasses.fields(thing) if hasattr(thing, each.name)}


def _empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def _simple(value: Any) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float, complex, types.ModuleType, np.ndarray))


# --- Python's and numpy's generators ----------------------------------------------------------------------------------
@contextlib.contextmanager
def seeded(draws: DrawSource | None, generators: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Seeds Python's and numpy's global generators, and the given ones, from the draws, and puts them back afterwards.

    Args:
      draws: where seeds come from; None leaves them as they are, and moved afterwards.
      generators: name -> random.Random, numpy Generator or RandomState that the code holds.

    Yields:
      A dictionary, filled at the end: the name of each one that was drawn from -> digest of its state.
    """
    kept = {"np.random": _Kept(np.random), "random": _Kept(random)}
    kept |= {name: _Kept(each) for name, each in generators.items()}
    before = {name: each.read() for name, each in kept.items()}
    if draws is not None:
        for name, each in kept.items():
            each.seed(_seed_of(draws, name) if name in generators else draws.bits())
    started = {name: each.digest() for name, each in kept.items()}
    used: dict[str, str] = {}
    try:
        yield used
    finally:
        used |= {name: now for name, each in kept.items() if (now := each.digest()) != started[name]}
        if draws is not None:
            for name, each in kept.items():
                each.write(before[name])


def _seed_of(draws: DrawSource, name: str) -> int:
    return int(draws.number(f"generator {name}", ()).integers(0, 2**32))


@contextlib.contextmanager
def held_seeded(draws: DrawSource, generators: Mapping[str, Any]) -> Iterator[None]:
    """Seeds generators that the code holds, by their names and not by their order, and puts them back."""
    kept = {name: _Kept(each) for name, each in generators.items()}
    before = {name: each.read() for name, each in kept.items()}
    for name, each in kept.items():
        each.seed(_seed_of(draws, name))
    try:
        yield
    finally:
        for name, each in kept.items():
            each.write(before[name])


@contextlib.contextmanager
def apart(states: dict[str, Any], generators: Mapping[str, Any]) -> Iterator[None]:
    """Lets the same generators go on from where the last such context left them; outside they are as they were.

    Args:
      states: an empty dictionary at first; the states between the contexts.
      generators: as for `seeded`.
    """
    kept = {"np.random": _Kept(np.random), "random": _Kept(random)} | {k: _Kept(v) for k, v in generators.items()}
    before = {name: each.read() for name, each in kept.items()}
    for name, each in kept.items():
        each.write(states.get(name, before[name]))
    try:
        yield
    finally:
        states.update({name: each.read() for name, each in kept.items()})
        for name, each in kept.items():
            each.write(before[name])


@contextlib.contextmanager
def seeded_with(seed: int) -> Iterator[None]:
    """Python's and numpy's global generators at one seed, put back afterwards."""
    kept = [_Kept(random), _Kept(np.random)]
    before = [each.read() for each in kept]
    for each in kept:
        each.seed(seed % 2**32)
    try:
        yield
    finally:
        for each, state in zip(kept, before, strict=True):
            each.write(state)


def is_generator(value: Any) -> bool:
    """Whether it is a generator of Python's or numpy's that `seeded` can seed."""
    return isinstance(value, (random.Random, np.random.Generator, np.random.RandomState))


class _Kept:
    """One generator, whatever its kind."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def read(self) -> Any:
        if isinstance(self.generator, np.random.Generator):
            return self.generator.bit_generator.state
        return self.generator.getstate() if hasattr(self.generator, "getstate") else self.generator.get_state()

    def write(self, state: Any) -> None:
        if isinstance(self.generator, np.random.Generator):
            self.generator.bit_generator.state = state
        elif hasattr(self.generator, "setstate"):
            self.generator.setstate(state)
        else:
            self.generator.set_state(state)

    def seed(self, number: int) -> None:
        if isinstance(self.generator, np.random.Generator):
            kind: Any = type(self.generator.bit_generator)
            self.generator.bit_generator.state = kind(number).state
        else:
            self.generator.seed(number)

    def digest(self) -> str:
        state = self.read()
        if isinstance(state, Mapping):
            state = sorted((key, _text(value)) for key, value in state.items())
        return hashlib.sha256("/".join(_text(each) for each in state).encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(sorted((key, _text(each)) for key, each in value.items()))
    return value.tobytes().hex() if isinstance(value, np.ndarray) else str(value)
