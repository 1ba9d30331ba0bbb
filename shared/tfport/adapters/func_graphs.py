"""The intermediates of a computation, by tracing it to a graph and running that graph once.

The computation is traced with its `tf.function`s run in Python, so that what they do lies in the one graph; what is
traced all the same (control flow, a function imported from a SavedModel) stays a node of its own, unopened. Every
wanted tensor is one more output of the traced function, so that one run gives them all and variables are read as they
are when it runs.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import autograph_util, polymorphic_function

from tfport.adapters import graph_loops, op_facts
from tfport.adapters.keras_lines import Layers
from tfport.adapters.tf_draws import KIND, RANDOM_OPS
from tfport.program import Node

_SKIPPED = frozenset(
    {
        "CheckNumerics",
        "Const",
        "DebugGradientIdentity",
        "Identity",
        "IdentityN",
        "Placeholder",
        "PlaceholderWithDefault",
        "PreventGradient",
        "ReadVariableOp",
        "Snapshot",
        "StopGradient",
    }
)
"""Op types that hand on what others computed: no nodes, and looked through."""

_SHAPES = frozenset(
    {"Shape", "ShapeN", "Size", "Rank", "TensorArraySizeV3", "TensorListLength", "BroadcastGradientArgs"}
)
"""Op types whose value is known without their inputs' values."""

