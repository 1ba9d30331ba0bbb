"""How two checkpoints differ: names, shapes, dtypes, distances with their places, optimizers, and what counts."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from checkpoint_sides import ADAM, FakeSource, entry, gan_arrays
from tfport import adam
from tfport.checkpoints import inspecting
from tfport.checkpoints.contents import Contents, OptimizerEntry
from tfport.checkpoints.differing import Difference, Options, Status, TensorDifference, diff
from tfport.errors import CheckpointError, UserError

Array = np.ndarray[Any, Any]


def apart(left: Any, right: Any, name: str = "w", **options: Any) -> TensorDifference:
    """The difference of one pair."""
    (found,) = diff(FakeSource({name: left}, piece=24), FakeSource({name: right}, piece=7), Options(**options)).tensors
    return found


def compared(left: dict[str, Any], right: dict[str, Any], **options: Any) -> Difference:
    return diff(FakeSource(left, optimizers=[ADAM]), FakeSource(right, optimizers=[ADAM]), Options(**options))


def texts(found: Difference) -> list[str]:
    return [each.text for each in found.optimizers]


# --- The same ---------------------------------------------------------------------------------------------------------
def test_a_checkpoint_is_the_same_as_itself() -> None:
    found = compared(gan_arrays(), gan_arrays())
    assert found.same
    assert (found.identical, len(found.tensors), found.only_left, found.only_right) == (8, 8, (), ())
    assert texts(found) == [
        "optimizer/gan: Adam, learning_rate 0.0002, beta_1 0.5, beta_2 0.999, epsilon 1e-08 on both sides."
    ]


@pytest.mark.parametrize(
    "array",
    [
        np.array([np.nan, 1, np.inf]),
        np.array([1, 2], ml_dtypes.bfloat16),
        np.array([1 + 2j]),
        np.array([True, False]),
        np.array(3, np.uint64),
        np.zeros((0, 3), np.float16),
        b"a text",
    ],
    ids=lambda array: getattr(array, "dtype", "text"),
)
def test_the_same_bits_are_identical(array: Any) -> None:
    found = apart(array, array)
    assert (found.status, found.differing, found.absolute, found.ulp) == (Status.IDENTICAL, 0, None, None)


def test_other_pieces_and_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting.blocks, "__defaults__", (5,))
    arrays = gan_arrays()
    for one, other in itertools.product([1, 3, 20, 1000, None], repeat=2):
        assert diff(FakeSource(arrays, piece=one), FakeSource(arrays, piece=other)).same


# --- Values -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_one_step_is_one_ulp(dtype: str) -> None:
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    left = np.arange(1, 25).reshape(4, 6).astype(kind)
    right = left.copy()
    bits = right.view(f"i{kind.itemsize}")
    bits[2, 3] += 1
    found = apart(left, right)
    assert (found.status, found.differing, found.elements) == (Status.DIFFERENT, 1, 24)
    assert found.ulp is not None and found.absolute is not None and found.relative is not None
    assert (found.ulp.distance, found.ulp.index) == (1, (2, 3))
    gap = float(right[2, 3]) - float(left[2, 3])
    assert (found.absolute.distance, found.absolute.left, found.absolute.right) == (gap, 16.0, float(right[2, 3]))
    assert found.relative.distance == pytest.approx(gap / 16, rel=0.02)


def test_ulp_of_eight_bits_and_over_zero() -> None:
    left = np.array([1.0, -0.0], ml_dtypes.float8_e4m3fn)
    right = np.array([1.125, 0.001953125], ml_dtypes.float8_e4m3fn)
    found = apart(left, right)
    assert found.ulp is not None and found.ulp.distance == 1 and found.differing == 2
    tiny = np.float32(1e-45)
    over = apart(np.array([tiny]), np.array([-tiny]))
    assert over.ulp is not None and over.ulp.distance == 2


def test_each_distance_has_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting.blocks, "__defaults__", (2,))
    left = np.array([1000.0, 1e-3, 1.0, 5.0], np.float32)
    right = np.array([1000.5, 2e-3, 1.0, 5.0], np.float32)
    found = apart(left, right)
    assert found.absolute and found.relative and found.ulp
    assert (found.absolute.index, found.absolute.distance) == ((0,), 0.5)
    assert found.relative.index == (1,)
    assert found.relative.distance == pytest.approx(0.5)
    assert found.ulp.index == (1,)


def test_integers_are_apart_by_their_absolute_distance() -> None:
    found = apart(np.array([2**63 - 1, 5]), np.array([-(2**63), 9]))
    assert found.absolute and found.relative
    assert (found.absolute.distance, found.absolute.index, found.ulp) == (2**64 - 1, (0,), None)
    truth = apart(np.array([True, False]), np.array([True, True]))
    assert truth.absolute and (truth.absolute.distance, truth.absolute.index) == (1, (1,))
    assert apart(np.array([3]), np.array([4]), tolerance_ulp=5).status is Status.DIFFERENT
    far = apart(np.array([2**64 - 1], np.uint64), np.array([-1]))
    assert far.absolute and far.absolute.distance == 2**64


def test_not_a_number() -> None:
    quiet = np.array([np.nan, 1, 2], np.float32)
    other = quiet.copy()
    other.view(np.uint32)[0] += 1
    found = apart(quiet, other, tolerance_ulp=100)
    assert (found.status, found.nan, found.nan_bits) == (Status.DIFFERENT, 0, 1)
    alone = apart(quiet, np.array([1, 1, 2], np.float32), tolerance_ulp=2**31)
    assert (alone.status, alone.nan, alone.nan_bits) == (Status.DIFFERENT, 1, 0)
    assert alone.broken is not None and (alone.broken.index, alone.broken.right) == ((0,), 1.0)
    assert alone.ulp is None


def test_infinity_is_within_no_tolerance() -> None:
    largest = np.finfo(np.float32).max
    found = apart(np.array([1, largest]), np.array([1, np.inf], np.float32), tolerance_ulp=10)
    assert (found.status, found.infinite) == (Status.DIFFERENT, 1)
    assert found.broken is not None and found.broken.index == (1,)


def test_far_apart_doubles_have_finite_relative_distances() -> None:
    found = apart(np.array([1.7e308]), np.array([-1.7e308]))
    assert found.absolute and found.relative
    assert (found.absolute.distance, found.relative.distance) == (np.inf, 2.0)
    least = apart(np.array([0.0]), np.array([5e-324]))
    assert least.relative and least.relative.distance == 1.0


def test_a_zero_with_another_sign_is_told_and_does_not_count() -> None:
    found = apart(np.array([0.0, 1]), np.array([-0.0, 1]))
    assert (found.status, found.differing, found.zero_signs) == (Status.CLOSE, 1, 1)


def test_complex_values() -> None:
    found = apart(np.array([1 + 1j, 2]), np.array([1 + 1j, 2 + 1j]))
    assert found.absolute and (found.absolute.distance, found.absolute.index, found.ulp) == (1.0, (1,), None)
    assert found.status is Status.DIFFERENT


def test_tolerance_lists_and_does_not_count() -> None:
    left, right = gan_arrays(), gan_arrays()
    right["generator/hidden/bias"] = np.nextafter(right["generator/hidden/bias"], np.float32(9))
    strict, lax = compared(left, right), compared(left, right, tolerance_ulp=1)
    assert (strict.same, lax.same) == (False, True)
    assert [each.name for each in lax.tensors if each.status is Status.CLOSE] == ["generator/hidden/bias"]
    assert lax.identical == 7


def test_another_dtype_is_compared_in_the_wider_one() -> None:
    wide = np.array([1.0, 1.0001, 3.0], np.float32)
    narrow = wide.astype(ml_dtypes.bfloat16)
    found = apart(wide, narrow)
    assert (found.status, found.differing) == (Status.DIFFERENT, 1)
    assert found.absolute and found.ulp
    assert found.absolute.index == (1,)
    assert found.absolute.distance == pytest.approx(1e-4, rel=1e-3)
    assert found.ulp.distance == 0
    assert apart(wide, narrow, tolerance_ulp=1).status is Status.CLOSE
    assert apart(narrow, wide + np.float32(0.1), tolerance_ulp=1).status is Status.DIFFERENT
    same = apart(np.array([1.0, np.nan]), np.array([1.0, np.nan], np.float32))
    assert (same.status, same.differing, same.notes) == (Status.DIFFERENT, 0, ("the same values",))


def test_counts_may_have_another_dtype() -> None:
    name = "optimizer/gan/iterations"
    assert apart(np.array(7), np.array(7, np.int32), name).status is Status.CLOSE
    assert apart(np.array(7), np.array(7, np.float32), name).status is Status.CLOSE
    assert apart(np.array(7), np.array(8, np.int32), name).status is Status.DIFFERENT
    assert apart(np.array(7), np.array(7, np.int32), "weight").status is Status.DIFFERENT


def test_another_shape_is_not_read() -> None:
    source = FakeSource({"w": np.ones((2, 3))}, readable=0)
    (found,) = diff(source, FakeSource({"w": np.ones((3, 2))})).tensors
    assert (found.status, found.shapes_differ, source.reads) == (Status.DIFFERENT, True, [])


def test_texts() -> None:
    graph = "_CHECKPOINTABLE_OBJECT_GRAPH"
    assert apart(b"one", b"other", graph).status is Status.DIFFERENT
    (found,) = diff(FakeSource({graph: b"one"}), FakeSource({graph: b"other"}, format="tf2")).tensors
    assert found.status is Status.CLOSE
    assert apart(b"one", np.ones(()), graph).status is Status.DIFFERENT


def test_damage_is_told() -> None:
    arrays = gan_arrays()
    with pytest.raises(CheckpointError, match="generator/hidden/kernel ends after 139 of 140 bytes"):
        diff(FakeSource(arrays), FakeSource(arrays, cut="generator/hidden/kernel"))
    with pytest.raises(CheckpointError, match="checksum of damaged"):
        apart(np.ones(3), np.ones(3), "damaged")


def test_memory_does_not_grow_with_the_tensor() -> None:
    class Endless(FakeSource):
        def chunks(self, key: str) -> Any:
            piece = np.full(1 << 20, self.arrays[key][0], np.float32).tobytes()
            return (piece for _ in range(16))

    left = Endless({"x": np.broadcast_to(np.float32(1), (1 << 24,))})
    right = Endless({"x": np.broadcast_to(np.float32(2), (1 << 24,))})
    tracemalloc.start()
    (found,) = diff(left, right).tensors
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.differing == 1 << 24
    assert peak < 48 << 20  # each of the two has 64 MiB


def test_progress_is_told_of_every_byte() -> None:
    told: list[int] = []
    totals: list[int] = []

    def start(total: int) -> Any:
        totals.append(total)
        return told.append

    diff(FakeSource(gan_arrays()), FakeSource(gan_arrays()), progress=start)
    assert totals == [sum(told)] == [2 * sum(each.nbytes for each in gan_arrays().values())]


# --- Names ------------------------------------------------------------------------------------------------------------
def test_names_that_one_side_lacks() -> None:
    left, right = gan_arrays(), gan_arrays()
    del right["generator/hidden/bias"]
    right["extra"] = np.ones(2)
    found = compared(left, right)
    assert not found.same
    assert [(each.name, each.counts) for each in found.only_left] == [("generator/hidden/bias", True)]
    assert [(each.name, each.shape, each.counts) for each in found.only_right] == [("extra", (2,), True)]


def test_bookkeeping_of_one_side_does_not_count() -> None:
    found = compared({**gan_arrays(), "save_counter": np.array(3), "optimizer/gan/rate": np.array(0.1)}, gan_arrays())
    assert found.same
    assert [(each.name, each.note) for each in found.only_left] == [
        ("save_counter", "bookkeeping"),
        ("optimizer/gan/rate", "a hyperparameter kept as a tensor"),
    ]
    assert not compared({"save_counter": np.array(3)}, {"save_counter": np.array(4)}).same


def test_the_worst_comes_first() -> None:
    left = {name: np.ones(3, np.float32) for name in "abcdefg"}
    right = {name: each.copy() for name, each in left.items()}
    right["b"][1] = np.nextafter(np.float32(1), np.float32(2))
    right["c"][1] = 2
    right["d"][0] = np.nan
    right["e"] = np.ones(4, np.float32)
    right["f"][0] = -1
    left["g"][0], right["g"][0] = 0.0, -0.0
    found = compared(left, right)
    assert [each.name for each in found.tensors] == ["e", "d", "f", "c", "b", "g", "a"]


def test_only_some_names() -> None:
    left, right = gan_arrays(), gan_arrays(seed=1)
    right["generator/hidden/kernel"] = left["generator/hidden/kernel"]
    found = compared(left, right, only=("generator/hidden/k*",))
    assert found.same and [each.name for each in found.tensors] == ["generator/hidden/kernel"]
    assert len(compared(left, right, only=("generator/hidden/k*", "generator/norm/*")).tensors) == 2
    assert found.optimizers == ()
    assert not compared(left, right, only=("optimizer/gan/m/*",)).same
    assert texts(compared(left, right, only=("optimizer/gan",))) != []
    with pytest.raises(UserError, match=r"the pattern 'gnerator/\*' fits no name of either checkpoint"):
        compared(left, right, only=("gnerator/*",))


def test_optimizers_can_be_left_out() -> None:
    left, right = gan_arrays(), gan_arrays(count=7)
    right = {name: each for name, each in right.items() if "/m/" not in name}
    assert not compared(left, right).same
    step = {"global_step": np.array(1)}
    found = compared({**left, **step}, {**right, **step}, ignore_optimizers=True)
    assert found.same and found.optimizers == ()
    assert sorted(each.name for each in found.tensors) == [
        "generator/hidden/bias",
        "generator/hidden/kernel",
        "generator/norm/moving_variance",
        "global_step",
    ]


def held_twice(one: Any, two: Any, optimizers: tuple[OptimizerEntry, ...] = ()) -> FakeSource:
    """A file that holds one variable under two keys."""
    return FakeSource({"one": one, "two": two}, Contents((entry("one", "shared"), entry("two", "shared")), optimizers))


def test_a_name_that_several_keys_hold() -> None:
    same, other = np.ones(3), np.full(3, 2.0)
    both = diff(held_twice(same, other), held_twice(same, other))
    assert both.same and [(each.left_key, each.right_key) for each in both.tensors] == [("one", "one"), ("two", "two")]
    assert [each.text for each in both.copies] == [
        "A holds shared 2 times, and not the same each time: one, two.",
        "B holds shared 2 times, and not the same each time: one, two.",
    ]
    single = FakeSource({"shared": same})
    assert diff(held_twice(same, same), single).same
    assert diff(held_twice(same, same), single).copies == ()
    found = diff(single, held_twice(same, other))
    assert not found.same
    assert [(each.right_key, each.status) for each in found.tensors] == [("two", "different"), ("one", "identical")]


def test_a_source_is_never_asked_for_two_tensors_at_once() -> None:
    class Single(FakeSource):
        busy = False

        def chunks(self, key: str) -> Any:
            assert not self.busy, key
            self.busy = True
            yield from super().chunks(key)
            self.busy = False

    arrays = {"one": np.ones(300), "two": np.zeros(300)}
    contents = Contents((entry("one", "shared"), entry("two", "shared")))
    assert diff(Single(arrays, contents, piece=64), Single(arrays, contents, piece=100)).copies


# --- Optimizers -------------------------------------------------------------------------------------------------------
def optimizer_difference(one: OptimizerEntry, other: OptimizerEntry) -> Difference:
    return diff(FakeSource(gan_arrays(), optimizers=[one]), FakeSource(gan_arrays(), optimizers=[other]))


def test_algorithms_and_hyperparameters() -> None:
    found = optimizer_difference(ADAM, dataclasses.replace(ADAM, algorithm="RMSProp"))
    assert not found.same and "optimizer/gan is Adam in A and RMSProp in B." in texts(found)
    other = {**ADAM.hyperparameters, "epsilon": 1e-7, "learning_rate": 0.1}
    found = optimizer_difference(ADAM, dataclasses.replace(ADAM, hyperparameters=other))
    counts = {each.text: each.counts for each in found.optimizers}
    assert counts["optimizer/gan: epsilon is 1e-08 in A and 1e-07 in B."]
    assert not counts["optimizer/gan: learning_rate is 0.0002 in A and 0.1 in B, and varies."]
    silent = dataclasses.replace(ADAM, algorithm=None, hyperparameters={"beta_1": float(np.float32(0.5)), "rho": 0.9})
    found = optimizer_difference(ADAM, silent)
    assert found.same
    assert "optimizer/gan is Adam in A; B does not tell." in texts(found)
    assert "optimizer/gan: B alone records rho 0.9." in texts(found)
    fewer = dataclasses.replace(ADAM, variables=ADAM.variables[:1])
    assert "optimizer/gan trains in A alone: generator/hidden/bias." in texts(optimizer_difference(ADAM, fewer))
    alone = diff(FakeSource(gan_arrays(), optimizers=[ADAM]), FakeSource(gan_arrays()))
    assert alone.same and texts(alone) == ["optimizer/gan is in A only (Adam)."]


def test_numbers_of_float32_are_those_that_were_written() -> None:
    single = {name: float(np.float32(value)) for name, value in ADAM.hyperparameters.items()}
    found = optimizer_difference(ADAM, dataclasses.replace(ADAM, hyperparameters=single))
    assert found.same and len(found.optimizers) == 1


def powers(count: int, dtype: str = "float32") -> dict[str, Any]:
    """A TF1 checkpoint's state: beta powers where others have a count."""
    arrays: dict[str, Any] = gan_arrays()
    del arrays["optimizer/gan/iterations"]
    for name, beta in (("beta_1", 0.5), ("beta_2", float(np.float32(0.999)))):
        arrays[f"optimizer/gan/{name}_power"] = np.asarray(adam.beta_power(beta, count, dtype))
    return arrays


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 200, 5000])
def test_beta_powers_are_held_against_the_count(count: int, dtype: str) -> None:
    found = compared(powers(count, dtype), gan_arrays(count=count))
    assert found.same, texts(found)
    notes = [each.note.removeprefix("held against the other side's ") for each in found.only_left + found.only_right]
    assert notes == ["count", "count", "beta powers"]
    assert f"fits the count of B, {count:,} updates (beta_1 0.5)." in texts(found)[1]
    assert compared(gan_arrays(count=count), powers(count, dtype)).same


