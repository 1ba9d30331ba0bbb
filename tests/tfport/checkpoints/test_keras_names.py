"""What tensors of Keras's files are, against what Keras itself holds; files written here, loaded by Keras."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfport.adapters.keras_optimizers import KerasOptimizer, read
from tfport.checkpoints.contents import Contents, Entry, Role, Sink, Source, Stored, pieces
from tfport.checkpoints.hdf5 import H5Sink
from tfport.checkpoints.keras_archive import KerasArchiveSink
from tfport.checkpoints.opening import open_source

Array = np.ndarray[Any, Any]

KERAS3: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(),
    "momentum": lambda: keras.optimizers.SGD(momentum=0.5),
    "nesterov": lambda: keras.optimizers.SGD(momentum=0.5, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(),
    "rmsprop momentum": lambda: keras.optimizers.RMSprop(momentum=0.5),
    "rmsprop centered": lambda: keras.optimizers.RMSprop(centered=True),
    "rmsprop both": lambda: keras.optimizers.RMSprop(momentum=0.5, centered=True),
    "adam": lambda: keras.optimizers.Adam(beta_1=0.5),
    "amsgrad": lambda: keras.optimizers.Adam(amsgrad=True, clipnorm=2.0),
    "adam decay": lambda: keras.optimizers.Adam(weight_decay=0.1),
    "adamw": lambda: keras.optimizers.AdamW(),
    "adamax": lambda: keras.optimizers.Adamax(),
    "adagrad": lambda: keras.optimizers.Adagrad(),
    "adadelta": lambda: keras.optimizers.Adadelta(),
    "ftrl": lambda: keras.optimizers.Ftrl(l1_regularization_strength=0.1),
    "nadam": lambda: keras.optimizers.Nadam(),
    "lion": lambda: keras.optimizers.Lion(),
    "ema": lambda: keras.optimizers.Adam(use_ema=True, gradient_accumulation_steps=2),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(name="adam_9")),
}
KERAS2: dict[str, Callable[[], Any]] = {
    "sgd": lambda: tf_keras.optimizers.SGD(),
    "momentum": lambda: tf_keras.optimizers.SGD(momentum=0.5),
    "rmsprop": lambda: tf_keras.optimizers.RMSprop(),
    "rmsprop both": lambda: tf_keras.optimizers.RMSprop(momentum=0.5, centered=True),
    "adam": lambda: tf_keras.optimizers.Adam(beta_1=0.5),
    "amsgrad": lambda: tf_keras.optimizers.Adam(amsgrad=True),
    "adamw": lambda: tf_keras.optimizers.AdamW(),
    "adamax": lambda: tf_keras.optimizers.Adamax(),
    "adagrad": lambda: tf_keras.optimizers.Adagrad(),
    "adadelta": lambda: tf_keras.optimizers.Adadelta(),
    "ftrl": lambda: tf_keras.optimizers.Ftrl(),
    "nadam": lambda: tf_keras.optimizers.Nadam(),
    "schedule": lambda: tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
    "legacy momentum": lambda: tf_keras.optimizers.legacy.SGD(momentum=0.5, nesterov=True),
    "legacy rmsprop": lambda: tf_keras.optimizers.legacy.RMSprop(),
    "legacy rmsprop both": lambda: tf_keras.optimizers.legacy.RMSprop(momentum=0.5, centered=True),
    "legacy adam": lambda: tf_keras.optimizers.legacy.Adam(),
    "legacy adamax": lambda: tf_keras.optimizers.legacy.Adamax(),
    "legacy adagrad": lambda: tf_keras.optimizers.legacy.Adagrad(),
    "legacy adadelta": lambda: tf_keras.optimizers.legacy.Adadelta(),
    "legacy ftrl": lambda: tf_keras.optimizers.legacy.Ftrl(),
    "legacy nadam": lambda: tf_keras.optimizers.legacy.Nadam(),
}


def build(library: Any, optimizer: Any) -> Any:
    """A small model after two updates with gradients of random numbers; every tensor has another value."""
    library.utils.set_random_seed(3)
    inputs = library.Input((3,))
    hidden = library.layers.Dense(4, name="z")(inputs)
    hidden = library.layers.BatchNormalization(name="norm")(hidden)
    hidden = library.layers.Dense(4, name="b")(hidden)
    model = library.Model(inputs, library.layers.Dense(4, name="a")(hidden), name="main")
    model.compile(optimizer, "mse", jit_compile=False, run_eagerly=True)
    rng = np.random.default_rng(4)
    for variable in model.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    for _ in range(2):
        gradients = [tf.constant(rng.normal(size=each.shape), tf.float32) for each in model.trainable_variables]
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return model


def names_of(model: Any) -> dict[str, Any]:
    return {getattr(each, "path", each.name).removesuffix(":0"): each for each in model.variables}


def check(source: Source, model: Any, number: bool = True) -> Contents:
    """Every weight and every slot that the model's optimizer holds is in the file by its canonical name."""
    contents = source.contents()
    by_name = contents.by_name()
    named = names_of(model)
    for name, variable in named.items():
        [entry] = by_name[name]
        assert entry.role is (Role.STATISTIC if "moving" in name else Role.WEIGHT)
        np.testing.assert_array_equal(source.read(entry.key), read(variable))
    optimizer = KerasOptimizer("x", model.optimizer)
    optimizer.saw(model.trainable_variables)
    [found] = contents.optimizers
    names = {id(variable): name for name, variable in named.items()}
    count = by_name[f"optimizer/{found.name}/iterations"]
    assert {int(source.read(each.key)) for each in count} == {2}
    slots = 0
    for slot, rows in optimizer.slots(model.trainable_variables).items():
        for variable, kept in rows:
            name = f"optimizer/{found.name}/{slot}/{names[id(variable)]}"
            if slot == "model_variables_moving_average":
                name = f"average/{names[id(variable)]}"
            for entry in by_name[name]:
                slots += 1
                np.testing.assert_array_equal(source.read(entry.key), read(kept), err_msg=name)
    assert slots == sum(each.role in (Role.SLOT, Role.AVERAGE) for each in contents.entries)
    if number:
        wanted = {key: value for key, value in optimizer.hyperparameters().items() if key not in found.varying}
        assert found.algorithm == optimizer.algorithm
        if found.algorithm not in ("Nadam", "Lion"):
            assert found.hyperparameters.keys() == wanted.keys()
        for key in found.hyperparameters.keys() & wanted.keys():
            assert found.hyperparameters[key] == pytest.approx(wanted[key], rel=1e-6)
    return contents


