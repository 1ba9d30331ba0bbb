"""What the sample pictures are made from: inputs that stay the same through a run and in every paradigm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfport.data import Dataset, scaled
from tfport.data.batches import generated_inputs

if TYPE_CHECKING:
    from tfport.models.spec import ModelSpec
    from tfport.subject import Batch

STREAM = "samples"
_PLANE = (0.05, 0.95)
"""The part of the latent plane's probability mass that the manifold picture covers, along each axis."""


def sample_inputs(spec: ModelSpec, seed: int, dataset: Dataset, precision: str = "float32") -> Batch:
    """What `generate` is given for the model's sample picture, cell by cell, row by row.

    grid            rows x columns draws
    reconstructions the first `columns` test images
    manifold        the latent plane, laid out by the quantiles of the normal distribution
    by_label        one digit a row, one z a column
    by_code         three panels: a category a column, z by row; then each continuous code swept from -1 to 1 along
                    the columns, a category a row, one z
    """
    samples = spec.samples
    if samples.kind == "reconstructions":
        return {"images": scaled(dataset.test_images[: samples.columns], *spec.data_range, dtype=precision)}
    if samples.kind == "manifold":
        from scipy import stats

        across = stats.norm.ppf(np.linspace(*_PLANE, samples.columns))
        down = stats.norm.ppf(np.linspace(_PLANE[1], _PLANE[0], samples.rows))
        plane = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
        return {"code": plane.astype(np.float32).astype(precision)}
    if samples.kind == "by_label":
        drawn = generated_inputs(spec, seed, STREAM, samples.columns, precision)
        labels = np.eye(samples.rows, dtype=precision)
        return {
            "latent": np.tile(drawn["latent"], (samples.rows, 1)),
            "labels": np.repeat(labels, samples.columns, axis=0),
        }
    if samples.kind == "by_code":
        return _panels(spec, seed, precision)
    return generated_inputs(spec, seed, STREAM, samples.rows * samples.columns, precision)


def _panels(spec: ModelSpec, seed: int, precision: str) -> Batch:
    rows, columns = spec.samples.rows, spec.samples.columns
    drawn = generated_inputs(spec, seed, STREAM, rows, precision)
    each_category = np.eye(columns, dtype=precision)
    width = spec.width("codes")
    latent = [np.repeat(drawn["latent"], columns, axis=0)]
    category = [np.tile(each_category, (rows, 1))]
    codes = [np.zeros((rows * columns, width), precision)]
    for code in range(width):
        swept = np.zeros((rows * columns, width), precision)
        swept[:, code] = np.tile(np.linspace(-1, 1, columns, dtype=np.float32), rows)
        latent.append(np.repeat(drawn["latent"][:1], rows * columns, axis=0))
        category.append(np.repeat(np.eye(rows, columns, dtype=precision), columns, axis=0))
        codes.append(swept)
    return {"latent": np.concatenate(latent), "category": np.concatenate(category), "codes": np.concatenate(codes)}
