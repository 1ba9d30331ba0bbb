"""Object-based checkpoints that are a tree of names, read by TensorFlow itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfport.checkpoints import convert, plan
from tfport.checkpoints.convert import Order
from tfport.checkpoints.object_graph import parse
from tfport.checkpoints.tree_graph import object_graph


def test_every_part_of_a_name_is_a_child() -> None:
    nodes = parse(object_graph(["net/hidden/kernel", "net/hidden/bias", "step"]))
    assert list(nodes[0].children) == ["net", "step"]
    hidden = nodes[nodes[nodes[0].children["net"]].children["hidden"]]
    kernel = nodes[hidden.children["kernel"]]
    assert (kernel.full_name, kernel.key) == ("net/hidden/kernel", "net/hidden/kernel/.ATTRIBUTES/VARIABLE_VALUE")
    assert nodes[nodes[0].children["step"]].key == "step/.ATTRIBUTES/VARIABLE_VALUE"


def test_tensorflow_reads_it_whole(tmp_path: Path) -> None:
    import tensorflow as tf

    kernel, bias = np.arange(6, dtype="float32").reshape(2, 3), np.ones(3, "float32")
    np.savez(tmp_path / "from.npz", allow_pickle=False, **{"net/hidden/kernel": kernel, "net/hidden/bias": bias})  # type: ignore[arg-type]
    with convert.planned(Order(tmp_path / "from.npz", tmp_path / "to", "tf2", options=plan.Options())) as (_, made):
        convert.write(made, tmp_path / "to")

    def module(**children: object) -> tf.Module:
        found = tf.Module()
        for name, child in children.items():
            setattr(found, name, child)
        return found

    hidden = module(kernel=tf.Variable(tf.zeros([2, 3])), bias=tf.Variable(tf.zeros([3])))
    status = tf.train.Checkpoint(net=module(hidden=hidden)).read(str(tmp_path / "to"))
    status.assert_consumed()
    np.testing.assert_array_equal(hidden.kernel, kernel)
    np.testing.assert_array_equal(hidden.bias, bias)
    with pytest.raises(AssertionError):
        tf.train.Checkpoint(other=module(hidden=hidden)).read(str(tmp_path / "to")).assert_consumed()
