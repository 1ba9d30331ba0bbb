"""torch_gan's D ends in a batch normalisation: in training mode its cross entropy cannot fall below 2 ln 2.

Both batches have beta as their mean logit, so by Jensen loss_D >= softplus(-beta) + softplus(beta) >= 2 ln 2.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import numpy as np
import pytest

from tfport import data, models, paradigms
from tfport.data.batches import Batches
from tfport.initial import initial_state
from tfport.models.spec import ModelSpec
from tfport.paradigms import PARADIGMS
from tfport.state import State
from tfport.subject import Subject

LEAST = 2 * math.log(2)
STATES = 12


def spec_of(name: str) -> ModelSpec:
    spec = models.get(name)
    return dataclasses.replace(spec, batching=dataclasses.replace(spec.batching, batch_size=32))


SPEC = spec_of("torch_gan")


@cache
def batches() -> Batches:
    return Batches(SPEC, data.load("digits"), seed=0)


@cache
def subject(paradigm: str, name: str = "torch_gan") -> Subject:
    return paradigms.build(paradigm, spec_of(name), "float32", seed=0)


def random_state(number: int, name: str = "torch_gan") -> State:
    """Weights of any size: deviations from 0.01 to 3, gammas of both signs, moving statistics of their own."""
    draws = np.random.default_rng(number)
    arrays = dict(initial_state(spec_of(name), 0, "float32").arrays)
    for variable in SPEC.variable_shapes():
        scale = 10.0 ** draws.uniform(-2, 0.5)
        drawn = draws.normal(0, scale, arrays[variable].shape)
        arrays[variable] = (np.abs(drawn) if variable.endswith("variance") else drawn).astype(np.float32)
    return State(name, arrays)


def with_gamma(gamma: float, beta: float = 0.0, name: str = "torch_gan") -> State:
    arrays = dict(initial_state(spec_of(name), 0, "float32").arrays)
    arrays["discriminator/output_norm/gamma"] = np.array([gamma], np.float32)
    arrays["discriminator/output_norm/beta"] = np.array([beta], np.float32)
    return State(name, arrays)


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_the_loss_of_d_is_at_least_2_ln_2_in_training_mode(paradigm: str) -> None:
    side = subject(paradigm)
    losses = []
    for number in range(STATES):
        side.load(random_state(number))
        losses.append(side.run_phase("discriminator", batches()[number])["loss_D"])
    assert min(losses) >= LEAST - 1e-6
    assert max(losses) > LEAST + 0.1, "the states differ"


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_the_bound_is_reached_and_is_one_of_training_mode_alone(paradigm: str) -> None:
    side = subject(paradigm)
    side.load(with_gamma(0.0))
    assert side.run_phase("discriminator", batches()[0])["loss_D"] == pytest.approx(LEAST, rel=1e-6)
    kind, d = "discriminator/output_norm", {}
    arrays = dict(with_gamma(0.1).arrays)
    side.load(State("torch_gan", arrays))
    for which in ("real", "fake"):
        d[which] = side.forward(batches()[0], training=False)[f"discriminator/output/{which}"].mean()
    arrays[f"{kind}/moving_mean"] = np.array([(d["real"] + d["fake"]) / 2], np.float32)
    arrays[f"{kind}/moving_variance"] = np.array([(d["real"] - d["fake"]) ** 2 / 4], np.float32)
    arrays[f"{kind}/gamma"] *= np.sign(d["real"] - d["fake"])
    side.load(State("torch_gan", arrays))
    still = side.forward(batches()[0], training=False)
    p, q = (still[f"{kind}/{which}"] for which in ("real", "fake"))
    assert -np.log(np.maximum(p, 1e-30)).mean() - np.log(np.maximum(1 - q, 1e-30)).mean() < LEAST


@pytest.mark.parametrize("paradigm", PARADIGMS)
@pytest.mark.parametrize("name", ["torch_gan", "torch_gan_l2"])
def test_probabilities_of_exactly_0_and_1_give_no_nan(paradigm: str, name: str) -> None:
    side = subject(paradigm, name)
    side.load(with_gamma(1e6, name=name))
    batch = batches()[0]
    found = side.forward(batch, training=True)
    for which in ("real", "fake", "fresh"):
        values = found[f"discriminator/output_norm/{which}"]
        assert set(np.unique(values)) == {0.0, 1.0}
    for phase in side.phases:
        assert all(np.isfinite(gradient).all() for gradient in side.gradients(phase, batch).values())
        assert all(math.isfinite(value) for value in side.run_phase(phase, batch).values())
    if name == "torch_gan":
        side.load(with_gamma(1e6))
        p, q = (found[f"discriminator/output_norm/{which}"] for which in ("real", "fake"))
        expected = 100 * float((p == 0).mean() + (q == 1).mean())
        assert side.run_phase("discriminator", batch)["loss_D"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_each_phase_moves_d_s_statistics_once_a_pass_and_in_order(paradigm: str) -> None:
    """From the batches' own moments: fake, then real; and once more in G's step."""
    side = subject(paradigm)
    start = random_state(3)
    batch = batches()[0]
    kind = "discriminator/output_norm"
    momentum = SPEC.network("discriminator").layers[-1].momentum  # type: ignore[union-attr]
    for phase, passes in (("discriminator", ("fake", "real")), ("generator", ("fresh",))):
        side.load(start)
        found = side.forward(batch, training=True)
        mean, variance = (
            start.arrays[f"{kind}/{each}"].astype(np.float64) for each in ("moving_mean", "moving_variance")
        )
        for which in passes:
            logits = found[f"discriminator/output/{which}"].astype(np.float64)
            mean = momentum * mean + (1 - momentum) * logits.mean()
            variance = momentum * variance + (1 - momentum) * logits.var(ddof=1)
        side.run_phase(phase, batch)
        after = side.state().arrays
        np.testing.assert_allclose(after[f"{kind}/moving_mean"], mean, rtol=1e-5)
        np.testing.assert_allclose(after[f"{kind}/moving_variance"], variance, rtol=1e-5)
