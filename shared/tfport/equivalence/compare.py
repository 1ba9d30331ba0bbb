"""A whole comparison: which sides, in which processes, and what came of it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from tfport import data, models, paradigms
from tfport.checks import check_batches
from tfport.data.batches import Batches
from tfport.data.samples import sample_inputs
from tfport.equivalence.ladder import Ladder
from tfport.equivalence.measurement import PairMeasurement, RungMeasurement, Tolerances
from tfport.equivalence.result import Report, RungResult, Verdict
from tfport.equivalence.resume import carry_between
from tfport.equivalence.verdicts import judge, needs_float64, tolerances
from tfport.errors import UserError, whole
from tfport.initial import initial_state
from tfport.models.spec import Conv, ModelSpec
from tfport.quiet import load_tensorflow
from tfport.remote import RemoteSubject, child_environment
from tfport.subject import Array, Subject
from tfport.versions import versions

REPEAT_STEPS = 50
"""Rung 0 repeats this many steps in a fresh process, or fewer where fewer were asked."""
MAX_UPDATES = 80_000
"""Beyond some 87,000 updates of an Adam TF1's beta powers have underflowed and no longer tell their count."""


def max_steps(spec: ModelSpec) -> int:
    """How many steps can be compared: an optimizer that two phases share counts two updates a step."""
    sharing = [sum(phase.optimizer == name for phase in spec.phases) for name, _ in spec.optimizers]
    return MAX_UPDATES // max(sharing)


def default_steps(spec: ModelSpec) -> int:
    """How many steps a comparison takes where nobody says: fewer where convolutions make them slow."""
    convolutional = any(isinstance(layer, Conv) for network in spec.networks for layer in network.layers)
    return 20 if convolutional else 200


@dataclass(frozen=True)
class Request:
    """What to compare: the first paradigm is the legacy side, every other one is held against it."""

    model: str
    paradigms: tuple[str, ...]
    steps: int = 200
    precision: str = "float32"
    seed: int = 0
    dataset: str = "digits"
    data_dir: str | None = None
    batch_size: int | None = None

    def check(self) -> Request:
        """The request, when it can be served.

        Raises:
          UserError: an unknown name, fewer than two paradigms, one of them twice, or a number out of range.
        """
        spec = models.get(self.model)
        for name in self.paradigms:
            paradigms.check(name, spec)
        if len(self.paradigms) < 2:
            raise UserError(
                f"--paradigms={','.join(self.paradigms)} names fewer than two: give the legacy side and at least one "
                f"other, from {', '.join(paradigms.PARADIGMS)}."
            )
        twice = sorted({name for name in self.paradigms if self.paradigms.count(name) > 1})
        if twice:
            raise UserError(f"--paradigms names {', '.join(twice)} twice; a side is not compared with itself.")
        paradigms.check_precision(self.precision)
        whole("steps", self.steps, 1, max_steps(spec))
        whole("seed", self.seed, 0, 2**31 - 1)
        if self.batch_size is not None:
            whole("batch_size", self.batch_size, 1, 60_000)
        return self

    def spec(self) -> ModelSpec:
        """The model's spec with the asked batch size."""
        spec = models.get(self.model)
        if self.batch_size is None:
            return spec
        return dataclasses.replace(spec, batching=dataclasses.replace(spec.batching, batch_size=self.batch_size))


@dataclass
class Pass:
    """What one pass over the ladder, in one precision, brought."""

    pairs: list[PairMeasurement]
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    samples: dict[str, Array] = field(default_factory=dict)


def compare(request: Request, command: str = "") -> tuple[Report, dict[str, Array]]:
    """Compares; returns the report, and for each side images [N, pixels] from the same z after its free trajectory.

    Raises:
      UserError: the request cannot be served.
    """
    request.check()
    load_tensorflow()
    began = time.perf_counter()
    seconds: dict[str, float] = {}
    dataset = data.load(request.dataset, request.data_dir)
    spec = request.spec()
    check_batches(Batches(spec, dataset, request.seed, request.precision))
    if request.precision == "float32":
        asked = measure_here(request, request.paradigms, [{}] * (len(request.paradigms) - 1))
        single = asked.pairs
        doubtful = [pair for pair in single if needs_float64(pair)]
        seconds["float32"] = time.perf_counter() - began
        double = _measure_elsewhere(request, "float64", doubtful) if doubtful else []
        seconds["float64"] = time.perf_counter() - began - seconds["float32"]
    else:
        nothing = [PairMeasurement(request.paradigms[0], name) for name in request.paradigms[1:]]
        single = _measure_elsewhere(request, "float32", nothing)
        seconds["float32"] = time.perf_counter() - began
        asked = measure_here(request, request.paradigms, [tolerances(pair) for pair in single])
        double = asked.pairs
        seconds["float64"] = time.perf_counter() - began - seconds["float32"]
    repeat_began = time.perf_counter()
    repeat = repeat_rung(request, spec, Batches(spec, dataset, request.seed, request.precision))
    seconds["repeat"] = time.perf_counter() - repeat_began
    by_name = {pair.modern: pair for pair in double}
    pairs = tuple(
        judge(shown, first, by_name.get(first.modern), repeat) for shown, first in zip(asked.pairs, single, strict=True)
    )
    seconds["total"] = time.perf_counter() - began
    report = Report(
        model=request.model,
        precision=request.precision,
        steps=request.steps,
        seed=request.seed,
        dataset=f"{dataset.name} ({len(dataset.images):,} training images, digest {dataset.digest[:12]})",
        batch_size=spec.batching.batch_size,
        pairs=pairs,
        curves=asked.curves,
        loss_unit=spec.loss_unit,
        seconds={name: round(value, 1) for name, value in seconds.items()},
        versions=versions(),
        command=command,
    )
    return report, asked.samples


