"""A record stands in for the original: the report is the same, and a folder that is not what was written is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import check_sides
import fake_program as fake
from cases import counters, float32_only, gan, gradients, horizon, ignoring, places, starts
from cases.common import Case
from fake_program import FakeProgram, Plan
from tfport.checking import records
from tfport.checking.bounds import Sample
from tfport.checking.check import check
from tfport.checking.check import record as recorded_in
from tfport.checking.report import CheckReport
from tfport.errors import UserError
from tfport.report.check_terminal import print_check

STEPS = 4


def text_of(report: CheckReport) -> str:
    console = Console(width=10_000, force_terminal=False, color_system=None)
    with console.capture() as captured:
        print_check(report, console)
    return captured.get()


def comparable(report: CheckReport) -> Any:
    """All that a report says, but how long it took and that the original was a record; Keras counts its models."""
    notes = tuple(note for note in report.notes if "is the record" not in note)
    report = dataclasses.replace(report, notes=notes, seconds={}, command="")
    return re.sub(r"(?<=[a-z])_\d+", "", json.dumps(report.as_json())), re.sub(r"(?<=[a-z])_\d+", "", text_of(report))


# --- A record stands in for the original ------------------------------------------------------------------------------
def fake_pair(*modern: Any, legacy: Plan = check_sides.WHOLE, dtype: bool = True, **changes: Any) -> Any:
    """A legacy program and a modern one that differs by some changes of the plan, each in float64 too or not."""

    def build(plan: Plan) -> Callable[..., FakeProgram]:
        def single(seed: int = 0) -> FakeProgram:
            return FakeProgram(plan, seed=seed)

        def either(dtype: str = "float32", seed: int = 0) -> FakeProgram:
            return FakeProgram(plan, dtype, seed)

        return either if dtype else single

    return build(legacy), build(dataclasses.replace(legacy, **changes))


FAKES = {
    "equal": fake_pair(reordered=True, powers="pow"),
    "equal in float32": fake_pair(reordered=True, powers="pow", dtype=False),
    "rate in float32": fake_pair(rate_factor=1.01, dtype=False),
    "gradient": fake_pair(gradient_factor=0.5),
    "resumed": fake_pair(legacy=dataclasses.replace(Plan(), restarts="count"), restarts="python"),
    "restarting": fake_pair(legacy=dataclasses.replace(Plan(), restarts="python"), reordered=True, powers="pow"),
    "start": fake_pair(legacy=Plan(), bias=0.5),
}


@pytest.mark.usefixtures("no_frameworks")
@pytest.mark.parametrize("pair", FAKES)
def test_a_check_against_a_record_reports_what_one_against_the_original_does(pair: str, tmp_path: Path) -> None:
    legacy, modern = FAKES[pair]
    live = check(legacy, modern, fake.batches, steps=STEPS)
    recorded_in(tmp_path / "record", legacy, fake.batches, steps=STEPS)
    assert live.equal is pair.startswith("equal")
    assert comparable(check(tmp_path / "record", modern)) == comparable(live)


def chosen(cases: list[Case], *names: str) -> Iterator[Any]:
    for case in cases:
        if case.name in names:
            yield pytest.param(case, id=case.name)


CASES = [
    *chosen(starts.CASES, "table", "normal"),
    *chosen(counters.CASES, "stride"),
    *chosen(float32_only.CASES, "recurrent_factor"),
    *chosen(gan.CASES, "halved"),
    *chosen(gradients.CASES, "another norm"),
    *chosen(places.CASES, "padding"),
    *chosen(horizon.CASES, "staircase-forgotten"),
]


@pytest.mark.parametrize("case", CASES)
def test_frameworks_against_their_record(case: Case, tmp_path: Path) -> None:
    options = {"steps": 6, **case.options}
    live = check(case.legacy, case.modern, case.batches, **options)
    held = check(case.legacy, case.modern, case.batches, **options, record=tmp_path / "record")
    assert comparable(held) == comparable(live)


def test_where_the_record_tells_no_step_the_two_that_it_tells_are_named(tmp_path: Path) -> None:
    """A rate that decays differs at every value: the first one is sought between those that are recorded."""
    (case,) = (each for each in horizon.CASES if each.name == "warm-up-without-end")
    live = check(case.legacy, case.modern, case.batches, steps=6)
    held = check(case.legacy, case.modern, case.batches, steps=6, record=tmp_path / "record")
    assert live.pair is not None and held.pair is not None and live.location is not None and held.location is not None
    assert [(rung.rung, rung.verdict) for rung in held.pair.rungs] == [
        (rung.rung, rung.verdict) for rung in live.pair.rungs
    ]
    low, high = (
        int(each.replace(",", "")) for each in re.findall(r"between ([\d,]+) and ([\d,]+) on", held.location.text)[0]
    )
    assert low < live.location.step <= high == held.location.step
    assert f"agree up to step {low:,}." in " ".join(held.covers)


# --- What is asked of it ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "record"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfport.checking.factories.Floatx", nullcontext)
        recorded_in(folder, check_sides.legacy, check_sides.batches, steps=STEPS, seed=3)
    return folder


@pytest.mark.usefixtures("no_frameworks")
def test_fewer_steps_and_bounds_are_asked_of_a_record(record: Path) -> None:
    report = check(record, check_sides.modern, steps=2, sample="tensors:2")
    assert report.equal and report.steps == 2 and report.seed == 3
    assert report.legacy == "check_sides:legacy" and any(f"the record {record}" in note for note in report.notes)
    live = check(check_sides.legacy, check_sides.modern, check_sides.batches, steps=2, seed=3)
    assert check(record, check_sides.modern, check_sides.batches, steps=2).curves == live.curves
    few = check(record, check_sides.modern, sample=Sample(steps=2))
    assert few.equal and any("the states of 2 of 4 steps" in text for text in few.left_out)


@pytest.mark.usefixtures("no_frameworks")
@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"steps": 5}, r"--steps=5: the record .* holds 4 steps.*at most.*--steps=5"),
        ({"seed": 0}, r"--seed=0: .*made with --seed=3.*Leave --seed out"),
        ({"batches": check_sides.other_names}, r"batch 0 is not the one .*Leave --batches out"),
        ({"names": {"outputs": ["a"]}}, r"--outputs names a part of a TF1 graph, and .* is a record: leave it out"),
        ({"precision": "float64"}, r"--precision=float64 is not available"),
        ({"record": "another"}, r"--record=another: .* is a record already"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_what_a_record_does_not_hold_is_refused(record: Path, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check(record, check_sides.modern, **asked)


@pytest.mark.usefixtures("no_frameworks")
def test_a_record_replaces_a_record_and_nothing_else(record: Path, tmp_path: Path) -> None:
    shutil.copytree(record, tmp_path / "old")
    recorded_in(tmp_path / "old", check_sides.legacy, check_sides.batches, steps=2)
    assert records.read(tmp_path / "old").steps == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other things than a record"):
        recorded_in(tmp_path / "other", check_sides.legacy, check_sides.batches)
    with pytest.raises(UserError, match="NaN"):
        recorded_in(tmp_path / "old", check_sides.not_a_number, check_sides.batches)
    assert records.read(tmp_path / "old").steps == 2
    with pytest.raises(UserError, match="nothing to record"):
        recorded_in(tmp_path / "new", None)


# --- A folder that is not what was written ----------------------------------------------------------------------------
def manifest(folder: Path, **changes: Any) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**told, **changes}))


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes record.json, and its checksum with it."""
    tree = json.loads((folder / "record.json").read_text())
    change(tree)
    (folder / "record.json").write_text(json.dumps(tree))
    manifest(folder, **{"record.json": hashlib.sha256((folder / "record.json").read_bytes()).hexdigest()})


