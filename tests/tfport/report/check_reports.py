"""Reports of checks, built by hand: every way in which one can end, and names that try to break out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from tfport.checking.report import CheckReport, DrawRow, Finding, Location, Movement, Neighbour, PhasePair
from tfport.equivalence.result import RUNGS, Divergence, LossCheck, PairResult, RungResult, Verdict, worst
from tfport.layouts import MappedVariable

HOSTILE = "</style></script><script>alert(1)</script><img src=x onerror=\"alert('2')\">{{ 7 * 7 }}&amp;]]>"
LONG = "very/long/scope/" + "nested_block_of_the_network/" * 10 + "kernel"
UNICODE = "réseau/層_0/ядро/ñ"
SNEAKY = "a\x00b\x1b[31mred\u202egnp\ud800\ufffe\nnewline\x85"
STEPS = 60

LEGACY, MODERN = "old_train:build", "new_train:build"
_LAYERS = (
    ("generator", (64, 128)),
    ("generator", (128, 784)),
    ("discriminator", (784, 128)),
    ("discriminator", (128, 1)),
)


def _mapping() -> tuple[MappedVariable, ...]:
    rows = []
    for number, (network, shape) in enumerate(_LAYERS):
        old, new = f"{network}/dense_{number}", f"{network[:3]}.layers.{number % 2}"
        kernel = MappedVariable(
            f"{old}/kernel",
            f"{new}.weight",
            shape,
            shape[::-1],
            (1, 0),
            reason="forward pass: 1 of 6 candidates agrees",
        )
        rows += [kernel, MappedVariable(f"{old}/bias", f"{new}.bias", shape[1:], shape[1:], reason="same layer")]
    rows[5] = replace(rows[5], ambiguous=("dis.layers.3.bias", "gen.layers.0.bias"))
    rows[7] = replace(rows[7], reshape=True, modern_shape=(1, 1), reason="the only one of its shape")
    return tuple(rows)


def divergence(rung: str = "update", **changes: object) -> Divergence:
    found = Divergence(
        rung=rung,
        step=0,
        phase="train_d",
        tensor="discriminator/dense_2/kernel",
        index=(17, 3),
        shape=(784, 128),
        dtype="float32",
        legacy=-3.0999997397884727e-04,
        modern=-3.869999863673002e-04,
        absolute=7.7e-05,
        relative=0.2,
        ulp=2_031_616,
        atol=9.1e-05,
        differing=1_204,
        elements=100_352,
        held_before=("structure", "initialisation", "forward", "loss", "gradient"),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def _rung(name: str, rounded: bool) -> RungResult:
    if name in ("repeat", "structure"):
        return RungResult(name, Verdict.IDENTICAL, compared=42)
    if name == "initialisation":
        return RungResult(name, Verdict.SAME_DISTRIBUTION, compared=8)
    if not rounded or name == "forward":
        return RungResult(name, Verdict.IDENTICAL, 0.0, 0, None, 12, 0.0, 0.0)
    bits = divergence(name, modern=-3.0999994487501681e-04, absolute=2.9e-11, relative=9.4e-8, ulp=1, atol=6e-11)
    return RungResult(name, Verdict.ROUNDING, 4e-7, 41, bits, 960, 4.6e-3, 9.1e-15, 1.1e-3)


def _movements() -> tuple[Movement, ...]:
    rows = _mapping()
    found = []
    for side, phases in (("legacy", ("train_d", "train_g")), ("modern", ("d_step", "g_step"))):
        names = [each.legacy if side == "legacy" else each.modern for each in rows]
        found += [
            Movement(side, phases[0], tuple(names[4:]), tuple(names[:4])),
            Movement(side, phases[1], tuple(names[:4]), tuple(names[4:])),
        ]
    return tuple(found)


def _curves(drift: float) -> dict[str, dict[str, list[float]]]:
    loss_d = [-1.39 + 0.9 * (1 - math.exp(-step / 15)) + 0.03 * math.sin(step) for step in range(STEPS)]
    loss_g = [-0.69 - 1.9 * (1 - math.exp(-step / 20)) + 0.05 * math.cos(2 * step) for step in range(STEPS)]
    away = [drift * math.exp(step / 7) * (1 + step % 3) for step in range(STEPS)]
    return {
        "legacy": {"train_d": loss_d, "train_g": loss_g},
        "modern": {
            "d_step": [value + more for value, more in zip(loss_d, away, strict=True)],
            "g_step": [value - more for value, more in zip(loss_g, away, strict=True)],
        },
    }


def _pair(*rungs: RungResult, **changes: object) -> PairResult:
    losses = tuple(
        LossCheck(side, phase, "loss", value, value + 3e-8, 4e-7)
        for side in ("legacy", "modern")
        for phase, value in (("train_d", -1.3862944841384888), ("train_g", -0.6931472420692444))
    )
    pair = PairResult("legacy", "modern", worst([rung.verdict for rung in rungs]), rungs, loss_checks=losses)
    return replace(pair, **changes)  # type: ignore[arg-type]


def identical() -> CheckReport:
    return CheckReport(
        legacy=LEGACY,
        modern=MODERN,
        legacy_kind="TF1 graph",
        modern_kind="Keras 3 model",
        precision="float32",
        steps=STEPS,
        seed=3,
        batches="batches.npz: 20 batches of x float32 (32, 784), z float32 (32, 64)",
        pair=_pair(*(_rung(name, rounded=False) for name in RUNGS)),
        mapping=_mapping(),
        phases=(PhasePair("train_d", "d_step", ("d_adam",), ("adam",)), PhasePair("train_g", "g_step", ("g_adam",))),
        outputs=(("generator/Sigmoid", "images"), ("discriminator/BiasAdd", "scores")),
        draws=(
            DrawRow("legacy", "dropout/random_uniform", "uniform", True),
            DrawRow("modern", "dropout", "uniform", True),
        ),
        movements=_movements(),
        tolerance=0.0,
        curves=_curves(0.0),
        seconds={"legacy": 3.21, "modern": 8.4, "total": 12.0},
        versions={"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.3.1"},
        command="tfport check --legacy=old_train:build --modern=new_train:build --batches=batches.npz --steps=60",
    )


def rounding(by: str = "float64") -> CheckReport:
    rungs = [_rung(name, rounded=True) for name in RUNGS]
    if by == "envelope":
        rungs = [replace(rung, float64_relative=None, shrink=None) for rung in rungs]
    note = Finding("legacy", "statistics", "", "dense_9/moving_mean never moves: it is in no phase's updates.", False)
    return replace(
        identical(),
        pair=_pair(*rungs),
        rounding_by=by,
        tolerance=4.6e-3,
        curves=_curves(2e-9),
        findings=(note,),
        notes=("the legacy side's learning rate is fed with the batch",),
    )


def different() -> CheckReport:
    """Another epsilon; a discriminator bias that never moves; a draw that nobody feeds; a sample."""
    bad = RungResult(
        "update", Verdict.DIFFERENT, 9.1e-5, 2_031_616, divergence(), 24, 5.2e-2, 5.2e-2, 5.4e8,
        ("phase train_d moves 4 variables in legacy and 3 in modern",),
    )  # fmt: skip
    epsilon = "the d_adam optimizer's epsilon is 9.99999993922529e-09 against 1.00000001168609e-07"
    rungs = {name: _rung(name, rounded=True) for name in RUNGS}
    rungs |= {
        "structure": RungResult("structure", Verdict.DIFFERENT, compared=42, findings=(epsilon,)),
        "update": bad,
        "forced_trajectory": replace(
            bad, rung="forced_trajectory", first_divergence=divergence("forced_trajectory"), findings=()
        ),
        "resume": replace(bad, rung="resume", first_divergence=divergence("resume"), findings=()),
    }
    del rungs["free_trajectory"]
    pair = _pair(*rungs.values(), located="update")
    wrong = replace(pair.loss_checks[2], reported=-0.9862944841384888)
    movements = list(_movements())
    kept = movements[2].moved[:-1]
    movements[2] = replace(movements[2], moved=kept, stayed=(*movements[2].stayed, movements[2].moved[-1]))
    return replace(
        rounding(""),
        pair=replace(pair, loss_checks=(*pair.loss_checks[:2], wrong, pair.loss_checks[3])),
        location=Location(
            step=0,
            phase="train_d",
            modern_node="adam/update/truediv",
            modern_kind="RealDiv",
            legacy_node="d_adam/update_dense_2/kernel/ResourceApplyAdam",
            legacy_kind="ResourceApplyAdam",
            agreeing=(("gradients/dense_2/MatMul_grad", "gradient_tape/dense/MatMul"), ("lr", "lr")),
            variables=(("discriminator/dense_2/kernel", "dis.layers.0.weight"),),
            neighbours=(
                Neighbour((17, 2), 1.5e-3, 1.5e-3),
                Neighbour((17, 3), -3.0999997397884727e-04, -3.869999863673002e-04),
                Neighbour((17, 4), 0.0, math.nan),
            ),
        ),
        movements=tuple(movements),
        tolerance=0.21,
        draws=(*identical().draws, DrawRow("modern", "augment/flip", "RandomShuffle", False, "drawn in Python")),
        findings=(
            Finding("modern", "who trained", "d_step", "dis.layers.1.bias is trainable and never moves."),
            Finding("modern", "reported loss", "d_step", "it reports -0.986 and its loss is -1.386."),
            Finding("modern", "noise", "", "augment/flip draws the same numbers at each step.", False),
        ),
        left_out=("rung 8 free trajectory: 60 steps were asked for and --sample runs 5",),
        covers=(
            "60 steps were made on each side.",
            "Not compared: rung 8 free trajectory: 60 steps were asked for and --sample runs 5.",
        ),
    )


def not_comparable() -> CheckReport:
    lacks = ("variable generator/bn/gamma (128,) is missing on the modern side",)
    rungs = [
        _rung(name, False)
        if name == "repeat"
        else RungResult(name, Verdict.NOT_COMPARABLE, findings=lacks if name == "structure" else ())
        for name in RUNGS
    ]
    return replace(
        identical(),
        pair=_pair(*rungs, loss_checks=()),
        unmatched_legacy=("generator/bn/gamma", "generator/bn/beta"),
        unmatched_modern=("gen.norm.weight",),
        tolerance=None,
        curves={},
        movements=(),
    )


def alone() -> CheckReport:
    return replace(
        identical(),
        legacy="",
        legacy_kind="",
        pair=None,
        mapping=(),
        phases=(),
        outputs=(),
        tolerance=None,
        movements=_movements()[2:],
        draws=identical().draws[1:],
        curves={"modern": _curves(0.0)["modern"]},
        findings=(
            Finding("modern", "who trained", "g_step", "g_step also moves dis.layers.0.weight: freeze it there."),
            Finding("modern", "ranges", "", "images lie in [-1, 1] and x in [0, 1]."),
            Finding("modern", "noise", "", "z is drawn once and reused.", False),
        ),
    )


def broken_numbers() -> CheckReport:
    found = divergence(modern=math.nan, absolute=math.nan, relative=math.nan, ulp=-1, atol=math.inf)
    rungs = {name: _rung(name, rounded=True) for name in RUNGS}
    rungs["update"] = RungResult("update", Verdict.DIFFERENT, math.inf, None, found, 24, math.inf, math.nan, math.nan)
    report = different()
    assert report.location is not None
    values = [1.0, *[math.nan] * (STEPS - 2), math.inf]
    return replace(
        report,
        pair=_pair(
            *rungs.values(),
            loss_checks=(LossCheck("modern", "train_d", "loss", math.nan, -math.inf, math.nan),),
        ),
        location=replace(
            report.location,
            neighbours=(Neighbour((0,), math.inf, -math.inf), Neighbour((), math.nan, math.nan)),
        ),
        tolerance=math.inf,
        curves={"legacy": {"train_d": values}, "modern": {"d_step": values[::-1]}},
    )


def nasty(name: str) -> CheckReport:
    """A report in which everything that can carry a name carries this one."""
    base = different()
    assert base.pair is not None and base.location is not None
    rungs = tuple(
        replace(
            rung,
            findings=(name,),
            first_divergence=rung.first_divergence
            and replace(rung.first_divergence, tensor=name, phase=name, dtype="float32"),
        )
        for rung in base.pair.rungs
    )
    losses = tuple(replace(each, side=name, phase=name, loss=name) for each in base.pair.loss_checks)
    return replace(
        base,
        legacy=name,
        modern=name,
        legacy_kind=name,
        modern_kind=name,
        batches=name,
        pair=replace(base.pair, rungs=rungs, loss_checks=losses, legacy=name, modern=name),
        mapping=tuple(replace(each, legacy=name, modern=name, reason=name, ambiguous=(name,)) for each in base.mapping),
        unmatched_legacy=(name,),
        unmatched_modern=(name, name),
        phases=(PhasePair(name, name, (name,), (name,)),),
        outputs=((name, name),),
        draws=(DrawRow(name, name, name, False, name),),
        movements=(Movement(name, name, (name,), (name,)), Movement("modern", name, (), (name,))),
        findings=(Finding(name, name, name, name), Finding("modern", "noise", name, name, False)),
        location=replace(
            base.location, phase=name, modern_node=name, modern_kind=name, legacy_node=name, legacy_kind=name,
            agreeing=((name, name),), variables=((name, name),), text=name,
        ),
        left_out=(name,),
        covers=(name,),
        notes=(name,),
        curves={name: {name: [1.0, 2.0], f"{name}2": [1.0, 2.0]}, "modern": {f"$x_{name}$": [1.0, math.nan]}},
        seconds={name: 1.0},
        versions={name: name},
        command=name,
    )  # fmt: skip


def many(count: int = 500) -> CheckReport:
    rows = tuple(
        MappedVariable(
            f"resnet/block_{number}/conv/kernel",
            f"blocks.{number}.conv.weight",
            (3, 3, 64, 64 + number % 7),
            (64 + number % 7, 64, 3, 3),
            (3, 2, 0, 1),
            reason="same name" if number % 3 else "forward pass: 1 of 9 candidates agrees",
            ambiguous=(f"blocks.{number + 1}.conv.weight",) if number % 100 == 7 else (),
        )
        for number in range(count)
    )
    moved = tuple(each.legacy for each in rows), tuple(each.modern for each in rows)
    return replace(
        rounding(),
        mapping=rows,
        movements=(Movement("legacy", "train", moved[0], ()), Movement("modern", "fit", moved[1], ())),
        phases=(PhasePair("train", "fit"),),
        draws=tuple(DrawRow("modern", f"dropout_{number}", "uniform", number % 5 > 0) for number in range(40)),
    )


ALL: dict[str, Callable[[], CheckReport]] = {
    "identical": identical,
    "rounding": rounding,
    "envelope": lambda: rounding("envelope"),
    "different": different,
    "not_comparable": not_comparable,
    "alone": alone,
    "broken_numbers": broken_numbers,
    "hostile": lambda: nasty(HOSTILE),
    "long": lambda: nasty(LONG),
    "unicode": lambda: nasty(UNICODE),
    "sneaky": lambda: nasty(SNEAKY),
    "many": many,
}
