"""What an object graph says of each tensor: every optimizer of both Kerases and of tf.compat.v1, and a user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from checkpoint_mutations import FEW, MANY, mutated
from tf2_eager.gradient_tape.optimizers import Adam as OwnAdam
from tfport.checkpoints import object_graph
from tfport.checkpoints.bundle import BundleSource
from tfport.checkpoints.contents import Contents, Stored
from tfport.checkpoints.object_graph import Message
from tfport.errors import CheckpointError
from tfport.models.spec import Adam as AdamNumbers
from tfport.subject import CORRECTED

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def saved(folder: Path, **objects: Any) -> Contents:
    prefix = tf.train.Checkpoint(**objects).write(str(folder / "model"))
    return read(Path(prefix))


def read(prefix: Path) -> Contents:
    with BundleSource(prefix) as source:
        contents = source.contents()
        assert [each.key for each in contents.entries] == list(source.tensors)
        return contents


def rows(contents: Contents) -> dict[str, tuple[str, str]]:
    """Key without its ending -> role and canonical name."""
    return {each.key.removesuffix(VALUE): (each.role.value, each.name) for each in contents.entries}


def names(contents: Contents) -> set[tuple[str, str]]:
    return {(role, name) for key, (role, name) in rows(contents).items() if key != object_graph.OBJECT_GRAPH}


LEGACY = tf_keras.optimizers.legacy
SGDS = "SGD, Momentum or Nesterov"
CASES: dict[str, tuple[Callable[[], Any], str | None, tuple[str, ...]]] = {
    "keras SGD": (lambda: keras.optimizers.SGD(0.5), "SGD", ()),
    "keras Momentum": (lambda: keras.optimizers.SGD(0.5, 0.25), None, ("accumulator",)),
    "keras RMSprop": (lambda: keras.optimizers.RMSprop(0.5), "RMSProp", ("rms",)),
    "keras centred": (
        lambda: keras.optimizers.RMSprop(0.5, momentum=0.5, centered=True),
        "CenteredRMSProp",
        ("rms", "momentum", "mean"),
    ),
    "keras Adam": (lambda: keras.optimizers.Adam(0.5), "Adam", ("m", "v")),
    "keras named": (lambda: keras.optimizers.Adam(0.5, name="mine"), None, ("m", "v")),
    "keras AMSGrad": (lambda: keras.optimizers.Adam(0.5, amsgrad=True), "AMSGrad Adam", ("m", "v", "velocity_hats")),
    "keras AdamW": (lambda: keras.optimizers.AdamW(0.5), "AdamW", ("m", "v")),
    "keras Adamax": (lambda: keras.optimizers.Adamax(0.5), "Adamax", ("m", "v")),
    "keras Nadam": (lambda: keras.optimizers.Nadam(0.5), "Nadam", ("m", "v")),
    "keras Adagrad": (lambda: keras.optimizers.Adagrad(0.5), "Adagrad", ("accumulator",)),
    "keras Adadelta": (lambda: keras.optimizers.Adadelta(0.5), "Adadelta", ("accumulator", "accumulator_update")),
    "keras Ftrl": (lambda: keras.optimizers.Ftrl(0.5), "Ftrl", ("accumulator", "linear")),
    "tf_keras SGD": (lambda: tf_keras.optimizers.SGD(0.5), None, ("accumulator",)),
    "tf_keras RMSprop": (lambda: tf_keras.optimizers.RMSprop(0.5), "RMSProp", ("rms",)),
    "tf_keras centred": (
        lambda: tf_keras.optimizers.RMSprop(0.5, momentum=0.5, centered=True),
        "CenteredRMSProp",
        ("rms", "momentum", "mean"),
    ),
    "tf_keras Adam": (lambda: tf_keras.optimizers.Adam(0.5), "Adam", ("m", "v")),
    "tf_keras AdamW": (lambda: tf_keras.optimizers.AdamW(0.5), "AdamW", ("m", "v")),
    "tf_keras Adamax": (lambda: tf_keras.optimizers.Adamax(0.5), "Adamax", ("m", "v")),
    "tf_keras Adagrad": (lambda: tf_keras.optimizers.Adagrad(0.5), "Adagrad", ("accumulator",)),
    "tf_keras Adadelta": (
        lambda: tf_keras.optimizers.Adadelta(0.5),
        "Adadelta",
        ("accumulator", "accumulator_update"),
    ),
    "tf_keras Ftrl": (lambda: tf_keras.optimizers.Ftrl(0.5), "Ftrl", ("accumulator", "linear")),
    "legacy SGD": (lambda: LEGACY.SGD(0.5), "SGD", ()),
    "legacy Momentum": (lambda: LEGACY.SGD(0.5, 0.25), None, ("accumulator",)),
    "legacy RMSprop": (lambda: LEGACY.RMSprop(0.5), "RMSProp" + CORRECTED, ("rms",)),
    "legacy centred": (
        lambda: LEGACY.RMSprop(0.5, momentum=0.5, centered=True),
        "CenteredRMSProp",
        ("rms", "momentum", "mean"),
    ),
    "legacy Adam": (lambda: LEGACY.Adam(0.5), "Adam", ("m", "v")),
    "legacy Adamax": (lambda: LEGACY.Adamax(0.5), "Adamax", ("m", "v")),
    "legacy Adagrad": (lambda: LEGACY.Adagrad(0.5), "Adagrad" + CORRECTED, ("accumulator",)),
    "legacy Adadelta": (lambda: LEGACY.Adadelta(0.5), "Adadelta", ("accumulator", "accumulator_update")),
    "legacy Ftrl": (lambda: LEGACY.Ftrl(0.5), "Ftrl", ("accumulator", "linear")),
    "tf1 Momentum": (lambda: tf.compat.v1.train.MomentumOptimizer(0.5, 0.5), None, ("accumulator",)),
    "tf1 Adam": (lambda: tf.compat.v1.train.AdamOptimizer(0.5), "Adam", ("m", "v")),
    "tf1 RMSProp": (lambda: tf.compat.v1.train.RMSPropOptimizer(0.5), "RMSProp", ("rms", "momentum")),
    "tf1 Ftrl": (lambda: tf.compat.v1.train.FtrlOptimizer(0.5), "Ftrl", ("accumulator", "linear")),
    "tf1 Adadelta": (
        lambda: tf.compat.v1.train.AdadeltaOptimizer(0.5),
        "Adadelta",
        ("accumulator", "accumulator_update"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_optimizer(tmp_path: Path, case: str) -> None:
    make, algorithm, slots = CASES[case]
    optimizer = make()
    keras3 = case.startswith("keras")
    if keras3:
        variables = [keras.Variable(np.ones(shape, np.float32), name=name) for name, shape in SHAPES.items()]
        gradients = [keras.ops.ones(each.shape) for each in variables]
    else:
        variables = [tf.Variable(tf.ones(shape), name=name) for name, shape in SHAPES.items()]
        gradients = [tf.ones(each.shape) for each in variables]
    optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
    held = {"a": variables[0], "b": variables[1]} if not keras3 else {}
    contents = saved(tmp_path, optimizer=optimizer, **held)
    [found] = contents.optimizers
    assert found.name == "optimizer"
    assert found.algorithm == algorithm
    assert found.convention == ("tf1" if case.startswith("tf1") else "keras")
    if slots:
        assert set(found.variables) == set(SHAPES)
    weights = {name for role, name in names(contents) if role == "weight"}
    assert weights == set(SHAPES)
    kept = {name for role, name in names(contents) if role == "slot"}
    assert kept == {f"optimizer/optimizer/{slot}/{variable}" for slot in slots for variable in SHAPES}
    if found.convention == "keras":
        assert found.hyperparameters["learning_rate"] == 0.5
        assert ("count", "optimizer/optimizer/iterations") in names(contents)
    if algorithm is None:
        assert any("does not tell" in note for note in contents.notes)


SHAPES = {"first": (2, 3), "second": (2, 3)}


def test_whole_models_of_both_kerases(tmp_path: Path) -> None:
    for api in (keras, tf_keras):
        layers = [api.layers.Dense(2, name="dense"), api.layers.BatchNormalization(name="bn")]
        model = api.Sequential(layers, name="sequential")
        model.build((None, 3))
        model.compile(api.optimizers.Adam(0.5), "mse")
        model.fit(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32), verbose=0)
        prefix = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / api.__name__))
        contents = read(Path(prefix))
        base = "sequential/" if api is keras else ""
        trained = tuple(f"{base}{each}" for each in ("dense/kernel", "dense/bias", "bn/gamma", "bn/beta"))
        assert contents.optimizers[0].variables == trained
        assert names(contents) == {
            *(("weight", each) for each in trained),
            *(("slot", f"optimizer/optimizer/{slot}/{each}") for slot in "mv" for each in trained),
            *(("statistic", f"{base}bn/{each}") for each in ("moving_mean", "moving_variance")),
            ("count", "optimizer/optimizer/iterations"),
            ("hyperparameter", "optimizer/optimizer/learning_rate"),
            ("other", f"save_counter{VALUE}"),
        }


def test_names_that_clash_give_way_to_paths(tmp_path: Path) -> None:
    one, two, three = (tf.Variable(tf.ones(2)), tf.Variable(tf.ones(2), name="w"), tf.Variable(tf.ones(3), name="w"))
    only = tf.Variable(tf.ones(2), name="only")
    step = tf.Variable(3, dtype=tf.int64, name="global_step")
    contents = saved(tmp_path, one=one, nets={"two": two, "three": three}, only=only, step=step)
    assert names(contents) == {
        ("weight", "one"),
        ("weight", "nets/two"),
        ("weight", "nets/three"),
        ("weight", "only"),
        ("count", "global_step"),
    }


def test_slots_whose_variable_cannot_be_told(tmp_path: Path) -> None:
    variables = [tf.Variable(tf.ones(2)), tf.Variable(tf.ones(2))]
    optimizer = tf_keras.optimizers.Adam(0.5)
    optimizer.apply_gradients([(tf.ones(2), each) for each in variables])
    contents = saved(tmp_path, a=variables[0], b=variables[1], optimizer=optimizer)
    assert not any(role == "slot" for role, _ in names(contents))
    assert any("cannot be told" in note for note in contents.notes)
    assert {("weight", "a"), ("weight", "b")} <= names(contents)


def test_schedules_and_decay_are_said_to_vary(tmp_path: Path) -> None:
    v = tf.Variable(tf.ones(2), name="v")
    schedule = tf_keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
    one, two = tf_keras.optimizers.SGD(schedule), LEGACY.SGD(0.5, decay=0.25)
    three = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5))
    three.build([keras.Variable(np.ones(2, np.float32), name="k")])
    one.apply_gradients([(tf.ones(2), v)])
    two.apply_gradients([(tf.ones(2), v)])
    contents = saved(tmp_path, v=v, optimizers={"one": one, "two": two, "three": three})
    assert {each.name: each.varying for each in contents.optimizers} == dict.fromkeys(
        ("one", "two", "three"), ("learning_rate",)
    )
    assert contents.optimizer("two").hyperparameters["decay"] == 0.25


def test_an_optimizer_of_the_users_own(tmp_path: Path) -> None:
    variables = [tf.Variable(tf.ones((2, 3)), name="g/w"), tf.Variable(tf.ones(3), name="g/b")]
    own = OwnAdam(AdamNumbers(0.5, 0.5, 0.999, 1e-8), variables)
    own.apply([tf.ones_like(each) for each in variables])
    contents = saved(tmp_path, variables=variables, optimizers={"generator": own})
    [optimizer] = contents.optimizers
    assert (optimizer.name, optimizer.algorithm, optimizer.variables) == ("generator", "Adam", ("g/w", "g/b"))
    assert dict(optimizer.hyperparameters) == {"beta_1": 0.5, "beta_2": 0.999}
    assert names(contents) == {
        *(("weight", each) for each in ("g/w", "g/b")),
        *(("slot", f"optimizer/generator/{slot}/{each}") for slot in "mv" for each in ("g/w", "g/b")),
        *(("beta power", f"optimizer/generator/beta_{each}_power") for each in (1, 2)),
    }
    # The same lists without the variables beside them are no optimizer's.
    lone = tf.Module()
    lone.m, lone.v = own.m, own.v
    contents = saved(tmp_path, variables=variables, lone=lone)
    assert contents.optimizers == ()
    assert rows(contents)["lone/m/0"] == ("weight", "lone/m/0")
    assert any("taken as variables" in note for note in contents.notes)


def test_averages_and_loss_scales(tmp_path: Path) -> None:
    v = tf.Variable(tf.ones(2), name="v")
    averages = tf.train.ExponentialMovingAverage(0.5)
    averages.apply([v])
    kept = tf_keras.optimizers.SGD(0.5, use_ema=True)
    kept.apply_gradients([(tf.ones(2), v)])
    scaled = tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam())
    scaled.apply_gradients([(tf.ones(2), v)])
    contents = saved(tmp_path, v=v, average=averages.average(v), kept=kept, scaled=scaled)
    found = rows(contents)
    assert found["average"] == ("average", "average/v")
    assert found["scaled/loss_scale/current_loss_scale"][0] == "other"
    assert ("slot", "optimizer/scaled/m/v") in found.values()
    assert list(found.values()).count(("average", "average/v")) == 2


def graph_of(folder: Path) -> tuple[bytes, dict[str, Stored], BundleSource]:
    v = tf.Variable(tf.ones(2), name="v")
    own = tf_keras.optimizers.legacy.Adam(0.5)
    own.apply_gradients([(tf.ones(2), v)])
    new = tf_keras.optimizers.Adam(0.5)
    new.apply_gradients([(tf.ones(2), v)])
    source = BundleSource(Path(tf.train.Checkpoint(v=v, own=own, new=new).write(str(folder / "model"))))
    return source.strings(object_graph.OBJECT_GRAPH)[0], source.tensors, source


def damage(folder: Path, seeds: range) -> None:
    graph, tensors, source = graph_of(folder)
    refused = 0
    for seed in seeds:
        try:
            contents = object_graph.contents_of(source.path, mutated(graph, seed), tensors, source.read)
            assert [each.key for each in contents.entries] == list(tensors)
        except CheckpointError as error:
            assert str(source.path) in str(error)
            refused += 1
    assert 0 < refused < len(seeds)


def test_damaged_graphs(tmp_path: Path) -> None:
    damage(tmp_path, range(FEW))


@pytest.mark.slow
def test_many_damaged_graphs(tmp_path: Path) -> None:
    damage(tmp_path, range(MANY))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x0a\x05ab", "5 bytes where 2 are left"),
        (b"\x0b", "wire type 3"),
        (b"\x08" + b"\xff" * 10, "ten bytes"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "64 bits"),
        (b"\x08\x80", "ends within"),
        (b"\x0d\x00", "cut"),
        (b"\x00\x00", "numbered 0"),
    ],
)
def test_bytes_that_are_no_message(data: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Message(data)


def test_a_graph_that_refers_to_nothing() -> None:
    with pytest.raises(CheckpointError, match="not among its 1"):
        object_graph.contents_of(Path("c"), b"\x0a\x04\x0a\x02\x08\x07", {}, lambda _: np.zeros(()))
    with pytest.raises(CheckpointError, match="no objects"):
        object_graph.contents_of(Path("c"), b"", {}, lambda _: np.zeros(()))
