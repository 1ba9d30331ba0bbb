"""A TF1 graph that was built in float32, rewritten to compute in float64.

Every dtype of the GraphDef that says float32 says float64 afterwards, in the bodies of functions too, wherever
TensorFlow has a CPU kernel for that. Where it has none, the op is written out in float64 (batch normalisation and local
response normalisation, which have float32 kernels alone), or stays in float32 between two casts. What reads files,
records, strings or Python functions stays as it is.

Numbers are widened so that the graph is one that the same code could have built in float64: 0.2 is 0.2, not the float32
next to it. What an optimizer takes as its numbers keeps its float32 value, since TF1's optimizers round them whatever
the variables are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.framework import node_def_pb2, types_pb2
from tensorflow.python.framework import graph_to_function_def, kernels, op_def_registry

from tfport.adapters.graph_rewriting import original, rewritten

_FLOAT, _DOUBLE = types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE
_WIDER = {
    _FLOAT: _DOUBLE,
    types_pb2.DT_FLOAT_REF: types_pb2.DT_DOUBLE_REF,
    types_pb2.DT_COMPLEX64: types_pb2.DT_COMPLEX128,
    types_pb2.DT_COMPLEX64_REF: types_pb2.DT_COMPLEX128_REF,
}
_LEFT = re.compile(
    r"\w*(Dataset|Iterator|HashTable|Lookup|PyFunc|Summary)\w*|Optional\w+|Bitcast|(Decode|Encode|Parse|Restore|Save)\w*"
    r"|(S|Des)erialize\w+|\w*Reader\w*|AsString|StringFormat|ShardedFilename|MergeV2Checkpoints"
)
"""Ops whose float32 is the dtype of something outside the graph, or of its bytes."""
_APPLY = re.compile(r"(Resource)?(Sparse)?Apply\w+")
_NOT_NUMBERS = ("grad", "delta", "indices", "beta1_power", "beta2_power")
"""What an optimizer's op takes beside variables and its own numbers."""
_OWN_NUMBERS = re.compile(r"(?:learning_rate|beta1|beta2|epsilon|decay|momentum|rho)(?:_\d+)?")
_POWER = re.compile(r"(?:.*/)?beta[12]_power/initial_value(?:_\d+)?")
_PASSING = ("Identity", "Enter", "Cast", "Reshape")
_HANDING_ON = ("Identity", "Enter", "Exit", "Merge", "Switch", "NextIteration", "AddN")
_STORED = ("Const", "Placeholder", "PlaceholderWithDefault", "VariableV2", "Variable", "ReadVariableOp", "VarHandleOp")
_CAST = re.compile(r"/\w+_to_float(32|64)$")
"""What the name of a cast adds to that of the op whose output it takes."""
_WRITTEN = 7
"""A number with so many digits at most was written by a person; with more it is the result of something."""


def is_float32(graph: Any) -> bool:
    """Whether a graph has anything in float32."""
    return any(
        tensor.dtype.base_dtype in (tf.float32, tf.complex64) for op in graph.get_operations() for tensor in op.outputs
    )


def in_float64(graph: Any) -> Any:
    """A new tf.Graph that computes in float64 what `graph` computes in float32; its ops keep their names.

    Raises:
      Exception: TensorFlow cannot export the graph, or cannot import what was made of it.
    """

    def widen(definition: Any) -> None:
        rewriting = _Rewriting(definition)
        nodes = rewriting.nodes(list(definition.node), {})
        nodes += _rounded_numbers(nodes)
        del definition.node[:]
        definition.node.extend(nodes)
        definition.library.function.extend(rewriting.added)

    return rewritten(graph, widen)


def written(op: Any) -> Any:
    """The op of the user's own graph that an op of a rewritten one stands for; itself in any other graph."""
    graph = original(op.graph)
    if graph is None:
        return op
    try:
        return graph.get_operation_by_name(_CAST.sub("", op.name))
    except KeyError:
        return op


def counterpart(graph: Any, tensor: Any) -> Any:
    """The tensor of a rewritten graph that has the value of one of the original."""
    name, _, index = tensor.name.partition(":")
    try:
        return graph.get_tensor_by_name(f"{_cast_name(name, index, _DOUBLE)}:0")
    except KeyError:
        return graph.get_tensor_by_name(tensor.name)


