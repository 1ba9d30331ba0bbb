"""arg_scope: default arguments of functions within a block.

Source: TensorFlow 1.15, tensorflow/contrib/framework/python/ops/arg_scope.py.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Scope = dict[Any, dict[str, Any]]
"""Function -> argument -> value."""
_SCOPES: list[Scope] = [{}]


def add_arg_scope(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the arguments of the scopes around a call where the call does not give them."""

    @functools.wraps(function)
    def scoped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{**_SCOPES[-1].get(function, {}), **kwargs})

    scoped.__dict__["_scoped"] = function
    return scoped


@contextlib.contextmanager
def arg_scope(functions: Sequence[Callable[..., Any]] | Scope, **defaults: Any) -> Iterator[Scope]:
    """Sets default arguments of functions within the block, on top of those of the blocks around it.

    Args:
      functions: functions that were made by `add_arg_scope`; or a scope that an earlier block gave, to enter it again
        in place of those around this one.
      defaults: argument -> value, for each of the functions.

    Yields:
      The scope.

    Raises:
      ValueError: a function was not made by `add_arg_scope`, or a scope is given with further arguments.
      TypeError: `functions` is neither.
    """
    if isinstance(functions, Mapping):
        if defaults:
            raise ValueError(f"a scope is entered again as it is; {', '.join(defaults)} cannot be added to it")
        scope = dict(functions)
    elif isinstance(functions, list | tuple):
        scope = dict(_SCOPES[-1])
        for function in functions:
            if not has_arg_scope(function):
                raise ValueError(f"{getattr(function, '__name__', function)} is not decorated with @add_arg_scope")
            key = function.__dict__["_scoped"]
            scope[key] = {**scope.get(key, {}), **defaults}
    else:
        raise TypeError(f"arg_scope takes a list of functions or a scope, not {type(functions).__name__}")
    _SCOPES.append(scope)
    try:
        yield scope
    finally:
        _SCOPES.pop()


def current_arg_scope() -> Scope:
    """The scope around the call."""
    return _SCOPES[-1]


def has_arg_scope(function: Any) -> bool:
    """Whether a function was made by `add_arg_scope`."""
    return "_scoped" in getattr(function, "__dict__", {})


def arg_scoped_arguments(function: Callable[..., Any]) -> list[str]:
    """The arguments that a scope can set for a function: those that have defaults."""
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.default is not each.empty]
