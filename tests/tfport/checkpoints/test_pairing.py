"""Which variable is which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tfport.checkpoints import pairing
from tfport.checkpoints.contents import Contents, OptimizerEntry, Role
from tfport.checkpoints.pairing import Variable
from tfport.errors import CheckpointError, UserError


def variables(**shapes: tuple[int, ...]) -> dict[str, Variable]:
    named = {name.replace("__", "/"): shape for name, shape in shapes.items()}
    return {name: Variable(name, shape, "float32", Role.WEIGHT) for name, shape in named.items()}


def partners(found: dict[str, Any]) -> dict[str, str]:
    return {modern: pair.legacy for modern, (pair,) in found.items()}


def mapping_file(folder: Path, **content: Any) -> pairing.MappingFile:
    path = folder / "mapping.json"
    path.write_text(json.dumps({"schema": 1, **content}))
    return pairing.read_mapping(path)


def test_the_same_name_is_the_same_variable() -> None:
    found = pairing.pair_variables(variables(a__kernel=(2, 3)), variables(a__kernel=(2, 3)), None)
    assert partners(found) == {"a/kernel": "a/kernel"}


def test_the_same_name_of_another_shape_is_not() -> None:
    assert pairing.pair_variables(variables(a__kernel=(2, 3)), variables(a__kernel=(3, 2)), None) == {}


def test_torchs_words_are_understood_and_kernels_turned() -> None:
    legacy = variables(net__weight=(5, 4), net__bias=(5,), bn__running_mean=(5,))
    modern = variables(net__kernel=(4, 5), net__bias=(5,), bn__moving_mean=(5,))
    found = pairing.pair_variables(legacy, modern, None, layouts=("torch", "tf"))
    assert partners(found) == {
        "net/kernel": "net/weight",
        "net/bias": "net/bias",
        "bn/moving_mean": "bn/running_mean",
    }
    assert found["net/kernel"][0].transpose == (1, 0)


def test_a_square_kernel_is_turned_between_frameworks_and_not_within_one() -> None:
    legacy, modern = variables(a__weight=(4, 4)), variables(a__kernel=(4, 4))
    assert pairing.pair_variables(legacy, modern, None, layouts=("torch", "tf"))["a/kernel"][0].transpose == (1, 0)
    assert pairing.pair_variables(modern, modern, None)["a/kernel"][0].transpose == ()


def test_an_embedding_is_not_turned() -> None:
    found = pairing.pair_variables(
        variables(embedding__weight=(4, 4)), variables(embedding__embeddings=(4, 4)), None, layouts=("torch", "tf")
    )
    assert found["embedding/embeddings"][0].transpose == ()


def test_a_square_matrix_of_no_known_kind_is_not_guessed_between_frameworks() -> None:
    both = variables(a__table=(4, 4))
    assert pairing.pair_variables(both, both, None, layouts=("torch", "tf")) == {}


@pytest.mark.parametrize(
    ("layouts", "shape", "expected"),
    [
        (("torch", "tf"), ((8, 3, 5, 7), (5, 7, 3, 8)), (2, 3, 1, 0)),
        (("tf", "torch"), ((5, 7, 3, 8), (8, 3, 5, 7)), (3, 2, 0, 1)),
        (("torch", "tf"), ((8, 3, 5), (5, 3, 8)), (2, 1, 0)),
        (("tf", "torch"), ((2, 5, 7, 3, 8), (8, 3, 2, 5, 7)), (4, 3, 0, 1, 2)),
    ],
)
def test_convolutions_are_turned(layouts: tuple[str, str], shape: Any, expected: tuple[int, ...]) -> None:
    words = ("weight", "kernel") if layouts[0] == "torch" else ("kernel", "weight")
    legacy, modern = (
        {f"c/{word}": Variable(f"c/{word}", each, "float32", Role.WEIGHT)}
        for word, each in zip(words, shape, strict=True)
    )
    found = pairing.pair_variables(legacy, modern, None, layouts=layouts)
    assert found[f"c/{words[1]}"][0].transpose == expected


def test_an_ending_that_only_one_has_is_enough_and_one_that_two_have_is_not() -> None:
    legacy = variables(generator__hidden__kernel=(2, 3), generator__out__kernel=(3, 1))
    found = pairing.pair_variables(legacy, variables(hidden__kernel=(2, 3), m__out__kernel=(3, 1)), None)
    assert partners(found) == {
        "hidden/kernel": "generator/hidden/kernel",
        "m/out/kernel": "generator/out/kernel",
    }
    two = variables(g__hidden__kernel=(2, 3), d__hidden__kernel=(2, 3))
    assert pairing.pair_variables(two, variables(hidden__kernel=(2, 3)), None) == {}


def test_a_mapping_comes_first(tmp_path: Path) -> None:
    same = variables(a=(2,), b=(2,))
    mapping = mapping_file(tmp_path, variables=[{"legacy": "a", "modern": "b"}, {"legacy": "b", "modern": "a"}])
    assert partners(pairing.pair_variables(same, same, mapping)) == {"b": "a", "a": "b"}


def test_a_mapping_may_transpose_and_reshape(tmp_path: Path) -> None:
    mapping = mapping_file(
        tmp_path,
        variables=[
            {"legacy": "a", "modern": "x", "transpose": [1, 0]},
            {"legacy": "b", "modern": "y", "reshape": True},
        ],
    )
    found = pairing.pair_variables(variables(a=(2, 3), b=(6,)), variables(x=(3, 2), y=(2, 3)), mapping)
    assert found["x"][0].transpose == (1, 0)
    assert found["y"][0].reshape


def test_a_bias_is_not_paired_where_its_kernel_is_laid_out_otherwise() -> None:
    legacy = variables(lstm__kernel=(7, 12), lstm__bias=(12,), out__kernel=(3, 1), out__bias=(1,))
    modern = variables(
        lstm__kernel=(4, 12), lstm__recurrent_kernel=(3, 12), lstm__bias=(12,), out__kernel=(3, 1), out__bias=(1,)
    )
    found = pairing.pair_variables(legacy, modern, None)
    assert partners(found) == {"out/kernel": "out/kernel", "out/bias": "out/bias"}


def test_a_models_name_in_front_is_understood(tmp_path: Path) -> None:
    mapping = mapping_file(tmp_path, variables=[{"legacy": "a", "modern": "sequential/x/kernel"}])
    assert partners(pairing.pair_variables(variables(a=(2,)), variables(x__kernel=(2,)), mapping)) == {"x/kernel": "a"}
    two = {**variables(x__kernel=(2,)), **variables(kernel=(2,))}
    with pytest.raises(UserError, match="unknown modern variable 'sequential/x/kernel'"):
        pairing.pair_variables(variables(a=(2,)), two, mapping)


def test_a_mapping_may_split_and_its_blocks_must_tile(tmp_path: Path) -> None:
    halves = [{"legacy": "a", "modern": name, "legacy_block": [[2 * n, 2 * n + 2]]} for n, name in enumerate("xy")]
    mapping = mapping_file(tmp_path, variables=halves)
    found = pairing.pair_variables(variables(a=(4,)), variables(x=(2,), y=(2,)), mapping)
    assert [found[name][0].legacy_block for name in "xy"] == [((0, 2),), ((2, 4),)]
    mapping = mapping_file(tmp_path, variables=halves[:1])
    with pytest.raises(UserError, match=r"legacy variable a .* leave a gap"):
        pairing.pair_variables(variables(a=(4,)), variables(x=(2,), y=(2,)), mapping)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"legacy": "nowhere", "modern": "x"}, "unknown legacy variable 'nowhere'"),
        ({"legacy": "a", "modern": "nowhere"}, "unknown modern variable 'nowhere'"),
        ({"legacy": "a", "modern": "x", "transpose": [0, 2]}, "expected an order of the axes 0 to 1"),
        ({"legacy": "a", "modern": "x", "transpose": [0, 1]}, "give the variable another partner, a transpose"),
        ({"legacy": "a", "modern": "y", "reshape": True}, "give the variable another partner"),
        ({"legacy": "a", "modern": "x"}, 'say how with "transpose"'),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    mapping = mapping_file(tmp_path, variables=[entry])
    with pytest.raises(UserError, match=message):
        pairing.pair_variables(variables(a=(2, 3)), variables(x=(3, 2), y=(5,)), mapping)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "no mapping of schema 2"),
        ('{"schema": 3}', "no mapping of schema 2"),
        ('{"schema": 1, "variables": 3}', "variables is no list"),
        ('{"schema": 1, "variables": [{"legacy": 1}]}', "entry 0 of variables needs"),
        ('{"schema": 1, "optimizers": ["x"]}', "entry 0 of optimizers needs"),
        ('{"schema": 1, "legacy_only": [3]}', "legacy_only is no list of names"),
    ],
)
def test_a_damaged_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        pairing.read_mapping(path)
    with pytest.raises(UserError, match="no such file"):
        pairing.read_mapping(tmp_path / "other.json")


def test_a_draft_marks_what_it_guessed(tmp_path: Path) -> None:
    path = tmp_path / "draft.json"
    legacy, modern = variables(same=(2,), w1=(3, 4), lost=(9,)), variables(same=(2,), p=(3, 4), q=(3, 4), r=(7,))
    assert pairing.write_draft(path, legacy, modern) == 1
    tree = json.loads(path.read_text())
    guess = tree["variables"][1]
    assert (guess["legacy"], guess["modern"], guess["ambiguous"]) == ("w1", "p", ["q"])
    assert "guess" in guess["reason"]
    assert tree["legacy_only"] == ["lost"]
    assert tree["modern_only"] == ["q", "r"]
    read = pairing.read_mapping(path)
    assert partners(pairing.pair_variables(legacy, modern, read)) == {"same": "same", "p": "w1"}


# --- Optimizers -------------------------------------------------------------------------------------------------------
def side(**held: tuple[str, ...]) -> Contents:
    return Contents((), tuple(OptimizerEntry(name, "Adam", "tf1", {}, names) for name, names in held.items()))


def paired(left: Contents, right: Contents, mapping: pairing.MappingFile | None = None) -> dict[str, str]:
    return pairing.pair_optimizers(left, right, {}, mapping)


def test_optimizers_are_paired_by_what_they_train() -> None:
    left, right = side(adam_d=("d",), adam_g=("g",)), side(one=("g",), two=("d",))
    assert paired(left, right) == {"adam_d": "two", "adam_g": "one"}


def test_names_settle_what_two_train_alike() -> None:
    left, right = side(a=("w",), b=("w",)), side(b=("w",), a=("w",))
    assert paired(left, right) == {"a": "a", "b": "b"}


def test_the_only_two_are_a_pair() -> None:
    assert paired(side(Adam=()), side(optimizer=())) == {"Adam": "optimizer"}


def test_what_cannot_be_told_is_refused_and_a_mapping_settles_it(tmp_path: Path) -> None:
    left, right = side(a=("w",), b=("w",)), side(x=("w",), y=("w",))
    with pytest.raises(CheckpointError, match="which optimizer is which cannot be told"):
        paired(left, right)
    mapping = mapping_file(tmp_path, optimizers=[{"legacy": "a", "modern": "y"}, {"legacy": "b", "modern": "x"}])
    assert paired(left, right, mapping) == {"a": "y", "b": "x"}
    with pytest.raises(UserError, match="unknown modern optimizer"):
        paired(left, right, mapping_file(tmp_path, optimizers=[{"legacy": "a", "modern": "z"}]))
