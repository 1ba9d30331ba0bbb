"""Reports recomputed: against formulas written another way and numbers by hand, and against reports that are not so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tfport.equivalence.losses import RECOMPUTE, recomputed
from tfport.equivalence.result import LossCheck
from tfport.models import MODELS, get

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]
SPEC = get("vanilla_gan")
BATCH: Outputs = {"images": np.zeros((2, 9), np.float32), "latent": np.zeros((2, 4), np.float32)}


def outputs(real: Any, fake: Any, dtype: str = "float32") -> Outputs:
    return {
        "generator/output": np.zeros((len(real), 9), dtype),
        "discriminator/output/real": np.array(real, dtype).reshape(-1, 1),
        "discriminator/output/fake": np.array(fake, dtype).reshape(-1, 1),
    }


def of(report: str, found: Outputs) -> tuple[float, float]:
    """vanilla_gan's report and its bound; the other mode holds what it must not be made of."""
    other = {name: np.full_like(array, 0.5) for name, array in found.items()}
    return recomputed(SPEC, report, {"training": found, "inference": other}, BATCH)


def by_hand(report: str, found: Outputs) -> float:
    """The loss by a loop over the batch in Python's own floats."""
    real, fake = (found[f"discriminator/output/{kind}"].ravel().tolist() for kind in ("real", "fake"))
    if report == "loss_G":
        return math.fsum(math.log(each) for each in fake) / len(fake)
    return math.fsum(math.log(a) + math.log1p(-b) for a, b in zip(real, fake, strict=True)) / len(real)


def check(report: str, reported: float, found: Outputs) -> LossCheck:
    return LossCheck("modern", "phase", report, reported, *of(report, found))


def test_every_report_of_every_model_has_a_formula_and_none_is_left_over() -> None:
    assert {model: set(formulas) for model, formulas in RECOMPUTE.items()} == {
        model: set(get(model).reports) for model in MODELS
    }


