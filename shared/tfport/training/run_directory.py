"""The run directory: what a run was asked, what it wrote, and how it ended.

run.json               configuration, spec, data, versions, status (format 1)
metrics.csv            losses
losses.png             loss curves
samples/step-*.png     sample grids;  samples.gif  their progress
events.out.tfevents.*  TensorBoard
checkpoints/step-*/    native checkpoints, each with its manifest
state.npz              the canonical state at the end
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfport.errors import RunError
from tfport.files import explained, write_json
from tfport.training.checkpoint import Checkpoint, checkpoints
from tfport.training.config import RunConfig
from tfport.versions import versions

if TYPE_CHECKING:
    from tfport.data import Dataset

FORMAT = 1
_IMMUTABLE = ("model", "paradigm", "dataset", "batch_size", "learning_rate", "seed", "precision")
"""What a resumed run must have in common with its beginning; steps and intervals may change."""


class RunDirectory:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        self.metrics = path / "metrics.csv"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"

    def read(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
          RunError: there is no run here, or it is of another format.
        """
        try:
            record: dict[str, Any] = json.loads(self.record.read_text())
        except FileNotFoundError:
            raise RunError(f"{self.path} holds no run (no run.json): nothing to resume; leave --resume out.") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.record} cannot be read ({error}); choose another --run_dir.") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            found = record.get("format") if isinstance(record, dict) else None
            raise RunError(
                f"{self.record} has format {found!r}, and this tfport reads format {FORMAT}: "
                "go on with the tfport version that wrote it, or choose another --run_dir."
            )
        return record

    def config(self) -> RunConfig:
        """The configuration with which the run was begun, or last resumed."""
        saved = self.read().get("config")
        fields = {field.name for field in dataclasses.fields(RunConfig)}
        if not isinstance(saved, dict) or set(saved) != fields:
            raise RunError(f"{self.record} does not hold a whole configuration; choose another --run_dir.")
        for name, kind in _KINDS.items():
            if not isinstance(saved[name], kind) or isinstance(saved[name], bool):
                raise RunError(f"{self.record} holds {name} {saved[name]!r}; choose another --run_dir.")
        return RunConfig(**{**saved, "run_dir": str(self.path)})

    def begin(self, config: RunConfig, dataset: Dataset) -> None:
        """Makes the folder and writes run.json for a new run.

        Raises:
          RunError: the folder already holds a run, or something else.
        """
        self.check_free()
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.write(config, dataset, "running", 0)

    def check_free(self) -> None:
        """Raises RunError unless a new run may begin here."""
        with explained(self.path):
            begun = self.record.exists()
            taken = self.path.exists() and (
                not self.path.is_dir() or not all(_BEFORE_RUN.fullmatch(each.name) for each in self.path.iterdir())
            )
        if begun:
            raise RunError(f"{self.path} already holds a run. Go on with it by --resume, or choose another --run_dir.")
        if taken:
            raise RunError(f"{self.path} is in the way and holds no run; choose another --run_dir.")

    def check_resumable(self, config: RunConfig, digest: str) -> list[str]:
        """Checks that `config` goes on with the run that is here; returns warnings.

        Args:
          config: the configuration to go on with.
          digest: digest of the data set that it reads.

        Raises:
          RunError: the run here has another model, paradigm, data, batch size, learning rate, seed or precision.
        """
        record = self.read()
        begun = self.config()
        try:
            begun_digest, begun_versions = str(record["dataset"]["digest"]), dict(record["versions"])
        except (KeyError, TypeError, ValueError):
            raise RunError(f"{self.record} names no data or no versions; choose another --run_dir.") from None
        for name in _IMMUTABLE:
            old, new = _setting(begun, name), _setting(config, name)
            if old != new:
                raise RunError(
                    f"{self.path} was begun with --{name}={old}, not {new}: leave --{name} out to go on with it, "
                    "or choose another --run_dir for a new run."
                )
        changed = spec_changes(record, config)
        if changed:
            raise RunError(
                f"{self.path} was begun under another version of the model: {changed[0]}. "
                "Go on with the tfport version that began it, or choose another --run_dir."
            )
        if begun_digest != digest:
            raise RunError(
                f"{self.path} was begun on other images (data digest {begun_digest[:12]}, "
                f"now {digest[:12]}): point --data_dir at the same files."
            )
        now = versions()
        return [
            f"the run was begun under {name} {old} and goes on under {now.get(name)}: the bits may differ from here"
            for name, old in begun_versions.items()
            if now.get(name) != old
        ]

    def write(self, config: RunConfig, dataset: Dataset, status: str, step: int) -> None:
        """Writes run.json, atomically.

        Args:
          config: the configuration.
          dataset: what is trained on.
          status: running, complete, interrupted or diverged.
          step: steps done.
        """
        record: Mapping[str, Any] = {
            "format": FORMAT,
            "status": status,
            "step": step,
            "config": config.as_json(),
            "dataset": {
                "name": dataset.name,
                "source": dataset.source,
                "digest": dataset.digest,
                "training_images": len(dataset.images),
            },
            "spec": dataclasses.asdict(config.spec()),
            "versions": versions(),
        }
        write_json(self.record, record)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint; None when there is none yet."""
        found = checkpoints(self.checkpoints)
        return found[-1] if found else None

    def sample_path(self, step: int) -> Path:
        """Where the sample grid after `step` steps lies."""
        return self.samples / f"step-{step:010d}.png"

    def discard_after(self, step: int) -> None:
        """Removes pictures of later steps, and what a killed process left half written."""
        for picture in self.samples.glob("step-*.png"):
            number = picture.stem.removeprefix("step-")
            if number.isdecimal() and int(number) > step:
                picture.unlink()
        for leftover in [*self.path.glob(".*.*"), *self.samples.glob(".*"), *self.checkpoints.glob(".*")]:
            if leftover.name == _LOCK:
                continue
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from writing into the same run.

        Raises:
          RunError: another process is training here.
        """
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"another process is training in {self.path}; wait for it or stop it first.") from None
            yield


def spec_changes(record: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Where the spec that a run was begun with is not the one of today, in words; empty where they agree.

    Args:
      record: the content of run.json.
      config: the configuration that the run goes on with.
    """
    now = json.loads(json.dumps(dataclasses.asdict(config.spec())))
    return _changes("spec", record.get("spec"), now)


def _changes(place: str, old: Any, new: Any) -> list[str]:
    """The places where two trees of JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [each for name in names for each in _changes(f"{place}.{name}", old.get(name), new.get(name))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [each for number, (a, b) in pairs for each in _changes(f"{place}[{number}]", a, b)]
    return [] if old == new else [f"{place} was {old!r} and is {new!r}"]


_LOCK = ".lock"
_BEFORE_RUN = re.compile(r"\.lock|\.run\.json\..*")
"""What a process that was killed before its run began may have left."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("model", "paradigm", "dataset", "precision"), str),
    **dict.fromkeys(("steps", "batch_size", "seed", "log_every", "sample_every", "checkpoint_every"), int),
    "data_dir": (str, type(None)),
    "learning_rate": (float, int, type(None)),
}


def _setting(config: RunConfig, name: str) -> object:
    """A setting as it takes effect: a rate that was left out is the spec's."""
    if name != "learning_rate":
        return getattr(config, name)
    rates = sorted({float(str(np.float32(numbers.learning_rate))) for _, numbers in config.spec().optimizers})
    return rates[0] if len(rates) == 1 else rates
