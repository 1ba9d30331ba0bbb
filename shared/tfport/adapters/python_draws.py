"""Feeds what Python's and numpy's generators draw in a user's code from a DrawSource.

While a call is fed, the functions of `np.random` and `random` stand aside for ones that draw by kind, shape and order,
whichever generator they belong to: a port may say `rng.normal` where the original says `np.random.randn`. So do the
generators that the code holds, in globals, closures, attributes, dictionaries or lists, and those that it makes without
a seed. Each stand-in lets its original draw as well, so that dtypes, errors and the generators' states are the
original's. What numpy offers beside numbers of a kind (a beta distribution, weights of a choice) is drawn by name.

A generator that is made with a seed in the call itself gives its own numbers: they are the same at every call.
Functions that were imported by name, and generators in tuples, are out of reach; they are seeded (`steps.seeded`).
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import random
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfport.checking.draws import DrawSource

_UNIT = ("rand", "random", "random_sample", "ranf", "sample")
_INTEGERS = ("randint", "random_integers", "integers")
_PYTHON = ("random", "uniform", "gauss", "normalvariate", "randint", "randrange", "choice", "shuffle", "sample")
_NOT_DRAWING = ("bit_generator", "spawn", "get_state", "set_state", "seed", "get_bit_generator", "set_bit_generator")
_OWN = (__name__, "tfport.adapters.tf_draws")
_LIBRARIES = ("tensorflow", "keras", "tf_keras", "torch", "numpy", "random", "tempfile")
Draw = Callable[..., Any]


def is_users_call() -> bool:
    """Whether a stand-in was called by something else than a framework."""
    frame = inspect.currentframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module not in _OWN and not module.startswith("tensorflow.python.autograph"):
            return module.split(".")[0] not in _LIBRARIES
        frame = frame.f_back
    return True


# --- What is drawn ----------------------------------------------------------------------------------------------------
def _of_numpy(draws: DrawSource, name: str, given: Mapping[str, Any], value: Any) -> Any:
    """A recorded value in place of the one that a function of numpy's has drawn, of its shape and dtype."""
    shape = np.shape(value)
    if name in _UNIT:
        return draws.uniform(shape, "float64")
    if name == "uniform":
        return given["low"] + (np.asarray(given["high"]) - given["low"]) * draws.uniform(shape, "float64")
    if name in ("randn", "standard_normal"):
        return draws.normal(shape, "float64")
    if name == "normal":
        return given["loc"] + np.asarray(given["scale"]) * draws.normal(shape, "float64")
    if name in _INTEGERS and np.ndim(given["low"]) == 0 and np.ndim(given["high"]) == 0:
        low, high = (0, given["low"]) if given["high"] is None else (given["low"], given["high"])
        low += int(name == "random_integers" and given["high"] is None)
        return draws.integers(shape, int(low), int(high) + _closed(name, given), "int64")
    if name == "permutation" and not given.get("axis"):
        things = np.arange(given["x"]) if np.ndim(given["x"]) == 0 else np.asarray(given["x"])
        return things[draws.shuffle(len(things))]
    if name == "choice" and given["p"] is None and not given.get("axis"):
        things = np.arange(given["a"]) if np.ndim(given["a"]) == 0 else np.asarray(given["a"])
        count = shape if np.ndim(things) == 1 else np.shape(np.empty(given["size"] or ()))
        if given["replace"]:
            return things[draws.integers(count, 0, len(things), "int64")]
        return things[draws.shuffle(len(things))[: int(np.prod(count))].reshape(count)]
    generator = draws.number(f"numpy {name}", shape)
    with contextlib.suppress(TypeError, AttributeError):
        return getattr(generator, name)(**given)
    return value


def _closed(name: str, given: Mapping[str, Any]) -> int:
    return int(name == "random_integers" or bool(given.get("endpoint")))


def _of_python(draws: DrawSource, name: str, args: Sequence[Any], value: Any) -> Any:
    """The same of a function of Python's."""
    if name in ("gauss", "normalvariate"):
        mean, deviation = tuple(args) + (0.0, 1.0)[len(args) :]
        return mean + deviation * float(draws.normal(()))
    if name in ("random", "uniform"):
        low, high = args or (0.0, 1.0)
        return low + (high - low) * float(draws.uniform((), "float64"))
    if name == "choice":
        return args[0][int(draws.integers((), 0, len(args[0])))]
    if name == "sample":
        return [args[0][place] for place in draws.shuffle(len(args[0]))[: args[1]]]
    valid = range(args[0], args[1] + 1) if name == "randint" else range(*args)
    return valid[int(draws.integers((), valid[0], valid[0] + len(valid))) - valid[0]] if valid else value


def _alike(fed: Any, value: Any) -> Any:
    """A recorded value as the original gives one."""
    if isinstance(value, np.ndarray):
        return np.asarray(fed).astype(value.dtype).reshape(value.shape)
    return type(value)(fed) if isinstance(value, bool | int | float | np.generic) else fed


def _shuffled(draws: DrawSource, things: Any) -> None:
    order = draws.shuffle(len(things))
    if isinstance(things, np.ndarray):
        things[...] = things[order]
    else:
        things[:] = [things[place] for place in order]


def _recorded(source: DrawSource, original: Draw, name: str, numpy: bool, args: Any, kwargs: Any) -> Any:
    """What is recorded for a call of a generator's function, which is called as well."""
    if name == "shuffle" and not kwargs and len(args) == 1:
        original(list(range(len(args[0]))))
        return _shuffled(source, args[0])
    value = original(*args, **kwargs)
    if not numpy:
        return value if kwargs else _alike(_of_python(source, name, args, value), value)
    bound = inspect.signature(original).bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    fed = _alike(_of_numpy(source, name, given, value), value)
    if given.get("out") is not None:
        given["out"][...] = fed
        return given["out"]
    return fed


