"""Checkpoints carried between paradigms: the steps after a conversion against those that never left.

Every paradigm trains alone, and its own checkpoint is kept halfway. For each ordered pair the files are converted, the
other paradigm's own reader restores them, and it makes the remaining steps on the same batches. Its reports and its
states are held against the first paradigm's with the ladder's bounds, which need float32 and float64; a process
builds Keras models in one of them only, so each precision has a process, and a stage, of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from proof.stages import FOLDER, LADDER, Result, figure, sources, stage, table
from tfport import data, models, paradigms
from tfport.checkpoints import reference
from tfport.checkpoints.contents import STRING, Role
from tfport.checkpoints.convert import same_bytes
from tfport.checkpoints.parts import PartsSource
from tfport.checks import check_batches
from tfport.data.batches import Batches
from tfport.equivalence import cancelled
from tfport.equivalence.measurement import PairMeasurement, RungMeasurement, Tolerances
from tfport.equivalence.reach import Reach
from tfport.equivalence.result import PairResult, RungResult, Verdict
from tfport.equivalence.verdicts import FLOOR, SLACK, judge, tolerances
from tfport.initial import initial_state
from tfport.models.spec import ModelSpec
from tfport.paradigms import PARADIGMS, PRECISIONS
from tfport.quiet import load_tensorflow
from tfport.remote import child_environment
from tfport.state import State
from tfport.subject import Subject

COMMAND = "python tests/prove.py carried"
BEFORE, STEPS = 50, 100
"""Steps before the conversion, and in all."""
STRIDE = 5
"""Steps from one state that is compared to the next; a tensor's difference is the largest share over these states.

Each share is of the largest magnitude that the tensor has had by then (`tfport.equivalence.reach`), as on the ladder.
"""
SEED, FRESH = 0, 9
"""The run's seed, and that of the weights that a side has before it restores."""
SMALL = {"dcgan": 8}
"""Batches smaller than the source's, where convolutions would take hours."""
EXACT = frozenset({"tf1_graph", "gradient_tape"})
"""Between these the same bits are asked for."""
CONTROL = ("tf1_graph", "keras2")
"""The pair that is carried once more with its moments left behind, which has to show."""
RUNG = "resume"
PASSING = (Verdict.IDENTICAL, Verdict.ROUNDING)
_CHECKPOINTS = tuple(
    f"shared/tfport/checkpoints/{name}.py"
    for name in ("algebra", "bundle", "contents", "hdf5", "pairing", "parts", "plan", "reference", "table")
)


# --- Measuring --------------------------------------------------------------------------------------------------------
def spec_of(model: str) -> ModelSpec:
    """The model's spec, with a small batch where the source's is slow."""
    spec = models.get(model)
    size = SMALL.get(model, spec.batching.batch_size)
    return dataclasses.replace(spec, batching=dataclasses.replace(spec.batching, batch_size=size))


@dataclass
class Alone:
    """A paradigm's run that never left."""

    halfway: State
    states: dict[int, State] = field(default_factory=dict)
    """Steps made -> the state then: every STRIDE steps after the checkpoint, and at the end."""
    reports: list[dict[str, float]] = field(default_factory=list)
    """What each step after the checkpoint reported."""


