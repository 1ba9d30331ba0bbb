"""`make prove`: the long proofs. Every stage leaves its result in runs/prove and is not run again while it stands.

Stages: the ladder over every model in every paradigm, and longer on MNIST; the broken ports; ten kills a paradigm; the
source's whole run; the gallery; the quality of samples over paradigms and seeds; checkpoints carried between paradigms
(carried); optimizers' slots from framework to framework (optimizers); `tfport check` on random ports (campaign) and on
pairs in the manner of real legacy code (foreign), and its time and memory by size (sizes). TFPORT_DATA_DIR names the
folder with MNIST's IDX files; the stages that need it are left out without it, and the pages say so. Written:
docs/proof.md, docs/gallery.md, docs/quality.md, docs/carried.md, docs/optimizers.md, docs/campaign.md,
docs/foreign.md, docs/sizes.md, docs/pictures/*.png. With a kind of stage (matrix, gallery or quality) and names of
models as arguments, only those stages are run and no page is written; with carried, and names of models if not all, or
with campaign, foreign, sizes or optimizers, only that one, with its page.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from proof import campaign, carried, foreign, gallery, kills, ladders, optimizers, quality, sizes, source_run
from proof.stages import FOLDER, LADDER, Result, sources, stage
from tfport import models
from tfport.files import write_atomically
from tfport.paradigms import PARADIGMS
from tfport.versions import versions

LEFT_OUT = "Left out: TFPORT_DATA_DIR was not set.\n"
CHECKS = ("optimizers", "campaign", "foreign", "sizes")
TRAINING = ("shared/tfport/training",)


def matrix_stages(names: Sequence[str]) -> dict[str, Result]:
    """The ladder of some models."""
    return {
        model: stage(f"matrix-{model}", sources(model, LADDER), lambda model=model: ladders.one_model(model))  # type: ignore[misc]
        for model in names
    }


def gallery_stages(names: Sequence[str], data_dir: str) -> dict[str, Result]:
    """The gallery's runs of some models."""
    return {
        model: stage(
            f"gallery-{model}",
            f"{sources(model)}-{gallery.LENGTHS.get(model, 0)}",
            lambda model=model: gallery.trained(model, data_dir),  # type: ignore[misc]
        )
        for model in names
    }


def checks(kind: str) -> list[str]:
    """The campaign, the foreign pairs, the sizes or the optimizers, with its page; returns what is not proven."""
    if kind == "campaign":
        ports = campaign.result()
        write_atomically(Path("docs/campaign.md"), campaign.text(ports))
        return campaign.failures(ports)
    if kind == "foreign":
        pairs = foreign.result()
        write_atomically(Path("docs/foreign.md"), foreign.text(pairs))
        return foreign.failures(pairs)
    if kind == "optimizers":
        slots = optimizers.result()
        write_atomically(Path("docs/optimizers.md"), optimizers.text(slots))
        return optimizers.failures(slots)
    rows = sizes.result()
    write_atomically(Path("docs/sizes.md"), sizes.text(rows))
    return sizes.failures(rows)


def carried_over(names: Sequence[str]) -> list[str]:
    """The checkpoints of some models carried between paradigms, with the page; returns what is not proven."""
    unknown = [name for name in names if name not in models.MODELS]
    if unknown:
        sys.exit(f"{unknown[0]!r} is no model; expected some of {', '.join(models.MODELS)}.")
    found = {}
    for found in carried.results(names):
        write_atomically(Path("docs/carried.md"), carried.text(found))
    return carried.failures(found)


def some(kind: str, names: Sequence[str], data_dir: str | None) -> None:
    """Runs the stages of one kind and of some models, and writes no page."""
    if kind in CHECKS:
        if failed := checks(kind):
            sys.exit("not proven: " + "; ".join(failed))
    elif kind == "carried":
        if failed := carried_over(names):
            sys.exit("not proven: " + "; ".join(failed))
    elif kind == "matrix":
        matrix_stages(names)
    elif data_dir is None:
        sys.exit(LEFT_OUT.strip())
    elif kind == "gallery":
        gallery_stages(names, data_dir)
    elif kind == "quality":
        quality.models_measured(names, data_dir)
    else:
        sys.exit(
            f"{kind!r} is no kind of stage; expected {', '.join(CHECKS)}, or matrix, gallery, quality or carried, then "
            "models."
        )


def main(words: Sequence[str]) -> None:
    """Runs what is missing and writes the pages."""
    data_dir = os.environ.get("TFPORT_DATA_DIR")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if words:
        some(words[0], words[1:] or list(models.MODELS), data_dir)
        return
    matrix = matrix_stages(list(models.MODELS))
    pictures = gallery_stages(list(models.MODELS), data_dir) if data_dir else {}
    now, with_training = sources(more=LADDER), sources(more=TRAINING)
    mnist = stage("ladder-mnist", now, lambda: ladders.on_mnist(data_dir)) if data_dir else None
    mistakes = stage("broken-ports", sources(more=(*LADDER, "tests/broken_ports.py")), ladders.broken_ports)
    run = pictures.get("vanilla_gan")
    killed = [stage(f"kills-{name}", with_training, lambda name=name: kills.kills(name)) for name in PARADIGMS]  # type: ignore[misc]
    measured = quality.all_models(data_dir) if data_dir else None
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = f"""# Proof

Written by `make prove` ({about}). Nothing here is typed in.

## Every model in four paradigms

`tfport compare --model=MODEL` for each, on the embedded digits; `--model=all` goes through them in one command. Figures
are the largest difference as a share of its tensor's largest magnitude, in float32 → in float64, at the rung where
float64 differs most.

{ladders.matrix_text(matrix)}
## vanilla_gan on MNIST

`tfport compare --steps={ladders.MNIST_STEPS} --dataset=mnist --data_dir=FOLDER`

{ladders.rungs_text(mnist) if mnist else LEFT_OUT}
## How far rounding shrinks

{ladders.shrink_text(matrix | ({"vanilla_gan on MNIST": mnist} if mnist else {}))}
## Broken ports

One planted mistake each (`tests/broken_ports.py`), {ladders.BROKEN_STEPS} steps on digits, against tf1_graph. A shrink
of 5e+08 is a difference that float64 leaves as it was.

{ladders.broken_text(mistakes)}
## Kill -9

Runs of vanilla_gan of {kills.STEPS} steps with a checkpoint every 25, killed {kills.KILLS} times a paradigm at random
moments of their training and resumed: the state's digest and the bytes of metrics.csv against a run that was never
stopped.

{kills.text(killed)}
## The source's whole run

`tfport train --model=vanilla_gan --paradigm=tf1_graph --dataset=mnist --data_dir=FOLDER`: 55,000 steps.

{source_run.text(run) if run else LEFT_OUT}"""
    write_atomically(Path("docs/proof.md"), text)
    write_atomically(Path("docs/gallery.md"), gallery.text(pictures) if pictures else f"# Gallery\n\n{LEFT_OUT}")
    write_atomically(Path("docs/quality.md"), quality.text(measured) if measured else f"# Quality\n\n{LEFT_OUT}")
    failed = [*ladders.failures(matrix, mistakes), *kills.failures(killed), *carried_over(list(models.MODELS))]
    for kind in CHECKS:
        failed += checks(kind)
    print("docs/proof.md and the pages gallery, quality, carried, optimizers, campaign, foreign and sizes are written.")
    if measured:
        failed += quality.failures(measured)
    if failed:
        sys.exit("not proven: " + "; ".join(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
