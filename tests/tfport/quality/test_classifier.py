"""classifier: it reads, it repeats itself, it leaves global state alone, and its cache is never believed blindly."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfport import data, state
from tfport.data import Dataset
from tfport.quality import classifier
from tfport.quality.classifier import Array, Classifier
from tfport.state import State


def small(digits: Dataset) -> Dataset:
    """A data set whose classifier takes a moment."""
    return dataclasses.replace(digits, images=digits.images[:200], labels=digits.labels[:200], digest="small")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training of a few steps."""
    monkeypatch.setattr(classifier, "_FEWEST_STEPS", 3)
    monkeypatch.setattr(classifier, "_EPOCHS", 1)


def test_it_reads_the_digits(reader: Classifier, digits: Dataset, test_images: Array) -> None:
    outputs = reader.outputs(test_images)
    assert classifier.accuracy(outputs.probabilities, digits.test_labels) > 0.95
    assert outputs.features.shape == (297, classifier.FEATURES)
    assert outputs.probabilities.shape == (297, 10)
    assert {outputs.features.dtype, outputs.probabilities.dtype} == {np.dtype(np.float32)}
    np.testing.assert_allclose(outputs.probabilities.sum(axis=1), 1, atol=1e-5)
    assert outputs.features.std(axis=0).min() > 0.1, "every feature is alive"


def test_without_training_it_does_not_read(digits: Dataset, training: Array, test_images: Array) -> None:
    """The test above can fail: a classifier of one step, and one that learnt from shuffled labels, are blind."""
    one_step = classifier.train(training, digits.labels, 0, steps=1)
    misled = classifier.train(training, np.roll(digits.labels, 7), 0, steps=60)
    for blind in (one_step, misled):
        assert classifier.accuracy(blind.outputs(test_images).probabilities, digits.test_labels) < 0.4


def test_accuracy() -> None:
    said = np.eye(10)[[1, 2, 3, 4]]
    assert classifier.accuracy(said, np.array([1, 2, 3, 5], np.uint8)) == 0.75


def test_outputs_do_not_depend_on_what_else_is_asked(reader: Classifier, training: Array) -> None:
    """1,500 images are several chunks; each image keeps its own row."""
    whole, part = reader.outputs(training), reader.outputs(training[1100:1110])
    np.testing.assert_allclose(whole.features[1100:1110], part.features, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(whole.probabilities[1100:1110].argmax(1), part.probabilities.argmax(1))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(training: Array, digits: Dataset) -> None:
    digests = [classifier.train(training, digits.labels, seed, steps=20).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_initial_weights_and_batches_both_depend_on_the_seed(training: Array) -> None:
    one, other = (State("initial", classifier._initial(seed)) for seed in (0, 1))
    assert one.digest() != other.digest()
    images = training.reshape(-1, 28, 28)
    first, second = (next(classifier._batches(images, seed)) for seed in (0, 1))
    assert first[0].tolist() != second[0].tolist()
    assert first[1].shape == (100, 784)


def test_global_random_states_are_left_alone(training: Array, digits: Dataset) -> None:
    import tensorflow as tf

    np.random.seed(1)  # noqa: NPY002
    tf.random.set_seed(1)
    expected = np.random.rand(), float(tf.random.normal([]))  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    tf.random.set_seed(1)
    before = tf.compat.v1.get_default_graph() if not tf.executing_eagerly() else None
    classifier.train(training, digits.labels, 0, steps=2).outputs(training[:3])
    assert (np.random.rand(), float(tf.random.normal([]))) == expected  # noqa: NPY002
    assert tf.executing_eagerly() and before is None


def test_global_state_of_others_does_not_matter(training: Array, digits: Dataset) -> None:
    """The same bits inside a foreign graph, and in a process with float64 as Keras' floatx and no eager execution."""
    import tensorflow as tf

    expected = classifier.train(training, digits.labels, 0, steps=3).digest
    with tf.Graph().as_default() as foreign:
        assert classifier.train(training, digits.labels, 0, steps=3).digest == expected
        assert not foreign.get_operations()
    code = (
        "import tensorflow as tf; tf.compat.v1.disable_v2_behavior(); tf.keras.backend.set_floatx('float64')\n"
        "from tfport import data; from tfport.quality import classifier; d = data.load('digits')\n"
        "x = data.scaled(d.images, 0, 1, 'float64'); c = classifier.train(x, d.labels, 0, steps=3)\n"
        "assert c.outputs(x[:7]).features.dtype == 'float32'; print(c.digest)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split()[-1] == expected


def test_too_few_images_for_a_batch(training: Array, digits: Dataset) -> None:
    with pytest.raises(ValueError, match="at least 100"):
        classifier.train(training[:99], digits.labels[:99], 0)


def test_the_cache_spares_the_training(
    digits: Dataset, reader: Classifier, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "train", None)
    again = classifier.load_or_train(digits, 0, cache)
    assert again.digest == reader.digest
    assert again.notes == ()


@pytest.mark.usefixtures("quick")
def test_another_seed_data_or_version_is_another_classifier(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = small(digits)
    classifier.load_or_train(ours, 0, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    classifier.load_or_train(ours, 0, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    classifier.load_or_train(ours, 1, tmp_path)
    classifier.load_or_train(dataclasses.replace(ours, digest="other"), 0, tmp_path)
    monkeypatch.setattr(classifier, "VERSION", classifier.VERSION + 1)
    classifier.load_or_train(ours, 0, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def cut(path: Path, _: State) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def flip(path: Path, _: State) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path, _: State) -> None:
    path.write_bytes(b"")


def rename(path: Path, weights: State) -> None:
    state.write(path, State("another", weights.arrays))


def reshape(path: Path, weights: State) -> None:
    state.write(path, State(weights.model, {name: array[:1] for name, array in weights.arrays.items()}))


def poison(path: Path, weights: State) -> None:
    state.write(path, State(weights.model, {name: array * np.nan for name, array in weights.arrays.items()}))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", [cut, flip, empty, rename, reshape, poison])
def test_a_damaged_file_is_replaced_with_a_note(digits: Dataset, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    ours = small(digits)
    first = classifier.load_or_train(ours, 0, tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path, first.weights)
    second = classifier.load_or_train(ours, 0, tmp_path)
    assert second.digest == first.digest
    assert len(second.notes) == 1
    assert "trained again" in second.notes[0] and path.name in second.notes[0]
    third = classifier.load_or_train(ours, 0, tmp_path)
    assert (third.digest, third.notes) == (first.digest, ()), "the file was mended"


@pytest.mark.usefixtures("quick")
def test_a_cache_that_cannot_be_written_is_only_noted(digits: Dataset, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    found = classifier.load_or_train(small(digits), 0, blocked)
    assert len(found.notes) == 1
    assert "not kept" in found.notes[0]


@pytest.mark.usefixtures("quick")
def test_the_users_cache_is_the_default(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    classifier.load_or_train(small(digits), 0)
    assert len(list((tmp_path / "tfport" / "classifiers").iterdir())) == 1


@pytest.mark.slow
def test_it_reads_mnist() -> None:
    where = os.environ.get("TFPORT_DATA_DIR")
    if not where:
        pytest.skip("TFPORT_DATA_DIR is not set: name a folder with MNIST's four files in it")
    mnist = data.load("mnist", where)
    images, test = (data.scaled(each, 0, 1, "float32") for each in (mnist.images[:10_000], mnist.test_images))
    found = classifier.train(images, mnist.labels[:10_000], 0)
    assert classifier.accuracy(found.outputs(test).probabilities, mnist.test_labels) > 0.98
