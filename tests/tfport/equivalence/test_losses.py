"""Losses recomputed: against formulas written another way, and against reports that are not the loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tfport.equivalence.losses import RECOMPUTE, recomputed
from tfport.equivalence.result import LossCheck
from tfport.models import MODELS, get

Array = np.ndarray[Any, Any]


def outputs(real: Any, fake: Any, dtype: str = "float32") -> dict[str, Array]:
    return {
        "generator/output": np.zeros((len(real), 9), dtype),
        "discriminator/output/real": np.array(real, dtype).reshape(-1, 1),
        "discriminator/output/fake": np.array(fake, dtype).reshape(-1, 1),
    }


def by_hand(phase: str, found: dict[str, Array]) -> float:
    """The loss by a loop over the batch in Python's own floats."""
    real, fake = (found[f"discriminator/output/{kind}"].ravel().tolist() for kind in ("real", "fake"))
    if phase == "generator":
        return math.fsum(math.log(each) for each in fake) / len(fake)
    return math.fsum(math.log(a) + math.log1p(-b) for a, b in zip(real, fake, strict=True)) / len(real)


def check(phase: str, reported: float, found: dict[str, Array]) -> LossCheck:
    return LossCheck("modern", phase, phase, reported, *recomputed("vanilla_gan", phase, found))


def test_every_phase_of_every_model_has_a_formula() -> None:
    assert set(RECOMPUTE) == {(model, phase.name) for model in MODELS for phase in get(model).phases}


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_formula_and_other_reports_are_not(phase: str, dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    found = outputs(random.uniform(0.02, 0.98, 100), random.uniform(0.02, 0.98, 100), dtype)
    value, bound = recomputed("vanilla_gan", phase, found)
    loss = by_hand(phase, found)
    assert value == pytest.approx(loss, rel=1e-13)
    assert 0 < bound < 1e-3 * abs(loss)
    assert check(phase, loss, found).agrees
    assert check(phase, float(np.array(loss, dtype)), found).agrees
    for wrong in (loss / 2, -loss, 2 * loss, loss * 1.001, 0.0, math.nan, math.inf, -math.inf):
        assert not check(phase, wrong, found).agrees


def test_the_formulas_are_not_each_other() -> None:
    found = outputs([0.9, 0.8], [0.3, 0.2])
    losses = [recomputed("vanilla_gan", phase, found)[0] for phase in ("discriminator", "generator")]
    assert losses[0] == pytest.approx((math.log(0.9 * 0.7) + math.log(0.8 * 0.8)) / 2, rel=1e-6)
    assert losses[1] == pytest.approx((math.log(0.3) + math.log(0.2)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("phase", "real", "fake"),
    [
        ("discriminator", [0.0, 0.5], [0.5, 0.5]),
        ("discriminator", [0.5, 0.5], [1.0, 0.5]),
        ("discriminator", [0.0, 0.5], [1.0, 0.5]),
        ("generator", [0.5, 0.5], [0.0, 0.5]),
        ("generator", [0.5, 0.5], [math.nan, 0.5]),
    ],
)
@pytest.mark.parametrize("reported", [-5.0, -1e30, 0.0, -math.inf, math.inf, math.nan])
def test_with_saturated_outputs_no_report_agrees(phase: str, real: Any, fake: Any, reported: float) -> None:
    """log 0 is not finite: a bound that grew with it would let any finite loss pass."""
    assert not check(phase, reported, outputs(real, fake)).agrees


@pytest.mark.parametrize(("real", "fake"), [([1.0, 1.0], [0.0, 0.0]), ([1 - 2**-24, 1.0], [2**-24, 0.0])])
def test_outputs_saturated_on_the_right_side_are_no_trouble(real: Any, fake: Any) -> None:
    found = outputs(real, fake)
    loss = by_hand("discriminator", found)
    assert check("discriminator", loss, found).agrees
    assert not check("discriminator", loss - 1e-3, found).agrees


def test_next_to_saturation_the_bound_grows_and_stays_finite() -> None:
    found = outputs([0.5, 0.5], [1 - 2**-24, 1 - 2**-24])
    value, bound = recomputed("vanilla_gan", "discriminator", found)
    assert math.isfinite(value)
    assert math.isfinite(bound)
    assert not check("discriminator", value / 2, found).agrees
    assert not check("discriminator", -value, found).agrees


@pytest.mark.parametrize("name", ["discriminator/output/real", "discriminator/output/fake"])
def test_an_output_that_is_missing_is_named(name: str) -> None:
    found = outputs([0.5], [0.5])
    del found[name]
    with pytest.raises(KeyError, match=name):
        recomputed("vanilla_gan", "discriminator", found)


def test_another_model_has_no_formula() -> None:
    with pytest.raises(KeyError):
        recomputed("no_gan", "discriminator", outputs([0.5], [0.5]))


@pytest.mark.parametrize(
    ("reported", "recomputed_value", "bound"),
    [(math.nan, 1.0, 1.0), (1.0, math.nan, 1.0), (1.0, 1.0, math.nan), (math.inf, math.inf, 1.0), (1.0, 2.0, 0.5)],
)
def test_a_check_with_nan_or_beyond_its_bound_never_agrees(
    reported: float, recomputed_value: float, bound: float
) -> None:
    assert not LossCheck("modern", "generator", "loss_G", reported, recomputed_value, bound).agrees
