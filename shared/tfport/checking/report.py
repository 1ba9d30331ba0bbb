"""What a check of a user's own port found, as plain frozen dataclasses, and its JSON form (schema 1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tfport.equivalence.result import PairResult, plain
from tfport.layouts import MappedVariable

SCHEMA = 1


@dataclass(frozen=True)
class DrawRow:
    """One place of one side where random numbers are drawn."""

    side: str
    name: str
    kind: str
    controlled: bool
    reason: str = ""


@dataclass(frozen=True)
class Finding:
    """A contract that a side breaks by itself, without any reference."""

    side: str
    contract: str
    """Which: "who trained", "reported loss", "ranges", "noise", "gradients", "statistics"."""
    phase: str
    """Empty where it concerns no phase."""
    text: str
    """One sentence that names the thing and says what to do."""
    fails: bool = True
    """False: worth reading, and no reason to fail."""


@dataclass(frozen=True)
class Neighbour:
    """One element near the first divergence."""

    index: tuple[int, ...]
    legacy: float
    modern: float


@dataclass(frozen=True)
class Location:
    """Where in the code the first divergence arises.

    The first node whose inputs agree and whose output does not, with its counterpart on the other side; or a node that
    only one side has. A node is empty where that side has none.
    """

    step: int
    phase: str
    modern_node: str
    modern_kind: str
    legacy_node: str
    """The counterpart, of one kind or reading the same; empty where none was found."""
    legacy_kind: str
    agreeing: tuple[tuple[str, str], ...]
    """Legacy and modern names of what both read and what was compared and agrees."""
    variables: tuple[tuple[str, str], ...] = ()
    """Legacy and modern names of the variables that the node reads."""
    neighbours: tuple[Neighbour, ...] = ()
    text: str = ""
    """The whole in a few sentences."""
    modern_where: str = ""
    """File and line of the modern node ("gan.py:41"); empty where that is not known."""
    legacy_where: str = ""
    differing: tuple[tuple[str, str, str], ...] = ()
    """Attributes, constants or numbers that differ: name, on the legacy side, on the modern side."""
    only_legacy: tuple[str, ...] = ()
    """Nodes before it that only the legacy side has."""
    only_modern: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhasePair:
    """One phase of the step and its partner, with what optimizers move it."""

    legacy: str
    modern: str
    legacy_optimizers: tuple[str, ...] = ()
    modern_optimizers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Movement:
    """Contract: what one phase of one side trains."""

    side: str
    phase: str
    moved: tuple[str, ...]
    stayed: tuple[str, ...]
    """Trainable variables that this phase left alone."""


@dataclass(frozen=True)
class CheckReport:
    """A whole check."""

    legacy: str
    """What the legacy side was given as ("module:factory"); empty where the modern side was checked alone."""
    modern: str
    legacy_kind: str
    modern_kind: str
    precision: str
    steps: int
    seed: int
    batches: str
    """Where the batches came from and what is in one."""
    pair: PairResult | None = None
    """None where the modern side was checked alone."""
    rounding_by: str = ""
    """How rounding was shown: "float64", "envelope", or empty where the bits agree."""
    no_float64: str = ""
    """Why the rungs were not run in float64, where the envelope had to judge for that."""
    mapping: tuple[MappedVariable, ...] = ()
    unmatched_legacy: tuple[str, ...] = ()
    unmatched_modern: tuple[str, ...] = ()
    phases: tuple[PhasePair, ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    """Legacy and modern names of the outputs that are compared."""
    draws: tuple[DrawRow, ...] = ()
    movements: tuple[Movement, ...] = ()
    findings: tuple[Finding, ...] = ()
    unasked: tuple[tuple[str, str], ...] = ()
    """Side and contract, where the code gives no way to ask it or has nothing that it concerns."""
    location: Location | None = None
    tolerance: float | None = None
    """The smallest relative tolerance under which every compared tensor would have passed; None where none would."""
    left_out: tuple[str, ...] = ()
    """What --sample left out."""
    covers: tuple[str, ...] = ()
    """Up to which step it speaks and what it did not cover, in sentences."""
    notes: tuple[str, ...] = ()
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Side -> phase -> reported loss, one value a step of the free trajectory."""
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def __str__(self) -> str:
        """The answer in a few lines of plain text, the place first."""
        from tfport.report.check_words import assertion_text

        return assertion_text(self)

    @property
    def equal(self) -> bool:
        """Whether the port passed: every rung held, and neither side of it breaks a contract that fails."""
        held = self.pair is None or self.pair.verdict.equal
        return held and not any(finding.fails for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """A tree of JSON values; numbers that are not finite become strings ("nan", "inf")."""
        tree: dict[str, Any] = {"schema": SCHEMA, "equal": self.equal, **plain(asdict(self))}
        if self.pair is not None:
            for check, found in zip(tree["pair"]["loss_checks"], self.pair.loss_checks, strict=True):
                check["agrees"] = found.agrees
        return tree
