"""tfport inspect: the table of a built model, and refusals that need no framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_help_needs_no_framework(tmp_path: Path) -> None:
    code, out, err, loaded = run("inspect", "--help", cwd=tmp_path)
    assert (code, err, loaded) == (0, "", [])
    for each in ("--model", "--paradigm", "--json", "Example:", "Exit codes"):
        assert each in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model=batchnorm_gna",), "unknown model 'batchnorm_gna'. Did you mean batchnorm_gan"),
        (("--paradigm=keras_3",), "unknown paradigm 'keras_3'. Did you mean keras3"),
        (("runs/vanilla_gan",), "'runs/vanilla_gan' is not a flag; flags are written --name=value (see tfport inspect"),
        (("--steps=3",), "Unknown command line flag 'steps'"),
        (("--json=.",), "--json=. names no file; expected the name of a file to write."),
        (
            ("--json=nowhere/table.json",),
            "--json=nowhere/table.json: the folder nowhere does not exist; make it first.",
        ),
    ],
)
def test_bad_input_is_one_message(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, out, err, loaded = run("inspect", *words, cwd=tmp_path)
    assert (code, out, loaded) == (2, "", [])
    assert err.count("\n") == 1
    assert err.startswith(f"tfport inspect: {message}")
    assert not list(tmp_path.iterdir())


def test_the_table_is_printed_and_written(tmp_path: Path) -> None:
    code, out, err, _ = run(
        "inspect", "--model=batchnorm_gan", "--paradigm=tf1_graph", "--json=table.json", cwd=tmp_path
    )
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ") and line.strip()}
    assert rows["norm3"] == ["norm3", "BatchNorm", "[B,", "512]", "2,048", "1,024", "1,024"]
    written = json.loads((tmp_path / "table.json").read_text())
    assert (written["schema"], written["model"], written["paradigm"]) == (1, "batchnorm_gan", "tf1_graph")
    assert (written["parameters"], written["trainable"], written["non_trainable"]) == (848_913, 847_121, 1_792)
    generator = written["networks"][0]
    assert [layer["parameters"] for layer in generator["layers"]] == [
        12_928,
        512,
        33_024,
        1_024,
        131_584,
        2_048,
        402_192,
    ]
    assert generator["layers"][0] == {
        "name": "hidden1",
        "kind": "Dense",
        "output_shape": [128],
        "parameters": 12_928,
        "trainable": 12_928,
        "non_trainable": 0,
    }
    assert written["trained"][1] == {
        "optimizer": "generator",
        "parameters": 581_520,
        "places": ["generator"],
        "frozen_discriminator": True,
    }


def test_a_factory_can_be_inspected(tmp_path: Path) -> None:
    code, out, err, _ = run("inspect", "--paradigm=fakes:plain", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("vanilla_gan in fake\n")
