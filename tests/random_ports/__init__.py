"""Random training programs as TF1 graphs with ports of them, correct ones and ones with a single planted change.

`port(seed)` is a correct port, `broken(seed)` the same with one change of `CHANGES`. Both sides are interpreted from a
`Recipe`, by code that shares nothing: a mistake of one interpreter shows as a false alarm. A command line names the
sides as `random_ports:port_5_legacy`, `random_ports:broken_12_modern` and so on.
"""

from __future__ import annotations

from typing import Any

from random_ports.changes import CHANGES, HORIZON, Change
from random_ports.pairs import PARADIGMS, RandomPort, broken, port
from random_ports.recipes import ACTIVATIONS, DECAYS, LOSSES, OPTIMIZERS

__all__ = [
    "ACTIVATIONS",
    "CHANGES",
    "DECAYS",
    "HORIZON",
    "LOSSES",
    "OPTIMIZERS",
    "PARADIGMS",
    "Change",
    "RandomPort",
    "broken",
    "port",
]


def of_name(name: str) -> RandomPort:
    """The port that a name stands for: "port_5" or "broken_12".

    Raises:
      KeyError: it stands for none.
    """
    kind, _, seed = name.rpartition("_")
    return {"port": port, "broken": broken}[kind](int(seed))


def __getattr__(name: str) -> Any:
    """`port_5_legacy`, `port_5_modern`, `port_5_batches`, and with `broken`: what a command line can name."""
    which, _, part = name.rpartition("_")
    if part in ("legacy", "modern", "batches") and which.startswith(("port_", "broken_")):
        return getattr(of_name(which), part)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