class _Rewriting:
    """The functions of a graph's library, and what becomes of them."""

    def __init__(self, definition: Any) -> None:
        self._library = {each.signature.name: each for each in definition.library.function}
        self._doubled: dict[str, str] = {}
        self._signatures: dict[str, Any] = {name: each.signature for name, each in self._library.items()}
        self._fixed = _optimizer_constants(definition)
        self.added: list[Any] = []
        """Functions that the rewritten graph has beside the original's."""

    def nodes(
        self, nodes: list[Any], arguments: dict[str, int], ends: dict[str, tuple[str, int]] | None = None
    ) -> list[Any]:
        """The nodes of a graph or of a function's body, rewritten, with the casts that they need.

        Args:
          nodes: of the graph or the body.
          arguments: a function's arguments and their dtypes, rewritten.
          ends: a function's results -> what gives them and the dtype they must have; brought up to date.
        """
        flows = _flows(nodes)
        after = [node if node.name in flows else self._rewritten(node) for node in nodes]
        renamed = self._renamed(nodes, after) if ends is not None else {}
        produced: dict[str, int] = dict(arguments)
        for node in after:
            definition = self._definition(node)
            if definition is None:
                continue
            flat = 0
            for argument, dtypes in _arguments(definition.output_arg, node.attr):
                for index, dtype in enumerate(dtypes):
                    produced[f"{node.name}:{argument}:{index}" if ends is not None else f"{node.name}:{flat}"] = dtype
                    flat += 1
        casts: dict[str, Any] = {}

        def fitted(source: str, wanted: int) -> str:
            source = renamed.get(source, source)
            known = source if ends is not None or ":" in source else f"{source}:0"
            given = produced.get(known)
            if given is None or _base(given) == _base(wanted) or {_base(given), _base(wanted)} != {_FLOAT, _DOUBLE}:
                return source
            producer, _, output = known.partition(":")
            name = _cast_name(producer, output or "0", _base(wanted))
            if name not in casts:
                casts[name] = _cast(name, source, _base(given), _base(wanted))
            return f"{name}:y:0" if ends is not None else name

        for node in after:
            definition = self._definition(node)
            if definition is None:
                continue
            wanted = [dtype for _, dtypes in _arguments(definition.input_arg, node.attr) for dtype in dtypes]
            data = [each for each in node.input if not each.startswith("^")]
            control = [each for each in node.input if each.startswith("^")]
            if len(wanted) == len(data):
                changed = [fitted(source, dtype) for source, dtype in zip(data, wanted, strict=True)]
                if changed != data:
                    del node.input[:]
                    node.input.extend([*changed, *control])
        for result, (source, dtype) in list((ends or {}).items()):
            assert ends is not None
            ends[result] = fitted(source, dtype), dtype
        return [*after, *casts.values()]

    def _renamed(self, before: Sequence[Any], after: Sequence[Any]) -> dict[str, str]:
        """What a function's body calls the results of nodes that became calls."""
        found: dict[str, str] = {}
        for old, new in zip(before, after, strict=True):
            if old.op == new.op or old.op in self._library:
                continue
            names = _arguments(op_def_registry.get(old.op).output_arg, old.attr)
            flat = [f"{old.name}:{name}:{index}" for name, dtypes in names for index in range(len(dtypes))]
            found |= {name: f"{new.name}:output:{index}" for index, name in enumerate(flat)}
        return found

    def _definition(self, node: Any) -> Any:
        return self._signatures.get(node.op) or op_def_registry.get(node.op)

    def _rewritten(self, node: Any) -> Any:
        if _LEFT.fullmatch(node.op):
            return node
        new = node_def_pb2.NodeDef()
        new.CopyFrom(node)
        if node.op in self._library:
            new.op = self._function(node.op)
            return new
        definition = op_def_registry.get(node.op)
        if definition is None:
            return node
        changed = False
        for attribute in definition.attr:
            value = node.attr.get(attribute.name, attribute.default_value)
            if attribute.type == "type" and value.type in _WIDER:
                new.attr[attribute.name].type = _WIDER[value.type]
                changed = True
            elif attribute.type == "list(type)" and any(each in _WIDER for each in value.list.type):
                wider = [_WIDER.get(each, each) for each in value.list.type]
                new.attr[attribute.name].list.type[:] = wider
                changed = True
            elif attribute.type in ("func", "list(func)"):
                for function in (
                    [new.attr[attribute.name].func]
                    if attribute.type == "func"
                    else list(new.attr[attribute.name].list.func)
                ):
                    if function.name in self._library:
                        function.name = self._function(function.name)
        if not changed:
            return new
        if not _has_kernel(
            node.op, tuple((each.name, _types(new.attr[each.name])) for each in definition.attr if "type" in each.type)
        ):
            return self._written_out(node) or node
        if node.op == "Const":
            value = tf.make_ndarray(node.attr["value"].tensor)
            wide = value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)
            if value.dtype == np.float32 and node.name not in self._fixed:
                wide = _as_written(value)
            new.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(wide, shape=wide.shape))
        return new

    def _function(self, name: str) -> str:
        """The name of a function's float64 version, made where there is none yet."""
        if name in self._doubled:
            return self._doubled[name]
        self._doubled[name] = f"{name}_float64"
        original = self._library[name]
        new = type(original)()
        new.CopyFrom(original)
        new.signature.name = self._doubled[name]
        for argument in [*new.signature.input_arg, *new.signature.output_arg]:
            argument.type = _WIDER.get(argument.type, argument.type)
        self._signatures[new.signature.name] = new.signature
        arguments = {each.name: each.type for each in new.signature.input_arg}
        ends = {each.name: (new.ret[each.name], each.type) for each in new.signature.output_arg}
        nodes = self.nodes(list(new.node_def), arguments, ends)
        del new.node_def[:]
        new.node_def.extend(nodes)
        for result, (source, _) in ends.items():
            new.ret[result] = source
        self.added.append(new)
        return self._doubled[name]

    def _written_out(self, node: Any) -> Any:
        """A call of a function that does in float64 what an op without a float64 kernel does; None if none is known."""
        make = _WRITTEN_OUT.get(node.op)
        if make is None:
            return None
        attributes = {name: _plain(value) for name, value in node.attr.items()}
        graph = tf.Graph()
        with graph.as_default():
            ranks = make.ranks(attributes)
            given = [tf.placeholder(tf.float64, [None] * rank if rank is not None else None) for rank in ranks]
            results = [tf.identity(each) for each in make.compute(attributes, *given)]
        inside = [op for op in graph.get_operations() if op.type != "Placeholder"]
        function = graph_to_function_def.graph_to_function_def(graph, inside, given, results)
        function.signature.name = f"{node.op}_float64_{len(self.added)}"
        self.added.append(function)
        call = node_def_pb2.NodeDef(name=node.name, op="PartitionedCall", device=node.device, input=node.input)
        call.attr["f"].func.name = function.signature.name
        call.attr["Tin"].list.type.extend([_DOUBLE] * len(given))
        call.attr["Tout"].list.type.extend([_DOUBLE] * len(results))
        return call


