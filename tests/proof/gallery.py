"""docs/gallery.md: every model trained by its source's settings on real digits, and what it makes."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from proof.stages import FOLDER, PICTURES, Result, sources, train
from tfport import models
from tfport.training import metrics

LENGTHS: dict[str, int] = {
    "batchnorm_gan": 30_000,
    "torch_gan": 6_000,
    "autoencoder": 6_000,
    "dcgan": 3_000,
    "conditional_gan": 20_000,
    "infogan": 20_000,
}
"""Steps of the models whose source trains for longer than a gallery should take."""

REMARKS: dict[str, str] = {
    "leaky_gan_shallow": "Without its hidden layer the generator is all but linear, and every z gives one and the same "
    "noise: the note's mistake, in every paradigm.",
    "torch_gan": "No digits: the batch normalisation at the end of D gives real and fake batches one mean logit, so "
    "loss_D stays at its floor of 2 ln 2, and next to no signal reaches G.",
    "torch_gan_l2": "Under the same batch normalisation least squares bring ink to the middle, and no digits yet.",
}
"""What a reader of a picture should know."""

PARADIGMS = {"vanilla_gan": "tf1_graph"}
"""Paradigm of the run where it is not gradient_tape: the source of vanilla_gan is TF1, and its losses are looked at."""
_ALT = {
    "grid": "samples",
    "reconstructions": "test images above, their reconstructions below",
    "manifold": "what the decoder makes of the latent plane",
    "by_label": "one row a digit, one z a column",
    "by_code": "one column a category; then each continuous code swept from -1 to 1, one row a category",
}


def settings(model: str) -> list[str]:
    """The words after `tfport train`, without folders."""
    length = [f"--steps={LENGTHS[model]}"] if model in LENGTHS else []
    return [f"--model={model}", f"--paradigm={PARADIGMS.get(model, 'gradient_tape')}", "--dataset=mnist", *length]


def trained(model: str, data_dir: str) -> Result:
    """Trains one model and copies its last picture into docs/pictures."""
    folder = FOLDER / "gallery" / f"{model}-{sources(model)}"  # a run of other sources is another run
    length = f"--steps={LENGTHS.get(model, models.get(model).steps)}"  # said also where a shorter run goes on
    record = train(folder, *settings(model), length, f"--data_dir={Path(data_dir).absolute()}")
    PICTURES.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "samples" / f"step-{record['step']:010d}.png", PICTURES / f"{model}-samples.png")
    for name in ("latent.png", "samples.gif"):
        if (folder / name).exists() and (name != "samples.gif" or model == "vanilla_gan"):
            shutil.copyfile(folder / name, PICTURES / f"{model}-{name}")
    return {
        "model": model,
        "steps": record["step"],
        "training_images": record["dataset"]["training_images"],
        "rows": metrics.read(folder / "metrics.csv"),
    }


def text(results: dict[str, Result]) -> str:
    """The page: a picture a model, the command under it."""
    parts = []
    for model, result in results.items():
        spec = models.get(model)
        length = f"{result['steps']:,} steps"
        if result["steps"] < spec.steps:
            length += f", shortened: the source's run has {spec.steps:,}"
        command = shlex.join(["tfport", "train", *settings(model), "--data_dir=FOLDER"])
        plane = f"\n![where the encoder puts the test images, by digit](pictures/{model}-latent.png)\n"
        parts.append(
            f"## {model}\n\n{spec.source[0].upper()}{spec.source[1:]}. {length}, batch {spec.batching.batch_size}, "
            f"on {result['training_images']:,} of MNIST's training images. {REMARKS.get(model, '')}".rstrip()
            + "\n\n"
            f"![{_ALT[spec.samples.kind]}](pictures/{model}-samples.png)\n"
            f"{plane if spec.samples.kind == 'manifold' else ''}\n```\n{command}\n```\n"
        )
    return (
        "# Gallery\n\nWritten by `make prove`. Every model as its source trains it, in one paradigm from seed 0; the "
        "others start from the\nsame weights and see the same batches and noise. FOLDER is a folder with MNIST's IDX "
        "files.\n\n" + "\n".join(parts)
    )
