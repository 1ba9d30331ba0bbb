"""What a conversion plans: every tensor filled, none lost, nothing guessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_sides import FakeSource
from tfport import adam
from tfport.checkpoints import pairing, plan
from tfport.checkpoints.contents import Array, Contents, Entry, OptimizerEntry, Role
from tfport.checkpoints.pairing import MappingFile
from tfport.checkpoints.plan import Options, Plan, Target
from tfport.errors import CheckpointError, UserError

RATE = 0.1


def entry(key: str) -> Entry:
    """What a key of these tests is: `o:<optimizer>:<slot or number>[:<variable>]`, a count without one, or a weight."""
    if not key.startswith("o:"):
        role = {"mean": Role.STATISTIC, "step": Role.COUNT}.get(key.rpartition("/")[2], Role.WEIGHT)
        role = Role.OTHER if key.startswith("_") else role
        return Entry(key, role, key.removesuffix("@2"))
    _, optimizer, kind, *rest = key.split(":")
    if rest:
        return Entry(key, Role.SLOT, f"optimizer/{optimizer}/{kind}/{rest[0]}", rest[0], optimizer, kind)
    role = Role.POWER if kind.endswith("_power") else Role.COUNT if kind == "iterations" else Role.HYPERPARAMETER
    return Entry(key, role, f"optimizer/{optimizer}/{kind}", optimizer=optimizer)


def checkpoint(arrays: dict[str, Any], optimizers: Sequence[OptimizerEntry] = ()) -> FakeSource:
    return FakeSource(arrays, Contents(tuple(map(entry, arrays)), tuple(optimizers)))


def adam_of(name: str, **numbers: float) -> OptimizerEntry:
    return OptimizerEntry(name, "Adam", "tf1", {"beta_1": 0.9, "beta_2": 0.999, **numbers}, ("w",))


def momentum_of(name: str, convention: str, rate: float | None = RATE, **more: Any) -> OptimizerEntry:
    numbers = {} if rate is None else {"learning_rate": rate}
    return OptimizerEntry(name, "Momentum", convention, numbers, ("w",), **more)


def make(source: FakeSource, like: FakeSource, options: Options | None = None, **more: Any) -> Plan:
    target = Target("npz", like.tensors, like.contents(), like)
    return plan.make(source, source.contents(), target, None, options, **more)


def filled(made: Plan) -> dict[str, Array]:
    return {
        move.stored.key: np.frombuffer(b"".join(bytes(each) for each in move.produce()), move.stored.dtype).reshape(
            move.stored.shape
        )
        for move in made.moves
        if move.stored.dtype != "string"
    }


def single(value: float) -> Array:
    return np.array(value, "float32")


W = np.arange(6, dtype="float32").reshape(2, 3)


# --- Variables --------------------------------------------------------------------------------------------------------
def test_weights_are_the_same_bytes() -> None:
    odd = np.array([np.nan, -0.0, np.inf, 1e-42], "float32")
    made = make(checkpoint({"w": odd}), checkpoint({"w": np.zeros(4, "float32")}))
    assert filled(made)["w"].tobytes() == odd.tobytes()
    assert [move.how for move in made.moves] == ["copied"]


def test_an_unfilled_weight_is_an_error_unless_it_is_to_be_kept() -> None:
    source, like = checkpoint({"w": W}), checkpoint({"w": W, "fresh": W + 1})
    with pytest.raises(CheckpointError, match=r"nothing is known to fill fresh \(2x3\)"):
        make(source, like)
    made = make(source, like, Options(keep=("fr*",)))
    assert filled(made)["fresh"].tolist() == (W + 1).tolist()


def test_a_weight_that_would_be_lost_is_an_error_unless_it_may_be() -> None:
    source, like = checkpoint({"w": W, "old": W}), checkpoint({"w": W})
    with pytest.raises(CheckpointError, match="old would be lost"):
        make(source, like)
    made = make(source, like, Options(leave_out=("old",)))
    assert [(each.name, each.reason) for each in made.left_out] == [("old", "as --leave_out asks")]


def test_a_variable_that_several_keys_hold_is_filled_everywhere_and_its_copies_must_agree() -> None:
    like = checkpoint({"w": W, "w@2": W})
    assert set(filled(make(checkpoint({"w": W + 5}), like))) == {"w", "w@2"}
    same = make(checkpoint({"w": W, "w@2": W}), checkpoint({"w": W}))
    assert filled(same)["w"].tolist() == W.tolist()
    other = make(checkpoint({"w": W, "w@2": W + 1}), checkpoint({"w": W}))
    with pytest.raises(CheckpointError, match="the copies differ"):
        filled(other)


def test_narrower_numbers_need_leave() -> None:
    source, like = checkpoint({"w": W.astype("float64") / 3}), checkpoint({"w": W})
    with pytest.raises(CheckpointError, match=r"w \(float64 to float32\) would be rounded; --cast"):
        make(source, like)
    assert (
        filled(make(source, like, Options(cast=True)))["w"].tolist()
        == (W.astype("float64") / 3).astype("float32").tolist()
    )
    wider = make(checkpoint({"w": W}), checkpoint({"w": W.astype("float64")}))
    assert filled(wider)["w"].dtype == np.float64


def test_statistics_are_carried_and_bookkeeping_kept() -> None:
    source = checkpoint({"w": W, "bn/mean": W[0], "_graph": b"theirs"})
    made = make(source, checkpoint({"w": W, "bn/mean": W[0] * 0, "_graph": b"ours"}))
    assert filled(made)["bn/mean"].tolist() == W[0].tolist()
    graph = next(move for move in made.moves if move.stored.key == "_graph")
    assert b"".join(bytes(each) for each in graph.produce()) == b"ours"
    assert [each.key for each in made.left_out] == ["_graph"]


# --- Slots ------------------------------------------------------------------------------------------------------------
def test_slots_go_with_their_variable_and_are_turned_with_it() -> None:
    arrays = {"net/weight": W, "o:a:m:net/weight": W + 1}
    like = {"net/kernel": W.T.copy(), "o:b:m:net/kernel": W.T.copy()}
    one, other = (
        OptimizerEntry(name, "Adam", "tf1", {}, (variable,))
        for name, variable in (("a", "net/weight"), ("b", "net/kernel"))
    )
    source, target = checkpoint(arrays, [one]), checkpoint(like, [other])
    made = plan.make(
        source, source.contents(), Target("npz", target.tensors, target.contents(), target), layout="torch"
    )
    assert filled(made)["o:b:m:net/kernel"].tolist() == (W + 1).T.tolist()


def test_a_missing_slot_is_an_error_and_no_optimizer_at_all_says_how_to_begin_afresh() -> None:
    like = checkpoint({"w": W, "o:a:m:w": W * 0, "o:a:v:w": W * 0}, [adam_of("a")])
    with pytest.raises(CheckpointError, match="holds no optimizer's slots"):
        make(checkpoint({"w": W}), like)
    assert (
        filled(make(checkpoint({"w": W}), like, Options(keep=("optimizer/*",))))["o:a:m:w"].tolist() == (W * 0).tolist()
    )
    with pytest.raises(CheckpointError, match=r"has no slot for optimizer/a/v/w"):
        make(checkpoint({"w": W, "o:a:m:w": W}, [adam_of("a")]), like)


def test_a_slot_that_would_be_lost_is_an_error() -> None:
    source = checkpoint({"w": W, "o:a:m:w": W, "o:a:v:w": W}, [adam_of("a")])
    with pytest.raises(CheckpointError, match=r"the slot optimizer/a/v/w would be lost"):
        make(source, checkpoint({"w": W, "o:a:m:w": W}, [adam_of("a")]))


def test_slots_may_stay_behind_where_the_target_has_no_optimizer() -> None:
    source = checkpoint({"w": W, "o:a:m:w": W, "o:a:iterations": np.int64(3)}, [adam_of("a")])
    made = make(source, checkpoint({"w": W}))
    assert [each.reason for each in made.left_out] == [
        "the target has no optimizer; training cannot go on from it as it would have",
        "the target keeps no such count",
    ]


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ("Adam", "RMSProp", "slots of one mean nothing to the other"),
        ("Momentum", "Nesterov", "slots of one mean nothing to the other"),
        ("Adam", "Adam, epsilon after the bias correction", "add epsilon in different places"),
    ],
)
def test_another_algorithm_is_refused(left: str, right: str, message: str) -> None:
    def side(algorithm: str) -> FakeSource:
        return checkpoint({"w": W, "o:a:m:w": W}, [OptimizerEntry("a", algorithm, "tf1", {}, ("w",))])

    with pytest.raises(CheckpointError, match=message):
        make(side(left), side(right))
    assert filled(make(side(left), side(left)))["o:a:m:w"].tolist() == W.tolist()


def test_epsilon_elsewhere_may_be_allowed_and_is_noted() -> None:
    source, like = (
        checkpoint({"w": W, "o:a:m:w": W}, [OptimizerEntry("a", algorithm, "tf1", {}, ("w",))])
        for algorithm in ("Adam", "Adam, epsilon after the bias correction")
    )
    assert "differ a little" in " ".join(make(source, like, Options(other_update=True)).notes)


def test_an_unknown_algorithm_goes_by_its_slots() -> None:
    def side(algorithm: str | None, *slots: str) -> FakeSource:
        arrays = {"w": W, **{f"o:a:{slot}:w": W for slot in slots}}
        return checkpoint(arrays, [OptimizerEntry("a", algorithm, "tf1", {}, ("w",))])

    assert "its slots fit" in " ".join(make(side(None, "m", "v"), side("Adam", "m", "v")).notes)
    with pytest.raises(CheckpointError, match="not of one kind"):
        make(side(None, "rms"), side("Adam", "m", "v"))


def test_numbers_that_changed_are_told() -> None:
    source = checkpoint({"w": W, "o:a:m:w": W}, [adam_of("a", epsilon=1e-8)])
    like = checkpoint({"w": W, "o:a:m:w": W}, [adam_of("a", epsilon=1e-7)])
    assert any("epsilon of a is 1e-08 in the source and 1e-07" in note for note in make(source, like).notes)


# --- Momentum ---------------------------------------------------------------------------------------------------------
def momentum(convention: str, rate: float | None, value: Array = W, **more: Any) -> FakeSource:
    return checkpoint({"w": W, "o:a:accumulator:w": value}, [momentum_of("a", convention, rate, **more)])


def test_momentum_becomes_velocity_and_back_within_one_ulp() -> None:
    values = np.random.default_rng(3).normal(size=(2, 3)).astype("float32")
    there = filled(make(momentum("tf1", RATE, values), momentum("keras", RATE)))["o:a:accumulator:w"]
    assert there == pytest.approx(-RATE * values, rel=1e-6)
    back = filled(make(momentum("keras", RATE, there), momentum("tf1", RATE)))["o:a:accumulator:w"]
    assert np.all(np.abs(back - values) <= np.spacing(np.abs(values)))


def test_velocity_to_velocity_is_the_same_bytes() -> None:
    assert (
        filled(make(momentum("keras", RATE, W / 3), momentum("keras", RATE)))["o:a:accumulator:w"].tobytes()
        == (W / 3).tobytes()
    )


@pytest.mark.parametrize("left", ["tf1", "keras"])
@pytest.mark.parametrize("right", ["tf1", "keras"])
def test_a_rate_that_changed_since_is_refused_where_velocities_are_kept(left: str, right: str) -> None:
    if left == right == "tf1":
        assert make(momentum(left, 0.1), momentum(right, 0.2)).moves
        return
    with pytest.raises(CheckpointError, match=r"the rate has changed since: 0\.1 in the source, 0\.2 in the target"):
        make(momentum(left, 0.1), momentum(right, 0.2))


def test_a_rate_that_varies_is_refused_until_it_is_given() -> None:
    source = momentum("tf1", None, varying=("learning_rate",))
    with pytest.raises(CheckpointError, match="fed or follows a schedule"):
        make(source, momentum("keras", RATE))
    assert make(source, momentum("keras", RATE), Options(learning_rate=RATE)).moves


def test_an_unknown_rate_is_the_other_sides_and_said_and_two_unknown_are_refused() -> None:
    made = make(momentum("tf1", None), momentum("keras", RATE))
    assert any("Only one side records the learning rate" in note for note in made.notes)
    with pytest.raises(CheckpointError, match="--learning_rate=RATE"):
        make(momentum("tf1", None), momentum("keras", None))


def test_a_rate_that_the_target_keeps_as_a_tensor_is_filled_with_the_sources() -> None:
    like = checkpoint(
        {"w": W, "o:a:accumulator:w": W, "o:a:learning_rate": single(0.5)}, [momentum_of("a", "keras", 0.5)]
    )
    made = make(momentum("tf1", RATE), like)
    assert float(filled(made)["o:a:learning_rate"]) == float(np.float32(RATE))
    assert filled(made)["o:a:accumulator:w"] == pytest.approx(-RATE * W, rel=1e-6)
    assert any("was 0.5 in the template" in note for note in made.notes)


@pytest.mark.parametrize(("name", "known"), [("Momentum", True), ("sgd_1", True), ("optimizer", False)])
def test_an_accumulator_of_no_known_algorithm_is_momentums_where_its_optimizers_name_says_so(
    name: str, known: bool
) -> None:
    def side(name: str, convention: str) -> FakeSource:
        arrays = {"w": W, f"o:{name}:accumulator:w": W}
        return checkpoint(arrays, [OptimizerEntry(name, None, convention, {"learning_rate": RATE}, ("w",))])

    if not known:
        with pytest.raises(CheckpointError, match=r"momentum's or Adagrad's"):
            make(side(name, "tf1"), side("opt", "keras"))
        return
    made = filled(make(side(name, "tf1"), side("opt", "keras")))
    assert made["o:opt:accumulator:w"] == pytest.approx(-RATE * W, rel=1e-6)


# --- Counts -----------------------------------------------------------------------------------------------------------
def with_powers(count: int, **numbers: float) -> FakeSource:
    arrays = {
        "w": W,
        "o:a:m:w": W,
        "o:a:beta_1_power": np.array(adam.beta_power(0.5, count, "float32")),
        "o:a:beta_2_power": np.array(adam.beta_power(0.999, count, "float32")),
    }
    return checkpoint(arrays, [OptimizerEntry("a", "Adam", "tf1", numbers, ("w",))])


def with_count(count: int) -> FakeSource:
    arrays = {"w": W, "o:b:m:w": W, "o:b:iterations": np.int64(count)}
    return checkpoint(arrays, [OptimizerEntry("b", "Adam", "keras", {"beta_1": 0.5, "beta_2": 0.999}, ("w",))])


@pytest.mark.parametrize("count", [0, 50, 300])
def test_powers_become_a_count_and_are_multiplied_up_again(count: int) -> None:
    there = filled(make(with_powers(count), with_count(0)))
    assert int(there["o:b:iterations"]) == count
    back = filled(make(with_count(count), with_powers(0, beta_1=0.5, beta_2=0.999)))
    for power in ("o:a:beta_1_power", "o:a:beta_2_power"):
        assert back[power].tobytes() == with_powers(count).read(power).tobytes()


def test_powers_to_powers_are_the_same_bytes() -> None:
    worn = with_powers(200_000)
    assert float(filled(make(worn, with_powers(0)))["o:a:beta_2_power"]) == 0.0


def test_powers_without_a_beta_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no file records the beta"):
        plan_of_unknown = checkpoint(
            {"w": W, "o:b:m:w": W, "o:b:iterations": np.int64(3)}, [OptimizerEntry("b", "Adam", "keras", {}, ("w",))]
        )
        make(plan_of_unknown, with_powers(0))


def test_damaged_powers_are_refused_by_name() -> None:
    source = with_powers(50)
    source.arrays["o:a:beta_2_power"] = single(0.7777)
    with pytest.raises(CheckpointError, match="the count of updates of optimizer b is not known"):
        make(source, with_count(0))


def test_a_count_that_no_optimizer_records_is_the_global_step_or_must_be_given() -> None:
    def descent(**more: Any) -> FakeSource:
        return checkpoint({"w": W, "o:a:accumulator:w": W, **more}, [momentum_of("a", "tf1")])

    like = checkpoint({"w": W, "o:b:accumulator:w": W, "o:b:iterations": np.int64(0)}, [momentum_of("b", "tf1")])
    assert int(filled(make(descent(step=np.int64(12)), like))["o:b:iterations"]) == 12
    with pytest.raises(CheckpointError, match="--iterations=N"):
        make(descent(), like)
    assert int(filled(make(descent(), like, Options(iterations=9)))["o:b:iterations"]) == 9


def test_a_count_that_is_kept_for_each_variable_must_be_one_number() -> None:
    def steps(*values: float) -> FakeSource:
        found = {f"s{place}": single(value) for place, value in enumerate(values)}
        entries = [entry("w"), entry("o:a:m:w")]
        entries += [Entry(key, Role.COUNT, "optimizer/a/iterations", optimizer="a") for key in found]
        return FakeSource({"w": W, "o:a:m:w": W, **found}, Contents(tuple(entries), (adam_of("a"),)))

    assert int(filled(make(steps(4, 4), with_count(0)))["o:b:iterations"]) == 4
    with pytest.raises(CheckpointError, match="several times with different values"):
        make(steps(4, 5), with_count(0))
    with pytest.raises(CheckpointError, match="no whole number"):
        make(steps(4.5), with_count(0))


def test_all_problems_are_told_at_once() -> None:
    like = checkpoint({f"x{place}": W for place in range(12)})
    with pytest.raises(CheckpointError) as told:
        make(checkpoint({"w": W, "old": W}), like)
    assert "x0 (2x3)" in str(told.value)
    assert "and 4 more" in str(told.value)
    assert "w, old would be lost" in str(told.value)


# --- Blocks -----------------------------------------------------------------------------------------------------------
def lstm_checkpoints() -> tuple[FakeSource, FakeSource]:
    """TF1's cell, and Keras's: two kernels, the forget gate before the candidate."""
    numbers = np.random.default_rng(0)
    kernel, bias = numbers.normal(size=(5, 8)).astype("float32"), numbers.normal(size=8).astype("float32")
    adam = OptimizerEntry("adam", "Adam", "tf1", {"beta_1": 0.9, "beta_2": 0.999}, ("k", "b"))
    source = checkpoint({"k": kernel, "b": bias, "o:adam:m:k": kernel + 1, "o:adam:m:b": bias + 1}, [adam])
    adam = OptimizerEntry("adam", "Adam", "tf1", {"beta_1": 0.9, "beta_2": 0.999}, ("w", "u", "c"))
    shapes = {"w": (3, 8), "u": (2, 8), "c": (8,)}
    empty = {name: np.zeros(shape, "float32") for name, shape in shapes.items()}
    like = checkpoint({**empty, **{f"o:adam:m:{name}": array for name, array in empty.items()}}, [adam])
    return source, like


def lstm_mapping() -> list[dict[str, Any]]:
    gates = [(0, 0), (2, 1), (1, 2), (3, 3)]  # units of the legacy side, of the modern side
    entries: list[dict[str, Any]] = []
    for origin, place in gates:
        there, here = [2 * origin, 2 * origin + 2], [2 * place, 2 * place + 2]
        entries += [
            {"legacy": "k", "modern": "w", "legacy_block": [[0, 3], there], "modern_block": [[0, 3], here]},
            {"legacy": "k", "modern": "u", "legacy_block": [[3, 5], there], "modern_block": [[0, 2], here]},
            {
                "legacy": "b",
                "modern": "c",
                "legacy_block": [there],
                "modern_block": [here],
                "offset": 1.0 if place == 1 else 0.0,
            },
        ]
    return entries


def read_mapping(folder: Path, entries: list[dict[str, Any]]) -> MappingFile:
    path = folder / "mapping.json"
    path.write_text(json.dumps({"schema": 2, "variables": entries}))
    return pairing.read_mapping(path)


def test_blocks_are_applied_to_weights_and_slots(tmp_path: Path) -> None:
    source, like = lstm_checkpoints()
    target = Target("npz", like.tensors, like.contents(), like)
    made = plan.make(source, source.contents(), target, read_mapping(tmp_path, lstm_mapping()))
    found, order = filled(made), [0, 1, 4, 5, 2, 3, 6, 7]
    kernel, bias = source.read("k"), source.read("b")
    assert np.array_equal(found["w"], kernel[:3, order]) and np.array_equal(found["u"], kernel[3:, order])
    assert np.array_equal(found["o:adam:m:u"], kernel[3:, order] + 1)
    added = np.array([0, 0, 1, 1, 0, 0, 0, 0], "float32")
    assert np.array_equal(found["c"], bias[order] + added)
    assert np.array_equal(found["o:adam:m:c"], bias[order] + 1)
    how = next(move.how for move in made.moves if move.stored.key == "c")
    assert how == "made of b (elements 0 to 1, 4 to 5, 2 to 3, 6 to 7; 1 added to elements 4 to 5)"
    assert not made.left_out


def test_a_gap_between_blocks_is_refused(tmp_path: Path) -> None:
    source, like = lstm_checkpoints()
    target = Target("npz", like.tensors, like.contents(), like)
    with pytest.raises(UserError, match=r"legacy variable k \(5, 8\) leave a gap"):
        plan.make(source, source.contents(), target, read_mapping(tmp_path, lstm_mapping()[3:]))


def test_two_biases_become_their_sum_and_one_becomes_two(tmp_path: Path) -> None:
    two = checkpoint({"ih": np.arange(3.0), "hh": np.ones(3)})
    one = checkpoint({"b": np.arange(3.0)})
    forth = [{"legacy": name, "modern": "b", "sum": True} for name in ("ih", "hh")]
    target = Target("npz", one.tensors, one.contents(), one)
    made = plan.make(two, two.contents(), target, read_mapping(tmp_path, forth))
    assert filled(made)["b"].tolist() == [1, 2, 3]
    assert "each summand moves as far as a single variable would" in made.notes[0]
    back = [{"legacy": "b", "modern": name, "sum": True} for name in ("ih", "hh")]
    target = Target("npz", two.tensors, two.contents(), two)
    made = plan.make(one, one.contents(), target, read_mapping(tmp_path, back))
    assert {key: array.tolist() for key, array in filled(made).items()} == {"ih": [0, 1, 2], "hh": [0, 0, 0]}
