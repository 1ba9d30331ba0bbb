"""`make prove`: the long proofs. Every stage leaves its result in runs/prove and is not run again while it is there.

Stages: the ladder at 500 steps on digits and on MNIST, the broken ports, ten kills a paradigm, and the source's whole
run. TFPORT_DATA_DIR names the folder with MNIST's IDX files; the stages that need it are left out without it, and
docs/proof.md says so. Written: docs/proof.md, docs/pictures/*.png.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tfport import models
from tfport.equivalence.compare import Request, compare
from tfport.equivalence.result import RUNGS
from tfport.equivalence.verdicts import EPSILON_RATIO, FLOOR, SLACK
from tfport.files import write_atomically, write_json
from tfport.paradigms import PARADIGMS
from tfport.remote import child_environment
from tfport.training import metrics
from tfport.training.checkpoint import checkpoints, read_manifest
from tfport.versions import versions

FOLDER = Path("runs/prove")
PICTURES = Path("docs/pictures")
SOURCES = ("tf1_graph", "tf2_eager", "shared/tfport/models", "shared/tfport/data", "shared/tfport/equivalence")
"""A stage is run again when a file under these has changed."""
LADDER_STEPS = 500
BROKEN_STEPS = 20
KILLS = 10
KILL_STEPS = 400
SOURCE_D, SOURCE_G = (-0.663, -0.256), (-3.044, -2.161)
"""The range of the source's printed losses, its epochs 22 to 41 of 550 steps on 55,000 images."""

Result = dict[str, Any]


def stage(name: str, work: Callable[[], Result]) -> Result:
    """The stage's result, from disk where it is there and these sources made it."""
    path = FOLDER / f"{name}.json"
    now = sources()
    if path.exists():
        found: Result = json.loads(path.read_text())
        if found.get("sources") == now:
            print(f"{name}: done before ({path})")
            return found
    print(f"{name}: running", flush=True)
    result = {**work(), "sources": now}
    write_json(path, result)
    return result


