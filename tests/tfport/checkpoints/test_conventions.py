"""Checkpoints laid out by their formats' own conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checkpoint_sides import FakeSource
from tfport.checkpoints import conventions, plan
from tfport.checkpoints.contents import Contents, Entry, OptimizerEntry, Role
from tfport.errors import CheckpointError, UserError

W = np.ones((2, 3), "float32")


def source(algorithm: str | None = "Adam", name: str = "Adam", convention: str = "tf1", **more: Any) -> FakeSource:
    arrays = {"net/w": W, "bn/moving_mean": W[0], **more}
    entries = [Entry("net/w", Role.WEIGHT, "net/w"), Entry("bn/moving_mean", Role.STATISTIC, "bn/moving_mean")]
    entries += [
        Entry(key, Role.SLOT, f"optimizer/{name}/{key}/net/w", "net/w", name, key)
        for key in more
        if key in ("m", "v", "accumulator", "rms", "mean", "momentum")
    ]
    if "count" in more:
        entries.append(Entry("count", Role.COUNT, f"optimizer/{name}/iterations", optimizer=name))
    if "global_step" in more:
        entries.append(Entry("global_step", Role.COUNT, "global_step"))
    if "ema" in more:
        entries.append(Entry("ema", Role.AVERAGE, "average/net/w", "net/w"))
    numbers = {"beta_1": 0.9, "beta_2": 0.999}
    return FakeSource(
        arrays, Contents(tuple(entries), (OptimizerEntry(name, algorithm, convention, numbers, ("net/w",)),))
    )


def keys(given: FakeSource, written: str) -> list[str]:
    return list(conventions.lay_out(given, given.contents(), written).tensors)


def adam(name: str = "Adam", convention: str = "tf1") -> FakeSource:
    return source(name=name, convention=convention, m=W, v=W, count=np.int64(7))


def test_canonical_files_have_canonical_names() -> None:
    assert keys(adam("d"), "npz") == [
        "net/w",
        "bn/moving_mean",
        "optimizer/d/m/net/w",
        "optimizer/d/v/net/w",
        "optimizer/d/iterations",
    ]
    assert keys(adam("d"), "safetensors") == keys(adam("d"), "npz")


def test_an_adam_must_have_a_count() -> None:
    given = source(m=W, v=W)
    target = conventions.lay_out(given, given.contents(), "npz")
    with pytest.raises(CheckpointError, match="--iterations=N"):
        plan.make(given, given.contents(), target)


def test_tf1_names_are_those_of_tf1s_optimizers() -> None:
    assert keys(adam(), "tf1-v2") == [
        "net/w",
        "bn/moving_mean",
        "net/w/Adam",
        "net/w/Adam_1",
        "beta1_power",
        "beta2_power",
    ]
    assert keys(adam("adam", "keras"), "tf1-v2")[2:4] == ["net/w/Adam", "net/w/Adam_1"]
    assert keys(adam("adam_d"), "tf1-v1")[2:4] == ["net/w/adam_d", "net/w/adam_d_1"]


@pytest.mark.parametrize(
    ("algorithm", "slots", "expected"),
    [
        ("Momentum", ["accumulator"], ["Momentum"]),
        ("RMSProp", ["momentum", "rms"], ["RMSProp_1", "RMSProp"]),
        ("CenteredRMSProp", ["rms", "mean", "momentum"], ["RMSProp", "RMSProp_1", "RMSProp_2"]),
    ],
)
def test_tf1s_order_of_slots(algorithm: str, slots: list[str], expected: list[str]) -> None:
    given = source(algorithm, algorithm, "keras", **dict.fromkeys(slots, W))
    assert [key.rpartition("/")[2] for key in keys(given, "tf1-v2")[2:]] == expected


def test_shared_counts_and_averages_keep_their_names() -> None:
    given = source("SGD", "SGD", global_step=np.int32(5), ema=W)
    assert keys(given, "tf1-v2") == ["net/w", "bn/moving_mean", "net/w/ExponentialMovingAverage", "global_step"]
    assert conventions.lay_out(given, given.contents(), "npz").tensors["global_step"].dtype == "int32"


def test_kerass_h5_and_torch_hold_weights_alone() -> None:
    assert keys(adam(), "keras-h5") == ["net/net/w:0", "bn/bn/moving_mean:0"]
    assert keys(adam(), "torch") == ["net.w", "bn.moving_mean"]
    given = adam()
    made = plan.make(given, given.contents(), conventions.lay_out(given, given.contents(), "torch"))
    assert {each.name for each in made.left_out} == {
        "optimizer/Adam/m/net/w",
        "optimizer/Adam/v/net/w",
        "optimizer/Adam/iterations",
    }


def test_an_object_graph_is_made_for_tf2() -> None:
    given = adam()
    target = conventions.lay_out(given, given.contents(), "tf2")
    assert next(iter(target.tensors)) == "net/w/.ATTRIBUTES/VARIABLE_VALUE"
    assert list(target.tensors)[-1] == "_CHECKPOINTABLE_OBJECT_GRAPH"
    made = plan.make(given, given.contents(), target)
    assert b"VARIABLE_VALUE" in b"".join(bytes(each) for each in made.moves[-1].produce())


@pytest.mark.parametrize("written", ["keras3", "keras3-weights", "saved-model", "tfport-run"])
def test_what_needs_the_model_asks_for_a_template(written: str) -> None:
    given = adam()
    with pytest.raises(UserError, match="--like=FILE"):
        conventions.lay_out(given, given.contents(), written)
