"""The training loop: one loop for every model and paradigm, speaking only to the Subject contract."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from tfport import data, paradigms, state
from tfport.checks import check_batches
from tfport.data.batches import Batches
from tfport.errors import CheckpointError, TrainingDiverged
from tfport.initial import initial_state
from tfport.quiet import load_tensorflow
from tfport.training import checkpoint, pictures
from tfport.training.config import RunConfig, check
from tfport.training.events import EventWriter
from tfport.training.metrics import MetricsFile
from tfport.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from tfport.subject import Subject


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    directory: Path
    step: int
    interrupted_by: int | None
    """Number of the signal that stopped it; None when it ran to its end."""
    losses: dict[str, float]
    """Loss name -> last value."""


def train(config: RunConfig, resume: bool = False) -> Outcome:
    """Trains one model in one paradigm, from the start or from its newest checkpoint.

    Raises:
      UserError: something that was given cannot be used; nothing that was there before is changed.
      TrainingDiverged: a loss or a weight became NaN or infinite; the last good checkpoint stays.
    """
    check(config)
    directory = RunDirectory(Path(config.run_dir))
    if resume:
        directory.read()
    else:
        directory.check_free()
    dataset = data.load(config.dataset, config.data_dir)
    warnings = directory.check_resumable(config, dataset.digest) if resume else []
    for warning in warnings:
        print(f"warning: {warning}.", file=sys.stderr)
    spec = config.spec()
    batches = check_batches(Batches(spec, dataset, config.seed, config.precision))
    latest = directory.latest() if resume else None
    if latest is not None:
        checkpoint.read_manifest(latest)
        if latest.step > config.steps:
            raise CheckpointError(
                f"{latest.folder} was taken after {latest.step:,} steps, beyond --steps={config.steps}; give more."
            )
    load_tensorflow()
    subject = paradigms.build(config.paradigm, spec, config.precision, config.seed)
    try:
        with directory.locked(), _signals() as received:
            latest = directory.latest() if resume else None  # another process may have gone on until now
            if latest is not None:
                checkpoint.restore(latest, subject, config.seed)
            else:
                subject.load(initial_state(spec, config.seed, config.precision))
            if not resume:
                directory.begin(config, dataset)
            run = _Run(config, directory, dataset, batches, subject, received)
            return run.run(latest.step if latest else 0)
    finally:
        subject.close()


class _Run:
    """One process's share of a run: everything between the first step it does and the last."""

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        dataset: data.Dataset,
        batches: Batches,
        subject: Subject,
        received: list[int],
    ) -> None:
        self.config = config
        self.directory = directory
        self.dataset = dataset
        self.batches = batches
        self.subject = subject
        self.received = received
        """Signals that asked the run to stop."""
        self.logged = subject.spec.logged
        self.metrics = MetricsFile(directory.metrics, [column.name for column in self.logged])
        self.saved: int | None = None

    def run(self, start: int) -> Outcome:
        """Trains from `start` steps done to the end, or to a signal."""
        goes_on = start < self.config.steps
        self.directory.discard_after(start)
        self.metrics.start(start, self.config.log_every if goes_on else 1)
        if goes_on and start % self.config.sample_every:
            self.directory.sample_path(start).unlink(missing_ok=True)
        self.directory.write(self.config, self.dataset, "running", start)
        self.saved = start if start else None
        self.events = EventWriter(self.directory.path, start)
        if start == 0:
            self._sample(0)
        step, last = start, {}
        bar = tqdm(
            total=self.config.steps,
            initial=start,
            desc=f"{self.config.model} {self.config.paradigm}",
            unit="step",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
            file=sys.stderr,
        )
        try:
            with bar:
                while step < self.config.steps and not self.received:
                    last = self._step(step)
                    step += 1
                    bar.update()
                    self._after(step, last, bar)
            if self.saved != step:
                self._save(step)
        except TrainingDiverged:
            self._end("diverged", step)
            raise
        stopped = self.received[0] if self.received and step < self.config.steps else None
        if stopped is None:
            if not self.directory.sample_path(step).exists():
                self._sample(step)
            state.write(self.directory.path / "state.npz", self.subject.state())
        self._end("complete" if stopped is None else "interrupted", step)
        return Outcome(self.directory.path, step, stopped, self._columns(last) if last else {})

    def _step(self, step: int) -> dict[str, float]:
        reports = self.subject.step(self.batches[step])
        for name, value in reports.items():
            if not math.isfinite(value):
                raise TrainingDiverged(self._why(step, name, value))
        return reports

    def _columns(self, reports: dict[str, float]) -> dict[str, float]:
        return {column.name: column.value(reports) for column in self.logged}

    def _after(self, step: int, reports: dict[str, float], bar: Any) -> None:
        """Logs, samples and saves where the intervals ask for it; the last step is always logged."""
        named = self._columns(reports)
        if step % self.config.log_every == 0 or step == self.config.steps:
            self.metrics.append(step, self.batches.epoch(step - 1), list(named.values()))
            kinds = {column.name: "accuracy" if column.percent else "losses" for column in self.logged}
            self.events.scalars(step, {f"{kinds[name]}/{name}": value for name, value in named.items()})
            bar.set_postfix({name: f"{value:.3f}" for name, value in named.items()}, refresh=False)
        if step % self.config.sample_every == 0 or step == self.config.steps:
            self._sample(step)
        if step % self.config.checkpoint_every == 0:
            self._save(step)

    def _save(self, step: int) -> None:
        try:
            checkpoint.save(self.directory.checkpoints, self.subject, step, self.config.seed)
        except TrainingDiverged as error:
            raise TrainingDiverged(f"{error} {self._remedy()}") from None
        self.saved = step

    def _sample(self, step: int) -> None:
        picture = pictures.write_sample(self.directory, self.subject, self.config.seed, self.dataset, step)
        self.events.image(step, "samples", picture)

    def _end(self, status: str, step: int) -> None:
        self.events.close()
        self.directory.write(self.config, self.dataset, status, step)
        pictures.write_curves(self.directory, self.subject.spec)
        if status != "diverged":
            pictures.write_latent_plane(self.directory, self.subject, self.dataset)
        pictures.write_gif(self.directory)

    def _why(self, step: int, report: str, value: float) -> str:
        """The message for a loss that is no number: where, what, and the likely cause."""
        about = next(phase for phase in self.subject.spec.phases if report in phase.reports)
        if math.isinf(value) and about.sense == "maximised":
            cause = (
                "an output of the discriminator has reached exactly 0 or 1 and its logarithm is taken as it is "
                "(in float32 a sigmoid rounds to 1 from a logit of about 17)"
            )
        else:
            cause = "a weight or an activation has become NaN or infinite, mostly after an update that was too large"
        return (
            f"step {step + 1:,}, phase {about.name}: {about.loss} = {about.formula} is {value}. Likely cause: {cause}. "
            f"{self._remedy()}"
        )

    def _remedy(self) -> str:
        latest = self.directory.latest()
        kept = f"The last good checkpoint is {latest.folder}." if latest else "No checkpoint had been written yet."
        return (
            "Train again in another --run_dir with a lower --learning_rate, another --seed or --precision=float64. "
            f"{kept}"
        )


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying; a second one of the same kind acts as it always does.

    A signal that is ignored, as nohup has it, stays ignored.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def note(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    try:
        for number in before:
            signal.signal(number, note)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
