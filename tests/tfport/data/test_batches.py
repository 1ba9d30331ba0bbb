"""batches: what a step is fed is a function of (seed, step), and an epoch is every image once, where it is one."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest

from tfport import models, randomness
from tfport.data import Dataset
from tfport.data.batches import CLASSES, Batches, generated_inputs
from tfport.errors import UserError
from tfport.models.spec import ModelSpec

every_model = pytest.mark.parametrize("model", models.MODELS)


def dataset(count: int) -> Dataset:
    """Images that carry their own number, as base 256 in their first three pixels; labels count by sevens."""
    images = np.zeros((count, 28, 28), np.uint8)
    numbers = np.arange(count)
    for place in range(3):
        images[:, 0, place] = numbers // 256**place % 256
    labels = (numbers // 7 % CLASSES).astype(np.uint8)
    return Dataset("fake", images, labels, images[:0], labels[:0], "here", "digest")


def numbers(images: Any, low: float = 0.0) -> list[int]:
    """The numbers of the images in a batch whose pixels go from `low` to 1."""
    pixels = np.rint((images[:, :3].astype(np.float64) - low) / (1 - low) * 255).astype(int)
    return [int(number) for number in pixels @ [1, 256, 65_536]]


def sized(model: str, batch_size: int) -> ModelSpec:
    found = models.get(model)
    return dataclasses.replace(found, batching=dataclasses.replace(found.batching, batch_size=batch_size))


def spec(batch_size: int, last_batch: Literal["drop", "keep"] = "drop") -> ModelSpec:
    model = sized("vanilla_gan", batch_size)
    return dataclasses.replace(model, batching=dataclasses.replace(model.batching, last_batch=last_batch))


@every_model
def test_a_batch_is_the_same_whatever_was_asked_before(model: str) -> None:
    steps = [0, 1, 2, 3, 4, 5, 6, 7, 1_000]
    one = Batches(sized(model, 8), dataset(30), seed=4)
    expected = {step: one[step] for step in steps}
    other = Batches(sized(model, 8), dataset(30), seed=4)
    for step in [5, 0, 1_000, 3, 3, 7, 2, 6, 1, 4]:
        assert list(other[step]) == [each.name for each in models.get(model).inputs]
        for key, value in expected[step].items():
            assert other[step][key].tobytes() == value.tobytes()
    for key in expected[0]:
        assert len({batch[key].tobytes() for batch in expected.values()}) == len(steps), key


@every_model
def test_another_seed_gives_another_order_and_other_noise(model: str) -> None:
    one, other = (Batches(sized(model, 8), dataset(30), seed)[0] for seed in (0, 1))
    for key in one:
        assert one[key].tobytes() != other[key].tobytes(), key


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
    assert [batches.epoch(step) for step in range(9)] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    for epoch in (0, 1):
        seen = [number for step in range(4) for number in numbers(batches[4 * epoch + step]["images"])]
        assert sorted(seen) == list(range(30))
    assert Batches(spec(10, "keep"), dataset(30), seed=0).steps_per_epoch == 3


def test_in_a_short_last_batch_everything_is_short() -> None:
    batches = Batches(sized("torch_gan", 8), dataset(30), seed=0)
    assert batches.steps_per_epoch == 4
    assert {name: len(value) for name, value in batches[3].items()} == {
        "images": 6,
        "latent": 6,
        "latent_generator": 6,
    }


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch size 31 is more than the 30 training images of fake.*--batch_size=30"):
        Batches(spec(31), dataset(30), seed=0)
    assert Batches(spec(30), dataset(30), seed=0).steps_per_epoch == 1


def test_the_first_5000_of_60000_images_are_held_out() -> None:
    batches = Batches(spec(5_000), dataset(60_000), seed=0)
    assert batches.steps_per_epoch == 11
    seen = {number for step in range(11) for number in numbers(batches[step]["images"])}
    assert seen == set(range(5_000, 60_000))


def test_nothing_is_held_out_of_a_smaller_file_or_where_the_spec_has_none() -> None:
    assert len(Batches(spec(100), dataset(59_999), seed=0).images) == 59_999
    assert len(Batches(models.get("autoencoder"), dataset(60_000), seed=0).images) == 60_000


def test_labels_stay_with_their_images() -> None:
    for count in (60, 60_000):  # of the whole file the first 5,000 are held out, with their labels
        batches = Batches(sized("conditional_gan", 20), dataset(count), seed=0)
        for step in (0, 1, 7):
            batch = batches[step]
            assert batch["labels"].shape == (20, 10)
            assert (np.sort(batch["labels"], axis=1) == [0] * 9 + [1]).all()
            assert batch["labels"].argmax(1).tolist() == [number // 7 % 10 for number in numbers(batch["images"])]


# --- With replacement -------------------------------------------------------------------------------------------------
def test_with_replacement_every_batch_is_drawn_from_the_whole_set() -> None:
    batches = Batches(sized("leaky_gan", 8), dataset(30), seed=0)
    assert batches.steps_per_epoch == 3
    seen = [numbers(batches[step]["images"], low=-1.0) for step in range(90)]
    assert {len(each) for each in seen} == {8}
    assert [number for number in range(30) if all(number not in each for each in seen)] == []
    assert any(len(set(each)) < 8 for each in seen), "some image twice in one batch"
    first = [number for step in range(3) for number in seen[step]]
    assert len(set(first)) < 24, "an epoch is no order of the set"
    assert [batches.epoch(step) for step in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    for step in (0, 5):
        assert seen[step] == randomness.with_replacement(0, step, 30, 8).tolist() == batches.chosen(step).tolist()


def test_with_replacement_no_batch_is_short_whatever_is_said_of_the_last() -> None:
    model = sized("leaky_gan", 8)
    kept = dataclasses.replace(model, batching=dataclasses.replace(model.batching, last_batch="keep"))
    batches = Batches(kept, dataset(30), seed=0)
    assert batches.steps_per_epoch == 3
    assert {len(batches[step]["images"]) for step in range(9)} == {8}


# --- What is drawn ----------------------------------------------------------------------------------------------------
def test_drawn_inputs_are_streams_by_their_names() -> None:
    batch = Batches(sized("infogan", 40), dataset(40), seed=3)[5]
    assert batch["latent"].tobytes() == randomness.normal(3, "latent", 5, (40, 62)).tobytes()
    assert batch["codes"].tobytes() == randomness.uniform(3, "codes", 5, (40, 2)).tobytes()
    assert batch["category"].tobytes() == randomness.one_hot(3, "category", 5, (40, 10)).tobytes()
    assert -1 <= batch["codes"].min() < -0.5 < 0.5 < batch["codes"].max() < 1
    assert set(batch["category"].sum(1)) == {1}
    labelled = Batches(sized("conditional_gan", 40), dataset(40), seed=3)[5]
    assert labelled["latent"].tobytes() == randomness.uniform(3, "latent", 5, (40, 128)).tobytes()


@pytest.mark.parametrize("model", ["leaky_gan_slope02", "dcgan", "torch_gan"])
def test_fresh_noise_is_other_noise(model: str) -> None:
    batch = Batches(sized(model, 8), dataset(30), seed=0)[0]
    assert batch["latent"].shape == batch["latent_generator"].shape
    assert not np.isin(batch["latent"], batch["latent_generator"]).any()


def test_a_scale_multiplies_the_draw() -> None:
    batch = Batches(sized("torch_gan", 8), dataset(30), seed=0)[2]
    expected = randomness.normal(0, "latent", 2, (8, 50)) * np.float32(0.1)
    assert batch["latent"].tobytes() == expected.tobytes()
    wide = Batches(sized("torch_gan", 8), dataset(30), seed=0, precision="float64")[2]
    assert np.array_equal(wide["latent"], expected.astype(np.float64)), "scaled in float32, and then widened"


def test_images_are_scaled_to_the_models_range() -> None:
    for model, low in (("vanilla_gan", 0.0), ("batchnorm_gan", -1.0)):
        images = Batches(sized(model, 8), dataset(300), seed=0).images
        assert images.min() == low
        assert images[255, 0] == 1.0
        assert numbers(images, low) == list(range(300))


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


@every_model
def test_float64_is_fed_the_numbers_of_float32(model: str) -> None:
    narrow, wide = (Batches(sized(model, 8), dataset(30), 0, precision)[3] for precision in ("float32", "float64"))
    for each in models.get(model).inputs:
        assert narrow[each.name].dtype == np.float32
        assert wide[each.name].dtype == np.float64
        assert narrow[each.name].shape[1] == each.width
        assert np.array_equal(narrow[each.name].astype(np.float64), wide[each.name])


@every_model
def test_changing_a_batch_does_not_change_the_next(model: str) -> None:
    batches = Batches(sized(model, 8), dataset(30), seed=0)
    expected = {key: value.copy() for key, value in batches[0].items()}
    for value in batches[0].values():
        value[...] = -1
    assert all(np.array_equal(batches[0][key], expected[key]) for key in expected)


# --- What samples are drawn from --------------------------------------------------------------------------------------
def test_generated_inputs_are_drawn_as_training_draws_them_in_a_stream_of_their_own() -> None:
    latent = generated_inputs(models.get("vanilla_gan"), 0, "samples", 10)["latent"]
    assert latent.tobytes() == randomness.normal(0, "samples", 0, (10, 128)).tobytes()
    assert latent[0].tobytes() != Batches(spec(10), dataset(30), seed=0)[0]["latent"][0].tobytes()
    coded = generated_inputs(models.get("infogan"), 4, "samples", 200)
    assert list(coded) == ["latent", "category", "codes"]
    assert coded["latent"].tobytes() == randomness.normal(4, "samples", 0, (200, 62)).tobytes()
    assert coded["codes"].tobytes() == randomness.uniform(4, "samples/codes", 0, (200, 2)).tobytes()
    assert coded["category"].tobytes() == randomness.one_hot(4, "samples/category", 0, (200, 10)).tobytes()
    labelled = generated_inputs(models.get("conditional_gan"), 4, "samples", 200)
    assert labelled["latent"].tobytes() == randomness.uniform(4, "samples", 0, (200, 128)).tobytes()
    assert labelled["labels"].shape == (200, 10)
    assert (labelled["labels"].sum(0) > 5).all(), "labels are drawn, each alike"
    scaled = generated_inputs(models.get("torch_gan"), 0, "samples", 500)
    assert list(scaled) == ["latent"]
    assert scaled["latent"].std() == pytest.approx(0.1, rel=0.02)


def test_a_decoder_is_given_standard_normal_codes() -> None:
    found = generated_inputs(models.get("vae"), 0, "samples", 5_000)
    assert found["code"].shape == (5_000, 2)
    assert found["code"].std() == pytest.approx(1, rel=0.02)


def test_a_model_that_draws_nothing_has_no_samples() -> None:
    with pytest.raises(UserError, match=r"autoencoder makes images of images.*no samples of its own"):
        generated_inputs(models.get("autoencoder"), 0, "samples", 10)


@pytest.mark.parametrize("model", [name for name in models.MODELS if name != "autoencoder"])
def test_generated_inputs_are_a_function_of_seed_and_stream(model: str) -> None:
    model_spec = models.get(model)
    found = generated_inputs(model_spec, 0, "samples", 6)
    assert list(found) == list(model_spec.samples.inputs)
    again, seed, stream = (
        generated_inputs(model_spec, *key, 6) for key in ((0, "samples"), (1, "samples"), (0, "other"))
    )
    wide = generated_inputs(model_spec, 0, "samples", 6, "float64")
    for name, value in found.items():
        assert value.dtype == np.float32
        assert len(value) == 6
        assert value.tobytes() == again[name].tobytes()
        assert value.tobytes() != seed[name].tobytes()
        assert value.tobytes() != stream[name].tobytes()
        assert np.array_equal(wide[name], value.astype(np.float64))
        assert wide[name].dtype == np.float64
