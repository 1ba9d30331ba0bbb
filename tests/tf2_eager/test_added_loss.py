"""vae's divergence is part of what the Kerases report and of what they follow, however it was added."""

from __future__ import annotations

import numpy as np
import pytest

import subjects
from tfport import models

SPEC = models.get("vae")
PARADIGMS = ("keras2", "keras3")


def divergences(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL of each example, [B]."""
    found: np.ndarray = -0.5 * np.sum(1 + log_variance - np.exp(log_variance) - mean**2, axis=-1)
    return found


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_train_on_batch_reports_the_added_loss(paradigm: str) -> None:
    side, batch = subjects.subject("vae", paradigm), subjects.batches("vae")[3]
    side.load(subjects.warm("vae"))
    found = {name: array.astype(np.float64) for name, array in side.forward(batch, training=True).items()}
    image, target = found["decoder/output"], batch["images"].astype(np.float64)
    entropy = -np.mean(target * np.log(image) + (1 - target) * np.log(1 - image))
    added = np.mean(divergences(found["encoder/mean"], found["encoder/log_variance"])) / SPEC.pixels
    reported = side.run_phase("vae", batch)["loss"]
    assert added > 1e-5
    assert abs(reported - entropy - added) < added / 10


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_gradients_follow_the_added_loss(paradigm: str) -> None:
    """Without noise the log variance does not reach the image: its gradient is the divergence's alone."""
    side, batch = subjects.subject("vae", paradigm), dict(subjects.batches("vae")[3])
    side.load(subjects.warm("vae"))
    batch["epsilon"] = np.zeros_like(batch["epsilon"])
    log_variance = side.forward(batch, training=True)["encoder/log_variance"].astype(np.float64)
    expected = np.mean(-0.5 * (1 - np.exp(log_variance)), axis=0) / SPEC.pixels
    for _ in range(2):  # a loss that is added by a call must not add up over calls
        found = side.gradients("vae", batch)["encoder/log_variance/bias"]
        assert np.abs(expected).min() > 1e-6
        np.testing.assert_allclose(found, expected, rtol=1e-3)