@pytest.mark.parametrize("report", ["loss_D", "loss_G"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_formula_and_other_reports_are_not(report: str, dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    found = outputs(random.uniform(0.02, 0.98, 100), random.uniform(0.02, 0.98, 100), dtype)
    value, bound = of(report, found)
    loss = by_hand(report, found)
    assert value == pytest.approx(loss, rel=1e-13)
    assert 0 < bound < 1e-3 * abs(loss)
    assert check(report, loss, found).agrees
    assert check(report, float(np.array(loss, dtype)), found).agrees
    for wrong in (loss / 2, -loss, 2 * loss, loss * 1.001, 0.0, math.nan, math.inf, -math.inf):
        assert not check(report, wrong, found).agrees


# --- Every model's reports, worked out by hand ------------------------------------------------------------------------
def column(*values: float) -> Array:
    return np.array(values, np.float64).reshape(-1, 1)


PROBABILITIES: dict[str, Outputs] = {
    "training": {
        "discriminator/output/real": column(0.9, 0.4, 0.6, 0.7),
        "discriminator/output/fake": column(0.3, 0.2, 0.1, 0.4),
        "discriminator/output/fresh": column(0.55, 0.15, 0.35, 0.65),
    },
    "inference": {
        "discriminator/output/real": column(0.8, 0.45, 0.3, 0.2),
        "discriminator/output/fake": column(0.25, 0.52, 0.85, 0.05),
        "discriminator/output/fresh": column(0.12, 0.88, 0.22, 0.33),
    },
}
"""Every output of every mode has numbers of its own, so that a formula that takes another one shows."""


def mean_log(*values: float) -> float:
    return sum(math.log(value) for value in values) / len(values)


REAL = mean_log(0.9, 0.4, 0.6, 0.7)
NOT_FAKE = mean_log(0.7, 0.8, 0.9, 0.6)
HALVES = {
    "loss_D_real": -REAL,
    "accuracy_D_real": 3 / 4,
    "loss_D_fake": -mean_log(0.75, 0.48, 0.15, 0.95),  # of fakes that the generator made in inference mode
    "accuracy_D_fake": 2 / 4,
}
G_FAKE, G_FRESH = mean_log(0.3, 0.2, 0.1, 0.4), mean_log(0.55, 0.15, 0.35, 0.65)
ON_PROBABILITIES: dict[str, dict[str, float]] = {
    "vanilla_gan": {"loss_D": REAL + NOT_FAKE, "loss_G": G_FAKE},
    "batchnorm_gan": {**HALVES, "loss_G": -G_FAKE},
    "leaky_gan": {**HALVES, "loss_G": -G_FAKE},
    "leaky_gan_shallow": {**HALVES, "loss_G": -G_FAKE},
    "leaky_gan_slope02": {**HALVES, "loss_G": -G_FRESH},
    "dcgan": {**HALVES, "loss_G": -G_FRESH},
}
NORMED: dict[str, Outputs] = {
    mode: {
        **{name.replace("output", "output_norm"): array for name, array in each.items()},
        **{name: 3 * array - 1 for name, array in each.items()},
    }
    for mode, each in PROBABILITIES.items()
}
"""The same probabilities after the batch normalisation that ends PyTorch's discriminator, and other logits before."""
ON_NORMED: dict[str, dict[str, float]] = {
    "torch_gan": {"loss_D": -REAL - NOT_FAKE, "loss_G": -G_FRESH},
    "torch_gan_l2": {
        "loss_D": (0.1**2 + 0.6**2 + 0.4**2 + 0.3**2) / 4 + (0.3**2 + 0.2**2 + 0.1**2 + 0.4**2) / 4,
        "loss_G": (0.45**2 + 0.85**2 + 0.65**2 + 0.35**2) / 4,
    },
}


def softplus(value: float) -> float:
    return math.log(1 + math.exp(value))


LOGITS: dict[str, Outputs] = {
    "training": {
        "discriminator/output/real": column(1.5, -0.5),
        "discriminator/output/fake": column(-1.0, 2.0),
        "recognition/category": np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]]),
        "recognition/codes": np.array([[0.1, -0.4], [0.7, 0.2]]),
    },
    "inference": {
        "discriminator/output/real": column(0.25, 0.75),
        "discriminator/output/fake": column(-3.0, 1.0),
        "recognition/category": np.array([[1.0, 2.0, 4.0], [-2.0, 0.0, 1.0]]),
        "recognition/codes": np.array([[0.9, 0.9], [-0.9, 0.3]]),
    },
}
DRAWN: Outputs = {
    "images": np.zeros((2, 9)),
    "category": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    "codes": np.array([[0.5, -1.0], [-0.25, 0.0]]),
}
JOINED = {
    "loss_D": (softplus(-1.5) + softplus(0.5)) / 2 + (softplus(-1.0) + softplus(2.0)) / 2,
    "loss_G": (softplus(1.0) + softplus(-2.0)) / 2,
}
CATEGORY = (
    -(0.0 - math.log(math.exp(2) + math.exp(0) + math.exp(-1)))
    - (3.0 - math.log(math.exp(0.5) + math.exp(0.5) + math.exp(3)))
) / 2
CODES = ((0.4**2 + 0.6**2) / 2 + (0.95**2 + 0.2**2) / 2) / 2
ON_LOGITS: dict[str, dict[str, float]] = {
    "conditional_gan": JOINED,
    "infogan": {**JOINED, "loss_I": CATEGORY + 0.1 * CODES},
}

IMAGES: Outputs = {"images": np.array([[0.0, 1.0, 0.25, 0.5], [1.0, 0.0, 0.75, 0.0]])}
CODED: dict[str, Outputs] = {
    "training": {
        "encoder/mean": np.array([[0.5, -1.0], [0.0, 2.0]]),
        "encoder/log_variance": np.array([[0.0, -0.5], [0.25, 1.0]]),
        "decoder/output": np.array([[0.1, 0.8, 0.3, 0.5], [0.6, 0.2, 0.9, 0.4]]),
    },
    "inference": {
        "encoder/mean": np.array([[0.25, 0.75], [1.0, 1.5]]),
        "encoder/log_variance": np.array([[0.5, 0.5], [-0.25, 0.75]]),
        "decoder/output": np.array([[0.2, 0.7, 0.4, 0.6], [0.5, 0.3, 0.8, 0.1]]),
    },
}
SQUARES = (0.1**2 + 0.2**2 + 0.05**2 + 0.0 + 0.4**2 + 0.2**2 + 0.15**2 + 0.4**2) / 8
ENTROPY = (
    -(math.log(0.9) + math.log(0.8) + 0.25 * math.log(0.3) + 0.75 * math.log(0.7) + math.log(0.5))
    - (math.log(0.6) + math.log(0.8) + 0.75 * math.log(0.9) + 0.25 * math.log(0.1) + math.log(0.6))
) / 8
DIVERGENCE = (
    -0.5 * ((1 + 0.0 - 1 - 0.25) + (1 - 0.5 - math.exp(-0.5) - 1))
    - 0.5 * ((1 + 0.25 - math.exp(0.25) - 0.0) + (1 + 1.0 - math.e - 4))
) / 2
ON_IMAGES: dict[str, dict[str, float]] = {
    "autoencoder": {"loss": SQUARES},
    "vae": {"loss": ENTROPY + DIVERGENCE / 4},
}


