"""`make demo`: one GAN in four paradigms, trained from one seed and proven to be one computation.

It runs the commands that a person would type, and prints each before it runs.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from tfport.paradigms import PARADIGMS

TRAINING_STEPS = 1_000
COMPARED_STEPS = 100


def commands(folder: Path) -> list[list[str]]:
    """The words after `tfport`, command by command; a run that is there already is gone on with, not begun again."""
    listed = []
    for paradigm in PARADIGMS:
        run_dir = folder / paradigm
        resume = ["--resume"] if (run_dir / "run.json").exists() else []
        settings = ["--model=vanilla_gan", f"--paradigm={paradigm}", "--dataset=digits", "--seed=0"]
        lengths = [f"--steps={TRAINING_STEPS}", "--log_every=5", "--sample_every=100"]
        listed.append(["train", *settings, *lengths, f"--run_dir={run_dir}", *resume])
    runs = ",".join(str(folder / paradigm) for paradigm in PARADIGMS)
    listed.append(
        [
            "compare",
            "--model=vanilla_gan",
            f"--paradigms={','.join(PARADIGMS)}",
            f"--steps={COMPARED_STEPS}",
            f"--run_dirs={runs}",
            f"--json={folder / 'report.json'}",
            f"--html={folder / 'report.html'}",
        ]
    )
    return listed


def main(folder: Path) -> int:
    """Runs the commands one after another; returns the first exit code that is not 0."""
    folder.mkdir(parents=True, exist_ok=True)
    for words in commands(folder):
        print(f"\n$ tfport {shlex.join(words)}", flush=True)
        code = subprocess.run(
            [sys.executable, "-c", "from tfport.cli import main; main()", *words], check=False
        ).returncode
        if code:
            return code
    print(f"\nOpen the report in a browser: {(folder / 'report.html').absolute()}")
    print(f"Watch the runs: {Path(sys.executable).parent / 'tensorboard'} --logdir={folder}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tfport.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"), help="where runs and report go")
    sys.exit(main(parser.parse_args().folder))
