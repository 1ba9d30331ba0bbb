"""measure: every figure and its floor, on generators that are known to be good, copying, collapsed and broken."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tfport.data import Dataset
from tfport.errors import UserError
from tfport.quality import measure as module
from tfport.quality.classifier import Classifier
from tfport.quality.measure import Array, Quality, checked, measure, split_training

pytestmark = pytest.mark.usefixtures("reader")  # trained once, before any of these asks the cache for it


def test_real_images_are_as_good_as_the_floor(digits: Dataset, training: Array, cache: Path) -> None:
    """Exactly so, when they are the floor's own."""
    _, rest = split_training(1500, 0)
    found = measure(training[rest[:500]], digits, 0, cache)
    assert (found.given, found.compared) == (500, 500)
    assert found.parzen.mean == pytest.approx(found.parzen_floor.mean)
    assert dataclasses.replace(found.parzen, mean=0, standard_error=0) == dataclasses.replace(
        found.parzen_floor, mean=0, standard_error=0
    )
    assert found.frechet == pytest.approx(found.frechet_floor, abs=1e-4)
    assert found.histogram.counts == found.histogram_floor.counts
    assert found.neighbours.near_copies == 500, "they are training images, after all"
    assert found.neighbours.median == 0 < found.neighbours_floor.median


def test_figures_of_the_floor_are_those_of_real_images(
    digits: Dataset, training: Array, test_images: Array, cache: Path, reader: Classifier
) -> None:
    found = measure(training, digits, 0, cache)
    right = (reader.outputs(test_images).probabilities.argmax(axis=1) == digits.test_labels).sum()
    assert found.reader.accuracy == right / 297 > 0.95
    assert found.reader.digest == reader.digest
    assert (found.reader.tested, found.parzen.tested, found.neighbours_floor.images) == (297, 297, 297)
    assert found.parzen_floor.mean > 700
    assert found.histogram_floor.total_variation < 0.06
    assert found.histogram_test.total_variation < 0.03
    assert sum(found.histogram_test.counts) == 297
    assert found.neighbours_floor.near_copies == 0


def test_as_many_generated_as_real_images_are_compared(digits: Dataset, training: Array, cache: Path) -> None:
    """Of more samples than there are real ones, some; neighbours are looked up for all."""
    found = measure(np.concatenate([training, training]), digits, 0, cache)
    assert (found.given, found.compared) == (3000, 1200)
    assert found.parzen.samples == found.parzen_floor.samples == 1200
    assert sum(found.histogram.counts) == sum(found.histogram_floor.counts) == 1200
    assert found.parzen.validated == found.parzen_floor.validated == 300
    assert (found.neighbours.images, found.neighbours.training) == (3000, 1500)


def test_samples_in_order_of_their_class_are_drawn_from_all_over(digits: Dataset, training: Array, cache: Path) -> None:
    ordered = np.repeat(training[np.argsort(digits.labels, kind="stable")], 2, axis=0)
    assert measure(ordered, digits, 0, cache).histogram.total_variation < 0.06


def test_a_constant_image_is_terrible(digits: Dataset, training: Array, cache: Path) -> None:
    found = measure(np.repeat(training[:1], 300, axis=0), digits, 0, cache)
    assert sorted(found.histogram.counts) == [0] * 9 + [300]
    assert found.histogram.total_variation > 0.85 > 10 * found.histogram_floor.total_variation
    assert found.frechet > 5 * found.frechet_floor
    assert found.parzen.mean < found.parzen_floor.mean - 500
    assert found.neighbours.near_copies == 300


def test_a_mode_collapse_shows(digits: Dataset, training: Array, cache: Path, generator: np.random.Generator) -> None:
    """Good images, of two classes only."""
    two = training[np.isin(digits.labels, (1, 7))]
    samples = np.clip(two + generator.normal(0, 0.05, two.shape), 0, 1)
    found = measure(samples, digits, 0, cache)
    assert sum(found.histogram.counts[each] for each in (1, 7)) > 0.95 * len(samples)
    assert found.histogram.total_variation > 0.7
    assert found.frechet > 3 * found.frechet_floor
    assert found.parzen.mean < found.parzen_floor.mean - 100


def test_noise_is_worse_than_noisy_digits(
    digits: Dataset, training: Array, cache: Path, generator: np.random.Generator
) -> None:
    noisy = measure(np.clip(training[:400] + generator.normal(0, 0.1, (400, 784)), 0, 1), digits, 0, cache)
    noise = measure(generator.random((400, 784)), digits, 0, cache)
    assert noise.parzen.mean < noisy.parzen.mean < noisy.parzen_floor.mean
    assert noise.frechet > noisy.frechet > noisy.frechet_floor
    assert noise.histogram.total_variation > noisy.histogram.total_variation
    assert noise.neighbours.median > noisy.neighbours.median
    assert noise.neighbours.near_copies == 0


