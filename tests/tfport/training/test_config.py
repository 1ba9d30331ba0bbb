"""What a run is asked is checked before anything is built, and the message names the flag."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from tfport import models
from tfport.errors import UserError
from tfport.models.spec import Adam
from tfport.training.config import RunConfig, defaults

MAX = 2**31 - 1

BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": "vanila_gan"}, "unknown model 'vanila_gan'. Did you mean vanilla_gan?"),
    ({"paradigm": "keras"}, "unknown paradigm 'keras'. Did you mean keras[23] or keras[23]?"),
    ({"dataset": "fashion-mnist"}, "unknown dataset 'fashion-mnist'. Did you mean fashion_mnist"),
    ({"precision": "float16"}, "unknown precision 'float16'. Did you mean float"),
    *(({"steps": value}, f"--steps={value} is out of range") for value in (0, -1, MAX + 1)),
    *(({"batch_size": value}, f"--batch_size={value} is out of range") for value in (0, -1, 60_001)),
    *(({"seed": value}, f"--seed={value} is out of range") for value in (-1, MAX + 1)),
    *(({name: 0}, f"--{name}=0 is out of range") for name in ("log_every", "sample_every", "checkpoint_every")),
    *(
        ({"learning_rate": value}, "--learning_rate=.* is out of range: expected a number above 0")
        for value in (0.0, -1.0, math.nan, math.inf, -math.inf, 1e-46, 1e-60, 1001.0)
    ),
]


def config(**changes: Any) -> RunConfig:
    return defaults(**{"model": "vanilla_gan", "paradigm": "tf1_graph", **changes})


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda each: str(each) if isinstance(each, dict) else "")
def test_what_cannot_be_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        *({"steps": value} for value in (1, MAX)),
        *({"batch_size": value} for value in (1, 60_000)),
        *({"seed": value} for value in (0, MAX)),
        *({"learning_rate": value} for value in (1e-37, 1000.0)),
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_will_do(changes: dict[str, Any]) -> None:
    found = config(**changes)
    assert {name: getattr(found, name) for name in changes} == changes


def test_what_is_left_out_is_the_sources() -> None:
    spec, found = models.get("vanilla_gan"), config()
    assert (found.steps, found.batch_size, found.sample_every, found.log_every) == (55_000, 100, 5_500, 550)
    assert found.spec() == spec
    assert found.run_dir == "runs/vanilla_gan-tf1_graph-digits-seed0"


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (9, 1), (2_000, 200), (54_990, 5_499), (1_000_000, 5_500)])
def test_a_short_run_has_about_ten_pictures(steps: int, every: int) -> None:
    assert config(steps=steps).sample_every == every


@pytest.mark.parametrize(
    ("steps", "every"), [(1, 1), (199, 1), (2_000, 20), (54_999, 549), (55_000, 550), (1_000_000, 550)]
)
def test_a_short_run_has_about_a_hundred_lines(steps: int, every: int) -> None:
    assert config(steps=steps).log_every == every


@pytest.mark.parametrize("model", models.MODELS)
def test_every_models_own_run_has_the_sources_cadence(model: str) -> None:
    spec, found = models.get(model), config(model=model)
    assert (found.steps, found.batch_size, found.spec()) == (spec.steps, spec.batching.batch_size, spec)
    assert (found.log_every, found.sample_every) == (spec.log_every, spec.samples.every)
    assert found.spec() == spec


def test_the_spec_has_the_runs_batch_size_and_rate() -> None:
    spec = config(batch_size=7, learning_rate=0.5).spec()
    assert spec.batching.batch_size == 7
    assert {adam.learning_rate for _, adam in spec.optimizers} == {0.5}
    assert {adam.beta_1 for _, adam in spec.optimizers if isinstance(adam, Adam)} == {float.fromhex("0x1.ccccccp-1")}


def test_a_rate_is_every_optimizers_and_changes_nothing_else_of_it() -> None:
    for model in ("vae", "infogan", "torch_gan"):
        before, after = models.get(model).optimizers, config(model=model, learning_rate=0.25).spec().optimizers
        assert [name for name, _ in after] == [name for name, _ in before]
        for (_, old), (_, new) in zip(before, after, strict=True):
            assert new == dataclasses.replace(old, learning_rate=0.25) != old
