"""tfport train: bad input is one message and exit code 2, and good input is a run."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from absl import app, flags
from absl.testing import flagsaver

from tfport.cli import VERBS, main, run
from tfport.models import MODELS
from tfport.paradigms import EXTRAS, PARADIGMS

SMALL = ("--steps=2", "--batch_size=20", "--run_dir=run")
ROOT = Path(__file__).parents[3]


class Said(NamedTuple):
    """What a command printed, and the code it ended with."""

    code: object
    out: str
    err: str


Tfport = Callable[..., Said]


@pytest.fixture
def tfport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tfport]:
    """tfport(*words): runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    importlib.import_module("tfport.cli.train")  # defines the flags, before they are saved

    app.define_help_flags()
    saved = flagsaver.save_flag_values()

    def call(*words: str, **defaults: str) -> Said:
        flagsaver.restore_flag_values(saved)
        flags.FLAGS.unparse_flags()
        with pytest.raises(SystemExit) as caught:
            if defaults:
                run(words[0], words[1:], **defaults)
            else:
                main(words)
        return Said(caught.value.code, *capsys.readouterr())

    yield call
    flagsaver.restore_flag_values(saved)


BAD: list[tuple[tuple[str, ...], str]] = [
    (
        ("--model=vanila_gan",),
        f"unknown model 'vanila_gan'. Did you mean vanilla_gan or leaky_gan? Valid: {', '.join(sorted(MODELS))}.",
    ),
    (("--paradigm=keras_2",), "unknown paradigm 'keras_2'. Did you mean keras2 or keras3?"),
    (("--paradigm=",), f"unknown paradigm ''. Valid: {', '.join(sorted({*PARADIGMS, *EXTRAS}))}."),
    (("--dataset=mnits",), "unknown dataset 'mnits'. Did you mean mnist or kmnist?"),
    (("--precision=flaot32",), "unknown precision 'flaot32'. Did you mean float32"),
    (("--stpes=3",), "Unknown command line flag 'stpes'. Did you mean: steps ?"),
    (("--steps=0",), "--steps=0 is out of range: expected a whole number from 1 to 2,147,483,647."),
    (("--steps=-5",), "--steps=-5 is out of range"),
    (("--steps=many",), "--steps"),
    (("--steps=1.5",), "--steps"),
    (("--steps=99999999999999999999",), "out of range"),
    (("--epochs=0",), "--epochs=0 is out of range"),
    (("--epochs=-1",), "--epochs=-1 is out of range"),
    (("--batch_size=0",), "--batch_size=0 is out of range"),
    (("--batch_size=60001",), "--batch_size=60001 is out of range"),
    (("--batch_size=1501",), "batch size 1501 is more than the 1500 training images of digits"),
    (("--learning_rate=nan",), "--learning_rate=nan is out of range"),
    (("--learning_rate=inf",), "--learning_rate=inf is out of range"),
    (("--learning_rate=0",), "--learning_rate=0.0 is out of range"),
    (("--learning_rate=-1e-3",), "--learning_rate=-0.001 is out of range"),
    (("--learning_rate=1e-60",), "--learning_rate=1e-60 is out of range"),
    (("--learning_rate=fast",), "--learning_rate"),
    (("--seed=-1",), "--seed=-1 is out of range"),
    (("--seed=2147483648",), "--seed=2147483648 is out of range"),
    (("--log_every=0",), "--log_every=0 is out of range"),
    (("--sample_every=-1",), "--sample_every=-1 is out of range"),
    (("--checkpoint_every=0",), "--checkpoint_every=0 is out of range"),
    (("--steps=3", "--epochs=1"), "--steps and --epochs both set the length of the run; give one of them."),
    (("--resume",), "runs/vanilla_gan-gradient_tape-digits-seed0 holds no run"),
    (("--resume", "--run_dir=nowhere"), "nowhere holds no run (no run.json): nothing to resume; leave --resume out."),
    (("vanilla_gan",), "'vanilla_gan' is not a flag; flags are written --name=value (see tfport train --help)."),
    (("--flagfile=missing",), "missing"),
    (("--flagfile=.",), "."),
    (("--dataset=mnist", "--data_dir=nowhere"), "nowhere: no such folder, expected a folder with the four files"),
    (("--data_dir=nowhere",), "digits is embedded and takes no data_dir"),
    (("--run_dir=" + "x" * 300,), "cannot write " + "x" * 300),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words)[:40] for words, _ in BAD])
