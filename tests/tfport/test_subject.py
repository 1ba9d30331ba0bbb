"""The contract's invariants, for every model in every paradigm, in this process and in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import subjects
from subjects import SPEC, differing, initial, warm
from tfport import models, paradigms
from tfport.data.batches import generated_inputs
from tfport.equivalence.losses import recomputed
from tfport.errors import CheckpointError, UserError
from tfport.models.spec import Adam, ModelSpec, Normal
from tfport.paradigms import PARADIGMS
from tfport.remote import RemoteSubject
from tfport.state import State
from tfport.subject import CORRECTED, Batch, Subject

CELLS = [(model, paradigm) for model in models.MODELS for paradigm in PARADIGMS]
every_cell = pytest.mark.parametrize(("model", "paradigm"), CELLS)
every_paradigm = pytest.mark.parametrize("paradigm", PARADIGMS)

VANILLA = "vanilla_gan"
LOOKS = ("forward", "gradients", "generate")


def loaded(model: str, paradigm: str) -> Subject:
    side = subjects.subject(model, paradigm)
    side.load(warm(model))
    return side


def batch(model: str = VANILLA, step: int = 3) -> Batch:
    return subjects.batches(model)[step]


def sample_inputs(spec: ModelSpec) -> Batch:
    """Four rows of what `generate` is given."""
    if spec.samples.inputs == ("images",):
        return {"images": subjects.batches(spec.name).images[:4]}
    return generated_inputs(spec, 0, "test", 4)


def moved_by(spec: ModelSpec, phase: str) -> set[str]:
    """The variables, moving statistics with them, that a phase moves."""
    about = spec.phase(phase)
    return {
        name
        for name, variable in spec.variables().items()
        if (variable.trainable and any(name.startswith(f"{place}/") for place in about.moves))
        or (not variable.trainable and name.split("/")[0] in about.statistics)
    }


@every_cell
def test_phases_in_order_are_a_step(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    in_order: dict[str, float] = {}
    for phase in side.phases:
        in_order |= side.run_phase(phase, batch(model))
    after = side.state()
    side.load(warm(model))
    assert side.step(batch(model)) == in_order
    assert tuple(in_order) == side.spec.reports
    assert differing(side.state(), after) == []
    assert differing(after, warm(model)) != []


@every_cell
def test_looking_changes_nothing(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    looks: dict[str, Callable[[], object]] = {
        "forward": lambda: [side.forward(batch(model), training=training) for training in (True, False)],
        "gradients": lambda: [side.gradients(phase, batch(model)) for phase in side.phases],
        "generate": lambda: side.generate(sample_inputs(side.spec)),
    }
    assert tuple(looks) == LOOKS
    side.step(batch(model))
    for look in looks.values():
        look()  # the first look may trace, and Keras 2 makes its metrics then
    side.load(warm(model))
    before = counters(side)
    for name, look in looks.items():
        look()
        assert differing(side.state(), warm(model)) == [], name
        assert counters(side) == before, name


def counters(side: Subject) -> dict[str, bytes]:
    """Metrics and seed generators, which only Keras has, and all else that its models keep."""
    return {
        f"{phase}/{number}": np.asarray(variable).tobytes()
        for phase, model in getattr(side, "compiled", {}).items()
        for number, variable in enumerate(
            [*model.variables, *(variable for metric in model.metrics for variable in metric.variables)]
        )
    }


def check_gradients(side: Subject, state: State, drawn: Batch, rtol: float) -> None:
    """After a step from empty slots, Adam's m is (1 - beta_1) g and v (1 - beta_2) g²; RMSProp's rms is (1 - rho) g².

    This holds the gradient against the real optimizer's real step; a stand-in with SGD would hold it against another.
    """
    for phase in side.phases:
        side.load(state)
        gradients = side.gradients(phase, drawn)
        about = side.spec.phase(phase)
        assert set(gradients) == {name for name in moved_by(side.spec, phase) if side.spec.variables()[name].trainable}
        side.run_phase(phase, drawn)
        after = side.state().arrays
        numbers = side.spec.optimizer(about.optimizer)
        for name, gradient in gradients.items():
            scale = float(np.abs(gradient).max())
            assert scale > 0, (phase, name)
            if isinstance(numbers, Adam):
                expected = {"m": (1 - numbers.beta_1) * gradient, "v": (1 - numbers.beta_2) * gradient**2}
            else:
                expected = {"rms": (1 - numbers.rho) * gradient**2}
            for slot, value in expected.items():
                found = after[f"optimizer/{about.optimizer}/{slot}/{name}"]
                np.testing.assert_allclose(found, value, rtol=rtol, atol=rtol * float(np.abs(value).max()))


def with_empty_slots(model: str, precision: str) -> State:
    weights, start = warm(model, precision).arrays, initial(model, precision).arrays
    spec = subjects.spec(model)
    return State(model, {**start, **{name: weights[name] for name in spec.variable_shapes()}})


@every_cell
def test_gradients_are_what_the_update_takes(model: str, paradigm: str) -> None:
    check_gradients(loaded(model, paradigm), with_empty_slots(model, "float32"), batch(model), rtol=2e-4)


@every_paradigm
@pytest.mark.parametrize("model", [VANILLA, "batchnorm_gan"])
def test_gradients_are_what_the_update_takes_in_float64(model: str, paradigm: str) -> None:
    side = subjects.remote(model, paradigm, "float64")
    check_gradients(side, with_empty_slots(model, "float64"), subjects.batches(model, "float64")[3], rtol=1e-11)


@every_paradigm
def test_a_gradient_that_the_update_does_not_take_is_found(paradigm: str) -> None:
    side = loaded(VANILLA, paradigm)
    honest = side.gradients

    def doubled(phase: str, drawn: Batch) -> dict[str, Any]:
        return {name: 1.001 * value for name, value in honest(phase, drawn).items()}

    side.gradients = doubled  # type: ignore[method-assign,assignment]
    try:
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            check_gradients(side, with_empty_slots(VANILLA, "float32"), batch(), rtol=2e-4)
    finally:
        side.gradients = honest  # type: ignore[method-assign]


@every_cell
def test_each_phase_moves_what_it_declares_and_nothing_else(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    for phase in side.phases:
        side.load(warm(model))
        side.run_phase(phase, batch(model))
        moved = set(differing(side.state(), warm(model)))
        assert {name for name in moved if not name.startswith("optimizer/")} == moved_by(side.spec, phase), phase
        optimizer = side.spec.phase(phase).optimizer
        assert {name.split("/")[1] for name in moved if name.startswith("optimizer/")} == {optimizer}
        assert f"optimizer/{optimizer}/iterations" in moved


@every_cell
def test_variables_are_those_of_the_source(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    spec, found = side.spec, side.variables()
    assert [variable.name for variable in found] == list(spec.variable_shapes())
    for network in spec.networks:
        own = [variable for variable in found if variable.name.startswith(f"{network.name}/")]
        assert sum(variable.parameters for variable in own) == network.parameters
        assert sum(each.parameters for each in own if not each.trainable) == network.non_trainable
    for variable in found:
        assert variable.shape == spec.variable_shapes()[variable.name]
        assert variable.dtype == "float32"
        holders = {name for name, _ in spec.optimizers if variable.name in spec.held(name)}
        assert set(variable.optimizers) == holders, variable.name
        assert variable.trainable == bool(holders)


@every_cell
def test_hyperparameters_are_read_back(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    found = {optimizer.name: optimizer for optimizer in side.optimizers()}
    assert list(found) == [name for name, _ in side.spec.optimizers]
    for name, numbers in side.spec.optimizers:
        expected = {key: value for key, value in vars(numbers).items() if isinstance(value, float)}
        assert dict(found[name].hyperparameters) == expected
        corrected = isinstance(numbers, Adam) and numbers.epsilon_after_correction
        assert found[name].algorithm == numbers.algorithm + (CORRECTED if corrected else "")


@every_cell
def test_state_is_a_copy(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    state = side.state()
    digest = state.digest()
    side.step(batch(model))
    assert state.digest() == digest == warm(model).digest()


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
    side = loaded(VANILLA, paradigm)
    arrays = {name: array for name, array in {**initial().arrays, **change}.items() if array is not None}
    with pytest.raises(CheckpointError, match=message):
        side.load(State(SPEC.name, arrays))
    assert differing(side.state(), warm()) == []


@every_cell
def test_native_checkpoint_brings_everything_back(model: str, paradigm: str, tmp_path: Path) -> None:
    side = loaded(model, paradigm)
    side.save(tmp_path)
    onward = side.step(batch(model))
    after = side.state()
    side.load(initial(model))
    side.restore(tmp_path)
    assert differing(side.state(), warm(model)) == []
    assert side.step(batch(model)) == onward
    assert differing(side.state(), after) == []


@every_paradigm
def test_native_checkpoint_of_something_else_is_refused(paradigm: str, tmp_path: Path) -> None:
    side = loaded(VANILLA, paradigm)
    with pytest.raises(CheckpointError, match="cannot be restored into vanilla_gan"):
        side.restore(tmp_path)


@every_cell
def test_what_is_reported_follows_from_the_outputs(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    modes = {mode: side.forward(batch(model), training=mode == "training") for mode in ("training", "inference")}
    for phase in side.phases:
        side.load(warm(model))
        reports = side.run_phase(phase, batch(model))
        assert tuple(reports) == side.spec.phase(phase).reports
        for name, reported in reports.items():
            value, bound = recomputed(side.spec, name, modes, batch(model))
            assert bound < 1e-3
            assert abs(reported - value) <= bound, name


@every_cell
def test_outputs_name_every_layer_in_one_order(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    found = side.forward(batch(model), training=False)
    reference = loaded(model, "tf1_graph").forward(batch(model), training=True)
    assert list(found) == list(reference)
    assert {name: array.shape for name, array in found.items()} == {
        name: array.shape for name, array in reference.items()
    }
    named = {"/".join(name.split("/")[:2]) for name in found}
    assert named == {f"{network.name}/{layer.name}" for network in side.spec.networks for layer in network.layers}


@every_paradigm
def test_vanilla_gans_outputs_in_the_order_of_computation(paradigm: str) -> None:
    outputs = loaded(VANILLA, paradigm).forward(batch(), training=False)
    assert list(outputs) == [
        "generator/hidden",
        "generator/output",
        "discriminator/hidden/real",
        "discriminator/output/real",
        "discriminator/hidden/fake",
        "discriminator/output/fake",
    ]


@every_cell
def test_generate_makes_the_images_of_inference_mode(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    made = side.generate(sample_inputs(side.spec))
    assert made.shape == (4, side.spec.pixels) and made.dtype == np.float32
    if side.spec.samples.inputs == ("code",):
        return  # the decoder's input is no input of a training step
    drawn = batch(model)
    images = side.generate({name: drawn[name] for name in side.spec.samples.inputs})
    last = "decoder/output" if side.spec.protocol is None else f"generator/{side.spec.networks[0].layers[-1].name}"
    whole = side.forward(drawn, training=False)[last].reshape(images.shape)
    np.testing.assert_allclose(images, whole, rtol=0, atol=2e-6)


@every_cell
def test_initialise_draws_anew_and_empties_the_slots(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    side.initialise(7)
    first = side.state().arrays
    side.initialise(8)
    second = side.state().arrays
    spec = side.spec
    for name, variable in spec.variables().items():
        drawn = not hasattr(variable.initialiser, "value")
        assert np.array_equal(first[name], second[name]) == (not drawn), name
        if isinstance(variable.initialiser, Normal) and first[name].size > 10_000:
            assert abs(float(first[name].std()) / variable.initialiser.stddev - 1) < 0.03
    assert all(not array.any() for name, array in first.items() if name.startswith("optimizer/"))
    side.load(warm(model))


@pytest.mark.parametrize("paradigm", ["keras2", "keras3"])
def test_one_floatx_a_process(paradigm: str) -> None:
    loaded(VANILLA, paradigm)
    with pytest.raises(UserError, match=r"already holds Keras [23] models in float32.*another one"):
        paradigms.build(paradigm, SPEC, "float64")


@every_paradigm
@pytest.mark.parametrize("model", [VANILLA, "vae"])
def test_in_another_process_the_same_bits(model: str, paradigm: str) -> None:
    here = loaded(model, paradigm)
    there = RemoteSubject(paradigm, subjects.spec(model), "float32")
    try:
        there.load(warm(model))
        assert there.step(batch(model)) == here.step(batch(model))
        assert differing(there.state(), here.state()) == []
        assert np.array_equal(there.generate(sample_inputs(here.spec)), here.generate(sample_inputs(here.spec)))
    finally:
        there.close()


@every_cell
def test_the_declared_update_protocol_is_the_one_that_runs(model: str, paradigm: str) -> None:
    side = loaded(model, paradigm)
    spec, before = side.spec, warm(model).arrays
    apart: dict[str, float] = {}
    for phase in side.phases:
        side.load(warm(model))
        apart |= side.run_phase(phase, batch(model))
    side.load(warm(model))
    together = side.step(batch(model))
    after = side.state().arrays
    for optimizer, _ in spec.optimizers:
        name = f"optimizer/{optimizer}/iterations"
        assert after[name] - before[name] == sum(phase.optimizer == optimizer for phase in spec.phases)
    assert together[spec.phases[0].loss] == apart[spec.phases[0].loss]
    for later in spec.phases[1:]:
        assert together[later.loss] != apart[later.loss], f"{later.name} must see what has just moved"
    if spec.protocol is None:
        return
    assert spec.protocol.order == "alternating"
    normalised = {name.split("/")[0] for name, each in spec.variables().items() if not each.trainable}
    for about in spec.phases:  # what each phase's statistics are is held by what it moves
        expected = set()
        if about.name == "generator":
            expected = {"generator"} | (
                {"discriminator"} if spec.protocol.frozen_discriminator == "training" else set()
            )
        elif spec.protocol.fakes == "training":
            expected = {"generator", "discriminator"}
        assert set(about.statistics) == expected & normalised
    steps_of_d = sum(phase.optimizer == "discriminator" for phase in spec.phases)
    assert steps_of_d == {"joint": 1, "half_steps": 2}[spec.protocol.discriminator]
    assert ("latent_generator" in batch(model)) == (spec.protocol.generator_noise == "fresh")
    if spec.protocol.generator_noise == "fresh":
        check_noise(side, model)


def check_noise(side: Subject, model: str) -> None:
    """D's step takes one z and G's the other."""
    drawn = batch(model)
    for phase in side.phases:
        own = "latent_generator" if phase == "generator" else "latent"
        other = "latent" if phase == "generator" else "latent_generator"
        told = {}
        for changed in ("", own, other):
            side.load(warm(model))
            fed = {**drawn, **({changed: -drawn[changed]} if changed else {})}
            told[changed] = side.run_phase(phase, fed)
        assert told[other] == told[""], (phase, other)
        if phase != "discriminator_real":
            assert told[own] != told[""], (phase, own)
