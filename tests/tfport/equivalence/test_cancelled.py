"""Biases that a batch normalisation takes away: measured on their kernel's scale, and a wrong one still found."""

from __future__ import annotations

import numpy as np
import pytest

from tfport import models
from tfport.equivalence import cancelled
from tfport.equivalence.compare import Request, compare
from tfport.equivalence.distance import distance, first_mismatch
from tfport.equivalence.measurement import RungMeasurement
from tfport.equivalence.result import Verdict
from tfport.equivalence.verdicts import FLOOR
from tfport.initial import initial_state

SPEC = models.get("torch_gan")
BIAS, KERNEL = "generator/hidden/bias", "generator/hidden/kernel"


def test_which_biases_are_cancelled() -> None:
    assert SPEC.cancelled() == {
        BIAS: "generator/hidden_norm/moving_mean",
        "generator/output/bias": "generator/output_norm/moving_mean",
        "discriminator/output/bias": "discriminator/output_norm/moving_mean",
    }


@pytest.mark.parametrize("model", ["vanilla_gan", "batchnorm_gan", "leaky_gan"])
def test_none_is_where_no_normalisation_comes_right_behind(model: str) -> None:
    """batchnorm_gan's come behind a rectifier, which does not let them be taken away."""
    assert models.get(model).cancelled() == {}
    assert cancelled.of_state(models.get(model), initial_state(models.get(model), 0, "float64").arrays, 1) == {}


def test_a_gradient_of_rounding_alone_passes_and_a_wrong_one_does_not() -> None:
    kernel = np.full((50, 200), 1e-2)
    noise = np.full(200, 1e-17)
    for wrong, passes in ((-noise, True), (noise + 1e-9, False)):
        scales = cancelled.of_gradients(SPEC, {KERNEL: kernel, BIAS: noise})
        assert scales == {BIAS: pytest.approx(0.5)}
        rung = RungMeasurement("gradient")
        rung.add_all({KERNEL: kernel, BIAS: noise}, {KERNEL: kernel, BIAS: wrong}, 0, None, {}, "", None, scales)
        assert (rung.relative[BIAS] <= FLOOR) is passes
    assert distance(noise, -noise).relative == 2.0


def test_the_scale_of_a_state_grows_with_the_steps_gone_alone() -> None:
    arrays = dict(initial_state(SPEC, 0, "float64").arrays)
    m = f"optimizer/generator/m/{KERNEL}"
    arrays[m] = np.full(arrays[m].shape, 1e-3)
    one, ten = (cancelled.of_state(SPEC, arrays, steps) for steps in (1, 10))
    assert one[BIAS] == one["generator/hidden_norm/moving_mean"] == pytest.approx(1e-3 * 50 * 2e-4 / 1e-8, rel=1e-6)
    assert ten[BIAS] == pytest.approx(10 * one[BIAS])
    assert one[f"optimizer/generator/m/{BIAS}"] == ten[f"optimizer/generator/m/{BIAS}"] == pytest.approx(0.05)
    # One true step of Adam is far beyond what is taken for rounding.
    assert SPEC.optimizer("generator").learning_rate > 1e3 * FLOOR * ten[BIAS]


def test_a_least_scale_never_makes_a_difference_larger() -> None:
    left, right = np.array([1.0, -4.0]), np.array([1.0, -3.0])
    assert distance(left, right, 2.0) == distance(left, right)
    assert distance(left, right, 8.0).relative == 0.125
    assert first_mismatch(left, right, 0.2) is not None
    assert first_mismatch(left, right, 0.2, 8.0) is None


def test_the_warm_state_moves_cancelled_biases_and_nothing_else() -> None:
    before = initial_state(SPEC, 0, "float64")
    after = cancelled.disturbed(SPEC, before)
    changed = {name for name, array in after.arrays.items() if not np.array_equal(array, before.arrays[name])}
    assert changed == set(SPEC.cancelled())
    assert 0.05 < float(np.std(after.arrays[BIAS] - before.arrays[BIAS])) < 0.2
    again, single = cancelled.disturbed(SPEC, before), cancelled.disturbed(SPEC, before.astype("float32"))
    assert np.array_equal(again.arrays[BIAS], after.arrays[BIAS])
    assert single.arrays[BIAS].dtype == np.float32


def test_a_moving_mean_without_its_bias_is_found() -> None:
    sides = ("tf1_graph", "gradient_tape", "broken_torch_ports:mean_without_bias")
    right, wrong = compare(Request("torch_gan", sides, steps=2, batch_size=32))[0].pairs
    assert right.verdict is Verdict.IDENTICAL
    assert (wrong.verdict, wrong.located) == (Verdict.DIFFERENT, "update")
    divergence = wrong.rung("update").first_divergence
    assert divergence is not None and divergence.tensor.endswith("norm/moving_mean")
