"""What a first run of a user's step shows: it builds layers that build lazily, and hands variables to optimizers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from tfport.adapters.keras_optimizers import flavour_of, is_optimizer, key_of
from tfport.errors import UserError

Handed = dict[str, dict[int, Any]]
"""Optimizer -> the variables that it was handed, by key."""


@contextlib.contextmanager
def nothing_updated(optimizers: Mapping[str, Any]) -> Iterator[Handed]:
    """Inside, optimizers are handed gradients and update nothing; yields what each was handed.

    Args:
      optimizers: name -> optimizer of keras, tf_keras or tf.compat.v1.train.
    """
    handed: Handed = {name: {} for name in optimizers}
    shadowed: list[tuple[Any, str]] = []

    def swallow(name: str) -> Any:
        def apply(first: Any, second: Any = None, *_: Any, **__: Any) -> None:
            pairs = list(first)
            variables = [each[1] for each in pairs] if second is None else list(second)
            handed[name].update({key_of(each): each for each in variables})

        return tf.autograph.experimental.do_not_convert(apply)

    try:
        for name, optimizer in optimizers.items():
            keras3 = is_optimizer(optimizer) and flavour_of(optimizer) == "keras3"
            for method in ("apply", "apply_gradients") if keras3 else ("apply_gradients",):
                if method not in vars(optimizer):
                    vars(optimizer)[method] = swallow(name)
                    shadowed.append((optimizer, method))
        yield handed
    finally:
        for optimizer, method in shadowed:
            vars(optimizer).pop(method, None)


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Inside, a `tf.function` runs as the Python it was made of; variables that are made keep their first values."""
    made: list[tuple[Any, Any]] = []

    def remember(make: Any, **given: Any) -> Any:
        variable = make(**given)
        if tf.executing_eagerly():
            made.append((variable, variable.numpy()))
        return variable

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with tf.variable_creator_scope(remember):
            yield
    finally:
        tf.config.run_functions_eagerly(before)
        for variable, value in made:
            variable.assign(value)


@contextlib.contextmanager
def numbers_kept(things: Iterable[Any]) -> Iterator[None]:
    """Puts back the plain numbers that objects hold as attributes: what counts steps in Python has seen none."""
    kept = [(each, _numbers(each)) for each in things]
    try:
        yield
    finally:
        for each, before in kept:
            now = _numbers(each)
            for name, value in before.items():
                if name in now and now[name] != value:
                    setattr(each, name, value)


def _numbers(thing: Any) -> dict[str, int | float]:
    try:
        attributes = vars(thing)
    except TypeError:
        return {}
    return {name: value for name, value in attributes.items() if type(value) in (int, float)}


@contextlib.contextmanager
def refused(optimizers: Mapping[str, Any], maker: str) -> Iterator[None]:
    """Inside, an update by one of these is an error: they were left out, since the first run did not use them."""
    shadowed: list[tuple[Any, str]] = []

    def refuse(name: str) -> Any:
        def apply(*_: Any, **__: Any) -> None:
            raise UserError(
                f"the optimizer {name!r} was not used in the first run of the step, and is now: name it with "
                f"{maker}(..., optimizers={{name: optimizer}}) and call its build(variables) before."
            )

        return tf.autograph.experimental.do_not_convert(apply)

    try:
        for name, optimizer in optimizers.items():
            for method in ("apply", "apply_gradients"):
                if hasattr(optimizer, method) and method not in vars(optimizer):
                    vars(optimizer)[method] = refuse(name)
                    shadowed.append((optimizer, method))
        yield
    finally:
        for optimizer, method in shadowed:
            vars(optimizer).pop(method, None)