@pytest.mark.parametrize("which", KERAS3)
def test_keras_3_whole_models_and_weights(tmp_path: Path, which: str) -> None:
    model = build(keras, KERAS3[which]())
    model.save(tmp_path / "m.keras")
    with open_source(tmp_path / "m.keras") as source:
        contents = check(source, model)
        assert source.written_by["keras"] == keras.__version__
        assert not contents.notes
    model.save_weights(tmp_path / "m.weights.h5")
    with open_source(tmp_path / "m.weights.h5") as source:
        if which in ("ema", "rmsprop momentum", "rmsprop centered"):
            contents = source.contents()
            assert "unresolved" in " ".join(contents.notes)
            assert not [each for each in contents.entries if each.role is Role.SLOT]
        else:
            contents = check(source, model, number=False)
            [found] = contents.optimizers
            assert found.algorithm in (KerasOptimizer("x", model.optimizer).algorithm, None) or which == "adam decay"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("which", ["adam", "rmsprop both", "nadam", "schedule"])
def test_keras_3_in_the_layout_of_keras_2(tmp_path: Path, which: str) -> None:
    model = build(keras, KERAS3[which]())
    model.save(tmp_path / "m.h5")
    with open_source(tmp_path / "m.h5") as source:
        assert source.format == "keras-h5"
        assert "Keras 3 wrote" in " ".join(check(source, model).notes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("which", KERAS2)
def test_keras_2_whole_models(tmp_path: Path, which: str) -> None:
    model = build(tf_keras, KERAS2[which]())
    model.save(tmp_path / "m.h5")
    with open_source(tmp_path / "m.h5") as source:
        assert source.written_by == {"keras": tf_keras.__version__, "backend": "tensorflow"}
        notes = check(source, model).notes
        assert len(notes) == (which == "sgd")
    if not which.startswith("legacy"):
        model.save(tmp_path / "m.keras")
        with open_source(tmp_path / "m.keras") as source:
            check(source, model)


# --- Structures -------------------------------------------------------------------------------------------------------
def test_nested_models_of_keras_3(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="hidden")], name="generator")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="hidden")], name="critic")
    other.compile("sgd", "mse")
    inputs = keras.Input((3,))
    hidden = keras.layers.Reshape((2, 2))(other(inner(inputs)))
    hidden = keras.layers.Bidirectional(keras.layers.LSTM(3, name="cells"), name="both")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(hidden), name="whole")
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    for place, slot in enumerate(model.optimizer._momentums):
        slot.assign(np.full(slot.shape, place))
    model.save(tmp_path / "m.keras")
    with open_source(tmp_path / "m.keras") as source:
        contents = source.contents()
        names = [each.name for each in contents.entries if each.role is Role.WEIGHT]
        assert sorted(names) == sorted(each.path for each in model.weights)
        assert {"generator/hidden/kernel", "critic/hidden/kernel", "both/forward_cells/lstm_cell/bias"} <= set(names)
        adam = contents.optimizer(model.optimizer.name)
        assert adam.variables == tuple(each.path for each in model.trainable_variables)
        for place, variable in enumerate(adam.variables):
            [entry] = contents.by_name()[f"optimizer/{adam.name}/m/{variable}"]
            assert (source.read(entry.key) == place).all()
        assert contents.optimizer(other.optimizer.name).algorithm == "SGD"


