"""batches: what a step is fed is a function of (seed, step), and an epoch is every image once."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest

from tfport import models
from tfport.data import Dataset
from tfport.data.batches import Batches, sample_latent
from tfport.errors import UserError
from tfport.models.spec import ModelSpec


def dataset(count: int) -> Dataset:
    """Images that carry their own number, as base 256 in their first three pixels."""
    images = np.zeros((count, 28, 28), np.uint8)
    numbers = np.arange(count)
    for place in range(3):
        images[:, 0, place] = numbers // 256**place % 256
    labels = np.zeros(count, np.uint8)
    return Dataset("fake", images, labels, images[:0], labels[:0], "here", "digest")


def numbers(images: Any) -> list[int]:
    """The numbers of the images in a batch."""
    pixels = np.rint(images[:, :3].astype(np.float64) * 255).astype(int)
    return [int(number) for number in pixels @ [1, 256, 65_536]]


def spec(batch_size: int, last_batch: Literal["drop", "keep"] = "drop") -> ModelSpec:
    model = models.get("vanilla_gan")
    batching = dataclasses.replace(model.batching, batch_size=batch_size, last_batch=last_batch)
    return dataclasses.replace(model, batching=batching)


def test_a_batch_is_the_same_whatever_was_asked_before() -> None:
    steps = [0, 1, 2, 3, 4, 5, 6, 7, 1_000]
    one = Batches(spec(8), dataset(30), seed=4)
    expected = {step: one[step] for step in steps}
    other = Batches(spec(8), dataset(30), seed=4)
    for step in [5, 0, 1_000, 3, 3, 7, 2, 6, 1, 4]:
        for key in ("images", "latent"):
            assert other[step][key].tobytes() == expected[step][key].tobytes()
    assert len({batch["latent"].tobytes() for batch in expected.values()}) == len(steps)


def test_another_seed_gives_another_order_and_other_noise() -> None:
    one, other = (Batches(spec(8), dataset(30), seed)[0] for seed in (0, 1))
    assert numbers(one["images"]) != numbers(other["images"])
    assert one["latent"].tobytes() != other["latent"].tobytes()


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_is_every_image_once(epoch: int) -> None:
    batches = Batches(spec(6), dataset(30), seed=0)
    assert batches.steps_per_epoch == 5
    steps = range(5 * epoch, 5 * epoch + 5)
    assert sorted(number for step in steps for number in numbers(batches[step]["images"])) == list(range(30))
    assert {batches.epoch(step) for step in steps} == {epoch}


def test_epochs_have_different_orders() -> None:
    batches = Batches(spec(30), dataset(30), seed=0)
    orders = [tuple(numbers(batches[step]["images"])) for step in range(5)]
    assert len(set(orders)) == 5


def test_a_short_last_batch_is_dropped() -> None:
    batches = Batches(spec(8), dataset(30), seed=0)
    assert batches.steps_per_epoch == 3
    assert {len(batches[step]["images"]) for step in range(9)} == {8}
    first = [number for step in range(3) for number in numbers(batches[step]["images"])]
    assert len(set(first)) == 24


def test_a_short_last_batch_is_kept_where_the_spec_says_so() -> None:
    batches = Batches(spec(8, "keep"), dataset(30), seed=0)
    assert batches.steps_per_epoch == 4
    assert [len(batches[step]["images"]) for step in range(5)] == [8, 8, 8, 6, 8]
    assert batches[3]["latent"].shape == (6, 128)
    assert Batches(spec(10, "keep"), dataset(30), seed=0).steps_per_epoch == 3


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch size 31 is more than the 30 training images of fake.*--batch_size=30"):
        Batches(spec(31), dataset(30), seed=0)
    assert Batches(spec(30), dataset(30), seed=0).steps_per_epoch == 1


def test_the_first_5000_of_60000_images_are_held_out() -> None:
    batches = Batches(spec(5_000), dataset(60_000), seed=0)
    assert batches.steps_per_epoch == 11
    seen = {number for step in range(11) for number in numbers(batches[step]["images"])}
    assert seen == set(range(5_000, 60_000))


def test_nothing_is_held_out_of_a_smaller_file() -> None:
    assert len(Batches(spec(100), dataset(59_999), seed=0).images) == 59_999


def test_the_source_has_550_steps_an_epoch() -> None:
    model = models.get("vanilla_gan")
    assert Batches(model, dataset(60_000), seed=0).steps_per_epoch == model.steps_per_epoch


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_dtypes_and_shapes(precision: str) -> None:
    batch = Batches(spec(8), dataset(30), 0, precision)[0]
    assert {key: (value.dtype.name, value.shape) for key, value in batch.items()} == {
        "images": (precision, (8, 784)),
        "latent": (precision, (8, 128)),
    }


def test_float64_is_fed_the_numbers_of_float32() -> None:
    narrow, wide = (Batches(spec(8), dataset(30), 0, precision)[3] for precision in ("float32", "float64"))
    for key in narrow:
        assert np.array_equal(narrow[key].astype(np.float64), wide[key])


def test_changing_a_batch_does_not_change_the_next() -> None:
    batches = Batches(spec(8), dataset(30), seed=0)
    expected = {key: value.copy() for key, value in batches[0].items()}
    for value in batches[0].values():
        value[...] = -1
    assert all(np.array_equal(batches[0][key], expected[key]) for key in expected)


def test_sample_noise_is_its_own_stream_and_fits_the_grid() -> None:
    model = models.get("vanilla_gan")
    assert sample_latent(model, 0).shape == (10, 128)
    assert sample_latent(model, 0).tobytes() == sample_latent(model, 0).tobytes()
    assert sample_latent(model, 0)[0].tobytes() != Batches(spec(10), dataset(30), seed=0)[0]["latent"][0].tobytes()
