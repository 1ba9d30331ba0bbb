"""What a graph's op says of itself: its attributes, its constant operands, and the line that made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from tensorflow.python.framework import op_def_registry, tensor_util

from tfport.program import shown
from tfport.user_code import user_line

_NOT_SAID = frozenset(
    {
        "N",
        "container",
        "explicit_paddings",
        "incompatible_shape_error",
        "message",
        "num_split",
        "parallel_iterations",
        "seed",
        "seed2",
        "shared_name",
        "use_cudnn_on_gpu",
        "validate_indices",
    }
)
"""Attributes that say how an op is computed, or that its inputs say anyway."""
_COMMUTATIVE = {"Mul": "factor", "Add": "term", "AddV2": "term", "Maximum": "bound", "Minimum": "bound"}
"""What the constant operand is called of an op that has two and makes no difference between them."""
_HANDING_ON = ("Identity", "Enter", "StopGradient", "Snapshot", "Switch", "GuaranteeConst")


def attributes(op: Any, constant: Callable[[Any], Any]) -> dict[str, str]:
    """Attributes and constant operands by name, as text.

    Args:
      op: of any graph.
      constant: the value of an operand that depends on nothing that varies, None where it does or is not known.
    """
    found = _texts({name: op.node_def.attr[name] for name in op.node_def.attr})
    if "explicit_paddings" in op.node_def.attr and (sides := list(op.node_def.attr["explicit_paddings"].list.i)):
        found["explicit_paddings"] = shown(sides)
    constants = {name: value for name, tensor in operands(op) if (value := constant(tensor)) is not None}
    if len(constants) == 1 and op.type in _COMMUTATIVE:
        constants = {_COMMUTATIVE[op.type]: next(iter(constants.values()))}
    found |= {name: shown(value) for name, value in constants.items()}
    return {name: text for name, text in found.items() if text}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Attributes as text, but for those that are not said and those that are no plain values."""
    found: dict[str, str] = {}
    for each, value in values.items():
        if each.startswith("_") or each in _NOT_SAID:
            continue
        kind = value.WhichOneof("value")
        if kind in ("s", "i", "f", "b"):
            plain = getattr(value, kind)
            found[each] = plain.decode(errors="replace") if kind == "s" else shown(plain)
        elif kind == "list" and (values_held := list(value.list.i) or list(value.list.f)):
            found[each] = shown(values_held)
        elif kind == "list" and value.list.s:
            found[each] = ", ".join(text.decode(errors="replace") for text in value.list.s)
    return found


@cache
def defaults(kind: str) -> Mapping[str, str]:
    """The attributes that an op of a type has where nobody gives them, as text: those that older versions lack too."""
    definition = op_def_registry.get(kind)
    given = {} if definition is None else {each.name: each.default_value for each in definition.attr}
    return {name: text for name, text in _texts(given).items() if text}


def operands(op: Any) -> Iterator[tuple[str, Any]]:
    """The op's inputs by the names that its definition gives them."""
    tensors = list(op.inputs)
    index = 0
    for argument in op.op_def.input_arg:
        if argument.number_attr:
            count = int(op.get_attr(argument.number_attr))
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        else:
            count = 1
        for number, tensor in enumerate(tensors[index : index + count]):
            yield (argument.name if count == 1 else f"{argument.name}[{number}]"), tensor
        index += count


def constant_value(tensor: Any) -> Any:
    """The value of a tensor that is computed from constants alone, as far as it can be folded; else None."""
    while tensor.op.type in _HANDING_ON and len(tensor.op.inputs):
        tensor = tensor.op.inputs[0]
    if tensor.dtype.name in ("resource", "variant", "string"):
        return None
    try:
        value = tensor_util.constant_value(tensor)
    except (TypeError, ValueError, NotImplementedError):
        return None
    return None if value is None else np.asarray(value)


def where(op: Any, layer: str = "") -> str:
    """The line of the user's code that made an op, as "gan.py:41"; empty where that is not known."""
    trace = getattr(op, "traceback", None)
    if trace is None:
        return layer
    return user_line(((frame.filename, frame.lineno) for frame in trace), layer)
