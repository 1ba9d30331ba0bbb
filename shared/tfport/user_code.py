"""Which line of the user's own code a stack of calls comes from."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType

_OWN = Path(__file__).resolve().parent
_LIBRARIES = {Path(each).resolve() for each in (sys.prefix, sysconfig.get_path("stdlib"))}
Frame = tuple[str, int]
"""File and line."""


@cache
def _owner(filename: str) -> str:
    """ "tfport", "library", "functional" (a Keras model that calls the layers it was built of) or "user"."""
    path = Path(filename).absolute()
    if _OWN in path.parents or _OWN in path.resolve().parents:
        return "tfport"
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        models = path.name in ("functional.py", "sequential.py") and {"keras", "tf_keras"} & set(path.parts)
        return "functional" if models else "library"
    if filename.startswith("<") or _LIBRARIES & set(path.resolve().parents) or not path.exists():
        return "library"
    return "user"


def is_user_file(filename: str) -> bool:
    """Whether a file is of the user's own code; code without a file is."""
    return not filename or _owner(filename) == "user"


def user_line(frames: Iterable[Frame], layer: str = "") -> str:
    """The innermost line of the user's code, as "gan.py:41"; empty where there is none.

    What called into tfport is not looked at: that is the code that asked for the check.

    Args:
      frames: the outermost first.
      layer: where the layer that runs was made; it is what is meant where a functional model calls its layers.
    """
    stack = list(frames)
    owners = [_owner(filename) for filename, _ in stack]
    first = owners.index("tfport") if "tfport" in owners else -1
    for (filename, line), owner in zip(reversed(stack[first + 1 :]), reversed(owners[first + 1 :]), strict=True):
        if owner == "functional" and layer:
            return layer
        if owner == "user":
            return f"{Path(filename).name}:{line}"
    return layer


def calling(frame: FrameType | None) -> Iterator[Frame]:
    """The frames of a running call, the outermost first."""
    found: list[Frame] = []
    while frame is not None:
        found.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    yield from reversed(found)