def sources() -> str:
    """The first digits of a SHA-256 over what computes: models, paradigms, data and ladder."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{path}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def tfport(*words: str) -> list[str]:
    """The command line of `tfport` in this interpreter."""
    return [sys.executable, "-c", "from tfport.cli import main; main()", *words]


# --- The ladder -------------------------------------------------------------------------------------------------------
def ladder(dataset: str, data_dir: str | None) -> Result:
    """All four paradigms, 500 steps."""
    names = tuple(PARADIGMS)
    report, _ = compare(Request("vanilla_gan", names, steps=LADDER_STEPS, dataset=dataset, data_dir=data_dir))
    return report.as_json()


def broken_ports() -> Result:
    """Every factory of tests/broken_ports.py against tf1_graph."""
    from broken_ports import MISTAKES

    sides = ("tf1_graph", *(f"broken_ports:{name}" for name in MISTAKES))
    report, _ = compare(Request("vanilla_gan", sides, steps=BROKEN_STEPS))
    return report.as_json()


# --- Kills ------------------------------------------------------------------------------------------------------------
def kills(paradigm: str) -> Result:
    """Ten runs killed in the middle of their training and resumed, each against one that was never stopped."""
    root = FOLDER / "kills" / paradigm
    shutil.rmtree(root, ignore_errors=True)
    settings = [f"--paradigm={paradigm}", f"--steps={KILL_STEPS}", "--log_every=1", "--checkpoint_every=25"]
    _begin(settings, root / "unbroken").wait()
    unbroken = _digest(root / "unbroken")
    draws = random.Random(paradigm)
    moments: list[Result] = []
    bar = tqdm(total=KILLS, desc=f"kills {paradigm}")
    while len(moments) < KILLS:
        folder = root / f"killed-{bar.n}"
        shutil.rmtree(folder, ignore_errors=True)
        process = _begin(settings, folder)
        moment = draws.uniform(0.05, 0.9) * KILL_STEPS
        while _logged(folder) < moment and process.poll() is None:
            time.sleep(0.002)
        time.sleep(draws.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        logged = _logged(folder)
        if not 0 < logged < KILL_STEPS:
            continue  # it fell before the first step or after the last: draw again
        reached = max((each.step for each in checkpoints(folder / "checkpoints")), default=0)
        _begin([*settings, "--resume"], folder).wait()
        same = _digest(folder) == unbroken and _same_file(folder, root / "unbroken", "metrics.csv")
        moments.append({"logged": logged, "checkpoint": reached, "same_bits": same})
        bar.update()
    bar.close()
    return {
        "paradigm": paradigm,
        "kills": KILLS,
        "equal": sum(each["same_bits"] for each in moments),
        "moments": moments,
    }


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
    if last.step != KILL_STEPS:
        raise RuntimeError(f"{folder} ended after {last.step} steps, not {KILL_STEPS}")
    return str(read_manifest(last)["state_digest"])


def _same_file(left: Path, right: Path, name: str) -> bool:
    return (left / name).read_bytes() == (right / name).read_bytes()


# --- The source's whole run -------------------------------------------------------------------------------------------
def whole_run(data_dir: str) -> Result:
    """55,000 steps in TF1 on the images at hand; goes on where an earlier call was stopped."""
    folder = FOLDER / "full"
    resume = ["--resume"] if (folder / "run.json").exists() else []
    settings = ["--paradigm=tf1_graph", "--dataset=mnist", f"--data_dir={data_dir}", "--log_every=550"]
    subprocess.run(tfport("train", *settings, f"--run_dir={folder}", *resume), check=True, env=child_environment())
    record = json.loads((folder / "run.json").read_text())
    spec = models.get("vanilla_gan")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in ("losses.png", "samples.gif"):
        shutil.copyfile(folder / name, PICTURES / f"vanilla_gan-{name}")
    shutil.copyfile(folder / "samples" / f"step-{spec.steps:010d}.png", PICTURES / "vanilla_gan-samples.png")
    return {"training_images": record["dataset"]["training_images"], "rows": metrics.read(folder / "metrics.csv")}


# --- docs/proof.md ----------------------------------------------------------------------------------------------------
def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def figure(value: object) -> str:
    """A number in two digits; an en dash for none."""
    return "–" if value is None else f"{float(str(value)):.1e}" if float(str(value)) else "0"


def ladder_text(title: str, result: Result | None) -> str:
    """One ladder run as a table."""
    if result is None:
        return f"### {title}\n\nLeft out: TFPORT_DATA_DIR was not set.\n"
    rows = []
    for number, name in enumerate(RUNGS):
        cells = [f"{number} {name}"]
        for pair in result["pairs"]:
            rung = next(each for each in pair["rungs"] if each["rung"] == name)
            numbers = ""
            if rung["verdict"] == "rounding":
                numbers = f" {figure(rung['float32_relative'])} → {figure(rung['float64_relative'])}"
            cells.append(f"{rung['verdict']}{numbers}")
        rows.append(cells)
    header = ["rung", *(f"{pair['legacy']} → {pair['modern']}" for pair in result["pairs"])]
    about = f"{result['steps']} steps, seed {result['seed']}, {result['dataset']}, {result['seconds']['total']} s."
    return f"### {title}\n\n{about}\n\n{table(header, rows)}"


def broken_text(result: Result) -> str:
    """What was found of each broken port."""
    rows = []
    for pair in result["pairs"]:
        rungs = {rung["rung"]: rung for rung in pair["rungs"]}
        static = [
            finding
            for name in ("structure", "initialisation")
            if rungs[name]["verdict"] in ("different", "not_comparable")
            for finding in rungs[name]["findings"]
        ]
        located = pair["located"]
        first = rungs[located]["first_divergence"] if located else None
        where = f"step {first['step']}, {first['phase'] or 'both phases'}, `{first['tensor']}`" if first else "–"
        shrinks = [float(rung["shrink"]) for rung in pair["rungs"] if rung["shrink"] not in (None, "inf")]
        rows.append(
            [
                pair["modern"].partition(":")[2],
                pair["verdict"],
                static[0] if static else "–",
                located or "–",
                where,
                f"{max(shrinks):.0e}" if shrinks else "–",
            ]
        )
    return table(["mistake", "verdict", "structural finding", "first numerical rung", "where", "largest shrink"], rows)


def shrink_text(results: list[Result | None]) -> str:
    """How the correct ports' differences shrink, beside the bound."""
    rows = []
    for result in results:
        for pair in result["pairs"] if result else ():
            shrinks = [float(rung["shrink"]) for rung in pair["rungs"] if rung["shrink"] is not None]
            largest = max((float(rung["float64_relative"] or 0) for rung in pair["rungs"]), default=0.0)
            if shrinks or largest:
                rows.append(
                    [
                        f"{pair['legacy']} → {pair['modern']}",
                        str(result["dataset"]).split()[0] if result else "",
                        f"{max(shrinks):.2g}" if shrinks else "–",
                        f"{largest:.1e}",
                    ]
                )
    return table(["pair", "data", "largest shrink", "largest relative float64 difference"], rows)


