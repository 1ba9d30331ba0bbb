"""tfport inspect: a checkpoint of any format, the table of a built model, and refusals that need no framework."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_sides import ADAM, FakeSource, entry, gan_arrays
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
    for each in ("--model", "--paradigm", "--json", "--[no]values", "Examples:", "Exit codes"):
        assert each in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model=batchnorm_gna",), "unknown model 'batchnorm_gna'. Did you mean batchnorm_gan"),
        (("--paradigm=keras_3",), "unknown paradigm 'keras_3'. Did you mean keras3"),
        (("runs/vanilla_gan",), "runs/vanilla_gan does not exist: expected a checkpoint's file, its folder, or a "),
        (("a.npz", "b.npz"), "'b.npz' is one word too many: expected tfport inspect [PATH], and flags (see tfport "),
        (("a.npz", "--model=vae"), "a.npz is a checkpoint to show, and --model tells of a model to build: give PATH "),
        (("--paradigm=keras3", "a.npz"), "a.npz is a checkpoint to show, and --paradigm tells of a model to build: "),
        (("--values",), "--values is about a checkpoint: give its path (tfport inspect PATH --values)."),
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


# --- Checkpoints ------------------------------------------------------------------------------------------------------
@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A numpy archive with what may be odd about one."""
    arrays: dict[str, Any] = gan_arrays()
    arrays["generator/out/bias"] = np.zeros(3, np.float32)
    arrays["generator/hidden/kernel"][2, 1] = np.nan
    np.savez(tmp_path / "gan.npz", **arrays)
    return tmp_path / "gan.npz"


def test_a_checkpoint_is_shown_without_a_framework(checkpoint: Path) -> None:
    code, out, err, loaded = run("inspect", "gan.npz", cwd=checkpoint.parent)
    assert (code, err, loaded) == (0, "", ["rich"])
    assert max(map(len, out.splitlines())) <= 80
    rows = [line.split() for line in out.splitlines()]
    assert ["generator/hidden/kernel", "[7,", "5]", "float32", "35", "140", "B"] in rows
    assert ["all", "9", "129", "520", "B"] in rows
    for text in (
        "numpy archive",
        "Weights",
        "Moving statistics",
        "Optimizer gan: ",
        "200 updates",
        "trains 2 variable",
    ):
        assert text in out
    assert "Odd" not in out and "Values" not in out


def test_values_and_what_is_odd_about_them(checkpoint: Path) -> None:
    code, out, err, _ = run("inspect", "--values", "gan.npz", "--json=gan.json", cwd=checkpoint.parent)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "- generator/hidden/kernel holds 1 NaN of 35 values.\n" in out
    assert out.index("Odd\n") < out.index("holds 1 NaN") < out.index("Usual, and good to know\n")
    assert "- generator/out/bias is a bias and all zero.\n" in out
    assert out.endswith("JSON: gan.json\n")
    written = json.loads((checkpoint.parent / "gan.json").read_text())
    assert (written["schema"], written["kind"], written["format"]) == (1, "checkpoint", "npz")
    kernel = written["tensors"][0]["statistics"]
    assert (kernel["elements"], kernel["nan"], kernel["infinite"]) == (35, 1, 0)
    assert [each["kind"] for each in written["odd"]] == ["nan", "zero"]


def test_json_on_standard_output_is_alone_there(checkpoint: Path) -> None:
    code, out, err, loaded = run("inspect", "gan.npz", "--json=-", cwd=checkpoint.parent)
    assert (code, err, loaded) == (0, "", [])
    assert json.loads(out)["total"] == {"tensors": 9, "parameters": 129, "bytes": 520}
    assert not (checkpoint.parent / "-").exists()


def test_a_damaged_file_is_one_message(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    code, out, err, _ = run("inspect", "gan.npz", cwd=checkpoint.parent)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("tfport inspect: gan.npz ")


def printed(width: int, values: bool = True) -> list[str]:
    """The lines of a checkpoint with long names, keys of its own, and everything that has a section."""
    from rich.console import Console

    from tfport.checkpoints.contents import Contents
    from tfport.checkpoints.inspecting import inspect
    from tfport.report.checkpoint_tables import print_inspection

    arrays: dict[str, Any] = {
        **gan_arrays(),
        "a/scope/of/many/parts/that/is/longer/than/a/line/has/room/for/convolution_3/kernel": np.ones((5, 5, 128, 256)),
        "average/generator/hidden/bias": np.ones(5),
        "optimizer/gan/beta_1_power": np.float32(0.3),
        "save_counter": np.array(3),
        "\x1b[2Jhidden\nname": np.ones(3),
        "_CHECKPOINTABLE_OBJECT_GRAPH": b"graph",
    }
    contents = Contents(tuple(entry(f"file/{name}", name) for name in arrays), (ADAM,), ("Roles were told by name.",))
    source = FakeSource({f"file/{name}": each for name, each in arrays.items()}, contents, "tf1-v2")
    buffer = io.StringIO()
    print_inspection(inspect(source, values), Console(file=buffer, width=width))
    return buffer.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_print_is_as_wide_as_the_terminal_and_leaves_nothing_out(width: int) -> None:
    lines = printed(width)
    assert max(map(len, lines)) <= width
    flat = "".join("".join(lines).split())
    for name in (*gan_arrays(), "for/convolution_3/kernel", "_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter"):
        assert name in flat
    for text in (
        "learning_rate0.0002(varies)",
        "[5,5,128,256]",
        "819,200",
        "6.25MiB",
        "keyfile/optimizer/gan/beta_1_powervalue0.3",
        "is0.3,whichisnopowerofbeta_10.5.",
        "Movingaveragesofweights",
    ):
        assert text in flat, text
    assert "\x1b" not in flat and "\\x1b[2Jhidden" in flat
    assert flat.endswith("Notes-Rolesweretoldbyname.")


def test_columns_are_aligned_in_a_narrow_terminal_too() -> None:
    for width in (60, 80):
        lines = printed(width, values=False)
        start = lines.index("Weights")
        heading, *rows = lines[start + 1 : lines.index("Moving statistics") - 1]
        figures = [line for line in rows if "float" in line and "key" not in line]
        assert len(figures) == 4
        assert {line.index("float") for line in figures} == {heading.index("dtype")}
        assert {len(line) for line in figures} == {len(heading)}
