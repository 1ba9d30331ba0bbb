"""A TF1 graph made again from its GraphDef with something changed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import tensorflow.compat.v1 as tf
from tensorflow.python.framework import meta_graph

COPIES = "tfport_loop"
"""Beginning of the names of the ops that tfport itself adds to a graph: copies of loops (`graph_loops`)."""
_COLLECTIONS = (
    tf.GraphKeys.GLOBAL_VARIABLES,
    tf.GraphKeys.LOCAL_VARIABLES,
    tf.GraphKeys.TRAINABLE_VARIABLES,
    tf.GraphKeys.MODEL_VARIABLES,
    tf.GraphKeys.METRIC_VARIABLES,
    tf.GraphKeys.MOVING_AVERAGE_VARIABLES,
    tf.GraphKeys.TABLE_INITIALIZERS,
    tf.GraphKeys.TRAIN_OP,
    tf.GraphKeys.COND_CONTEXT,
    tf.GraphKeys.WHILE_CONTEXT,
)
_ORIGINALS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""Rewritten graph -> the graph that it was made of."""


def rewritten(graph: Any, change: Callable[[Any], None]) -> Any:
    """A new tf.Graph of what `change` makes of the GraphDef, in place; collections of variables and contexts are kept.

    Raises:
      Exception: TensorFlow cannot export the graph, or cannot import what was made of it.
    """
    kept = [key for key in _COLLECTIONS if graph.get_collection_ref(key)]
    with graph.as_default():
        meta, _ = meta_graph.export_scoped_meta_graph(graph=graph, collection_list=kept)
    definition = meta.graph_def
    nodes = [node for node in definition.node if not node.name.startswith(COPIES)]
    del definition.node[:]
    definition.node.extend(nodes)
    change(definition)
    fresh = tf.Graph()
    with fresh.as_default():
        meta_graph.import_scoped_meta_graph(meta)
    _ORIGINALS[fresh] = graph
    return fresh


def original(graph: Any) -> Any:
    """The user's own graph that a graph was made of; None where it is one."""
    found = _ORIGINALS.get(graph)
    while found is not None and found in _ORIGINALS:
        found = _ORIGINALS[found]
    return found


def in_original_order(graph: Any) -> list[Any]:
    """A graph's ops in the order in which the user's code made them; an import makes those of loops later.

    What a rewritten graph has beside the original's stands behind what it reads.
    """
    ops: list[Any] = list(graph.get_operations())
    made_of = original(graph)
    if made_of is None:
        return ops
    ranks: dict[Any, int] = {}
    known = {op.name: number for number, op in enumerate(made_of.get_operations())}
    for op in ops:
        ranks[op] = known.get(op.name, max((ranks.get(each.op, 0) for each in op.inputs), default=0))
    return sorted(ops, key=ranks.__getitem__)
