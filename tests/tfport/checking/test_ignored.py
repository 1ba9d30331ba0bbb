"""What --ignore leaves out: only what takes no part, and each pattern must match something."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cases import ignoring
from pairs import convnet_batchnorm
from tfport.checking import factories
from tfport.checking.check import check
from tfport.checking.ignored import matching
from tfport.errors import UserError


@pytest.mark.parametrize(
    ("legacy", "ignore", "message"),
    [
        (ignoring.graph(), "w", "w of the legacy side takes part: the optimizer .* trains it"),
        (ignoring.graph(), "los", "unknown variable in --ignore 'los'.*Valid: .*loss/ExponentialMovingAverage"),
        (ignoring.graph(read=True, after=10**6), "loss/*", "the next value of w is computed from it"),
        (ignoring.module_that_reads, "mean*", "with another value in it, the next value of weight changes"),
        (ignoring.graph(read=True), "loss/*", "the next value of w is computed from it"),
    ],
)
def test_what_cannot_be_left_out(legacy: Any, ignore: str, message: str) -> None:
    with pytest.raises(UserError, match=re.compile(message, re.DOTALL)):
        check(legacy, ignoring.model, ignoring.batches, steps=2, ignore=ignore)


def test_moving_statistics_take_part() -> None:
    import keras

    def model() -> Any:
        found = keras.Sequential([keras.Input([5], name="x"), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
        found.compile("sgd", "mse")
        return found

    with pytest.raises(UserError, match=r"output .* in inference changes"):
        check(model, model, ignoring.batches, steps=2, ignore="*moving_mean")


def test_a_name_with_brackets_is_itself() -> None:
    assert matching(["a[0]", "b[01]"], ["a[0]", "b1", "c"]) == {"a[0]": ["a[0]"], "b[01]": ["b1"]}


def test_what_a_branch_reads_takes_part() -> None:
    """A cond of TensorFlow 2 is one op, which may assign what it reads as well."""
    program = factories.build(convnet_batchnorm.legacy, "legacy")
    found = program.reaches()
    assert found is not None
    assert {"the next value of conv1/weights", "the next value of conv2/weights"} <= {*found["norm1/moving_mean"]} | {
        *found["norm2/moving_mean"]
    }