# --- Numbers of optimizers --------------------------------------------------------------------------------------------
def _optimizer_constants(definition: Any) -> set[str]:
    """Names of the constants that optimizers take for their numbers."""
    nodes = {node.name: node for node in definition.node}
    scopes = {name.partition("/update_")[0] for name in nodes if "/update_" in name}
    found = set()
    for node in definition.node:
        scope, _, last = node.name.rpartition("/")
        if (scope in scopes and _OWN_NUMBERS.fullmatch(last)) or _POWER.fullmatch(node.name):
            found.add(node.name)
        found |= {_root(nodes, source).name for _, source in _numbers_of(node)}
    return {name for name in found if nodes[name].op == "Const"}


def _numbers_of(node: Any) -> list[tuple[int, str]]:
    """Place among its inputs and source of each number that an optimizer's op takes."""
    definition = op_def_registry.get(node.op) if _APPLY.fullmatch(node.op) else None
    if definition is None:
        return []
    named = list(zip(definition.input_arg, node.input, strict=False))
    return [
        (place, source)
        for place, (argument, source) in enumerate(named)
        if argument.name not in _NOT_NUMBERS and not argument.is_ref and argument.type != types_pb2.DT_RESOURCE
    ]


def _root(nodes: Mapping[str, Any], source: str) -> Any:
    node = nodes[source.partition(":")[0].removeprefix("^")]
    while node.op in _PASSING and node.input:
        node = nodes[node.input[0].partition(":")[0]]
    return node


def _rounded_numbers(nodes: Iterable[Any]) -> list[Any]:
    """Casts to float32 and back, behind each number of an optimizer that is computed, as a rate that decays is."""
    known = {node.name: node for node in nodes}
    added: dict[str, Any] = {}
    for node in list(known.values()):
        for place, source in _numbers_of(node):
            if node.attr["T"].type != _DOUBLE or _root(known, source).op in _STORED:
                continue
            name = source.replace(":", "_")
            down, up = f"{name}/rounded", f"{name}/rounded_to_float64"
            if up not in added:
                added[down] = _cast(down, source, _DOUBLE, _FLOAT)
                added[up] = _cast(up, down, _FLOAT, _DOUBLE)
            node.input[place] = up
    return list(added.values())


