"""Where two lists of intermediates part: small graphs, written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfport.checking.alignment import Parting, parting

Array = np.ndarray[Any, Any]
X = np.random.default_rng(0).standard_normal((4, 3))
CLOSE = 2.0**-20


@dataclass(frozen=True)
class Node:
    """An intermediate."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    value: Array
    variables: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


def parted(legacy: list[Node], modern: list[Node]) -> Parting:
    found = parting(legacy, modern, CLOSE, {"x": X}, {"x": X})
    assert found is not None
    return found


def test_a_sign_that_agrees_does_not_hide_a_scale_before_it() -> None:
    def side(scaled: bool) -> list[Node]:
        z = X * (0.5 if scaled else 1.0)
        scale = [Node("scale", "Mul", ("x",), z, attributes={"y": "0.5"})] if scaled else []
        before = "scale" if scaled else "x"
        zeros = {"e": "(4, 3), sum 0"} if scaled else {}
        return [
            *scale,
            Node("positive", "GreaterEqual", (before,), z >= 0),
            Node("select", "Select", ("positive", before), np.maximum(z, 0), attributes=zeros),
            Node("loss", "Mean", ("select",), np.maximum(z, 0).mean()),
        ]

    found = parted(side(False), side(True))
    assert found.legacy is None and found.modern is not None and found.modern.name == "scale"
    assert found.beside is not None and found.beside[1].name == "select"


def test_a_variable_that_only_one_side_reads_is_the_place_whatever_follows() -> None:
    z = X + 1.5
    legacy = [
        Node("dense", "MatMul", ("x",), X * 2, ("kernel",)),
        Node("add", "BiasAdd", ("dense",), z * 2, ("bias",)),
        Node("loss", "Mean", ("add",), np.array((z * 2).mean()), attributes={"axis": "[0, 1]"}),
    ]
    modern = [
        Node("dense", "MatMul", ("x",), X * 2, ("kernel",)),
        Node("loss", "Mean", ("dense",), np.array((X * 2).mean()), attributes={"axis": "-1"}),
    ]
    found = parted(legacy, modern)
    assert found.modern is None and found.legacy is not None and found.legacy.name == "add"
    found = parted(modern, legacy)
    assert found.legacy is None and found.modern is not None and found.modern.name == "add"
    assert found.agreeing == (("dense", "dense"),)


def test_a_product_in_the_loss_is_no_partner_of_one_before_a_layer_that_both_have() -> None:
    hidden, labels = X * 3 + 1, np.array([[0.2], [1.3], [-0.4], [0.7]])
    before = Node("hidden", "Tanh", ("x",), hidden)

    def after(value: Array, source: str) -> list[Node]:
        scores = value @ np.ones((3, 1)) / 7
        product = scores * labels * hidden[:, :1]
        return [
            Node("scores", "MatMul", (source,), scores, ("kernel",)),
            Node("product", "Mul", ("scores", "hidden"), product),
            Node("loss", "Mean", ("product",), np.array(product.mean())),
        ]

    weighted = hidden * np.array([0.0, 2.0, 1.0])
    legacy = [before, Node("weighted", "Mul", ("hidden",), weighted), *after(weighted, "weighted")]
    modern = [
        before,
        Node("root", "Sqrt", ("hidden",), np.sqrt(np.abs(hidden))),
        *after(np.sqrt(np.abs(hidden)), "root"),
    ]
    found = parted(legacy, modern)
    assert found.legacy is not None and found.legacy.name == "weighted"
    assert found.modern is not None and found.modern.name == "root"


def test_a_move_is_not_told_where_a_constant_differs() -> None:
    def side(epsilon: float, squeezed: bool) -> list[Node]:
        kept = X.mean(0, keepdims=True)
        moments = [Node("mean", "Mean", ("x",), kept)]
        moments += [Node("squeeze", "Squeeze", ("mean",), kept[0])] if squeezed else []
        chosen = Node("chosen", "Select", (moments[-1].name,), kept[0]) if not squeezed else None
        last = chosen or moments[-1]
        rest = [chosen] if chosen else []
        add = Node("add", "AddV2", (last.name,), kept[0] + epsilon, attributes={"y": str(epsilon)})
        return [*moments, *rest, add, Node("loss", "Sum", ("add",), (kept[0] + epsilon).sum())]

    found = parted(side(0.01, False), side(0.1, True))
    assert found.legacy is not None and found.modern is not None
    assert (found.legacy.name, found.modern.name) == ("add", "add")
    assert found.differing == (("y", "0.01", "0.1"),)
    assert not found.only_legacy and not found.only_modern
