"""Makes samples of a trained run, and measures how good they are.

Examples:
  tfport samples --run_dir=runs/vanilla_gan-tf1_graph-mnist-seed0 --png=samples.png
  tfport samples --run_dir=runs/vanilla_gan-tf1_graph-mnist-seed0 --metrics --json=quality.json

The figures: the Parzen-window log-likelihood of Goodfellow et al. 2014, a Frechet distance and class histogram from a
small classifier trained here, and nearest training images. Each has beside it what real images get in its place.

Exit codes: 0 done; 2 bad input.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from tfport.cli.outputs import output_file
from tfport.errors import UserError, whole
from tfport.files import write_atomically, write_json

FLAGS = flags.FLAGS
_FEWEST = 100
"""Images that the figures need."""

flags.DEFINE_string("run_dir", None, "Run directory of tfport train; its newest checkpoint is taken.")
flags.DEFINE_integer("count", 10_000, "Images to make.")
flags.DEFINE_integer("seed", 0, "Seed of the noise and of the measurement, whatever the run's own.")
flags.DEFINE_bool("metrics", False, "Measure the images against the run's data set, and print a table.")
flags.DEFINE_string("json", None, "With --metrics: file to write the figures to.")
flags.DEFINE_string("png", None, "File to write the model's sample picture to.")
flags.DEFINE_string(
    "suspects", None, "With --metrics: file for a picture of the likeliest copies over their originals."
)
flags.DEFINE_string("npz", None, "File to write the images to, as `images` [N, 784] in [0, 1].")


def main() -> int:
    """Does as the flags say; returns the exit code."""
    paths = {name: output_file(name) for name in ("json", "png", "suspects", "npz")}
    if not FLAGS.run_dir:
        raise UserError("--run_dir is missing; name the run directory of a tfport train.")
    if not FLAGS.metrics and not (paths["png"] or paths["npz"]):
        raise UserError("nothing to do: give --metrics, --png=FILE or --npz=FILE.")
    for name in ("json", "suspects"):
        if paths[name] and not FLAGS.metrics:
            raise UserError(f"--{name} holds what --metrics measures; give --metrics too.")
    given = [path for path in paths.values() if path]
    if len(set(given)) < len(given):
        raise UserError("two of --json, --png, --suspects and --npz name one file; give each a file of its own.")
    whole("count", FLAGS.count, _FEWEST if FLAGS.metrics else 1, 1_000_000)
    whole("seed", FLAGS.seed, 0, 2**31 - 1)
    from tfport.report import plots
    from tfport.report import samples as pictures
    from tfport.training.generated import TrainedRun
    from tfport.training.run_directory import spec_changes

    path = Path(FLAGS.run_dir)
    if not (path / "run.json").exists():
        raise UserError(f"{path} holds no run (no run.json); name the run directory of a tfport train.")
    run = TrainedRun(path)
    try:
        config, record = run.config, run.directory.read()
        changed = spec_changes(record, config)
        if changed:
            raise UserError(
                f"{path} is a run of another version of {config.model}: {changed[0]}. "
                "Use the tfport version that made it."
            )
        if record["dataset"]["digest"] != run.dataset.digest:
            raise UserError(
                f"{path} was trained on other images than {run.dataset.source} holds now (data digest "
                f"{str(record['dataset']['digest'])[:12]}, now {run.dataset.digest[:12]}): put the same files there."
            )
        print(
            f"{config.model} in {config.paradigm} after {run.step:,} steps on {config.dataset}, seed {config.seed}; "
            f"the run is {record['status']}"
        )
        if paths["png"]:
            inputs = run.picture_inputs()
            plots.save_png(pictures.picture(run.spec, inputs, run.subject.generate(inputs)), paths["png"])
            print(f"Picture: {paths['png']}")
        if not (FLAGS.metrics or paths["npz"]):
            return 0
        images = run.images(FLAGS.count, FLAGS.seed, progress=True)
    finally:
        run.close()
    if paths["npz"]:
        write_atomically(paths["npz"], _packed(images))
        print(f"Images: {paths['npz']}")
    if FLAGS.metrics:
        from tfport.quality import measure, text

        quality = measure.measure(images, run.dataset, FLAGS.seed, progress=True)
        print(text.table(quality))
        if paths["json"]:
            about = {"model": config.model, "paradigm": config.paradigm, "seed": config.seed, "step": run.step}
            write_json(paths["json"], {"schema": 1, "run": about, **quality.as_json()})
            print(f"JSON: {paths['json']}")
        if paths["suspects"]:
            found = quality.suspects
            rows = np.concatenate([found.images, found.neighbours])
            plots.save_png(plots.sample_grid(rows, 2, len(found.images), (0.0, 1.0)), paths["suspects"])
            print(f"Likeliest copies above, their nearest training images below: {paths['suspects']}")
    return 0


def _packed(images: np.ndarray) -> bytes:
    """The images as an .npz, in float32."""
    import io

    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images.astype(np.float32))
    return buffer.getvalue()
