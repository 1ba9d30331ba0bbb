"""The file of the mapping is read as it was written, and what is wrong in it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tfport.checking import mapping_file
from tfport.errors import UserError
from tfport.layouts import MappedVariable
from tfport.subject import VariableInfo


def info(name: str, *shape: int) -> VariableInfo:
    return VariableInfo(name, name, shape, "float32", True)


LEGACY = (info("a/w", 3, 4), info("a/b", 4), info("c/w", 2, 2))
MODERN = (info("dense/kernel", 4, 3), info("dense/bias", 1, 4), info("other/kernel", 2, 2))


SPLIT = {
    "legacy": "a/w",
    "modern": "dense/kernel",
    "legacy_block": [[0, 3], [0, 2]],
    "modern_block": [[0, 2], [0, 3]],
    "transpose": [1, 0],
}


def written(path: Path, *entries: Any, **rest: Any) -> Path:
    path.write_text(json.dumps({"schema": 1, "variables": list(entries), **rest}))
    return path


def read(path: Path, *entries: Any) -> list[MappedVariable]:
    return mapping_file.read(written(path, *entries), LEGACY, MODERN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mapping.json"


def test_what_is_written_is_read_again(path: Path) -> None:
    pairs = [
        MappedVariable("a/w", "dense/kernel", (3, 4), (4, 3), (1, 0), False, "forward pass", ("c/w",)),
        MappedVariable("a/b", "dense/bias", (4,), (1, 4), (), True, "the only one of its shape"),
    ]
    mapping_file.write(path, pairs, ["c/w"], ["other/kernel"])
    tree = json.loads(path.read_text())
    assert tree["legacy_only"] == ["c/w"] and tree["modern_only"] == ["other/kernel"]
    assert tree["variables"][0]["ambiguous"] == ["c/w"]
    assert mapping_file.read(path, LEGACY, MODERN) == [
        MappedVariable("a/w", "dense/kernel", (3, 4), (4, 3), (1, 0), False, "mapping file"),
        MappedVariable("a/b", "dense/bias", (4,), (1, 4), (), True, "mapping file"),
    ]


def test_blocks_are_read_as_they_were_written(path: Path) -> None:
    pairs = [
        MappedVariable(
            "a/w",
            "dense/kernel",
            (3, 4),
            (4, 3),
            (1, 0),
            False,
            "mapping file",
            legacy_block=((0, 3), (start, start + 2)),
            modern_block=((2 - start, 4 - start), (0, 3)),
            flip=(1,),
            offset=1.5 * start,
        )
        for start in (0, 2)
    ]
    pairs.append(MappedVariable("a/b", "dense/bias", (4,), (1, 4), (1, 0), True, "mapping file", view=(2, 2)))
    mapping_file.write(path, pairs, [], [])
    assert mapping_file.read(path, LEGACY, MODERN) == pairs
    assert json.loads(path.read_text())["schema"] == 2


def test_a_block_that_is_the_whole_variable_is_none(path: Path) -> None:
    whole = [[0, 2], [0, 2]]
    (pair,) = read(path, {"legacy": "c/w", "modern": "other/kernel", "legacy_block": whole, "modern_block": whole})
    assert not pair.changes


def test_what_is_not_named_is_left_to_be_matched(path: Path) -> None:
    assert [pair.legacy for pair in read(path, {"legacy": "c/w", "modern": "other/kernel"})] == ["c/w"]
    assert read(path) == []


def test_a_transpose_that_changes_nothing_is_none(path: Path) -> None:
    (pair,) = read(path, {"legacy": "c/w", "modern": "other/kernel", "transpose": [0, 1], "reshape": True})
    assert pair.transpose == () and not pair.reshape
    (pair,) = read(path, {"legacy": "c/w", "modern": "other/kernel", "transpose": [1, 0]})
    assert pair.transpose == (1, 0)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"legacy": "a/x", "modern": "dense/kernel"}], "unknown legacy variable 'a/x'. Did you mean"),
        ([{"legacy": "a/w", "modern": "dense/kernal"}], "unknown modern variable 'dense/kernal'. Did you mean dense"),
        (
            [{"legacy": "c/w", "modern": "other/kernel"}, {"legacy": "c/w", "modern": "dense/bias"}],
            r"c/w has shape \(2, 2\), and dense/bias has \(1, 4\)",
        ),
        (
            [{"legacy": "c/w", "modern": "other/kernel"}, {"legacy": "a/w", "modern": "other/kernel"}],
            r"a/w has shape \(3, 4\), and other/kernel has \(2, 2\)",
        ),
        ([{"legacy": "a/w", "modern": "dense/kernel"}], r"a/w has shape \(3, 4\), and dense/kernel has \(4, 3\)"),
        ([{"legacy": "a/b", "modern": "dense/bias"}], r"a/b has shape \(4,\), and dense/bias has \(1, 4\)"),
        (
            [{"legacy": "a/b", "modern": "dense/kernel", "reshape": True}],
            r"a/b has shape \(4,\), and dense/kernel has",
        ),
        (
            [{"legacy": "c/w", "modern": "dense/bias", "transpose": [1, 0]}],
            r"c/w has shape \(2, 2\) once transposed, and",
        ),
        ([{"legacy": "a/w", "modern": "dense/kernel", "transpose": [1, 1]}], r"transpose of a/w is \[1, 1\], expected"),
        ([{"legacy": "a/w", "modern": "dense/kernel", "transpose": ["1", 0]}], r"transpose of a/w is \['1', 0\]"),
        ([{"legacy": "a/w", "modern": "dense/kernel", "transpose": [None]}], r"transpose of a/w is \[None\]"),
        ([{"legacy": "a/w", "modern": "dense/kernel", "transpose": [0, 1, 2]}], r"axes 0 to 1"),
        ([{"legacy": "a/w", "modern": "dense/kernel", "transpose": "T"}], r"transpose of a/w is 'T'"),
        ([SPLIT], r"legacy variable a/w \(3, 4\) leave a gap: nothing maps \[0:3, 2:4\]; add a block"),
        ([SPLIT, SPLIT], r"legacy variable a/w \(3, 4\) overlap: \[0:3, 0:2\] and \[0:3, 0:2\]; each element"),
        (
            [{"legacy": "c/w", "modern": "other/kernel"}, {"legacy": "c/w", "modern": "other/kernel"}],
            r"legacy variable c/w \(2, 2\) overlap",
        ),
        ([{**SPLIT, "legacy_block": [[0, 3], [2, 5]]}], r"legacy_block of a/w .* exceeds its shape \(3, 4\)"),
        ([{**SPLIT, "legacy_block": [[0, 3], [2, 2]]}], "0 <= start < stop <= size"),
        ([{**SPLIT, "legacy_block": [[0, 3]]}], r"expected one \[start, stop\] for each of its 2 axes"),
        ([{**SPLIT, "modern_block": [0, 4]}], r"modern_block of dense/kernel is \[0, 4\], expected one \[start"),
        ([{**SPLIT, "modern_block": [[0.0, 4], [0, 3]]}], r"expected one \[start, stop\]"),
        ([{"legacy": "c/w", "modern": "other/kernel", "view": [3]}], r"view of c/w is \[3\], .*of as many elements"),
        ([{"legacy": "c/w", "modern": "other/kernel", "view": [2, -2]}], "expected a list of whole numbers"),
        (
            [{"legacy": "c/w", "modern": "other/kernel", "flip": [2]}],
            r"flip of c/w is \[2\], expected some of the axes",
        ),
        ([{"legacy": "c/w", "modern": "other/kernel", "offset": "1"}], "offset of c/w is '1', expected a number"),
        ([{"legacy": "a/w"}], "entry 0 needs the texts legacy and modern"),
        ([{"legacy": "a/w", "modern": 3}], "entry 0 needs the texts"),
        (["a/w"], "entry 0 needs the texts"),
    ],
)
def test_what_is_wrong_in_an_entry_is_named(path: Path, entries: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(path, *entries)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[]", "is no mapping: expected"),
        ('{"schema": 3, "variables": []}', "is no mapping"),
        ('{"schema": 1}', "is no mapping"),
        ('{"schema": 1, "variables": {}}', "is no mapping"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_what_is_no_mapping_is_told(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        mapping_file.read(path, LEGACY, MODERN)


def test_a_file_that_cannot_be_read_is_told(path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        mapping_file.read(path, LEGACY, MODERN)
    with pytest.raises(UserError, match="cannot be read"):
        mapping_file.read(path.parent, LEGACY, MODERN)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        mapping_file.read(path, LEGACY, MODERN)
