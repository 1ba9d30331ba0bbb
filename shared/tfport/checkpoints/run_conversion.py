"""A run of `tfport train` carried to another paradigm: a run directory as if it had been trained there so far."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from tfport.checkpoints import plan, reference
from tfport.checkpoints.convert import Tick
from tfport.errors import CheckpointError, RunError, UserError
from tfport.files import atomic_folder, write_json
from tfport.training import checkpoint
from tfport.training.checkpoint import Checkpoint
from tfport.training.run_directory import RunDirectory


def check_target(target: Path, force: bool) -> None:
    """Raises UserError where a run directory cannot be written."""
    if target.exists() and not force:
        raise UserError(f"{target} is there already; give another name, or --force to replace it.")
    if target.exists() and not (target / "run.json").is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there and is no run; it is not replaced. Give another name.")
    if not target.absolute().parent.is_dir():
        raise UserError(f"{target}: the folder {target.parent} does not exist; make it first.")


def newest(path: Path) -> tuple[RunDirectory, Checkpoint]:
    """The run that a path is, or is a checkpoint of, and the checkpoint: the newest one of a run.

    Raises:
      CheckpointError: the run has no checkpoint yet.
      RunError: it is no run.
    """
    if (path / "run.json").is_file():
        run = RunDirectory(path)
        found = run.latest()
        if found is None:
            raise CheckpointError(f"{path} has no checkpoint yet; train it for some steps first.")
        return run, found
    whole = path.absolute()
    for each in checkpoint.checkpoints(whole.parent):
        if each.folder.name == whole.name:
            run = RunDirectory(whole.parent.parent)
            if not run.record.is_file():
                raise RunError(f"{path} is a checkpoint, and the run that it is of is not there (no {run.record}).")
            return run, each
    raise RunError(f"{path} is neither a run directory nor one of its checkpoints (step-NNNNNNNNNN).")


def convert_run(
    source: Path, target: Path, paradigm: str, force: bool = False, tick: Tick = lambda _: None, dry_run: bool = False
) -> tuple[plan.Plan, int]:
    """Converts a run's checkpoint and writes a run directory that `tfport train --resume` goes on with.

    What is written is restored into the target's model by the framework's own reader, and the state found there held
    against the source's, before it is put in place.

    Args:
      source: a run directory, or one checkpoint of a run.
      target: the run directory to write.
      paradigm: the paradigm that is to go on.
      force: whether a run that is there may be replaced.
      tick: told of progress, in bytes.
      dry_run: whether to plan only.

    Returns:
      The plan, and the step that the run goes on from.

    Raises:
      CheckpointError, RunError, UserError: the run is damaged, or the target is in the way; nothing is written.
    """
    from tfport import paradigms

    run, found = newest(source)
    config = run.config()
    manifest = checkpoint.read_manifest(found)
    spec = config.spec()
    paradigms.check(paradigm, spec)
    check_target(target, force)
    if target.absolute().resolve() == run.path.absolute().resolve():
        raise UserError(f"{target} is the run that is converted; give another place.")
    after = dataclasses.replace(config, paradigm=paradigm, run_dir=str(target))
    with reference.planned(found.folder, config.paradigm, paradigm, spec, config.precision) as (_, made):
        if dry_run:
            return made, found.step
        with atomic_folder(target) as temporary:
            place = temporary / "checkpoints" / found.folder.name
            place.mkdir(parents=True)
            reference.write_parts(made, place, tick)
            subject = paradigms.build(paradigm, spec, config.precision, config.seed)
            try:
                subject.restore(place)
                state = subject.state()
            finally:
                subject.close()
            if state.digest() != str(manifest["state_digest"]):
                raise CheckpointError(
                    f"{found.folder} was converted and read back by {paradigm}, and the state is not the one that was "
                    "saved; nothing is put in place. Please report this."
                )
            record = checkpoint.manifest_of(place, {**manifest, "paradigm": paradigm}, state.digest())
            (place / "manifest.json").write_text(json.dumps(record, indent=2) + "\n")
            _write_record(run, temporary, after, found.step)
    return made, found.step


def _write_record(run: RunDirectory, folder: Path, config: Any, step: int) -> None:
    """run.json and the metrics so far."""
    record = run.read()
    record["config"] = {**record["config"], **config.as_json()}
    write_json(folder / "run.json", {**record, "status": "interrupted", "step": step})
    if run.metrics.is_file():
        shutil.copyfile(run.metrics, folder / run.metrics.name)
