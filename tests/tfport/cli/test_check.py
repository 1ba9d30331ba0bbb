"""tfport check: what it prints and writes, and what it says to those who make a mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tfport.remote import child_environment

PROGRAM = "from tfport.cli import main; main()"
SIDES = ("--legacy=check_sides:legacy", "--modern=check_sides:modern", "--batches=check_sides:batches")
QUICK = ("--steps=3",)


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, "check", *words]


def run(*words: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors; nothing may be left in the folder for temporary files."""
    temporary = cwd / "temporary"
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        command(*words),
        cwd=cwd,
        env={**child_environment(), "COLUMNS": "100", "TMPDIR": str(temporary), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
    return done.returncode, done.stdout, done.stderr


def told(text: str) -> str:
    """What is on standard error but for bars, which end their lines with a carriage return or "step/s]"."""
    lines = text.replace("\r", "\n").splitlines()
    return "\n".join(line for line in lines if line.strip() and "step/s]" not in line)


def refused(*words: str, cwd: Path, **environment: str) -> str:
    """The message of a refusal: one line, no report, no traceback, no file."""
    code, out, err = run(*words, cwd=cwd, **environment)
    message = told(err)
    assert (code, out) == (2, ""), err
    assert message.startswith("tfport check: ") and "\n" not in message, err
    return message.removeprefix("tfport check: ")


# --- Flags ------------------------------------------------------------------------------------------------------------
def test_help_is_quick_and_needs_no_framework(tmp_path: Path) -> None:
    probe = f"""
import atexit, sys
def tell():
    heavy = ("tensorflow", "keras", "tf_keras", "torch", "numpy", "scipy", "sklearn", "matplotlib", "rich")
    print("LOADED", *(name for name in heavy if name in sys.modules))
atexit.register(tell)
{PROGRAM}
"""
    found = []
    for _ in range(3):  # the quickest of three, since others use the machine too
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", probe, "check", "--help"],
            cwd=tmp_path,
            env=child_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        found.append(time.perf_counter() - began)
    out, _, loaded = done.stdout.rpartition("LOADED")
    assert (done.returncode, done.stderr, loaded.split()) == (0, "", [])
    assert min(found) < 0.5
    for each in ("--legacy", "--modern", "--batches", "--mapping", "--sample", "Examples:", "Exit codes"):
        assert each in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--modern is missing: name the function that builds the port, as module:function."),
        (("--legacy=check_sides:legacy",), "--modern is missing"),
        (("check_sides:legacy", "check_sides:modern"), "'check_sides:legacy' is not a flag"),
        ((*SIDES, "--steps=0"), "--steps=0 is out of range: expected a whole number from 1 to 40,000."),
        ((*SIDES, "--steps=many"), "flag --steps=many: invalid literal"),
        ((*SIDES, "--seed=-1"), "--seed=-1 is out of range"),
        ((*SIDES, "--precision=float16"), "--precision=float16 is neither float32 nor float64."),
        ((*SIDES, "--rungs=10"), "--rungs=10: '10' is no rung. Valid: 0 repeat, 1 structure,"),
        ((*SIDES, "--rungs=6-3"), "--rungs=6-3: '6-3' is no rung."),
        ((*SIDES, "--rungs=forwards"), "--rungs=forwards: 'forwards' is no rung."),
        ((*SIDES, "--rungs=²"), "--rungs=²: '²' is no rung."),
        ((*SIDES, "--sample=all"), "--sample=all: expected steps:N, tensors:N or both, as in steps:5,tensors:20."),
        ((*SIDES, "--sample=steps:0"), "--sample=steps:0: expected steps:N"),
        ((*SIDES, "--sample=steps:²"), "--sample=steps:²: expected steps:N"),
        ((*SIDES, "--sample=steps:2,steps:3"), "--sample=steps:2,steps:3: expected steps:N"),
        ((*SIDES, "--json=a", "--html=./a"), "two outputs name a; give each a file of its own."),
        ((*SIDES, "--json=."), "--json=. names no file"),
        ((*SIDES, "--junit=nowhere/a.xml"), "--junit=nowhere/a.xml: the folder nowhere does not exist; make it first."),
        ((*SIDES, "--write_mapping=/proc/a"), "cannot write /proc/a"),
        ((*SIDES, "--mapping=map.json"), "--mapping=map.json: there is no such file."),
        ((*SIDES, "--losses=a,b"), "--losses=a,b: expected one name, or phase=name for each phase."),
        ((*SIDES, "--train_ops=first=a,b"), "--train_ops=first=a,b: expected one name, or phase=name"),
        ((SIDES[1], "--write_mapping=a"), "--write_mapping is of no use without --legacy"),
        ((SIDES[1], "--ignore=a"), "--ignore is of no use without --legacy"),
        ((SIDES[1], "--losses=a"), "--losses is of no use without --legacy"),
        ((SIDES[1], "--record=a"), "--record is of no use without --legacy"),
        (
            (SIDES[0], "--modern=check_sides:modern,check_sides:shifted", "--write_mapping=a"),
            "--write_mapping is of one port, and --modern names 2: check that one alone.",
        ),
        ((*SIDES, "--record=."), "--record=. holds other things than a record; name a folder that does not exist."),
    ],
    ids=lambda value: " ".join(value).replace("check_sides:", "") if isinstance(value, tuple) else "",
)
def test_flags_that_make_no_sense_are_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert refused(*words, cwd=tmp_path).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("a,b", ["a", "b"]),
        ("training=a,inference=b", {"training": ["a"], "inference": ["b"]}),
        ("training=a,b", ["training=a", "b"]),
    ],
)
def test_outputs_may_be_named_by_mode(words: str, found: Any, tmp_path: Path) -> None:
    program = (
        "from absl import flags; from tfport.cli import check; flags.FLAGS(['', '--outputs=%s']); print(check.names())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program % words], cwd=tmp_path, env=child_environment(), capture_output=True, text=True
    )
    assert done.stdout == f"{{'outputs': {found}}}\n", done.stderr


