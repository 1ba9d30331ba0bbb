"""Help and refusals are quick: no framework is imported for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROBE = """
import atexit, json, sys
def tell():
    heavy = ("tensorflow", "keras", "tf_keras", "sklearn", "matplotlib")
    print("LOADED " + json.dumps([name for name in heavy if name in sys.modules]))
atexit.register(tell)
from tfport.cli import main
main(sys.argv[1:])
"""


def run(*words: str, cwd: Path) -> tuple[int, str, str, list[str]]:
    """Exit code, output, errors, and the heavy modules that were loaded."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared")])}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    out, _, loaded = done.stdout.rpartition("LOADED ")
    return done.returncode, out, done.stderr, json.loads(loaded)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--help",), ["Usage: tfport VERB", "train", "compare", "Exit codes"]),
        (("help",), ["Usage: tfport VERB"]),
        (("--version",), ["tfport "]),
        (("train", "--help"), ["--paradigm", "--resume", "--checkpoint_every", "--learning_rate", "Example:"]),
        (("train", "-h"), ["--paradigm"]),
        (("train", "--helpshort"), ["--paradigm"]),
        (("train", "--helpfull"), ["--paradigm", "--flagfile"]),
        (("compare", "--help"), ["--paradigms", "--html", "--json", "Exit codes"]),
    ],
    ids=" ".join,
)
def test_help_is_printed_without_a_framework(words: tuple[str, ...], expected: list[str], tmp_path: Path) -> None:
    code, out, err, loaded = run(*words, cwd=tmp_path)
    assert (code, err, loaded) == (0, "", [])
    for each in expected:
        assert each in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ("trian",),
        ("train", "--model=vanila_gan"),
        ("train", "--learning_rate=nan"),
        ("train", "--resume", "--run_dir=nowhere"),
        ("train", "--unknown"),
        ("compare", "--unknown"),
    ],
    ids=" ".join,
)
def test_a_refusal_needs_no_framework(words: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err, loaded = run(*words, cwd=tmp_path)
    assert (code, out, loaded) == (2, "", [])
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_flag_of_train_is_documented_once(tmp_path: Path) -> None:
    _, out, _, _ = run("train", "--help", cwd=tmp_path)
    for name in ("model", "paradigm", "dataset", "data_dir", "steps", "epochs", "batch_size", "seed", "run_dir"):
        assert out.count(f"--{name}:") == 1, name
