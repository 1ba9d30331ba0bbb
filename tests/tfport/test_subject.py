"""The contract's invariants, for every implementation, in this process and in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import subjects
from subjects import SPEC, differing, initial, warm
from tfport import paradigms
from tfport.equivalence.losses import recomputed
from tfport.errors import CheckpointError, UserError
from tfport.paradigms import PARADIGMS
from tfport.remote import RemoteSubject
from tfport.state import State
from tfport.subject import Batch, Subject

every_paradigm = pytest.mark.parametrize("paradigm", PARADIGMS)


def loaded(paradigm: str) -> Subject:
    side = subjects.subject(paradigm)
    side.load(warm())
    return side


def batch(step: int = 3) -> Batch:
    return subjects.batches()[step]


@every_paradigm
def test_phases_in_order_are_a_step(paradigm: str) -> None:
    side = loaded(paradigm)
    in_order = {phase: side.run_phase(phase, batch()) for phase in side.phases}
    after = side.state()
    side.load(warm())
    assert side.step(batch()) == in_order
    assert differing(side.state(), after) == []
    assert differing(after, warm()) != []


@every_paradigm
@pytest.mark.parametrize("look", ["forward", "gradients", "generate"])
def test_looking_changes_nothing(paradigm: str, look: str) -> None:
    side = loaded(paradigm)
    looks: dict[str, Callable[[], object]] = {
        "forward": lambda: [side.forward(batch(), training=training) for training in (True, False)],
        "gradients": lambda: [side.gradients(phase, batch()) for phase in side.phases],
        "generate": lambda: side.generate(batch()["latent"]),
    }
    side.step(batch())
    looks[look]()  # the first look may trace, and Keras 2 makes its metrics then
    side.load(warm())
    before = counters(side)
    looks[look]()
    assert differing(side.state(), warm()) == []
    assert counters(side) == before


def counters(side: Subject) -> dict[str, bytes]:
    """Metrics and seed generators, which only Keras has, and all else that its models keep."""
    return {
        f"{phase}/{number}": np.asarray(variable).tobytes()
        for phase, model in getattr(side, "compiled", {}).items()
        for number, variable in enumerate(
            [*model.variables, *(variable for metric in model.metrics for variable in metric.variables)]
        )
    }


@every_paradigm
def test_gradients_are_what_the_update_takes(paradigm: str) -> None:
    """In float64: after a step from empty slots, Adam's m is (1 - beta_1) times the gradient, and v its square's share.

    This holds the gradient against the real optimizer's real step; a stand-in with SGD would hold it against another.
    """
    side = subjects.remote(paradigm, "float64")
    weights = warm("float64").arrays
    state = State(SPEC.name, {**initial("float64").arrays, **{name: weights[name] for name in SPEC.variable_shapes()}})
    drawn = subjects.batches("float64")[3]
    for phase in side.phases:
        side.load(state)
        gradients = side.gradients(phase, drawn)
        assert set(gradients) == set(SPEC.network(phase).variable_shapes())
        side.run_phase(phase, drawn)
        after = side.state().arrays
        adam = SPEC.optimizer(phase)
        for name, gradient in gradients.items():
            m, v = (after[f"optimizer/{phase}/{slot}/{name}"] for slot in ("m", "v"))
            assert np.abs(gradient).max() > 0
            np.testing.assert_allclose(m, (1 - adam.beta_1) * gradient, rtol=1e-12, atol=1e-18)
            np.testing.assert_allclose(v, (1 - adam.beta_2) * gradient**2, rtol=1e-12, atol=1e-30)


@every_paradigm
def test_each_phase_moves_its_network_and_no_other(paradigm: str) -> None:
    side = loaded(paradigm)
    for phase in side.phases:
        side.load(warm())
        side.run_phase(phase, batch())
        own = {*SPEC.network(phase).variable_shapes()}
        moved = set(differing(side.state(), warm()))
        assert {name for name in moved if not name.startswith("optimizer/")} == own
        assert {name.split("/")[1] for name in moved if name.startswith("optimizer/")} == {phase}
        assert f"optimizer/{phase}/iterations" in moved


@every_paradigm
def test_counts(paradigm: str) -> None:
    variables = loaded(paradigm).variables()
    assert [variable.name for variable in variables] == list(SPEC.variable_shapes())
    of = {
        network: sum(variable.parameters for variable in variables if variable.name.startswith(network))
        for network in ("generator", "discriminator")
    }
    assert of == {"generator": 234_512, "discriminator": 201_217}
    assert all(variable.trainable and variable.dtype == "float32" for variable in variables)
    assert all(variable.optimizer == variable.name.split("/")[0] for variable in variables)


@every_paradigm
def test_hyperparameters_are_read_back(paradigm: str) -> None:
    for optimizer in loaded(paradigm).optimizers():
        numbers = SPEC.optimizer(optimizer.phase)
        assert optimizer.algorithm == "Adam"
        assert dict(optimizer.hyperparameters) == {
            "learning_rate": numbers.learning_rate,
            "beta_1": numbers.beta_1,
            "beta_2": numbers.beta_2,
            "epsilon": numbers.epsilon,
        }


@every_paradigm
def test_state_is_a_copy(paradigm: str) -> None:
    side = loaded(paradigm)
    state = side.state()
    digest = state.digest()
    side.step(batch())
    assert state.digest() == digest == warm().digest()


@every_paradigm
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator/hidden/bias": None}, "1 missing name.*generator/hidden/bias"),
        ({"generator/third/kernel": np.zeros(3, np.float32)}, "1 unknown name.*generator/third/kernel"),
        (
            {"generator/hidden/bias": np.zeros(255, np.float32)},
            r"generator/hidden/bias has shape \(255,\), expected \(256,\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    paradigm: str, change: dict[str, np.ndarray | None], message: str
) -> None:
    side = loaded(paradigm)
    arrays = {name: array for name, array in {**initial().arrays, **change}.items() if array is not None}
    with pytest.raises(CheckpointError, match=message):
        side.load(State(SPEC.name, arrays))
    assert differing(side.state(), warm()) == []


@every_paradigm
def test_native_checkpoint_brings_everything_back(paradigm: str, tmp_path: Path) -> None:
    side = loaded(paradigm)
    side.save(tmp_path)
    onward = side.step(batch())
    after = side.state()
    side.load(initial())
    side.restore(tmp_path)
    assert differing(side.state(), warm()) == []
    assert side.step(batch()) == onward
    assert differing(side.state(), after) == []


@every_paradigm
def test_native_checkpoint_of_something_else_is_refused(paradigm: str, tmp_path: Path) -> None:
    side = loaded(paradigm)
    with pytest.raises(CheckpointError, match="cannot be restored into vanilla_gan"):
        side.restore(tmp_path)


@every_paradigm
def test_reported_loss_is_the_loss(paradigm: str) -> None:
    side = loaded(paradigm)
    outputs = side.forward(batch(), training=True)
    for phase in side.phases:
        side.load(warm())
        value, bound = recomputed(SPEC.name, phase, outputs)
        assert bound < 1e-4
        assert abs(side.run_phase(phase, batch()) - value) <= bound


@every_paradigm
def test_outputs_in_the_order_of_computation(paradigm: str) -> None:
    outputs = loaded(paradigm).forward(batch(), training=False)
    assert list(outputs) == [
        "generator/hidden",
        "generator/output",
        "discriminator/hidden/real",
        "discriminator/output/real",
        "discriminator/hidden/fake",
        "discriminator/output/fake",
    ]
    images = loaded(paradigm).generate(batch()["latent"])
    np.testing.assert_allclose(outputs["generator/output"], images, rtol=0, atol=1e-6)


@every_paradigm
def test_initialise_draws_anew_and_empties_the_slots(paradigm: str) -> None:
    side = loaded(paradigm)
    side.initialise(7)
    first = side.state().arrays
    side.initialise(8)
    second = side.state().arrays
    kernel = "generator/output/kernel"
    assert not np.array_equal(first[kernel], second[kernel])
    assert abs(float(first[kernel].std()) - 0.01) < 2e-4
    assert all(not first[name].any() for name in first if name.startswith("optimizer/") or name.endswith("/bias"))


@pytest.mark.parametrize("paradigm", ["keras2", "keras3"])
def test_one_floatx_a_process(paradigm: str) -> None:
    loaded(paradigm)
    with pytest.raises(UserError, match=r"already holds Keras [23] models in float32.*another one"):
        paradigms.build(paradigm, SPEC, "float64")


@every_paradigm
def test_in_another_process_the_same_bits(paradigm: str) -> None:
    here = loaded(paradigm)
    there = RemoteSubject(paradigm, SPEC, "float32")
    try:
        there.load(warm())
        assert there.step(batch()) == here.step(batch())
        assert differing(there.state(), here.state()) == []
    finally:
        there.close()


@every_paradigm
def test_the_declared_update_protocol_is_the_one_that_runs(paradigm: str) -> None:
    protocol = SPEC.protocol
    side = loaded(paradigm)
    before = warm().arrays
    apart = {}
    for phase in side.phases:
        side.load(warm())
        apart[phase] = side.run_phase(phase, batch())
    side.load(warm())
    together = side.step(batch())
    after = side.state().arrays
    steps = {
        phase: int(after[name] - before[name]) for phase in side.phases for name in [f"optimizer/{phase}/iterations"]
    }
    assert protocol.discriminator == "joint"
    assert steps == {"discriminator": 1, "generator": 1}
    assert protocol.order == "alternating"
    assert together["discriminator"] == apart["discriminator"]
    assert together["generator"] != apart["generator"], "G must see the D that has just moved"
    assert protocol.generator_noise == "same"
    assert set(batch()) == {"images", "latent"}