class Carrier:
    """All pairs of one model in one precision, in this process.

    Args:
      spec: the model's facts.
      precision: "float32" or "float64".
      folder: an empty folder for the checkpoints.
      allowed: for each pair, what rounding explains; beyond it a first divergence is taken down.
      before: steps before the conversion.
      steps: steps in all.
      names: the paradigms.
    """

    def __init__(
        self,
        spec: ModelSpec,
        precision: str,
        folder: Path,
        allowed: Mapping[tuple[str, str], Tolerances] | None = None,
        before: int = BEFORE,
        steps: int = STEPS,
        names: Sequence[str] = tuple(PARADIGMS),
    ) -> None:
        self.spec, self.precision, self.folder = spec, precision, folder
        self.allowed = allowed or {}
        self.before, self.steps = before, steps
        self.batches = check_batches(Batches(spec, data.load("digits"), SEED, precision))
        self.sides: dict[str, Subject] = {name: paradigms.build(name, spec, precision, SEED) for name in names}
        self.pairs = list(itertools.permutations(names, 2))
        controls = CONTROL in self.pairs
        work = len(names) * steps + (len(self.pairs) + controls) * (steps - before)
        self.bar = tqdm(
            total=work,
            desc=f"carried {spec.name} {precision}",
            unit="step",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )

    def run(self) -> Result:
        """Trains every paradigm alone, then carries every pair."""
        with self.bar:
            pairs, control = [], None
            for name in self.sides:
                run = self.alone(name)
                pairs += [self.carried(*pair, run) for pair in self.pairs if pair[0] == name]
                if CONTROL in self.pairs and name == CONTROL[0]:
                    control = self.without_moments(run)
        return {
            "model": self.spec.name,
            "precision": self.precision,
            "batch_size": self.spec.batching.batch_size,
            "before": self.before,
            "steps": self.steps,
            "pairs": pairs,
            "control": control,
        }

    def close(self) -> None:
        """Frees the sides."""
        for side in self.sides.values():
            side.close()

    def alone(self, name: str) -> Alone:
        """A paradigm's own run; its native checkpoint of halfway is in the folder of its name."""
        side = self.sides[name]
        side.load(initial_state(self.spec, SEED, self.precision))
        for step in range(self.before):
            side.step(self.batches[step])
            self.bar.update()
        (self.folder / name).mkdir()
        side.save(self.folder / name)
        run = Alone(side.state())
        for step in range(self.before, self.steps):
            run.reports.append(side.step(self.batches[step]))
            if self._looked_at(step + 1):
                run.states[step + 1] = side.state()
            self.bar.update()
        return run

    def _looked_at(self, made: int) -> bool:
        """Whether states are compared after so many steps."""
        return (made - self.before) % STRIDE == 0 or made == self.steps

    def carried(self, source: str, target: str, run: Alone) -> Result:
        """One pair: converted, compared, converted back, and trained to the end."""
        forth, back = self.folder / "forth", self.folder / "back"
        reference.convert_folder(self.folder / source, source, forth, target, self.spec, self.precision)
        made = reference.convert_folder(forth, target, back, source, self.spec, self.precision)
        side = self.sides[target]
        side.initialise(FRESH)
        side.restore(forth)
        taken = side.state()
        entries = reference.layout(source, self.spec, self.precision).contents.entries
        trip = returned(self.folder / source, back, {each.key for each in entries if each.role is not Role.OTHER})
        for folder in (forth, back):
            shutil.rmtree(folder)
        measurement = self.finished(source, target, run)
        return {
            "source": source,
            "target": target,
            "same_state": taken.digest() == run.halfway.digest(),
            "state": len(taken.arrays),
            "returned": dataclasses.asdict(trip),
            "powers": sum("multiplied up" in move.how for move in made.moves),
            "same_end": side.state().digest() == run.states[self.steps].digest(),
            "measurement": measurement.to_json(),
        }

    def without_moments(self, run: Alone) -> str:
        """CONTROL with every optimizer's slots at 0, as those have it who carry weights alone; the counts are right."""
        source, target = CONTROL
        slots = {f"optimizer/{name}/{slot}/" for name, numbers in self.spec.optimizers for slot in numbers.slots}
        arrays = {
            name: array * 0 if any(name.startswith(each) for each in slots) else array
            for name, array in run.halfway.arrays.items()
        }
        self.sides[target].load(State(self.spec.name, arrays))
        return self.finished(source, target, run).to_json()

    def finished(self, source: str, target: str, run: Alone) -> PairMeasurement:
        """The target's steps from where it stands to the end, against the source's own."""
        side, pair = self.sides[target], PairMeasurement(source, target)
        rung, allowed = pair.rung(RUNG), self.allowed.get((source, target), {})
        reach = Reach().seen(run.halfway.arrays)
        for step in range(self.before, self.steps):
            self._reports(rung, run.reports[step - self.before], side.step(self.batches[step]), step, allowed)
            if self._looked_at(step + 1):
                left = run.states[step + 1].arrays
                scales = cancelled.of_state(self.spec, left, step + 1 - self.before)
                scales = reach.seen(left).least(scales)
                rung.add_all(left, side.state().arrays, step, "step", allowed, "", None, scales)
            self.bar.update()
        return pair

    def _reports(
        self,
        rung: RungMeasurement,
        left: Mapping[str, float],
        right: Mapping[str, float],
        step: int,
        allowed: Tolerances,
    ) -> None:
        """What a step reported, on both sides."""
        for phase in self.spec.phases:
            for name in phase.reports:
                if name in left and name in right:
                    rung.add(name, left[name], right[name], step, phase.name, allowed, self.precision)
                else:
                    rung.lack(f"{name} is not reported on both sides")