def _unconverted(function: Draw) -> Draw:
    """The same function; AutoGraph calls it as it is."""
    function.autograph_info__ = {}  # type: ignore[attr-defined]
    return function


# --- Generators -------------------------------------------------------------------------------------------------------
class _Stand:
    """What the stand-ins of generators share."""

    _draws: DrawSource | None = None
    """The call's; None once it is over."""


def _methods(kind: type) -> list[str]:
    names = [name for name in dir(kind) if not name.startswith("_") and name not in _NOT_DRAWING]
    return [name for name in names if name in _PYTHON or not issubclass(kind, random.Random)]


def _stand_in_of(kind: type) -> type:
    """A class of generators whose methods draw what is recorded, as long as a call is fed."""

    def method(name: str) -> Any:
        original = getattr(kind, name)

        @functools.wraps(original)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            source = self._draws
            if source is None or not is_users_call():
                return original(self, *args, **kwargs)
            self._draws = None  # the original may call others of its methods
            try:
                return _recorded(source, original.__get__(self), name, kind is not random.Random, args, kwargs)
            finally:
                self._draws = source

        return _unconverted(call)

    return type(kind.__name__, (_Stand, kind), {name: method(name) for name in _methods(kind)})


_FED_GENERATOR = _stand_in_of(np.random.Generator)
_FED_STATE = _stand_in_of(np.random.RandomState)
_FED_RANDOM = _stand_in_of(random.Random)


class Holders:
    """Where a program holds generators."""

    def __init__(self, generators: Sequence[Any]) -> None:
        self._generators = [each for each in generators if type(each) in (np.random.Generator, np.random.RandomState)]
        self._python: list[Any] = [each for each in generators if type(each) is random.Random]
        self._places: list[tuple[Any, Any, Any]] = []
        """A dictionary, list or cell, the key in it, and the generator."""
        if self._generators:
            self._find()

    def _find(self) -> None:
        known = {id(each): each for each in self._generators}
        own = (self._generators, known)
        for owner in gc.get_referrers(*self._generators):
            if any(owner is each for each in own) or isinstance(owner, types.FrameType):
                continue
            if isinstance(owner, types.CellType):
                self._places.append((owner, None, owner.cell_contents))
                continue
            held = owner if isinstance(owner, dict | list) else getattr(owner, "__dict__", None)
            if held is None:
                continue
            items = enumerate(held) if isinstance(held, list) else list(held.items())
            self._places += [(held, key, known[id(each)]) for key, each in items if id(each) in known]

    @contextlib.contextmanager
    def fed(self, draws: DrawSource) -> Iterator[None]:
        """Inside, the generators draw what is recorded; they are put back at the end."""
        states = [_state(each) for each in self._generators]
        python_states = [each.getstate() for each in self._python]
        stands = [_stand(each, draws) for each in self._generators]
        by_generator = {id(each): stand for each, stand in zip(self._generators, stands, strict=True)}
        for owner, key, each in self._places:
            _put(owner, key, by_generator[id(each)])
        for each in self._python:
            each.__class__, each._draws = _FED_RANDOM, draws
        try:
            yield
        finally:
            for owner, key, each in self._places:
                _put(owner, key, each)
            for stand, state in zip(stands, states, strict=True):
                stand._draws = None
                _restore(stand, state)
            for each, state in zip(self._python, python_states, strict=True):
                each.__class__ = random.Random
                del each._draws
                each.setstate(state)


def _stand(generator: Any, draws: DrawSource) -> Any:
    """A generator on the bits of another, which draws what is recorded."""
    if isinstance(generator, np.random.Generator):
        found: Any = _FED_GENERATOR(generator.bit_generator)
    else:
        found = _FED_STATE(generator._bit_generator)
    found._draws = draws
    return found


def _state(generator: Any) -> Any:
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def _put(owner: Any, key: Any, value: Any) -> None:
    if isinstance(owner, types.CellType):
        owner.cell_contents = value
    else:
        owner[key] = value


# --- The modules' functions -------------------------------------------------------------------------------------------
@contextlib.contextmanager
def fed(draws: DrawSource, holders: Holders) -> Iterator[None]:
    """Inside, what a user's code draws by `np.random`, `random` and the generators that it holds is recorded."""
    made: list[Any] = []

    def function(original: Draw, name: str, numpy: bool) -> Draw:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not is_users_call():
                return original(*args, **kwargs)
            return _recorded(draws, original, name, numpy, args, kwargs)

        return _unconverted(call)

    def default_rng(*args: Any, **kwargs: Any) -> Any:
        found = originals[np.random, "default_rng"](*args, **kwargs)
        if args or kwargs or not is_users_call():
            return found
        made.append(_stand(found, draws))
        return made[-1]

    stands = {(np.random, name): True for name in _methods(np.random.RandomState) if hasattr(np.random, name)}
    stands |= {(random, name): False for name in _PYTHON}
    originals = {key: getattr(*key) for key in [*stands, (np.random, "default_rng")]}
    for (module, name), numpy in stands.items():
        setattr(module, name, function(originals[module, name], name, numpy))
    np.random.default_rng = _unconverted(functools.wraps(np.random.default_rng)(default_rng))
    try:
        with holders.fed(draws):
            yield
    finally:
        for stand in made:
            stand._draws = None
        for (module, name), original in originals.items():
            setattr(module, name, original)