def test_bad_input_is_one_message(words: tuple[str, ...], message: str, tfport: Tfport, tmp_path: Path) -> None:
    said = tfport("train", *words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("tfport train: ")
    assert message in said.err
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_a_run_directory_on_a_file_is_one_message(tfport: Tfport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for words in (("--run_dir=file",), ("--run_dir=file/run", "--steps=1")):
        said = tfport("train", *words)
        assert (said.code, said.err.count("\n")) == (2, 1), said.err
        assert (tmp_path / "file").read_text() == "mine"


def test_a_flagfile_that_is_no_text_is_one_message(tfport: Tfport, tmp_path: Path) -> None:
    (tmp_path / "flags").write_bytes(b"\xff\xfe--steps=3")
    said = tfport("train", "--flagfile=flags")
    assert (said.code, said.err.count("\n")) == (2, 1), said.err
    assert "--flagfile cannot be read" in said.err


@pytest.mark.parametrize(
    ("word", "near"), [("trian", "Did you mean train?"), ("frobnicate", f"Valid: {', '.join(sorted(VERBS))}.")]
)
def test_an_unknown_verb_is_one_message(word: str, near: str, tfport: Tfport) -> None:
    said = tfport(word)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"unknown verb '{word}'" in said.err
    assert near in said.err


def test_no_words_are_answered_with_the_usage(tfport: Tfport) -> None:
    assert tfport().code == 2
    said = tfport("--help")
    assert said.code == 0
    assert "Usage: tfport VERB" in said.out
    assert "Exit codes: 0" in said.out


def test_the_version(tfport: Tfport) -> None:
    import tfport as package

    assert tfport("--version") == (0, f"tfport {package.__version__}\n", "")


def test_a_run_and_its_resumption(tfport: Tfport, tmp_path: Path) -> None:
    said = tfport("train", *SMALL, "--paradigm=tf1_graph")
    assert said.code == 0
    assert said.out.startswith("vanilla_gan in tf1_graph: 2 steps, loss_D -")
    assert said.out.endswith("Run directory: run\n")
    again = tfport("train", *SMALL, "--paradigm=tf1_graph")
    assert again.code == 2
    assert "run already holds a run. Go on with it by --resume" in again.err
    gone_on = tfport("train", "--resume", "--run_dir=run", "--steps=4")
    assert gone_on.code == 0
    assert gone_on.out.startswith("vanilla_gan in tf1_graph: 4 steps, loss_D -"), "paradigm and batch are the run's"
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (config["paradigm"], config["batch_size"], config["steps"]) == ("tf1_graph", 20, 4)
    fewer = tfport("train", "--resume", "--run_dir=run", "--steps=3")
    assert (fewer.code, fewer.err.count("\n")) == (2, 1)
    other = tfport("train", "--resume", "--run_dir=run", "--seed=5")
    assert other.code == 2
    assert "begun with --seed=0, not 5" in other.err
    sibling = tfport("train", "--resume", "--run_dir=run", paradigm="gradient_tape")
    assert sibling.code == 2, "python -m tf2_eager.gradient_tape does not go on with a run of tf1_graph"
    assert "begun with --paradigm=tf1_graph, not gradient_tape" in sibling.err


def test_a_run_of_another_model_tells_the_columns_of_its_log(tfport: Tfport, tmp_path: Path) -> None:
    said = tfport("train", *SMALL, "--model=batchnorm_gan")
    assert said.code == 0
    first, second = said.out.splitlines()
    columns = re.fullmatch(
        r"batchnorm_gan in gradient_tape: 2 steps, loss_D (\S+), accuracy_D (\S+), loss_G (\S+)\.", first
    )
    assert columns
    assert second == "Run directory: run"
    logged = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert logged[0] == "step,epoch,loss_D,accuracy_D,loss_G"
    assert [float(each) for each in columns.groups()] == [round(float(each), 4) for each in logged[-1].split(",")[2:]]
    assert 0 <= float(columns[2]) <= 100
    assert (tmp_path / "run" / "accuracy.png").exists()


def test_a_flagfile_and_flags_after_it(tfport: Tfport, tmp_path: Path) -> None:
    (tmp_path / "flags").write_text("# a comment\n--steps=5\n--batch_size=20\n--seed=9\n--run_dir=run\n")
    assert tfport("train", "--flagfile=flags", "--steps=1").code == 0
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (config["steps"], config["batch_size"], config["seed"]) == (1, 20, 9)


def test_epochs_are_counted_in_batches(tfport: Tfport, tmp_path: Path) -> None:
    assert tfport("train", "--epochs=2", "--batch_size=700", "--run_dir=run").code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["step"] == 4, "1,500 // 700 steps, twice"


def test_divergence_is_exit_code_1(tfport: Tfport) -> None:
    said = tfport("train", "--steps=50", "--batch_size=20", "--learning_rate=1000", "--run_dir=run")
    assert said.code == 1
    assert said.out == ""
    assert "tfport train: training diverged. step " in said.err
    assert "Traceback" not in said.err


def test_the_arguments_may_set_another_paradigm_than_the_modules(tfport: Tfport, tmp_path: Path) -> None:
    assert tfport("train", *SMALL, "--paradigm=gradient_tape", paradigm="tf1_graph").code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["paradigm"] == "gradient_tape"


@pytest.mark.parametrize("module", ["tf1_graph", "tf2_eager.keras3"])
def test_the_paradigms_modules_train_in_their_paradigm(module: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared")])}
    done = subprocess.run(
        [sys.executable, "-m", module, "--steps=1", "--batch_size=20", "--run_dir=run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    paradigm = module.rpartition(".")[2]
    assert done.stdout.startswith(f"vanilla_gan in {paradigm}: 1 steps")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["paradigm"] == paradigm
