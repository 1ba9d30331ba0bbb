"""Where two optimizers of one name are not the same, and where slots mean nothing: what a plan says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checkpoint_sides import FakeSource
from tfport.checkpoints import plan
from tfport.checkpoints.contents import Contents, Entry, OptimizerEntry, Role
from tfport.checkpoints.plan import Options, Plan, Target
from tfport.errors import CheckpointError

W = np.arange(1, 7, dtype="float32")


def side(
    algorithm: str | None, convention: str = "keras", slots: tuple[str, ...] = (), value: Any = W, **numbers: float
) -> FakeSource:
    """A checkpoint with one weight and one optimizer `a`."""
    arrays = {"w": W, **{f"a/{slot}": value for slot in slots}}
    entries = [Entry("w", Role.WEIGHT, "w")]
    entries += [Entry(f"a/{slot}", Role.SLOT, f"optimizer/a/{slot}/w", "w", "a", slot) for slot in slots]
    return FakeSource(arrays, Contents(tuple(entries), (OptimizerEntry("a", algorithm, convention, numbers, ("w",)),)))


def make(source: FakeSource, like: FakeSource, options: Options | None = None, written: str = "keras-h5") -> Plan:
    return plan.make(source, source.contents(), Target(written, like.tensors, like.contents(), like), None, options)


def how(made: Plan) -> dict[str, str]:
    return {move.stored.key: move.how for move in made.moves}


# --- Numbers that are not recorded on one side ------------------------------------------------------------------------
def test_tf1s_adagrad_has_no_epsilon() -> None:
    tf1, keras = side("Adagrad", "tf1", ("accumulator",)), side("Adagrad", "keras", ("accumulator",), epsilon=1e-7)
    with pytest.raises(CheckpointError, match="adds no epsilon, as TF1's never does, and the other 1e-07"):
        make(keras, tf1, written="tf1-v2")
    assert make(keras, tf1, Options(other_update=True), "tf1-v2").moves
    assert make(side("Adagrad", "keras", ("accumulator",), epsilon=0.0), tf1, written="tf1-v2").moves
    untold = make(side("Adagrad", "keras", ("accumulator",)), tf1, written="tf1-v2")
    assert "the other's is not recorded" in " ".join(untold.notes)
    canonical = make(keras, tf1, written="npz")
    assert not canonical.notes, "a canonical file may be of any framework"


def test_without_an_epsilon_it_does_not_matter_where_it_is_added() -> None:
    torch = "Adagrad, epsilon after the bias correction"
    keras = side("Adagrad", "keras", ("accumulator",), epsilon=0.0)
    assert make(side(torch, "torch", ("accumulator",), epsilon=0.0), keras).moves
    with pytest.raises(CheckpointError, match="add epsilon in different places"):
        make(side(torch, "torch", ("accumulator",), epsilon=1e-7), keras)
    with pytest.raises(CheckpointError, match="add epsilon in different places"):
        make(side(torch, "torch", ("accumulator",)), side("Adagrad", "keras", ("accumulator",)))


def test_an_epsilon_elsewhere_does_not_pass_for_an_algorithm_that_is_not_told() -> None:
    torch = side("Adam, epsilon after the bias correction", "torch", ("m", "v"))
    unknown = side(None, "keras", ("m", "v"))
    for pair in ((torch, unknown), (unknown, torch)):
        with pytest.raises(CheckpointError, match="epsilon is added in another place"):
            make(*pair)
        assert make(*pair, Options(other_update=True)).moves
    assert make(torch, side(None, "torch", ("m", "v"))).moves


def test_tf1s_ftrl_has_beta_within_its_l2() -> None:
    slots = ("accumulator", "linear")
    tf1 = side("Ftrl", "tf1", slots, learning_rate=0.125, l2=0.5 + 2**-9)
    same = make(side("Ftrl", "keras", slots, learning_rate=0.125, l2=2**-9, beta=0.125), tf1, written="tf1-v2")
    assert not same.notes
    other = make(side("Ftrl", "keras", slots, learning_rate=0.125, l2=2**-9), tf1, written="tf1-v2")
    assert any(note.startswith("l2 of a is 0.00195312 in the source and 0.501953") for note in other.notes)


@pytest.mark.parametrize("number", ["weight_decay", "global_clipnorm", "l2"])
def test_a_number_that_one_side_alone_has_is_told(number: str) -> None:
    numbers = {"beta_1": 0.9, number: 0.5}
    one, other = side("Adam", "keras", ("m", "v"), W, beta_1=0.9), side("Adam", "keras", ("m", "v"), W, **numbers)
    assert any(f"{number} is 0.5 in the target's optimizer" in note for note in make(one, other).notes)
    assert any(f"{number} is 0.5 in the source's optimizer" in note for note in make(other, one).notes)
    assert not make(side("Adam", slots=("m", "v")), other).notes, "the file records no numbers at all"
    assert not make(other, other).notes


# --- Slots that are never read ----------------------------------------------------------------------------------------
def test_rmsprops_momentum_of_0_stays_behind_or_is_the_templates() -> None:
    tf1 = side("RMSProp", "tf1", ("rms", "momentum"), momentum=0.0)
    keras = side("RMSProp", "keras", ("rms",), momentum=0.0)
    there = make(tf1, keras)
    assert [(each.name, each.reason) for each in there.left_out] == [
        ("optimizer/a/momentum/w", "the momentum is 0, so the slot is never used")
    ]
    assert "kept from the template (the momentum is 0" in how(make(keras, tf1))["a/momentum"]


def test_rmsprops_momentum_that_may_be_used_is_not_lost() -> None:
    keras = side("RMSProp", "keras", ("rms",), momentum=0.0)
    for used in (
        side("RMSProp", "tf1", ("rms", "momentum"), momentum=0.9),
        side("RMSProp", "tf1", ("rms", "momentum")),
    ):
        with pytest.raises(CheckpointError, match="optimizer/a/momentum/w would be lost"):
            make(used, keras)
    with pytest.raises(CheckpointError, match="has no slot for optimizer/a/momentum/w"):
        make(keras, side("RMSProp", "tf1", ("rms", "momentum"), momentum=0.9))
    with pytest.raises(CheckpointError, match="has no slot for optimizer/a/momentum/w"):
        make(side("RMSProp", "keras", ("rms",)), side("RMSProp", "keras", ("rms", "momentum")))


# --- Plain descent, and what may be that ------------------------------------------------------------------------------
def test_plain_descent_fills_an_optimizer_that_may_be_plain_with_the_templates_slots() -> None:
    made = make(side("SGD", "tf1"), side(None, slots=("accumulator",), value=W * 0))
    assert "kept from the template (plain SGD uses no slots)" in how(made)["a/accumulator"]
    assert "a may be plain SGD or have momentum" in " ".join(made.notes)


def test_what_may_be_momentum_is_not_lost_in_plain_descent() -> None:
    plain = side("SGD", "tf1")
    with pytest.raises(CheckpointError, match="keeps what momentum keeps") as refused:
        make(side(None, slots=("accumulator",)), plain)
    assert "--leave_out='optimizer/a/accumulator/*'" in str(refused.value)
    said = Options(leave_out=("optimizer/a/accumulator/*",))
    assert make(side(None, slots=("accumulator",)), plain, said).left_out
    zeros = make(side(None, slots=("accumulator",), value=W * 0), plain)
    assert [each.reason for each in zeros.left_out] == ["plain SGD never uses it"]


# --- Templates --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", ["Adam", None])
def test_a_template_whose_optimizer_has_no_slots_yet_is_refused(algorithm: str | None) -> None:
    source, like = side("Adam", slots=("m", "v")), side(algorithm)
    with pytest.raises(CheckpointError, match="has no slots yet, or none that are known; save the template once"):
        make(source, like)
    assert len(make(source, like, Options(leave_out=("optimizer/*",))).left_out) == 2


def test_a_template_with_slots_of_nobody_is_refused() -> None:
    arrays = {"w": W, "optimizer/vars/2": W, "metrics/vars/0": W, "optimizer/vars/1": np.float32(0)}
    entries = [Entry(key, Role.WEIGHT if key == "w" else Role.OTHER, key) for key in arrays]

    def unresolved(algorithm: str | None) -> FakeSource:
        return FakeSource(arrays, Contents(tuple(entries), (OptimizerEntry("a", algorithm, "keras", {}, ("w",)),)))

    with pytest.raises(CheckpointError, match=r"- optimizer/vars/2: the template's optimizer has slots here"):
        make(unresolved(None), unresolved(None), written="keras3-weights")
    assert make(unresolved(None), unresolved(None), Options(keep=("optimizer/*",)), "keras3-weights").moves
    assert make(unresolved("SGD"), unresolved("SGD"), written="keras-h5").moves, (
        "Keras 2 keeps what plain SGD never uses"
    )


def test_slots_that_are_kept_may_be_another_algorithms() -> None:
    source, like = side("Adam", slots=("m", "v")), side("RMSProp", slots=("rms",))
    with pytest.raises(CheckpointError, match=r"--keep='optimizer/a/\*'"):
        make(source, like)
    options = Options(keep=("optimizer/a/*",), leave_out=("optimizer/a/*",))
    assert "as --keep asks" in how(make(source, like, options))["a/rms"]