def cases() -> Iterable[tuple[str, str, float, dict[str, Outputs], Outputs]]:
    for table, modes, batch in (
        (ON_PROBABILITIES, PROBABILITIES, DRAWN),
        (ON_NORMED, NORMED, DRAWN),
        (ON_LOGITS, LOGITS, DRAWN),
        (ON_IMAGES, CODED, IMAGES),
    ):
        for model, reports in table.items():
            for report, value in reports.items():
                yield model, report, value, modes, batch


CASES = [pytest.param(*case, id=" ".join(case[:2])) for case in cases()]


def test_every_report_has_a_number_by_hand() -> None:
    assert {case[:2] for case in cases()} == {(model, report) for model in MODELS for report in get(model).reports}


@pytest.mark.parametrize(("model", "report", "value", "modes", "batch"), CASES)
def test_a_report_is_the_number_by_hand(
    model: str, report: str, value: float, modes: dict[str, Outputs], batch: Outputs
) -> None:
    found, bound = recomputed(get(model), report, modes, batch)
    assert found == pytest.approx(value, rel=1e-13)
    assert 0 < bound < 1e-11
    narrow = {mode: {name: array.astype(np.float32) for name, array in each.items()} for mode, each in modes.items()}
    found, bound = recomputed(get(model), report, narrow, batch)
    assert found == pytest.approx(value, rel=1e-6)
    assert abs(found - value) < bound < 1e-3 * max(1.0, abs(value))


@pytest.mark.parametrize(("model", "report", "value", "modes", "batch"), CASES)
def test_a_wrong_number_is_no_report(
    model: str, report: str, value: float, modes: dict[str, Outputs], batch: Outputs
) -> None:
    about = recomputed(get(model), report, modes, batch)
    assert LossCheck("modern", "phase", report, value, *about).agrees
    for wrong in (value / 2, -value, 2 * value, value * 1.001, value + 1e-9, 0.0, math.nan, math.inf, -math.inf):
        assert not LossCheck("modern", "phase", report, wrong, *about).agrees


@pytest.mark.parametrize(("model", "report", "value", "modes", "batch"), CASES)
def test_an_output_or_input_that_a_formula_needs_is_named_when_it_is_missing(
    model: str, report: str, value: float, modes: dict[str, Outputs], batch: Outputs
) -> None:
    """Taken out one by one: either the number stays as it is, or the name is told."""
    needed = 0
    for mode, outputs_of in modes.items():
        for name in outputs_of:
            less = {**modes, mode: {other: array for other, array in outputs_of.items() if other != name}}
            try:
                assert recomputed(get(model), report, less, batch)[0] == pytest.approx(value, rel=1e-13)
            except KeyError as error:
                assert error.args == (name,)
                needed += 1
    assert needed == {"loss_I": 2, "loss_D": 2}.get(report, 3 if model == "vae" else 1)


