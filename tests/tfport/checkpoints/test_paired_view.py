"""One checkpoint under the names of another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from checkpoint_sides import FakeSource
from tfport.checkpoints.contents import Contents, Entry, OptimizerEntry, Role
from tfport.checkpoints.differing import Status, diff
from tfport.checkpoints.paired_view import PairedSource
from tfport.checkpoints.pairing import read_mapping

W = np.arange(6, dtype="float32").reshape(2, 3)


def torch_side(weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = W) -> FakeSource:
    entries = (
        Entry("net.weight", Role.WEIGHT, "net/weight"),
        Entry("m", Role.SLOT, "optimizer/one/m/net/weight", "net/weight", "one", "m"),
        Entry("n", Role.COUNT, "optimizer/one/iterations", optimizer="one"),
        Entry("extra", Role.WEIGHT, "extra"),
    )
    optimizer = OptimizerEntry("one", "Adam", "torch", {}, ("net/weight",))
    arrays = {"net.weight": weight, "m": W + 1, "n": np.int64(3), "extra": W}
    return FakeSource(arrays, Contents(entries, (optimizer,)), "torch")


def keras_side() -> FakeSource:
    entries = (
        Entry("a", Role.WEIGHT, "dense/net/kernel"),
        Entry("b", Role.SLOT, "optimizer/adam/m/dense/net/kernel", "dense/net/kernel", "adam", "m"),
        Entry("c", Role.COUNT, "optimizer/adam/iterations", optimizer="adam"),
        Entry("global_step", Role.COUNT, "global_step"),
    )
    optimizer = OptimizerEntry("adam", "Adam", "keras", {}, ("dense/net/kernel",))
    arrays = {"a": W.T.copy(), "b": (W + 1).T.copy(), "c": np.int64(3), "global_step": np.int64(3)}
    return FakeSource(arrays, Contents(entries, (optimizer,)))


def test_names_layout_slots_and_optimizers_are_the_others() -> None:
    view = PairedSource(torch_side(), keras_side())
    assert [entry.name for entry in view.contents().entries] == [
        "dense/net/kernel",
        "optimizer/adam/m/dense/net/kernel",
        "optimizer/adam/iterations",
        "extra",
    ]
    assert view.tensors["net.weight"].shape == (3, 2)
    np.testing.assert_array_equal(view.read("net.weight"), W.T)
    np.testing.assert_array_equal(view.read("m"), (W + 1).T)
    assert view.contents().optimizers[0].variables == ("dense/net/kernel",)


def test_a_comparison_sees_the_same_and_a_change() -> None:
    found = diff(PairedSource(torch_side(), keras_side()), keras_side())
    assert [each.name for each in found.only_left] == ["extra"]
    assert {each.status for each in found.tensors} == {Status.IDENTICAL}
    changed = diff(PairedSource(torch_side(W + 1), keras_side()), keras_side())
    assert [each.name for each in changed.tensors if each.status is not Status.IDENTICAL] == ["dense/net/kernel"]


def test_a_shared_count_that_every_optimizer_agrees_with_does_not_count() -> None:
    (alone,) = diff(PairedSource(torch_side(), keras_side()), keras_side()).only_right
    assert (alone.name, alone.counts) == ("global_step", False)
    other = keras_side()
    other.arrays["global_step"] = np.asarray(np.int64(4))
    (alone,) = diff(PairedSource(torch_side(), other), other).only_right
    assert alone.counts


def test_a_variable_that_is_split_is_seen_as_its_parts(tmp_path: Path) -> None:
    halves = [
        {"legacy": "net/weight", "modern": name, "legacy_block": [[n, n + 1], [0, 3]]} for n, name in enumerate("xy")
    ]
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps({"schema": 2, "variables": halves}))
    entries = []
    for name in "xy":
        entries += [
            Entry(name, Role.WEIGHT, name),
            Entry(f"m{name}", Role.SLOT, f"optimizer/adam/m/{name}", name, "adam", "m"),
        ]
    optimizer = OptimizerEntry("adam", "Adam", "keras", {}, ("x", "y"))
    arrays = {"x": W[:1], "mx": W[:1] + 1, "y": W[1:], "my": W[1:] + 1}
    other = FakeSource(arrays, Contents(tuple(entries), (optimizer,)))
    view = PairedSource(torch_side(), other, read_mapping(path))
    found = diff(view, other)
    assert {each.name: each.status for each in found.tensors} == dict.fromkeys(
        ("x", "y", "optimizer/adam/m/x", "optimizer/adam/m/y"), Status.IDENTICAL
    )
    assert view.contents().optimizers[0].variables == ("x", "y")
    second = W + np.array([[0], [1]], "float32")
    changed = diff(PairedSource(torch_side(second), other, read_mapping(path)), other)
    assert [each.name for each in changed.tensors if each.status is not Status.IDENTICAL] == ["y"]
