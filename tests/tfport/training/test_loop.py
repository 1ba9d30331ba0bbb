"""The loop where a run ends otherwise than it should: NaN, a full disk, a signal, a second process."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfport import data, models
from tfport.errors import RunError, TrainingDiverged
from tfport.initial import initial_state
from tfport.training import pictures
from tfport.training.checkpoint import checkpoints
from tfport.training.config import RunConfig
from tfport.training.loop import train

Configure = Callable[..., RunConfig]
Contents = Callable[[Path], dict[str, bytes]]


def status(run: Path) -> tuple[str, int]:
    record = json.loads((run / "run.json").read_text())
    return record["status"], record["step"]


@pytest.mark.parametrize(
    ("losses", "phase", "loss", "cause"),
    [
        ((-math.inf, -1.0), "discriminator", r"loss_D = mean\(log D\(x\) .* is -inf", "reached exactly 0 or 1"),
        ((-1.0, -math.inf), "generator", r"loss_G = mean\(log D\(G\(z\)\)\) is -inf", "reached exactly 0 or 1"),
        ((math.nan, -1.0), "discriminator", "loss_D .* is nan", "has become NaN"),
        ((-1.0, math.nan), "generator", "loss_G .* is nan", "has become NaN"),
    ],
)
def test_a_loss_that_is_no_number_stops_the_run(
    losses: tuple[float, float], phase: str, loss: str, cause: str, stub: Any, configure: Configure, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stub.losses[4] = losses
    with pytest.raises(
        TrainingDiverged, match=rf"^step 5, phase {phase}: {loss}\. Likely cause: .*{cause}.*--learning_rate"
    ) as caught:
        train(configure(run))
    last = run / "checkpoints" / f"step-{4:010d}"
    assert f"The last good checkpoint is {last}." in str(caught.value)
    assert checkpoints(run / "checkpoints")[-1].folder == last
    assert status(run) == ("diverged", 4)
    assert len((run / "metrics.csv").read_text().splitlines()) == 5
    assert stub.closed
    stub.losses.clear()
    assert train(configure(run), resume=True).step == 6


def test_diverging_before_any_checkpoint_says_so(stub: Any, configure: Configure, tmp_path: Path) -> None:
    stub.losses[0] = (math.nan, math.nan)
    with pytest.raises(TrainingDiverged, match=r"step 1, .*No checkpoint had been written yet\."):
        train(configure(tmp_path / "run"))
    assert status(tmp_path / "run") == ("diverged", 0)


@pytest.mark.parametrize("poisoned", [3, 5], ids=["at an interval", "at the end"])
def test_weights_that_are_nan_are_seen_at_the_checkpoint(
    poisoned: int, stub: Any, configure: Configure, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stub.poisoned = poisoned
    every = 2 if poisoned == 3 else 4
    place = f"step {poisoned + 1}, phase generator: generator/output/bias holds NaN"
    with pytest.raises(TrainingDiverged, match=f"{place}.*another --run_dir.*last good checkpoint is"):
        train(configure(run, checkpoint_every=every))
    assert [each.step for each in checkpoints(run / "checkpoints")] == [2 if poisoned == 3 else 4]
    assert status(run) == ("diverged", poisoned + 1)
    assert not (run / "state.npz").exists()


def test_a_real_model_with_a_rate_far_too_high_diverges(configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingDiverged, match=r"^step \d+, phase (discriminator|generator): loss_.* is (-inf|nan)"):
        train(configure(run, learning_rate=1_000.0, steps=50, checkpoint_every=1))
    assert status(run)[0] == "diverged"
    for each in checkpoints(run / "checkpoints"):
        assert each.step <= status(run)[1]


def test_a_disk_that_fills_while_logging_is_explained(
    stub: Any, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def fill(step: int) -> None:
        if step == 4:
            (run / "metrics.csv").unlink()
            (run / "metrics.csv").symlink_to("/dev/full")

    stub.before_step = fill
    with pytest.raises(RunError, match=r"cannot write .*metrics\.csv: the disk is full: free some space"):
        train(configure(run))
    assert [each.step for each in checkpoints(run / "checkpoints")] == [2, 4]
    assert stub.closed


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step(
    number: signal.Signals, stub: Any, configure: Configure, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    before = signal.getsignal(number)
    stub.before_step = lambda step: os.kill(os.getpid(), number) if step == 2 else None
    outcome = train(configure(run))
    assert (outcome.step, outcome.interrupted_by) == (3, number)
    assert status(run) == ("interrupted", 3)
    assert [each.step for each in checkpoints(run / "checkpoints")] == [2, 3]
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored(
    stub: Any, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    handlers: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *given: handlers.append(given))
    assert train(configure(tmp_path / "run")).interrupted_by is None
    assert handlers == []


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_acts_as_it_always_does(stub: Any, configure: Configure, tmp_path: Path) -> None:
    def twice(_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    stub.before_step = twice
    with pytest.raises(KeyboardInterrupt):
        train(configure(tmp_path / "run"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_in_the_last_step_is_no_interruption(stub: Any, configure: Configure, tmp_path: Path) -> None:
    stub.before_step = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 5 else None
    outcome = train(configure(tmp_path / "run"))
    assert (outcome.step, outcome.interrupted_by) == (6, None)
    assert status(tmp_path / "run") == ("complete", 6)


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_process_in_the_same_run_is_refused(
    resume: bool, stub: Any, configure: Configure, contents: Contents, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    if resume:
        train(configure(run))
    run.mkdir(exist_ok=True)
    with (run / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = contents(run)
        with pytest.raises(RunError, match=f"another process is training in {run}; wait for it or stop it"):
            train(configure(run, steps=8), resume=resume)
        assert contents(run) == before
    assert train(configure(run, steps=8), resume=resume).step == 8


def test_half_steps_are_logged_as_their_columns(half_stub: Any, configure: Configure, tmp_path: Path) -> None:
    """The source prints half the sum of the losses and the mean accuracy in percent, not what each phase reports."""
    run = tmp_path / "run"
    half_stub.losses[1] = (1.0, 0.25, 0.25, 0.5, 1.125)
    outcome = train(configure(run, model="leaky_gan", steps=3))
    assert (run / "metrics.csv").read_text().splitlines() == [
        "step,epoch,loss_D,accuracy_D,loss_G",
        "1,0,0.75,68.75,2.5",
        "2,0,0.625,37.5,1.125",
        "3,0,0.75,68.75,2.5",
    ]
    assert outcome.losses == {"loss_D": 0.75, "accuracy_D": 68.75, "loss_G": 2.5}
    assert {"losses.png", "accuracy.png"} <= {path.name for path in run.iterdir()}


@pytest.mark.parametrize(
    ("losses", "place"),
    [
        ((math.nan, 0.5, 1.0, 0.5, 1.0), r"phase discriminator_real: loss_D_real = mean\(-log D\(x\)\) is nan"),
        ((1.0, 0.5, math.inf, 0.5, 1.0), r"phase discriminator_fake: loss_D_fake = mean\(-log\(1 - D.* is inf"),
        ((1.0, 0.5, 1.0, 0.5, math.inf), r"phase generator: loss_G = mean\(-log D\(G\(z\)\)\) is inf"),
    ],
)
def test_the_half_step_that_diverges_is_named(
    losses: tuple[float, ...], place: str, half_stub: Any, configure: Configure, tmp_path: Path
) -> None:
    """Where a column would only say that the sum is no number, the message names the report."""
    half_stub.losses[2] = losses
    with pytest.raises(TrainingDiverged, match=rf"^step 3, {place}"):
        train(configure(tmp_path / "run", model="leaky_gan"))


@pytest.mark.parametrize("model", ["autoencoder", "vae"])
def test_an_infinite_loss_without_a_discriminator_is_not_blamed_on_one(
    model: str, stub: Any, configure: Configure, tmp_path: Path
) -> None:
    stub.spec, stub.usual = models.get(model), (math.inf,)
    stub.load = lambda state: None
    stub.generate = lambda inputs: np.zeros((len(next(iter(inputs.values()))), 784), np.float32)
    with pytest.raises(TrainingDiverged, match=r"is inf\. Likely cause: a weight or an activation") as caught:
        train(configure(tmp_path / "run", model=model))
    assert "discriminator" not in str(caught.value)


def test_what_a_run_leaves(unbroken: Callable[[str], Path]) -> None:
    run = unbroken("tf1_graph")
    names = {path.name.split(".tfevents.")[0] for path in run.iterdir()}
    assert names == {
        *(".lock", "run.json", "metrics.csv", "losses.png", "samples", "samples.gif"),
        *("events.out", "checkpoints", "state.npz"),
    }
    record = json.loads((run / "run.json").read_text())
    assert record["dataset"]["training_images"] == 1_500
    assert record["config"]["seed"] == 3
    assert record["versions"]["tensorflow"]


def test_sample_pictures_show_the_models_images(stub: Any, configure: Configure) -> None:
    """The source's grid, 1 x 10, with 28 x 28 images in it: black where the model says 0, white where 1."""
    digits = data.load("digits")
    black = np.asarray(pictures.sample_picture(stub, 0, digits))
    stub.generate = lambda inputs: np.ones((len(inputs["latent"]), 784), np.float32)
    white = np.asarray(pictures.sample_picture(stub, 0, digits))
    assert black.shape == white.shape
    shown = (black != white).sum()
    assert shown >= 10 * 784
    assert shown % (10 * 784) == 0
    assert {*black[black != white]} == {0}
    assert {*white[black != white]} == {255}


