"""Batches come as users give them, and find the inputs that they are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tfport.checking.batches import MADE_UP, BatchSource, assign, fed, made_up
from tfport.errors import UserError
from tfport.program import InputInfo

Array = np.ndarray[Any, Any]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def batch(number: int) -> dict[str, Array]:
    return {"x": np.full((2, 3), number, np.float32)}


def numbers(source: BatchSource, steps: int) -> list[float]:
    return [float(source[step]["x"][0, 0]) for step in range(steps)]


# --- What may be given ------------------------------------------------------------------------------------------------
def test_one_batch_is_every_steps() -> None:
    assert numbers(BatchSource(batch(4)), 3) == [4, 4, 4]


def test_a_tuple_of_arrays_is_one_batch_by_places() -> None:
    source = BatchSource((X, X + 1))
    assert list(source[3]) == ["0", "1"] and source[3]["1"][0, 0] == 1


@pytest.mark.parametrize("whole", [list, tuple])
def test_a_sequence_begins_again_at_its_end(whole: Any) -> None:
    assert numbers(BatchSource(whole([batch(0), batch(1)])), 5) == [0, 1, 0, 1, 0]


def test_a_list_of_arrays_is_a_batch_an_array() -> None:
    source = BatchSource([X, X + 1])
    assert [source[step]["0"][0, 0] for step in range(3)] == [0, 1, 0]


def test_a_generator_is_read_as_far_as_asked_and_begins_again() -> None:
    read = []

    def generator() -> Iterator[dict[str, Array]]:
        for number in range(3):
            read.append(number)
            yield batch(number)

    source = BatchSource(generator())
    assert numbers(source, 2) == [0, 1] and read == [0, 1]
    assert numbers(source, 5) == [0, 1, 2, 0, 1] and read == [0, 1, 2]


def test_a_function_of_the_step_is_called_for_each() -> None:
    asked = []

    def function(step: int) -> dict[str, Array]:
        asked.append(step)
        return batch(step)

    assert numbers(BatchSource(function), 3) == [0, 1, 2]
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (lambda: batch(3), [3, 3, 3]),
        (lambda: [batch(3), batch(4)], [3, 4, 3]),
        (lambda: (batch(each) for each in (3, 4)), [3, 4, 3]),
        (lambda size=3: batch(size), [3, 3, 3]),
    ],
)
def test_a_function_of_nothing_gives_one_of_the_others(given: Any, expected: list[int]) -> None:
    assert numbers(BatchSource(given), 3) == expected


def test_numbers_truth_values_and_strings_are_taken_and_lists_become_arrays() -> None:
    source = BatchSource({"i": [1, 2], "b": np.array([True]), "s": np.array(["a"]), "u": np.zeros(2, np.uint8)})
    assert {name: array.dtype.kind for name, array in source[0].items()} == {"i": "i", "b": "b", "s": "U", "u": "u"}


# --- What may not -----------------------------------------------------------------------------------------------------
def _raising(*_: int) -> Any:
    raise ZeroDivisionError("no data")


def _broken() -> Iterator[dict[str, Array]]:
    yield batch(0)
    raise ZeroDivisionError("no more data")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, r"^batches gave int: expected a batch"),
        ("file.npz", r"^batches gave str: expected a batch"),
        (X, r"^batches gave ndarray: expected a batch"),
        (None, r"^batches gave NoneType"),
        ([], r"^batches is empty"),
        ((), r"^batches is empty"),
        (iter(()), r"^batches is empty"),
        ([3], r"^batch 0 of batches is int: expected a mapping"),
        ([batch(0), "x"], r"^batch 1 of batches is str"),
        ({"x": np.array([object()])}, r"^batch 0 of batches: x has dtype object"),
        ({"x": np.array([1j])}, r"^batch 0 of batches: x has dtype complex128"),
        ([batch(0), {"x": np.array([1.0, np.nan])}], r"^batch 1 of batches: x holds NaN or infinity"),
        ({"x": np.array([np.inf], np.float16)}, r"x holds NaN or infinity"),
        ({"x": np.zeros((0, 3), np.float32)}, r"^batch 0 of batches: x has shape \(0, 3\); give at least one"),
        (_raising, r"^batches raised ZeroDivisionError: no data"),
        (lambda: _raising(), r"^batches raised ZeroDivisionError: no data"),
        (lambda step: _raising(), r"^batches raised ZeroDivisionError: no data"),
        (lambda step: 3, r"^batch 1 of batches is int"),
        (_broken(), r"^batches raised ZeroDivisionError: no more data"),
    ],
)
def test_what_is_no_batch_is_told(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BatchSource(given)[1]


def test_messages_name_the_function_as_the_user_does() -> None:
    with pytest.raises(UserError, match=r"^data:batch gave int"):
        BatchSource(3, "data:batch")


# --- Made up ----------------------------------------------------------------------------------------------------------
def test_made_up_batches_have_the_inputs_shapes_and_repeat() -> None:
    inputs = (InputInfo("a", (None, 3), "float32"), InputInfo("b", (4, 2), "float64"))
    source = made_up(inputs, 5)
    assert {name: array.shape for name, array in source[0].items()} == {"a": (MADE_UP, 3), "b": (4, 2)}
    assert np.array_equal(source[1]["a"], made_up(inputs, 5)[1]["a"])
    assert not np.array_equal(source[0]["a"], source[1]["a"])
    assert not np.array_equal(source[0]["a"], made_up(inputs, 6)[0]["a"])


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (InputInfo("labels", (None, 3), "int32"), "input labels is int32"),
        (InputInfo("x", (None, None), "float32"), "input x has no known shape"),
        (InputInfo("x", None, "float32"), "input x has no known shape"),
        (InputInfo("x", (None, 3), None), "input x is None"),
    ],
)
def test_nothing_is_made_up_for_what_is_not_known(one: InputInfo, message: str) -> None:
    with pytest.raises(UserError, match=f"{message}.*give --batches"):
        made_up((one,), 0)


# --- Names ------------------------------------------------------------------------------------------------------------
def info(name: str, *shape: int | None, dtype: str | None = "float32") -> InputInfo:
    return InputInfo(name, shape or None, dtype)


def test_inputs_are_fed_by_name_whatever_the_order() -> None:
    given = {"y": X, "x": X}
    assert assign(given, (info("x", None, 3), info("y", None, 3)), "legacy") == {"x": "x", "y": "y"}


@pytest.mark.parametrize("name", ["scope/x", "x_1", "x_ph", "x_placeholder_2", "X", "x_input", "scope/x:0"])
def test_a_name_without_scope_and_number_will_do(name: str) -> None:
    given = {"other": X, "x": X}
    assert assign(given, (info(name, None, 3), info("other_2", None, 3)), "legacy") == {name: "x", "other_2": "other"}


def test_what_names_leave_open_is_fed_by_shape_and_dtype() -> None:
    given: dict[str, Array] = {"labels": np.zeros(2, np.int64), "images": X}
    inputs = (info("Placeholder", None, 3), info("Placeholder_1", None, dtype="int32"))
    assert assign(given, inputs, "legacy") == {"Placeholder": "images", "Placeholder_1": "labels"}


def test_what_shapes_leave_open_is_fed_in_order() -> None:
    given = {"first": X, "second": X}
    inputs = (info("a", None, 3), info("b", None, 3))
    assert assign(given, inputs, "legacy") == {"a": "first", "b": "second"}


def test_an_entry_that_nothing_takes_is_left_over() -> None:
    given = {"x": X, "spare": X}
    assert assign(given, (info("x", None, 3),), "legacy") == {"x": "x"}
    given = {"images": X, "spare": np.zeros((2, 5), np.float32)}
    assert assign(given, (info("z", None, 3),), "legacy") == {"z": "images"}


def test_an_input_that_gets_nothing_is_named_with_what_there_is() -> None:
    with pytest.raises(UserError, match=r"nothing for the modern side's input b: it holds a \(2, 3\) float32; the inp"):
        assign({"a": X}, (info("a", None, 3), info("b", None, 3)), "modern")
    with pytest.raises(UserError, match=r"legacy side's input q: .*of any shape"):
        assign({"a": X, "b": X, "c": X}, (info("q"),), "legacy")


def test_a_shape_that_does_not_fit_is_told() -> None:
    with pytest.raises(UserError, match=r"the batch's x has shape \(2, 3\), and the modern side's input x takes \(No"):
        assign({"x": X}, (info("x", None, 4),), "modern")
    with pytest.raises(UserError, match=r"takes \(None,\)"):
        assign({"x": X}, (InputInfo("x", (None,), "float32"),), "modern")


def test_halves_are_fed_as_halves_and_other_floats_in_the_precision_of_the_side() -> None:
    batch: dict[str, Any] = {
        "half": np.ones(2, np.float16),
        "single": np.ones(2, np.float32),
        "double": np.ones(2),
        "count": np.ones(2, int),
    }
    found = fed(batch, {name: name for name in batch}, "float64")
    assert [array.dtype.name for array in found.values()] == ["float16", "float64", "float64", "int64"]
    assert fed(batch, {"x": "double"}, "float32")["x"].dtype == np.float32
