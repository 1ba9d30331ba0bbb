"""TF1 graphs from files: `.meta` files and SavedModels, read as untrusted bytes.

`graph_ops` says which ops may be there. Checkpoints are read by TensorFlow's checkpoint reader, tensor by tensor; the
graph's own saving and restoring ops are never run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from tfport.adapters import graph_ops
from tfport.adapters.tf1_reading import Reading
from tfport.errors import UserError
from tfport.program import Array


@dataclass(frozen=True)
class GraphFile:
    """A graph as it was read, not yet imported."""

    path: Path
    meta: Any
    """A MetaGraphDef all of whose ops are harmless."""
    prefix: Path | None
    """Its checkpoint, without ".index"; None where there is none."""
    inputs: dict[str, str] = field(default_factory=dict)
    """A signature's inputs: name -> tensor."""
    outputs: dict[str, str] = field(default_factory=dict)
    """A signature's outputs: name -> tensor."""


def read_meta(path: Path) -> GraphFile:
    """Reads a `.meta` file; the checkpoint beside it is the file's name without ".meta".

    Raises:
      UserError: it is missing, damaged, no MetaGraphDef, or holds an op that is not allowed.
    """
    meta = meta_graph_pb2.MetaGraphDef()
    _parse(path, meta, "a MetaGraphDef, as tf.train.Saver writes it in <prefix>.meta")
    _check(meta, path)
    prefix = path.with_suffix("") if path.suffix == ".meta" else path
    return GraphFile(path, meta, _checkpoint(prefix))


def read_saved_model(folder: Path) -> GraphFile:
    """Reads the graph of a SavedModel that TF1 wrote; of several the one with tag "train", else the first.

    Raises:
      UserError: as `read_meta`; or it is one of TF2's, or names files that its graph needs.
    """
    path = folder / "saved_model.pb"
    if folder.is_file():
        raise UserError(f"{folder} is a file; expected the folder of a SavedModel, with saved_model.pb in it.")
    saved = saved_model_pb2.SavedModel()
    _parse(path, saved, "a SavedModel")
    if not saved.meta_graphs:
        raise UserError(f"{path} holds no graph; expected a SavedModel with at least one. Export it again.")
    metas = sorted(saved.meta_graphs, key=lambda each: "train" not in each.meta_info_def.tags)
    meta = metas[0]
    if meta.object_graph_def.nodes:
        raise UserError(
            f"{folder} is a SavedModel of TF2's, whose functions hold no train op; expected one that TF1 wrote "
            "(tf.compat.v1.saved_model.Builder). Give the code that builds it as module:function."
        )
    _check(meta, path)
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for _, signature in sorted(meta.signature_def.items(), key=lambda each: each[0] != "serving_default"):
        for found, wanted in ((inputs, signature.inputs), (outputs, signature.outputs)):
            for name, info in sorted(wanted.items()):
                if info.name and info.name not in found.values():
                    found.setdefault(name, info.name)
        break
    prefix = folder / "variables" / "variables"
    return GraphFile(path, meta, _checkpoint(prefix), inputs, outputs)


def _parse(path: Path, message: Any, what: str) -> None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected {what}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; expected {what}.") from None
    try:
        message.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is not {what}, or is damaged ({error}). Write it again.") from None
    if not data or message.ByteSize() == 0:
        raise UserError(f"{path} is empty; expected {what}.")


def _check(meta: Any, path: Path) -> None:
    if not meta.graph_def.node:
        raise UserError(f"{path} holds no graph; expected a MetaGraphDef with one. Is it another kind of file?")
    graph_ops.check(meta.graph_def, str(path))


def _checkpoint(prefix: Path) -> Path | None:
    """The prefix, if a checkpoint is there; data without an index is refused."""
    if prefix.with_name(prefix.name + ".index").is_file() or prefix.is_file():
        return prefix
    if shards := sorted(prefix.parent.glob(f"{prefix.name}.data-*")):
        raise UserError(
            f"{shards[0]} is there and {prefix.name}.index is not; expected both. Copy the whole checkpoint."
        )
    return None


