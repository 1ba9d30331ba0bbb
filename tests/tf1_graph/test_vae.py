"""vae in TF1: RMSProp's mean square starts at zero, and a global step counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import subjects
from tf1_graph import vae
from tfport import models
from tfport.state import iterations_name

SPEC = models.get("vae")
BATCH = subjects.batches("vae")[0]


def test_the_mean_square_starts_at_zero() -> None:
    """TF1 leaves it at one of itself."""
    side = vae.build(SPEC, "float32", seed=0)
    squares = {name: array for name, array in side.state().arrays.items() if "/rms/" in name}
    assert len(squares) == len(side.variables()) == 10
    assert not any(array.any() for array in squares.values())
    left_to_tf1 = Untouched(SPEC, "float32", seed=0).state().arrays
    assert all((left_to_tf1[name] == 1).all() for name in squares)
    side.close()


class Untouched(vae.Vae):
    """The slots as TF1 makes them."""

    def build_graph(self) -> None:
        super().build_graph()
        self.start_ops = ()


@pytest.mark.parametrize(("kind", "start"), [(vae.Vae, 0.0), (Untouched, 1.0)])
def test_the_first_step_follows_from_where_the_mean_square_starts(kind: type[vae.Vae], start: float) -> None:
    side = kind(SPEC, "float32", seed=0)
    before, slope = (array["decoder/output/bias"] for array in (side.state().arrays, side.gradients("vae", BATCH)))
    side.step(BATCH)
    numbers: Any = SPEC.optimizer("vae")
    square = numbers.rho * start + (1 - numbers.rho) * slope.astype(np.float64) ** 2
    expected = before - numbers.learning_rate * slope / np.sqrt(square + numbers.epsilon)
    np.testing.assert_allclose(side.state().arrays["decoder/output/bias"], expected, rtol=1e-5, atol=1e-10)
    side.close()


def test_the_global_step_counts() -> None:
    side = vae.build(SPEC, "float32", seed=0)
    for _ in range(3):
        side.step(BATCH)
    assert side.state().arrays[iterations_name("vae")] == 3
    assert side.global_variables()["global_step"] == ()
    side.close()


def test_codes_are_decoded_without_images() -> None:
    side = subjects.subject("vae", "tf1_graph")
    images = side.generate({"code": np.zeros((3, 2), np.float32)})
    assert images.shape == (3, SPEC.pixels)
