"""The lines that Keras layers were made on, and the layer that each op of a traced graph belongs to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from tfport.user_code import calling, user_line

_MADE: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""Layer -> file and line."""


def _classes() -> list[Any]:
    """The Layer classes of the Kerases that are imported."""
    found = [getattr(sys.modules.get(name), "Layer", None) for name in _MODULES]
    return [each for each in found if each is not None]


_MODULES = ("keras.src.layers.layer", "tf_keras.src.engine.base_layer")


@contextlib.contextmanager
def _replaced(attribute: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, a method of every Layer class is what `wrap` makes of it."""
    originals = [(each, vars(each)[attribute]) for each in _classes() if attribute in vars(each)]
    for each, original in originals:
        setattr(each, attribute, wrap(original))
    try:
        yield
    finally:
        for each, original in originals:
            setattr(each, attribute, original)


@contextlib.contextmanager
def lines_noted() -> Iterator[None]:
    """Inside, the line of the user's code that makes a layer is kept."""

    def wrap(original: Any) -> Any:
        def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
            made = original.__func__(cls, *args, **kwargs)
            with contextlib.suppress(TypeError):
                _MADE[made] = user_line(calling(sys._getframe(1)))
            return made

        return staticmethod(__new__)

    with _replaced("__new__", wrap):
        yield


class Layers:
    """Which layer made which ops of a graph."""

    def __init__(self) -> None:
        self._ends: list[tuple[int, int, str]] = []
        """First op, the one behind the last, and where the layer was made; inner layers before outer ones."""

    @contextlib.contextmanager
    def watched(self, graph: Any) -> Iterator[None]:
        """Inside, what layers add to the graph is noted as theirs."""

        def wrap(original: Any) -> Any:
            def __call__(layer: Any, *args: Any, **kwargs: Any) -> Any:
                first = graph.version
                try:
                    return original(layer, *args, **kwargs)
                finally:
                    with contextlib.suppress(TypeError):
                        if graph.version > first and (line := _MADE.get(layer, "")):
                            self._ends.append((first, graph.version, line))

            return __call__

        with _replaced("__call__", wrap):
            yield

    def of(self, op: Any) -> str:
        """Where the innermost layer was made that an op belongs to; empty where none is known."""
        return next((line for first, end, line in self._ends if first + 1 < op._id <= end + 1), "")
