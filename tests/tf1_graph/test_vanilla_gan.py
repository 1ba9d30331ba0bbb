"""What is TF1's own: the graph's variables, their kind, and the Session."""

from __future__ import annotations

import math
from typing import cast

import pytest
import tensorflow as tf

import subjects
from tf1_graph.subject import GraphSubject
from tfport.errors import CheckpointError
from tfport.state import State


def graph() -> GraphSubject:
    return cast(GraphSubject, subjects.subject("vanilla_gan", "tf1_graph"))


def test_global_variables() -> None:
    shapes = graph().global_variables()
    assert len(shapes) == 28
    assert sum(math.prod(shape) for shape in shapes.values()) == 1_307_191
    assert sum(name.startswith("beta") or "beta1_power" in name or "beta2_power" in name for name in shapes) == 4


def test_variables_are_reference_variables() -> None:
    kinds = {op.type for op in graph().graph.get_operations()}
    assert "VariableV2" in kinds
    assert "VarHandleOp" not in kinds
    assert "ApplyAdam" in kinds


def test_nothing_global_is_touched() -> None:
    graph()
    assert tf.executing_eagerly()
    assert not tf.compat.v1.get_default_graph().get_operations()


def test_loading_adds_no_op() -> None:
    side = graph()
    side.load(subjects.initial())
    before = len(side.graph.get_operations())
    side.load(subjects.warm())
    side.forward(subjects.batches()[0], training=True)
    assert len(side.graph.get_operations()) == before


def test_beta_powers_that_no_count_explains_are_refused() -> None:
    side = graph()
    side.load(subjects.initial())
    power = side._powers("generator")["beta_2"]
    with side.graph.as_default():
        power.load(0.5, side.session)
    with pytest.raises(CheckpointError, match="not a power of beta"):
        side.state()
    side.load(subjects.initial())
    assert isinstance(side.state(), State)
