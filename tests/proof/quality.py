"""docs/quality.md: Parzen figures of every GAN over paradigms and seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from proof.stages import Result, sources, stage, table
from tfport import data, models, paradigms
from tfport.data.batches import Batches
from tfport.initial import initial_state
from tfport.paradigms import PARADIGMS
from tfport.quality import measure, parzen
from tfport.quiet import load_tensorflow
from tfport.training.generated import images_of

GANS: dict[str, int] = {
    "vanilla_gan": 300,
    "batchnorm_gan": 300,
    "leaky_gan": 300,
    "torch_gan": 300,
    "dcgan": 40,
    "conditional_gan": 300,
    "infogan": 300,
}
"""GAN -> steps of each run: short, since there are twelve runs a model and Keras 2 is slow."""
SEEDS = (0, 1, 2)
SAMPLES = 10_000
MEASURED_BY = 0
"""Seed of the samples' noise and of the images held out."""

_PLACES = ("shared/tfport/quality", "shared/tfport/training/generated.py")


def cell(model: str, paradigm: str, seed: int, data_dir: str) -> Result:
    """One run, and the Parzen log-likelihood of its samples."""
    load_tensorflow()
    spec, dataset = models.get(model), data.load("mnist", data_dir)
    batches = Batches(spec, dataset, seed)
    subject = paradigms.build(paradigm, spec, "float32", seed)
    try:
        subject.load(initial_state(spec, seed, "float32"))
        for step in range(GANS[model]):
            subject.step(batches[step])
        found = measure.parzen_of(images_of(subject, SAMPLES, MEASURED_BY), dataset, MEASURED_BY)
    finally:
        subject.close()
    return _figures(found)


def _figures(found: parzen.Parzen) -> Result:
    return {"mean": found.mean, "standard_error": found.standard_error, "sigma": found.sigma}


def floor(data_dir: str) -> Result:
    """What real training images get in the place of samples."""
    return _figures(measure.parzen_floor_of(data.load("mnist", data_dir), SAMPLES, MEASURED_BY))


def all_models(data_dir: str) -> Result:
    """Every cell, and the floor; goes on where an earlier call was stopped."""
    folder = str(Path(data_dir).absolute())
    real = stage("quality-floor", sources(more=_PLACES), lambda: floor(folder))
    dataset = data.load("mnist", folder)
    compared = min(SAMPLES, len(measure.split_training(len(dataset.images), MEASURED_BY)[1]))
    counts = {"compared": compared, "training": len(dataset.images), "tested": len(dataset.test_images)}
    return {"floor": real, "counts": counts, **models_measured(list(GANS), data_dir)}


def models_measured(names: Sequence[str], data_dir: str) -> Result:
    """Every cell of some GANs, by `<model>/<paradigm>/<seed>`."""
    folder = str(Path(data_dir).absolute())
    results: Result = {}
    for model in names:
        steps = GANS[model]
        now = f"{sources(model, _PLACES)}-{steps}"
        for seed in SEEDS:
            for paradigm in PARADIGMS:
                results[f"{model}/{paradigm}/{seed}"] = stage(
                    f"quality-{model}-{paradigm}-{seed}",
                    now,
                    lambda model=model, paradigm=paradigm, seed=seed: cell(model, paradigm, seed, folder),  # type: ignore[misc]
                )
    return results


def spreads(results: Result, model: str) -> tuple[float, float]:
    """The mean range over paradigms at one seed, and over seeds in one paradigm."""
    figures = {(name, seed): results[f"{model}/{name}/{seed}"]["mean"] for name in PARADIGMS for seed in SEEDS}
    over_paradigms = [_range([figures[name, seed] for name in PARADIGMS]) for seed in SEEDS]
    over_seeds = [_range([figures[name, seed] for seed in SEEDS]) for name in PARADIGMS]
    return statistics.mean(over_paradigms), statistics.mean(over_seeds)


def _range(values: list[float]) -> float:
    return max(values) - min(values)


def text(results: Result) -> str:
    """The page."""
    rows, summary = [], []
    for model, steps in GANS.items():
        for seed in SEEDS:
            cells = [results[f"{model}/{name}/{seed}"] for name in PARADIGMS]
            shown = [f"{each['mean']:.1f} ± {each['standard_error']:.1f}" for each in cells]
            rows.append([f"`{model}`", f"{steps:,}", str(seed), *shown])
        paradigms_differ, seeds_differ = spreads(results, model)
        summary.append([f"`{model}`", f"{paradigms_differ:.2f}", f"{seeds_differ:.2f}"])
    real, counts = results["floor"], results["counts"]
    held = counts["training"] - counts["compared"]
    return f"""# Quality of samples

Written by `make prove`. Log-likelihood by Parzen windows (Goodfellow et al. 2014, arXiv:1406.2661), in nats:
{counts["compared"]:,} samples of short runs on MNIST, sigma chosen on the {held:,} training images that are held out,
mean and standard error over the {counts["tested"]:,} test images. With all of MNIST the paper's 10,000 samples are
compared; of the {counts["training"]:,} training images here, {counts["compared"]:,} are left for the floor.
Real training images in the place of samples get {real["mean"]:.1f} ± {real["standard_error"]:.1f} (sigma
{real["sigma"]:.3f}). Variants of a model are left out.
One cell by hand: `tfport train --model=MODEL --paradigm=PARADIGM --dataset=mnist --data_dir=FOLDER --steps=STEPS
--seed=SEED --run_dir=RUN`, then `tfport samples --run_dir=RUN --metrics`.

{table(["model", "steps", "seed", *PARADIGMS], rows)}
## Paradigms against seeds

The range of the figures over the four paradigms at one seed, and over the three seeds in one paradigm, each averaged.
Float rounding is all that tells paradigms apart; another seed is another run.

{table(["model", "range over paradigms, nats", "range over seeds, nats"], summary)}"""


def failures(results: Result) -> list[str]:
    """Models whose paradigms differ more than their seeds."""
    found = []
    for model in GANS:
        over_paradigms, over_seeds = spreads(results, model)
        if not over_paradigms < over_seeds:
            found.append(f"{model}: paradigms differ by {over_paradigms:.2f} nats, seeds by {over_seeds:.2f}")
    return found
