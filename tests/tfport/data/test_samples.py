"""sample_inputs: what a model's picture is made of, cell by cell, the same all through a run and in every paradigm."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfport import data, models, randomness
from tfport.data import Dataset
from tfport.data.samples import STREAM, sample_inputs

DIGITS = data.load("digits")
every_model = pytest.mark.parametrize("model", models.MODELS)


@every_model
def test_there_is_one_row_a_cell_for_each_input_that_generate_takes(model: str) -> None:
    spec = models.get(model)
    rows = spec.samples.rows * spec.samples.columns
    if spec.samples.kind == "by_code":
        rows *= 3
    elif spec.samples.kind == "reconstructions":
        rows = spec.samples.columns
    found = sample_inputs(spec, 0, DIGITS)
    assert list(found) == list(spec.samples.inputs)
    for name, value in found.items():
        width = spec.network("decoder").inputs if name == "code" else spec.width(name)
        assert value.shape == (rows, width)
        assert value.dtype == np.float32


@every_model
def test_they_are_a_function_of_the_seed_and_the_same_in_both_precisions(model: str) -> None:
    spec = models.get(model)
    found, again, other = (sample_inputs(spec, seed, DIGITS) for seed in (0, 0, 1))
    wide = sample_inputs(spec, 0, DIGITS, "float64")
    drawn = "latent" in found
    for name, value in found.items():
        assert value.tobytes() == again[name].tobytes()
        assert wide[name].dtype == np.float64
        assert np.array_equal(wide[name], value.astype(np.float64))
    assert (found[next(iter(found))].tobytes() != other[next(iter(other))].tobytes()) is drawn


@pytest.mark.parametrize(("model", "cells"), [("vanilla_gan", 10), ("batchnorm_gan", 10), ("dcgan", 16)])
def test_a_grid_is_of_noise_in_a_stream_of_its_own(model: str, cells: int) -> None:
    spec = models.get(model)
    found = sample_inputs(spec, 3, DIGITS)["latent"]
    assert found.tobytes() == randomness.normal(3, STREAM, 0, (cells, spec.width("latent"))).tobytes()
    training = randomness.normal(3, "latent", 0, (cells, spec.width("latent")))
    assert not np.isin(found, training).any()


def test_torchs_grid_has_torchs_scale() -> None:
    found = sample_inputs(models.get("torch_gan"), 0, DIGITS)["latent"]
    assert found.shape == (25, 50)
    assert found.std() == pytest.approx(0.1, rel=0.05)


def test_reconstructions_are_of_the_first_test_images() -> None:
    spec = models.get("autoencoder")
    found = sample_inputs(spec, 0, DIGITS)["images"]
    expected = DIGITS.test_images[:10].reshape(10, 784).astype(np.float64) / 255
    np.testing.assert_allclose(found, expected, atol=1e-7)
    few = Dataset("few", DIGITS.images, DIGITS.labels, DIGITS.test_images[:3], DIGITS.test_labels[:3], "here", "digest")
    assert len(sample_inputs(spec, 0, few)["images"]) == 3


def test_the_manifold_is_laid_out_by_quantiles_with_the_plane_upright() -> None:
    """Left to right the first coordinate grows, bottom to top the second; the middle is the origin."""
    plane = sample_inputs(models.get("vae"), 0, DIGITS)["code"].reshape(15, 15, 2)
    first, second = plane[..., 0], plane[..., 1]
    assert (first == first[0]).all()
    assert (second == second[:, :1]).all()
    assert (np.diff(first[0]) > 0).all()
    assert (np.diff(second[:, 0]) < 0).all()
    np.testing.assert_allclose(first[0, [0, 7, 14]], [-1.6448536, 0, 1.6448536], atol=1e-6)
    np.testing.assert_allclose(second[[0, 7, 14], 0], [1.6448536, 0, -1.6448536], atol=1e-6)
    # 0.05 + 3 / 14 * 0.9 of a standard normal's mass lies left of the fourth column
    assert first[0, 3] == pytest.approx(-0.6972, abs=1e-3)


def test_by_label_has_a_digit_a_row_and_a_z_a_column() -> None:
    found = sample_inputs(models.get("conditional_gan"), 0, DIGITS)
    latent, labels = found["latent"].reshape(10, 10, 128), found["labels"].reshape(10, 10, 10)
    for row, column in itertools.product(range(10), repeat=2):
        assert labels[row, column].tolist() == np.eye(10)[row].tolist()
        assert latent[row, column].tobytes() == latent[0, column].tobytes()
    assert len({latent[0, column].tobytes() for column in range(10)}) == 10
    assert latent[0].tobytes() == randomness.uniform(0, STREAM, 0, (10, 128)).tobytes()


def test_by_code_has_a_panel_of_categories_and_one_for_each_continuous_code() -> None:
    found = sample_inputs(models.get("infogan"), 0, DIGITS)
    latent = found["latent"].reshape(3, 10, 10, 62)
    category = found["category"].reshape(3, 10, 10, 10).argmax(-1)
    codes = found["codes"].reshape(3, 10, 10, 2)
    assert set(found["category"].sum(1)) == {1}
    # a category a column, a z a row, codes in the middle
    assert (category[0] == np.arange(10)).all()
    assert not codes[0].any()
    assert len({latent[0, row, 0].tobytes() for row in range(10)}) == 10
    assert (latent[0] == latent[0, :, :1]).all()
    # a category a row, one z, one code swept along the columns and the other in the middle
    sweep = np.linspace(-1, 1, 10, dtype=np.float32)
    for code, panel in ((0, 1), (1, 2)):
        assert (category[panel] == np.arange(10)[:, None]).all()
        assert (latent[panel] == latent[0, 0, 0]).all()
        assert (codes[panel, ..., code] == sweep).all()
        assert not codes[panel, ..., 1 - code].any()
