"""Stages of `make prove`: each leaves its result in runs/prove and is not run again while its sources stand."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfport import models
from tfport.files import write_json
from tfport.remote import child_environment

FOLDER = Path("runs/prove")
PICTURES = Path("docs/pictures")
SOURCES = (
    "tf1_graph",
    "tf2_eager",
    "shared/tfport/models",
    "shared/tfport/data",
    "shared/tfport/adam.py",
    "shared/tfport/initial.py",
    "shared/tfport/randomness.py",
    "shared/tfport/state.py",
)
"""What every stage depends on: it is run again when a file under these has changed."""
LADDER = ("shared/tfport/equivalence",)
"""What comparisons depend on besides."""

Result = dict[str, Any]


def sources(model: str = "vanilla_gan", more: Sequence[str] = ()) -> str:
    """The first digits of a SHA-256 over what computes one model: its own files, and all that no model owns.

    Args:
      model: the files of other models are left out.
      more: files or folders that count besides.
    """
    family = models.get(model).family
    others = {f"{each}.py" for each in models.FAMILIES if each != family}
    digest = hashlib.sha256()
    for place in (*SOURCES, *more):
        path = Path(place)
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.name not in others and file != Path("shared/tfport/models/__init__.py"):
                digest.update(f"{file}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def digest(places: Sequence[str]) -> str:
    """The first digits of a SHA-256 over files, and folders of them, for stages that no model of ours is part of."""
    found = hashlib.sha256()
    for place in places:
        path = Path(place)
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(f"{file}\n".encode() + file.read_bytes())
    return found.hexdigest()[:12]


def stage(name: str, now: str, work: Callable[[], Result]) -> Result:
    """The stage's result, from disk where it is there and the sources `now` made it."""
    path = FOLDER / f"{name}.json"
    if path.exists():
        found: Result = json.loads(path.read_text())
        if found.get("sources") == now:
            print(f"{name}: done before ({path})")
            return found
    print(f"{name}: running", flush=True)
    result = {**work(), "sources": now}
    write_json(path, result)
    return result


def tfport(*words: str) -> list[str]:
    """The command line of `tfport` in this interpreter."""
    return [sys.executable, "-c", "from tfport.cli import main; main()", *words]


def run(*words: str) -> int:
    """Runs `tfport` with these words, its output shown; returns the exit code."""
    return subprocess.run(tfport(*words), check=False, env=child_environment()).returncode


def train(folder: Path, *settings: str) -> Result:
    """Trains into `folder`, going on where an earlier call was stopped; returns run.json.

    Raises:
      RuntimeError: the run failed; what it said stands above.
    """
    begun = (folder / "run.json").exists()
    if run("train", *settings, f"--run_dir={folder}", *(["--resume"] if begun else [])):
        raise RuntimeError(f"the run in {folder} failed; what it said stands above")
    record: Result = json.loads((folder / "run.json").read_text())
    return record


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def figure(value: object) -> str:
    """A number in two digits; an en dash for none."""
    return "–" if value is None else f"{float(str(value)):.1e}" if float(str(value)) else "0"
