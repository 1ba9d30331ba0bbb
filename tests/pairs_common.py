"""What the worked pairs of tests/pairs share: how a broken port and what must be found of it are written down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """A port with one mistake, as people make it, and the place where it must be found."""

    factory: str
    """The function of the pair's module that builds the port."""
    wrong: str
    """What is wrong with it."""
    rung: str
    """The first rung that fails, from the numerical ones on; a rung below them where all of those hold."""
    phase: str | None = None
    """The phase of that rung's first divergence, by the legacy side's name."""
    tensor: str = ""
    """What the diverging tensor's name contains, by the legacy side's names; on a rung without tensors, a finding."""
    legacy: str = "legacy"
    """The factory of the original, where the mistake needs another one."""
    node: str = ""
    """What the kind of the located modern node contains."""
    beside: str = ""
    """What the kind of its counterpart on the legacy side contains."""
    slow: bool = False
    """Whether `make test` leaves it to `make prove`."""
