"""Which ops a graph from a file may have.

A GraphDef is a program: TensorFlow's ops read and write files, talk to other machines, run Python and load libraries.
A graph from a file is only imported when every node, those of its function library included, is on this list:

* an op that TensorFlow registers as stateless, all of whose declared arguments are numbers (or open), and that is not
  among `_REFUSED`: arithmetic;
* an op of `_ALLOWED`: variables, random numbers, control flow, tensor arrays and lists, tables of constants, strings,
  summaries, and checks;
* an op of `SAVING`: what a tf.train.Saver leaves in every graph. These may be there and are never run: checkpoints are
  read by TensorFlow's own reader, on a path that the user gave. A phase or an output that needs one is refused;
* a call of a function of the graph's own library.

A sampler that reads its vocabulary from a file (`FixedUnigramCandidateSampler`) is refused when it does.

So nothing that a file says reads or writes a file, and no Python of its own runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import op_def_registry

from tfport.errors import UserError

_REFUSED = re.compile(
    r"_.*|PyFunc.*|EagerPyFunc|Abort|ImmutableConst|CustomAggregator|Debug.*|Copy|CopyHost|CopyToMesh.*|CopyOp|Snapshot"
    r"|Xla.*|Mlir.*|T[Pp][Uu].*|GetTpu.*|DTensor.*|Relayout.*|Collective.*|Nccl.*|MapDefun|BatchFunction|RemoteCall"
    r"|SymbolicGradient|Boosted.*|.*Dataset.*|.*Iterator.*|GetDeadline|GetStats.*|HostConst|.*SparseCore.*"
)
_ALLOWED = re.compile(
    # variables
    r"Variable|VariableV2|VarHandleOp|ReadVariableOp|AutoReloadVariable|VarIsInitializedOp|IsVariableInitialized"
    r"|VariableShape|Assign|AssignAdd|AssignSub|Assign(Add|Sub)?VariableOp|DestroyResourceOp|DisableCopyOnRead|Resource(Sparse)?Apply\w+"
    r"|ResourceScatter\w+|ResourceGather(Nd)?|ResourceStridedSliceAssign|ResourceCountUpTo|TemporaryVariable"
    # random numbers
    r"|Random(Uniform|UniformInt|StandardNormal|Shuffle|Gamma|Poisson|PoissonV2|Crop)|TruncatedNormal|Multinomial"
    r"|ParameterizedTruncatedNormal|Stateless(Random|Truncated|Multinomial|Shuffle|Parameterized)\w*|Stateful(Uniform"
    r"|UniformInt|UniformFullInt|StandardNormalV2|TruncatedNormal|RandomBinomial)|\w+CandidateSampler|RngSkip"
    r"|RngReadAndSkip|ComputeAccidentalHits"
    # control flow
    r"|If|StatelessIf|While|StatelessWhile|Case|StatelessCase|PartitionedCall|StatefulPartitionedCall|Placeholder"
    # what loops and branches keep
    r"|TensorArray\w*|TensorList\w+|EmptyTensorList|Stack(Push|Pop|Close)?(V2)?|Optional(FromValue|GetValue|HasValue|None)"
    # tables of constants, examples and strings
    r"|HashTable(V2)?|InitializeTable(V2)?|LookupTable(Find|Size)(V2)?|Parse(Single)?Example(V2)?|StringTo\w+|StringJoin"
    r"|StringSplit(V2)?|StringLower|StringUpper|StringStrip|StringLength|StringFormat|AsString|ReduceJoin|Substr"
    r"|(Static)?Regex(FullMatch|Replace)|Decode(Raw|Jpeg|Png|Bmp|Gif|Image)|Encode(Jpeg|Png)"
    # summaries and checks
    r"|(Scalar|Histogram|Image|Audio|Tensor|Merge)Summary(V2)?|Assert|Print|CheckNumerics(V2)?|GuaranteeConst|Empty|DeepCopy|CudnnRNN\w*"
)
SAVING = re.compile(r"Save(V2|Slices)?|Restore(V2|Slice)?|MergeV2Checkpoints|ShardedFile(name|spec)")
"""Ops of a Saver: allowed to be there, not to be run."""

_NOT_NUMBERS = (types_pb2.DT_STRING, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT)


def is_harmless(op_type: str) -> bool:
    """Whether an op of this type, registered by TensorFlow, may be in a graph from a file."""
    definition = op_def_registry.get(op_type)
    if definition is None or _REFUSED.fullmatch(op_type):
        return False
    if _ALLOWED.fullmatch(op_type) or SAVING.fullmatch(op_type):
        return True
    arguments = [*definition.input_arg, *definition.output_arg]
    return not definition.is_stateful and all(argument.type not in _NOT_NUMBERS for argument in arguments)


def check(graph_def: Any, file: str) -> None:
    """Refuses a GraphDef that holds an op which is not on the list.

    Raises:
      UserError: names the first such node and its type.
    """
    functions = {function.signature.name for function in graph_def.library.function}
    for node, where in _nodes(graph_def):
        vocabulary = node.attr["vocab_file"].s if node.op == "FixedUnigramCandidateSampler" else b""
        if (node.op in functions or is_harmless(node.op)) and not vocabulary:
            continue
        known = op_def_registry.get(node.op) is not None
        reason = (
            "such an op may touch files, the network or Python, so a graph from a file may not have it"
            if known
            else "TensorFlow has no such op, so it is a custom one that would have to be loaded"
        )
        raise UserError(
            f"{file}: operation {node.name!r}{where} is of type {node.op}: {reason}. Expected only harmless ops: strip "
            "it from the graph and export again, or give the function that builds the graph as module:function, whose "
            "code runs by your own word."
        )


def check_not_saving(ops: Iterable[Any], file: str, what: str) -> None:
    """Refuses ops of a Saver among those that would be run.

    Raises:
      UserError: names the first such op.
    """
    for op in ops:
        if SAVING.fullmatch(op.type):
            raise UserError(
                f"{file}: {what} would run {op.name!r}, of type {op.type}, which reads or writes files; expected "
                "arithmetic only. Name another op, or give the function that builds the graph as module:function."
            )


def _nodes(graph_def: Any) -> Iterator[tuple[Any, str]]:
    for node in graph_def.node:
        yield node, ""
    for function in graph_def.library.function:
        for node in function.node_def:
            yield node, f" of function {function.signature.name!r}"
