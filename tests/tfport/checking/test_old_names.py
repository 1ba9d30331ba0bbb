"""What old code needs is read off its source, and told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tensorflow as tf

from tfport.checking.old_names import LEGACY_KERAS, STAND_INS, TF1, needs


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)


def written(name: str, text: str) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)
    return f"{name.removesuffix('.py').replace('/', '.')}:build"


@pytest.mark.parametrize(
    ("text", "environment", "note"),
    [
        ("import tensorflow as tf\ntf.function(print)\n", {}, ""),
        ("import tensorflow as tf\ntf.keras.Sequential()\ntf.Variable(1.0)\n", {}, ""),
        ("import keras\nkeras.layers.Dense\n", {}, ""),
        ("import tensorflow.compat.v1 as tf\ntf.placeholder\ntf.get_variable\n", {}, ""),
        ("import tensorflow as tf\ntf.placeholder(tf.float32)\n", STAND_INS, "its tensorflow is tf.compat.v1"),
        ("from tensorflow import Session\n", STAND_INS, "its tensorflow is tf.compat.v1"),
        ("import tensorflow as tf\nf = lambda: tf.contrib.slim.conv2d\n", STAND_INS, r"lost \(tf.contrib.slim\)"),
        ("from tensorflow.contrib import slim\n", STAND_INS, r"lost \(tf.contrib.slim\)"),
        ("import tensorflow.contrib.slim as slim\n", STAND_INS, r"lost \(tf.contrib.slim\)"),
        ("from tensorflow.examples.tutorials.mnist import input_data\n", STAND_INS, r"\(tf.examples\)"),
        ("import tensorflow.compat.v1 as tf\ntf.estimator.ModeKeys\n", STAND_INS, r"\(tf.estimator\)"),
        ("import tensorflow.compat.v1 as tf\ntf.layers.dense\n", LEGACY_KERAS, r"needs Keras 2 \(tf.layers\)"),
        ("from tensorflow.compat.v1 import layers as L\nL.dense\n", LEGACY_KERAS, r"needs Keras 2 \(tf.layers\)"),
        ("import tensorflow as tf\ntf.compat.v1.nn.rnn_cell.GRUCell\n", LEGACY_KERAS, r"\(tf.nn.rnn_cell\)"),
        ("import tensorflow.compat.v1 as tf\ntf.keras.layers.Dense\n", LEGACY_KERAS, r"\(tf.keras\)"),
        ("import tensorflow as tf\ntf.keras.optimizers.legacy.Adam\n", LEGACY_KERAS, r"\(tf.keras\)"),
        ("import tensorflow as tf\ntf.Session\ntf.layers.dense\n", STAND_INS | LEGACY_KERAS, "TF_USE_LEGACY_KERAS=1"),
        ("import tensorflow as tf\ntf.contrib.rnn.GRUCell\n", STAND_INS | LEGACY_KERAS, r"\(tf.contrib.rnn\)"),
        ("import tensorflow as tf\nprint 'python 2'\n", {}, ""),
    ],
)
def test_a_source_tells_what_it_needs(text: str, environment: dict[str, str], note: str) -> None:
    found = needs(written("old.py", text), "legacy")
    assert found.environment == environment
    assert len(found.notes) == len(environment)
    if note:
        assert re.search(note, " ".join(found.notes))


def test_files_that_are_imported_are_read_too() -> None:
    written("nets/layers.py", "import tensorflow as tf\ntf.layers.dense\n")
    written("nets/models.py", "from . import layers\n")
    written("nets/__init__.py", "")
    assert needs(written("train.py", "from nets import models\n"), "legacy").environment == LEGACY_KERAS
    assert needs("nets.models:build", "legacy").environment == LEGACY_KERAS
    assert needs("train.py", "legacy").environment == LEGACY_KERAS


def test_an_environment_that_is_set_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    given = written("old.py", "import tensorflow.compat.v1 as tf\ntf.layers.dense\n")
    assert needs(given, "legacy").environment == {}


def test_what_is_not_there_needs_nothing() -> None:
    assert needs("nowhere:build", "legacy").environment == {}


def test_names_of_tensorflow_1_are_no_names_of_tensorflow_2() -> None:
    assert not [name for name in TF1 if hasattr(tf, name) or not hasattr(tf.compat.v1, name)]
