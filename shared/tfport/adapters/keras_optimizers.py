"""Keras's optimizers in the terms of `tfport.checking.slots`: Keras 3's, tf_keras's, and tf_keras's legacy ones.

Which Keras an object is of is told by its class's module; neither Keras is imported for it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfport.checking.slots import KERAS_ANY, KERAS_NUMBERS
from tfport.errors import UserError
from tfport.program import Array
from tfport.subject import CORRECTED

_SLOTS: dict[str, dict[str, str]] = {
    "SGD": {"momentums": "accumulator", "momentum": "accumulator"},
    "RMSprop": {
        "_velocities": "rms",
        "_average_gradients": "mean",
        "_momentums": "momentum",
        "rms": "rms",
        "momentum": "momentum",
        "mg": "mean",
    },
    "Adam": {"_momentums": "m", "_velocities": "v", "m": "m", "v": "v"},
    "AdamW": {"_momentums": "m", "_velocities": "v"},
    "Adamax": {"_m": "m", "_u": "v", "m": "m", "v": "v"},
    "Adagrad": {"_accumulators": "accumulator", "accumulator": "accumulator"},
    "Adadelta": {
        "_accumulated_grads": "accumulator",
        "_accumulated_delta_vars": "accumulator_update",
        "accum_grad": "accumulator",
        "accum_var": "accumulator_update",
    },
    "Ftrl": {"_accumulators": "accumulator", "_linears": "linear", "accumulator": "accumulator", "linear": "linear"},
}
"""Keras's class -> where it keeps a slot (an attribute, or a legacy slot's name) -> the canonical name."""

_ROUNDED = sorted(
    {name for numbers in KERAS_NUMBERS.values() for name in numbers}
    | set(KERAS_ANY) - {"gradient_accumulation_steps"}
    | {"initial_accumulator_value", "_initial_accumulator_value", "ema_momentum"}
)

_NO_SLOTS = frozenset({"_variables", "_trainable_variables", "variables", "_weights"})
_NO_EXTRAS = frozenset({"_iterations", "_learning_rate", "_current_learning_rate", "_optimizer"})


def flavour_of(thing: Any) -> str:
    """ "keras3" or "keras2", by the module of the nearest class that is Keras's own.

    Raises:
      UserError: it is none of Keras's things.
    """
    for kind in type(thing).__mro__:
        top = kind.__module__.split(".")[0]
        if top == "keras":
            return "keras3"
        if top == "tf_keras":
            return "keras2"
    raise UserError(
        f"{type(thing).__name__} (of {type(thing).__module__}) is neither Keras 3's nor tf_keras's; expected an object "
        "built with `keras` or `tf_keras`."
    )


def _names_in_mro(thing: Any) -> set[str]:
    return {kind.__name__ for kind in type(thing).__mro__ if kind.__module__.split(".")[0] in ("keras", "tf_keras")}


def is_optimizer(thing: Any) -> bool:
    """Whether an object is an optimizer of either Keras."""
    return bool(_names_in_mro(thing) & {"BaseOptimizer", "_BaseOptimizer", "OptimizerV2"})


def is_variable(thing: Any) -> bool:
    """Whether an object is a variable of TensorFlow's or of Keras 3's."""
    return hasattr(thing, "assign") and hasattr(thing, "shape") and hasattr(thing, "dtype")


def native(variable: Any) -> Any:
    """The tf.Variable that holds a variable of either Keras."""
    inner = getattr(variable, "_value", None)
    return inner if inner is not None and hasattr(inner, "handle") else variable


def key_of(variable: Any) -> int:
    """What two Python objects for one variable share."""
    inner = native(variable)
    return id(getattr(inner, "handle", inner))


def read(variable: Any) -> Array:
    """A copy of a variable's value."""
    return np.array(native(variable).numpy())


def write(variable: Any, value: Array) -> None:
    """Assigns a value, in the variable's dtype."""
    inner = native(variable)
    inner.assign(np.asarray(value).astype(inner.dtype.as_numpy_dtype, copy=False))


def _single(value: float) -> float:
    return float(np.float32(value))


