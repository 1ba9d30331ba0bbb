"""tfport convert RUN RUN2 --paradigm=: a run goes on in another paradigm, and bad input is one message."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tfport.remote import child_environment
from tfport.training.checkpoint import checkpoints, read_manifest
from tfport.training.config import defaults
from tfport.training.loop import train

BEFORE, STEPS = 20, 30

SERVER = """
import contextlib, io, json, os, sys
from absl import app, flags
from absl.testing import flagsaver
import tfport.cli.convert
from tfport.cli import main

app.define_help_flags()
saved = flagsaver.save_flag_values()
for line in sys.stdin:
    order = json.loads(line)
    os.chdir(order["cwd"])
    flagsaver.restore_flag_values(saved)
    flags.FLAGS.unparse_flags()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(order["words"])
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
"""`tfport convert`, a command a line; a process has the flags of one verb, and TensorFlow is loaded once."""


class Said(NamedTuple):
    """What a command printed, and the code it ended with."""

    code: object
    out: str
    err: str


Tfport = Callable[..., Said]


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    """The process that converts."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    yield process
    process.communicate()


@pytest.fixture
def tfport(server: subprocess.Popen[str], tmp_path: Path) -> Tfport:
    """tfport(*words): runs the command in an empty folder."""

    def call(*words: str | Path) -> Said:
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps({"cwd": str(tmp_path), "words": list(map(str, words))}), file=server.stdin, flush=True)
        return Said(*json.loads(server.stdout.readline()))

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps in tf1_graph; not to be written into."""
    path = tmp_path_factory.mktemp("run") / "run"
    steps(path, BEFORE)
    return path