def measure_here(request: Request, names: Sequence[str], allowed: Sequence[Tolerances]) -> Pass:
    """Runs rungs 1 to 9 in this process, in the request's precision.

    Args:
      request: what to compare.
      names: the sides to build, the legacy side first.
      allowed: for each modern side, what rounding explains.
    """
    spec = request.spec()
    dataset = data.load(request.dataset, request.data_dir)
    batches = check_batches(Batches(spec, dataset, request.seed, request.precision))
    sides: list[Subject] = []
    try:
        for name in names:
            sides.append(paradigms.build(name, spec, request.precision, request.seed + len(sides)))
        initial = initial_state(spec, request.seed, request.precision)
        ladder = Ladder(sides[0], sides[1:], names, batches, initial, request.steps, allowed)
        ladder.carry = lambda source, target: carry_between(source, target, spec, request.precision)
        bar = tqdm(
            total=ladder.work,
            desc=f"compare {request.precision}",
            unit="step",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )
        with bar:
            ladder.tick = lambda: bar.update()
            pairs = ladder.run()
        inputs = sample_inputs(spec, request.seed, dataset, request.precision)
        samples = {name: side.generate(inputs) for name, side in zip(names, sides, strict=True)}
        return Pass(pairs, ladder.curves, samples)
    finally:
        for side in sides:
            side.close()


def _measure_elsewhere(request: Request, precision: str, pairs: Sequence[PairMeasurement]) -> list[PairMeasurement]:
    """Runs rungs 1 to 9 in another precision, in a process of its own; in float64 it is told what rounding explains."""
    with tempfile.TemporaryDirectory(prefix="tfport-") as folder:
        order = {
            "request": {**dataclasses.asdict(request), "precision": precision},
            "names": [request.paradigms[0], *(pair.modern for pair in pairs)],
            "allowed": [tolerances(pair) if precision == "float64" else {} for pair in pairs],
            "answer": str(Path(folder, "answer.jsonl")),
        }
        finished = subprocess.run(
            [sys.executable, "-m", "tfport.equivalence.compare"],
            input=json.dumps(order),
            stdout=subprocess.DEVNULL,
            text=True,
            env=child_environment(),
            check=False,
        )
        if finished.returncode:
            raise UserError(f"the {precision} comparison failed in its own process; what it said stands above.")
        return [PairMeasurement.from_json(line) for line in Path(order["answer"]).read_text().splitlines()]  # type: ignore[arg-type]


def serve(order: dict[str, Any]) -> None:
    """The other side of `_measure_elsewhere`."""
    logging.set_verbosity(logging.ERROR)  # as the command line does in its own process
    load_tensorflow()
    fields = {**order["request"], "paradigms": tuple(order["request"]["paradigms"])}
    found = measure_here(Request(**fields), order["names"], order["allowed"])
    Path(order["answer"]).write_text("".join(pair.to_json() + "\n" for pair in found.pairs))


def repeat_rung(request: Request, spec: ModelSpec, batches: Batches) -> RungResult:
    """Rung 0: the legacy side's run once more, in two fresh processes, against itself."""
    steps = max(1, min(request.steps, REPEAT_STEPS))
    initial = initial_state(spec, request.seed, request.precision)
    sides = [RemoteSubject(request.paradigms[0], spec, request.precision, request.seed) for _ in range(2)]
    rung = RungMeasurement("repeat")
    try:
        for side in sides:
            side.load(initial)
        for step in range(steps):
            first, second = (side.step(batches[step]) for side in sides)
            for phase in spec.phases:
                for name in phase.reports:
                    if name in first and name in second:  # a report that is missing shows on every other rung
                        rung.add(name, first[name], second[name], step, phase.name, {}, request.precision)
        left, right = (side.state().arrays for side in sides)
        rung.add_all(left, right, steps - 1, None, {})
    finally:
        for side in sides:
            side.close()
    return RungResult(
        rung="repeat",
        verdict=Verdict.IDENTICAL if rung.same_bits and rung.compared else Verdict.DIFFERENT,
        max_abs=rung.max_abs,
        max_ulp=rung.max_ulp,
        first_divergence=rung.first,
        compared=rung.compared,
        findings=(f"{steps} steps of {request.paradigms[0]} in two fresh processes",),
    )


if __name__ == "__main__":
    try:
        serve(json.loads(sys.stdin.read()))
    except UserError as refused:
        sys.exit(str(refused))
