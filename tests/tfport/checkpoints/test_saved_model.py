"""SavedModels of TF1 and TF2: read, written by the layout of another, and refused when damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from checkpoint_mutations import FEW, MANY, check_reader
from tfport.checkpoints.contents import Contents, Role, Stored, pieces
from tfport.checkpoints.object_graph import OBJECT_GRAPH
from tfport.checkpoints.opening import open_source
from tfport.checkpoints.saved_model import SavedModelSink, SavedModelSource
from tfport.errors import CheckpointError

V1 = tf.compat.v1


def tf1_model(folder: Path, tags: tuple[str, ...] = ("train",)) -> Path:
    with tf.Graph().as_default(), V1.Session() as session:
        w = V1.get_variable("w", (2, 3))
        x = V1.placeholder(tf.float32, (None, 2), "x")
        y = tf.identity(x @ w, "y")
        train = V1.train.AdamOptimizer(0.5).minimize(tf.reduce_sum(w**2))
        session.run(V1.global_variables_initializer())
        session.run(train)
        builder = V1.saved_model.Builder(str(folder))
        signature = V1.saved_model.predict_signature_def({"x": x}, {"y": y})
        first, *others = tags
        builder.add_meta_graph_and_variables(session, [first], {"serving_default": signature})
        for tag in others:
            builder.add_meta_graph([tag])
        builder.save()
    return folder


class Affine(tf.Module):  # type: ignore[misc]
    """A module with one variable and an asset."""

    def __init__(self, asset: Path) -> None:
        super().__init__()
        self.w = tf.Variable(tf.ones((2, 3)), name="w")
        self.asset = tf.saved_model.Asset(str(asset))
        self.f = tf.function(lambda x: x @ self.w, input_signature=[tf.TensorSpec((None, 2))])


def tf2_model(folder: Path) -> Path:
    asset = folder.parent / "vocabulary.txt"
    asset.write_text("words")
    tf.saved_model.save(Affine(asset), str(folder))
    return folder


def rows(contents: Contents) -> dict[str, tuple[str, str]]:
    """Key -> role and canonical name."""
    return {each.key: (each.role.value, each.name) for each in contents.entries}


def changed(source: SavedModelSource, path: Path) -> None:
    """Writes a SavedModel whose numbers are those of another plus one."""
    contents = source.contents()
    sink = SavedModelSink(path, list(source.tensors.values()), contents, source)
    for key, stored in source.tensors.items():
        sink.write(key, source.chunks(key) if stored.dtype == "string" else pieces(source.read(key) + 1))
    sink.finish()


def test_tf1(tmp_path: Path) -> None:
    folder = tf1_model(tmp_path / "model", ("serve", "train"))
    with open_source(folder) as source:
        assert isinstance(source, SavedModelSource)
        assert source.written_by["tensorflow"] == tf.__version__
        contents = source.contents()
        assert rows(contents) == {
            "beta1_power": ("beta power", "optimizer/Adam/beta_1_power"),
            "beta2_power": ("beta power", "optimizer/Adam/beta_2_power"),
            "w": ("weight", "w"),
            "w/Adam": ("slot", "optimizer/Adam/m/w"),
            "w/Adam_1": ("slot", "optimizer/Adam/v/w"),
        }
        assert contents.optimizers[0].hyperparameters["learning_rate"] == 0.5
        assert contents.notes[0].startswith("graph 1 of 2: tags serve; signatures serving_default; TensorFlow 2.")
        assert contents.notes[1].startswith("graph 2 of 2: tags train; signatures none")
        changed(source, tmp_path / "new")
        old = source.read("w")
    for load in ("saver", "session"):
        with tf.Graph().as_default(), V1.Session() as session:
            if load == "session":
                V1.saved_model.load(session, ["serve"], str(tmp_path / "new"))
                got = session.run("y:0", {"x:0": np.eye(2, dtype=np.float32)})
            else:
                loaded = tf.saved_model.load(str(tmp_path / "new"), ["serve"])
                session.run(V1.global_variables_initializer())
                got = session.run(loaded.signatures["serving_default"](tf.eye(2))["y"])
        assert np.array_equal(got, old + 1)


def test_tf2(tmp_path: Path) -> None:
    folder = tf2_model(tmp_path / "model")
    assert (folder / "fingerprint.pb").is_file()
    with open_source(folder) as source:
        assert isinstance(source, SavedModelSource)
        assert rows(source.contents())["w/.ATTRIBUTES/VARIABLE_VALUE"] == ("weight", "w")
        changed(source, tmp_path / "new")
    loaded = tf.saved_model.load(str(tmp_path / "new"))
    assert np.array_equal(loaded.w.numpy(), np.full((2, 3), 2, np.float32))
    assert np.array_equal(loaded.f(tf.eye(2)).numpy(), np.full((2, 3), 2, np.float32))
    assert (tmp_path / "new/assets/vocabulary.txt").read_text() == "words"
    assert not (tmp_path / "new/fingerprint.pb").exists()
    with V1.Session(graph=tf.Graph()) as session:
        V1.saved_model.load(session, ["serve"], str(tmp_path / "new"))
        name = V1.saved_model.load(session, ["serve"], str(tmp_path / "new")).signature_def
        output = name["serving_default"].outputs["output_0"].name
        given = name["serving_default"].inputs["x"].name
        assert np.array_equal(session.run(output, {given: np.eye(2)}), np.full((2, 3), 2))


def test_keras_with_a_lambda(tmp_path: Path) -> None:
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, name="dense"), tf_keras.layers.Lambda(lambda x: x + 1)])
    model.build((None, 3))
    model.compile(tf_keras.optimizers.Adam(0.5), "mse")
    model.fit(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32), verbose=0)
    model.save(str(tmp_path / "model"), save_format="tf")
    with SavedModelSource(tmp_path / "model") as source:
        contents = source.contents()
    assert any("Lambda" in note for note in contents.notes)
    kinds = {each.name: each.role for each in contents.entries}
    assert kinds["dense/kernel"] is Role.WEIGHT
    assert kinds["optimizer/optimizer/m/dense/kernel"] is Role.SLOT
    assert kinds["keras_api/metrics/0/total/.ATTRIBUTES/VARIABLE_VALUE"] is Role.OTHER
    assert contents.optimizers[0].algorithm == "Adam"
    assert source.written_by["keras"] == tf_keras.__version__


def test_without_variables(tmp_path: Path) -> None:
    folder = tf2_model(tmp_path / "model")
    shutil.rmtree(folder / "variables")
    with SavedModelSource(folder) as source:
        assert source.tensors == {}
        assert "it has no variables" in source.contents().notes
        sink = SavedModelSink(tmp_path / "new", [], source.contents(), source)
        sink.finish()
    assert not (tmp_path / "new/variables").exists()


def test_a_graph_as_text_leaves_the_variables(tmp_path: Path) -> None:
    folder = tf1_model(tmp_path / "model")
    (folder / "saved_model.pb").rename(folder / "saved_model.pbtxt")
    with open_source(folder) as source:
        contents = source.contents()
    assert rows(contents)["w/Adam"] == ("slot", "optimizer/Adam/m/w")
    assert any("is not read" in note for note in contents.notes)


def test_refused(tmp_path: Path) -> None:
    folder = tf2_model(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"holds no saved_model\.pb"):
        SavedModelSource(tmp_path)
    with SavedModelSource(folder) as source:
        headers = list(source.tensors.values())
        contents = source.contents()
        with pytest.raises(CheckpointError, match="--like=FOLDER"):
            SavedModelSink(tmp_path / "new", headers, contents, None)
        with pytest.raises(CheckpointError, match=r"lacks 1 tensor.*_CHECKPOINTABLE_OBJECT_GRAPH"):
            less = [each for each in headers if each.key != OBJECT_GRAPH]
            SavedModelSink(tmp_path / "new", less, contents, source)
        with pytest.raises(CheckpointError, match=r"does not know 1 tensor.*more"):
            SavedModelSink(tmp_path / "new", [*headers, Stored("more", (), "float32")], contents, source)
        other = [Stored(each.key, (3, 2), each.dtype) if each.shape else each for each in headers]
        with pytest.raises(CheckpointError, match=r"shape \[3, 2\]"):
            SavedModelSink(tmp_path / "new", other, contents, source)
        assert not (tmp_path / "new").exists()
        (folder / "assets/link").symlink_to("/etc/hostname")
        with pytest.raises(CheckpointError, match="is a link"):
            SavedModelSink(tmp_path / "new", headers, contents, source)
    (folder / "variables/variables.index").unlink()
    with pytest.raises(CheckpointError, match=r"variables\.index does not exist"):
        SavedModelSource(folder)
    for data, what in ((b"", "holds no graph"), (b"\x08\x01", "holds no graph"), (b"\xff\xff", "no SavedModel")):
        (folder / "saved_model.pb").write_bytes(data)
        with pytest.raises(CheckpointError, match=what):
            SavedModelSource(folder)


def damage(make: Any, folder: Path, seeds: range) -> None:
    make(folder)
    outcome = check_reader(folder, "saved_model.pb", folder, seeds)
    assert outcome["refused"] > 0


@pytest.mark.parametrize("make", [tf1_model, tf2_model])
def test_damaged(tmp_path: Path, make: Any) -> None:
    damage(make, tmp_path / "model", range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("make", [tf1_model, tf2_model])
def test_much_damage(tmp_path: Path, make: Any) -> None:
    damage(make, tmp_path / "model", range(MANY))