def _as_written(value: Any) -> Any:
    """float32 numbers as float64: those that a person wrote as they were written, others exactly as they are."""
    if not value.size or value.size > 64 or not np.isfinite(value).all():
        return value.astype(np.float64)
    texts = [np.format_float_scientific(each, unique=True) for each in value.reshape(-1)]
    if any(sum(letter.isdigit() for letter in text.partition("e")[0]) > _WRITTEN for text in texts):
        return value.astype(np.float64)
    return np.array([float(text) for text in texts]).reshape(value.shape)


def _flows(nodes: Sequence[Any]) -> set[str]:
    """Nodes that hand on the flow of a TensorArray, which is float32 whatever the array holds, and no value."""
    outputs: set[str] = set()
    for node in nodes:
        if node.op.startswith("TensorArray"):
            for index, argument in enumerate(op_def_registry.get(node.op).output_arg):
                if argument.name in ("flow", "flow_out"):
                    outputs |= {f"{node.name}:{index}", f"{node.name}:{argument.name}:0"}
                    outputs |= set() if index else {node.name}
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for source in node.input if node.op in _HANDING_ON else ():
            readers.setdefault(source if source in outputs else source.partition(":")[0], []).append(node.name)
    found: set[str] = set()
    pending = [reader for output in outputs for reader in readers.get(output, ())]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += readers.get(name, [])
    return found


# --- Ops and their dtypes ---------------------------------------------------------------------------------------------
def _cast(name: str, source: str, given: int, wanted: int) -> Any:
    cast = node_def_pb2.NodeDef(name=name, op="Cast", input=[source])
    cast.attr["SrcT"].type, cast.attr["DstT"].type = given, wanted
    return cast


def _cast_name(node: str, output: str, wanted: int) -> str:
    """What the cast of a node's output is called."""
    return f"{node}/{output.replace(':', '_')}_to_{'float64' if wanted == _DOUBLE else 'float32'}"


def _base(dtype: int) -> int:
    return dtype - 100 if dtype > 100 else dtype  # DT_FLOAT_REF is DT_FLOAT + 100


def _types(value: Any) -> tuple[int, ...]:
    return tuple(value.list.type) if value.HasField("list") else (value.type,)


