"""The models' facts, as the source counts them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfport import models
from tfport.errors import UserError
from tfport.models.spec import Adam

SPEC = models.get("vanilla_gan")


def test_vanilla_gan_has_as_many_parameters_as_the_note() -> None:
    assert SPEC.network("generator").parameters == 234_512
    assert SPEC.network("discriminator").parameters == 201_217
    assert SPEC.parameters == 435_729


def test_parameters_are_those_of_the_variables() -> None:
    for name in models.MODELS:
        spec = models.get(name)
        assert spec.name == name
        assert sum(int(np.prod(shape)) for shape in spec.variable_shapes().values()) == spec.parameters


def test_layers_fit_together() -> None:
    for spec in map(models.get, models.MODELS):
        for network in spec.networks:
            for before, after in zip(network.layers, network.layers[1:], strict=False):
                assert before.units == after.inputs
        assert (spec.network("generator").inputs, spec.network("generator").outputs) == (spec.latent, spec.pixels)
        assert (spec.network("discriminator").inputs, spec.network("discriminator").outputs) == (spec.pixels, 1)


def test_every_hyperparameter_is_rounded_to_float32() -> None:
    for spec in map(models.get, models.MODELS):
        for phase, adam in spec.optimizers:
            for name, value in dataclasses.asdict(adam).items():
                assert value == float(np.float32(value)), (phase, name)


def test_rounding_happens_wherever_an_adam_is_made() -> None:
    adam = Adam(2e-4, 0.9, 0.999, 1e-8)
    assert adam.learning_rate == float(np.float32(2e-4)) != 2e-4
    assert adam.beta_1 == float(np.float32(0.9)) != 0.9
    replaced = dataclasses.replace(adam, learning_rate=1e-4)
    assert replaced.learning_rate == float(np.float32(1e-4)) != 1e-4


def test_vanilla_gans_numbers() -> None:
    for phase in ("discriminator", "generator"):
        assert SPEC.optimizer(phase) == Adam(2e-4, 0.9, 0.999, 1e-8)
    assert (
        [phase for phase, _ in SPEC.optimizers]
        == [phase.name for phase in SPEC.phases]
        == ["discriminator", "generator"]
    )
    assert SPEC.steps == 100 * SPEC.steps_per_epoch
    assert SPEC.steps_per_epoch * SPEC.batching.batch_size == 60_000 - SPEC.batching.held_out


def test_initial_deviations_are_found_by_variable() -> None:
    for name in SPEC.variable_shapes():
        assert SPEC.kernel_stddev(name) == (0.01 if name.endswith("/kernel") else 0.0)


def test_what_is_not_there_is_not_made_up() -> None:
    for find in (SPEC.network, SPEC.phase, SPEC.optimizer):
        with pytest.raises(KeyError):
            find("critic")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vanila_gan", r"^unknown model 'vanila_gan'\. Did you mean vanilla_gan\? Valid: vanilla_gan\.$"),
        ("", r"^unknown model ''\. Valid: vanilla_gan\.$"),
        ("spec", r"^unknown model 'spec'\."),
        ("../vanilla_gan", r"^unknown model"),
    ],
)
def test_an_unknown_model_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.get(name)
