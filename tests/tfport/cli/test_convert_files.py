"""tfport convert on checkpoints of one's own: exit codes, what is printed, what is written and what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfport.remote import child_environment

W = np.arange(6, dtype="float32").reshape(2, 3)
PROBE = """
import atexit, sys
atexit.register(lambda: print("LOADED", *(name for name in ("tensorflow", "keras", "torch") if name in sys.modules)))
from tfport.cli import main
main(["convert", *sys.argv[1:]])
"""


def run(*words: str, cwd: Path) -> tuple[int, str, str]:
    """Exit code, output and errors; no framework may have been loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words], cwd=cwd, env=child_environment(), capture_output=True, text=True
    )
    out, _, loaded = done.stdout.rpartition("LOADED")
    assert loaded.split() == []
    assert "Traceback" not in done.stderr
    return done.returncode, out, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    slots = {f"optimizer/adam/{slot}/hidden/kernel": W + place for place, slot in enumerate("mv", 1)}
    counted = {**slots, "optimizer/adam/iterations": np.int64(12)}
    np.savez(tmp_path / "old.npz", allow_pickle=False, **{"hidden/kernel": W, **counted})  # type: ignore[arg-type]
    np.savez(tmp_path / "like.npz", allow_pickle=False, **{"net/first": W * 0})  # type: ignore[arg-type]
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_it_says_what_it_carries_and_what_stays_behind(folder: Path) -> None:
    code, out, _ = run("old.npz", "new.h5", "--verify", "--json=plan.json", cwd=folder)
    assert code == 0
    assert "To: Keras 2 HDF5 file, weights or whole model, 1 tensors, 24 bytes\n       1 copied\n" in out
    assert "2 the target has no optimizer; training cannot go on from it as it would have: optimizer/adam/m" in out
    assert "Read back and compared: every tensor is the same bits.\nWritten: new.h5\n" in out
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["schema"] == 1
    assert plan["source"]["format"] == "npz"
    assert [each["name"] for each in plan["left_out"]] == [
        "optimizer/adam/m/hidden/kernel",
        "optimizer/adam/v/hidden/kernel",
        "optimizer/adam/iterations",
    ]


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    before = names(folder)
    code, out, _ = run("old.npz", "new.safetensors", "--dry_run", cwd=folder)
    assert code == 0
    assert out.endswith("Nothing was written (--dry_run).\n")
    assert names(folder) == before


def test_nothing_is_overwritten_without_force(folder: Path) -> None:
    (folder / "new.npz").write_text("mine")
    code, _, errors = run("old.npz", "new.npz", cwd=folder)
    assert (code, (folder / "new.npz").read_text()) == (2, "mine")
    assert errors == "tfport convert: new.npz is there already; give another name, or --force to replace it.\n"
    assert run("old.npz", "new.npz", "--force", cwd=folder)[0] == 0
    assert (folder / "new.npz").read_bytes()[:2] == b"PK"


def test_betas_make_tf1s_powers(folder: Path) -> None:
    code, _, errors = run("old.npz", "new.ckpt", cwd=folder)
    assert code == 2
    assert "beta_1_power" in errors and "--beta_1=NUMBER --beta_2=NUMBER" in errors
    assert run("old.npz", "new.ckpt", "--beta_1=0.9", "--beta_2=0.999", cwd=folder)[0] == 0
    assert {"new.ckpt.index", "new.ckpt.data-00000-of-00001"} <= set(names(folder))


def test_a_mapping_is_drafted_and_taken(folder: Path) -> None:
    code, _, errors = run("old.npz", "new.npz", "--like=like.npz", cwd=folder)
    assert code == 2
    assert "nothing is known to fill net/first (2x3): give a --mapping" in errors
    assert "hidden/kernel would be lost" in errors
    code, out, _ = run("old.npz", "new.npz", "--like=like.npz", "--write_mapping=map.json", cwd=folder)
    assert (code, out) == (0, "Mapping: map.json, 1 pairs of it guessed by shape and order: look at them.\n")
    assert "new.npz" not in names(folder)
    assert run("old.npz", "new.npz", "--like=like.npz", "--mapping=map.json", cwd=folder)[0] == 0
    with np.load(folder / "new.npz") as found:
        np.testing.assert_array_equal(found["net/first"], W)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["old.npz"], "TO is missing: expected tfport convert FROM TO"),
        (["old.npz", "a", "b"], "'b' is one word too many"),
        (["nothing.npz", "new.npz"], "nothing.npz does not exist"),
        (["old.npz", "new"], "does not tell which format to write"),
        (["old.npz", "new", "--to=kears3"], "unknown format 'kears3'. Did you mean keras3"),
        (["old.npz", "new.keras"], "--like=FILE"),
        (["old.npz", "new.npz", "--like=nothing"], "nothing does not exist"),
        (["old.npz", "new.npz", "--mapping=nothing"], "--mapping=nothing: there is no such file"),
        (["old.npz", "new.npz", "--iterations=-1"], "--iterations=-1 is out of range"),
        (["old.npz", "new.npz", "--beta_1=1"], "--beta_1=1.0 is out of range"),
        (["old.npz", "new.npz", "--learning_rate=0"], "--learning_rate=0.0 is out of range"),
        (["old.npz", "new.npz", "--model=vanilla_gan"], "--model goes with --paradigm"),
        (["old.npz", "new.npz", "--write_mapping=m.json"], "--write_mapping needs --like"),
        (["old.npz", "new.npz", "--json=no/plan.json"], "the folder no does not exist"),
        (["old.npz", "old.npz", "--force"], "written over while it is read"),
        (["old.npz", "new.npz", "--nonsense"], "Unknown command line flag 'nonsense'"),
    ],
)
def test_wrong_input_is_one_clear_line(folder: Path, words: list[str], message: str) -> None:
    before = names(folder)
    code, out, errors = run(*words, cwd=folder)
    assert code == 2
    assert message in errors
    assert out == ""
    assert names(folder) == before