class Pair(keras.Model):  # type: ignore[misc]
    """Two nets with an optimizer each, and layers whose attributes are not in the order of their variables."""

    def __init__(self, alike: bool) -> None:
        super().__init__()
        self.scale = self.add_weight(shape=(3,), name="scale")
        self.zebra = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3 if alike else 5)], name="zebra")
        self.ape = keras.Sequential([keras.Input((3 if alike else 5,)), keras.layers.Dense(3)], name="ape")
        self.zebra_optimizer = keras.optimizers.Adam()
        self.ape_optimizer = keras.optimizers.SGD(momentum=0.5)
        self.strange_optimizer = keras.optimizers.Adam(name="mine")
        self.zebra_optimizer.build(self.zebra.trainable_variables)
        self.ape_optimizer.build(self.ape.trainable_variables)
        self.strange_optimizer.build(self.ape.trainable_variables)
        self.built = True


def test_optimizers_of_parts_of_a_model(tmp_path: Path) -> None:
    Pair(alike=False).save_weights(tmp_path / "m.weights.h5")
    with open_source(tmp_path / "m.weights.h5") as source:
        contents = source.contents()
        trained = {each.name.partition("_")[0]: each for each in contents.optimizers}
        adam, sgd, mine = trained["adam"], trained["sgd"], trained["mine"]
    assert [each.rpartition("/")[0] for each in adam.variables] == [adam.variables[0].rpartition("/")[0]] * 2
    assert adam.variables[0].startswith("zebra/")
    assert sgd.variables[0].startswith("ape/")
    assert (adam.algorithm, sgd.algorithm, mine.algorithm) == ("Adam", None, None)
    assert any("mine: 4 slot(s) are left unresolved" in note for note in contents.notes)


def test_slots_that_could_belong_to_either_part_are_not_guessed(tmp_path: Path) -> None:
    Pair(alike=True).save_weights(tmp_path / "m.weights.h5")
    with open_source(tmp_path / "m.weights.h5") as source:
        contents = source.contents()
    assert not [each for each in contents.entries if each.role is Role.SLOT]
    assert any("several of the nested models" in note for note in contents.notes)


