"""A Program in another process is the same Program, and its trouble arrives as a message."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import check_sides
from tfport.checking.factories import NoSuchPrecision
from tfport.checking.remote import RemoteProgram
from tfport.errors import CheckpointError, UserError
from tfport.program import Array, Program
from tfport.state import State


def same(left: Mapping[str, Array | None], right: Mapping[str, Array | None]) -> None:
    """Asserts the same names in the same order, dtypes, shapes and bits."""
    assert list(left) == list(right)
    for name in left:
        one, other = left[name], right[name]
        if one is None or other is None:
            assert one is other, name
            continue
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), name


def opened(name: str, precision: str = "float32", seed: int = 0) -> RemoteProgram:
    return RemoteProgram(f"check_sides:{name}", "modern", precision, seed)


@pytest.fixture(scope="module")
def whole() -> Iterator[RemoteProgram]:
    found = opened("whole", seed=3)
    yield found
    found.close()


# --- The same ---------------------------------------------------------------------------------------------------------
def test_what_it_is_comes_over(whole: RemoteProgram) -> None:
    here = check_sides.whole(seed=3)
    assert (whole.kind, whole.precision, whole.phases) == (here.kind, "float32", ("first", "second"))
    assert whole.inputs() == here.inputs()
    assert whole.variables() == here.variables()
    assert [dataclasses.asdict(each) for each in whole.optimizers()] == [
        dataclasses.asdict(each) for each in here.optimizers()
    ]
    assert whole.phase_optimizers() == here.phase_optimizers() == {"first": ("sgd",), "second": ("adam",)}
    assert whole.random_draws() == here.random_draws()
    assert len(whole.random_draws()) == 2
    assert whole.notes() == here.notes()


def test_what_it_computes_comes_over_bit_for_bit(whole: RemoteProgram) -> None:
    here: Program = check_sides.whole(seed=3)
    batches = [check_sides.batches(step) for step in range(2)]
    for program in (here, whole):
        program.prepare(batches[0])
        program.draws.seed, program.draws.aliases = 5, {"second": "another"}
    same(here.state().arrays, whole.state().arrays)
    for step, batch in enumerate(batches):
        here.draws.step = whole.draws.step = step
        for training in (True, False):
            same(here.forward(batch, training), whole.forward(batch, training))
        for phase in (None, *here.phases):
            nodes = list(zip(here.nodes(batch, True, phase), whole.nodes(batch, True, phase), strict=True))
            assert nodes
            for one, other in nodes:
                assert (one.name, one.kind, one.inputs) == (other.name, other.kind, other.inputs)
                assert one.variables == other.variables
                assert (one.attributes, one.where) == (other.attributes, other.where) and one.where
                same({"value": one.value}, {"value": other.value})
        for phase in here.phases:
            assert here.loss(phase, batch) == whole.loss(phase, batch)
            same(here.gradients(phase, batch), whole.gradients(phase, batch))
            assert here.run_phase(phase, batch) == whole.run_phase(phase, batch)
        assert whole.gradients("first", batch)["hidden/bias"] is None
        assert list(here.step(batch).items()) == list(whole.step(batch).items())
        same(here.state().arrays, whole.state().arrays)
    assert here.drawn("first", batches[0]) == whole.drawn("first", batches[0])
    changed = {name: np.asarray(array) + 1 for name, array in here.state().arrays.items()}
    for program in (here, whole):
        program.load(State("", changed))
    same(changed, whole.state().arrays)
    same(here.forward(batches[0], True), whole.forward(batches[0], True))


def test_draws_follow_the_seed_the_step_and_the_names_of_phases(whole: RemoteProgram) -> None:
    batch = check_sides.batches(0)
    found = []
    for seed, step, aliases in ((0, 0, {}), (1, 0, {}), (0, 1, {}), (0, 0, {"first": "other"}), (0, 0, {})):
        whole.draws.seed, whole.draws.step, whole.draws.aliases = seed, step, aliases
        found.append(whole.loss("first", batch))
    assert found[0] == found[-1]
    assert len(set(found)) == 4


def test_what_is_not_finite_comes_over_as_it_is(whole: RemoteProgram) -> None:
    arrays = {name: np.array(array) for name, array in whole.state().arrays.items()}
    arrays["hidden/bias"] = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 1], np.float32)
    whole.load(State("", arrays))
    same(arrays, whole.state().arrays)


def test_it_is_built_again_with_another_seed(whole: RemoteProgram) -> None:
    whole.prepare(check_sides.batches(0))
    whole.initialise(11)
    same(check_sides.whole(seed=11).state().arrays, whole.state().arrays)


def test_a_state_is_read_from_its_file_when_asked_and_stays_as_it_was(whole: RemoteProgram) -> None:
    folder = Path(whole._folder.name)
    whole.initialise(0)
    before = set(folder.iterdir())
    kept = whole.state().arrays
    (file,) = set(folder.iterdir()) - before
    whole.step(check_sides.batches(0))
    same(check_sides.whole().state().arrays, kept)
    assert "hidden" not in kept and len(kept) == len(list(kept))
    with pytest.raises(KeyError):
        kept["hidden"]
    del kept
    assert not file.exists()


def test_float64_is_float64_there() -> None:
    there = opened("whole", "float64")
    try:
        assert there.precision == "float64"
        here = check_sides.whole("float64")
        batch = {name: array.astype(np.float64) for name, array in check_sides.batches(0).items()}
        assert list(here.step(batch).items()) == list(there.step(batch).items())
        same(here.state().arrays, there.state().arrays)
    finally:
        there.close()


# --- Trouble ----------------------------------------------------------------------------------------------------------
def test_a_state_that_does_not_fit_is_refused_as_here(whole: RemoteProgram) -> None:
    whole.initialise(0)
    arrays = {name: np.array(array) for name, array in whole.state().arrays.items()}
    del arrays["hidden/bias"]
    with pytest.raises(CheckpointError, match="hidden/bias"):
        whole.load(State("", arrays))
    same(check_sides.whole().state().arrays, whole.state().arrays)


def test_what_is_not_implemented_there_is_not_implemented_here() -> None:
    there = opened("hiding")
    try:
        batch = check_sides.batches(0)
        for ask in (there.loss, there.gradients):
            with pytest.raises(NotImplementedError):
                ask("train", batch)
        assert there.run_phase("train", batch)["loss"] > 0
    finally:
        there.close()


def test_errors_of_the_users_code_name_the_side_and_it_lives_on() -> None:
    there = opened("refusing_later")
    try:
        with pytest.raises(UserError, match=r"^nothing is an output$"):
            there.forward(check_sides.batches(0), False)
        with pytest.raises(
            UserError, match=r"side check_sides:refusing_later raised KeyError: 'y' \(.*, line \d+\) in"
        ):
            there.step({"x": np.zeros((1, 4), np.float32)})
        assert there.step(check_sides.batches(0))["train/loss"] > 0
    finally:
        there.close()


def test_a_precision_that_cannot_be_had_is_told_and_its_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Any] = []
    close = RemoteProgram.close

    def kept(self: RemoteProgram) -> None:
        close(self)
        closed.append((self._process.poll(), Path(self._folder.name).exists()))

    monkeypatch.setattr(RemoteProgram, "close", kept)
    with pytest.raises(NoSuchPrecision, match="check_sides:double, which takes no dtype, is built in float64"):
        opened("double")
    with pytest.raises(UserError, match="check_sides:number returned int"):
        opened("number")
    assert closed == [(0, False), (0, False)]


def test_a_process_that_was_killed_is_told_and_leaves_nothing() -> None:
    there = opened("legacy")
    folder = Path(there._folder.name)
    os.kill(there._process.pid, 9)
    with pytest.raises(UserError, match=r"the process of check_sides:legacy ended unasked: .*killed from outside"):
        there.state()
    there.close()
    assert not folder.exists()


# --- A TF1 graph of a process that is TF1's ---------------------------------------------------------------------------
OLD = """
import tensorflow as tf
tf.compat.v1.disable_v2_behavior()