def test_planted_copies_are_the_suspects(digits: Dataset, training: Array, test_images: Array, cache: Path) -> None:
    samples = test_images.copy()
    samples[[7, 70]] = training[[1, 1000]]
    found = measure(samples, digits, 0, cache)
    assert found.neighbours.near_copies == 2
    assert found.suspects.image_indices[:2].tolist() == [7, 70]
    assert found.suspects.training_indices[:2].tolist() == [1, 1000]
    assert found.suspects.images.shape == found.suspects.neighbours.shape == (module.SUSPECTS, 784)


def test_it_repeats_itself_and_depends_on_the_seed(
    digits: Dataset, training: Array, cache: Path, reader: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = training[:200] * 0.9
    assert measure(samples, digits, 0, cache) == measure(samples, digits, 0, cache)
    monkeypatch.setattr("tfport.quality.classifier.load_or_train", lambda *_: reader)
    assert measure(samples, digits, 1).parzen_floor != measure(samples, digits, 0).parzen_floor


def test_samples_are_not_changed(digits: Dataset, training: Array, cache: Path) -> None:
    samples = training[:100].astype(np.float32) + np.float32(5e-6)
    before = samples.copy()
    measure(samples, digits, 0, cache)
    np.testing.assert_array_equal(samples, before)


def test_json_has_every_figure_and_its_floor(digits: Dataset, training: Array, cache: Path) -> None:
    found = measure(training[:150], digits, 0, cache)
    value = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert value == found.as_json(), "JSON values and no others"
    assert value["parzen"]["generated"]["mean"] == found.parzen.mean
    assert value["parzen"]["floor"]["mean"] == found.parzen_floor.mean
    rests_on_it = value["classifier"]
    assert rests_on_it["accuracy"] == found.reader.accuracy
    assert rests_on_it["frechet"] == {"generated": found.frechet, "floor": found.frechet_floor}
    assert rests_on_it["histogram"]["test"]["counts"] == list(found.histogram_test.counts)
    assert value["neighbours"]["generated"]["near_copies"] == 150
    assert len(value["neighbours"]["suspects"]["ratios"]) == module.SUSPECTS
    kept = {field.name for field in dataclasses.fields(Quality)}
    assert kept >= {"parzen_floor", "frechet_floor", "histogram_floor", "neighbours_floor"}


def test_the_split_takes_every_training_image_once() -> None:
    for count, held in ((100, 20), (1500, 300), (5000, 1000), (60_000, 1000)):
        held_out, rest = split_training(count, 3)
        assert len(held_out) == held
        np.testing.assert_array_equal(np.sort(np.concatenate([held_out, rest])), np.arange(count))
    assert split_training(1500, 0)[0].tolist() != split_training(1500, 1)[0].tolist()


def broken(value: float) -> Array:
    samples = np.full((120, 784), 0.5)
    samples[17, 300] = value
    return samples


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (np.full((120, 28, 28), 0.5), r"shape \[120, 28, 28\]"),
        (np.full((120, 100), 0.5), r"shape \[120, 100\]"),
        (np.full(784, 0.5), r"shape \[784\]"),
        (np.full((120, 784), 255, np.uint8), "uint8"),
        (np.full((99, 784), 0.5), "found 99"),
        (broken(np.nan), "1 of 120 have NaN"),
        (broken(np.inf), "1 of 120 have NaN or infinite"),
        (broken(-0.01), "from -0.01 to 0.5"),
        (broken(1.01), "from 0.5 to 1.01"),
    ],
)
def test_what_is_no_image_is_refused(digits: Dataset, samples: Array, says: str) -> None:
    with pytest.raises(UserError, match=says):
        measure(samples, digits, 0)


def test_rounding_is_moved_to_the_edge() -> None:
    samples = np.tile(np.array([-1e-6, 1 + 1e-6], np.float32), (100, 392))
    found = checked(samples)
    assert found.dtype == np.float64
    assert set(np.unique(found)) == {0.0, 1.0}


def test_data_and_seeds_that_do_not_do_are_refused(digits: Dataset, training: Array) -> None:
    few = dataclasses.replace(digits, images=digits.images[:99], labels=digits.labels[:99])
    with pytest.raises(UserError, match="99 training images"):
        measure(training, few, 0)
    few = dataclasses.replace(digits, test_images=digits.test_images[:50], test_labels=digits.test_labels[:50])
    with pytest.raises(UserError, match="50 test images"):
        measure(training, few, 0)
    with pytest.raises(UserError, match="out of range"):
        measure(training, digits, -1)


def test_the_parzen_figures_alone_are_those_of_the_whole(digits: Dataset, cache: Path) -> None:
    samples = np.random.default_rng(0).random((150, 784)) * 0.5
    whole = measure(samples, digits, 0, cache)
    assert module.parzen_of(samples, digits, 0) == whole.parzen
    assert module.parzen_floor_of(digits, 150, 0) == whole.parzen_floor
    assert module.parzen_of(samples[:120], digits, 0) != whole.parzen