# --- A check ----------------------------------------------------------------------------------------------------------
def test_an_equal_port_is_told_on_standard_output_alone(tmp_path: Path) -> None:
    sides = (SIDES[0], "--modern=check_sides:loud", "--batches=check_sides:loud_batches")
    code, out, err = run(*sides, *QUICK, cwd=tmp_path)
    assert code == 0, err
    assert out.startswith("check_sides:loud computes what check_sides:legacy computes")
    assert "NOISE" not in out + err
    assert told(err) == ""
    assert "legacy float32: 100%" in err and "modern float32: 100%" in err
    assert f"tfport check {' '.join(sides)} --steps=3" in out.replace("\n", " ")


def test_a_difference_is_exit_code_1_and_every_file_is_written(tmp_path: Path) -> None:
    files = ("--json=a.json", "--junit=b.xml", "--html=c.html", "--write_mapping=d.json")
    words = (SIDES[0], "--modern=check_sides:shifted", SIDES[2], *QUICK, *files, "--rungs=1-4")
    code, out, err = run(*words, cwd=tmp_path)
    assert (code, told(err)) == (1, ""), err
    assert out.startswith("check_sides:shifted starts from another distribution than check_sides:legacy")
    assert out.rstrip().endswith("JSON: a.json\nJUnit: b.xml\nReport: c.html\nMapping: d.json")
    assert json.loads((tmp_path / "a.json").read_text())["legacy"] == "check_sides:legacy"
    pairs = json.loads((tmp_path / "d.json").read_text())["variables"]
    assert {pair["legacy"]: pair["modern"] for pair in pairs} == {
        "hidden/kernel": "dense/w",
        "hidden/bias": "dense/b",
        "output/kernel": "last/w",
        "output/bias": "last/b",
    }

    # The written mapping is taken again; names that are unknown or double in it are not.
    pairs[0]["modern"] = "dense/v"
    (tmp_path / "d.json").write_text(json.dumps({"schema": 1, "variables": pairs}))
    again = (*words[:4], "--mapping=d.json")
    assert "--mapping=d.json: unknown modern variable 'dense/v'. Did you mean dense/" in refused(*again, cwd=tmp_path)
    pairs[0]["modern"] = "last/w"
    (tmp_path / "d.json").write_text(json.dumps({"schema": 1, "variables": pairs}))
    message = refused(*again, cwd=tmp_path)
    assert message.startswith("--mapping=d.json: hidden/kernel has shape (4, 6), and last/w has (6, 2); give the")
    pairs[0] = pairs[1]
    (tmp_path / "d.json").write_text(json.dumps({"schema": 1, "variables": pairs}))
    assert "the legacy variable hidden/bias (6,) overlap: [0:6] and [0:6]" in refused(*again, cwd=tmp_path)