def imported(file: GraphFile) -> Any:
    """A new tf.Graph of the file.

    Raises:
      UserError: TensorFlow cannot make a graph of it.
    """
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.train.import_meta_graph(file.meta, clear_devices=True)
    except Exception as error:  # the importer raises whatever a damaged graph leads it to
        message = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{file.path} is no graph that TensorFlow {tf.__version__} can import ({type(error).__name__}: {message}). "
            "Export it again."
        ) from None
    return graph


def check_runs(reading: Reading, ops: set[Any], file: GraphFile) -> None:
    """Refuses a graph where `ops`, those of phases and outputs, or its initialisers are among a Saver's.

    Raises:
      UserError: names the op.
    """
    graph_ops.check_not_saving(reading.in_order(ops), str(file.path), "a phase or an output")
    starts = [each.assign for each in reading.variables.values() if each.assign is not None]
    starts += reading.graph.get_collection(tf.GraphKeys.TABLE_INITIALIZERS)
    graph_ops.check_not_saving(reading.in_order(reading.ancestors(starts)), str(file.path), "an initialiser")


class Checkpoint:
    """The checkpoint beside a graph: values by the name of the graph's variable."""

    def __init__(self, file: GraphFile, reading: Reading) -> None:
        self._reading = reading
        self._path = file.prefix
        self._reader: Any = None
        self._slices = _slices(reading.graph)
        self._stored: dict[str, list[int]] = {}
        if file.prefix is None:
            return
        try:
            self._reader = tf.train.load_checkpoint(str(file.prefix))
            self._stored = dict(self._reader.get_variable_to_shape_map())
        except Exception as error:  # OpError, ValueError or DataLossError's bare RuntimeError, as the damage has it
            raise self._damaged(error) from None
        if not self.held():
            raise UserError(
                f"{file.prefix} holds none of the graph's {len(reading.variables)} variables "
                f"({', '.join(list(reading.variables)[:5])}); "
                f"it holds {', '.join(sorted(self._stored)[:5]) or 'nothing'}. Expected the checkpoint of this graph."
            )
        for name in self.held():
            shape = reading.variables[name].shape
            if name in self._stored and shape is not None and tuple(self._stored[name]) != shape:
                raise UserError(
                    f"{file.prefix}: {name} has shape {tuple(self._stored[name])}, expected {shape} as in the graph. "
                    "It is the checkpoint of another graph."
                )

    def _damaged(self, error: Exception) -> UserError:
        message = str(error).strip().partition("\n")[0]
        return UserError(
            f"{self._path} is no whole checkpoint ({message}); expected its .index and every .data-* file. "
            "Copy it again."
        )

    def held(self) -> list[str]:
        """The graph's variables that it has."""
        return [name for name in self._reading.variables if self._stored_name(name) in self._stored]

    def lacking(self) -> list[str]:
        """The graph's variables that it has not."""
        return [name for name in self._reading.variables if self._stored_name(name) not in self._stored]

    def _stored_name(self, name: str) -> str:
        return name if name in self._stored or name not in self._slices else self._slices[name][0]

    def read(self, name: str) -> Array:
        """One variable's value.

        Raises:
          UserError: the file that holds it is missing or damaged.
        """
        try:
            value: Array = self._reader.get_tensor(self._stored_name(name))
        except Exception as error:
            raise self._damaged(error) from None
        if self._stored_name(name) != name:
            _, offset, shape = self._slices[name]
            value = value[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
        return np.asarray(value)


def _slices(graph: Any) -> dict[str, tuple[str, list[int], list[int]]]:
    """Part of a partitioned variable -> the whole one's name, and where the part lies."""
    found = {}
    for variable in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES):
        info = getattr(variable, "_save_slice_info", None)
        if info is not None:
            found[variable.op.name] = (info.full_name, list(info.var_offset), list(info.var_shape))
    return found
