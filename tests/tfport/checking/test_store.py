"""The store keeps each content once, maps what is large, and is gone when it is closed."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfport.checking.store import ArrayFile, Kept, Place, Store
from tfport.errors import RunError

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.float64).reshape(2, 3).T,
        np.array(3, np.int64),
        np.array(True),
        np.array([True, False]),
        np.zeros((0, 3), np.float32),
        np.zeros(0, np.int32),
        np.array(["one", "three"]),
        np.array([b"one", b"three"]),
        np.arange(4, dtype=">f4"),
        np.arange(10, dtype=np.float16)[::3],
        np.arange(40_000, dtype=np.float32).reshape(200, 200),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_an_array_comes_back_as_it_was(array: Array) -> None:
    with Store() as store:
        store.put(np.arange(3, dtype=np.uint8))  # nothing begins at zero
        back = store.get(store.put(array))
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.tobytes() == array.tobytes()


def test_one_content_is_kept_once() -> None:
    with Store() as store:
        array = np.arange(1_000, dtype=np.float32)
        first = store.put(array)
        size = store.size
        assert size >= array.nbytes
        assert store.put(array.copy()) == first
        assert store.put(array.reshape(10, 100)).offset == first.offset
        assert store.size == size
        assert store.put(array + 1).offset != first.offset
        assert store.size == 2 * size
        assert store.path.stat().st_size <= store.size


def test_the_same_bytes_in_another_dtype_or_shape_are_another_content() -> None:
    with Store() as store:
        ones = np.ones(4, np.float32)
        kept = store.keep({"a": ones})
        for other in (ones.view(np.int32), ones.reshape(2, 2)):
            assert not kept.same("a", store.keep({"a": other}))
        assert kept.same("a", store.keep({"a": ones.copy()}))
        assert not kept.same("b", kept)


def test_what_changed_is_told_in_order_with_what_one_side_lacks() -> None:
    with Store() as store:
        before = store.keep({"a": np.ones(2), "b": np.zeros(2), "c": np.array([np.nan]), "gone": np.ones(1)})
        after = store.keep({"new": np.ones(1), "c": np.array([np.nan]), "b": -np.zeros(2), "a": np.ones(2)})
        assert after.changed(before) == ["new", "b", "gone"]
        assert before.changed(before) == []


def test_large_arrays_are_mapped_and_small_ones_read_and_neither_can_be_written() -> None:
    with Store() as store:
        small, large = (store.get(store.put(np.arange(count, dtype=np.float32))) for count in (100, 100_000))
        assert isinstance(large, np.memmap) and not isinstance(small, np.memmap)
        for array in (small, large):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


def test_what_follows_an_odd_number_of_bytes_is_aligned() -> None:
    with Store() as store:
        store.put(np.arange(3, dtype=np.uint8))
        assert store.get(store.put(np.arange(100_000, dtype=np.float64))).flags.aligned


def test_a_mapping_is_kept_one_array_at_a_time() -> None:
    asked: list[str] = []

    class Lazy(Mapping[str, Array]):
        def __getitem__(self, name: str) -> Array:
            asked.append(name)
            return np.full(3, len(name), np.float32)

        def __iter__(self) -> Iterator[str]:
            return iter(("a", "bb"))

        def __len__(self) -> int:
            return 2

    with Store() as store:
        kept = store.keep(Lazy())
        assert asked == ["a", "bb"]
        assert list(kept) == ["a", "bb"] and len(kept) == 2
        assert kept["bb"].tolist() == [2, 2, 2]
        assert asked == ["a", "bb"]
        with pytest.raises(KeyError):
            kept["ccc"]


def test_nothing_is_left_when_it_is_closed_even_by_an_error() -> None:
    with pytest.raises(ZeroDivisionError), Store() as store:
        large = store.get(store.put(np.arange(100_000, dtype=np.float32)))
        path = store.path
        assert path.exists()
        raise ZeroDivisionError
    assert not path.exists() and not path.parent.exists()
    del large
    gc.collect()


def test_a_full_disk_is_told_and_nothing_is_taken_for_kept() -> None:
    with Store() as store:
        whole, array = store._file._file, np.arange(1_000, dtype=np.float32)
        with open("/dev/full", "w+b", buffering=0) as full:  # noqa: PTH123
            store._file._file = full  # type: ignore[assignment]
            with pytest.raises(RunError, match=r"arrays\.bin: the disk is full"):
                store.put(array)
        store._file._file = whole
        assert store.size == 0
        assert store.get(store.put(array)).tolist() == array.tolist()


def test_what_lies_in_a_file_already_is_taken_over_by_its_digest_and_read_once(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "arrays.bin") as file, Store() as store:
        arrays = {"a": np.arange(3.0), "b": np.array([np.inf])}
        elsewhere = Counting({name: file.add_known(array) for name, array in arrays.items()})
        first, second = store.keep(elsewhere), store.keep(elsewhere)
        assert elsewhere.read == 2
        assert first.changed(second) == [] and first.changed(store.keep(arrays)) == []
        assert {name: first[name].tolist() for name in first} == {"a": [0, 1, 2], "b": [np.inf]}
        for place in first.places.values():
            assert Place.from_json(json.loads(json.dumps(place.to_json()))) == place


class Counting(Kept):
    read = 0

    def __getitem__(self, name: str) -> Array:
        self.read += 1
        return super().__getitem__(name)