# --- At the edges -----------------------------------------------------------------------------------------------------
def test_the_formulas_are_not_each_other() -> None:
    found = outputs([0.9, 0.8], [0.3, 0.2])
    losses = [of(report, found)[0] for report in ("loss_D", "loss_G")]
    assert losses[0] == pytest.approx((math.log(0.9 * 0.7) + math.log(0.8 * 0.8)) / 2, rel=1e-6)
    assert losses[1] == pytest.approx((math.log(0.3) + math.log(0.2)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("report", "real", "fake"),
    [
        ("loss_D", [0.0, 0.5], [0.5, 0.5]),
        ("loss_D", [0.5, 0.5], [1.0, 0.5]),
        ("loss_D", [0.0, 0.5], [1.0, 0.5]),
        ("loss_G", [0.5, 0.5], [0.0, 0.5]),
        ("loss_G", [0.5, 0.5], [math.nan, 0.5]),
    ],
)
@pytest.mark.parametrize("reported", [-5.0, -1e30, 0.0, -math.inf, math.inf, math.nan])
def test_with_saturated_outputs_no_report_agrees(report: str, real: Any, fake: Any, reported: float) -> None:
    """log 0 is not finite: a bound that grew with it would let any finite loss pass."""
    assert not check(report, reported, outputs(real, fake)).agrees


@pytest.mark.parametrize(("real", "fake"), [([1.0, 1.0], [0.0, 0.0]), ([1 - 2**-24, 1.0], [2**-24, 0.0])])
def test_outputs_saturated_on_the_right_side_are_no_trouble(real: Any, fake: Any) -> None:
    found = outputs(real, fake)
    loss = by_hand("loss_D", found)
    assert check("loss_D", loss, found).agrees
    assert not check("loss_D", loss - 1e-3, found).agrees


def test_next_to_saturation_the_bound_grows_and_stays_finite() -> None:
    found = outputs([0.5, 0.5], [1 - 2**-24, 1 - 2**-24])
    value, bound = of("loss_D", found)
    assert math.isfinite(value)
    assert math.isfinite(bound)
    assert not check("loss_D", value / 2, found).agrees
    assert not check("loss_D", -value, found).agrees


def test_torchs_logarithm_ends_at_minus_100() -> None:
    saturated = {
        mode: {name: np.ones_like(array) * (name.endswith("fake")) for name, array in each.items()}
        for mode, each in NORMED.items()
    }
    torch = get("torch_gan")
    for report, expected, far in (("loss_D", 200.0, 100.0), ("loss_G", 100.0, 0.1)):
        about = recomputed(torch, report, saturated, DRAWN)
        assert about[0] == expected
        assert LossCheck("modern", "phase", report, expected, *about).agrees
        for wrong in (expected - far, expected + far, math.inf, math.nan):
            assert not LossCheck("modern", "phase", report, wrong, *about).agrees


@pytest.mark.parametrize(
    ("real", "fake", "loss_d", "loss_g"),
    [(1_000.0, -1_000.0, 0.0, 1_000.0), (-1_000.0, 1_000.0, 2_000.0, 0.0), (-1_000.0, -1_000.0, 1_000.0, 1_000.0)],
)
def test_logits_never_saturate(real: float, fake: float, loss_d: float, loss_g: float) -> None:
    found = {"discriminator/output/real": column(real, real), "discriminator/output/fake": column(fake, fake)}
    modes = {"training": found, "inference": {}}
    for report, expected in (("loss_D", loss_d), ("loss_G", loss_g)):
        assert recomputed(get("conditional_gan"), report, modes, DRAWN)[0] == pytest.approx(expected, abs=1e-12)


def test_pixels_saturated_on_the_right_side_are_no_trouble() -> None:
    """A sigmoid rounds to 0 or 1 where the image is just that: 0 log 0 is 0, and on the other side it is infinite."""
    images = {"images": np.array([[0.0, 1.0, 0.5]])}
    still = {"encoder/mean": np.zeros((1, 2)), "encoder/log_variance": np.zeros((1, 2))}
    for pixels, expected in (([0.0, 1.0, 0.5], math.log(2) / 3), ([0.0, 0.0, 0.5], math.inf)):
        modes = {"training": {**still, "decoder/output": np.array([pixels])}, "inference": {}}
        value, bound = recomputed(get("vae"), "loss", modes, images)
        assert value == pytest.approx(expected, rel=1e-12)
        assert LossCheck("modern", "vae", "loss", expected, value, bound).agrees is math.isfinite(expected)


def test_an_accuracy_at_one_half_may_fall_either_way() -> None:
    """Rounding decides on which side 0.5 falls, so either count is a right report, and a third is not."""
    modes = {"training": {"discriminator/output/real": column(0.5, 0.9, 0.1, 0.9)}, "inference": {}}
    about = recomputed(get("leaky_gan"), "accuracy_D_real", modes, DRAWN)
    for reported, agrees in ((0.5, True), (0.75, True), (0.25, True), (1.0, False), (0.0, False)):
        assert LossCheck("modern", "phase", "accuracy_D_real", reported, *about).agrees is agrees


@pytest.mark.parametrize("name", ["discriminator/output/real", "discriminator/output/fake"])
def test_an_output_that_is_missing_is_named(name: str) -> None:
    found = outputs([0.5], [0.5])
    del found[name]
    with pytest.raises(KeyError, match=name):
        of("loss_D", found)


def test_another_model_and_another_report_have_no_formula() -> None:
    modes = {"training": outputs([0.5], [0.5]), "inference": outputs([0.5], [0.5])}
    with pytest.raises(KeyError, match="no_gan"):
        recomputed(dataclasses.replace(SPEC, name="no_gan"), "loss_D", modes, BATCH)
    with pytest.raises(KeyError, match="loss_I"):
        recomputed(SPEC, "loss_I", modes, BATCH)


@pytest.mark.parametrize(
    ("reported", "recomputed_value", "bound"),
    [(math.nan, 1.0, 1.0), (1.0, math.nan, 1.0), (1.0, 1.0, math.nan), (math.inf, math.inf, 1.0), (1.0, 2.0, 0.5)],
)
def test_a_check_with_nan_or_beyond_its_bound_never_agrees(
    reported: float, recomputed_value: float, bound: float
) -> None:
    assert not LossCheck("modern", "generator", "loss_G", reported, recomputed_value, bound).agrees