def test_beta_powers_of_another_count() -> None:
    found = compared(powers(150), gan_arrays(count=200))
    assert not found.same
    assert "optimizer/gan/beta_2_power of A gives 150 updates (beta_2 0.999); B counts 200." in texts(found)[-1]
    broken = {**powers(200), "optimizer/gan/beta_1_power": np.float32(0.3)}
    assert (
        "is 0.3, which no count of updates gives (beta_1 0.5); B counts 200."
        in texts(compared(broken, gan_arrays()))[1]
    )


def test_betas_of_the_other_side_will_do_and_without_any_it_cannot_be_told() -> None:
    found = diff(FakeSource(powers(200)), FakeSource(gan_arrays(), optimizers=[ADAM]))
    assert found.same
    assert "(beta_1 0.5, as B records it)." in texts(found)[1]
    found = diff(FakeSource(powers(200)), FakeSource(gan_arrays()))
    assert not found.same
    assert texts(found)[0] == (
        "optimizer/gan: A keeps optimizer/gan/beta_1_power and B a count of 200, and neither records beta_1: "
        "whether they agree cannot be told."
    )


def test_powers_without_a_count_on_the_other_side_count() -> None:
    right = gan_arrays()
    del right["optimizer/gan/iterations"]
    found = compared(powers(200), right)
    assert not found.same and [each.counts for each in found.only_left] == [True, True]