def build():
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        kernel = tf.compat.v1.get_variable("kernel", [3, 1])
        prediction = tf.matmul(x, kernel, name="prediction")
        loss = tf.reduce_mean(tf.square(prediction))
        train_op = tf.compat.v1.train.GradientDescentOptimizer(0.5).minimize(loss)
        return {"outputs": [prediction], "loss": loss, "train_op": train_op}
"""


def test_a_side_may_turn_tf1_on_for_its_process_and_build_a_graph_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old_code.py").write_text(OLD)
    monkeypatch.chdir(tmp_path)
    there = RemoteProgram("old_code:build", "legacy")
    try:
        batch = {"x": np.eye(3, dtype=np.float32)}
        before = np.array(there.state().arrays["kernel"])
        (prediction,) = there.forward(batch, True).values()
        assert (prediction == before).all()
        (gradient,) = there.gradients("train", batch).values()
        assert gradient is not None
        assert there.step(batch)["train/loss"] == pytest.approx(float(np.mean(before**2)))
        assert there.state().arrays["kernel"] == pytest.approx(before - 0.5 * gradient)
        with pytest.raises(UserError, match=r"the legacy side old_code:build raised .*in .* with x \(2, 4\) float32|x"):
            there.step({"x": np.zeros((2, 4), np.float32)})
    finally:
        there.close()
