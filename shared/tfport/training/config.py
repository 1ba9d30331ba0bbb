"""What a run is asked to do, checked before anything is built."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfport import data, models, paradigms
from tfport.errors import UserError, unknown, whole
from tfport.models.spec import ModelSpec
from tfport.randomness import MAX_SEED, MAX_STEP

_SMALLEST_RATE = 1e-37


@dataclass(frozen=True)
class RunConfig:
    """One training run, complete: from this alone the run can be repeated or gone on with."""

    model: str
    paradigm: str
    dataset: str
    data_dir: str | None
    steps: int
    batch_size: int
    learning_rate: float | None
    """None keeps the spec's own."""
    seed: int
    precision: str
    log_every: int
    sample_every: int
    checkpoint_every: int
    run_dir: str

    def spec(self) -> ModelSpec:
        """The model's spec with this run's batch size and learning rate."""
        spec = models.get(self.model)
        spec = dataclasses.replace(spec, batching=dataclasses.replace(spec.batching, batch_size=self.batch_size))
        if self.learning_rate is not None:
            optimizers = tuple(
                (name, dataclasses.replace(numbers, learning_rate=self.learning_rate))
                for name, numbers in spec.optimizers
            )
            spec = dataclasses.replace(spec, optimizers=optimizers)
        return spec

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)


def check(config: RunConfig) -> RunConfig:
    """The config, when every field is one that a run can have.

    Raises:
      UserError: a name is unknown or a number out of range; the message names the flag and what was expected.
    """
    models.get(config.model)
    paradigms.get(config.paradigm)
    paradigms.check_precision(config.precision)
    if config.dataset not in data.DATASETS:
        raise unknown("dataset", config.dataset, data.DATASETS)
    whole("steps", config.steps, 1, MAX_STEP)
    whole("batch_size", config.batch_size, 1, 60_000)
    whole("seed", config.seed, 0, MAX_SEED)
    for name in ("log_every", "sample_every", "checkpoint_every"):
        whole(name, getattr(config, name), 1, MAX_STEP)
    rate = config.learning_rate
    # The optimizers hold the rate in float32, where a tiny one would be zero or flushed to it.
    if rate is not None and not (math.isfinite(rate) and _SMALLEST_RATE <= rate <= 1e3):
        raise UserError(
            f"--learning_rate={rate} is out of range: expected a number above 0 (from {_SMALLEST_RATE:g}) to 1000."
        )
    return config


def defaults(
    model: str,
    paradigm: str,
    dataset: str = "digits",
    data_dir: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    precision: str = "float32",
    log_every: int | None = None,
    sample_every: int | None = None,
    checkpoint_every: int | None = None,
    run_dir: str | None = None,
) -> RunConfig:
    """A checked config in which whatever is left out has the source's value.

    Log lines and pictures come at the source's cadence, more often where the run is shorter than the source's and would
    have fewer than a hundred lines or ten pictures.

    Raises:
      UserError: as `check`.
    """
    spec = models.get(model)
    if run_dir is not None and not run_dir.strip():
        raise UserError("--run_dir is empty; name a folder, or leave --run_dir out.")
    steps = spec.steps if steps is None else steps
    return check(
        RunConfig(
            model=model,
            paradigm=paradigm,
            dataset=dataset,
            data_dir=str(Path(data_dir).expanduser().absolute()) if data_dir else data_dir,
            steps=steps,
            batch_size=spec.batching.batch_size if batch_size is None else batch_size,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision,
            log_every=_cadence(spec.log_every, steps, spec.steps, 100) if log_every is None else log_every,
            sample_every=_cadence(spec.samples.every, steps, spec.steps, 10) if sample_every is None else sample_every,
            checkpoint_every=1_000 if checkpoint_every is None else checkpoint_every,
            run_dir=run_dir or f"runs/{model}-{paradigm}-{dataset}-seed{seed}",
        )
    )


def _cadence(every: int, steps: int, source_steps: int, times: int) -> int:
    """The source's interval, or a shorter one that a run shorter than the source's has so many times."""
    return every if steps >= source_steps else max(1, min(every, steps // times))