def momentum(convention: str, rate: float | None = 0.01) -> OptimizerEntry:
    return OptimizerEntry("o", "Momentum", convention, {} if rate is None else {"learning_rate": rate})


def test_the_momentum_of_keras_is_divided_by_the_rate() -> None:
    name = "optimizer/o/accumulator/w"
    accumulator = np.random.default_rng(0).normal(0, 1, 1000).astype(np.float32)
    velocity = (-0.01 * accumulator.astype(np.float64)).astype(np.float32)
    tf1 = FakeSource({name: accumulator}, optimizers=[momentum("tf1")])
    keras = FakeSource({name: velocity}, optimizers=[momentum("keras")])
    for found in (diff(tf1, keras), diff(keras, tf1)):
        assert found.same and "keeps -learning_rate * accumulator" in found.tensors[0].notes[0]
    other = FakeSource({name: velocity * np.float32(1.001)}, optimizers=[momentum("keras")])
    assert not diff(tf1, other).same
    assert diff(keras, keras).same and diff(keras, keras).tensors[0].notes == ()
    unknown = FakeSource({name: velocity}, optimizers=[momentum("keras", None)])
    found = diff(FakeSource({name: accumulator}, optimizers=[momentum("tf1", None)]), unknown)
    assert not found.same and "cannot be told" in found.tensors[0].notes[0]


