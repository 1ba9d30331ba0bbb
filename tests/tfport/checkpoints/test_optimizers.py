"""Training that goes on in another framework from converted files, optimizer by optimizer: TF1, Keras 2, Keras 3.

The whole matrix, every kind of file against every other, is `python tests/prove.py optimizers`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import checkpoint_programs
from checkpoint_programs import BROKEN, CUT, OPTIMIZERS, Bench, broken
from tfport.checkpoints.contents import Array, Role
from tfport.checkpoints.opening import open_source
from tfport.checkpoints.plan import Options
from tfport.errors import CheckpointError

PAIRS = (
    ("tf1-v2", "keras-h5"),
    ("keras-h5", "tf1-v2"),
    ("tf1-v2", "keras3"),
    ("keras3-weights", "tf1-v2"),
    ("tf2", "keras3"),
    ("keras3", "keras-h5"),
)
"""Every framework to every other; the kinds of files take turns."""
BY_DEFAULT = ("SGD", "Momentum", "Nesterov", "Adagrad", "Adadelta", "RMSProp", "CenteredRMSProp, momentum", "Adam")
EPSILON = "Adagrad, epsilon .001"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    from tfport.quiet import load_tensorflow

    load_tensorflow()
    yield Bench(tmp_path_factory.mktemp("optimizers"))


# --- Carried ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*BY_DEFAULT, "Ftrl, beta .125"])
def test_training_goes_on_as_it_would_have(bench: Bench, name: str) -> None:
    for source, target in PAIRS:
        outcome = bench.carried(source, target, name)
        assert outcome.carried, (source, target, outcome)


@pytest.mark.parametrize("name", ["RMSProp, momentum", "Adam, beta_1 .5"])
def test_in_float64_what_is_left_is_float64s_rounding(bench: Bench, name: str) -> None:
    outcome = bench.carried("tf1-v2", "keras3", name, "float64")
    assert outcome.carried
    assert outcome.difference < 1e-13


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("tf1-v2, no .meta", "keras3", "Adam, beta_1 .5"),
        ("tf1-v1", "keras-h5", "Adam"),
        ("keras3", "tf1-v1", "Adam"),
        ("tf1-v2, no .meta", "keras-h5", "Momentum"),
    ],
)
def test_other_kinds_of_tf1s_files(bench: Bench, source: str, target: str, name: str) -> None:
    assert bench.carried(source, target, name).carried


# --- The harness sees mistakes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_converter_is_seen(bench: Bench, mistake: str) -> None:
    name = BROKEN[mistake][0]
    assert bench.carried("tf1-v2", "keras3", name).carried
    with broken(mistake):
        outcome = bench.carried("tf1-v2", "keras3", name)
    assert outcome.kind == "differs", outcome
    assert outcome.difference > 1e-4


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_slots_that_stay_behind_are_seen(bench: Bench, name: str) -> None:
    outcome = bench.carried("tf1-v2", "keras3", name, options=Options(keep=("optimizer/*",)))
    assert outcome.carried == (name == "SGD"), outcome


# --- Refused ----------------------------------------------------------------------------------------------------------
def test_adagrad_with_an_epsilon_is_not_tf1s(bench: Bench) -> None:
    for source, target in (("tf1-v2", "keras3"), ("keras-h5", "tf1-v2")):
        outcome = bench.carried(source, target, EPSILON)
        assert outcome.kind == "refused"
        assert "adds no epsilon, as TF1's never does, and the other 0.001" in outcome.message
    allowed = bench.carried("tf1-v2", "keras3", EPSILON, options=Options(other_update=True))
    assert allowed.kind == "differs"
    untold = bench.carried("tf1-v2", "tf2", EPSILON)
    assert untold.kind == "differs"
    assert "the other's is not recorded" in untold.message


def test_another_rate_in_the_template_is_refused_where_velocities_are_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    momentum = OPTIMIZERS["Momentum"]
    monkeypatch.setattr(
        checkpoint_programs, "OPTIMIZERS", {**OPTIMIZERS, "other": dataclasses.replace(momentum, rate=0.015)}
    )
    there, _ = bench.converted(
        source_file(bench, "tf1-v2", "Momentum"), bench.file("keras-h5", "Momentum", "float32", 0)
    )
    with pytest.raises(CheckpointError, match="the rate has changed since"):
        bench.converted(there, bench.file("tf1-v2", "other", "float32", 0))
    with pytest.raises(CheckpointError, match="the rate has changed since"):
        bench.converted(source_file(bench, "tf1-v2", "Momentum"), bench.file("keras-h5", "other", "float32", 0))


def test_momentum_is_not_lost_in_plain_descent(bench: Bench) -> None:
    like = bench.file("keras3", "SGD", "float32", 0)
    with pytest.raises(CheckpointError, match="keeps what momentum keeps"):
        bench.converted(source_file(bench, "tf2", "Momentum"), like)
    with pytest.raises(CheckpointError, match="slots of one mean nothing to the other"):
        bench.converted(source_file(bench, "keras-h5", "Momentum"), like)


def test_plain_descent_in_an_object_based_checkpoint_must_be_said_to_be_that(bench: Bench) -> None:
    assert bench.carried("tf2", "tf1-v2", "SGD", options=Options()).kind == "refused"
    assert bench.carried("tf2", "tf1-v2", "SGD").carried


def test_rmsprops_idle_momentum_is_known_by_the_graph_alone(bench: Bench) -> None:
    refused = bench.carried("tf1-v2, no .meta", "keras3", "RMSProp", options=Options())
    assert "momentum/hidden/bias" in refused.message
    assert bench.carried("tf1-v2, no .meta", "keras3", "RMSProp").carried
    assert bench.carried("tf1-v2", "keras3", "RMSProp", options=Options()).carried


def test_two_slots_of_a_keras3_weights_files_rmsprop_are_not_guessed(bench: Bench) -> None:
    """They may be rms and momentum or rms and mean, and only a .keras file has the config that tells."""
    refused = bench.carried("tf1-v2", "keras3-weights", "RMSProp, momentum")
    assert refused.kind == "refused"
    assert "whose they are its file does not tell" in refused.message
    assert bench.carried("keras3-weights", "keras3-weights", "RMSProp, momentum").kind == "refused"
    assert bench.carried("tf1-v2", "keras3", "RMSProp, momentum").carried


# --- There and back ---------------------------------------------------------------------------------------------------
def source_file(bench: Bench, form: str, name: str) -> Path:
    return bench.file(form, name, "float32", CUT)


def state(path: Path) -> dict[str, Array]:
    """Weights, slots, counts and beta powers by canonical name."""
    with open_source(path) as source:
        roles = (Role.WEIGHT, Role.SLOT, Role.COUNT, Role.POWER)
        return {each.name: source.read(each.key) for each in source.contents().entries if each.role in roles}


@pytest.mark.parametrize(
    ("between", "name"),
    [
        *(("keras-h5", name) for name in ("Adam", "Adadelta", "RMSProp, momentum")),
        ("tf2", "Adam"),
        ("keras3", "CenteredRMSProp, momentum"),
        ("keras3-weights", "Adam"),
    ],
)
def test_there_and_back_is_the_same_bytes(bench: Bench, between: str, name: str) -> None:
    begun = source_file(bench, "tf1-v2", name)
    there, _ = bench.converted(begun, bench.file(between, name, "float32", 0))
    back, _ = bench.converted(there, bench.file("tf1-v2", name, "float32", 0))
    before, after = state(begun), state(back)
    assert before.keys() == after.keys()
    assert len(before) >= 12
    assert [key for key in before if before[key].tobytes() != after[key].tobytes()] == []
    assert ("optimizer/Adam/beta_1_power" in before) == (name == "Adam")


@pytest.mark.parametrize("name", ["Momentum", "Nesterov"])
def test_momentum_comes_back_within_one_ulp(bench: Bench, name: str) -> None:
    begun = source_file(bench, "tf1-v2", name)
    there, _ = bench.converted(begun, bench.file("keras3", name, "float32", 0))
    back, _ = bench.converted(there, bench.file("tf1-v2", name, "float32", 0))
    before, after = state(begun), state(back)
    assert before.keys() == after.keys()
    for key, value in before.items():
        if "/accumulator/" in key:
            assert np.all(np.abs(after[key] - value) <= np.spacing(np.abs(value))), key
            assert value.any()
        else:
            assert after[key].tobytes() == value.tobytes(), key