class KerasOptimizer:
    """One optimizer, read and written in canonical terms."""

    def __init__(self, name: str, optimizer: Any) -> None:
        self.name = name
        self.outer = optimizer
        """The object that the model applies."""
        self.optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        """The object that keeps slots: the one inside where the outer one scales losses."""
        self.flavour = flavour_of(optimizer)
        self.legacy = "OptimizerV2" in _names_in_mro(self.optimizer)
        self._held: list[Any] = []

    # --- What it is ---------------------------------------------------------------------------------------------------
    @property
    def _class(self) -> str:
        """The name of the class whose update it has; "" where that is no class with a row in the table."""
        step = "_resource_apply_dense" if self.legacy else "update_step"
        for kind in type(self.optimizer).__mro__:
            ours = kind.__module__.split(".")[0] in ("keras", "tf_keras")
            if ours and kind.__name__ in _SLOTS:
                return kind.__name__
            if not ours and step in vars(kind) and not hasattr(self.optimizer, "algorithm_suffix"):
                return ""
            if ours and step in vars(kind):
                return ""
        return ""

    def _number(self, attribute: str) -> float | None:
        """A hyperparameter by attribute; None where there is none or it is not set."""
        if self.legacy and attribute in getattr(self.optimizer, "_hyper", {}):
            return float(np.asarray(self.optimizer._get_hyper(attribute)))
        value = getattr(self.optimizer, attribute, None)
        if value is None or isinstance(value, bool):
            return None
        try:
            return float(np.asarray(value() if callable(value) and not is_variable(value) else value))
        except (TypeError, ValueError):
            return None

    @property
    def algorithm(self) -> str:
        """As `tfport.checking.slots` names it, or its class's name."""
        name = self._class
        suffix = str(getattr(self.optimizer, "algorithm_suffix", ""))
        if not name:
            return type(self.optimizer).__name__ + suffix
        if name == "SGD":
            name = ("Nesterov" if self.optimizer.nesterov else "Momentum") if self._number("momentum") else "SGD"
        elif name == "RMSprop":
            name = "CenteredRMSProp" if self.optimizer.centered else "RMSProp"
            if self.legacy and not self.optimizer._momentum:
                suffix = suffix or CORRECTED
        elif name in ("Adam", "AdamW"):
            if getattr(self.optimizer, "amsgrad", False):
                return f"AMSGrad {name}{suffix}"
            if self._number("weight_decay"):
                name = "AdamW"
            if getattr(self.optimizer, "adaptive_epsilon", False):
                suffix = suffix or CORRECTED
        elif name == "Adagrad" and self.legacy:
            suffix = suffix or CORRECTED
        return name + suffix

    def hyperparameters(self) -> dict[str, float]:
        """Canonical name -> value; the rate is that of the next update."""
        found = {"learning_rate": self.rate()}
        for attribute, name in KERAS_NUMBERS.get(self._class, {}).items():
            value = self._number(attribute)
            if value is not None and not (name == "momentum" and self.algorithm.startswith("SGD")):
                found[name] = value
        for attribute, name in KERAS_ANY.items():
            value = self._number(attribute)
            if value and name not in found:
                found[name] = value
        if not self._class:
            for attribute, given in vars(self.optimizer).items():
                if isinstance(given, float) and not attribute.startswith("_") and attribute not in found:
                    found[attribute] = given
        return found

    def rate(self) -> float:
        """The rate of the next update: a schedule is evaluated at the current count."""
        optimizer = self.optimizer
        if self.legacy:
            return float(optimizer._decayed_lr(self._held[0].dtype.base_dtype if self._held else tf.float32))
        given = optimizer._learning_rate
        if is_variable(given):
            return float(read(given))
        if "LearningRateSchedule" in {kind.__name__ for kind in type(given).__mro__}:
            return float(np.asarray(given(native(optimizer._iterations))))
        return float(np.asarray(given() if callable(given) else given))

    # --- What it holds ------------------------------------------------------------------------------------------------
    @property
    def built(self) -> bool:
        """Whether its slots exist."""
        if self.flavour == "keras3":
            return bool(self.optimizer.built)
        if self.legacy:
            return bool(self._held)
        return bool(getattr(self.optimizer, "_built", False))

    def build(self, variables: Sequence[Any]) -> None:
        """Makes its slots for these variables, as the framework does at the first update; once only."""
        if self.built:
            return
        variables = list(variables)
        with tf.init_scope():
            if self.legacy:
                with tf.name_scope(self.optimizer._name):
                    self.optimizer._create_all_weights(variables)
            elif self.flavour == "keras2":
                with tf.name_scope(self.optimizer.name or "optimizer"):
                    if hasattr(self.optimizer, "_compute_current_learning_rate"):
                        self.optimizer._compute_current_learning_rate()
                    self.outer.build(variables)
            else:
                self.outer.build(variables)
        self._held = variables

    def saw(self, variables: Iterable[Any]) -> None:
        """Remembers variables that were handed to it; tf_keras's optimizers keep no list of them."""
        known = {key_of(each) for each in self._held}
        for variable in variables:
            if key_of(variable) not in known:
                known.add(key_of(variable))
                self._held.append(variable)

    def held(self, among: Sequence[Any] = ()) -> list[Any]:
        """The variables that it holds, in its own order.

        Args:
          among: variables that may be among them; tf_keras's optimizers can only be asked about known ones.
        """
        if self.flavour == "keras3":
            return list(self.optimizer._trainable_variables) if self.optimizer.built else []
        if self.legacy:
            return list(self._held)
        index = getattr(self.optimizer, "_index_dict", {})
        by_key = {self.optimizer._var_key(native(each)): each for each in [*self._held, *among]}
        return [by_key[key] for key in sorted(index, key=lambda each: index[each]) if key in by_key]

    # --- Slots --------------------------------------------------------------------------------------------------------
    def _lists(self) -> dict[str, list[Any]]:
        """Attribute -> one variable (or None) for each variable that was built for."""
        if self.flavour == "keras3":
            count = len(self.optimizer._trainable_variables)
        else:
            count = len(getattr(self.optimizer, "_index_dict", {}))
        found: dict[str, list[Any]] = {}
        for attribute, value in vars(self.optimizer).items():
            if attribute in _NO_SLOTS or not isinstance(value, list | tuple) or len(value) != count or not count:
                continue
            items = list(value)
            if any(is_variable(each) for each in items) and all(each is None or is_variable(each) for each in items):
                found[attribute] = items
        return found

    def slots(self, among: Sequence[Any] = ()) -> dict[str, list[tuple[Any, Any]]]:
        """Canonical slot -> (variable, the variable that keeps its slot), in the optimizer's order."""
        known = _SLOTS.get(self._class, {})
        if self.algorithm == "SGD":
            known = {}
        found: dict[str, list[tuple[Any, Any]]] = {}
        held = self.held(among)
        if self.legacy:
            for slot in self.optimizer.get_slot_names():
                rows = [(each, self.optimizer._slots.get(_legacy_key(each), {}).get(slot)) for each in held]
                found[known.get(slot, slot)] = [(each, kept) for each, kept in rows if kept is not None]
        elif self.flavour == "keras3":
            for attribute, kept in self._lists().items():
                found[known.get(attribute, attribute.strip("_"))] = [
                    (each, slot) for each, slot in zip(held, kept, strict=True) if slot is not None
                ]
        else:
            index = getattr(self.optimizer, "_index_dict", {})
            for attribute, kept in self._lists().items():
                found[known.get(attribute, attribute.strip("_"))] = [
                    (each, kept[index[self.optimizer._var_key(native(each))]]) for each in held
                ]
        if self.algorithm == "SGD":
            for unused in ("momentums", "momentum"):
                found.pop(unused, None)
        order = {name: place for place, name in enumerate(dict.fromkeys(known.values()))}
        return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))

    def extras(self) -> dict[str, Any]:
        """Variables that are no slot of one variable, by attribute: Nadam's product."""
        found: dict[str, Any] = {}
        for attribute, value in vars(self.optimizer).items():
            if attribute not in _NO_EXTRAS and is_variable(value) and not isinstance(value, tf.Tensor):
                found[attribute.strip("_")] = value
        return found

    def _factor(self, slot: str) -> float | None:
        """What a native slot is the canonical one times; None for one, with not a bit changed."""
        if self._class != "SGD" or slot != "accumulator":
            return None
        rate = self.rate()
        return -rate if rate else -1.0

    def get(self, slot: str, kept: Any) -> Array:
        """One slot's canonical value.

        Args:
          slot: its canonical name.
          kept: the variable that keeps it, of `slots`.
        """
        value = read(kept)
        factor = self._factor(slot)
        if factor is None:
            return value
        # + 0.0, since nothing divided by a negative rate would be a negative nothing.
        return np.asarray((value.astype(np.float64) / factor + 0.0).astype(value.dtype))

    def set(self, slot: str, kept: Any, value: Array) -> None:
        """Takes over one slot's canonical value."""
        factor = self._factor(slot)
        write(kept, value if factor is None else np.asarray(value, np.float64) * factor + 0.0)

    # --- Count --------------------------------------------------------------------------------------------------------
    @property
    def count(self) -> Any:
        """The variable that counts updates."""
        return self.optimizer.iterations if self.legacy else self.optimizer._iterations

    def all_variables(self) -> list[Any]:
        """Every variable that it keeps: slots, count, rate and all the rest, each once."""
        found: dict[int, Any] = {}
        for optimizer in (self.outer, self.optimizer):
            listed = optimizer.variables
            for each in [*(listed() if callable(listed) else listed), *self.extras().values()]:
                found[key_of(each)] = each
            for attribute in ("_current_learning_rate", "_learning_rate"):
                given = getattr(optimizer, attribute, None)
                if is_variable(given):
                    found[key_of(given)] = given
        if self.legacy:
            for value in self.optimizer._hyper.values():
                if is_variable(value):
                    found[key_of(value)] = value
        for rows in self.slots().values():
            for _, kept in rows:
                found[key_of(kept)] = kept
        found[key_of(self.count)] = self.count
        return list(found.values())


