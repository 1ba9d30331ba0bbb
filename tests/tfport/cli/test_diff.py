"""tfport diff: verdicts, exit codes, flags and words in any order, and what a terminal shows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_sides import ADAM, FakeSource, gan_arrays
from tfport.remote import child_environment

PROBE = """
import atexit, sys
def tell():
    print("LOADED", *(name for name in ("tensorflow", "keras", "tf_keras", "rich") if name in sys.modules))
atexit.register(tell)
from tfport.cli import main
main(sys.argv[1:])
"""


def run(*words: str, cwd: Path) -> tuple[int, str, str, list[str]]:
    """Exit code, output, errors, and the heavy modules that were loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        cwd=cwd,
        env={**child_environment(), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    out, _, loaded = done.stdout.rpartition("LOADED")
    return done.returncode, out, done.stderr, loaded.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.npz, the same again as same.npz, and other.npz, one value of which is one ulp away."""
    arrays: dict[str, Any] = gan_arrays()
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez(tmp_path / "same.npz", **dict(reversed(arrays.items())))
    arrays["generator/hidden/bias"][3] = np.nextafter(arrays["generator/hidden/bias"][3], np.float32(9))
    np.savez(tmp_path / "other.npz", **arrays)
    return tmp_path


def test_help_needs_no_framework(tmp_path: Path) -> None:
    code, out, err, loaded = run("diff", "--help", cwd=tmp_path)
    assert (code, err, loaded) == (0, "", [])
    for each in ("--json", "--only", "--tolerance_ulp", "--[no]ignore_optimizers", "Examples:", "Exit codes"):
        assert each in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "A and B are missing: expected tfport diff A B, and flags (see tfport diff --help)."),
        (("a.npz", "--json=-"), "B is missing: expected tfport diff A B"),
        (("a.npz", "b.npz", "c.npz"), "'c.npz' is one word too many: expected tfport diff A B"),
        (("a.npz", "b.npz"), "a.npz does not exist: "),
        (("a", "b", "--tolerance_ulp=-1"), "--tolerance_ulp=-1 is out of range: expected a whole number from 0"),
        (("a", "b", "--colour"), "Unknown command line flag 'colour'"),
        (("a", "b", "--json=."), "--json=. names no file; expected the name of a file to write."),
    ],
)
def test_bad_input_is_one_message(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, out, err, loaded = run("diff", *words, cwd=tmp_path)
    assert (code, out, loaded) == (2, "", [])
    assert err.count("\n") == 1
    assert err.startswith(f"tfport diff: {message}")
    assert not list(tmp_path.iterdir())


def test_the_same_is_zero_and_different_is_one(folder: Path) -> None:
    code, out, err, loaded = run("diff", "a.npz", "same.npz", cwd=folder)
    assert (code, err, loaded) == (0, "", ["rich"])
    assert out.startswith("THE SAME: 8 of 8 tensors identical.\n")
    code, out, err, _ = run("diff", "a.npz", "other.npz", cwd=folder)
    assert (code, err) == (1, "")
    headline = "DIFFERENT: 1 of 8 common tensors differs; the worst is generator/hidden/bias (1 ulp)."
    assert " ".join(out.split()).startswith(headline)
    assert max(map(len, out.splitlines())) <= 80
    assert "Identical: 7 tensors, 121 parameters." in out


@pytest.mark.parametrize(
    "words",
    [
        ("a.npz", "other.npz", "--tolerance_ulp=1"),
        ("--tolerance_ulp=1", "a.npz", "other.npz"),
        ("a.npz", "--tolerance_ulp", "1", "other.npz"),
        ("--tolerance_ulp=1", "--", "a.npz", "other.npz"),
    ],
    ids=" ".join,
)
def test_flags_and_words_come_in_any_order(words: tuple[str, ...], folder: Path) -> None:
    code, out, err, _ = run("diff", *words, cwd=folder)
    assert (code, err) == (0, "")
    assert out.startswith("THE SAME: 7 of 8 tensors identical, 1 differs in a way that does not count.\n")
    assert "Differ in a way that does not count (tolerance 1 ulp)\n" in out


def test_only_some_names_and_no_optimizers(folder: Path) -> None:
    code, out, _, _ = run("diff", "a.npz", "other.npz", "--only=*/kernel", "--only=*/moving*", cwd=folder)
    assert code == 0 and "Looked at: names that fit */kernel or */moving*.\n" in out
    code, out, _, _ = run("diff", "a.npz", "other.npz", "--ignore_optimizers", cwd=folder)
    assert code == 1 and out.startswith("DIFFERENT: 1 of 3 common tensors") and "Looked at: no optimizers.\n" in out
    code, out, err, _ = run("diff", "a.npz", "other.npz", "--only=kernels", cwd=folder)
    assert (code, out) == (2, "") and err.startswith("tfport diff: the pattern 'kernels' fits no name of either")


def test_json(folder: Path) -> None:
    code, out, err, loaded = run("diff", "a.npz", "other.npz", "--json=-", cwd=folder)
    assert (code, err, loaded) == (1, "", [])
    tree = json.loads(out)
    assert (tree["schema"], tree["same"], len(tree["tensors"])) == (1, False, 8)
    assert tree["tensors"][0]["ulp"]["index"] == [3]
    code, out, _, _ = run("diff", "a.npz", "same.npz", "--json=found.json", cwd=folder)
    assert code == 0 and out.endswith("JSON: found.json\n")
    assert json.loads((folder / "found.json").read_text())["same"]


def printed(width: int) -> list[str]:
    """The lines of a difference that has every section."""
    from rich.console import Console

    from tfport.checkpoints.differing import Options, diff
    from tfport.report.checkpoint_tables import print_difference

    left: dict[str, Any] = gan_arrays()
    right: dict[str, Any] = gan_arrays()
    left |= {"a/kernel": np.ones(3), "save_counter": np.array(2), "half": np.arange(6, dtype=np.float16)}
    right |= {"b/kernel": np.ones(3), "half": np.arange(6, dtype=np.float32) + np.float32(0.1), "\x1b[2J": np.ones(1)}
    right["generator/hidden/kernel"] = right["generator/hidden/kernel"].reshape(5, 7)
    right["generator/norm/moving_variance"][2] = np.nan
    right["generator/norm/moving_variance"][3] = 9.0
    right["generator/hidden/bias"] = np.nextafter(right["generator/hidden/bias"], np.float32(9))
    buffer = io.StringIO()
    one, other = FakeSource(left, optimizers=[ADAM]), FakeSource(right, optimizers=[ADAM])
    print_difference(diff(one, other, Options(tolerance_ulp=1)), Console(file=buffer, width=width))
    return buffer.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_print_is_as_wide_as_the_terminal_and_leaves_nothing_out(width: int) -> None:
    lines = printed(width)
    assert max(map(len, lines)) <= width
    flat = " ".join(" ".join(lines).split())
    for text in (
        "DIFFERENT: 3 of 9 common tensors differ, 3 tensors on one side only; the worst is",
        "shape [7, 5] in A, [5, 7] in B",
        "1 NaN on one side only, the first at [2]: A ",
        "[6], float16 in A, float32 in B: 6 of 6 values differ",
        "Differ in a way that does not count (tolerance 1 ulp)",
        "Only in A, which does not count",
        "Only in B",
        "Identical: 5 tensors, 81 parameters.",
        "with 'b/' in front for 'a/'",
    ):
        assert text in flat, text
    assert not any("\x1b" in line for line in lines) and "\\x1b[2J" in flat
