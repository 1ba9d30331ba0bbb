"""What the graph beside a TF1 checkpoint says of each tensor: every optimizer of tf.compat.v1, and damaged graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from checkpoint_mutations import FEW, MANY, mutated
from tfport.adapters.tf1_apply_ops import group, updates_among
from tfport.adapters.tf1_reading import Reading
from tfport.checkpoints import tf1_meta, tf1_names
from tfport.checkpoints.bundle import BundleSource
from tfport.checkpoints.contents import Contents, Role

T = tf.train


def saved(folder: Path, build: Callable[[], Any], resource: bool = False, **saver: Any) -> tuple[Path, tf.Graph]:
    """A graph, one update of it, and its checkpoint."""
    graph = tf.Graph()
    with graph.as_default():
        tf.get_variable_scope().set_use_resource(resource)
        train = build()
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            if train is not None:
                session.run(train)
            prefix = T.Saver(**saver).save(session, str(folder / "model"))
    return Path(prefix), graph


def read(prefix: Path) -> Contents:
    with BundleSource(prefix) as source:
        return source.contents()


def rows(contents: Contents) -> dict[str, tuple[str, str]]:
    """Key -> role and canonical name."""
    return {each.key: (each.role.value, each.name) for each in contents.entries}


def variable(name: str = "w", shape: tuple[int, ...] = (2, 3), **options: Any) -> Any:
    return tf.get_variable(name, shape, **options)


def loss(*variables: Any) -> Any:
    return tf.add_n([tf.reduce_sum(tf.convert_to_tensor(each) ** 2) for each in variables])


OPTIMIZERS: dict[str, tuple[Callable[[], Any], str, tuple[str, ...], dict[str, float]]] = {
    "SGD": (lambda: T.GradientDescentOptimizer(0.5), "SGD", (), {"learning_rate": 0.5}),
    "momentum": (
        lambda: T.MomentumOptimizer(0.5, 0.25),
        "Momentum",
        ("accumulator",),
        {"learning_rate": 0.5, "momentum": 0.25},
    ),
    "nesterov": (
        lambda: T.MomentumOptimizer(0.5, 0.25, use_nesterov=True),
        "Nesterov",
        ("accumulator",),
        {"learning_rate": 0.5, "momentum": 0.25},
    ),
    "Adam": (
        lambda: T.AdamOptimizer(0.5, 0.25, 0.125, 0.0625),
        "Adam",
        ("m", "v"),
        {"learning_rate": 0.5, "beta_1": 0.25, "beta_2": 0.125, "epsilon": 0.0625},
    ),
    "RMSProp": (
        lambda: T.RMSPropOptimizer(0.5, 0.25, 0.125, 0.0625),
        "RMSProp",
        ("rms", "momentum"),
        {"learning_rate": 0.5, "rho": 0.25, "momentum": 0.125, "epsilon": 0.0625},
    ),
    "centred": (
        lambda: T.RMSPropOptimizer(0.5, 0.25, 0.125, 0.0625, centered=True),
        "CenteredRMSProp",
        ("rms", "mean", "momentum"),
        {"learning_rate": 0.5, "rho": 0.25, "momentum": 0.125, "epsilon": 0.0625},
    ),
    "Adagrad": (lambda: T.AdagradOptimizer(0.5), "Adagrad", ("accumulator",), {"learning_rate": 0.5}),
    "Adadelta": (
        lambda: T.AdadeltaOptimizer(0.5, 0.25, 0.0625),
        "Adadelta",
        ("accumulator", "accumulator_update"),
        {"learning_rate": 0.5, "rho": 0.25, "epsilon": 0.0625},
    ),
    "Ftrl": (
        lambda: T.FtrlOptimizer(0.5, -0.25, l1_regularization_strength=0.125, l2_regularization_strength=0.0625),
        "Ftrl",
        ("accumulator", "linear"),
        {"learning_rate": 0.5, "learning_rate_power": -0.25, "l1": 0.125, "l2": 0.0625},
    ),
    "proximal": (
        lambda: T.ProximalAdagradOptimizer(0.5, l1_regularization_strength=0.25),
        "ProximalAdagrad",
        ("accumulator",),
        {"learning_rate": 0.5, "l1": 0.25, "l2": 0.0},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["reference", "resource", "sparse"])
def test_every_optimizer(tmp_path: Path, name: str, kind: str) -> None:
    make, algorithm, slots, numbers = OPTIMIZERS[name]

    def build() -> Any:
        w = variable()
        return make().minimize(loss(tf.gather(w, [0]) if kind == "sparse" else w))

    prefix, graph = saved(tmp_path, build, kind == "resource")
    contents = read(prefix)
    [optimizer] = contents.optimizers
    assert optimizer.algorithm == algorithm
    assert dict(optimizer.hyperparameters) == numbers
    assert optimizer.variables == ("w",)
    assert optimizer.varying == ()
    assert optimizer.convention == "tf1"
    assert rows(contents)["w"] == ("weight", "w")
    held = {each.slot: each.key for each in contents.entries if each.role is Role.SLOT}
    with graph.as_default():
        reading = Reading(graph)
        [other] = group(reading, {"train": updates_among(reading, reading.ops)})
    assert (optimizer.name, held) == (other.name, other.updates[0].slots)
    assert set(held) == set(slots)
    # The names alone, as far as they tell, say the same.
    prefix.with_name("model.meta").unlink()
    named = read(prefix)
    assert "by its name alone" in named.notes[0]
    if algorithm not in ("SGD",):
        [by_name] = named.optimizers
        assert by_name.algorithm in (algorithm, None)
        assert (by_name.algorithm is None) == (algorithm in ("Momentum", "Nesterov"))
        assert rows(named) == rows(contents)


def test_optimizers_that_share_a_name_and_a_variable(tmp_path: Path) -> None:
    def build() -> Any:
        g, d = variable("g/w"), variable("d/w", (3,))
        step = T.get_or_create_global_step()
        rate = tf.placeholder_with_default(0.1, ())
        one = T.AdamOptimizer(rate, 0.5).minimize(loss(g, d), step)
        two = T.AdamOptimizer(T.exponential_decay(0.1, step, 10, 0.5)).minimize(loss(d), var_list=[d])
        return [one, two]

    prefix, _ = saved(tmp_path, build)
    contents = read(prefix)
    assert rows(contents) == {
        "beta1_power": ("beta power", "optimizer/Adam/beta_1_power"),
        "beta1_power_1": ("beta power", "optimizer/Adam_1/beta_1_power"),
        "beta2_power": ("beta power", "optimizer/Adam/beta_2_power"),
        "beta2_power_1": ("beta power", "optimizer/Adam_1/beta_2_power"),
        "d/w": ("weight", "d/w"),
        "d/w/Adam": ("slot", "optimizer/Adam/m/d/w"),
        "d/w/Adam_1": ("slot", "optimizer/Adam/v/d/w"),
        "d/w/Adam_2": ("slot", "optimizer/Adam_1/m/d/w"),
        "d/w/Adam_3": ("slot", "optimizer/Adam_1/v/d/w"),
        "g/w": ("weight", "g/w"),
        "g/w/Adam": ("slot", "optimizer/Adam/m/g/w"),
        "g/w/Adam_1": ("slot", "optimizer/Adam/v/g/w"),
        "global_step": ("count", "global_step"),
    }
    assert [each.varying for each in contents.optimizers] == [("learning_rate",), ("learning_rate",)]
    assert contents.optimizer("Adam").hyperparameters["beta_1"] == 0.5
    assert contents.optimizer("Adam").variables == ("g/w", "d/w")
    prefix.with_name("model.meta").unlink()
    named = read(prefix)
    assert any("only the graph tells" in note for note in named.notes)
    assert rows(named)["beta1_power"] == ("beta power", "beta1_power")
    assert rows(named)["d/w/Adam_3"] == ("slot", "optimizer/Adam_1/v/d/w")


def test_scopes_partitions_averages_and_statistics(tmp_path: Path) -> None:
    def build() -> Any:
        step = T.get_or_create_global_step()
        rate = tf.get_variable("rate", (), trainable=False, initializer=tf.constant_initializer(0.25))
        w = variable(shape=(4, 3), partitioner=tf.fixed_size_partitioner(2))
        with tf.variable_scope("D"):
            b = variable("b", (3,))
            frozen = variable("frozen", (3,), trainable=False)
            mean = variable("bn/moving_mean", (3,), trainable=False)
            state = variable("state", (3,), trainable=False)
            train = T.AdamOptimizer(rate).minimize(loss(b, frozen), step)
        with tf.name_scope("E"):
            other = T.AdagradOptimizer(0.5).minimize(loss(w), var_list=list(w))
        moments = tf.reduce_mean(tf.convert_to_tensor(w), 0, name="moments")
        updates = [mean.assign_sub((mean - moments) * 0.1), state.assign(moments)]
        averages = T.ExponentialMovingAverage(0.5, step)
        return [train, other, *updates, averages.apply([b, moments])]

    for resource in (False, True):
        prefix, _ = saved(tmp_path / str(resource), build, resource)
        contents = read(prefix)
        assert rows(contents) == {
            "D/D/b/Adam": ("slot", "optimizer/Adam/m/D/b"),
            "D/D/b/Adam_1": ("slot", "optimizer/Adam/v/D/b"),
            "D/b": ("weight", "D/b"),
            "D/b/ExponentialMovingAverage": ("average", "average/D/b"),
            "D/beta1_power": ("beta power", "optimizer/Adam/beta_1_power"),
            "D/beta2_power": ("beta power", "optimizer/Adam/beta_2_power"),
            "D/bn/moving_mean": ("statistic", "D/bn/moving_mean"),
            "D/frozen": ("weight", "D/frozen"),
            "D/state": ("statistic", "D/state"),
            "w/Adagrad": ("slot", "optimizer/Adagrad/accumulator/w"),
            "global_step": ("count", "global_step"),
            "moments/ExponentialMovingAverage": ("statistic", "moments/ExponentialMovingAverage"),
            "rate": ("hyperparameter", "optimizer/Adam/learning_rate"),
            "w": ("weight", "w"),
        }
        assert contents.optimizers[0].hyperparameters["learning_rate"] == 0.25
        prefix.with_name("model.meta").unlink()
        named = rows(read(prefix))
        assert named == {
            **rows(contents),
            "D/state": ("weight", "D/state"),
            "rate": ("weight", "rate"),
        }


def test_names_that_a_saver_gives(tmp_path: Path) -> None:
    def build() -> Any:
        w = variable()
        tf.add_to_collection("kept", w)
        return T.MomentumOptimizer(0.5, 0.5).minimize(loss(w))

    graph = tf.Graph()
    with graph.as_default(), tf.Session() as session:
        train = build()
        session.run(tf.global_variables_initializer())
        session.run(train)
        own = {each.op.name: each for each in tf.global_variables()}
        T.Saver(name="other").save(session, str(tmp_path / "all"))
        T.Saver({"weights": own["w"], "velocity": own["w/Momentum"]}).save(session, str(tmp_path / "model"))
    found = rows(read(tmp_path / "model"))
    assert found == {
        "velocity": ("slot", "optimizer/Momentum/accumulator/w"),
        "weights": ("weight", "w"),
    }
    assert tf1_meta.versions(tmp_path / "model.meta") == {"tensorflow": tf.__version__}


def test_the_graph_of_another_checkpoint_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, _ = saved(tmp_path / "a", lambda: T.AdamOptimizer().minimize(loss(variable())))
    two, _ = saved(tmp_path / "b", lambda: T.AdamOptimizer().minimize(loss(variable(shape=(5,)))))
    one.with_name("model.meta").write_bytes(two.with_name("model.meta").read_bytes())
    contents = read(one)
    assert "another checkpoint's" in contents.notes[0]
    assert rows(contents)["w/Adam"] == ("slot", "optimizer/Adam/m/w")


def test_ops_that_nobody_knows_do_no_harm(tmp_path: Path) -> None:
    def build() -> Any:
        w = variable()
        noise = tf.py_func(lambda: np.float32(1), [], tf.float32)
        return T.AdamOptimizer().minimize(loss(w) * noise)

    prefix, _ = saved(tmp_path, build)
    meta = prefix.with_name("model.meta")
    meta.write_bytes(meta.read_bytes().replace(b"PyFunc", b"NoSuch"))
    assert read(prefix).optimizers[0].algorithm == "Adam"


def test_graph_with_an_optimizer_of_every_kind_on_one_variable(tmp_path: Path) -> None:
    """RMSProp twice, once centred, and names that only the graph can tell apart."""

    def build() -> Any:
        w = variable()
        kinds = [T.RMSPropOptimizer(0.5, centered=True), T.RMSPropOptimizer(0.5), T.AdamOptimizer(name="mine")]
        return [each.minimize(loss(w)) for each in kinds]

    prefix, _ = saved(tmp_path, build)
    contents = read(prefix)
    assert [each.algorithm for each in contents.optimizers] == ["CenteredRMSProp", "RMSProp", "Adam"]
    assert rows(contents)["w/RMSProp_3"] == ("slot", "optimizer/RMSProp_1/rms/w")
    assert rows(contents)["w/mine_1"] == ("slot", "optimizer/mine/v/w")
    prefix.with_name("model.meta").unlink()
    named = read(prefix)
    assert {each.name: each.algorithm for each in named.optimizers} == {"RMSProp": None, "mine": "Adam"}
    assert any("centered or not" in note for note in named.notes)


def damage(folder: Path, seeds: range) -> None:
    def build() -> Any:
        w = variable()
        return T.AdamOptimizer(0.5).minimize(loss(w), T.get_or_create_global_step())

    prefix, _ = saved(folder, build)
    meta = prefix.with_name("model.meta")
    whole = meta.read_bytes()
    with BundleSource(prefix) as source:
        keys = list(source.tensors)
        for seed in seeds:
            meta.write_bytes(mutated(whole, seed))
            contents = tf1_names.contents(source)
            assert [each.key for each in contents.entries] == keys


def test_damaged_graphs(tmp_path: Path) -> None:
    damage(tmp_path, range(FEW))


@pytest.mark.slow
def test_many_damaged_graphs(tmp_path: Path) -> None:
    damage(tmp_path, range(MANY))
