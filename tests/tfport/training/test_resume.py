"""A run that was stopped, killed or ended early goes on to the bits of one that never was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfport import state
from tfport.training.checkpoint import checkpoints
from tfport.training.config import RunConfig
from tfport.training.loop import train

PARADIGMS = ("tf1_graph", "gradient_tape", "keras2", "keras3")
Configure = Callable[..., RunConfig]
ROOT = Path(__file__).parents[3]


def lasting(run: Path) -> dict[str, object]:
    """All that must not depend on where a run was stopped."""
    found: dict[str, object] = {
        "metrics": (run / "metrics.csv").read_bytes(),
        "state": state.read(run / "state.npz").digest(),
        "gif": (run / "samples.gif").read_bytes(),
    }
    for path in sorted((run / "samples").iterdir()):
        found[path.name] = path.read_bytes()
    for each in checkpoints(run / "checkpoints"):
        found[each.folder.name] = json.loads((each.folder / "manifest.json").read_text())["state_digest"]
    return found


def status(run: Path) -> tuple[str, int]:
    record = json.loads((run / "run.json").read_text())
    return record["status"], record["step"]


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_four_steps_and_two_more_are_six(
    paradigm: str, unbroken: Callable[[str], Path], configure: Configure, tmp_path: Path
) -> None:
    whole = unbroken(paradigm)
    broken = tmp_path / "broken"
    train(configure(broken, paradigm, steps=4))
    assert lasting(broken) != lasting(whole)
    outcome = train(configure(broken, paradigm), resume=True)
    assert lasting(broken) == lasting(whole)
    assert (outcome.step, outcome.interrupted_by) == (6, None)
    assert status(broken) == status(whole) == ("complete", 6)
    assert list(lasting(whole)) == [
        *("metrics", "state", "gif"),
        *(f"step-{step:010d}.png" for step in (0, 2, 4, 6)),
        *(f"step-{step:010d}" for step in (2, 4, 6)),
    ]


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_moving_statistics_and_half_steps_go_on_to_the_same_bits(
    paradigm: str, configure: Configure, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(configure(whole, paradigm, "batchnorm_gan", steps=3, checkpoint_every=1))
    train(configure(broken, paradigm, "batchnorm_gan", steps=1, checkpoint_every=1))
    before = state.read(broken / "state.npz").arrays
    train(configure(broken, paradigm, "batchnorm_gan", steps=3, checkpoint_every=1), resume=True)
    assert lasting(broken) == lasting(whole)
    after = state.read(whole / "state.npz").arrays
    moved = {name for name in after if after[name].tobytes() != before[name].tobytes()}
    assert moved == set(after), "every variable, statistic, slot and counter is part of what went on"
    assert [int(after[f"optimizer/{name}/iterations"]) for name in ("discriminator", "generator")] == [6, 3]
    rows = (whole / "metrics.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,loss_D,accuracy_D,loss_G"
    assert len(set(rows)) == 4


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_it_really_trains(paradigm: str, unbroken: Callable[[str], Path]) -> None:
    """Guards the tests of equal bits against runs that do nothing."""
    rows = (unbroken(paradigm) / "metrics.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,loss_D,loss_G"
    assert len({row.split(",", 2)[2] for row in rows[1:]}) == 6
    digests = {value for name, value in lasting(unbroken(paradigm)).items() if name.startswith("step-")}
    assert len(digests) == 7
    counters = state.read(unbroken(paradigm) / "state.npz").arrays
    assert counters["optimizer/discriminator/iterations"] == counters["optimizer/generator/iterations"] == 6


def test_the_paradigms_begin_alike(unbroken: Callable[[str], Path]) -> None:
    """The same weights and noise: the picture before the first step is the same in all."""
    pictures = {(unbroken(paradigm) / "samples" / f"step-{0:010d}.png").read_bytes() for paradigm in PARADIGMS}
    assert len(pictures) == 1


@pytest.mark.parametrize("paradigm", ["tf1_graph", "gradient_tape"])
def test_float64_goes_on_to_the_same_bits(paradigm: str, configure: Configure, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(configure(whole, paradigm, precision="float64", steps=4))
    train(configure(broken, paradigm, precision="float64", steps=2))
    train(configure(broken, paradigm, precision="float64", steps=4), resume=True)
    assert lasting(whole) == lasting(broken)
    assert state.read(whole / "state.npz").arrays["generator/hidden/kernel"].dtype == np.float64


def test_a_finished_run_made_longer_is_the_long_run(configure: Configure, tmp_path: Path) -> None:
    """The row and picture that closed the short run between two intervals do not stay."""
    intervals = {"log_every": 2, "sample_every": 2, "checkpoint_every": 3}
    train(configure(tmp_path / "long", **intervals))
    train(configure(tmp_path / "short", **intervals, steps=3))
    train(configure(tmp_path / "short", **intervals), resume=True)
    assert lasting(tmp_path / "short") == lasting(tmp_path / "long")


def test_resuming_a_run_that_is_complete_changes_nothing_that_lasts(
    copy_of: Callable[[], Path], configure: Configure
) -> None:
    run = copy_of()
    before = lasting(run)
    outcome = train(configure(run), resume=True)
    assert (outcome.step, outcome.losses) == (6, {})
    assert lasting(run) == before
    assert status(run) == ("complete", 6)


def test_without_a_checkpoint_a_resumed_run_begins_again(
    copy_of: Callable[[], Path], configure: Configure, unbroken: Callable[[str], Path]
) -> None:
    run = copy_of()
    shutil.rmtree(run / "checkpoints")
    train(configure(run), resume=True)
    assert lasting(run) == lasting(unbroken("gradient_tape"))


def test_deleting_a_damaged_checkpoint_goes_on_from_the_one_before(
    copy_of: Callable[[], Path], configure: Configure, unbroken: Callable[[str], Path]
) -> None:
    """The remedy that every message about a damaged checkpoint gives."""
    run = copy_of()
    shutil.rmtree(run / "checkpoints" / f"step-{6:010d}")
    train(configure(run), resume=True)
    assert lasting(run) == lasting(unbroken("gradient_tape"))


def test_what_a_killed_process_left_half_written_goes(
    copy_of: Callable[[], Path], configure: Configure, unbroken: Callable[[str], Path]
) -> None:
    run = copy_of()
    shutil.rmtree(run / "checkpoints" / f"step-{6:010d}")
    (run / "checkpoints" / ".step-0000000006.abc").mkdir()
    (run / "checkpoints" / ".step-0000000006.abc" / "half").write_text("half")
    (run / "samples" / ".step-0000000006.png.abc").write_text("half")
    (run / ".run.json.abc").write_text("half")
    (run / "samples" / "step-by-hand.png").write_bytes((run / "samples" / "step-0000000000.png").read_bytes())
    with (run / "metrics.csv").open("a") as file:
        file.write("7,0,-1.3")
    train(configure(run), resume=True)
    assert [path.name for path in run.rglob(".*")] == [".lock"]
    assert (run / "samples" / "step-by-hand.png").exists(), "no picture of ours"
    (run / "samples" / "step-by-hand.png").unlink()
    train(configure(run), resume=True)
    assert lasting(run) == lasting(unbroken("gradient_tape"))


def command(config: RunConfig, *more: str) -> list[str]:
    names = ("paradigm", "steps", "batch_size", "seed", "log_every", "sample_every", "checkpoint_every", "run_dir")
    flags = [f"--{name}={getattr(config, name)}" for name in names]
    program = "import sys; from tfport.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", program, "train", *flags, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared")])}


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.01)


def test_a_killed_run_goes_on_to_the_same_bits(configure: Configure, tmp_path: Path) -> None:
    """kill -9 of a real process, twice, each time wherever it happens to be."""
    long = {"steps": 3_000, "log_every": 7, "sample_every": 500, "checkpoint_every": 3}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    reached: list[int] = []
    for delay, more in ((0.217, []), (0.531, ["--resume"])):
        process = subprocess.Popen(
            command(configure(killed, **long), *more),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = 1 + (checkpoints(killed / "checkpoints")[-1].step if reached else 0)
        wait_for(killed / "checkpoints" / f"step-{(first + 2) // 3 * 3:010d}", process)
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert status(killed)[0] == "running"
        reached.append(checkpoints(killed / "checkpoints")[-1].step)
    assert 0 < reached[0] < reached[1]
    short = {**long, "steps": reached[1] + 20}
    train(configure(killed, **short), resume=True)
    train(configure(whole, **short))
    assert lasting(killed) == lasting(whole)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("paradigm", "number", "code"), [("tf1_graph", signal.SIGTERM, 143), ("gradient_tape", signal.SIGINT, 130)]
)
def test_a_signal_saves_and_tells_how_to_go_on(
    paradigm: str, number: signal.Signals, code: int, configure: Configure, tmp_path: Path
) -> None:
    long = {"steps": 100_000, "log_every": 2, "sample_every": 4, "checkpoint_every": 100_000}
    stopped, whole = tmp_path / "with a space", tmp_path / "whole"
    process = subprocess.Popen(
        command(configure(stopped, paradigm, **long)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(stopped / "samples" / f"step-{4:010d}.png", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err + out
    name, step = status(stopped)
    assert name == "interrupted"
    assert [each.step for each in checkpoints(stopped / "checkpoints")] == [step]
    assert f"stopped by {number.name} after {step:,} of 100,000 steps" in err
    assert f"tfport train --resume --run_dir='{stopped}'" in err
    assert not (stopped / "state.npz").exists(), "no end state of a run that has not ended"
    short = {**long, "steps": step + 3}
    train(configure(stopped, paradigm, **short), resume=True)
    train(configure(whole, paradigm, **short))
    gone_on = lasting(stopped)
    del gone_on[f"step-{step:010d}"]  # the checkpoint that the signal made, and nothing but it, is more
    assert gone_on == lasting(whole)