@dataclass(frozen=True)
class Returned:
    """What came back from a round trip; texts are not looked at."""

    tensors: int
    differing: list[str]
    """Keys of the state that are not the same bytes."""
    own: list[str]
    """Keys that are no part of the state and have other bytes: what the other paradigm does not keep."""


def returned(before: Path, after: Path, state: Set[str]) -> Returned:
    """Compares two checkpoints of one layout.

    Args:
      before: what was saved.
      after: what came back.
      state: keys that hold a part of the state.
    """
    with PartsSource(before) as left, PartsSource(after) as right:
        keys = {key for each in (left, right) for key, stored in each.tensors.items() if stored.dtype != STRING}
        other = [
            key
            for key in sorted(keys)
            if left.tensors.get(key) != right.tensors.get(key) or not same_bytes(left.chunks(key), right.chunks(key))
        ]
        kept = {key for key in other if key not in state and left.tensors.get(key) == right.tensors.get(key)}
        return Returned(len(keys), [key for key in other if key not in kept], sorted(kept))


def serve(model: str, precision: str, single: str, answer: str) -> None:
    """One model in one precision, in this process; float64 is told where float32's result lies."""
    load_tensorflow()
    allowed: dict[tuple[str, str], Tolerances] = {}
    if single:
        for pair in json.loads(Path(single).read_text())["pairs"]:
            allowed[pair["source"], pair["target"]] = tolerances(PairMeasurement.from_json(pair["measurement"]))
    with tempfile.TemporaryDirectory(prefix="tfport-") as folder:
        carrier = Carrier(spec_of(model), precision, Path(folder), allowed)
        try:
            found = carrier.run()
        finally:
            carrier.close()
    Path(answer).write_text(json.dumps(found))


def one(model: str, precision: str) -> Result:
    """One model in one precision, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="tfport-") as folder:
        answer = Path(folder, "answer.json")
        single = str(_path(model, "float32")) if precision == "float64" else ""
        words = [sys.executable, "-m", "proof.carried", model, precision, single, str(answer)]
        if code := subprocess.run(words, env=child_environment(), check=False).returncode:
            raise RuntimeError(f"carrying {model} in {precision} ended with exit code {code}; see above")
        found: Result = json.loads(answer.read_text())
        return found


# --- Stages -----------------------------------------------------------------------------------------------------------
def _path(model: str, precision: str) -> Path:
    return FOLDER / f"carried-{model}-{precision}.json"


def _now(model: str) -> str:
    return f"{sources(model, (*LADDER, *_CHECKPOINTS))}-{BEFORE}-{STEPS}-{STRIDE}-{spec_of(model).batching.batch_size}"


def results(names: Sequence[str]) -> Iterator[dict[str, Result]]:
    """Runs what is missing of some models; after each, all results so far, with those of other models that stand."""
    found = {model: standing for model in models.MODELS if (standing := _standing(model))}
    for model in names:
        found[model] = {
            precision: stage(
                _path(model, precision).stem,
                _now(model),
                lambda model=model, precision=precision: one(model, precision),  # type: ignore[misc]
            )
            for precision in PRECISIONS
        }
        yield {name: found[name] for name in models.MODELS if name in found}


def _standing(model: str) -> Result | None:
    """Both precisions from disk; None where one is missing, or was made by other sources."""
    read: Result = {}
    for precision in PRECISIONS:
        path = _path(model, precision)
        if not path.exists():
            return None
        read[precision] = json.loads(path.read_text())
        if read[precision].get("sources") != _now(model):
            return None
    return read


# --- Text -------------------------------------------------------------------------------------------------------------
def judged(single: str, double: str) -> PairResult:
    """The verdict on the steps after a conversion, by the ladder's bounds."""
    float32, float64 = PairMeasurement.from_json(single), PairMeasurement.from_json(double)
    return judge(float32, float32, float64, RungResult("repeat", Verdict.IDENTICAL), (RUNG,))


