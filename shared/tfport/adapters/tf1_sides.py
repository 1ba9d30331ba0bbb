"""Programs of TF1 graphs: from a build function, a finished tf.Graph, a .meta file or a SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from tfport.adapters import graph_files
from tfport.adapters.rewriting import unrewritten_config
from tfport.adapters.tf1_finding import Given
from tfport.adapters.tf1_program import GraphProgram
from tfport.checking.quoting import said
from tfport.errors import UserError

__all__ = ["GraphProgram", "from_meta", "from_saved_model", "tf1_graph"]


def _start(program: GraphProgram) -> None:
    """Runs the initialisers of a graph, and of its tables."""
    program.values.initialise(
        [name for name in program.reading.variables if program.reading.variables[name].assign is not None]
    )
    program.session.run(program.graph.get_collection(tf.GraphKeys.TABLE_INITIALIZERS))


# --- Constructors -----------------------------------------------------------------------------------------------------
def tf1_graph(
    build: Callable[[], Any] | None = None,
    *,
    graph: Any = None,
    session: Any = None,
    inputs: Any = None,
    outputs: Any = None,
    losses: Any = None,
    train_ops: Any = None,
    training: Any = None,
    inference: Any = None,
    seed: int = 0,
    precision: str | None = None,
    **more: Any,
) -> GraphProgram:
    """A Program of a function that builds a TF1 graph, or of a finished graph.

    Things of the graph are given as tensors, ops or names ("d_loss", "d_loss:0").

    Args:
      build: called without arguments inside a fresh graph with its seed set. It returns None, or a mapping with any
        of inputs, outputs, loss or losses, train_op or train_ops, training, inference, updates (run with the train
        op, a list or by phase) and initial (ops to run once after the initialisers, or variable -> value).
      graph: a finished tf.Graph, in place of `build`.
      session: its Session, the variables initialised, best with TensorFlow's graph rewriting off, which may crash where
        intermediates are fetched; else a new one runs the graph's initialisers.
      inputs: what a batch holds, a list or name -> tensor; else the placeholders that a phase or an output needs.
      outputs: what `forward` gives; else what is named like an output, else what the losses are computed from. Where
        training and inference have towers of their own, {"training": ..., "inference": ...}.
      losses: phase -> loss, or the only one; else what the gradients are taken of.
      train_ops: phase -> train op in the order they run, or the only one; else the graph's only one, as "train".
      training: placeholder -> value in training, such as {"keep_prob": .5}; phases run so.
      inference: placeholder -> value in inference.
      seed: the graph's seed.
      precision: "float64" has the finished graph rewritten to float64 wherever it is in float32.
      more: `loss`, `train_op`, `updates` and `initial`, as `build` may return them.

    Raises:
      UserError: something named is not there, or something needed cannot be told.
    """
    if (build is None) == (graph is None):
        raise UserError("tf1_graph takes a build function or a finished graph, one of the two.")
    given = Given(inputs, outputs, losses, train_ops, training, inference).or_else(more)
    if build is None:
        own = session is None
        program = GraphProgram(
            graph,
            tf.Session(graph=graph, config=unrewritten_config()) if own else session,
            given,
            owns_session=own,
            start=_start if own else None,
        )
        return _in(precision, program)
    maker = build

    def make(number: int) -> GraphProgram:
        fresh = tf.Graph()
        with fresh.as_default():
            tf.set_random_seed(number)
            found = given.or_else(maker())
        program = _opened(lambda opened: GraphProgram(fresh, opened, found, again=make, start=_start), fresh)
        return _in(precision, program)

    return make(seed)


def _opened(make: Callable[[Any], GraphProgram], graph: Any) -> GraphProgram:
    """A Program on a new Session, which is closed where the Program cannot be made."""
    session = tf.Session(graph=graph, config=unrewritten_config())
    try:
        return make(session)
    except BaseException:
        session.close()
        raise


def from_meta(
    path: str | Path,
    *,
    inputs: Any = None,
    outputs: Any = None,
    losses: Any = None,
    train_ops: Any = None,
    training: Any = None,
    inference: Any = None,
    precision: str | None = None,
) -> GraphProgram:
    """A Program of a `.meta` file, its variables restored from the checkpoint beside it where there is one.

    The file runs nothing that `graph_files` does not allow. For the names and `precision` see `tf1_graph`.

    Raises:
      UserError: the file is damaged or holds an op that is not allowed, the checkpoint is damaged, or what is needed
        cannot be told.
    """
    file = graph_files.read_meta(Path(path))
    return _from_file(file, Given(inputs, outputs, losses, train_ops, training, inference), precision)


def from_saved_model(
    folder: str | Path,
    *,
    inputs: Any = None,
    outputs: Any = None,
    losses: Any = None,
    train_ops: Any = None,
    training: Any = None,
    inference: Any = None,
    precision: str | None = None,
) -> GraphProgram:
    """A Program of a SavedModel that TF1 wrote with its train ops; its signature names inputs and outputs.

    The folder runs nothing that `graph_files` does not allow. For the names and `precision` see `tf1_graph`.

    Raises:
      UserError: as `from_meta`.
    """
    file = graph_files.read_saved_model(Path(folder))
    return _from_file(file, Given(inputs, outputs, losses, train_ops, training, inference), precision)


def script_graph(
    graph: Any,
    values: Mapping[str, Any],
    found: Mapping[str, Any],
    notes: Sequence[str],
    precision: str | None,
    again: Callable[[int], GraphProgram],
    called: Mapping[str, Any],
) -> GraphProgram:
    """A Program of the graph that a script built, with the values that its variables had in the script's Session.

    Args:
      graph: the graph.
      values: variable -> value; what has none gets what its initialiser gives.
      found: what is known of the graph's parts, as `tf1_graph` takes it.
      notes: what a report says of it.
      precision: as `tf1_graph` takes it.
      again: seed -> the same of another run of the script.
      called: input name -> tensor, for placeholders that go by another name than their own.

    Raises:
      UserError: something needed cannot be told.
    """

    def start(program: GraphProgram) -> None:
        _start(program)
        for name, value in values.items():
            program.values.write(name, value)
        for note in notes:
            program.note(note)

    names = {name: tensor.name for name, tensor in called.items()}

    def make(opened: Any) -> GraphProgram:
        return GraphProgram(graph, opened, Given(**found), again=again, start=start, called=names)

    program = _opened(make, graph)
    return _in(precision, program)


def _from_file(file: graph_files.GraphFile, given: Given, precision: str | None) -> GraphProgram:
    graph = graph_files.imported(file)
    given = given.or_else({"outputs": file.outputs or None})

    def start(program: GraphProgram) -> None:
        graph_files.check_runs(program.reading, program.calls.everything(), file)
        stored = graph_files.Checkpoint(file, program.reading)
        first = [name for name in stored.lacking() if program.reading.variables[name].assign is not None]
        program.values.initialise(first)
        for name in stored.held():
            program.values.write(name, stored.read(name))
        program.session.run(graph.get_collection(tf.GraphKeys.TABLE_INITIALIZERS))
        if first:
            program.note(
                f"{len(first)} variables are not in the checkpoint and have their initial values: {first[0]}, ..."
            )

    program = _opened(lambda session: GraphProgram(graph, session, given, start=start, called=file.inputs), graph)
    return _in(precision, program)


def _in(precision: str | None, program: GraphProgram) -> GraphProgram:
    """The program with its inner draws fed, where TensorFlow can do that, and in the precision that was asked for."""
    try:
        program = _instead(program, program.fed_inside)
    except Exception as error:  # then they are listed as not controlled
        program.note(f"what is drawn inside loops and functions could not be fed: {said(error)}")
    if precision != "float64":
        return program
    try:
        return _instead(program, program.in_float64)
    except BaseException:
        program.close()
        raise


def _instead(program: GraphProgram, make: Callable[[], GraphProgram]) -> GraphProgram:
    """What is made of a program, which is closed unless it is that."""
    fresh = make()
    if fresh is not program:
        program.close()
    return fresh
