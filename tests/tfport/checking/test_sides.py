"""A side under shared names: layouts, slots, draws and reports are translated there and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import FakeProgram, Plan
from tfport.checking.sides import UNPAIRED, Names, Side, by_modern
from tfport.layouts import MappedVariable, laid_back, laid_out
from tfport.state import State

Array = np.ndarray[Any, Any]
KERNEL = "output/kernel"
OWN = {"hidden/kernel": "w1", "hidden/bias": "b1", "output/kernel": "w2", "output/bias": "b2"}
PLAN = Plan(
    names=OWN,
    transposed=("output/kernel",),
    wide=("hidden/bias",),
    phases=(fake.Phase("fit", "adam", ("hidden", "output")),),
    output="y_hat",
)
NAMES = Names(
    by_modern(
        [
            MappedVariable("hidden/kernel", "w1", (4, 6), (4, 6)),
            MappedVariable("hidden/bias", "b1", (6,), (1, 6), (), True),
            MappedVariable("output/kernel", "w2", (6, 2), (2, 6), (1, 0)),
            MappedVariable("output/bias", "b2", (2,), (2,)),
        ]
    ),
    {"adam": "optimizer_0"},
    {"train": "fit"},
    {"y_hat": "prediction"},
)
LEGACY = Plan(
    optimizers=(("optimizer_0", "Adam", fake.ADAM[2]),),
    phases=(fake.Phase("train", "optimizer_0", ("hidden", "output")),),
)


def sides(modern: Plan = PLAN, precision: str = "float32", names: Names = NAMES) -> tuple[Side, Side]:
    """A legacy and a modern side; the modern one in the legacy one's state."""
    one, other = Side(FakeProgram(LEGACY, seed=1), "legacy"), Side(FakeProgram(modern, precision, 2), "modern", names)
    one.step(fake.batches(0))
    other.load(one.state().arrays)
    return one, other


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("legacy", "transpose", "modern", "reshape"),
    [
        ((3, 4), (1, 0), (4, 3), False),
        ((2, 3, 4), (2, 0, 1), (4, 2, 3), False),
        ((4,), (), (1, 4), True),
        ((2, 3, 1), (1, 0, 2), (3, 2), True),
    ],
)
def test_a_layout_is_undone(
    legacy: tuple[int, ...], transpose: tuple[int, ...], modern: tuple[int, ...], reshape: bool
) -> None:
    pair = MappedVariable("a", "b", legacy, modern, transpose, reshape)
    array = np.arange(np.prod(legacy)).reshape(legacy)
    out = laid_out(array, pair)
    assert out.shape == modern
    assert np.array_equal(laid_back(out, pair), array)
    if transpose:
        assert np.array_equal(out.reshape(array.transpose(transpose).shape), array.transpose(transpose))


def test_a_state_goes_over_with_slots_counts_and_layouts() -> None:
    legacy, modern = sides()
    own = modern.program.state().arrays
    assert same(legacy.state().arrays, modern.state().arrays)
    assert "optimizer/optimizer_0/iterations" in modern.state().arrays
    assert np.array_equal(own["w2"], legacy.state().arrays["output/kernel"].T)
    assert own["optimizer/adam/m/b1"].shape == (1, 6)
    assert own["optimizer/adam/iterations"] == 1


def test_everything_is_told_under_shared_names() -> None:
    legacy, modern = sides()
    batch = fake.batches(1)
    assert modern.phases == legacy.phases == ("train",)
    assert [each.name for each in modern.variables()] == [each.name for each in legacy.variables()]
    assert [each.shape for each in modern.variables()] == [each.shape for each in legacy.variables()]
    assert {each.optimizers for each in modern.variables()} == {("optimizer_0",)}
    assert modern.optimizers() == legacy.optimizers()
    assert same(modern.forward(batch, True), legacy.forward(batch, True))
    assert modern.loss("train", batch) == legacy.loss("train", batch)
    gradients = [side.gradients("train", batch) for side in (legacy, modern)]
    assert same(*gradients) and gradients[1]["output/kernel"].shape == (6, 2)  # type: ignore[union-attr]
    assert [node.variables for node in modern.nodes(batch)] == [node.variables for node in legacy.nodes(batch)]
    reports = [side.step(batch) for side in (legacy, modern)]
    assert reports[0] == reports[1] and list(reports[1]) == ["train/loss"]
    assert modern.run_phase("train", batch) == legacy.run_phase("train", batch)
    assert same(legacy.state().arrays, modern.state().arrays)