@dataclass(frozen=True)
class Row:
    """One pair of one model."""

    model: str
    source: str
    target: str
    same_state: bool
    """Whether what was restored is what was saved, in both precisions."""
    tensors: int
    differing: tuple[str, ...]
    """What came back from the round trip as other bytes, in either precision."""
    own: int
    """Tensors beside the state that came back as other bytes."""
    powers: int
    """Beta powers that the round trip multiplied up again."""
    same_end: bool
    """Whether the last state is the same bits, in both precisions."""
    rung: RungResult

    @property
    def failures(self) -> list[str]:
        """What is not as it has to be."""
        name = f"{self.model}, {self.source} → {self.target}"
        found = []
        if not self.same_state:
            found.append(f"{name}: the state after the conversion is another")
        if self.differing:
            found.append(f"{name} and back: {len(self.differing)} tensors differ, first {self.differing[0]}")
        if self.rung.verdict not in PASSING:
            first = self.rung.first_divergence
            where = f" at step {first.step}, {first.tensor}" if first else ""
            found.append(f"{name} is {self.rung.verdict} after the conversion{where}")
        elif {self.source, self.target} == EXACT and (not self.same_end or self.rung.verdict != Verdict.IDENTICAL):
            found.append(f"{name} is not the same bits")
        return found


def rows_of(model: str, found: Result) -> list[Row]:
    """The pairs of a model."""
    rows = []
    for single, double in zip(found["float32"]["pairs"], found["float64"]["pairs"], strict=True):
        rows.append(
            Row(
                model,
                single["source"],
                single["target"],
                bool(single["same_state"] and double["same_state"]),
                single["returned"]["tensors"],
                tuple(
                    f"{key} ({precision})"
                    for precision, side in (("float32", single), ("float64", double))
                    for key in side["returned"]["differing"]
                ),
                len(single["returned"]["own"]),
                single["powers"],
                bool(single["same_end"] and double["same_end"]),
                judged(single["measurement"], double["measurement"]).rung(RUNG),
            )
        )
    return rows


def control(found: Result) -> RungResult | None:
    """The pair that left its moments behind."""
    if not found["float32"]["control"]:
        return None
    return judged(found["float32"]["control"], found["float64"]["control"]).rung(RUNG)


def failures(measured: Mapping[str, Result]) -> list[str]:
    """What is not proven."""
    said = [failure for model, found in measured.items() for row in rows_of(model, found) for failure in row.failures]
    for model, found in measured.items():
        left = control(found)
        if left is not None and left.verdict in PASSING:
            said.append(f"{model} without its moments is {left.verdict}, and has to show")
    return said