def test_the_gif_has_a_frame_a_sample(unbroken: Callable[[str], Path]) -> None:
    from PIL import Image

    run = unbroken("gradient_tape")
    with Image.open(run / "samples.gif") as picture:
        assert picture.n_frames == len(list((run / "samples").iterdir())) == 4  # type: ignore[attr-defined]


def test_the_initial_state_is_complete(configure: Configure, tmp_path: Path) -> None:
    spec = configure(tmp_path).spec()
    arrays = initial_state(spec, 3, "float32").arrays
    trained = list(spec.variable_shapes())
    assert len(arrays) == 3 * len(trained) + 2
    assert {name for name in arrays if name.endswith("iterations")} == {
        "optimizer/discriminator/iterations",
        "optimizer/generator/iterations",
    }


@pytest.mark.parametrize("model", models.MODELS)
def test_every_models_initial_state_has_the_slots_of_what_each_optimizer_holds(model: str) -> None:
    spec = models.get(model)
    arrays = initial_state(spec, 3, "float32").arrays
    expected = {name: each.shape for name, each in spec.variables().items()}
    for optimizer, numbers in spec.optimizers:
        expected[f"optimizer/{optimizer}/iterations"] = ()
        for name in spec.held(optimizer):
            for slot in numbers.slots:
                expected[f"optimizer/{optimizer}/{slot}/{name}"] = spec.variable_shapes()[name]
    assert {name: array.shape for name, array in arrays.items()} == expected
    assert not any(array.any() for name, array in arrays.items() if name.startswith("optimizer/"))
    assert all((array == 1).all() for name, array in arrays.items() if name.endswith("/moving_variance"))