def steps(run_dir: Path, count: int, resume: bool = False) -> None:
    settings = {"batch_size": 20, "seed": 4, "log_every": 5, "sample_every": 10, "checkpoint_every": 10}
    config = defaults("vanilla_gan", "tf1_graph", run_dir=str(run_dir), steps=count, **settings)  # type: ignore[arg-type]
    assert train(config, resume=resume).step == count


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to damage."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def digest(run_dir: Path) -> str:
    """That of the state in a run's last checkpoint."""
    last = checkpoints(run_dir / "checkpoints")[-1]
    assert last.step == STEPS
    return str(read_manifest(last)["state_digest"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_goes_on_to_the_same_bits(tfport: Tfport, run: Path, copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "port"
    said = tfport("convert", run, target, "--paradigm=gradient_tape", "--model=vanilla_gan")
    assert (said.code, said.err) == (0, "")
    first, *_, read_back, written, command = said.out.splitlines()
    assert first.startswith("To: ")
    assert read_back == (
        f"gradient_tape read it back: the state is that of {run}/checkpoints/step-{BEFORE:010d}, to the bit."
    )
    assert written == f"Written: {target}. Go on from step {BEFORE} with:"
    assert command == f"  tfport train --resume --run_dir={target}"
    words = [sys.executable, "-c", "from tfport.cli import main; main()", *command.split()[1:], f"--steps={STEPS}"]
    gone_on = subprocess.run(words, capture_output=True, text=True, env=child_environment(), check=False)
    assert gone_on.returncode == 0, gone_on.stderr
    assert gone_on.stdout.startswith(f"vanilla_gan in gradient_tape: {STEPS} steps, ")
    steps(copy, STEPS, resume=True)
    assert digest(target) == digest(copy)
    assert (target / "metrics.csv").read_bytes() == (copy / "metrics.csv").read_bytes()


def test_the_plan_as_json(tfport: Tfport, run: Path, tmp_path: Path) -> None:
    said = tfport("convert", "--paradigm=keras2", run, tmp_path / "port", f"--json={tmp_path / 'plan.json'}")
    assert (said.code, said.err) == (0, "")
    assert f"JSON: {tmp_path / 'plan.json'}" in said.out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert (found["schema"], found["target"]["format"]) == (1, "tfport-run")
    names = {each["name"]: each["how"] for each in found["tensors"]}
    assert names["generator/hidden/kernel"] == "copied"
    assert names["optimizer/generator/iterations"].startswith("from the beta powers")
    assert {each["name"] for each in found["left_out"]} <= {
        f"optimizer/{side}/beta_{number}_power" for side in ("generator", "discriminator") for number in (1, 2)
    }


def test_a_dry_run_writes_nothing(tfport: Tfport, run: Path, tmp_path: Path) -> None:
    before = files(run)
    said = tfport("convert", run, tmp_path / "port", "--paradigm=gradient_tape", "--dry_run")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("Nothing was written (--dry_run).\n")
    assert not list(tmp_path.iterdir())
    assert files(run) == before


BAD: list[tuple[tuple[str, ...], str]] = [
    (("nowhere", "port"), "nowhere is neither a run directory nor one of its checkpoints (step-NNNNNNNNNN)."),
    (("RUN", "no/port"), "the folder no does not exist; make it first."),
    (("RUN", "file"), "file is there already; give another name, or --force to replace it."),
    (("RUN", "file", "--force"), "file is there and is no run; it is not replaced."),
    (("RUN", "port", "--paradigm=tf2_graph"), "unknown paradigm 'tf2_graph'. Did you mean tf1_graph?"),
    (("RUN", "port", "--paradigm="), "unknown paradigm ''. Valid: "),
    (("RUN", "port", "--model=vae"), "is a run of vanilla_gan, and --model=vae asks for another."),
    (("RUN", "port", "--model=vanila_gan"), "unknown model 'vanila_gan'. Did you mean vanilla_gan"),
    (("RUN", "port", "--to=npz"), "--to has no meaning with --paradigm"),
    (("RUN", "port", "--like=file"), "--like has no meaning with --paradigm"),
    (("RUN", "port", "--keep=*"), "--keep has no meaning with --paradigm"),
    (("RUN", "port", "--iterations=3"), "--iterations has no meaning with --paradigm"),
    (("RUN", "port", "--verify"), "--verify has no meaning with --paradigm"),
    (("RUN", "port", "--json=no/plan.json"), "no"),
    (("RUN",), "TO is missing"),
    (("RUN", "port", "more"), "'more' is one word too many"),
    (("RUN", "port", "--paradgim=keras2"), "Unknown command line flag 'paradgim'"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words)[:40] for words, _ in BAD])
def test_bad_input_is_one_message(
    words: tuple[str, ...],
    message: str,
    tfport: Tfport,
    run: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("mine")
    said = tfport("convert", "--paradigm=gradient_tape", *(str(run) if word == "RUN" else word for word in words))
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said
    assert said.err.startswith("tfport convert: ")
    assert message in said.err
    assert files(tmp_path) == {"file": b"mine"}


def test_model_without_paradigm(tfport: Tfport, run: Path, tmp_path: Path) -> None:
    said = tfport("convert", run, tmp_path / "port.npz", "--model=vanilla_gan")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "--model goes with --paradigm" in said.err


def test_a_run_that_has_no_checkpoint(tfport: Tfport, copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    said = tfport("convert", copy, tmp_path / "port", "--paradigm=keras3")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"{copy} has no checkpoint yet; train it for some steps first." in said.err
    assert [each.name for each in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_damaged_file(suffix: str, tfport: Tfport, copy: Path, tmp_path: Path) -> None:
    (file,) = (copy / "checkpoints" / f"step-{BEFORE:010d}").glob(f"*{suffix}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    said = tfport("convert", copy, tmp_path / "port", "--paradigm=gradient_tape")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"{file} was changed after it was written (its SHA-256 differs)" in said.err
    assert [each.name for each in tmp_path.iterdir()] == ["copy"]


def test_force_replaces_a_run_and_nothing_else(tfport: Tfport, run: Path, copy: Path) -> None:
    before = files(copy)
    said = tfport("convert", run, copy, "--paradigm=gradient_tape")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"{copy} is there already" in said.err
    assert files(copy) == before
    assert tfport("convert", run, copy, "--paradigm=gradient_tape", "--force").code == 0
    assert json.loads((copy / "run.json").read_text())["config"]["paradigm"] == "gradient_tape"
    said = tfport("convert", copy, copy, "--paradigm=tf1_graph", "--force")
    assert said.code == 2
    assert "is the run that is converted; give another place." in said.err
