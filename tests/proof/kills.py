"""Runs killed in the middle of their training and resumed, each against one that was never stopped."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tqdm import tqdm

from proof.stages import FOLDER, Result, table, tfport
from tfport.remote import child_environment
from tfport.training import metrics
from tfport.training.checkpoint import checkpoints, read_manifest

KILLS = 10
STEPS = 400


def kills(paradigm: str) -> Result:
    """Ten runs killed at random moments and resumed."""
    root = FOLDER / "kills" / paradigm
    shutil.rmtree(root, ignore_errors=True)
    settings = [f"--paradigm={paradigm}", f"--steps={STEPS}", "--log_every=1", "--checkpoint_every=25"]
    _begin(settings, root / "unbroken").wait()
    unbroken = _digest(root / "unbroken")
    draws = random.Random(paradigm)
    moments: list[Result] = []
    bar = tqdm(total=KILLS, desc=f"kills {paradigm}")
    while len(moments) < KILLS:
        folder = root / f"killed-{bar.n}"
        shutil.rmtree(folder, ignore_errors=True)
        process = _begin(settings, folder)
        moment = draws.uniform(0.05, 0.9) * STEPS
        while _logged(folder) < moment and process.poll() is None:
            time.sleep(0.002)
        time.sleep(draws.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        logged = _logged(folder)
        if not 0 < logged < STEPS:
            continue  # it fell before the first step or after the last: draw again
        reached = max((each.step for each in checkpoints(folder / "checkpoints")), default=0)
        _begin([*settings, "--resume"], folder).wait()
        same = _digest(folder) == unbroken and _same_file(folder, root / "unbroken", "metrics.csv")
        moments.append({"logged": logged, "checkpoint": reached, "same_bits": same})
        bar.update()
    bar.close()
    equal = sum(each["same_bits"] for each in moments)
    return {"paradigm": paradigm, "kills": KILLS, "equal": equal, "moments": moments}


def text(results: list[Result]) -> str:
    """A row a paradigm."""
    rows = []
    for each in results:
        moments = ", ".join(f"{moment['logged']} ({moment['checkpoint']})" for moment in each["moments"])
        rows.append([each["paradigm"], f"{each['equal']} of {each['kills']}", moments])
    return table(["paradigm", "same bits", "last step logged before the kill (checkpoint resumed from)"], rows)


def failures(results: list[Result]) -> list[str]:
    """Paradigms in which a resumed run was another run."""
    return [
        f"{each['paradigm']}: {each['equal']} of {each['kills']} kills" for each in results if each["equal"] < KILLS
    ]


def _logged(folder: Path) -> int:
    """The last step in a run's metrics.csv; 0 where there is none yet."""
    path = folder / "metrics.csv"
    return max((int(row[0]) for row in metrics.read(path)), default=0) if path.exists() else 0


def _begin(settings: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Starts a run."""
    command = tfport("train", *settings, f"--run_dir={folder}")
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=child_environment())


def _digest(folder: Path) -> str:
    """The digest of the state in the last checkpoint of a finished run."""
    last = checkpoints(folder / "checkpoints")[-1]
    if last.step != STEPS:
        raise RuntimeError(f"{folder} ended after {last.step} steps, not {STEPS}")
    return str(read_manifest(last)["state_digest"])


def _same_file(left: Path, right: Path, name: str) -> bool:
    return (left / name).read_bytes() == (right / name).read_bytes()