# --- Hints and JSON ---------------------------------------------------------------------------------------------------
def hints(left: dict[str, tuple[int, ...]], right: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    one, other = (FakeSource({name: np.zeros(shape) for name, shape in names.items()}) for names in (left, right))
    return diff(one, other).hints


def test_hints_of_names_that_look_alike() -> None:
    names = {"gen/a/kernel": (2, 3), "gen/a/bias": (3,), "gen/b/kernel": (3, 4)}
    (found,) = hints(names, {f"model/{name}": shape for name, shape in names.items()})
    assert found.startswith("3 of the 3 names only in A would be names of B, with the same shapes, with 'model/' in ")
    (found,) = hints(names, {name.replace("gen/", "generator/"): shape for name, shape in names.items()})
    assert "with 'generator/' in front for 'gen/'" in found
    (found,) = hints(names, {f"{name}/value": shape for name, shape in names.items()})
    assert "with '/value' at the end for 'nothing'" in found
    (found,) = hints(names, {name.replace("/", "."): shape for name, shape in names.items()})
    assert found.startswith("3 of the 3 names of A and of B differ only in separators or capitals")
    (found,) = hints(names, {"x": (2, 3), "y": (3,), "z": (3, 4)})
    assert found.endswith("in another wording.")


def test_no_hint_where_nothing_looks_alike() -> None:
    assert hints({"a": (2,)}, {"b": (3,)}) == ()
    assert hints({"a": (2,)}, {"a": (2,), "b": (2,)}) == ()
    assert hints({"a/kernel": (2,), "c": (9,)}, {"b/kernel": (3,), "d": (8,)}) == ()


def test_an_optimizer_of_another_name() -> None:
    renamed = {name.replace("optimizer/gan", "optimizer/adam"): each for name, each in gan_arrays().items()}
    found = diff(FakeSource(gan_arrays()), FakeSource(renamed))
    assert found.hints == ("The optimizer gan of A and adam of B have slots of the same names and shapes.",)
    assert not found.same


def test_json_has_no_nan() -> None:
    right = gan_arrays(seed=1)
    right["generator/hidden/kernel"][0, 0] = np.nan
    right["generator/hidden/bias"][0] = np.inf
    tree = json.loads(json.dumps(compared(gan_arrays(), right).as_json(), allow_nan=False))
    assert (tree["schema"], tree["same"], tree["tolerance_ulp"]) == (1, False, 0)
    broken = {each["name"]: each["broken"] for each in tree["tensors"]}
    assert (broken["generator/hidden/kernel"]["right"], broken["generator/hidden/bias"]["right"]) == ("nan", "inf")
