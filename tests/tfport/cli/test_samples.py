"""tfport samples: bad input is one message and exit code 2; a run gives its picture, images and figures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfport.training.config import defaults
from tfport.training.loop import train


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "vanilla"
    train(defaults("vanilla_gan", "gradient_tape", steps=3, batch_size=20, run_dir=str(path)))
    return path


def samples(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tfport.cli import main; main()", "samples", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--run_dir is missing"),
        (("--run_dir=nowhere", "--metrics"), "nowhere holds no run (no run.json); name the run directory"),
        (
            ("--run_dir=nowhere", "--metrics", "--count=99"),
            "--count=99 is out of range: expected a whole number from 100",
        ),
        (("--run_dir=nowhere", "--png=a", "--npz=a"), "name one file"),
        (("--run_dir=nowhere",), "nothing to do: give --metrics, --png=FILE or --npz=FILE"),
        (("--run_dir=x", "--png=a.png", "--json=a.json"), "--json holds what --metrics measures"),
        (("--run_dir=x", "--metrics", "--count=0"), "--count=0 is out of range"),
        (("--run_dir=x", "--png=none/a.png"), "the folder none does not exist"),
        (("--run_dir=x", "--metrics", "--nonsense"), "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_message(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = samples(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_checkpoint_is_refused(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text((run_dir / "run.json").read_text())
    done = samples("--run_dir=begun", "--png=a.png", cwd=tmp_path)
    assert done.returncode == 2 and "has no checkpoint yet" in done.stderr


def test_a_run_gives_its_picture_its_images_and_its_figures(run_dir: Path, tmp_path: Path) -> None:
    outputs = ["--png=a.png", "--npz=a.npz", "--metrics", "--json=a.json", "--suspects=b.png"]
    done = samples(f"--run_dir={run_dir}", "--count=150", *outputs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "after 3 steps on digits" in done.stdout and "Log-likelihood by Parzen windows" in done.stdout
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        images = file["images"]
    assert images.shape == (150, 784) and images.min() >= 0 and images.max() <= 1
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["run"] == {"model": "vanilla_gan", "paradigm": "gradient_tape", "seed": 0, "step": 3}
    assert found["given"] == 150 and found["parzen"]["generated"]["mean"] < found["parzen"]["floor"]["mean"]
    last = Image.open(run_dir / "samples" / "step-0000000003.png")
    assert Image.open(tmp_path / "a.png").tobytes() == last.tobytes(), "the run's own last picture"
    assert Image.open(tmp_path / "b.png").height == 3 * (2 * 28 + 1)


def test_a_run_of_another_version_or_of_other_images_is_refused(run_dir: Path, tmp_path: Path) -> None:
    for change, message in (
        (("spec", "optimizers", 0, 1, "beta_1"), "spec.optimizers[0][1].beta_1 was 0.5 and is 0.89"),
        (("dataset", "digest"), "was trained on other images than embedded holds now"),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(run_dir, copy)
        record = json.loads((copy / "run.json").read_text())
        place = record
        for key in change[:-1]:
            place = place[key]
        place[change[-1]] = 0.5
        (copy / "run.json").write_text(json.dumps(record))
        done = samples("--run_dir=copy", "--png=a.png", cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        shutil.rmtree(copy)


def test_an_autoencoder_has_no_samples_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(defaults("autoencoder", "gradient_tape", steps=1, batch_size=20, run_dir=str(path)))
    done = samples(f"--run_dir={path}", "--metrics", cwd=tmp_path)
    assert done.returncode == 2
    assert "autoencoder makes images of images: it has no samples of its own to draw" in done.stderr