def with_place(**changes: Any) -> Callable[[Path], None]:
    def change(tree: dict[str, Any]) -> None:
        place = next(iter(tree["single"]["initial"].values()))
        for at, name in enumerate(("offset", "dtype", "shape", "digest")):
            place[at] = changes.get(name, place[at])

    return lambda folder: rewritten(folder, change)


def flipped(folder: Path) -> None:
    data = bytearray((folder / "arrays.bin").read_bytes())
    data[0] ^= 1
    (folder / "arrays.bin").write_bytes(data)


def cut(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), r"manifest\.json is missing.*Copy the folder"),
    "no record": (lambda folder: (folder / "record.json").unlink(), r"record\.json does not match its checksum"),
    "no arrays": (lambda folder: (folder / "arrays.bin").unlink(), r"arrays\.bin is missing"),
    "cut record": (cut("record.json"), r"record\.json does not match its checksum"),
    "cut arrays": (cut("arrays.bin"), r"arrays\.bin has [\d,]+ bytes and ends too early"),
    "flipped bit": (flipped, r"the array at byte 0 of arrays\.bin does not match its checksum"),
    "no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json cannot be read"),
    "other JSON": (lambda folder: (folder / "manifest.json").write_text("[]"), "is not that of a record"),
    "version": (lambda folder: manifest(folder, version=2), r"of version 2; this tfport reads version 1\. Use"),
    "lacking": (lambda folder: rewritten(folder, lambda tree: tree.pop("seed")), r"lacks 'seed'"),
    "more": (lambda folder: rewritten(folder, lambda tree: tree.update(more=1)), r"has 'more'"),
    "type": (lambda folder: rewritten(folder, lambda tree: tree.update(seed="1")), r"/seed is str, expected int"),
    "objects": (with_place(dtype="|O"), "is no array's place"),
    "no dtype": (with_place(dtype="<q9"), "is no array's place"),
    "negative": (with_place(offset=-8), "is no array's place"),
    "far": (with_place(offset=1 << 60), "ends too early"),
    "huge": (with_place(shape=[1 << 40, 1 << 40]), "ends too early"),
}