def test_a_reader_that_goes_does_not_change_the_exit_code(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(SIDES[1], SIDES[2], *QUICK, "--json=a.json"),
        cwd=tmp_path,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), told(err)) == (0, "")
    assert (tmp_path / "a.json").exists()


def test_a_port_can_be_checked_alone(tmp_path: Path) -> None:
    code, out, err = run(SIDES[1], *QUICK, cwd=tmp_path)
    assert (code, told(err)) == (0, ""), err
    assert out.startswith("check_sides:modern, checked alone, breaks no contract")
    assert "standard normal ones were made up" in out


def test_shapes_without_a_partner_are_not_comparable(tmp_path: Path) -> None:
    code, out, err = run(SIDES[0], "--modern=check_sides:wider", SIDES[2], *QUICK, "--rungs=0-1", cwd=tmp_path)
    assert (code, told(err)) == (1, ""), err
    assert out.startswith("check_sides:wider cannot be compared with check_sides:legacy")
    assert "hidden/kernel" in out and "without a partner" in out


def test_a_counter_that_is_no_variable_is_found_at_rung_9(tmp_path: Path) -> None:
    words = ("--legacy=check_sides:restarting", SIDES[2], "--steps=5")
    code, out, err = run(*words, "--modern=check_sides:restarting_by_a_global", cwd=tmp_path)
    assert (code, told(err)) == (1, ""), err
    text = " ".join(out.split())
    assert text.startswith(
        "check_sides:restarting_by_a_global differs from check_sides:restarting: first at rung 9 resume, step 1"
    )
    assert "8 free_trajectory same training? identical" in text and "9 resume state carried over? different" in text
    assert "the modern side keeps something outside its variables (a counter in Python" in text
    assert "legacy side does not go on" not in text
    code, out, err = run(*words, "--modern=check_sides:restarting", "--rungs=9", cwd=tmp_path)
    assert (code, told(err)) == (0, ""), err
    assert "9 resume state carried over? identical" in " ".join(out.split())


