"""Reports built by hand: one whose three ports are equal, one where a port is different and one has no partner."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tfport.equivalence.result import (
    RUNGS,
    Divergence,
    LossCheck,
    Mover,
    PairResult,
    Report,
    RungResult,
    Verdict,
    worst,
)

LEGACY = "tf1_graph"
MODERNS = ("gradient_tape", "keras2", "keras3")
NETWORKS = ("discriminator", "generator")
STEPS = 60


def _variables(network: str) -> tuple[str, ...]:
    return tuple(f"{network}/{layer}/{kind}" for layer in ("hidden", "output") for kind in ("kernel", "bias"))


def _movers() -> tuple[Mover, ...]:
    return tuple(Mover(network, _variables(network), _variables(network)) for network in NETWORKS)


def _loss_checks(modern: str) -> tuple[LossCheck, ...]:
    return tuple(
        LossCheck(side, phase, loss, value, value + 3e-8, 4e-7)
        for side in (LEGACY, modern)
        for phase, loss, value in (
            ("discriminator", "loss_D", -1.3862944841384888),
            ("generator", "loss_G", -0.6931472420692444),
        )
    )


def _bits(rung: str, value: float, ulp: int) -> Divergence:
    """A divergence of rounding size."""
    return Divergence(
        rung=rung,
        step=0,
        phase="generator",
        tensor="generator/output/kernel",
        index=(3, 401),
        shape=(256, 784),
        dtype="float32",
        legacy=0.013271654024720192,
        modern=0.013271654024720192 + value,
        absolute=value,
        relative=value / 0.0132716,
        ulp=ulp,
        atol=2 * value,
        differing=18_221,
        elements=200_704,
        held_before=("structure", "initialisation", "forward", "loss"),
    )


def _rung(name: str, rounded: bool) -> RungResult:
    if name in ("repeat", "structure"):
        return RungResult(name, Verdict.IDENTICAL, compared=42)
    if name == "initialisation":
        return RungResult(name, Verdict.SAME_DISTRIBUTION, compared=8)
    if not rounded or name in ("forward", "loss"):
        return RungResult(name, Verdict.IDENTICAL, 0.0, 0, None, 12, 0.0, 0.0)
    relative, double, ulp = {
        "gradient": (1.2e-7, 2.1e-16, 3),
        "update": (1.9e-6, 4.4e-15, 41),
        "forced_trajectory": (2.4e-6, 4.6e-15, 188),
        "free_trajectory": (4.6e-3, 9.1e-15, 2_031_616),
        "resume": (3.1e-3, 8.8e-15, 1_048_576),
    }[name]
    shrink = double / (relative * 2**-29)
    return RungResult(
        name, Verdict.ROUNDING, relative / 3, ulp, _bits(name, relative / 3, ulp), 960, relative, double, shrink
    )


def equal_pair(modern: str) -> PairResult:
    rungs = tuple(_rung(name, rounded=modern != "gradient_tape") for name in RUNGS)
    verdict = worst([rung.verdict for rung in rungs])
    return PairResult(LEGACY, modern, verdict, rungs, None, _movers(), _loss_checks(modern))


def different_pair(modern: str = "keras3") -> PairResult:
    """Another epsilon: seen in the structure, first bites in the update; a discriminator that never moves besides."""
    equal = {rung.rung: rung for rung in equal_pair(modern).rungs}
    divergence = Divergence(
        rung="update",
        step=0,
        phase="discriminator",
        tensor="discriminator/hidden/kernel",
        index=(17, 3),
        shape=(784, 256),
        dtype="float32",
        legacy=-3.0999997397884727e-04,
        modern=-3.869999863673002e-04,
        absolute=7.7e-05,
        relative=0.2,
        ulp=2_031_616,
        atol=9.1e-05,
        differing=1_204,
        elements=200_704,
        held_before=("initialisation", "forward", "loss", "gradient"),
    )
    finding = "discriminator/epsilon: tf1_graph 9.99999993922529e-09, keras3 1.00000001168609e-07"
    equal["structure"] = RungResult("structure", Verdict.DIFFERENT, compared=42, findings=(finding,))
    equal["update"] = RungResult(
        "update",
        Verdict.DIFFERENT,
        9.1e-5,
        2_031_616,
        divergence,
        24,
        5.2e-2,
        5.2e-2,
        5.4e8,
        ("phase discriminator moves 4 variables in tf1_graph and 0 in keras3",),
    )
    broken = replace(
        divergence,
        rung="free_trajectory",
        step=7,
        modern=math.nan,
        absolute=math.nan,
        relative=math.nan,
        ulp=-1,
        atol=math.inf,
    )
    equal["forced_trajectory"] = replace(
        equal["update"],
        rung="forced_trajectory",
        first_divergence=replace(divergence, rung="forced_trajectory"),
        findings=(),
    )
    equal["free_trajectory"] = RungResult(
        "free_trajectory", Verdict.DIFFERENT, math.inf, None, broken, 960, math.inf, math.nan, math.nan
    )
    equal["resume"] = replace(equal["free_trajectory"], rung="resume", first_divergence=replace(broken, rung="resume"))
    movers = (
        Mover("discriminator", _variables("discriminator"), ()),
        Mover("generator", _variables("generator"), (*_variables("generator"), "discriminator/output/bias")),
    )
    losses = (
        *_loss_checks(modern)[:2],
        LossCheck(modern, "discriminator", "loss_D", -0.9862944841384888, -1.3862944841384888, 4e-7),
        LossCheck(modern, "generator", "loss_G", math.nan, -0.6931472420692444, 4e-7),
    )
    rungs = tuple(equal[name] for name in RUNGS)
    return PairResult(LEGACY, modern, Verdict.DIFFERENT, rungs, "update", movers, losses)


def not_comparable_pair(modern: str = "keras2") -> PairResult:
    findings = (
        "generator/output/bias has no partner in keras2",
        "discriminator/batch_norm/gamma has no partner in tf1_graph",
    )
    rungs = tuple(
        RungResult(name, Verdict.IDENTICAL, compared=42)
        if name == "repeat"
        else RungResult(name, Verdict.NOT_COMPARABLE, findings=findings if name == "structure" else ())
        for name in RUNGS
    )
    return PairResult(LEGACY, modern, Verdict.NOT_COMPARABLE, rungs, "forward")


def curves(steps: int = STEPS) -> dict[str, dict[str, list[float]]]:
    """Losses as a GAN's look; gradient_tape's are tf1_graph's bits, the Keras ones drift away by rounding."""
    generator = np.random.Generator(np.random.Philox(7))
    step = np.arange(steps)
    loss_d = -1.39 + 0.9 * (1 - np.exp(-step / (steps / 4))) + 0.05 * generator.standard_normal(steps)
    loss_g = -0.69 - 1.9 * (1 - np.exp(-step / (steps / 3))) + 0.08 * generator.standard_normal(steps)
    found: dict[str, dict[str, list[float]]] = {}
    for name, scale in ((LEGACY, 0.0), ("gradient_tape", 0.0), ("keras2", 2e-9), ("keras3", 6e-8)):
        drift = scale * np.exp(step / (steps / 9)) * (1 + generator.random(steps))
        found[name] = {"loss_D": (loss_d + drift).tolist(), "loss_G": (loss_g - 3 * drift).tolist()}
    return found


def report(*pairs: PairResult) -> Report:
    return Report(
        model="vanilla_gan",
        precision="float32",
        steps=STEPS,
        seed=0,
        dataset="digits",
        batch_size=100,
        pairs=pairs,
        curves=curves(),
        seconds={"tf1_graph float32": 3.21, "keras3 float32": 8.4},
        versions={"tensorflow": "2.21.0", "keras": "3.15.1", "tf-keras": "2.21.0", "numpy": "2.3.1"},
        command="tfport compare --model=vanilla_gan --legacy=tf1_graph --modern=gradient_tape,keras2,keras3 --steps=60",
    )


@pytest.fixture
def equal_report() -> Report:
    """Three ports that pass: one bit for bit, two up to rounding."""
    return report(*(equal_pair(modern) for modern in MODERNS))


@pytest.fixture
def failing_report() -> Report:
    """One port that is equal, one without partners, one that is different with NaN and infinities."""
    found = report(equal_pair("gradient_tape"), not_comparable_pair(), different_pair())
    broken = curves()
    broken["keras3"]["loss_G"] = [*broken["keras3"]["loss_G"][:7], *[math.nan] * (STEPS - 8), math.inf]
    return replace(found, curves=broken)