@pytest.mark.usefixtures("no_frameworks")
@pytest.mark.parametrize("harm", HARMS)
def test_a_folder_that_is_not_what_was_written_is_refused(harm: str, record: Path, tmp_path: Path) -> None:
    shutil.copytree(record, tmp_path / "record")
    harming, says = HARMS[harm]
    harming(tmp_path / "record")
    with pytest.raises(UserError, match=says) as refused:
        check(tmp_path / "record", check_sides.modern)
    assert str(tmp_path / "record") in str(refused.value) and "again" in str(refused.value)


def test_every_array_of_a_record_has_its_checksum(record: Path) -> None:
    original = records.read(record)
    assert np.array_equal(original.batches[0]["x"], check_sides.batches(0)["x"])
    assert all(place.digest for place in original.single.initial.places.values())


def test_what_takes_no_part_is_left_out_of_the_record(tmp_path: Path) -> None:
    legacy, modern = ignoring.graph(), ignoring.model
    held = check(legacy, modern, ignoring.batches, steps=2, ignore="loss/*,metrics/*", record=tmp_path / "without")
    assert held.equal and any("loss/ExponentialMovingAverage" in text for text in held.left_out)
    recorded_in(tmp_path / "with", legacy, ignoring.batches, steps=2)
    report = check(tmp_path / "with", modern)
    assert not report.equal and any("--ignore=loss/ExponentialMovingAverage leaves it out" in n for n in report.notes)
    with pytest.raises(UserError, match=r"--ignore=loss/\*: the record holds loss/E.*Record the original again"):
        check(tmp_path / "with", modern, ignore="loss/*")
    with pytest.raises(UserError, match=r"unknown variable in --ignore 'los'"):
        check(tmp_path / "without", modern, ignore="los")
