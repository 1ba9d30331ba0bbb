"""A Subject in another process is the same Subject, and its trouble arrives as a message."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import BATCH, FakeBatches, halved, initial_state, plain, shared, small_spec
from tfport import models, paradigms, randomness, remote
from tfport.errors import CheckpointError, UserError
from tfport.remote import RemoteSubject, decode_spec, encode_spec
from tfport.state import State
from tfport.subject import Array, Batch, Subject

SPEC = models.get("vanilla_gan")
BATCHES = FakeBatches(small_spec())


def same(left: Mapping[str, Array], right: Mapping[str, Array]) -> None:
    """Asserts the same names in the same order, dtypes, shapes and bits."""
    assert list(left) == list(right)
    for name, array in left.items():
        other = right[name]
        assert (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes()), name


def same_contract(here: Subject, there: Subject, batches: list[Batch], folder: Path) -> None:
    """Asserts that two subjects at one state answer alike, bit for bit."""
    assert there.phases == here.phases
    assert there.variables() == here.variables()
    assert [
        dataclasses.replace(each, hyperparameters=dict(each.hyperparameters)) for each in here.optimizers()
    ] == list(there.optimizers())
    there.load(here.state())
    same(here.state().arrays, there.state().arrays)
    for training in (True, False):
        same(here.forward(batches[0], training), there.forward(batches[0], training))
    inputs = {name: batches[0][name] for name in here.spec.samples.inputs}
    same({"images": here.generate(inputs)}, {"images": there.generate(inputs)})
    for phase in here.phases:
        same(here.gradients(phase, batches[0]), there.gradients(phase, batches[0]))
    for phase in here.phases:
        reported = here.run_phase(phase, batches[0])
        assert list(reported) == list(here.spec.phase(phase).reports)
        assert list(there.run_phase(phase, batches[0]).items()) == list(reported.items())
    for batch in batches:
        reported = here.step(batch)
        assert list(reported) == list(here.spec.reports)
        assert list(there.step(batch).items()) == list(reported.items())
    same(here.state().arrays, there.state().arrays)

    saved = here.state()
    there.save(folder)
    there.step(batches[0])
    assert there.state().digest() != saved.digest()
    there.restore(folder)
    assert there.state().digest() == saved.digest()
    here.step(batches[0])
    here.restore(folder)
    assert here.state().digest() == saved.digest()

    there.initialise(11)
    assert there.state().digest() != saved.digest()
    saved.check_fits(there.state())


def test_gradient_tape_in_another_process_is_gradient_tape_here(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    batches: list[Batch] = [
        {
            "images": random.random((8, SPEC.pixels), np.float32),
            "latent": randomness.normal(0, "latent", step, (8, SPEC.width("latent"))),
        }
        for step in range(2)
    ]
    here = paradigms.build("gradient_tape", SPEC, seed=1)
    there = RemoteSubject("gradient_tape", SPEC, seed=2)
    try:
        assert (there.spec, there.paradigm, there.precision) == (SPEC, "gradient_tape", "float32")
        same_contract(here, there, batches, tmp_path)
        with pytest.raises(CheckpointError, match="cannot be restored"):
            there.restore(tmp_path / "nothing here")
    finally:
        there.close()


@pytest.mark.parametrize("precision", paradigms.PRECISIONS)
def test_a_fake_in_another_process_is_the_fake_here(precision: str, tmp_path: Path) -> None:
    batches = FakeBatches(small_spec(), precision)
    there = RemoteSubject("fakes:plain", small_spec(), precision, seed=2)
    try:
        same_contract(plain(SPEC, precision, 2), there, [batches[0], batches[1]], tmp_path)
    finally:
        there.close()


def test_half_steps_in_another_process_report_all_they_report_here(tmp_path: Path) -> None:
    spec = small_spec("leaky_gan")
    batches = FakeBatches(spec)
    there = RemoteSubject("fakes:halved", spec, seed=2)
    try:
        same_contract(halved(SPEC, "float32", 2), there, [batches[0], batches[1]], tmp_path)
    finally:
        there.close()


def test_the_optimizers_of_a_variable_come_over_as_they_are() -> None:
    there = RemoteSubject("fakes:shared", small_spec())
    try:
        assert there.variables() == shared(SPEC, "float32", 0).variables()
        assert [len(each.optimizers) for each in there.variables()] == [2, 0, 1, 1, 1, 1, 1, 1]
    finally:
        there.close()


@pytest.fixture(scope="module")
def child() -> Iterator[RemoteSubject]:
    found = RemoteSubject("fakes:plain", small_spec())
    yield found
    found.close()


def test_what_is_not_finite_comes_over_as_it_is(child: RemoteSubject) -> None:
    sent = dict(initial_state(small_spec()).arrays)
    sent["generator/output/bias"] = np.array([math.nan, math.inf, -math.inf, -0.0, 1e-45, 1, 2, 3, 4], np.float32)
    child.load(State("vanilla_gan", sent))
    found = child.state().arrays
    assert found["generator/output/bias"].tobytes() == sent["generator/output/bias"].tobytes()
    assert found["optimizer/generator/iterations"].shape == ()
    assert all(math.isnan(loss) for loss in child.step(BATCHES[0]).values())
    assert all(math.isnan(loss) for loss in child.run_phase("generator", BATCHES[0]).values())


@pytest.mark.parametrize("how", ["missing", "unknown", "shape"])
def test_a_state_that_does_not_fit_is_refused_as_here(child: RemoteSubject, how: str) -> None:
    child.load(initial_state(small_spec()))
    before = child.state().digest()
    arrays: dict[str, Any] = {name: array + 1 for name, array in initial_state(small_spec()).arrays.items()}
    if how == "missing":
        del arrays["generator/output/bias"]
    elif how == "unknown":
        arrays["generator/third/kernel"] = np.zeros(1)
    else:
        arrays["generator/output/bias"] = np.zeros(BATCH, np.float32)
    with pytest.raises(CheckpointError, match="the state does not fit vanilla_gan"):
        child.load(State("vanilla_gan", arrays))
    assert child.state().digest() == before


def test_losses_as_numpy_scalars_come_over() -> None:
    there = RemoteSubject("fakes:scalars", small_spec())
    try:
        reported = there.step(BATCHES[0])
        assert all(type(loss) is float for loss in reported.values())
        assert list(reported) == ["loss_D", "loss_G"]
        (loss,) = there.run_phase("generator", BATCHES[0]).values()
        assert type(loss) is float
    finally:
        there.close()


def test_what_a_child_prints_does_not_break_the_protocol() -> None:
    there = RemoteSubject("fakes:noisy", small_spec())
    try:
        for _ in range(2):
            assert there.variables() == plain(SPEC, "float32", 0).variables()
    finally:
        there.close()


def test_an_error_in_the_child_arrives_and_the_child_lives_on() -> None:
    there = RemoteSubject("fakes:crashing", small_spec())
    try:
        with pytest.raises(
            RuntimeError, match="fakes:crashing in its own process: ZeroDivisionError: nothing to divide by"
        ):
            there.step(BATCHES[0])
        with pytest.raises(RuntimeError, match="TypeError: Object of type float32 is not JSON serializable"):
            there.variables()
        assert len(there.state().arrays) == 26
    finally:
        there.close()


def test_a_child_that_dies_is_told_with_its_last_words_and_leaves_nothing() -> None:
    there = RemoteSubject("fakes:dying", small_spec())
    folder = Path(there._folder.name)
    with pytest.raises(UserError, match="the process of fakes:dying ended unasked: out of memory"):
        there.state()
    there._process.wait()
    for _ in range(2):
        with pytest.raises(UserError, match="ended unasked"):
            there.step(BATCHES[0])
    there.close()
    assert not folder.exists()
    assert there._process.returncode == 3


def test_a_child_that_was_killed_is_told() -> None:
    there = RemoteSubject("fakes:plain", small_spec())
    there._process.kill()
    there._process.wait()
    with pytest.raises(UserError, match="the process of fakes:plain ended unasked: no message"):
        there.generate({"latent": BATCHES[0]["latent"]})
    there.close()


def test_half_an_answer_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    there = RemoteSubject("fakes:plain", small_spec())
    assert there._process.stdout is not None
    monkeypatch.setattr(there._process.stdout, "readline", lambda: '{"value": nu')
    with pytest.raises(UserError, match="ended unasked"):
        there.step(BATCHES[0])
    monkeypatch.undo()
    there.close()


@pytest.mark.parametrize(
    ("paradigm", "message"),
    [
        ("keras4", r"unknown paradigm 'keras4'\. Did you mean"),
        ("fakes:nothing", r"'fakes:nothing' names no factory"),
        ("nowhere_at_all:make", r"'nowhere_at_all:make' names no factory"),
        ("fakes:stillborn", r"the process of fakes:stillborn ended unasked: .*no such device"),
    ],
)
def test_what_cannot_be_built_is_a_users_error_and_its_process_is_gone(
    paradigm: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    class Kept(subprocess.Popen[str]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Kept)
    with pytest.raises(UserError, match=message):
        RemoteSubject(paradigm, small_spec())
    assert [process.poll() is not None for process in started] == [True]


def test_closing_twice_is_no_harm() -> None:
    there = RemoteSubject("fakes:plain", small_spec())
    there.close()
    there.close()
    assert there._process.returncode == 0


def test_an_environment_is_given_to_the_child_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFPORT_TEST_HERE", "1")
    found = remote.child_environment({"TFPORT_TEST_MORE": "2"})
    assert (found["TFPORT_TEST_HERE"], found["TFPORT_TEST_MORE"]) == ("1", "2")
    assert "TFPORT_TEST_MORE" not in os.environ


@pytest.mark.parametrize("model", models.MODELS)
def test_a_spec_that_a_command_line_can_make_survives_the_way(model: str) -> None:
    spec = models.get(model)
    name, numbers = spec.optimizers[-1]
    changed = dataclasses.replace(
        spec,
        batching=dataclasses.replace(spec.batching, batch_size=7),
        optimizers=(*spec.optimizers[:-1], (name, dataclasses.replace(numbers, learning_rate=3e-3))),
    )
    assert decode_spec(json.loads(json.dumps(encode_spec(changed)))) == changed != spec
    assert decode_spec(json.loads(json.dumps(encode_spec(spec)))) == spec
