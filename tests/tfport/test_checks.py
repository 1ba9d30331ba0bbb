"""Batches of one image: refused where a variance needs two, and nowhere else."""

from __future__ import annotations

import dataclasses

import pytest

from tfport import data, models
from tfport.checks import check_batches
from tfport.data.batches import Batches
from tfport.errors import UserError


def batches(model: str, size: int) -> Batches:
    spec = models.get(model)
    return Batches(
        dataclasses.replace(spec, batching=dataclasses.replace(spec.batching, batch_size=size)), data.load("digits"), 0
    )


@pytest.mark.parametrize(("size", "which"), [(1, "every batch"), (1_499, "an epoch's last batch")])
def test_a_single_image_is_refused(size: int, which: str) -> None:
    with pytest.raises(UserError, match=rf"--batch_size={size} makes {which} of the 1,500 images hold a single one"):
        check_batches(batches("torch_gan", size))


@pytest.mark.parametrize(("model", "size"), [("torch_gan", 512), ("torch_gan", 1_500), ("batchnorm_gan", 1_499)])
def test_others_are_taken(model: str, size: int) -> None:
    made = batches(model, size)
    assert check_batches(made) is made