def test_a_missing_gradient_stays_none() -> None:
    _, modern = sides(Plan(**{**PLAN.__dict__, "no_gradient": ("output/kernel",)}))
    found = modern.gradients("train", fake.batches(0))
    assert found["output/kernel"] is None and found["output/bias"] is not None


def test_draws_are_keyed_by_the_shared_phase_and_the_step() -> None:
    dropped = [Plan(**{**plan.__dict__, "dropout": 0.5}) for plan in (LEGACY, PLAN)]
    legacy, modern = Side(FakeProgram(dropped[0]), "legacy"), Side(FakeProgram(dropped[1]), "modern", NAMES)
    modern.load(legacy.state().arrays)
    batch = fake.batches(0)
    legacy.at(3)
    modern.at(3)
    assert modern.loss("train", batch) == legacy.loss("train", batch)
    modern.at(4)
    assert modern.loss("train", batch) != legacy.loss("train", batch)


def test_what_has_no_partner_keeps_its_name_behind_a_mark_and_its_value() -> None:
    names = Names({own: pair for own, pair in NAMES.variables.items() if own != "w2"}, NAMES.optimizers, NAMES.phases)
    _, modern = sides(names=names)
    before = FakeProgram(PLAN, seed=2).state().arrays
    now = modern.program.state().arrays
    assert np.array_equal(now["w2"], before["w2"]) and not np.array_equal(now["w1"], before["w1"])
    assert UNPAIRED + "w2" in modern.state().arrays and "output/kernel" not in modern.state().arrays
    assert f"optimizer/optimizer_0/m/{UNPAIRED}w2" in modern.state().arrays
    assert [each.name for each in modern.variables()][2] == UNPAIRED + "w2"
    assert set(modern.gradients("train", fake.batches(0))) >= {UNPAIRED + "w2", "hidden/kernel"}


class _Factored(FakeProgram):
    """Keeps a slot that has not the shape of its variable, as Adafactor does."""

    row = np.ones(6, np.float32)

    def state(self) -> State:
        arrays = {**super().state().arrays, f"optimizer/{self.plan.optimizers[0][0]}/row/{self._own(KERNEL)}": self.row}
        return State("factored", arrays)

    def load(self, state: State) -> None:
        super().load(state)
        self.row = state.arrays[f"optimizer/{self.plan.optimizers[0][0]}/row/{self._own(KERNEL)}"]


def test_a_slot_of_another_shape_than_its_variable_is_taken_as_it_is() -> None:
    legacy, modern = Side(_Factored(LEGACY), "legacy"), Side(_Factored(PLAN), "modern", NAMES)
    legacy.program.row = np.arange(6, dtype=np.float32)  # type: ignore[attr-defined]
    modern.load(legacy.state().arrays)
    assert modern.program.row.tolist() == [0, 1, 2, 3, 4, 5]  # type: ignore[attr-defined]
    assert same(legacy.state().arrays, modern.state().arrays)


def test_a_float32_state_and_batch_become_the_sides_precision() -> None:
    _, modern = sides(precision="float64")
    assert modern.program.state().arrays["w1"].dtype == np.float64
    modern.program.may_take = lambda name: name == "count"  # type: ignore[method-assign]
    fed = modern.feed({**fake.batches(0), "count": np.array([1, 2]), "spare": np.array([1, 2])})
    assert {name: array.dtype.name for name, array in fed.items()} == {"x": "float64", "y": "float64", "count": "int64"}


def test_a_batch_is_fed_by_the_sides_own_input_names() -> None:
    side = Side(FakeProgram(Plan(inputs=("Placeholder", "Placeholder_1"))), "legacy")
    batch = {"labels": fake.batches(0)["y"], "images": fake.batches(0)["x"]}
    assert {name: array.shape for name, array in side.feed(batch).items()} == {
        "Placeholder": (5, 4),
        "Placeholder_1": (5, 2),
    }


def test_hyperparameters_are_told_as_float32_keeps_them() -> None:
    (info,) = Side(FakeProgram(), "legacy").optimizers()
    assert info.hyperparameters["beta_2"] == float(np.float32(0.999)) != 0.999


def test_a_state_that_names_nothing_changes_nothing() -> None:
    program = FakeProgram()
    before = program.state()
    Side(program, "modern").load({})
    assert program.state().digest() == before.digest()
    assert isinstance(before, State)
