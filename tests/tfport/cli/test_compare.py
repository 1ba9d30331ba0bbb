"""tfport compare --model=all: a page a model, a table that leads to them, and an exit code that speaks for all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfport import models

PROGRAM = """
import sys
import numpy as np
from tfport.equivalence import compare as module
from tfport.equivalence.result import RUNGS, PairResult, Report, RungResult, Verdict

def fake(request, command=""):
    failing = request.model == sys.argv[1]
    pairs = []
    for name in request.paradigms[1:]:
        verdict = Verdict.DIFFERENT if failing and name == "keras2" else Verdict.IDENTICAL
        found = {rung: verdict if rung == "update" else Verdict.IDENTICAL for rung in RUNGS}
        rungs = tuple(RungResult(rung, each, compared=1) for rung, each in found.items())
        pairs.append(PairResult(request.paradigms[0], name, verdict, rungs, "update" if failing else None))
    report = Report(request.model, "float32", request.steps, 0, "digits", 1, tuple(pairs), command=command)
    return report, {}

module.compare = fake
from tfport.cli import main
main(sys.argv[2:])
"""


def compare(failing: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, failing, "compare", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_all_models_get_a_page_and_a_row(tmp_path: Path) -> None:
    done = compare("", "--model=all", "--html=matrix.html", "--json=matrix.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "matrix.html").read_text()
    links = set(re.findall(r'href="(matrix-models/[\w.]+)#pair-\d"', page))
    assert links == {f"matrix-models/{model}.html" for model in models.MODELS}
    assert all((tmp_path / link).exists() for link in links)
    found = json.loads((tmp_path / "matrix.json").read_text())
    assert {each["model"]: each["steps"] for each in found["reports"]} == {
        model: 20 if model == "dcgan" else 200 for model in models.MODELS
    }
    command = "tfport compare --html=matrix.html --json=matrix.json --model=batchnorm_gan"
    assert found["reports"][1]["command"] == command, "what repeats this model's page"
    assert f"All {3 * len(models.MODELS)} ports of {len(models.MODELS)} models" in re.sub(r"\s+", " ", done.stdout)


def test_one_failing_model_fails_the_whole(tmp_path: Path) -> None:
    done = compare("vae", "--model=all", "--steps=3", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 36 ports fail: vae in keras2" in re.sub(r"\s+", " ", done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model=all", "--run_dirs=a,b"), "--run_dirs are runs of one model"),
        (("--model=all", "--steps=0"), "--steps=0 is out of range"),
        (("--model=all", "--paradigms=tf1_graph"), "names fewer than two"),
        (("--model=al",), "unknown model 'al'"),
        (("--model=all", "--html=none/a.html"), "the folder none does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_message(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = compare("", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