class Hidden(keras.Model):  # type: ignore[misc]
    def __init__(self, units: int) -> None:
        super().__init__()
        self.z = keras.layers.Dense(4)
        self.m = keras.layers.Dense(units)
        self.a = keras.layers.Dense(4)

    def call(self, inputs: Any) -> Any:
        return self.a(self.m(self.z(inputs)))

    def get_config(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(("units", "resolved"), [(4, False), (5, True)])
def test_the_order_of_attributes_follows_from_shapes_or_not_at_all(tmp_path: Path, units: int, resolved: bool) -> None:
    model = Hidden(units)
    model(np.zeros((1, 3)))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    with open_source(tmp_path / "m.keras") as source:
        contents = source.contents()
        slots = [each for each in contents.entries if each.role is Role.SLOT and each.slot == "m"]
    first = str(model.z.name)
    if resolved:
        assert [each.variable for each in slots] == [
            f"{each.name}/{kind}" for each in (model.z, model.m, model.a) for kind in ("kernel", "bias")
        ]
    else:
        assert [each.variable for each in slots] == [f"{first}/kernel", f"{first}/bias"]
        assert any("4 of 6 variables are left unresolved" in note for note in contents.notes)


def test_kinds_of_layers(tmp_path: Path) -> None:
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2DTranspose(2, 3)(inputs)
    hidden = layers.SeparableConv2D(4, 3)(hidden)
    hidden = layers.DepthwiseConv2D(3)(hidden)
    hidden = layers.PReLU()(hidden)
    hidden = layers.BatchNormalization(scale=False, name="batch_normalization")(hidden)
    hidden = layers.LayerNormalization()(hidden)
    hidden = layers.GroupNormalization(2)(hidden)
    hidden = layers.Reshape((-1, 4))(hidden)
    hidden = layers.MultiHeadAttention(2, 3)(hidden, hidden)
    hidden = layers.Dropout(0.5)(hidden)
    hidden = layers.SimpleRNN(3)(layers.GRU(3, return_sequences=True)(hidden))
    words = keras.Input((3,), dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(5, 2)(words))
    model = keras.Model(
        [inputs, words], layers.Concatenate()([layers.Normalization(name="normalization")(hidden), embedded])
    )
    model.layers[1].trainable = False
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    floats = {each.path for each in model.variables if each.dtype == "float32"} | {"normalization/count"}
    with open_source(tmp_path / "m.keras") as source:
        contents = source.contents()
        named = {each.name for each in contents.entries if each.role in (Role.WEIGHT, Role.STATISTIC)}
        assert named == floats
        assert contents.optimizers[0].variables == tuple(each.path for each in model.trainable_variables)
    with open_source(tmp_path / "m.weights.h5") as source:
        named = {each.name for each in source.contents().entries if each.role in (Role.WEIGHT, Role.STATISTIC)}
        assert {"batch_normalization/0"} == named - floats or not named - floats


def test_bfloat16(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16", name="only")])
    model.save_weights(tmp_path / "m.weights.h5")
    with open_source(tmp_path / "m.weights.h5") as source:
        assert source.tensors["layers/dense/vars/0"].dtype == "bfloat16"
        value = source.read("layers/dense/vars/0").astype(np.float32)
        target = rewritten(source, H5Sink, tmp_path / "new.weights.h5")
    np.testing.assert_array_equal(value, np.asarray(model.get_weights()[0], np.float32))
    model.load_weights(target)
    np.testing.assert_array_equal(2 * value, np.asarray(model.get_weights()[0], np.float32))


@pytest.mark.filterwarnings("ignore")
def test_nested_models_of_keras_2_with_one_name_for_two_layers(tmp_path: Path) -> None:
    layers = tf_keras.layers
    inner = tf_keras.Sequential([tf_keras.Input((3,)), layers.Dense(4, name="hidden")], name="generator")
    other = tf_keras.Sequential([tf_keras.Input((4,)), layers.Dense(4, name="hidden")], name="critic")
    inputs = tf_keras.Input((3,))
    model = tf_keras.Model(inputs, layers.LSTM(3, name="cells")(layers.Reshape((2, 2))(other(inner(inputs)))))
    model.save(tmp_path / "m.h5")
    with open_source(tmp_path / "m.h5") as source:
        names = {each.name for each in source.contents().entries}
    assert {"generator/hidden/kernel", "critic/hidden/kernel", "cells/lstm_cell/recurrent_kernel"} <= names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["m.h5", "m.keras"])
def test_a_lambda_of_keras_is_named_and_its_weights_are_read(tmp_path: Path, name: str) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="only"), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / name)
    with open_source(tmp_path / name) as source:
        contents = source.contents()
        assert f"Lambda ({model.layers[-1].name})" in " ".join(contents.notes)
        [entry] = contents.by_name()["only/kernel"]
        np.testing.assert_array_equal(source.read(entry.key), model.get_weights()[0])