def _legacy_key(variable: Any) -> Any:
    inner = variable._distributed_container() if hasattr(variable, "_distributed_container") else variable
    return inner._unique_id


def round_hyperparameters(optimizer: Any) -> None:
    """Rounds an optimizer's numbers to float32, leaving them as wide as they are.

    TF1 keeps them in float32; a float64 run of Keras would otherwise differ by 1e-8 for no reason of its own. To be
    called before anything is traced, since a trace keeps the numbers it found.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for attribute in _ROUNDED:
        if isinstance(vars(inner).get(attribute), float):
            setattr(inner, attribute, _single(getattr(inner, attribute)))
    if "OptimizerV2" in _names_in_mro(inner):
        for name, value in list(inner._hyper.items()):
            if isinstance(value, int | float) and not isinstance(value, bool):
                inner._hyper[name] = _single(value)
            elif is_variable(value):
                write(value, read(value).astype(np.float32))
            elif "LearningRateSchedule" in {kind.__name__ for kind in type(value).__mro__}:
                inner._hyper[name] = _rounded_schedule(value)
        return
    rate = getattr(inner, "_learning_rate", None)
    if is_variable(rate):
        write(rate, read(rate).astype(np.float32))
    elif "LearningRateSchedule" in {kind.__name__ for kind in type(rate).__mro__}:
        inner._learning_rate = _rounded_schedule(rate)


def _rounded_schedule(schedule: Any) -> Any:
    """A schedule that gives what `schedule` gives, computed in float64 and rounded to float32."""
    if getattr(schedule, "_tfport_rounded", False):
        return schedule
    base: Any = next(kind for kind in type(schedule).__mro__ if kind.__name__ == "LearningRateSchedule")

    class Rounded(base):  # type: ignore[misc]
        _tfport_rounded = True

        def __call__(self, step: Any) -> Any:
            wide = copy.copy(schedule)
            for name, value in vars(schedule).items():
                if isinstance(value, float):  # Keras computes in the dtype that it makes of these: float32
                    setattr(wide, name, tf.constant(value, tf.float64))
                elif isinstance(value, list | tuple) and any(isinstance(each, float) for each in value):
                    setattr(wide, name, [tf.constant(each, tf.float64) for each in value])
            try:
                rate = tf.convert_to_tensor(wide(step))
            except Exception:  # a schedule of the user's own may do with its numbers what no tensor can
                rate = tf.convert_to_tensor(schedule(step))
            return tf.cast(tf.cast(rate, tf.float32), tf.convert_to_tensor(schedule(step)).dtype)

        def get_config(self) -> Any:
            return schedule.get_config()

    return Rounded()


def initial_value(optimizer: KerasOptimizer, slot: str, kept: Any) -> Array:
    """What a slot (canonical), or an extra, holds before the first update."""
    inner = optimizer.optimizer
    shape, dtype = tuple(kept.shape), read(kept).dtype
    if slot == "u_product":
        return np.ones(shape, dtype)
    if slot == "accumulator" and optimizer.algorithm.startswith(("Adagrad", "Ftrl")):
        given = getattr(inner, "initial_accumulator_value", getattr(inner, "_initial_accumulator_value", 0.0))
        return np.full(shape, given, dtype)
    return np.zeros(shape, dtype)


# --- Gradients --------------------------------------------------------------------------------------------------------
_RULES = {"keras3": "_backend_update_step", "keras2": "_internal_apply_gradients", "legacy": "_distributed_apply"}
"""What an optimizer calls with what its rule goes by, once it has clipped, unscaled or averaged what it was handed."""


_ON_THE_WAY = (
    "apply",
    "apply_gradients",
    "aggregate_gradients",
    "_backend_apply_gradients",
    "_clip_gradients",
    "_transform_gradients",
    "_transform_unaggregated_gradients",
)
"""Methods between what an optimizer is handed and its rule, which a class of the user's may have instead."""


