"""What is begun before it is asked for, since it waits for nothing that runs meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        """The call's value, once it is there; raises what the call raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def ended(self, seconds: float) -> T | None:
        """The value of a call that nobody asks for any more, where it ends within some seconds with one."""
        self._thread.join(seconds)
        return self._value[0] if self._value else None
