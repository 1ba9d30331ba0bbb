"""What a case of tests/cases is: a small pair of programs and what a careful engineer would say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One pair, and what the report must and must not say."""

    name: str
    legacy: Callable[..., Any]
    modern: Callable[..., Any]
    batches: Callable[[int], dict[str, Any]]
    equal: bool
    rung: str = ""
    """The numerical rung that a different pair is located at; empty where it does not matter."""
    says: tuple[str, ...] = ()
    """Regular expressions that the report's text matches."""
    never: tuple[str, ...] = ()
    """Regular expressions that it does not match."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `tfport.check`; `steps` is 6 unless it is given here."""