def _arguments(arguments: Iterable[Any], attributes: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """The name of each argument of an op, and the dtypes of the tensors that it stands for."""
    found = []
    for each in arguments:
        if each.type_list_attr:
            dtypes = list(attributes[each.type_list_attr].list.type)
        else:
            dtype = each.type or attributes[each.type_attr].type
            dtypes = [dtype] * (attributes[each.number_attr].i if each.number_attr else 1)
        found.append((each.name, dtypes))
    return found


@functools.cache
def _has_kernel(op: str, attributes: tuple[tuple[str, tuple[int, ...]], ...]) -> bool:
    """Whether an op may have these dtypes, and has a kernel for them on the CPU."""
    given = dict(attributes)
    for attribute in op_def_registry.get(op).attr:
        allowed = attribute.allowed_values.list.type
        if allowed and any(each not in allowed for each in given.get(attribute.name, ())):
            return False
    registered = kernels.get_registered_kernels_for_op(op).kernel
    return not registered or any(
        kernel.device_type in ("CPU", "DEFAULT")
        and all(
            each in constraint.allowed_values.list.type
            for constraint in kernel.constraint
            for each in given.get(constraint.name, ())
        )
        for kernel in registered
    )


def _plain(value: Any) -> Any:
    """An attribute's value as Python has it."""
    found: Any = getattr(value, value.WhichOneof("value"))
    return found.decode() if isinstance(found, bytes) else found


# --- Ops that have float32 kernels alone ------------------------------------------------------------------------------
@dataclass(frozen=True)
class _WrittenOut:
    """What an op computes, of float64 tensors."""

    ranks: Callable[[Mapping[str, Any]], Sequence[int | None]]
    """Attributes -> the rank of each input."""
    compute: Callable[..., Sequence[Any]]
    """Attributes and inputs -> outputs."""


def _channels_last(attributes: Mapping[str, Any]) -> bool:
    return bool(attributes.get("data_format", "NHWC").endswith("C"))


def _image_rank(attributes: Mapping[str, Any]) -> int:
    return len(attributes.get("data_format", "NHWC"))


def _by_channel(attributes: Mapping[str, Any]) -> tuple[list[int], Callable[[Any], Any]]:
    """The axes that a batch normalisation averages over, and what lays one number a channel beside them."""
    rank = _image_rank(attributes)
    channel = rank - 1 if _channels_last(attributes) else 1
    shape = [-1 if axis == channel else 1 for axis in range(rank)]
    return [axis for axis in range(rank) if axis != channel], lambda each: tf.reshape(each, shape)


def _batch_norm(attributes: Mapping[str, Any], x: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> list[Any]:
    axes, laid = _by_channel(attributes)
    epsilon, training = _short(attributes.get("epsilon", 1e-4)), attributes.get("is_training", True)
    shown_mean, shown_variance = mean, variance
    if training:
        old_mean, old_variance = mean, variance
        mean = tf.reduce_mean(x, axes)
        variance = tf.reduce_mean(tf.square(x - laid(mean)), axes)
        count = tf.cast(tf.reduce_prod(tf.gather(tf.shape(x), axes)), tf.float64)
        shown_mean, shown_variance = mean, variance * count / tf.maximum(count - 1, 1)
        factor = _short(attributes.get("exponential_avg_factor", 1.0))
        if factor != 1.0:
            shown_mean = (1 - factor) * old_mean + factor * shown_mean
            shown_variance = (1 - factor) * old_variance + factor * shown_variance
    y = (x - laid(mean)) * laid(tf.rsqrt(variance + epsilon) * scale) + laid(offset)
    return [y, shown_mean, shown_variance, mean, variance]


def _batch_norm_gradient(
    attributes: Mapping[str, Any], dy: Any, x: Any, scale: Any, mean: Any, variance: Any, *_: Any
) -> list[Any]:
    axes, laid = _by_channel(attributes)
    inverse = tf.rsqrt(variance + _short(attributes.get("epsilon", 1e-4)))
    normal = (x - laid(mean)) * laid(inverse)
    slope = dy
    if attributes.get("is_training", True):
        slope = dy - laid(tf.reduce_mean(dy, axes)) - normal * laid(tf.reduce_mean(dy * normal, axes))
    empty = tf.zeros([0], tf.float64)
    return [laid(scale * inverse) * slope, tf.reduce_sum(dy * normal, axes), tf.reduce_sum(dy, axes), empty, empty]


def _window(attributes: Mapping[str, Any], x: Any) -> Any:
    """The sum over each channel and its neighbours."""
    depth, radius = tf.shape(x)[3], attributes.get("depth_radius", 5)
    near = tf.linalg.band_part(tf.ones([depth, depth], tf.float64), radius, radius)
    return tf.reshape(tf.matmul(tf.reshape(x, [-1, depth]), near), tf.shape(x))


def _response(attributes: Mapping[str, Any], x: Any) -> Any:
    bias, alpha = _short(attributes.get("bias", 1.0)), _short(attributes.get("alpha", 1.0))
    return bias + alpha * _window(attributes, tf.square(x))


def _local_response(attributes: Mapping[str, Any], x: Any) -> list[Any]:
    return [x * tf.pow(_response(attributes, x), -_short(attributes.get("beta", 0.5)))]


def _local_response_gradient(attributes: Mapping[str, Any], dy: Any, x: Any, y: Any) -> list[Any]:
    alpha, beta = _short(attributes.get("alpha", 1.0)), _short(attributes.get("beta", 0.5))
    response = _response(attributes, x)
    return [dy * tf.pow(response, -beta) - 2 * alpha * beta * x * _window(attributes, dy * y / response)]


def _short(number: float) -> float:
    """An attribute, which is kept in float32, as it was written."""
    return float(_as_written(np.float32(number)))


_NORM = _WrittenOut(lambda attributes: [_image_rank(attributes), 1, 1, 1, 1], _batch_norm)
_NORM_3 = _WrittenOut(
    _NORM.ranks, lambda attributes, *given: [*_batch_norm(attributes, *given), tf.zeros([0], tf.float64)]
)
_NORM_GRADIENT = _WrittenOut(lambda attributes: [_image_rank(attributes)] * 2 + [1] * 3, _batch_norm_gradient)
_NORM_3_GRADIENT = _WrittenOut(
    lambda attributes: [_image_rank(attributes)] * 2 + [1] * 3 + [None], _batch_norm_gradient
)
_WRITTEN_OUT = {
    "FusedBatchNorm": _NORM,
    "FusedBatchNormV2": _NORM,
    "FusedBatchNormV3": _NORM_3,
    "FusedBatchNormGrad": _NORM_GRADIENT,
    "FusedBatchNormGradV2": _NORM_GRADIENT,
    "FusedBatchNormGradV3": _NORM_3_GRADIENT,
    "LRN": _WrittenOut(lambda _: [4], _local_response),
    "LRNGrad": _WrittenOut(lambda _: [4] * 3, _local_response_gradient),
}
"""Op -> what it computes."""
