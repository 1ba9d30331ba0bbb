"""state: a file gives back the same bits, or a CheckpointError and nothing else."""

from __future__ import annotations

import io
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfport import state
from tfport.errors import CheckpointError
from tfport.state import State

ARRAYS: dict[str, Any] = {
    "generator/hidden/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "generator/hidden/bias": np.array([-0.0, np.float32(1e-45), 3.0], np.float32),
    "optimizer/generator/m/generator/hidden/kernel": np.arange(6, dtype=np.float64).reshape(2, 3),
    "optimizer/generator/iterations": np.array(7, np.int64),
}
STATE = State("vanilla_gan", ARRAYS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A whole state file."""
    path = tmp_path / "state.npz"
    state.write(path, STATE)
    return path


def save_npz(path: Path, header: Any, **arrays: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, **{"__schema__": np.array(json.dumps(header)), **arrays})  # type: ignore[arg-type]


def test_round_trip_is_to_the_bit(path: Path) -> None:
    found = state.read(path)
    assert found.model == "vanilla_gan"
    assert found.digest() == STATE.digest()
    assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in found.arrays.items()} == {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in ARRAYS.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        {"generator/hidden/bias": np.array([0.0, np.float32(1e-45), 3.0], np.float32)},
        {"generator/hidden/kernel": ARRAYS["generator/hidden/kernel"].reshape(3, 2)},
        {"generator/hidden/kernel": ARRAYS["generator/hidden/kernel"].astype(np.float64)},
        {"another": np.zeros(0)},
    ],
    ids=["sign of zero", "shape", "dtype", "name"],
)
def test_the_digest_sees_every_difference(change: dict[str, Any]) -> None:
    assert State("vanilla_gan", {**ARRAYS, **change}).digest() != STATE.digest()


def test_the_digest_sees_no_order_and_no_strides() -> None:
    turned = {name: np.asfortranarray(array) for name, array in reversed(ARRAYS.items())}
    assert State("vanilla_gan", turned).digest() == STATE.digest()


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in [*range(64), *range(64, len(whole), 37), *range(len(whole) - 64, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a whole tfport state"):
            state.read(path)


def test_a_changed_byte_is_refused_or_changes_nothing(path: Path) -> None:
    whole = path.read_bytes()
    chance = random.Random(0)
    refused = 0
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            assert state.read(path).digest() == STATE.digest()
        except CheckpointError:
            refused += 1
    assert refused > len(whole) // 2


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        state.read(tmp_path / "state.npz")
    with pytest.raises(CheckpointError, match="not a whole tfport state"):
        state.read(tmp_path)


def test_a_foreign_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"not a tfport state.*__schema__"):
        state.read(path)


def test_another_schema_is_refused(path: Path) -> None:
    save_npz(path, {"schema": state.SCHEMA + 1, "model": "vanilla_gan", "names": []})
    with pytest.raises(CheckpointError, match=f"schema {state.SCHEMA + 1}.*reads schema {state.SCHEMA}.*version"):
        state.read(path)


@pytest.mark.parametrize("header", [[], 3, "text", {}, {"schema": 1, "names": 3}], ids=str)
def test_a_header_that_is_none_is_refused(path: Path, header: Any) -> None:
    save_npz(path, header)
    with pytest.raises(CheckpointError):
        state.read(path)


def test_a_missing_array_is_seen(path: Path) -> None:
    save_npz(path, {"schema": 1, "model": "vanilla_gan", "names": ["a", "b"]}, a=np.zeros(3))
    with pytest.raises(CheckpointError, match="lists 2 arrays and holds 1"):
        state.read(path)


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was read",)


def test_a_pickle_is_never_read(path: Path) -> None:
    save_npz(path, {"schema": 1, "model": "vanilla_gan", "names": ["a"]}, a=np.array([Bomb()], object))
    with pytest.raises(CheckpointError, match="allow_pickle"):
        state.read(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        state.read(path)


def test_a_single_array_is_no_state(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="not a whole tfport state"):
        state.read(path)


def test_check_fits_names_what_does_not_fit() -> None:
    kernel = "generator/hidden/kernel"
    without = {name: array for name, array in ARRAYS.items() if name != kernel}
    with pytest.raises(CheckpointError, match=f"1 missing.*{kernel}"):
        STATE.check_fits(State("vanilla_gan", without))
    with pytest.raises(CheckpointError, match=r"1 unknown.*'strange'"):
        STATE.check_fits(State("vanilla_gan", {**ARRAYS, "strange": np.zeros(1)}))
    with pytest.raises(CheckpointError, match=rf"{kernel} has shape \(3, 2\), expected \(2, 3\)"):
        STATE.check_fits(State("vanilla_gan", {**ARRAYS, kernel: ARRAYS[kernel].reshape(3, 2)}))
    STATE.check_fits(STATE)


def test_astype_leaves_counters_whole() -> None:
    found = STATE.astype("float64").arrays
    assert found["generator/hidden/kernel"].dtype == np.float64
    assert found["optimizer/generator/iterations"].dtype == np.int64


def test_fresh_has_zero_slots_and_counters() -> None:
    weights = {"d/kernel": np.ones((2, 3), np.float32), "g/kernel": np.ones(4, np.float32)}
    held = {"discriminator": ["d/kernel"], "generator": ["g/kernel"]}
    found = state.fresh("vanilla_gan", weights, held, dict.fromkeys(held, ("m", "v"))).arrays
    assert sorted(found.keys() - weights.keys()) == [
        "optimizer/discriminator/iterations",
        "optimizer/discriminator/m/d/kernel",
        "optimizer/discriminator/v/d/kernel",
        "optimizer/generator/iterations",
        "optimizer/generator/m/g/kernel",
        "optimizer/generator/v/g/kernel",
    ]
    assert all(not found[name].any() for name in found.keys() - weights.keys())
    assert found["optimizer/generator/m/g/kernel"].dtype == np.float32
    assert found["optimizer/generator/m/g/kernel"].shape == (4,)
    assert found["optimizer/generator/iterations"].dtype == np.int64


def test_fresh_gives_each_optimizer_its_own_slots_and_two_that_share_a_variable_one_each() -> None:
    weights = {"e/kernel": np.ones(3, np.float32), "e/moving_mean": np.zeros(3, np.float32)}
    held = {"one": ["e/kernel"], "other": ["e/kernel"], "idle": []}
    found = state.fresh("vae", weights, held, {"one": ("rms",), "other": ("m", "v"), "idle": ("m", "v")}).arrays
    assert sorted(found.keys() - weights.keys()) == [
        "optimizer/idle/iterations",
        "optimizer/one/iterations",
        "optimizer/one/rms/e/kernel",
        "optimizer/other/iterations",
        "optimizer/other/m/e/kernel",
        "optimizer/other/v/e/kernel",
    ]
    assert list(found)[:2] == list(weights)
