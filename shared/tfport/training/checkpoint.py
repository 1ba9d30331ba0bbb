"""Checkpoints of a run: the paradigm's native files in a folder of their own, with a manifest that vouches for them.

A folder appears under its final name only when it is whole, so a run that is killed at any moment leaves whole
checkpoints alone. The manifest holds each file's digest, checked before a framework's reader sees the file, and the
digest of the canonical state, checked after: what was restored is then all of what was saved.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfport.errors import CheckpointError, RunError, TrainingDiverged
from tfport.files import atomic_folder, sha256
from tfport.versions import versions

if TYPE_CHECKING:
    from tfport.subject import Subject

FORMAT = 1
_MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{10})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, by its folder and the step count it was taken at."""

    folder: Path
    step: int


def checkpoints(root: Path) -> list[Checkpoint]:
    """The checkpoints under `root`, oldest first."""
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        match = _NAME.fullmatch(folder.name)
        if match and folder.is_dir():
            found.append(Checkpoint(folder, int(match[1])))
    return sorted(found, key=lambda each: each.step)


def save(root: Path, subject: Subject, step: int, seed: int, keep: int = 3) -> Checkpoint:
    """Writes a checkpoint of `subject` after `step` steps, then removes all but the newest `keep`.

    Raises:
      TrainingDiverged: a variable holds NaN or infinity; nothing is written, so the last good checkpoint stays.
      RunError: the disk refused; older checkpoints are untouched.
    """
    state = subject.state()
    for name, array in state.arrays.items():
        if not np.all(np.isfinite(array)):
            raise TrainingDiverged(
                f"step {step:,}, {_place(subject, name)}: {name} holds NaN or infinity. "
                "Likely cause: an update that was too large."
            )
    folder = root / f"step-{step:010d}"
    with atomic_folder(folder) as temporary:
        try:
            subject.save(temporary)
        except OSError:
            raise
        except Exception as error:  # the frameworks' writers raise errors of their own, for a full disk above all
            raise RunError(
                f"the checkpoint {folder} could not be written: {_brief(str(error), temporary)}. Is the disk full? "
                "Older checkpoints are untouched."
            ) from error
        manifest = manifest_of(temporary, _identity(subject, seed, step), state.digest())
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for old in checkpoints(root)[:-keep]:
        shutil.rmtree(old.folder, ignore_errors=True)
    return Checkpoint(folder, step)


def manifest_of(folder: Path, identity: dict[str, Any], digest: str) -> dict[str, Any]:
    """The manifest of a checkpoint's files.

    Args:
      folder: holds the files, and no manifest yet.
      identity: what the checkpoint must have in common with the run that goes on from it; other keys of an older
        manifest are replaced.
      digest: that of the canonical state.
    """
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {**identity, "format": FORMAT, "state_digest": digest, "files": files, "versions": versions()}


def read_manifest(checkpoint: Checkpoint) -> dict[str, Any]:
    """The manifest, after every file it lists was found whole.

    Raises:
      CheckpointError: the manifest or a file is missing or damaged, or the format is another.
    """
    folder = checkpoint.folder
    remedy = _remedy(checkpoint)
    try:
        manifest: dict[str, Any] = dict(json.loads((folder / _MANIFEST).read_text()))
        found_format = manifest["format"]
        files = {str(name): (facts["bytes"], facts["sha256"]) for name, facts in manifest["files"].items()}
        if not isinstance(manifest["state_digest"], str):
            raise ValueError("its state_digest is no text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder} has no readable {_MANIFEST} ({type(error).__name__}: {error}); {remedy}."
        ) from None
    if found_format != FORMAT:
        raise CheckpointError(
            f"{folder} has checkpoint format {found_format!r}, and this tfport reads format {FORMAT}; "
            "go on with the tfport version that wrote it."
        )
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; {remedy}.")
        if path.stat().st_size != size:
            raise CheckpointError(
                f"{path} has {path.stat().st_size} bytes, not {size}: it was cut or changed; {remedy}."
            )
        if sha256(path) != digest:
            raise CheckpointError(f"{path} was changed after it was written (its SHA-256 differs); {remedy}.")
    return manifest


def restore(checkpoint: Checkpoint, subject: Subject, seed: int) -> None:
    """Restores a checkpoint into an already built subject and checks that all of it arrived.

    Raises:
      CheckpointError: damaged, of another model, paradigm, precision or seed, or not wholly consumed.
    """
    manifest = read_manifest(checkpoint)
    expected = _identity(subject, seed, checkpoint.step)
    for key, value in expected.items():
        if manifest.get(key) != value:
            raise CheckpointError(
                f"{checkpoint.folder} is of {key} {manifest.get(key)!r}; this run has {value!r}: {_remedy(checkpoint)}."
            )
    try:
        subject.restore(checkpoint.folder)
    except CheckpointError as error:
        raise CheckpointError(f"{_brief(str(error), checkpoint.folder)}; {_remedy(checkpoint)}.") from None
    if subject.state().digest() != manifest["state_digest"]:
        raise CheckpointError(
            f"{checkpoint.folder} was read, but the state it gave is not the one that was saved: "
            f"another version of the framework? It was written with {manifest.get('versions')}: "
            f"use those, or {_remedy(checkpoint)}."
        )


def _identity(subject: Subject, seed: int, step: int) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that goes on from it."""
    return {
        "model": subject.spec.name,
        "paradigm": subject.paradigm,
        "precision": subject.precision,
        "seed": seed,
        "step": step,
        "batch_size": subject.spec.batching.batch_size,
        "learning_rates": {name: numbers.learning_rate for name, numbers in subject.spec.optimizers},
    }


def _place(subject: Subject, name: str) -> str:
    """The phase that moves a name of the state, or the optimizer where several phases share it."""
    first, second = name.split("/")[:2]
    for phase in subject.spec.phases:
        if (
            phase.optimizer == second
            if first == "optimizer"
            else any(name.startswith(f"{each}/") for each in phase.moves)
        ):
            sharing = [each.name for each in subject.spec.phases if each.optimizer == phase.optimizer]
            return f"phase {phase.name}" if len(sharing) == 1 else f"optimizer {phase.optimizer}"
    return f"network {first}"


def _brief(message: str, folder: Path) -> str:
    """The first line of a framework's message and the one that names a file: between them it prints whole stacks."""
    first, *rest = message.strip().splitlines() or [""]
    return " ".join([first, *[line.strip() for line in rest if str(folder) in line][:1]])


def _remedy(checkpoint: Checkpoint) -> str:
    """What to do about a checkpoint that cannot be used."""
    return f"delete {checkpoint.folder} to go on from the checkpoint before it, or from the start if it is the only one"
