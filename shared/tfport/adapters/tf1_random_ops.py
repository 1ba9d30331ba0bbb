"""The random ops of TF1's graphs: what each draws, and recorded numbers in its place."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import op_def_registry

from tfport.checking import candidates
from tfport.checking.draws import DrawSource
from tfport.program import Array

RECORDED = "_tfport_recorded"
"""Attribute of a PyFunc that stands in the place of a random op, and gives the same numbers whenever it runs."""
Prepared = Callable[[Sequence[Array]], list[Array]]
"""Arguments of a random op, those that `arguments` names -> its outputs."""

_KINDS = {
    "RandomUniform": "uniform",
    "StatelessRandomUniform": "uniform",
    "StatelessRandomUniformV2": "uniform",
    "StatefulUniform": "uniform",
    "RandomStandardNormal": "normal",
    "StatelessRandomNormal": "normal",
    "StatelessRandomNormalV2": "normal",
    "StatefulStandardNormalV2": "normal",
    "TruncatedNormal": "truncated_normal",
    "StatelessTruncatedNormal": "truncated_normal",
    "StatelessTruncatedNormalV2": "truncated_normal",
    "StatefulTruncatedNormal": "truncated_normal",
    "RandomUniformInt": "integers",
    "StatelessRandomUniformInt": "integers",
    "StatelessRandomUniformIntV2": "integers",
    "StatefulUniformInt": "integers",
    "RandomShuffle": "shuffle",
}
_SAMPLERS = {"LogUniformCandidateSampler": candidates.log_uniform, "UniformCandidateSampler": candidates.uniform}
_SAMPLER_NAMES = {"LogUniformCandidateSampler": "log_uniform", "UniformCandidateSampler": "uniform"}
_DRAWING = re.compile(
    r"\w*Random(?!ShuffleQueue|Dataset|IndexShuffle|GammaGrad|GetKey|GetAlg|Seed)\w*|Stateful(Uniform|Standard|Trunc)\w+"
    r"|\w*TruncatedNormal\w*|(?!All|Compute)\w*CandidateSampler|\w*Multinomial|SampleDistortedBoundingBox\w*"
)


def draws(op_type: str) -> bool:
    """Whether an op of this type gives random numbers."""
    return op_type in _KINDS or bool(_DRAWING.fullmatch(op_type))


def gives_numbers(op: Any) -> bool:
    """Whether an op gives random numbers, or looks recorded ones up."""
    return draws(op.type) or is_recorded(op)


def is_recorded(op: Any) -> bool:
    """Whether an op looks recorded numbers up."""
    return op.type == "PyFunc" and RECORDED in op.node_def.attr


def is_fed(op_type: str) -> bool:
    """Whether there are recorded numbers for an op of this type."""
    return op_type in _KINDS or op_type in _SAMPLERS or op_type == "Multinomial"


def kind_of(node: Any) -> str:
    """What the op of a NodeDef draws, as `DrawInfo.kind` has it."""
    if node.op in _SAMPLERS:
        return candidates.kind(_SAMPLER_NAMES[node.op], node.attr["range_max"].i, node.attr["unique"].b)
    return _KINDS.get(node.op, str(node.op))


def arguments(node: Any) -> list[int]:
    """The places of the inputs that must be known to draw in place of the op of a NodeDef: its shape first, if any."""
    if node.op in _SAMPLERS or _KINDS.get(node.op) == "shuffle":
        return [0]
    if node.op == "Multinomial":
        return [0, 1]
    names = [argument.name for argument in op_def_registry.get(node.op).input_arg]
    return [names.index(name) for name in ("shape", *(["minval", "maxval"] if kind_of(node) == "integers" else []))]


def prepared(node: Any, source: DrawSource, given: Sequence[Array]) -> Prepared:
    """Draws what the op of a NodeDef draws; what it returns gives the same numbers whenever it is called.

    Args:
      node: the op's.
      source: the numbers.
      given: the arguments that `arguments` names.
    """
    if node.op in _SAMPLERS:
        count, unique, limit = node.attr["num_sampled"].i, node.attr["unique"].b, node.attr["range_max"].i
        generator = source.number(kind_of(node), (count,))
        sampler = _SAMPLERS[node.op]
        return lambda given: list(sampler(copy.deepcopy(generator), given[0], count, unique, limit))
    if node.op == "Multinomial":
        sizes = (given[0].shape[0], int(given[1]), given[0].shape[1])
        noise = source.number("multinomial", sizes).gumbel(size=sizes)
        (output,) = op_def_registry.get(node.op).output_arg
        integer = tf.as_dtype(type_of(output, node)).as_numpy_dtype
        return lambda given: [np.argmax(given[0][:, None, :] + noise, axis=-1).astype(integer)]
    if kind_of(node) == "shuffle":
        order = source.shuffle(len(given[0])) if given[0].ndim else ...
        return lambda given: [given[0][order]]
    shape = tuple(int(size) for size in np.ravel(given[0]))
    (output,) = op_def_registry.get(node.op).output_arg
    dtype = np.dtype(tf.as_dtype(type_of(output, node)).as_numpy_dtype).name
    if kind_of(node) == "integers":
        values = source.integers(shape, int(given[1]), int(given[2]), dtype)
    else:
        values = getattr(source, kind_of(node))(shape, dtype)
    return lambda _: [values]


def type_of(argument: Any, node: Any) -> int:
    """The type of one of the arguments of an op's definition, in a NodeDef."""
    if argument.type:
        return int(argument.type)
    defaults = {each.name: each.default_value.type for each in op_def_registry.get(node.op).attr}
    given = node.attr[argument.type_attr].type if argument.type_attr in node.attr else 0
    return int(given or defaults[argument.type_attr])
