"""Known difference 1: where D is certain, raw logs are infinite and Keras's loss is not."""

from __future__ import annotations

import math

import pytest

import subjects
from tfport.paradigms import PARADIGMS
from tfport.state import State


@pytest.mark.parametrize("paradigm", PARADIGMS)
@pytest.mark.parametrize(("logit", "saturated"), [(10.0, False), (40.0, True)])
def test_the_loss_of_a_certain_discriminator(paradigm: str, logit: float, saturated: bool) -> None:
    arrays = dict(subjects.initial().arrays)
    for name in ("discriminator/output/kernel", "discriminator/output/bias"):
        arrays[name] = arrays[name] * 0
    arrays["discriminator/output/bias"] = arrays["discriminator/output/bias"] + logit
    side = subjects.subject("vanilla_gan", paradigm)
    side.load(State(subjects.SPEC.name, arrays))
    (loss,) = side.run_phase("discriminator", subjects.batches()[0]).values()
    if saturated and not paradigm.startswith("keras"):
        assert loss == -math.inf
    else:
        assert loss == pytest.approx(-logit, rel=1e-3)
