"""What the names of a TF1 checkpoint tell, and where they tell nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfport import adam
from tfport.checkpoints import tf1_names
from tfport.checkpoints.contents import Array, Bytes, Contents, Source, Stored, pieces
from tfport.checkpoints.tf1_names import Betas, betas_of


class Held(Source):
    """A checkpoint in memory."""

    format = "tf1-v2"

    def __init__(self, path: Path, arrays: Mapping[str, Array]) -> None:
        self.path = path
        self.arrays = arrays
        self.tensors = {key: Stored(key, each.shape, each.dtype.name) for key, each in arrays.items()}
        self.written_by = {}

    def chunks(self, key: str) -> Iterator[Bytes]:
        return pieces(self.arrays[key])

    def contents(self) -> Contents:
        return tf1_names.contents(self)


MATRIX = np.zeros((2, 3), np.float32)


def power(beta: float, count: int) -> Array:
    return np.asarray(adam.beta_power(beta, count, "float32"))


def read(tmp_path: Path, *matrices: str, **others: Any) -> Contents:
    return Held(tmp_path / "model", {**dict.fromkeys(matrices, MATRIX), **others}).contents()


def rows(contents: Contents) -> dict[str, tuple[str, str]]:
    """Key -> role and canonical name."""
    return {each.key: (each.role.value, each.name) for each in contents.entries}


def test_without_a_graph_the_names_are_all_there_is(tmp_path: Path) -> None:
    contents = read(tmp_path, "w", "w/Momentum")
    assert contents.notes[0] == "there is no model.meta: what each tensor is was told by its name alone"
    assert rows(contents)["w/Momentum"] == ("slot", "optimizer/Momentum/accumulator/w")
    assert contents.optimizers[0].algorithm is None
    assert any("Momentum or Nesterov" in note for note in contents.notes)


def test_a_graph_that_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "model.meta").write_bytes(b"\xff\xff")
    contents = read(tmp_path, "w", "w/Adagrad")
    assert "model.meta is damaged" in contents.notes[0]
    assert contents.optimizers[0].algorithm == "Adagrad"


def test_betas_and_the_count_follow_from_the_powers(tmp_path: Path) -> None:
    powers = {"beta1_power": power(0.9, 20), "beta2_power": power(0.999, 20)}
    contents = read(tmp_path, "w", "w/Adam", "w/Adam_1", **powers)
    assert dict(contents.optimizers[0].hyperparameters) == {"beta_1": 0.9, "beta_2": 0.999}
    assert any("20 updates, inferred" in note for note in contents.notes)
    assert rows(contents)["beta2_power"] == ("beta power", "optimizer/Adam/beta_2_power")


@pytest.mark.parametrize("count", [0, 1, 100, 5_000])
@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.9, 0.999), (0.5, 0.999), (0.0, 0.9), (0.9, 0.98)])
def test_betas_of(beta_1: float, beta_2: float, count: int) -> None:
    found = betas_of(power(beta_1, count), power(beta_2, count))
    beta_2_is_gone = float(power(beta_2, count)) == 0
    if beta_2_is_gone:
        assert found is None
        return
    assert found is not None
    assert (found.beta_2, found.count) == (beta_2, count)
    assert found.beta_1 in (beta_1, None)
    if float(power(beta_1, count)) != 0:
        assert found.beta_1 == beta_1


def test_an_underflowed_power_leaves_the_other_to_tell() -> None:
    assert betas_of(power(0.5, 300), power(0.999, 300)) == Betas(None, 0.999, 300)
    assert betas_of(power(0.9, 300), power(0.999, 301)) is None
    assert betas_of(power(0.77, 3), power(0.999, 3)) is None
    assert betas_of(np.array([0.9], np.float32), power(0.999, 3)) is None
    assert betas_of(np.array(np.nan, np.float32), power(0.999, 3)) is None


def test_two_optimizers_of_the_users_names(tmp_path: Path) -> None:
    keys = ("g/w", "g/w/adam_g", "g/w/adam_g_1", "d/w", "d/w/adam_d", "d/w/adam_d_1")
    one = {"beta1_power": power(0.5, 3), "beta2_power": power(0.999, 3)}
    two = {"beta1_power_1": power(0.5, 4), "beta2_power_1": power(0.999, 4)}
    contents = read(tmp_path, *keys, **one, **two)
    assert {each.name: each.algorithm for each in contents.optimizers} == {"adam_g": "Adam", "adam_d": "Adam"}
    assert rows(contents)["d/w/adam_d_1"] == ("slot", "optimizer/adam_d/v/d/w")
    # Which powers are whose is not to be known.
    assert rows(contents)["beta1_power_1"] == ("beta power", "beta1_power_1")
    assert any("cannot be told by names" in note for note in contents.notes)
    # Without as many powers as optimizers they are of no known algorithm.
    contents = read(tmp_path, *keys, **one)
    assert {each.algorithm for each in contents.optimizers} == {None}
    assert rows(contents)["d/w/adam_d_1"] == ("slot", "optimizer/adam_d/slot_1/d/w")


def test_scopes_tell_whose_powers_they_are(tmp_path: Path) -> None:
    keys = [f"{scope}/{scope}/w/Adam{number}" for scope in "GD" for number in ("", "_1")]
    powers = {f"{scope}/beta{which}_power": power(0.9, 1) for scope in "GD" for which in (1, 2)}
    contents = read(tmp_path, "G/w", "D/w", *keys, **powers)
    assert rows(contents)["D/beta1_power"] == ("beta power", "optimizer/D_Adam/beta_1_power")
    assert rows(contents)["G/G/w/Adam_1"] == ("slot", "optimizer/G_Adam/v/G/w")


def test_two_adams_that_share_nothing_are_one_name(tmp_path: Path) -> None:
    keys = ("g/w", "g/w/Adam", "g/w/Adam_1", "d/w", "d/w/Adam", "d/w/Adam_1")
    names = ("beta1_power", "beta2_power", "beta1_power_1", "beta2_power_1")
    contents = read(tmp_path, *keys, **{name: power(0.5, 1) for name in names})
    assert [each.name for each in contents.optimizers] == ["Adam"]
    assert any("there are more optimizers than names" in note for note in contents.notes)
    assert rows(contents)["beta1_power"] == ("beta power", "beta1_power")


def test_what_only_looks_like_a_slot_is_a_weight(tmp_path: Path) -> None:
    other = {"w/Adam": np.zeros((4,), np.float32)}
    contents = read(tmp_path, "w", "w/kernel", "v/Momentum", "u", "u/x", "u/x_1", "u/x_2", "u/x_3", **other)
    assert {role for role, _ in rows(contents).values()} == {"weight"}
    assert contents.optimizers == ()


def test_an_rmsprop_by_its_number_of_slots(tmp_path: Path) -> None:
    keys = ["w", *(f"w/RMSProp{number}" for number in ("", "_1", "_2"))]
    contents = read(tmp_path, *keys)
    assert contents.optimizers[0].algorithm == "CenteredRMSProp"
    assert [each.slot for each in contents.entries] == ["", "rms", "mean", "momentum"]
    six = ["w", *(f"w/RMSProp{number}" for number in ("", "_1", "_2", "_3", "_4", "_5"))]
    assert read(tmp_path, *six).optimizers[0].algorithm is None


def test_berts_slots(tmp_path: Path) -> None:
    contents = read(tmp_path, "w", "w/adam_m", "w/adam_v")
    assert rows(contents)["w/adam_v"] == ("slot", "optimizer/adam/v/w")
    assert contents.optimizers[0].algorithm is None


def test_averages_statistics_and_counts(tmp_path: Path) -> None:
    contents = read(
        tmp_path,
        "w",
        "w/ExponentialMovingAverage",
        "w/ExponentialMovingAverage_1",
        "gone/ExponentialMovingAverage",
        "bn/moments/Squeeze/ExponentialMovingAverage",
        "bn/moving_mean",
        "bn/moving_mean/ExponentialMovingAverage",
        "bn/moving_mean/biased",
        **{
            "bn/moving_mean/local_step": np.array(1, np.float32),
            "global_step": np.array(7, np.int64),
            "current_loss_scale": np.array(2, np.float32),
            "good_steps": np.array(2, np.int32),
            "training": np.array(True),
            "rate": np.array(0.1, np.float32),
        },
    )
    assert rows(contents) == {
        "w": ("weight", "w"),
        "w/ExponentialMovingAverage": ("average", "average/w"),
        "w/ExponentialMovingAverage_1": ("average", "average/w/ExponentialMovingAverage_1"),
        "gone/ExponentialMovingAverage": ("average", "average/gone"),
        "bn/moments/Squeeze/ExponentialMovingAverage": ("statistic", "bn/moments/Squeeze/ExponentialMovingAverage"),
        "bn/moving_mean": ("statistic", "bn/moving_mean"),
        "bn/moving_mean/ExponentialMovingAverage": ("average", "average/bn/moving_mean"),
        "bn/moving_mean/biased": ("statistic", "bn/moving_mean/biased"),
        "bn/moving_mean/local_step": ("other", "bn/moving_mean/local_step"),
        "global_step": ("count", "global_step"),
        "current_loss_scale": ("other", "current_loss_scale"),
        "good_steps": ("other", "good_steps"),
        "training": ("other", "training"),
        "rate": ("weight", "rate"),
    }
