"""The arithmetic between the frameworks' optimizer states."""

from __future__ import annotations

import numpy as np
import pytest

from tfport import adam
from tfport.checkpoints import algebra
from tfport.checkpoints.contents import CHUNK, Array, pieces
from tfport.errors import CheckpointError


def joined(chunks: object, dtype: str) -> Array:
    return np.frombuffer(b"".join(bytes(each) for each in chunks), dtype)  # type: ignore[attr-defined]


def powers(beta_1: float, beta_2: float, count: int, dtype: str = "float32") -> dict[str, Array]:
    return {
        "beta_1": np.asarray(adam.beta_power(beta_1, count, dtype)),
        "beta_2": np.asarray(adam.beta_power(beta_2, count, dtype)),
    }


@pytest.mark.parametrize("count", [0, 1, 50, 125, 126, 149, 5_000, 87_000])
@pytest.mark.parametrize("beta_1", [0.5, 0.9])
@pytest.mark.parametrize("recorded", [True, False])
def test_the_count_is_the_one_that_made_the_powers(count: int, beta_1: float, recorded: bool) -> None:
    betas = {"beta_1": beta_1, "beta_2": 0.999} if recorded else {}
    found, used, how = algebra.count_of_powers(powers(beta_1, 0.999, count), betas)
    assert found == count
    assert used["beta_2"] == pytest.approx(0.999)
    assert "underflowed" not in how
    assert ("no other usual beta" in how) is not recorded


def test_a_worn_beta_1_leaves_the_count_to_beta_2() -> None:
    stored = powers(0.5, 0.999, 1_000)
    assert float(stored["beta_1"]) == 0.0
    assert algebra.count_of_powers(stored, {})[0] == 1_000
    assert "beta_1" not in algebra.count_of_powers(stored, {})[1], "which beta_1 it was cannot be told any more"


def test_once_both_have_underflowed_the_least_count_is_given_and_said() -> None:
    count, _, how = algebra.count_of_powers(powers(0.9, 0.999, 200_000), {"beta_1": 0.9, "beta_2": 0.999})
    assert count == 87_293
    assert "underflowed" in how
    with pytest.raises(CheckpointError, match="several counts"):
        algebra.count_of_powers(powers(0.9, 0.999, 200_000), {})


def test_powers_that_no_beta_gives_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no count of steps gives with any usual beta"):
        algebra.count_of_powers({"beta_1": np.array(0.1234567, "float32"), "beta_2": np.array(0.99, "float32")}, {})
    with pytest.raises(CheckpointError, match=r"beta_1 = 0\.8"):
        algebra.count_of_powers(powers(0.9, 0.999, 7), {"beta_1": 0.8, "beta_2": 0.999})


def test_powers_of_different_counts_are_refused() -> None:
    mixed = {"beta_1": powers(0.9, 0.999, 7)["beta_1"], "beta_2": powers(0.9, 0.999, 8)["beta_2"]}
    with pytest.raises(CheckpointError, match="no count of steps gives both"):
        algebra.count_of_powers(mixed, {"beta_1": 0.9, "beta_2": 0.999})


def test_one_power_alone_is_enough() -> None:
    assert algebra.count_of_powers({"beta_2": powers(0.9, 0.999, 12)["beta_2"]}, {"beta_2": 0.999})[0] == 12


def test_a_float64_power_of_a_beta_kept_in_float32_is_found() -> None:
    rounded = float(np.float32(0.999))
    stored = {"beta_2": np.asarray(adam.beta_power(rounded, 40, "float64"))}
    assert algebra.count_of_powers(stored, {"beta_2": 0.999})[0] == 40


@pytest.mark.parametrize(
    ("convention", "algorithm", "slot", "expected"),
    [
        ("keras", "Momentum", "accumulator", -0.1),
        ("keras", "Nesterov", "accumulator", -0.1),
        ("keras", "Adagrad", "accumulator", None),
        ("keras", "RMSProp", "momentum", None),
        ("tf1", "Momentum", "accumulator", None),
        ("torch", "Momentum", "accumulator", None),
    ],
)
def test_only_kerass_velocity_has_a_factor(convention: str, algorithm: str, slot: str, expected: float | None) -> None:
    assert algebra.velocity_factor(convention, algorithm, slot, 0.1) == expected


@pytest.mark.parametrize("rate", [None, 0.0])
def test_a_velocity_without_a_rate_is_refused(rate: float | None) -> None:
    with pytest.raises(CheckpointError, match="--learning_rate=RATE"):
        algebra.velocity_factor("keras", "Momentum", "accumulator", rate)


def test_there_and_back_is_within_one_ulp() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype("float32")
    there = joined(algebra.scaled(iter([values.tobytes()]), "float32", -0.013, 1.0), "float32")
    back = joined(algebra.scaled(iter([there.tobytes()]), "float32", 1.0, -0.013), "float32")
    assert np.all(np.abs(back - values) <= np.spacing(np.abs(values)))
    assert np.any(back != values), "a rounding there and one back leave traces: else nothing was scaled"


def test_nothing_stays_positive() -> None:
    zero = joined(algebra.scaled(iter([np.zeros(3, "float32").tobytes()]), "float32", -0.1, 1.0), "float32")
    assert not np.signbit(zero).any()


def test_pieces_may_end_within_an_element() -> None:
    data = np.arange(10, dtype="float32").tobytes()
    cut = [data[start : start + 7] for start in range(0, len(data), 7)]
    assert joined(algebra.scaled(iter(cut), "float32", 2.0, 1.0), "float32").tolist() == list(range(0, 20, 2))
    assert joined(algebra.cast(iter(cut), "float32", "float64"), "float64").tolist() == list(range(10))


@pytest.mark.parametrize(
    ("shape", "order"), [((3, 5), (1, 0)), ((2, 3, 4, 5), (3, 2, 0, 1)), ((), ()), ((0, 4), (1, 0))]
)
def test_transposed_is_numpys_transpose(shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape)), dtype="float32").reshape(shape)
    found = joined(algebra.transposed(array, order), "float32")
    assert found.tobytes() == np.ascontiguousarray(array.transpose(order)).tobytes()


def test_a_large_array_is_transposed_slab_by_slab() -> None:
    array = np.arange(3 * CHUNK // 4, dtype="float32").reshape(3, -1)
    sizes = [len(each) for each in algebra.transposed(array, (1, 0))]
    assert len(sizes) > 1
    assert max(sizes) <= CHUNK
    assert b"".join(bytes(each) for each in algebra.transposed(array, (1, 0))) == array.T.tobytes()


def test_pieces_of_a_big_endian_array_are_little_endian() -> None:
    assert joined(pieces(np.arange(3, dtype=">f4")), "<f4").tolist() == [0, 1, 2]
