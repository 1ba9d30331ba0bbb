"""The object graph of a TensorFlow 2 checkpoint whose objects are a tree of names: "a/b/c" is the child c of b of a.

`tf.train.Checkpoint(a=...)` with a tree of `tf.Module`s or dictionaries of these names reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfport.checkpoints import wire

KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def object_graph(names: Sequence[str]) -> bytes:
    """A TrackableObjectGraph with a variable for each name.

    Args:
      names: "a/b/c", each once, none a part of another.
    """
    children: list[dict[str, int]] = [{}]
    variables: dict[int, str] = {}
    for name in names:
        node = 0
        for part in name.split("/"):
            if part not in children[node]:
                children[node][part] = len(children)
                children.append({})
            node = children[node][part]
        variables[node] = name
    return b"".join(wire.bytes_field(1, _node(below, variables.get(index))) for index, below in enumerate(children))


def _node(children: dict[str, int], name: str | None) -> bytes:
    found = b"".join(
        wire.bytes_field(1, wire.number_field(1, index) + wire.bytes_field(2, part.encode()))
        for part, index in children.items()
    )
    if name is not None:
        fields = ("VARIABLE_VALUE", name, f"{name}{SUFFIX}")
        found += wire.bytes_field(
            2, b"".join(wire.bytes_field(which, text.encode()) for which, text in enumerate(fields, 1))
        )
    has_values = wire.number_field(1, 1)
    return found + wire.bytes_field(5, has_values)
