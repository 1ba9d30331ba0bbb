"""What is told of a checkpoint: roles, totals, exact statistics, and what is odd."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from checkpoint_sides import ADAM, FakeSource, entry, gan_arrays
from tfport import adam
from tfport.checkpoints import inspecting
from tfport.checkpoints.contents import Contents, Entry, OptimizerEntry, Role
from tfport.checkpoints.inspecting import Inspection, blocks, inspect, statistics
from tfport.errors import CheckpointError

Array = np.ndarray[Any, Any]


def seen(array: Any, piece: int | None = None) -> inspecting.Statistics:
    """Statistics of one array that comes in pieces."""
    return statistics(blocks(FakeSource({"x": array}, piece=piece), "x"))


def odd(arrays: dict[str, Any], *optimizers: OptimizerEntry) -> list[tuple[str, str]]:
    """Kind and sentence of everything odd; mild ones have "mild" before the kind."""
    found = inspect(FakeSource(arrays, optimizers=optimizers), values=True)
    return [("mild " * each.mild + each.kind, each.text) for each in found.odd]


# --- Blocks -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("piece", [None, 1, 7, 64, 1000])
def test_blocks_are_the_same_whatever_the_pieces(piece: int | None) -> None:
    array = np.arange(100, dtype=np.float32)
    found = [block.copy() for block in blocks(FakeSource({"x": array}, piece=piece), "x", 32)]
    assert [len(block) for block in found] == [32, 32, 32, 4]
    assert np.concatenate(found).tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_blocks_of_scalars_and_of_nothing(shape: tuple[int, ...]) -> None:
    found = [block.copy() for block in blocks(FakeSource({"x": np.ones(shape)}), "x")]
    assert sum(map(len, found)) == math.prod(shape)


def test_too_few_and_too_many_bytes_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"x ends after 39 of 40 bytes"):
        seen_cut = FakeSource({"x": np.ones(10, np.float32)}, cut="x", piece=8)
        list(blocks(seen_cut, "x"))
    long = FakeSource({"x": np.ones(10, np.float32)})
    long.arrays["x"] = np.ones(11, np.float32)
    with pytest.raises(CheckpointError, match="holds more bytes than its shape"):
        list(blocks(long, "x"))


def test_a_wrong_checksum_is_met_although_all_bytes_came() -> None:
    with pytest.raises(CheckpointError, match="checksum"):
        inspect(FakeSource({"damaged": np.ones(5)}), values=True)
    with pytest.raises(CheckpointError, match="checksum"):
        inspect(FakeSource({"damaged": b"text"}, Contents((Entry("damaged", Role.OTHER, "damaged"),))), values=True)


# --- Statistics -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"])
def test_statistics_are_those_of_exact_arithmetic(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting.blocks, "__defaults__", (64,))
    kind = np.dtype(getattr(ml_dtypes, dtype)) if hasattr(ml_dtypes, dtype) else np.dtype(dtype)
    array = (np.random.default_rng(1).normal(3, 2, (9, 57)) * 1).astype(kind)
    array[0, :4] = [0, -0.0, 1, 0]
    values = [float(each) for each in array.reshape(-1)]
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in values) / len(values))
    found = seen(array, piece=13)
    assert (found.elements, found.nan, found.infinite, found.zeros) == (513, 0, 0, values.count(0.0))
    assert (found.minimum, found.maximum) == (min(values), max(values))
    assert found.mean == pytest.approx(mean, rel=1e-15)
    assert found.deviation == pytest.approx(deviation, rel=1e-14)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e-320])
def test_squares_neither_overflow_nor_vanish(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting.blocks, "__defaults__", (3,))
    array = np.array([-1.0, 2.0, 3.0, -4.0, 5.0]) * scale
    found = seen(array)
    assert found.deviation is not None and found.mean is not None
    assert found.mean / scale == pytest.approx(1.0, rel=1e-3)
    assert found.deviation / scale == pytest.approx(math.sqrt(10), rel=1e-3)
    widest = seen(np.array([-1.7e308, 1.7e308, 1.7e308, -1.7e308]))
    assert widest.mean == 0.0
    assert widest.deviation == pytest.approx(1.7e308)


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    found = seen(np.array([1.0, np.nan, np.inf, -np.inf, np.nan, 3.0, 0.0], np.float32))
    assert (found.elements, found.finite, found.nan, found.infinite, found.zeros) == (7, 3, 2, 2, 1)
    assert (found.minimum, found.maximum) == (0.0, 3.0)
    assert found.mean == pytest.approx(4 / 3)
    nothing = seen(np.array([np.nan, np.inf]))
    assert (nothing.minimum, nothing.mean, nothing.deviation) == (None, None, None)


def test_integers_keep_all_their_digits() -> None:
    found = seen(np.array([2**63 - 1, -(2**63), 0], np.int64))
    assert (found.minimum, found.maximum, found.zeros) == (-(2**63), 2**63 - 1, 1)
    assert seen(np.array([2**64 - 1], np.uint64)).maximum == 2**64 - 1
    truth = seen(np.array([True, False, True, True]))
    assert (truth.minimum, truth.maximum, truth.mean, truth.zeros) == (0, 1, 0.75, 1)


def test_complex_numbers_have_no_order() -> None:
    found = seen(np.array([1 + 2j, 0, complex(np.nan, 1), complex(1, np.inf)]))
    assert (found.elements, found.nan, found.infinite, found.zeros, found.minimum) == (4, 1, 1, 1, None)


def test_denormals() -> None:
    assert seen(np.array([1e-40, 0.0, 1e-37, -1e-39, 1.0], np.float32)).denormals == 2
    assert seen(np.array([1e-39, 1.0], ml_dtypes.bfloat16)).denormals == 1
    assert seen(np.array([1e-5, 1.0], np.float16)).denormals == 1
    assert seen(np.array([1e-40, 5e-324])).denormals == 1


def test_a_constant_has_no_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting.blocks, "__defaults__", (7,))
    found = seen(np.full(1000, 0.1))
    assert (found.mean, found.deviation, found.constant) == (0.1, 0.0, True)
    assert not seen(np.array([1.0, np.nan])).constant


def test_memory_does_not_grow_with_the_tensor() -> None:
    class Endless(FakeSource):
        def chunks(self, key: str) -> Any:
            piece = np.ones(1 << 20, np.float32).tobytes()
            return (piece for _ in range(32))

    source = Endless({"x": np.broadcast_to(np.float32(1), (1 << 25,))})
    tracemalloc.start()
    found = statistics(blocks(source, "x"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.elements, found.mean) == (1 << 25, 1.0)
    assert peak < 24 << 20  # the tensor has 128 MiB


# --- What there is ----------------------------------------------------------------------------------------------------
def told(arrays: dict[str, Any], **given: Any) -> Inspection:
    return inspect(FakeSource(arrays, **given))


def test_only_headers_and_single_numbers_are_read() -> None:
    arrays = {**gan_arrays(), "optimizer/gan/learning_rate": np.float32(0.1), "large": np.ones(1000)}
    source = FakeSource(arrays, readable=1)
    found = inspect(source)
    assert source.reads == ["optimizer/gan/iterations", "optimizer/gan/learning_rate"]
    assert len(found.tensors) == 10 and not found.values and found.odd == ()
    with pytest.raises(AssertionError, match="only headers"):
        inspect(FakeSource(arrays, readable=1), values=True)


def test_every_tensor_has_its_group_and_its_sum() -> None:
    arrays = {
        **gan_arrays(),
        "average/generator/hidden/bias": np.ones(5),
        "global_step": np.array(7),
        "_CHECKPOINTABLE_OBJECT_GRAPH": b"graph",
    }
    found = told(arrays, optimizers=[ADAM])
    groups = {row.name: row.group for row in found.tensors}
    assert groups["generator/hidden/kernel"] == "weights"
    assert groups["generator/norm/moving_variance"] == "moving statistics"
    assert groups["average/generator/hidden/bias"] == "moving averages"
    assert groups["optimizer/gan/iterations"] == "optimizer gan"
    assert groups["global_step"] == groups["_CHECKPOINTABLE_OBJECT_GRAPH"] == "other"
    assert {role: (each.tensors, each.parameters, each.bytes) for role, each in found.totals.items()} == {
        "weight": (2, 40, 160),
        "statistic": (1, 5, 20),
        "average": (1, 5, 40),
        "slot": (4, 80, 320),
        "count": (2, 2, 16),
        "other": (1, 1, 0),
    }
    assert (found.total.tensors, found.total.parameters, found.total.bytes) == (11, 133, 556)
    optimizer = found.optimizers[0]
    assert (optimizer.algorithm, optimizer.count, optimizer.parameters) == ("Adam", 200, 40)
    assert {slot: each.tensors for slot, each in optimizer.slots.items()} == {"m": 2, "v": 2}
    assert [row.value for row in found.tensors if row.role is Role.COUNT] == [200, 7]


def test_an_optimizer_that_only_its_tensors_tell_of() -> None:
    found = told(gan_arrays())
    assert [(each.name, each.algorithm, each.count) for each in found.optimizers] == [("gan", None, 200)]
    assert found.optimizers[0].variables == ("generator/hidden/kernel", "generator/hidden/bias")


def test_beta_powers_tell_the_count() -> None:
    arrays = {
        "optimizer/gan/beta_1_power": adam.beta_power(0.5, 40, "float32"),
        "optimizer/gan/beta_2_power": adam.beta_power(0.999, 40, "float32"),
    }
    found = told(arrays, optimizers=[ADAM]).optimizers[0]
    assert [(each.beta_name, each.beta, each.iterations) for each in found.powers] == [
        ("beta_1", 0.5, 40),
        ("beta_2", 0.999, 40),
    ]
    assert found.count == 40
    assert told(arrays).optimizers[0].count is None


def test_tf1_powers_of_float64_are_made_of_betas_in_float32() -> None:
    power = adam.beta_power(float(np.float32(0.999)), 12, "float64")
    assert inspecting.iterations(0.999, float(power), "float64") == 12


def test_a_tensor_that_the_contents_leave_out_is_bookkeeping() -> None:
    found = inspect(FakeSource({"a": np.ones(2), "b": np.ones(3)}, Contents((entry("a"),))))
    assert [(row.name, row.role) for row in found.tensors] == [("a", Role.WEIGHT), ("b", Role.OTHER)]


def test_repeated_names_are_counted() -> None:
    both = Contents((entry("one", "shared"), entry("two", "shared")))
    assert inspect(FakeSource({"one": np.ones(2), "two": np.ones(2)}, both)).repeated == 1


def test_files_of_a_file_a_folder_and_a_prefix(tmp_path: Path) -> None:
    for name, length in (
        ("model.index", 3),
        ("model.data-00000-of-00001", 5),
        ("model.meta", 2),
        ("model2.index", 9),
        ("folder/in/side", 4),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * length)
    files = inspecting.files_of(tmp_path / "model")
    assert files == {"model.data-00000-of-00001": 5, "model.index": 3, "model.meta": 2}
    assert inspecting.files_of(tmp_path / "folder") == {"in/side": 4}
    assert inspecting.files_of(tmp_path / "model2.index") == {"model2.index": 9}
    assert inspecting.files_of(tmp_path / "none") == {}


def test_json_holds_everything_and_no_nan() -> None:
    arrays = gan_arrays()
    arrays["generator/hidden/kernel"][0, 0] = np.nan
    arrays["optimizer/gan/beta_1_power"] = np.array(np.nan)
    tree = json.loads(json.dumps(inspect(FakeSource(arrays, optimizers=[ADAM]), True).as_json(), allow_nan=False))
    assert (tree["schema"], tree["kind"], tree["format"]) == (1, "checkpoint", "npz")
    assert tree["tensors"][0]["statistics"]["nan"] == 1
    assert tree["optimizers"][0]["powers"][0]["power"] == "nan"
    assert [each["kind"] for each in tree["odd"]] == ["nan", "nan", "power"]
    assert inspect(FakeSource(arrays)).as_json()["odd"] is None


# --- What is odd ------------------------------------------------------------------------------------------------------
def test_a_sound_checkpoint_has_nothing_odd() -> None:
    assert odd(gan_arrays(), ADAM) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("w/kernel", [1.0, math.nan], ("nan", "w/kernel holds 1 NaN of 2 values.")),
        ("w/kernel", [1.0, -math.inf, 2], ("infinite", "w/kernel holds 1 infinite of 3 values.")),
        ("w/kernel", [0.0, -0.0], ("zero", "w/kernel is all zero.")),
        ("w/bias", [0.0, 0.0], ("mild zero", "w/bias is a bias and all zero.")),
        ("w/kernel", [0.1, 0.1], ("constant", "w/kernel is 0.1 everywhere.")),
        ("w/gamma", [1.0, 1.0], ("mild constant", "w/gamma is 1.0 everywhere.")),
        ("w/kernel", [1e-40, 1.0], ("denormal", "w/kernel holds 1 denormal of 2 values: ")),
        ("n/moving_variance", [1.0, -0.5], ("negative", "n/moving_variance is a variance and as low as -0.5.")),
        ("n/moving_variance", [1.0, 1.0], ("mild untrained", "n/moving_variance is 1 everywhere, as before any")),
        ("optimizer/gan/v/w", [-1e-3, 1.0], ("negative", "optimizer/gan/v/w is made of squares and as low as -0.001")),
    ],
)
def test_odd_values(name: str, value: list[float], expected: tuple[str, str]) -> None:
    found = odd({name: np.array(value, np.float32)}, ADAM)
    assert [kind for kind, _ in found] == [expected[0]]
    assert found[0][1].startswith(expected[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("w/kernel", [0.0, 1.0]),
        ("scalar", 3.0),
        ("n/moving_variance", [1.0, 0.9]),
        ("n/moving_mean", [-1.0, 0.5]),
        ("n/moving_mean", [1.0, 1.0]),
        ("optimizer/gan/m/w", [-1e-3, 1.0]),
        ("optimizer/gan/accumulator/w", [-1e-3, 1.0]),
        ("optimizer/gan/m/w", [0.0, 0.0]),
    ],
)
def test_values_that_are_not_odd(name: str, value: Any) -> None:
    assert odd({name: np.array(value, np.float32)}, ADAM) == []


def test_an_accumulator_of_squares_is_not_negative() -> None:
    name = "optimizer/gan/accumulator/w"
    found = odd({name: np.array([-1.0, 1.0])}, OptimizerEntry("gan", "Adagrad", "tf1"))
    assert [kind for kind, _ in found] == ["negative"]


def test_few_denormals_are_usual() -> None:
    array = np.ones(1000, np.float32)
    array[0] = 1e-40
    assert odd({"w/kernel": array + 0}) == []


def test_training_makes_zero_slots_and_variances_of_one_odd() -> None:
    arrays = {
        "optimizer/gan/m/w": np.zeros(3, np.float32),
        "n/moving_variance": np.ones(3, np.float32),
        "optimizer/gan/iterations": np.array(1200),
    }
    assert odd(arrays, ADAM) == [
        ("dead slot", "optimizer/gan/m/w is all zero after 1,200 updates: no gradient has reached it."),
        ("untrained", "n/moving_variance is 1 everywhere after 1,200 updates: it was never moved."),
    ]
    arrays["optimizer/gan/iterations"] = np.array(0)
    assert [kind for kind, _ in odd(arrays, ADAM)] == ["mild untrained"]


def test_counts_that_differ() -> None:
    arrays = {
        "optimizer/gan/iterations": np.array(41),
        "optimizer/gan/beta_1_power": adam.beta_power(0.5, 40, "float32"),
        "optimizer/gan/beta_2_power": adam.beta_power(0.999, 41, "float32"),
    }
    (found,) = odd(arrays, ADAM)
    assert found[0] == "count"
    assert found[1].startswith("The counts of updates of optimizer/gan differ: optimizer/gan/iterations tells of 41, ")
    arrays["optimizer/gan/beta_1_power"] = adam.beta_power(0.5, 41, "float32")
    assert odd(arrays, ADAM) == []


def test_a_power_that_has_underflowed_agrees_with_every_later_count() -> None:
    arrays = {
        "optimizer/gan/iterations": np.array(5000),
        "optimizer/gan/beta_1_power": adam.beta_power(0.5, 5000, "float32"),
        "optimizer/gan/beta_2_power": adam.beta_power(0.999, 5000, "float32"),
    }
    assert arrays["optimizer/gan/beta_1_power"] == 0
    assert odd(arrays, ADAM) == []


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan, math.inf])
def test_a_power_of_nothing(value: float) -> None:
    found = odd({"optimizer/gan/beta_1_power": np.float32(value)})
    assert found[-1][0] == "power"
    assert found[-1][1].endswith("which is no power of any beta.")


def test_a_power_of_another_beta() -> None:
    (found,) = odd({"optimizer/gan/beta_1_power": np.float32(0.3)}, ADAM)
    assert found == ("power", "optimizer/gan/beta_1_power is 0.3, which is no power of beta_1 0.5.")


@pytest.mark.parametrize("value", [-1, 2.5, math.nan])
def test_a_count_that_is_none(value: float) -> None:
    found = odd({"optimizer/gan/iterations": np.array(value)}, ADAM)
    assert found[-1] == ("count", f"optimizer/gan/iterations is {value}, which is no count of updates.")
