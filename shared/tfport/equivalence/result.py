"""What a comparison found, as plain frozen dataclasses, and its JSON form (schema 1)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA = 1


class Verdict(StrEnum):
    """How a comparison ended; the meaning of each stands in docs/ladder.md."""

    IDENTICAL = "identical"
    SAME_DISTRIBUTION = "same_distribution"
    ROUNDING = "rounding"
    DIFFERENT = "different"
    NOT_COMPARABLE = "not_comparable"

    @property
    def equal(self) -> bool:
        """Whether this verdict lets a port pass."""
        return self in (Verdict.IDENTICAL, Verdict.SAME_DISTRIBUTION, Verdict.ROUNDING)


_SEVERITY = (
    Verdict.IDENTICAL,
    Verdict.SAME_DISTRIBUTION,
    Verdict.ROUNDING,
    Verdict.DIFFERENT,
    Verdict.NOT_COMPARABLE,
)


def worst(verdicts: list[Verdict]) -> Verdict:
    """The most severe of several verdicts; an empty comparison is not comparable.

    `same_distribution` is all that rung 2 can ask, so beside others it does not speak for the whole.
    """
    telling = [verdict for verdict in verdicts if verdict is not Verdict.SAME_DISTRIBUTION] or verdicts
    return max(telling, key=_SEVERITY.index) if telling else Verdict.NOT_COMPARABLE


RUNGS: tuple[str, ...] = (
    "repeat",
    "structure",
    "initialisation",
    "forward",
    "loss",
    "gradient",
    "update",
    "forced_trajectory",
    "free_trajectory",
    "resume",
)
"""The rungs by number, 0 to 9."""

FIRST_NUMERICAL = RUNGS.index("forward")


@dataclass(frozen=True)
class Divergence:
    """The first place on a rung where the two sides do not hold the same bits."""

    rung: str
    step: int
    phase: str | None
    """The phase that ran, or whose gradient it is; None where no phase is involved."""
    tensor: str
    index: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    legacy: float
    modern: float
    absolute: float
    relative: float
    ulp: int
    """Distance in units in the last place at this element; -1 where a value is not finite."""
    atol: float
    """The smallest absolute tolerance under which the whole tensor would have passed."""
    differing: int
    """How many elements of the tensor differ."""
    elements: int
    held_before: tuple[str, ...] = ()
    """The rungs below this one that held."""


@dataclass(frozen=True)
class RungResult:
    """One rung of one pair."""

    rung: str
    verdict: Verdict
    max_abs: float | None = None
    """Largest absolute difference in the run's precision; None where nothing numerical is compared."""
    max_ulp: int | None = None
    first_divergence: Divergence | None = None
    compared: int = 0
    """How many tensors (or facts) were compared."""
    float32_relative: float | None = None
    """Largest difference in float32, as a share of the tensor's largest magnitude."""
    float64_relative: float | None = None
    """The same in float64."""
    shrink: float | None = None
    """float64_relative / (float32_relative * 2**-29), at the tensor where it is largest; rounding keeps it near 1."""
    findings: tuple[str, ...] = ()
    """What a person should read: a missing name, another hyperparameter, who moved and who did not."""


@dataclass(frozen=True)
class Mover:
    """Which variables one phase moved on each side."""

    phase: str
    legacy: tuple[str, ...]
    modern: tuple[str, ...]


@dataclass(frozen=True)
class LossCheck:
    """One side's reported loss against the loss recomputed from its outputs."""

    side: str
    phase: str
    loss: str
    reported: float
    recomputed: float
    bound: float
    """How far rounding of the outputs alone can move the recomputed loss."""

    @property
    def agrees(self) -> bool:
        """Whether the reported loss is the loss; NaN never agrees."""
        return abs(self.reported - self.recomputed) <= self.bound


@dataclass(frozen=True)
class PairResult:
    """One legacy side against one modern side."""

    legacy: str
    modern: str
    verdict: Verdict
    rungs: tuple[RungResult, ...]
    located: str | None = None
    """The first numerical rung that failed; None when all held."""
    movers: tuple[Mover, ...] = ()
    loss_checks: tuple[LossCheck, ...] = ()

    def rung(self, name: str) -> RungResult:
        """The result of the rung of that name."""
        return {rung.rung: rung for rung in self.rungs}[name]


@dataclass(frozen=True)
class Report:
    """A whole comparison."""

    model: str
    precision: str
    steps: int
    seed: int
    dataset: str
    batch_size: int
    pairs: tuple[PairResult, ...]
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Paradigm -> loss name -> reported loss: of the free trajectory, one value a step, or of the training runs."""
    loss_unit: str = "nats"
    curve_steps: tuple[int, ...] = ()
    """The training step of each value of a curve, counted from 1; empty where there is one value a step."""
    curve_origin: str = ""
    """Where curves and samples come from, in a sentence; empty where it is the free trajectory."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What took how long, in seconds."""
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def equal(self) -> bool:
        """Whether every pair passed."""
        return bool(self.pairs) and all(pair.verdict.equal for pair in self.pairs)

    def as_json(self) -> dict[str, Any]:
        """A tree of JSON values; numbers that are not finite become strings ("nan", "inf")."""
        tree: dict[str, Any] = {"schema": SCHEMA, **plain(asdict(self))}
        for pair, result in zip(tree["pairs"], self.pairs, strict=True):
            for check, found in zip(pair["loss_checks"], result.loss_checks, strict=True):
                check["agrees"] = found.agrees
        return tree


def plain(value: Any) -> Any:
    """A tree of what JSON knows: tuples as lists, numbers that are not finite as strings."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, StrEnum):
        return str(value)
    return value