def text(measured: Mapping[str, Result]) -> str:
    """docs/carried.md."""
    missing = [model for model in models.MODELS if model not in measured]
    left_out = f"Not run: {', '.join(f'`{name}`' for name in missing)}.\n\n" if missing else ""
    summary, details = [], []
    for model, found in measured.items():
        rows = rows_of(model, found)
        summary.append(_summary(model, found, rows))
        details.append(f"### {model}\n\n{_table(rows)}")
    header = ["model", "batch", "state carried", "round trip", "identical", "rounding", "different"]
    header += ["largest difference", "largest shrink", "moments left behind"]
    return f"""# Checkpoints carried between paradigms

Written by `make prove`; this page alone: `{COMMAND}`, with names of models for some only. Nothing here is
typed in.

Each paradigm trains {STEPS} steps alone on the embedded digits, and its own checkpoint of step {BEFORE} is kept. For
every ordered pair its files are converted, the other paradigm's reader restores them over other weights, and that
paradigm makes the other {STEPS - BEFORE} steps on the same batches. All of it in float32 and again in float64.

- State carried: the state that was restored has the digest of the state that was saved.
- Round trip: converted back at once, every tensor is the same bytes as in the file that was saved: weights, statistics,
  moments, counts, rates. Beta powers, where the paradigm in between keeps none, are multiplied up again from the count.
  A slot on which nothing depends is no part of the state and begins anew: TensorFlow's RMSProp keeps its last update
  in a slot `momentum` where momentum is 0, too.
- Up to step {STEPS}: each step's reports, and the state after every {STRIDE} steps, against the run that never left.
  Between tf1_graph and gradient_tape the same bits are asked for. Elsewhere they are judged as on the ladder: float64
  may keep {SLACK:.0f} × 2⁻²⁹ of a float32 difference, with a floor of {FLOOR:.1e}. Figures are the largest difference
  as a share of the largest magnitude that its tensor has had, float32 → float64. Shrink is the float64 one over 2⁻²⁹
  of the float32 one, where the floor is passed.
- Moments left behind: {CONTROL[0]} → {CONTROL[1]} with the right weights and counts, and every slot at 0. That has to
  be different.

{left_out}{table(header, summary)}
{chr(10).join(details)}"""


def _summary(model: str, found: Result, rows: Sequence[Row]) -> list[str]:
    verdicts = [row.rung.verdict for row in rows]
    shrinks = [row.rung.shrink for row in rows if row.rung.shrink is not None]
    left = control(found)
    return [
        f"`{model}`",
        str(found["float32"]["batch_size"]),
        f"{sum(row.same_state for row in rows)} of {len(rows)}",
        f"{sum(not row.differing for row in rows)} of {len(rows)}",
        str(verdicts.count(Verdict.IDENTICAL)),
        str(verdicts.count(Verdict.ROUNDING)),
        str(sum(verdict not in PASSING for verdict in verdicts)),
        _distance(max(rows, key=lambda row: row.rung.float64_relative or 0.0).rung),
        f"{max(shrinks):.2g}" if shrinks else "–",
        f"{left.verdict} {_distance(left)}" if left else "–",
    ]


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        rounded = row.rung.verdict != Verdict.IDENTICAL
        back = f"{len(row.differing)} differ" if row.differing else "same bytes"
        back += f", {row.powers} beta powers multiplied up" if row.powers else ""
        back += f", but for {row.own} on which nothing depends" if row.own else ""
        lines.append(
            [
                f"{row.source} → {row.target}",
                "same bits" if row.same_state else "another state",
                f"{row.rung.verdict}{f' {_distance(row.rung)}' if rounded else ''}",
                "–" if row.rung.shrink is None else f"{row.rung.shrink:.2g}",
                f"{row.tensors} tensors, {back}",
            ]
        )
    return table(["pair", "after the conversion", f"up to step {STEPS}", "shrink", "round trip"], lines)


def _distance(rung: RungResult) -> str:
    return f"{figure(rung.float32_relative)} → {figure(rung.float64_relative)}"


def main(words: Sequence[str]) -> None:
    """`python -m proof.carried MODEL PRECISION SINGLE ANSWER`: see `serve`."""
    serve(*words)


if __name__ == "__main__":
    main(sys.argv[1:])
