"""Training that goes on in PyTorch, or out of it, from converted files, optimizer by optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

import checkpoint_programs
from checkpoint_programs import CUT, OPTIMIZERS, Bench
from tfport.checkpoints.plan import Options
from tfport.errors import CheckpointError

pytest.importorskip("torch", reason="PyTorch is not installed here; make test-torch has it")


OTHERS = ("tf1-v2", "keras-h5", "keras3")
ELSEWHERE = ("RMSProp", "CenteredRMSProp, momentum", "Adam", "Adagrad, epsilon .001")
"""PyTorch adds epsilon to the root in these."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    from tfport.quiet import load_tensorflow

    load_tensorflow()
    yield Bench(tmp_path_factory.mktemp("optimizers"))


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "Adagrad", "Adadelta"])
def test_training_goes_on_as_it_would_have(bench: Bench, name: str) -> None:
    for other in OTHERS:
        for pair in ((other, "torch"), ("torch", other)):
            outcome = bench.carried(*pair, name)
            assert outcome.carried, (pair, outcome)
    assert bench.carried("torch", "torch", name).kind == "same bits"


def test_in_float64_what_is_left_is_float64s_rounding(bench: Bench) -> None:
    for pair in (("keras3", "torch"), ("torch", "keras3")):
        outcome = bench.carried(*pair, "Momentum", "float64")
        assert outcome.carried
        assert outcome.difference < 1e-13


@pytest.mark.parametrize("name", ELSEWHERE)
def test_another_place_of_epsilon_is_refused(bench: Bench, name: str) -> None:
    for pair in (("keras3", "torch"), ("torch", "keras-h5")):
        assert "add epsilon in different places" in bench.carried(*pair, name).message, (pair, name)


@pytest.mark.parametrize("name", ["Adam", "RMSProp"])
def test_slots_that_are_carried_all_the_same_differ_by_epsilon_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings = OPTIMIZERS[name]
    tiny = dataclasses.replace(settings, numbers={**settings.numbers, "epsilon": 1e-14})
    monkeypatch.setattr(checkpoint_programs, "OPTIMIZERS", {**OPTIMIZERS, f"{name}, tiny epsilon": tiny})
    for pair in (("keras3", "torch"), ("torch", "keras3")):
        outcome = bench.carried(*pair, name, options=Options(other_update=True))
        assert outcome.kind == "differs"
        assert outcome.told
        assert bench.carried(*pair, f"{name}, tiny epsilon", options=Options(other_update=True)).carried


def test_the_count_of_plain_descent_must_be_given(bench: Bench) -> None:
    assert "--iterations=N" in bench.carried("torch", "keras3", "SGD", options=Options()).message


def test_a_template_from_before_the_first_step_has_no_slots_to_fill(bench: Bench) -> None:
    early = bench.program("torch", "Momentum", "float32").save(bench.place(), "torch")
    with pytest.raises(CheckpointError, match="PyTorch: after one step"):
        bench.converted(bench.file("keras3", "Momentum", "float32", CUT), early)