def run_text(result: Result | None) -> str:
    """The whole run beside the source's figures."""
    if result is None:
        return "Left out: TFPORT_DATA_DIR was not set.\n"
    rows = [row for row in result["rows"] if row[0] % 550 == 0]
    window = [row for row in rows if 22 <= row[0] / 550 <= 41]
    ranges = [(min(row[index] for row in window), max(row[index] for row in window)) for index in (2, 3)]
    inside = [sum(low <= row[index] <= high for row in window) for index, (low, high) in ((2, SOURCE_D), (3, SOURCE_G))]
    sources = (("loss_D", SOURCE_D), ("loss_G", SOURCE_G))
    summary = table(
        ["", "source, 55,000 images", f"here, {result['training_images']:,} images", "rows inside the source's range"],
        [
            [name, f"{low} to {high}", f"{least:.3f} to {most:.3f}", f"{held} of {len(window)}"]
            for (name, (low, high)), (least, most), held in zip(sources, ranges, inside, strict=True)
        ],
    )
    listing = table(
        ["epoch of 550 steps", "loss_D", "loss_G", "inside the source's range (its epochs 22 to 41)"],
        [
            [
                str(int(row[0] // 550)),
                f"{row[2]:.3f}",
                f"{row[3]:.3f}",
                ("yes" if SOURCE_D[0] <= row[2] <= SOURCE_D[1] and SOURCE_G[0] <= row[3] <= SOURCE_G[1] else "no")
                if 22 <= row[0] / 550 <= 41
                else "",
            ]
            for row in rows
        ],
    )
    return (
        f"The last batch's losses at the end of each 550 steps; epochs 22 to 41 beside what the source prints:\n\n"
        f"{summary}\nEach epoch here passes over the images {55_000 / result['training_images']:.1f} times, where the "
        f"source's passes once.\n\n<details><summary>all {len(rows)} epochs</summary>\n\n{listing}\n</details>\n"
    )


def main() -> None:
    """Runs what is missing and writes docs/proof.md."""
    data_dir = os.environ.get("TFPORT_DATA_DIR")
    FOLDER.mkdir(parents=True, exist_ok=True)
    killed = [stage(f"kills-{name}", lambda name=name: kills(name)) for name in PARADIGMS]  # type: ignore[misc]
    run = stage("full-run", lambda: whole_run(data_dir)) if data_dir else None
    digits = stage("ladder-digits", lambda: ladder("digits", None))
    mnist = stage("ladder-mnist", lambda: ladder("mnist", data_dir)) if data_dir else None
    mistakes = stage("broken-ports", broken_ports)
    kill_rows = []
    for each in killed:
        moments = ", ".join(f"{moment['logged']} ({moment['checkpoint']})" for moment in each["moments"])
        kill_rows.append([each["paradigm"], f"{each['equal']} of {each['kills']}", moments])
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = f"""# Proof

Written by `make prove` ({about}, sources {sources()});
`TFPORT_DATA_DIR` named a folder with MNIST's IDX files. Nothing here is typed in.

## One computation in four paradigms

Figures are the largest difference as a share of its tensor's largest magnitude, in float32 → in float64.

{ladder_text("digits", digits)}
{ladder_text("MNIST", mnist)}
Again: `tfport compare --steps={LADDER_STEPS}`, and `--dataset=mnist --data_dir=FOLDER`.

## How far rounding shrinks

Shrink is the float64 difference over 2⁻²⁹ of the float32 one, for the same tensor. The bound is {SLACK:.0f}, with a
floor of {FLOOR:.1e} on the relative float64 difference; 2⁻²⁹ is {EPSILON_RATIO:.2e}. Correct ports:

{shrink_text([digits, mnist])}
## Broken ports

One planted mistake each (`tests/broken_ports.py`), {BROKEN_STEPS} steps on digits, against tf1_graph. A shrink of 5e+08
is a difference that float64 leaves as it was.

{broken_text(mistakes)}
## Kill -9

Runs of {KILL_STEPS} steps with a checkpoint every 25, killed {KILLS} times a paradigm at random moments of their
training and resumed: the state's digest and the bytes of metrics.csv against a run that was never stopped.

{table(["paradigm", "same bits", "last step logged before the kill (checkpoint resumed from)"], kill_rows)}
## The source's whole run

`tfport train --paradigm=tf1_graph --dataset=mnist --data_dir=FOLDER --log_every=550`: 55,000 steps.

![ten samples after 55,000 steps](pictures/vanilla_gan-samples.png)

{run_text(run)}"""
    write_atomically(Path("docs/proof.md"), text)
    print("docs/proof.md is written.")
    failed = [
        *(
            f"{pair['modern']} is {pair['verdict']}"
            for result in (digits, mnist)
            if result
            for pair in result["pairs"]
            if pair["verdict"] not in ("identical", "rounding")
        ),
        *(f"{pair['modern']} passed" for pair in mistakes["pairs"] if pair["verdict"] in ("identical", "rounding")),
        *(f"{each['paradigm']}: {each['equal']} of {each['kills']} kills" for each in killed if each["equal"] < KILLS),
    ]
    if failed:
        sys.exit("not proven: " + "; ".join(failed))


if __name__ == "__main__":
    main()