_DRAWS = RANDOM_OPS | {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
"""Op types that are no constants though nothing goes in."""


@contextlib.contextmanager
def flat_functions() -> Iterator[None]:
    """Inside, a `tf.function` that is called runs as the Python it was made of, converted by autograph as ever."""
    kind = polymorphic_function.Function
    original = kind.__call__

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        python = function._python_function
        if not function._autograph or tf.executing_eagerly():
            return python(*args, **kwargs)
        with _autographed(True):
            return autograph_util.py_func_from_autograph(python)(*args, **kwargs)

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    kind.__call__ = tf.autograph.experimental.do_not_convert(call)
    try:
        yield
    finally:
        kind.__call__ = original
        tf.config.run_functions_eagerly(before)


def flat_tensors(structure: Any) -> list[Any]:
    """The tensors of a nested structure, in its order; what is no tensor is left out."""
    return [each for each in tf.nest.flatten(structure) if tf.is_tensor(each)]


_TRACES = 8
"""Traces that are kept of one program."""


@dataclass
class TracedNodes:
    """A computation, traced: `run` gives its nodes' values."""

    concrete: Any
    """The ConcreteFunction, with one output a wanted tensor."""
    walk: _Walk
    wanted: list[Any]
    layers: Layers
    arguments: list[str]
    """Names of what is fed, in order."""
    loops: list[graph_loops.TappedWhile]
    """Loops that are entered."""
    graph: Any = field(repr=False, default=None)
    _facts: dict[Any, tuple[dict[str, str], str]] = field(default_factory=dict)

    def run(self, fed: Mapping[str, Any]) -> list[Node]:
        """Runs the graph; what the computation does beside its values is done too (updates of statistics)."""
        for loop in self.loops:
            loop.begin()
        values = self.concrete(*(tf.convert_to_tensor(fed[name]) for name in self.arguments))
        walk = self.walk
        found: dict[Any, list[Node]] = {}
        for loop in self.loops:
            found[loop.op] = self._entered(loop)
        nodes: list[Node] = []
        for tensor, value in zip(self.wanted, values, strict=True):
            for op in [op for op in found if op._id <= tensor.op._id]:
                nodes += found.pop(op)
            read, variables = walk.sources(tensor)
            kind = "Identity" if walk.leaving.get(tensor.ref()) is not None else walk.kind(tensor.op)
            attributes, where = self._facts_of(tensor.op, walk.constant)
            nodes.append(Node(walk.name(tensor), kind, read, variables, np.array(value.numpy()), attributes, where))
        return nodes

    def _entered(self, loop: graph_loops.TappedWhile) -> list[Node]:
        """The nodes of a loop, iteration by iteration."""
        walk = self.walk

        def moving(tensor: Any) -> bool:
            return tensor.ref() in loop.live

        def constant(tensor: Any) -> Any:
            return None if moving(tensor) else op_facts.constant_value(tensor)

        sources = graph_loops.Sources(loop, walk.behind, moving, walk.name)
        nodes = []
        for number, row in enumerate(loop.iterations):
            for tensor, value in zip(loop.tensors, row, strict=True):
                name, (read, variables) = sources.called(tensor, number), sources.read(tensor, number)
                attributes, where = self._facts_of(tensor.op, constant)
                nodes.append(Node(name, walk.kind(tensor.op), read, variables, value, attributes, where))
        walk.leaving |= {tensor.ref(): sources.leaving(tensor) for tensor in loop.op.outputs}
        return nodes

    def _facts_of(self, op: Any, constant: Callable[[Any], Any]) -> tuple[dict[str, str], str]:
        if op not in self._facts:
            line = op_facts.where(op, self.layers.of(op) if op.graph is self.graph else "")
            self._facts[op] = op_facts.attributes(op, constant), line
        return self._facts[op]


class Found(Exception):
    """Raised inside a traced function to stop there with these targets."""

    def __init__(self, targets: Any) -> None:
        super().__init__("the targets are known; nothing after them is traced")
        self.targets = targets


def trace(
    function: Callable[[dict[str, Any]], Any],
    inputs: Mapping[str, Any],
    variables: Mapping[str, Any] | Iterable[tuple[str, Any]],
    *,
    autograph: bool = False,
) -> TracedNodes:
    """Traces a function of named tensors.

    Args:
      function: called with name -> tensor; returns the targets, in any structure. It may raise `Found` with them.
      inputs: name -> example, whose dtype and shape are taken.
      variables: name -> variable (tf.Variable, or Keras 3's); those that are read and not named here go unnamed.
      autograph: whether Python's `if` and `for` over tensors are converted, as in a `tf.function`.
    """
    specs = [
        tf.TensorSpec(np.shape(value), tf.convert_to_tensor(value).dtype, name=_legal(name))
        for name, value in inputs.items()
    ]
    described: dict[str, Any] = {}
    layers = Layers()

    def body(*tensors: Any) -> list[Any]:
        graph = tf.compat.v1.get_default_graph()
        named = dict(zip(inputs, tensors, strict=True))
        try:
            with (
                flat_functions(),
                _autographed(autograph),
                layers.watched(graph),
                graph_loops.copied(graph, _numeric) as loops,
            ):
                called = tf.__internal__.autograph.tf_convert(function, _context()) if autograph else function
                targets = called(named)
        except Found as found:
            targets = found.targets
        walk = _Walk(graph, {tensor.ref(): name for name, tensor in named.items()}, _handles(variables))
        wanted = walk.wanted([each for each in flat_tensors(targets) if each.graph is graph])
        described["walk"], described["wanted"], described["graph"] = walk, wanted, graph
        described["loops"] = walk.entered(loops)
        # An Identity, since one tensor may be asked for twice and an input handed through.
        return [tf.identity(each) for each in wanted]

    concrete = tf.function(body, autograph=False).get_concrete_function(*specs)
    return TracedNodes(
        concrete,
        described["walk"],
        described["wanted"],
        layers,
        list(inputs),
        described["loops"],
        described["graph"],
    )


def nodes_of(
    function: Callable[[dict[str, Any]], Any],
    inputs: Mapping[str, Any],
    variables: Mapping[str, Any] | Iterable[tuple[str, Any]],
    *,
    autograph: bool = False,
) -> list[Node]:
    """Traces a function and runs it once on the same inputs; see `trace`."""
    return trace(function, inputs, variables, autograph=autograph).run(inputs)


class Traces:
    """The last few traces of one program, for those who look at many states of it."""

    def __init__(self) -> None:
        self._kept: dict[Any, TracedNodes] = {}

    def get(
        self,
        key: Any,
        step: int,
        function: Callable[[dict[str, Any]], Any],
        inputs: Mapping[str, Any],
        variables: Mapping[str, Any] | Iterable[tuple[str, Any]],
        *,
        autograph: bool = False,
        once: bool = False,
    ) -> TracedNodes:
        """The trace under this key for inputs of these shapes, made where there is none.

        Args:
          key: tells apart whatever Python would compute differently.
          step: that is looked at. A trace serves this step alone where Python drew while it was made, since what it
            drew stays in the trace.
          function: as for `trace`.
          inputs: as for `trace`.
          variables: as for `trace`.
          autograph: as for `trace`.
          once: whether the code's Python runs once for all steps in training too, as in a `tf.function`; without, a
            trace serves its step alone.
        """
        shapes = tuple((name, np.shape(value), str(getattr(value, "dtype", ""))) for name, value in inputs.items())
        for known in ((key, shapes, None), (key, shapes, step)):
            if known in self._kept:
                return self._kept[known]
        while len(self._kept) >= _TRACES:
            del self._kept[next(iter(self._kept))]
        before = _python_state()
        found = trace(function, inputs, variables, autograph=autograph)
        self._kept[key, shapes, None if once and _python_state() == before else step] = found
        return found


def _python_state() -> Any:
    """Where the global generators of Python and numpy stand."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  user code draws from it
    return random.getstate(), kind, np.asarray(keys).tobytes(), rest


def _legal(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in name).lstrip("_") or "input"


def _context() -> Any:
    from tensorflow.python.autograph.core import ag_ctx

    return ag_ctx.control_status_ctx()


@contextlib.contextmanager
def _autographed(enabled: bool) -> Iterator[None]:
    from tensorflow.python.autograph.core import ag_ctx

    status = ag_ctx.Status.ENABLED if enabled else ag_ctx.Status.UNSPECIFIED
    with ag_ctx.ControlStatusCtx(status=status):
        yield


def _handles(variables: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[int, str]:
    """id of a resource handle -> the variable's name."""
    pairs = variables.items() if isinstance(variables, Mapping) else variables
    found: dict[int, str] = {}
    for name, variable in pairs:
        native = getattr(variable, "_value", None)
        native = native if native is not None and hasattr(native, "handle") else variable
        handle = getattr(native, "handle", None)
        if handle is not None:
            found[id(handle)] = name
    return found


def _numeric(tensor: Any) -> bool:
    """Whether a tensor that varies is a node: it is a number or a bool, and no op that only hands it on made it."""
    kind = tensor.dtype
    return (kind.is_floating or kind.is_integer or kind.is_bool) and tensor.op.type not in _SKIPPED


class _Walk:
    """Reads which tensors of a graph are nodes, and what stands behind each."""

    def __init__(self, graph: Any, inputs: Mapping[Any, str], handles: Mapping[int, str]) -> None:
        self._inputs = inputs
        self._captured = {placeholder.ref(): handles.get(id(external)) for external, placeholder in graph.captures}
        self._constants = {
            placeholder.ref(): external
            for external, placeholder in graph.captures
            if hasattr(external, "numpy") and external.dtype.name not in ("resource", "variant", "string")
        }
        self._live: dict[Any, bool] = {}
        self._behind: dict[Any, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._reached: list[Any] = []
        self.leaving: dict[Any, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        """Output of a loop that was entered -> what it is computed from."""

    def entered(self, copied: Iterable[graph_loops.TappedWhile]) -> list[graph_loops.TappedWhile]:
        """Those loops that the targets are computed from."""
        reached = {tensor.op for tensor in self._reached}
        found = [loop for loop in copied if loop.op in reached]
        for loop in found:
            loop.settle([self._live.get(tensor.ref(), True) for tensor in loop.op.inputs])
        return found

    def behind(self, tensor: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the nodes and inputs, and of the variables, that a tensor is or is computed from."""
        self._behind.clear()
        return self._look(tensor)

    def _edges(self, op: Any) -> list[Any]:
        return [] if op.type in _SHAPES else list(op.inputs)

    def wanted(self, targets: Sequence[Any]) -> list[Any]:
        """The nodes that the targets are computed from, themselves included, in the order of the graph."""
        reached: dict[Any, Any] = {}
        pending = list(targets)
        while pending:
            tensor = pending.pop()
            if tensor.ref() in reached:
                continue
            reached[tensor.ref()] = tensor
            pending.extend(self._edges(tensor.op))
        for tensor in sorted(reached.values(), key=lambda each: each.op._id):
            self._live[tensor.ref()] = self._is_live(tensor)
        self._reached = list(reached.values())
        found = [tensor for tensor in self._reached if self.is_node(tensor)]
        last = {each.ref(): index for index, each in enumerate(self._through(target) for target in targets)}
        # The targets come last, in their own order; everything else as it was made.
        return sorted(
            found, key=lambda each: (each.ref() in last, last.get(each.ref(), 0), each.op._id, each.value_index)
        )

    def _through(self, tensor: Any) -> Any:
        """What a target is behind identities."""
        while tensor.op.type in _SKIPPED and len(tensor.op.inputs) > tensor.value_index and not self._source(tensor):
            tensor = tensor.op.inputs[tensor.value_index]
        return tensor

    def _source(self, tensor: Any) -> bool:
        return tensor.ref() in self._inputs or tensor.ref() in self._captured

    def _is_live(self, tensor: Any) -> bool:
        if tensor.ref() in self._constants:
            return False
        if self._source(tensor) or tensor.op.type in _DRAWS:
            return True
        return any(self._live.get(each.ref(), True) for each in self._edges(tensor.op))

    def is_node(self, tensor: Any) -> bool:
        """Whether it is a number or a bool that depends on inputs, variables or draws."""
        return _numeric(tensor) and not self._source(tensor) and self._live.get(tensor.ref(), False)

    def constant(self, tensor: Any) -> Any:
        """The value of an operand that depends on nothing that varies; None where it does or cannot be folded."""
        if tensor.ref() in self._constants:
            return self._constants[tensor.ref()].numpy()
        return None if self._live.get(tensor.ref(), True) else op_facts.constant_value(tensor)

    def name(self, tensor: Any) -> str:
        """The op's name, with ":n" behind it for another output than the first."""
        return str(tensor.op.name) if tensor.value_index == 0 else f"{tensor.op.name}:{tensor.value_index}"

    def kind(self, op: Any) -> str:
        """The op's type; of a fed draw the type of the op that it stands for."""
        if op.type in _DRAWS:
            with contextlib.suppress(ValueError):
                return str(op.get_attr(KIND).decode())
        return str(op.type)

    def sources(self, tensor: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the nodes and inputs behind a node, and of the variables that it reads."""
        if tensor.ref() in self.leaving:
            return self.leaving[tensor.ref()]
        nodes: dict[str, None] = {}
        variables: dict[str, None] = {}
        for each in self._edges(tensor.op):
            for name in self._look(each)[0]:
                nodes[name] = None
            for name in self._look(each)[1]:
                variables[name] = None
        return tuple(nodes), tuple(variables)

    def _look(self, tensor: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What stands behind one edge."""
        key = tensor.ref()
        if key in self._inputs:
            return (self._inputs[key],), ()
        if key in self._captured:
            name = self._captured[key]
            return (), (() if name is None else (name,))
        if self.is_node(tensor):
            return (self.name(tensor),), ()
        if key in self.leaving:
            return self.leaving[key]
        if key not in self._behind:
            self._behind[key] = ((), ())  # against loops of V1 graphs
            op = tensor.op
            if op.type in ("Identity", "IdentityN", "Snapshot", "StopGradient", "PreventGradient"):
                self._behind[key] = self._look(op.inputs[tensor.value_index])
            else:
                self._behind[key] = self.sources(tensor)
        return self._behind[key]
