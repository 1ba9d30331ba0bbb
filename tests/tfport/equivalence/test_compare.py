"""Whole comparisons of the correct ports, and the command's exit codes and files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfport.equivalence.compare import Request, compare, repeat_rung
from tfport.equivalence.result import RUNGS, PairResult, Report, Verdict
from tfport.errors import UserError
from tfport.remote import child_environment

ALL = ("tf1_graph", "gradient_tape", "keras2", "keras3")
NUMERICAL = RUNGS[3:]


@pytest.fixture(scope="module")
def report() -> Report:
    return compare(Request("vanilla_gan", ALL, steps=12))[0]


def pair(report: Report, modern: str) -> PairResult:
    return next(each for each in report.pairs if each.modern == modern)


@pytest.mark.parametrize("rung", NUMERICAL)
def test_gradient_tape_is_tf1_bit_for_bit(report: Report, rung: str) -> None:
    found = pair(report, "gradient_tape").rung(rung)
    assert (found.verdict, found.max_abs, found.max_ulp) == (Verdict.IDENTICAL, 0.0, 0)
    assert found.compared > 0
    assert found.first_divergence is None


@pytest.mark.parametrize("modern", ["keras2", "keras3"])
def test_keras_is_tf1_up_to_rounding(report: Report, modern: str) -> None:
    found = pair(report, modern)
    assert found.verdict is Verdict.ROUNDING
    assert found.located is None
    for rung in ("gradient", "update", "forced_trajectory", "free_trajectory"):
        result = found.rung(rung)
        assert result.verdict is Verdict.ROUNDING
        assert result.float32_relative is not None
        assert result.float64_relative is not None
        assert result.float64_relative < 1e-10 < result.float32_relative
        assert result.first_divergence is not None


def test_rungs_that_concern_facts(report: Report) -> None:
    for found in report.pairs:
        assert [rung.rung for rung in found.rungs] == list(RUNGS)
        assert found.rung("repeat").verdict is Verdict.IDENTICAL
        assert found.rung("structure").verdict is Verdict.IDENTICAL
        assert found.rung("initialisation").verdict is Verdict.SAME_DISTRIBUTION
        assert all(set(mover.legacy) == set(mover.modern) and mover.legacy for mover in found.movers)
        assert len(found.loss_checks) == 8
        assert all(check.agrees for check in found.loss_checks)


def test_json_has_what_readers_rely_on(report: Report) -> None:
    tree = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert (tree["schema"], tree["model"]) == (1, "vanilla_gan")
    assert [each["modern"] for each in tree["pairs"]] == list(ALL[1:])
    for each in tree["pairs"]:
        assert each["legacy"] == "tf1_graph"
        assert [rung["rung"] for rung in each["rungs"]] == list(RUNGS)
        assert {"verdict", "max_abs", "max_ulp", "first_divergence"} <= each["rungs"][4].keys()


def test_curves_have_one_value_a_step(report: Report) -> None:
    assert {len(values) for curve in report.curves.values() for values in curve.values()} == {12}
    assert report.curves["tf1_graph"] == report.curves["gradient_tape"]


def test_half_steps_and_moving_statistics_are_tf1s_bit_for_bit() -> None:
    found, samples = compare(Request("batchnorm_gan", ("tf1_graph", "gradient_tape"), steps=3, batch_size=16))
    (only,) = found.pairs
    assert only.verdict is Verdict.IDENTICAL
    assert [only.rung(rung).max_abs for rung in NUMERICAL] == [0.0] * len(NUMERICAL)
    assert (found.loss_unit, found.batch_size) == ("nats", 16)
    assert list(found.curves) == ["tf1_graph", "gradient_tape"]
    assert all(list(curve) == ["loss_D_real", "loss_D_fake", "loss_G"] for curve in found.curves.values())
    moved = {mover.phase: {name.split("/")[-1] for name in mover.legacy} for mover in only.movers}
    assert moved["discriminator_real"] == moved["discriminator_fake"] == {"kernel", "bias"}
    assert moved["generator"] == {"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"}
    assert len(only.loss_checks) == 5 * 2 * 2
    assert all(check.agrees for check in only.loss_checks)
    assert samples["tf1_graph"].tobytes() == samples["gradient_tape"].tobytes()
    assert samples["tf1_graph"].shape == (10, 784)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paradigms": ("tf1_graph",)}, "fewer than two"),
        ({"paradigms": ("tf1_graph", "tf1_graph")}, "tf1_graph twice"),
        ({"paradigms": ("tf1_graph", "keras4")}, "unknown paradigm 'keras4'. Did you mean keras3"),
        ({"model": "vanilla_gam"}, "unknown model 'vanilla_gam'. Did you mean vanilla_gan"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"steps": 0}, "--steps=0 is out of range"),
        ({"batch_size": 0}, "--batch_size=0 is out of range"),
        ({"seed": -1}, "--seed=-1 is out of range"),
    ],
)
def test_a_request_that_cannot_be_served(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {"model": "vanilla_gan", "paradigms": ("tf1_graph", "gradient_tape"), **change}
    with pytest.raises(UserError, match=message):
        Request(**fields).check()  # type: ignore[arg-type]


def test_repeat_finds_a_side_that_does_not_repeat_itself() -> None:
    from subjects import SPEC, batches

    rung = repeat_rung(Request("vanilla_gan", ("broken_ports:unseeded", "tf1_graph"), steps=2), SPEC, batches())
    assert rung.verdict is Verdict.DIFFERENT
    assert rung.first_divergence is not None
    assert rung.first_divergence.tensor in ("loss_D", "loss_G")  # in float32 the first may happen to agree


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tfport.cli import main; main()", "compare", *words]
    return subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)


def test_float64_asked_for_and_files_written(tmp_path: Path) -> None:
    files = [f"--json={tmp_path / 'report.json'}", f"--html={tmp_path / 'report.html'}"]
    finished = run("--paradigms=tf1_graph,keras3", "--precision=float64", "--steps=3", *files)
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    tree = json.loads((tmp_path / "report.json").read_text())
    (only,) = tree["pairs"]
    assert (tree["precision"], only["verdict"]) == ("float64", "rounding")
    assert only["rungs"][8]["max_abs"] < 1e-12
    page = (tmp_path / "report.html").read_text()
    assert "tf1_graph" in page
    assert "data:image/png;base64," in page


def test_a_different_port_exits_with_1_and_names_the_place() -> None:
    finished = run("--paradigms=tf1_graph,broken_ports:half_reported", "--steps=2")
    assert finished.returncode == 1, finished.stderr
    assert "rung 4 loss, step 0, phase discriminator" in " ".join(finished.stdout.split())
    assert "Traceback" not in finished.stderr


def test_a_factory_that_raises_is_named(tmp_path: Path) -> None:
    finished = run("--paradigms=tf1_graph,broken_ports:raising", f"--json={tmp_path / 'report.json'}", "--steps=2")
    assert finished.returncode == 2
    assert "the factory broken_ports:raising raised ZeroDivisionError" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json=same", "--html=same"], "--json and --html both name .*same"),
        (["--json=/proc/report.json"], "cannot write /proc/report.json"),
        (["--html=nowhere/report.html"], "the folder .*nowhere does not exist"),
        (["--html=."], "names no file"),
        (["--run_dirs=a,b"], "names 2 runs for 4 paradigms"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_the_work(words: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tfport.cli import main; main()", "compare", *words]
    finished = subprocess.run(
        command, capture_output=True, text=True, env=child_environment(), check=False, cwd=tmp_path, timeout=60
    )
    assert finished.returncode == 2
    assert re.search(message, finished.stderr)
    assert "Traceback" not in finished.stderr
    assert "compare float" not in finished.stderr
    assert not list(tmp_path.iterdir())