# --- Written files, loaded by Keras -----------------------------------------------------------------------------------
def rewritten(like: Source, kind: type[Sink], path: Path) -> Path:
    """A checkpoint like another, all floats doubled and all whole numbers as they are."""
    sink: Any = kind
    made = sink(path, list(like.tensors.values()), like.contents(), like)
    for key in like.tensors:
        value = like.read(key)
        doubled = value if value.dtype.kind in "iu" else np.asarray(value * 2).astype(value.dtype)
        made.write(key, pieces(doubled))
    made.finish()
    return path


def values_of(model: Any) -> list[Array]:
    optimizer = model.optimizer
    return [np.asarray(each) for each in model.get_weights()] + [
        read(each) for each in KerasOptimizer("x", optimizer).all_variables()
    ]


def check_doubled(model: Any, loaded: Any) -> None:
    before, after = values_of(model), values_of(loaded)
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one if one.dtype.kind == "i" else 2 * one, other)


@pytest.mark.parametrize("which", ["adam", "rmsprop both"])
def test_keras_3_loads_what_is_written(tmp_path: Path, which: str) -> None:
    model = build(keras, KERAS3[which]())
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    with open_source(tmp_path / "m.keras") as source:
        written = rewritten(source, KerasArchiveSink, tmp_path / "new.keras")
    check_doubled(model, keras.models.load_model(written))
    with zipfile.ZipFile(written) as file:
        assert file.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
    fresh = build(keras, KERAS3[which]())
    with open_source(tmp_path / "m.weights.h5") as source:
        fresh.load_weights(rewritten(source, H5Sink, tmp_path / "new.weights.h5"))
    check_doubled(model, fresh)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("which", ["adam", "legacy rmsprop both"])
def test_keras_2_loads_what_is_written(tmp_path: Path, which: str) -> None:
    model = build(tf_keras, KERAS2[which]())
    model.save(tmp_path / "m.h5")
    with open_source(tmp_path / "m.h5") as source:
        loaded = tf_keras.models.load_model(rewritten(source, H5Sink, tmp_path / "new.h5"))
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(2 * one, other)
    names = [each.name for each in model.optimizer.variables] if which == "adam" else []
    held = model.optimizer.variables if which == "adam" else model.optimizer.variables()
    again = loaded.optimizer.variables if which == "adam" else loaded.optimizer.variables()
    assert len(held) == len(again) > 10
    for number, (one, other) in enumerate(zip(held, again, strict=True)):
        rate = names and "learning_rate" in names[number]
        assert rate or np.array_equal(one if one.dtype.is_integer else 2 * one, other)


@pytest.mark.filterwarnings("ignore")
def test_keras_2_loads_weights_that_are_written_without_a_template(tmp_path: Path) -> None:
    model = build(tf_keras, "sgd")
    values = {name: read(each) for name, each in sorted(names_of(model).items())}
    order = sorted(values, key=lambda name: [each.name for each in model.layers].index(name.partition("/")[0]))
    contents = Contents(tuple(Entry(name, Role.WEIGHT, name) for name in order))
    sink = H5Sink(tmp_path / "w.h5", [Stored(name, values[name].shape, "float32") for name in order], contents)
    for name in order:
        sink.write(name, pieces(values[name]))
    sink.finish()
    for by_name in (False, True):
        fresh = build(tf_keras, "sgd")
        fresh.set_weights([np.zeros_like(each) for each in fresh.get_weights()])
        fresh.load_weights(tmp_path / "w.h5", by_name=by_name)
        for one, other in zip(model.get_weights(), fresh.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    model.save_weights(tmp_path / "own.h5")
    with h5py.File(tmp_path / "own.h5") as own, h5py.File(tmp_path / "w.h5") as ours:
        assert dict(own.attrs).keys() == dict(ours.attrs).keys()
        assert list(own["norm"].attrs["weight_names"]) == list(ours["norm"].attrs["weight_names"])


def test_contents_are_one_entry_for_each_tensor(tmp_path: Path) -> None:
    model = build(keras, "adam")
    model.save(tmp_path / "m.keras")
    with open_source(tmp_path / "m.keras") as source:
        contents = source.contents()
        assert [each.key for each in contents.entries] == list(source.tensors)
        assert dataclasses.is_dataclass(contents)
