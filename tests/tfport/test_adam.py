"""adam: beta powers as TF1 multiplies them up, and the count of steps read back from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfport import adam
from tfport.errors import CheckpointError
from tfport.models.spec import float32

BETAS = [float32(0.5), float32(0.9), float32(0.999)]
Loop = list[Any]


def multiplied_up(beta: float, steps: int, dtype: str) -> Loop:
    """beta**1, beta**2, ... by one rounded product a step, denormals flushed as TensorFlow's threads do."""
    factor = np.dtype(dtype).type(beta)
    powers = [factor]
    for _ in range(steps):
        product = powers[-1] * factor
        powers.append(product if product >= np.finfo(dtype).tiny else np.dtype(dtype).type(0))
    return powers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", BETAS)
def test_beta_power_is_the_plain_loop(beta: float, dtype: str) -> None:
    steps = 100_000 if (beta, dtype) == (BETAS[2], "float32") else 3_000
    with np.errstate(under="ignore"):
        powers = multiplied_up(beta, steps, dtype)
    found = [adam.beta_power(beta, count, dtype) for count in range(steps)]
    assert np.array(found).tobytes() == np.array(powers[:steps]).tobytes()
    assert found[0].dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", BETAS)
def test_iterations_is_the_inverse(beta: float, dtype: str) -> None:
    for count in [*range(1_000), *range(1_000, 87_000, 997)]:
        power = adam.beta_power(beta, count, dtype)
        found = adam.iterations(beta, power)
        assert found == count or (found < count and power == 0)


@pytest.mark.parametrize(("beta", "count"), [(BETAS[0], 126), (BETAS[1], 828), (BETAS[2], 87_293)])
def test_after_underflow_the_first_count_is_given(beta: float, count: int) -> None:
    assert adam.beta_power(beta, count - 1, "float32") > 0
    for later in (count, count + 1, 10 * count, 2**31 - 1):
        power = adam.beta_power(beta, later, "float32")
        assert power == 0
        assert adam.iterations(beta, power) == count
    assert adam.iterations(beta, np.float32(1e-45)) == count, "a denormal, left by a machine that does not flush"


@pytest.mark.parametrize("power", [0.25, 0.9, 1.0, 1.1, -0.5, float("nan"), float("inf"), float(np.float32(0.998))])
def test_a_power_of_another_beta_is_refused(power: float) -> None:
    with pytest.raises(CheckpointError, match=r"not a power of beta 0\.999.*another beta, or it is damaged"):
        adam.iterations(BETAS[2], np.float32(power))


def test_one_bit_off_is_refused() -> None:
    power = adam.beta_power(BETAS[2], 1_000, "float32")
    with pytest.raises(CheckpointError):
        adam.iterations(BETAS[2], np.nextafter(power, np.float32(0)))


@pytest.mark.parametrize("paradigm", ["tf1_graph", "gradient_tape"])
def test_tensorflow_multiplies_up_the_same_powers_through_underflow(paradigm: str) -> None:
    """A real run's counter, over the edge where the power underflows: a run must not end there."""
    from tfport import models, paradigms
    from tfport.initial import initial_state
    from tfport.state import State, iterations_name

    spec = models.get("vanilla_gan")
    subject = paradigms.build(paradigm, spec)
    batch = {
        "images": np.zeros((2, spec.pixels), np.float32),
        "latent": np.zeros((2, spec.width("latent")), np.float32),
    }
    arrays = dict(initial_state(spec, 0, "float32").arrays)
    counters = [iterations_name(optimizer) for optimizer, _ in spec.optimizers]
    found = []
    for name in counters:
        arrays[name] = np.array(87_290, np.int64)
    subject.load(State(spec.name, arrays))
    for _ in range(6):
        subject.step(batch)
        held = subject.state().arrays
        found.append([int(held[name]) for name in counters])
    subject.close()
    assert found == [[87_291] * 2, [87_292] * 2, *[[87_293] * 2] * 4]