# --- Sides that are wrong ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("side", "message"),
    [
        ("nowhere:build", "--modern=nowhere:build: there is no module 'nowhere' to import from here; run where it"),
        ("check_sides:build", "--modern=check_sides:build: check_sides has no 'build'; it has"),
        ("check_sides", "--modern=check_sides is neither module:function nor a file that exists; expected"),
        ("check_sides:", "--modern=check_sides: is neither module:function nor a file"),
        (".check_sides:modern", "--modern=.check_sides:modern is neither module:function"),
        (
            "./port.py:build",
            "--modern=./port.py:build names a function of a file: name it by its module, as port:build",
        ),
        (
            "port.py",
            "the modern script port.py raised RuntimeError: a file was run (port.py, line 1) before it trained",
        ),
        ("nowhere.py", "--modern=nowhere.py: there is no such file; expected module:function, a script"),
        ("port.pkl", "--modern=port.pkl is a file whose code or pickle is not run."),
        ("models/port.meta", "--modern=models/port.meta: there is no such file; expected module:function, a script"),
        ("check_sides:not_a_function", "--modern=check_sides:not_a_function is int, expected a function that builds"),
        (
            "check_sides:raising",
            "the modern factory check_sides:raising raised ValueError: no such thing as a model (check_sides.py, line",
        ),
        ("check_sides:refusing", "the data is not there"),
        ("check_sides:nothing", "the modern factory check_sides:nothing returned NoneType: expected a compiled Keras"),
        ("check_sides:number", "the modern factory check_sides:number returned int: expected a compiled Keras"),
        (
            "check_sides:needing",
            "the modern factory check_sides:needing needs path, width: expected a function without",
        ),
        ("check_sides:leaving", "the modern factory check_sides:leaving raised SystemExit: enough (check_sides.py,"),
        ("check_sides:ending", "the process of check_sides:ending ended unasked: the last words (exit code 7; "),
        ("check_sides:killed", "the process of check_sides:killed ended unasked: no message (killed from outside,"),
        ("check_sides:asking", "the modern factory check_sides:asking raised EOFError: EOF when reading a line"),
        ("raises:build", "--modern=raises:build: importing raises raised RuntimeError: not today (raises.py, line 1)"),
        ("needs:build", "--modern=needs:build: importing needs raised ModuleNotFoundError: No module named 'nowhere'"),
        ("damaged:build", "--modern=damaged:build: importing damaged raised SyntaxError: "),
        ("leaves:build", "--modern=leaves:build: importing leaves raised SystemExit: 3 (leaves.py, line 1)"),
    ],
)
def test_a_side_that_cannot_be_built_is_one_message(side: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "needs.py").write_text("import nowhere\n")
    (tmp_path / "damaged.py").write_text("def build(:\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "port.py").write_text("raise RuntimeError('a file was run')\n")
    (tmp_path / "port.pkl").write_bytes(b"cos\nabort\n(tR.")
    before = set(tmp_path.iterdir())
    assert refused(f"--modern={side}", SIDES[2], cwd=tmp_path).startswith(message)
    assert {each for each in tmp_path.iterdir() if each.name != "__pycache__"} == before


@pytest.mark.parametrize(
    ("side", "message"),
    [
        ("raising_later", "raised ZeroDivisionError: nothing to divide by (check_sides.py, line "),
        ("leaving_later", "raised SystemExit: 5 (check_sides.py, line "),
        ("killed_later", "ended unasked: no message (killed from outside, often for want of memory: "),
        ("refusing_later", "nothing is an output"),
        ("not_a_number", "the modern side's output/kernel holds NaN or infinity before any step; mend the"),
        (
            "double",
            "--precision=float32 is not available: check_sides:double, which takes no dtype, is built in float64. Let",
        ),
    ],
)
def test_a_side_that_fails_later_is_one_message(side: str, message: str, tmp_path: Path) -> None:
    found = refused(f"--modern=check_sides:{side}", SIDES[2], *QUICK, cwd=tmp_path)
    assert message in found
    assert "nan" not in found and ("check_sides" in found or side in ("not_a_number", "refusing_later"))


def test_a_legacy_side_that_cannot_be_float32_is_told(tmp_path: Path) -> None:
    message = refused("--legacy=check_sides:double", *SIDES[1:], cwd=tmp_path)
    assert message == (
        "a check begins in float32, and check_sides:double, which takes no dtype, is built in float64. "
        "Let both factories take dtype."
    )


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ("nowhere:batches", "--batches=nowhere:batches: there is no module 'nowhere'"),
        ("data.npz", "--batches=data.npz is no function to import; expected module:function, which gives batches."),
        ("check_sides:not_a_function", "--batches=check_sides:not_a_function is int, expected a function that gives"),
        ("check_sides:raising_batches", "check_sides:raising_batches raised KeyError: 'no data' (check_sides.py, line"),
        ("check_sides:leaving_batches", "check_sides:leaving_batches raised SystemExit: no data (check_sides.py, line"),
        ("check_sides:number_batches", "batch 0 of check_sides:number_batches is int: expected a mapping of input"),
        ("check_sides:two_batches", "check_sides:two_batches takes 2 arguments: expected a function of the step's"),
        ("check_sides:other_names", "the batch has nothing for the modern side's input x: it holds pixels (5, 9)"),
        ("check_sides:other_names_later", "batch 2 of check_sides:other_names_later has no x, which batch 0 has; it"),
        ("check_sides:other_shapes", "the batch's x has shape (5, 3), and the modern side's input x takes (None, 4)."),
        ("check_sides:other_shapes_later", "the modern side check_sides:modern raised ValueError: operands could not"),
        ("check_sides:strings", "the batch's x holds strings, and the modern side's input x takes float32."),
        ("check_sides:ragged", "batch 0 of check_sides:ragged cannot be made arrays: "),
        ("check_sides:no_examples", "batch 0 of check_sides:no_examples: x has shape (0, 4); give at least one"),
        ("check_sides:no_entries", "batch 0 of check_sides:no_entries is empty: expected an array for each input."),
        ("check_sides:no_batches", "check_sides:no_batches is empty: expected at least one batch."),
        ("check_sides:nan_batches", "batch 0 of check_sides:nan_batches: x holds NaN or infinity; give finite"),
    ],
)
def test_batches_that_cannot_be_used_are_one_message(batches: str, message: str, tmp_path: Path) -> None:
    found = refused("--modern=check_sides:modern", f"--batches={batches}", *QUICK, cwd=tmp_path)
    assert found.startswith(message)
    if batches.endswith("other_shapes_later"):
        assert "with x (5, 3) float32, y (5, 2) float32. Run that by itself" in found