def changes_gradients(optimizer: Any) -> bool:
    """Whether an optimizer may do something to what it is handed before its rule goes by it."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    numbers = ("clipnorm", "clipvalue", "global_clipnorm", "gradient_accumulation_steps", "loss_scale_factor")
    own = [kind for kind in type(inner).__mro__ if kind.__module__.split(".")[0] not in ("keras", "tf_keras")]
    theirs = any(method in vars(kind) for kind in own for method in _ON_THE_WAY)
    return (
        inner is not optimizer
        or theirs
        or any(getattr(inner, number, None) is not None for number in numbers)
        or bool(getattr(inner, "gradient_transformers", None))
    )


@dataclass(frozen=True)
class Handed:
    """What one call handed to an optimizer, or an optimizer to its rule."""

    optimizer: str
    variables: tuple[Any, ...]
    gradients: tuple[Array | None, ...] = field(repr=False)


class GradientSpy:
    """Sees what optimizers are handed and what their rules go by, eagerly or inside traced functions.

    `watching` has to be active while a function is traced (or run eagerly); the trace then tells the spy each time it
    runs, and what is told is kept while the spy is entered as a context.
    """

    def __init__(self, optimizers: Mapping[str, Any]) -> None:
        self.optimizers = dict(optimizers)
        """Name -> optimizer, as the model applies it."""
        self.changing = {
            name for name, each in self.optimizers.items() if is_optimizer(each) and changes_gradients(each)
        }
        """The optimizers that may change what they are handed."""
        self.captured: list[Handed] = []
        """What was handed since the spy was entered last, in order."""
        self.ruled: list[Handed] = []
        """What the rules of those that may change it went by since then, in order."""
        self.applied: dict[str, dict[int, Any]] = {}
        """Optimizer -> every variable that any call handed to it, by key: known as soon as a call is traced."""
        self.ran: dict[str, None] = {}
        """Optimizers that were handed something by what ran since this was cleared last."""
        self._collecting = False

    def __enter__(self) -> GradientSpy:
        self.captured, self.ruled = [], []
        self._collecting = True
        self._watch = self.watching()
        self._watch.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._collecting = False
        self._watch.__exit__(*exception)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Shadows the optimizers' own ways; what was there comes back at the end."""
        shadowed: list[tuple[Any, str, Any]] = []
        try:
            for holder, method, shadow in self._shadows():
                if getattr(vars(holder).get(method), "_tfport_spy", None) is self:
                    continue
                shadowed.append((holder, method, vars(holder).get(method)))
                converted = tf.autograph.experimental.do_not_convert(shadow(getattr(holder, method)))
                converted._tfport_spy = self
                vars(holder)[method] = converted
            yield
        finally:
            for holder, method, before in reversed(shadowed):
                if before is None:
                    vars(holder).pop(method, None)
                else:
                    vars(holder)[method] = before

    def _shadows(self) -> Iterator[tuple[Any, str, Callable[[Any], Any]]]:
        """(object, its method, what makes the method's shadow of it)."""
        for name, optimizer in self.optimizers.items():
            keras3 = is_optimizer(optimizer) and flavour_of(optimizer) == "keras3"
            yield optimizer, *(("apply", self._apply(name)) if keras3 else ("apply_gradients", self._pairs(name)))
            if name in self.changing:
                inner = getattr(optimizer, "inner_optimizer", optimizer)
                kind = "keras3" if keras3 else "legacy" if "OptimizerV2" in _names_in_mro(inner) else "keras2"
                if hasattr(inner, _RULES[kind]):
                    yield inner, _RULES[kind], self._rule(name, kind)

    def _apply(self, name: str) -> Callable[[Any], Any]:
        def shadow(original: Any) -> Any:
            def apply(gradients: Any, trainable_variables: Any = None, *args: Any, **kwargs: Any) -> Any:
                gradients = list(gradients)
                variables = trainable_variables
                if variables is None:
                    variables = self.optimizers[name]._trainable_variables
                self._see(name, gradients, list(variables))
                if trainable_variables is None:
                    return original(gradients, *args, **kwargs)
                return original(gradients, trainable_variables, *args, **kwargs)

            return apply

        return shadow

    def _pairs(self, name: str) -> Callable[[Any], Any]:
        def shadow(original: Any) -> Any:
            def apply_gradients(grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
                pairs = list(grads_and_vars)
                self._see(name, [gradient for gradient, _ in pairs], [variable for _, variable in pairs])
                return original(pairs, *args, **kwargs)

            return apply_gradients

        return shadow

    def _rule(self, name: str, kind: str) -> Callable[[Any], Any]:
        def shadow(original: Any) -> Any:
            def rule(*args: Any, **kwargs: Any) -> Any:
                if kind == "keras3":
                    gradients, variables = list(args[0]), list(args[1])
                else:
                    pairs = list(args[1 if kind == "legacy" else 0])
                    gradients, variables = [each for each, _ in pairs], [each for _, each in pairs]
                self._tell(name, gradients, variables, lambda handed: self.ruled.append(handed))
                return original(*args, **kwargs)

            return rule

        return shadow

    def _see(self, name: str, gradients: list[Any], variables: list[Any]) -> None:
        by_key = self.applied.setdefault(name, {})
        for variable in variables:
            by_key.setdefault(key_of(variable), variable)
        self._tell(name, gradients, variables, lambda handed: self.captured.append(handed))

    def _tell(self, name: str, gradients: list[Any], variables: list[Any], take: Callable[[Handed], None]) -> None:
        """Has what runs here tell these gradients each time that it runs."""
        dense = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
        given = [gradient is not None for gradient in dense]

        def tell(*arrays: Array) -> None:
            self.ran[name] = None
            if self._collecting:
                values = iter(arrays)
                take(Handed(name, tuple(variables), tuple(np.array(next(values)) if each else None for each in given)))

        present = [gradient for gradient in dense if gradient is not None]
        if tf.executing_eagerly():
            tell(*(gradient.numpy() for gradient in present))
        elif present:
            tf.numpy_function(tell, present, [], stateful=True, name="tfport_gradients")

    def reached(self) -> list[Handed]:
        """What the optimizers went by since the spy was entered last: what they were handed where they change nothing.

        Where an optimizer keeps what it is handed for a later step, nothing but what has no gradient is left.
        """
        found = []
        for handed in self.captured:
            if handed.optimizer not in self.changing:
                found.append(handed)
                continue
            none = [each for each, gradient in zip(handed.variables, handed.gradients, strict=True) if gradient is None]
            if none:
                found.append(Handed(handed.optimizer, tuple(none), (None,) * len(none)))
        return [*found, *self.ruled]
