"""Inputs, outputs, train ops and losses of a TF1 graph: those the user named, else those that can be told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from tfport.adapters.tf1_apply_ops import Update, updates_among
from tfport.adapters.tf1_reading import PASSING, Reading, element_name, is_float_scalar
from tfport.errors import UserError, unknown
from tfport.program import Array

_MODE = re.compile(
    r"(.*/)?(is_?train(ing)?|train(ing)?|train(ing)?_?(mode|phase|flag)|phase_train(ing)?|(keras_)?learning_phase)(_\d+)?",
    re.IGNORECASE,
)
_OUTPUT = re.compile(r"(predictions?|logits|outputs?|probabilit(y|ies)|probs)", re.IGNORECASE)
_ACTIVATIONS = ("Sigmoid", "Tanh", "Softmax", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "LogSoftmax")
_PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
_LISTED = 15


@dataclass(frozen=True)
class Given:
    """What the user named, each a tensor, an op or a name; None where nothing."""

    inputs: Any = None
    outputs: Any = None
    losses: Any = None
    train_ops: Any = None
    training: Any = None
    inference: Any = None
    updates: Any = None
    initial: Any = None

    def or_else(self, found: Any) -> Given:
        """These, and those of a build function's mapping where nothing is given.

        Raises:
          UserError: it is no mapping, or has a key that means nothing.
        """
        if found is None:
            return self
        if not isinstance(found, Mapping):
            raise UserError(
                f"the build function returned {type(found).__name__}; expected None or a mapping such as "
                '{"loss": loss, "train_op": train_op}.'
            )
        names = [each.name for each in fields(self)]
        singular = {"loss": "losses", "train_op": "train_ops"}
        values: dict[str, Any] = {}
        for key, value in found.items():
            key = str(key)
            if singular.get(key, key) not in names:
                raise unknown("key in what the build function returned", str(key), [*names, *singular])
            values[singular.get(key, key)] = value
        return replace(self, **{name: each for name, each in values.items() if getattr(self, name) is None})


@dataclass
class Phase:
    """One part of the step."""

    name: str
    fetches: list[Any]
    """What its session.run fetches to update: the train op and, with it, other updates."""
    loss: Any
    """Scalar tensor that it reports; None where the phase has none."""
    objective: list[tuple[Any, Any]]
    """What its gradients are taken of: tensors, each with the weights it is differentiated with (None for ones)."""
    ops: set[Any]
    """All that it runs."""
    updates: list[Update]


class Finding:
    """What was found, with notes on how."""

    def __init__(self, reading: Reading, given: Given, called: Mapping[str, str]) -> None:
        """Reads the graph; `called` is input name -> tensor name where a placeholder goes by another name."""
        self.reading = reading
        self._called = {name: own for own, name in called.items()}
        self.notes: list[str] = []
        self.mode = {True: self._feeds(given.training, "training"), False: self._feeds(given.inference, "inference")}
        self.phases = self._phases(given)
        self.outputs = self._outputs(given)
        """In training, and in inference -> name -> tensor."""
        self.inputs = self._inputs(given)
        self.initial = given.initial

    # --- Train ops and losses -----------------------------------------------------------------------------------------
    def _phases(self, given: Given) -> list[Phase]:
        named = given.train_ops
        if named is None:
            named = {"train": self._only_train_op()}
            if isinstance(given.losses, Mapping) and len(given.losses) == 1:
                named = {next(iter(given.losses)): named["train"]}
        elif not isinstance(named, Mapping):
            named = {"train": named}
        if not named:
            raise UserError("train_ops is empty; name at least one train op.")
        losses = given.losses
        if losses is None:
            losses = {}
        elif not isinstance(losses, Mapping):
            if len(named) > 1:
                raise UserError(f"one loss for {len(named)} train ops; expected a mapping with {', '.join(named)}.")
            losses = {next(iter(named)): losses}
        if strange := [phase for phase in losses if phase not in named]:
            raise unknown("phase in losses", str(strange[0]), map(str, named))
        updates = given.updates if isinstance(given.updates, Mapping) else dict.fromkeys(named, given.updates)
        return [self._phase(str(phase), train, losses.get(phase), updates.get(phase)) for phase, train in named.items()]

    def _phase(self, name: str, train: Any, loss: Any, more: Any) -> Phase:
        things = [*_listed(train), *_listed(more)]
        fetches = [self.reading.fetch(thing, f"the train op of phase {name!r}") for thing in things]
        ops = self.reading.ancestors(fetches)
        updates = updates_among(self.reading, ops)
        if loss is not None:
            tensor = self.reading.tensor(loss, f"the loss of phase {name!r}")
            if not is_float_scalar(tensor):
                raise UserError(
                    f"the loss of phase {name!r} is {element_name(tensor)}, {tensor.dtype.name} of shape "
                    f"{tensor.shape}; expected a floating scalar: name the reduced loss."
                )
        else:
            tensor = self._loss_of(name, ops, updates) if updates else None
        return Phase(name, fetches, tensor, self._objective(tensor, updates), ops, updates)

    def _objective(self, loss: Any, updates: Sequence[Update]) -> list[tuple[Any, Any]]:
        """What was differentiated, where the graph says it plainly; else the loss."""
        if loss is None:
            return []
        reading, gradients = self.reading, [update.gradient for update in updates]
        found = reading.differentiated(gradients)
        if len(found) != 1 or not found[0].dtype.is_floating or found[0].op in reading.looped | reading.guarded:
            return [(loss, None)]
        scopes = {reading.scope_of(op) for gradient in gradients for op in reading.gradients_behind(gradient)}
        weights = [each for scope in scopes if scope is not None for each in reading.weights_of(scope)]
        return [(found[0], weights[0] if weights else None)] if len(weights) < 2 else [(loss, None)]

    def _only_train_op(self) -> Any:
        reading = self.reading
        moving = [update.op for update in updates_among(reading, reading.ops)]
        found = reading.ends_of(moving)
        if not found:
            found = [each for each in reading.graph.get_collection(tf.GraphKeys.TRAIN_OP) if hasattr(each, "name")]
        if not found:
            raise UserError(
                f"the graph has no train op: none of its {len(reading.ops)} operations is an optimizer's. Expected one "
                "that a tf.compat.v1.train optimizer makes; else name it with train_ops={'train': <name>}."
            )
        if len(found) > 1:
            names = ", ".join(each.name for each in found[:_LISTED])
            raise UserError(
                f"the graph has {len(found)} train ops and their order is not known: {names}. Name those of a step in "
                f"the order they run, e.g. train_ops={{'first': {found[0].name!r}, 'second': {found[1].name!r}}}, and "
                "with the same phases losses={...} where a loss cannot be told."
            )
        self.notes.append(f"train op: {found[0].name}, the only one of the graph")
        return found[0]

    def _loss_of(self, name: str, ops: set[Any], updates: Sequence[Update]) -> Any:
        found = self.reading.differentiated([update.gradient for update in updates])
        behind = self.reading.ancestors([update.gradient for update in updates])
        if not found and not any(op.type in _PLACEHOLDERS for op in behind):
            self.notes.append(f"loss of {name}: none, its gradients are what variables hold")
            return None
        if len(found) == 1 and is_float_scalar(found[0]):
            self.notes.append(f"loss of {name}: {element_name(found[0])}, which its gradients are taken of")
            return found[0]
        scalars = [each for each in found if is_float_scalar(each)] if len(found) > 1 else []
        scalars = scalars or self.reading.scalars(ops) or self.reading.scalars(self.reading.ops)
        listed = ", ".join(element_name(each) for each in scalars[:_LISTED]) or "none"
        what = "its gradients are of several" if len(found) > 1 else "its gradients lead to none"
        if found and not is_float_scalar(found[0]):
            what = f"its gradients are of {element_name(found[0])}, of shape {found[0].shape}"
        raise UserError(
            f"the loss of phase {name!r} is not known: {what}. Name it, losses={{{name!r}: <name>}}; "
            f"the graph's floating scalars: {listed}."
        )

    # --- Outputs ------------------------------------------------------------------------------------------------------
    def _outputs(self, given: Given) -> dict[bool, dict[str, Any]]:
        if isinstance(given.outputs, Mapping) and set(given.outputs) == {"training", "inference"}:
            return self._by_mode(given.outputs)
        found = self._tensors(given.outputs, "outputs") if given.outputs is not None else self._found_outputs()
        return {True: found, False: found}

    def _by_mode(self, outputs: Mapping[str, Any]) -> dict[bool, dict[str, Any]]:
        """Twin towers: the outputs of each mode, those that are not named paired in their order."""
        named = {mode: self._tensors(outputs[mode], f"outputs[{mode!r}]") for mode in ("training", "inference")}
        training, inference = named["training"], named["inference"]
        if not any(isinstance(each, Mapping) for each in outputs.values()):
            if len(training) != len(inference):
                raise UserError(
                    f"outputs has {len(training)} for training and {len(inference)} for inference; give as many of "
                    'both, in one order, or name them: {"training": {"logits": ...}, "inference": {"logits": ...}}.'
                )
            training = dict(zip(inference, training.values(), strict=True))
        return {True: training, False: inference}

    def _found_outputs(self) -> dict[str, Any]:
        found = self._named_outputs() or self._before_loss()
        if found:
            self.notes.append(f"outputs: {', '.join(found)}; found by name or by place, name others with outputs=...")
        else:
            self.notes.append("outputs: none found; name them with outputs=...")
        return found

    def _forward_ops(self) -> list[Any]:
        reading = self.reading
        moved = reading.descendants(update.op for phase in self.phases for update in phase.updates)
        return [
            op
            for op in reading.ops
            if reading.scope_of(op) is None and op not in moved | reading.looped | reading.guarded
        ]

    def _named_outputs(self) -> dict[str, Any]:
        needs_input = self._from_placeholders()
        found: dict[str, Any] = {}
        for op in self._forward_ops():
            last = op.name.rpartition("/")[2]
            if _OUTPUT.fullmatch(last) and op in needs_input and op.outputs and _is_floating_batch(op.outputs[0]):
                found[op.name] = op.outputs[0]
        lasts = [name.rpartition("/")[2].lower() for name in found]
        return {name: each for (name, each), last in zip(found.items(), lasts, strict=True) if lasts.count(last) == 1}

    def _before_loss(self) -> dict[str, Any]:
        """The last tensors before each loss that a variable has a direct part in, with the activation behind them."""
        reading, needs_input = self.reading, self._from_placeholders()
        found: set[Any] = set()

        def reads(op: Any) -> bool:
            return op.type not in PASSING and any(reading.variable_of(tensor) is not None for tensor in op.inputs)

        seen: set[Any] = set()
        pending = [phase.loss.op for phase in self.phases if phase.loss is not None]
        while pending:
            op = pending.pop()
            if op in seen or op not in needs_input:
                continue
            seen.add(op)
            behind = op.inputs[0].op if op.type in _ACTIVATIONS else op
            if (reads(op) or reads(behind)) and op.outputs and _is_floating_batch(op.outputs[0]):
                found.add(op)
            else:
                pending += [tensor.op for tensor in op.inputs]
        usable = [op for op in reading.in_order(found) if op not in reading.looped | reading.guarded]
        return {op.name: op.outputs[0] for op in usable}

    def _from_placeholders(self) -> set[Any]:
        return self.reading.descendants(op for op in self.reading.ops if op.type in _PLACEHOLDERS)

    # --- Inputs -------------------------------------------------------------------------------------------------------
    def _inputs(self, given: Given) -> dict[str, Any]:
        reading = self.reading
        outputs = [tensor for named in self.outputs.values() for tensor in named.values()]
        needed = reading.ancestors([*outputs, *(each.loss for each in self.phases if each.loss is not None)]).union(
            *(phase.ops for phase in self.phases)
        )
        placeholders = [op for op in reading.ops if op.type in _PLACEHOLDERS and op in needed]
        named = self._tensors(given.inputs, "inputs") if given.inputs is not None else {}
        taken = {tensor.op for tensor in [*named.values(), *self.mode[True], *self.mode[False]]}
        for op in placeholders:
            tensor = op.outputs[0]
            if (
                op not in taken
                and tensor.dtype == tf.bool
                and tensor.shape.rank in (0, None)
                and _MODE.fullmatch(op.name)
            ):
                self.mode[True][tensor], self.mode[False][tensor] = np.array(True), np.array(False)
                self.notes.append(f"{op.name} is fed whether it trains")
                taken.add(op)
        optional = [op.name for op in placeholders if op.type == "PlaceholderWithDefault" and op not in taken]
        if optional:
            self.notes.append(f"optional inputs, which keep their defaults unless they are fed: {', '.join(optional)}")
        if given.inputs is not None:
            return named
        return {
            self._called.get(op.outputs[0].name, op.name): op.outputs[0]
            for op in placeholders
            if op not in taken and op.name not in optional
        }

    def _feeds(self, named: Any, what: str) -> dict[Any, Array]:
        if named is None:
            return {}
        if not isinstance(named, Mapping):
            raise UserError(f"{what} is {named!r}; expected a mapping of placeholder -> value.")
        feeds = {}
        for name, value in named.items():
            tensor = self.reading.tensor(name, what)
            feeds[tensor] = feedable(element_name(tensor), tensor, value)
        return feeds

    def _tensors(self, named: Any, what: str) -> dict[str, Any]:
        if isinstance(named, Mapping):
            return {str(name): self.reading.tensor(thing, f"{what}[{name!r}]") for name, thing in named.items()}
        tensors = [self.reading.tensor(thing, what) for thing in _listed(named)]
        return {element_name(tensor): tensor for tensor in tensors}


def feedable(name: str, tensor: Any, value: Any) -> Array:
    """`value` as TF1's feed_dict takes it.

    Raises:
      UserError: it is no array of the tensor's dtype, or of another shape.
    """
    try:
        array: Array = np.asarray(value, dtype=tensor.dtype.base_dtype.as_numpy_dtype)
    except (TypeError, ValueError) as error:
        raise UserError(f"input {name!r} cannot be fed as {tensor.dtype.base_dtype.name}: {error}") from None
    if not tensor.shape.is_compatible_with(array.shape):
        raise UserError(f"input {name!r} has shape {array.shape}; the graph takes {tensor.shape}.")
    return array


def _listed(things: Any) -> list[Any]:
    if things is None:
        return []
    return list(things) if isinstance(things, (list, tuple)) else [things]


def _is_floating_batch(tensor: Any) -> bool:
    return bool(tensor.dtype.is_floating) and tensor.shape.rank != 0 and not tensor.dtype._is_ref_dtype