# --- Ending it --------------------------------------------------------------------------------------------------------
@pytest.fixture
def running(tmp_path: Path, interruptible: None) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """A check in the middle of a step that does not end, the process of that side, and the temporary folder."""
    started, temporary = tmp_path / "started", tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        command("--modern=check_sides:slow", SIDES[2]),
        cwd=tmp_path,
        env={**child_environment(), "TMPDIR": str(temporary), "TFPORT_TEST_STARTED": str(started)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(600):
        if (started.exists() and started.read_text()) or process.poll() is not None:
            break
        time.sleep(0.1)
    yield process, int(started.read_text()), temporary
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("how", ["Ctrl-C in a terminal", "SIGINT to the command alone", "SIGTERM"])
def test_a_check_that_is_ended_leaves_no_process_and_no_file(how: str, running: Any) -> None:
    process, side, temporary = running
    assert len(list(temporary.iterdir())) == 2
    if how == "Ctrl-C in a terminal":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)
    out, err = process.communicate(timeout=20)
    code, message = (143, "") if how == "SIGTERM" else (130, "tfport check: interrupted.")
    assert (process.returncode, out, told(err)) == (code, "", message)
    with pytest.raises(ProcessLookupError):
        os.kill(side, 0)
    assert list(temporary.iterdir()) == []


# --- With frameworks --------------------------------------------------------------------------------------------------
TF_KERAS = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np
import tensorflow as tf
print("NOISE")
tf.get_logger().error("NOISE")

def build():
    model = tf.keras.Sequential([tf.keras.Input([3], name="x"), tf.keras.layers.Dense(2, name="out")])
    model.compile(optimizer=tf.keras.optimizers.legacy.SGD(0.1, momentum=0.9), loss="mse")
    return model

def batches(step):
    draw = np.random.default_rng(step)
    x = tf.constant(draw.normal(size=(4, 3)), tf.float32).numpy()
    return {"x": x, "y": np.tanh(x[:, :2])}
"""
KERAS_3 = """
import tensorflow as tf

def build():
    model = tf.keras.Sequential([tf.keras.Input([3], name="x"), tf.keras.layers.Dense(2, name="out")])
    model.compile(optimizer=tf.keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    return model
"""


def test_each_side_has_a_keras_of_its_own_and_frameworks_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "train_old.py").write_text(TF_KERAS)
    (tmp_path / "train_new.py").write_text(KERAS_3)
    words = ("--legacy=train_old:build", "--modern=train_new:build", "--batches=train_old:batches", "--rungs=3-8")
    code, out, err = run(*words, *QUICK, cwd=tmp_path)
    assert code == 0, err
    assert "train_old:build (tf_keras model)" in out and "train_new:build (Keras 3 model)" in out
    assert out.startswith("train_new:build computes what train_old:build computes")
    assert "NOISE" not in out
    assert told(err) == ""


# --- Records and several ports ----------------------------------------------------------------------------------------
def test_a_record_is_made_once_and_asked_without_the_original(tmp_path: Path) -> None:
    code, out, err = run(SIDES[0], SIDES[2], *QUICK, "--record=original", cwd=tmp_path)
    assert (code, out) == (0, "Record: original\n"), err
    code, out, err = run("--legacy=original", SIDES[1], cwd=tmp_path)
    assert code == 0, err
    assert "computes what check_sides:legacy computes" in out and "the legacy side is the record original" in out
    assert "Steps: 3" in out or "3 steps" in out
    (tmp_path / "original" / "arrays.bin").write_bytes(b"")
    assert "original is not a whole record: arrays.bin has 0 bytes" in refused(
        "--legacy=original", SIDES[1], cwd=tmp_path
    )


def test_several_ports_share_one_run_of_the_original(tmp_path: Path) -> None:
    files = ("--json=all.json", "--junit=all.xml", "--html=all.html")
    code, out, err = run(
        SIDES[0], "--modern=check_sides:modern,check_sides:shifted", SIDES[2], *QUICK, *files, cwd=tmp_path
    )
    assert code == 1, err
    assert "1 of 2 ports pass" in out and "Record:" not in out
    told = json.loads((tmp_path / "all.json").read_text())
    assert [(each["modern"], each["equal"]) for each in told] == [
        ("check_sides:modern", True),
        ("check_sides:shifted", False),
    ]
    suites = (tmp_path / "all.xml").read_text()
    assert 'name="check_sides:modern: rungs"' in suites and 'name="check_sides:shifted: rungs"' in suites
    page = (tmp_path / "all.html").read_text()
    for number, port in enumerate(("check_sides:modern", "check_sides:shifted"), 1):
        assert f'href="all-{number}.html"' in page
        assert port in (tmp_path / f"all-{number}.html").read_text()
