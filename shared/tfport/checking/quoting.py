"""Errors of a user's code and of its framework, in one line of a message."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_LONGEST = 500
"""Characters of an error's text that are quoted."""
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_AT_NODE = re.compile(r"Detected at node '?([^\s']+)'? defined at|\[?\[?\{\{node ([^}]+)\}\}")
_CUT = re.compile(r"Original stack trace for|Errors may have originated from|Function call stack:")
"""What follows it repeats where the node was made."""
_FRAMING = re.compile(
    r"Graph execution error:|Detected at node |File \"|Node: |<stack traces|\[\[|\d+ (root|successful|derived)"
)
"""Begins a line of TensorFlow's that is not what went wrong."""
_DECORATION = re.compile(r"\{\{function_node [^}]*\}\}\s*|\s*\[Op:[^\]]*\](\s*name:\s*$)?|^\(\d+\)\s*[A-Z_]+: ")


def said(error: BaseException) -> str:
    """The error in one line, with the innermost place in the user's code, else the innermost of all."""
    text, place = _reduced(str(error))
    if isinstance(error, SyntaxError):  # its text has the place
        place = ""
    elif not place:
        frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")]
        own = [frame for frame in frames if _is_own(frame.filename)]
        place = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in (own or frames)[-1:])
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + " …"
    kind = f"{type(error).__name__}: " if text else type(error).__name__
    return kind + text.removeprefix(kind) + place


def _is_own(file: str) -> bool:
    return "site-packages" not in file and not Path(file).is_relative_to(_PACKAGE)


def _reduced(text: str) -> tuple[str, str]:
    """What TensorFlow's text says went wrong, and where in the user's code it says so; other texts as they are."""
    if "Graph execution error:" in text:
        node = _AT_NODE.search(text)
        lines = [line.strip() for line in _CUT.split(text)[0].splitlines()]
        shown = list(dict.fromkeys(_plain(line) for line in lines if line and not _FRAMING.match(line)))
        at = f"at {next(name for name in node.groups() if name)}: " if node else ""
        return at + (" ".join(shown) or "no message"), _place(text)
    if "in user code:" in text and _FRAME.search(text):
        return " ".join(text.rstrip().rpartition("\n\n")[2].split()), _place(text)
    return _plain(" ".join(text.split())), ""


def _plain(line: str) -> str:
    return _DECORATION.sub("", line).strip()


def _place(text: str) -> str:
    frames = [(file, line) for file, line in _FRAME.findall(text) if _is_own(file)]
    return f" ({Path(frames[-1][0]).name}, line {frames[-1][1]})" if frames else ""
