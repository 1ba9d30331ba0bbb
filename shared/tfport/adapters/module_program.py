"""A tf.Module, or anything that holds variables, with the user's own training step as a Program.

The step runs as its user wrote it: eagerly, or as the graph of its tf.function. Every tf.function that is called is
traced once more for the Program, since only what is traced while draws are fed is fed; the user's own traces stay as
they were. What looks at a step (`loss`, `gradients`) runs that same trace, update and all, and puts everything back.

* Gradients are what an optimizer goes by at its first update in the phase; without an optimizer, what
  `GradientTape.gradient` returned for a variable, which is what derivatives are in any case.
* The loss is the sum of the targets whose gradients for variables of the Program are asked at a GradientTape, each
  target once.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfport import adam
from tfport.adapters import first_run, steps
from tfport.adapters.func_graphs import Traces
from tfport.adapters.keras_optimizers import (
    GradientSpy,
    KerasOptimizer,
    flavour_of,
    is_optimizer,
    key_of,
    native,
    read,
    round_hyperparameters,
    write,
)
from tfport.adapters.python_draws import Holders
from tfport.adapters.tf_draws import Interceptor
from tfport.checking.draws import DrawSource
from tfport.checking.quoting import said
from tfport.errors import UserError
from tfport.program import (
    Array,
    Batch,
    DrawInfo,
    InputInfo,
    Node,
    OptimizerInfo,
    Program,
    State,
    VariableInfo,
    precision_of,
)
from tfport.state import iterations_name, slot_name

_OUTSIDE = ("tensorflow", "keras", "tf_keras", "numpy", "tfport")
"""Packages whose functions and objects are not looked into."""
_V1_SLOTS: dict[str, dict[str, str]] = {
    "GradientDescentOptimizer": {},
    "MomentumOptimizer": {"momentum": "accumulator"},
    "AdagradOptimizer": {"accumulator": "accumulator"},
    "AdadeltaOptimizer": {"accum": "accumulator", "accum_update": "accumulator_update"},
    "RMSPropOptimizer": {"rms": "rms", "momentum": "momentum", "mg": "mean"},
    "AdamOptimizer": {"m": "m", "v": "v"},
    "FtrlOptimizer": {"accum": "accumulator", "linear": "linear"},
}
"""Class of tf.compat.v1.train -> its slot -> the canonical one."""
_V1_NUMBERS = {
    "_learning_rate": "learning_rate",
    "_lr": "learning_rate",
    "_momentum": "momentum",
    "_decay": "rho",
    "_rho": "rho",
    "_beta1": "beta_1",
    "_beta2": "beta_2",
    "_epsilon": "epsilon",
    "_learning_rate_power": "learning_rate_power",
    "_l1_regularization_strength": "l1",
    "_l2_regularization_strength": "l2",
}
"""Attribute of an optimizer of tf.compat.v1.train -> canonical number."""


def _tape() -> Any:
    """The class of GradientTape, whose method stands for all ways to it."""
    return tf.GradientTape


def _function_class() -> Any:
    from tensorflow.python.eager.polymorphic_function import polymorphic_function

    return polymorphic_function.Function


def _unconverted(function: Any) -> Any:
    """A function that autograph leaves as it is."""
    return tf.autograph.experimental.do_not_convert(function)


# --- Optimizers of TF1 ------------------------------------------------------------------------------------------------
def is_v1_optimizer(thing: Any) -> bool:
    """Whether an object is an optimizer of tf.compat.v1.train."""
    return isinstance(thing, tf.compat.v1.train.Optimizer)


class V1Optimizer:
    """An optimizer of tf.compat.v1.train outside of a graph of TF1's, read as a `KerasOptimizer` is."""

    def __init__(self, name: str, optimizer: Any) -> None:
        self.name = name
        self.outer = optimizer
        self.number = 0
        """Updates so far, as far as they were seen here."""
        self._held: list[Any] = []

    @property
    def _class(self) -> str:
        return next((kind.__name__ for kind in type(self.outer).__mro__ if kind.__name__ in _V1_SLOTS), "")

    @property
    def algorithm(self) -> str:
        """As `tfport.checking.slots` names it, or its class's name."""
        name = self._class.removesuffix("Optimizer")
        if not name:
            return type(self.outer).__name__
        if name == "GradientDescent":
            return "SGD"
        if name == "Momentum" and self.outer._use_nesterov:
            return "Nesterov"
        return "CenteredRMSProp" if name == "RMSProp" and self.outer._centered else name

    def hyperparameters(self) -> dict[str, float]:
        """Canonical name -> value, each called where it is a function."""
        found = {}
        for attribute, name in _V1_NUMBERS.items():
            value = getattr(self.outer, attribute, None)
            if value is not None:
                found[name] = float(np.asarray(value() if callable(value) and not hasattr(value, "assign") else value))
        return found

    @property
    def built(self) -> bool:
        """Whether its slots exist."""
        return bool(self._held)

    def build(self, variables: Sequence[Any]) -> None:
        """Makes its slots, as its first update does."""
        if not self._held:
            self._held = list(variables)
            with tf.init_scope():
                self.outer._prepare()
                self.outer._create_slots(self._held)

    def held(self, among: Sequence[Any] = ()) -> list[Any]:
        """The variables that it holds."""
        del among
        return list(self._held)

    def slots(self, among: Sequence[Any] = ()) -> dict[str, list[tuple[Any, Any]]]:
        """Canonical slot -> (variable, the variable that keeps its slot)."""
        del among
        names = _V1_SLOTS.get(self._class, {})
        found: dict[str, list[tuple[Any, Any]]] = {}
        for slot in self.outer.get_slot_names():
            rows = [(each, self.outer.get_slot(each, slot)) for each in self._held]
            if slot == "momentum" and self._class == "RMSPropOptimizer" and not self.outer._momentum:
                continue
            found[names.get(slot, slot)] = [(each, kept) for each, kept in rows if kept is not None]
        return found

    def extras(self) -> dict[str, Any]:
        """Adam's powers are its count; of other classes nothing is known."""
        return {}

    def get(self, slot: str, kept: Any) -> Array:
        """One slot's value."""
        del slot
        return read(kept)

    def set(self, slot: str, kept: Any, value: Array) -> None:
        """Takes over one slot's value."""
        del slot
        write(kept, value)

    def _powers(self) -> tuple[Any, Any] | None:
        return self.outer._get_beta_accumulators() if self._class == "AdamOptimizer" and self._held else None

    def read_count(self) -> int:
        """Updates so far; Adam's is read off its power."""
        powers = self._powers()
        if powers is None:
            return self.number
        return adam.iterations(self.hyperparameters()["beta_2"], read(powers[1]))

    def write_count(self, count: int) -> None:
        """Takes over a count of updates."""
        self.number = count
        powers = self._powers()
        if powers is not None:
            numbers = self.hyperparameters()
            for power, beta in zip(powers, (numbers["beta_1"], numbers["beta_2"]), strict=True):
                write(power, np.asarray(adam.beta_power(beta, count, power.dtype.base_dtype.name)))

    def all_variables(self) -> list[Any]:
        """Every variable that it keeps."""
        return [native(each) for each in self.outer.variables()]


Rule = KerasOptimizer | V1Optimizer


def _read_count(rule: Rule) -> int:
    return rule.read_count() if isinstance(rule, V1Optimizer) else int(read(rule.count))


def _write_count(rule: Rule, count: int) -> None:
    if isinstance(rule, V1Optimizer):
        rule.write_count(count)
    else:
        write(rule.count, np.asarray(count))


# --- Seeing what a step does ------------------------------------------------------------------------------------------
class _Spy(GradientSpy):
    """A GradientSpy that sees optimizers of tf.compat.v1.train too, and what is asked of a GradientTape."""

    def __init__(
        self, rules: Mapping[str, Rule], names: Callable[[], Mapping[int, str]], unused: Mapping[str, Any]
    ) -> None:
        super().__init__({name: rule.outer for name, rule in rules.items()})
        self.unused = unused
        self.rules = rules
        self.names = names
        self.losses: list[float] = []
        self.asked: dict[str, Array | None] = {}
        """Variable -> what the tapes returned for it, added up."""
        self.plain = True
        """Whether every optimizer was handed what a tape returned, and goes by that."""
        self._returned: dict[int, Any] = {}
        """What tapes returned in this trace, which keeps it, and its ids."""
        self.targets: list[Any] = []
        """Targets of one trace, as tensors."""
        self._targeted: set[int] = set()

    def __enter__(self) -> _Spy:
        self.losses, self.asked = [], {}
        super().__enter__()
        return self

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Shadows optimizers, and the method of GradientTape."""
        original = _tape().gradient
        self._targeted, self.targets, self._returned = set(), [], {}
        with super().watching(), first_run.refused(self.unused, "tf_module"):
            _tape().gradient = _unconverted(self._gradient(original))
            try:
                yield
            finally:
                _tape().gradient = original

    def _pairs(self, name: str) -> Callable[[Any], Any]:
        rule = self.rules[name]
        shadow = super()._pairs(name)
        return (lambda original: shadow(self._counted(rule, original))) if isinstance(rule, V1Optimizer) else shadow

    def _see(self, name: str, gradients: list[Any], variables: list[Any]) -> None:
        given = [each for each in gradients if each is not None]
        if name in self.changing or any(id(each) not in self._returned for each in given):
            self.plain = False
        super()._see(name, gradients, variables)

    @staticmethod
    def _counted(rule: Any, original: Any) -> Any:
        def count() -> None:
            rule.number += 1

        def apply_gradients(pairs: Any, *args: Any, **kwargs: Any) -> Any:
            if tf.executing_eagerly():
                count()
            else:
                tf.numpy_function(count, [], [], stateful=True, name="tfport_count")
            return original(pairs, *args, **kwargs)

        return apply_gradients

    def _gradient(self, original: Any) -> Any:
        def gradient(tape: Any, target: Any, sources: Any, output_gradients: Any = None, **more: Any) -> Any:
            found = original(tape, target, sources, output_gradients, **more)
            names = self.names()
            flat = [names.get(key_of(each)) for each in tf.nest.flatten(sources)]
            if not any(flat):
                return found
            targets = [each for each in tf.nest.flatten(target) if each is not None]
            weights = tf.nest.flatten(output_gradients) if output_gradients is not None else [None] * len(targets)
            fresh = [
                (each, weight) for each, weight in zip(targets, weights, strict=True) if id(each) not in self._targeted
            ]
            self._targeted |= {id(each) for each in targets}
            self.targets += targets  # which keeps them, and their ids
            self._see_loss([tf.convert_to_tensor(e) if w is None else e * w for e, w in fresh])
            values = tf.nest.flatten(found)
            self._returned |= {id(each): each for each in values}
            self._see_asked([(n, v) for n, v in zip(flat, values, strict=False) if n is not None])
            return found

        return gradient

    def _see_loss(self, targets: Sequence[Any]) -> None:
        def tell(*arrays: Array) -> None:
            if self._collecting:
                self.losses += [float(np.sum(np.asarray(each, np.float64))) for each in arrays]

        if tf.executing_eagerly():
            tell(*(each.numpy() for each in targets))
        elif targets:
            tf.numpy_function(tell, list(targets), [], stateful=True, name="tfport_loss")

    def _see_asked(self, pairs: Sequence[tuple[str, Any]]) -> None:
        present = [(name, tf.convert_to_tensor(value)) for name, value in pairs if value is not None]

        def tell(*arrays: Array) -> None:
            if self._collecting:
                values = {name: np.array(each) for (name, _), each in zip(present, arrays, strict=True)}
                for name, _ in pairs:
                    before, more = self.asked.get(name), values.get(name)
                    self.asked[name] = before if more is None else more if before is None else before + more

        if tf.executing_eagerly():
            tell(*(each.numpy() for _, each in present))
        elif present:
            tf.numpy_function(tell, [each for _, each in present], [], stateful=True, name="tfport_asked")


# --- Variables --------------------------------------------------------------------------------------------------------
@dataclass
class _Found:
    """What modules hold, found by walking them."""

    variables: dict[int, tuple[str, Any]] = field(default_factory=dict)
    """Key -> (path of attributes, variable)."""
    counters: dict[int, tuple[str, Any]] = field(default_factory=dict)
    """Those of whole numbers and bools, likewise."""
    others: dict[int, Any] = field(default_factory=dict)
    """Variables that are no variables of the Program: of metrics and of generators."""
    optimizers: dict[str, Any] = field(default_factory=dict)
    lent: set[int] = field(default_factory=set)
    """Ids of optimizers that Keras models were compiled with: the step may use others."""
    unbuilt: list[Any] = field(default_factory=list)
    """Layers that have not been called yet."""
    seen: set[int] = field(default_factory=set)
    kept: list[Any] = field(default_factory=list)

    def walk(self, path: str, thing: Any) -> None:
        """Looks at one object, and into it."""
        if (
            thing is None
            or isinstance(thing, (str, bytes, int, float, np.ndarray, tf.Tensor))
            or id(thing) in self.seen
        ):
            return
        self.seen.add(id(thing))
        self.kept.append(thing)
        if is_optimizer(thing) or is_v1_optimizer(thing):
            name = path.split("/")[-1]
            unique = path.replace("/", "_") if name in self.optimizers or name.isdigit() else name
            self.optimizers[f"{unique}_{len(self.optimizers)}" if unique in self.optimizers else unique] = thing
        elif isinstance(thing, tf.Variable) or _is_keras(thing, "Variable", "KerasVariable"):
            self.add(path, thing)
        elif isinstance(thing, tf.random.Generator):
            self.others[key_of(thing.state)] = thing.state
        elif _is_keras(thing, "Metric"):
            self.others |= {key_of(each): each for each in thing.variables}
        elif _is_keras(thing, "Layer"):
            self.layer(path, thing)
        elif isinstance(thing, Mapping):
            for key, value in list(thing.items()):
                self.walk(f"{path}/{key}" if path else str(key), value)
        elif isinstance(thing, (list, tuple)):
            for index, value in enumerate(thing):
                self.walk(f"{path}/{index}" if path else str(index), value)
        elif isinstance(thing, (tf.Module, tf.__internal__.tracking.AutoTrackable)) or (
            type(thing).__module__.split(".")[0] not in _OUTSIDE
        ):
            self.into(path, thing)

    def layer(self, path: str, thing: Any) -> None:
        """Looks at a layer or model of Keras; into its attributes where they can be its user's."""
        if not thing.built:
            self.unbuilt.append(thing)
        with contextlib.suppress(ValueError):  # tf_keras, of a model without weights yet
            for each in thing.weights:
                self.add(f"{path}/{_plain_name(each)}", each)
            known = self.variables.keys() | self.counters.keys()
            self.others |= {key_of(e): e for e in thing.variables if key_of(e) not in known}
        optimizer = getattr(thing, "optimizer", None)
        if optimizer is not None and getattr(thing, "compiled", getattr(thing, "_is_compiled", False)):
            self.lent.add(id(optimizer))
            self.walk(f"{path}_optimizer" if path else "optimizer", optimizer)
        if type(thing).__module__.split(".")[0] not in _OUTSIDE or _is_keras(thing, "Model"):
            tracked = tf.Variable if flavour_of(thing) == "keras2" else ()  # tf_keras's weights are all of the user's
            for key, value in list(vars(thing).items()):
                if not isinstance(value, tracked):
                    self.walk(f"{path}/{key.lstrip('_')}" if path else key.lstrip("_"), value)
            for each in getattr(thing, "layers", ()):
                self.walk(f"{path}/{each.name}" if path else each.name, each)
        self.walk(f"{path}/optimizer", optimizer)

    def into(self, path: str, thing: Any) -> None:
        ignored = set(getattr(thing, "_TF_MODULE_IGNORED_PROPERTIES", ())) | {"_obj_reference_counts_dict"}
        attributes = steps.attributes(thing)
        if attributes is None:
            return
        if callable(thing) and not isinstance(thing, tf.Module) and hasattr(thing, "__code__"):
            return
        for key, value in attributes.items():
            if key not in ignored and not key.startswith("_self_"):
                self.walk(f"{path}/{key.lstrip('_')}" if path else key.lstrip("_"), value)
        if not isinstance(thing, tf.Module) and not inspect.ismodule(thing):
            listed = getattr(thing, "variables", None)
            listed = listed() if callable(listed) and not inspect.signature(listed).parameters else listed
            for each in listed if isinstance(listed, (list, tuple)) else ():
                if hasattr(each, "assign"):
                    self.walk(f"{path}/{_plain_name(each)}" if path else _plain_name(each), each)

    def add(self, path: str, variable: Any) -> None:
        floating = np.issubdtype(_dtype(variable), np.floating)
        (self.variables if floating else self.counters).setdefault(key_of(variable), (path, variable))


def _is_keras(thing: Any, *classes: str) -> bool:
    return any(
        kind.__name__ in classes and kind.__module__.split(".")[0] in ("keras", "tf_keras")
        for kind in type(thing).__mro__
    )


def _plain_name(variable: Any) -> str:
    return str(getattr(variable, "path", None) or variable.name).removesuffix(":0")


def _dtype(variable: Any) -> Any:
    return np.dtype(native(variable).dtype.base_dtype.as_numpy_dtype)


def _age(variable: Any) -> int:
    """Greater for what was created later."""
    digits = str(getattr(native(variable), "_unique_id", "")).rsplit("_", 1)[-1]
    return int(digits) if digits.isdigit() else 0


def _named(found: _Found, left_out: set[int]) -> dict[str, Any]:
    """Unique name -> variable, in the order of creation, counters last; paths of attributes where names clash."""
    rows: list[tuple[str, Any]] = []
    for kind in (found.variables, found.counters):
        rows += sorted((row for key, row in kind.items() if key not in left_out), key=lambda row: _age(row[1]))
    names = [_plain_name(each) for _, each in rows]
    named: dict[str, Any] = {}
    for name, (path, each) in zip(names, rows, strict=True):
        title = path if names.count(name) > 1 else name
        unique, number = title, 0
        while unique in named:
            number += 1
            unique = f"{title}_{number}"
        named[unique] = each
    return named


# --- The Program ------------------------------------------------------------------------------------------------------
class ModuleProgram(Program):
    """Modules of TensorFlow's and a step over them, driven from outside."""

    kind = "tf.Module"

    def __init__(
        self,
        modules: Mapping[str, Any],
        functions: Mapping[str, steps.Function],
        optimizers: Mapping[str, Any] | None,
        outputs: Sequence[str] | str | None,
        forward: steps.Function | None,
        inputs: steps.Inputs,
        seed: int,
        precision: str | None,
        rebuild: Callable[..., Any] | None,
    ) -> None:
        self.modules = dict(modules)
        self._functions = dict(functions)
        self.phases = tuple(functions)
        self._outputs = outputs
        self._forward_function = forward
        self._rebuild = rebuild
        self._given_inputs = inputs
        self._given_optimizers = optimizers
        self._asked_precision = precision
        self._notes: list[str] = []
        self.draws = DrawSource(seed)
        self._traces = Traces()
        self._interceptor = Interceptor(self.draws)
        self._clones: dict[tuple[str, str], dict[int, tuple[Any, Any]]] = {}
        self._seen: dict[str, tuple[str, ...]] = {}
        self._apart: dict[int, Array] = {}
        self._states: dict[str, Any] = {}
        self._python = steps.PythonCounts([*functions.values(), *modules.values()], _OUTSIDE)
        self._trial = ""
        """What went wrong when the step was tried."""
        self._unused: dict[str, Any] = {}
        """Optimizers that a first run of the step did not use."""
        self._ready = False
        self._look()
        if not (self._found.unbuilt or self._found.lent) and self._has_variables():
            with contextlib.suppress(UserError):  # a first batch may tell more
                self._settle(self._tried())

    def _look(self) -> None:
        """Looks for variables and optimizers in the modules, and in what the step reaches."""
        self._notes = []
        found = self._found = _Found()
        for name, module in self.modules.items():
            found.walk(name, module)
        functions = [*self._functions.values(), *([self._forward_function] if self._forward_function else [])]
        reached = steps.reachable(functions, _sought, _OUTSIDE)
        for name, each in reached.items():
            if is_optimizer(each) or is_v1_optimizer(each):
                if id(each) not in found.seen:
                    found.walk(name, each)
            elif id(each) not in found.seen:
                beside = _Found()
                beside.walk(name, each)
                found.others |= {key: variable for key, (_, variable) in beside.variables.items()}
                found.others |= beside.others
                found.counters = {**beside.counters, **found.counters}
                found.lent |= beside.lent
                found.unbuilt += beside.unbuilt
                for title, optimizer in beside.optimizers.items():
                    if id(optimizer) not in found.seen:
                        found.walk(title, optimizer)
                unknown = [
                    variable
                    for key, (_, variable) in beside.variables.items()
                    if key not in found.variables and getattr(variable, "trainable", False)
                ]
                if unknown:
                    self._notes.append(
                        f"the step reaches variables that are in no module given, and they are left out: "
                        f"{', '.join(_plain_name(variable) for variable in unknown[:3])}"
                    )
        optimizers = self._given_optimizers
        given = found.optimizers if optimizers is None else dict(optimizers)
        left_out = {id(each) for each in self._unused.values()}
        given = {name: each for name, each in given.items() if id(each) not in left_out}
        if optimizers is None and len(given) == 1:
            given = {"optimizer": next(iter(given.values()))}
        if optimizers is None:
            self._notes += [f"found by itself: the optimizer {n} ({type(e).__name__})" for n, e in given.items()]
        self._notes += [
            f"the optimizer {name} ({type(each).__name__}) is used by no phase, and is left out"
            for name, each in self._unused.items()
        ]
        self._rules: dict[str, Rule] = {}
        for name, each in given.items():
            if is_v1_optimizer(each):
                self._rules[name] = V1Optimizer(name, each)
            elif is_optimizer(each):
                self._rules[name] = KerasOptimizer(name, each)
            else:
                raise UserError(
                    f"tf_module: the optimizer {name!r} is a {type(each).__name__}; give one of keras, tf_keras or "
                    "tf.compat.v1.train."
                )
        own = {key_of(each) for rule in self._rules.values() for each in rule.all_variables() if _safe(rule)}
        self._named = _named(found, own)
        named = {key_of(each) for each in self._named.values()}
        self._others = {key: each for key, each in found.others.items() if key not in own | named}
        generator = _global_generator()
        if generator is not None:
            self._others[key_of(generator.state)] = generator.state
        self._generators = {name: each for name, each in reached.items() if steps.is_generator(each)}
        self._interceptor.holders = Holders(list(self._generators.values()))
        self.names = {key_of(each): name for name, each in self._named.items()}
        self._spies = {phase: _Spy(self._rules, lambda: self.names, self._unused) for phase in self.phases}
        floating = [each for key, (_, each) in found.variables.items() if key not in own]
        self.precision = precision_of([_dtype(each).name for each in floating] or [_policy(e) for e in found.unbuilt])
        asked = self._asked_precision
        if asked is not None and asked != self.precision:
            raise UserError(
                f"the modules are in {self.precision} and precision={asked!r} was asked for; variables cannot change "
                f"their dtype: build the modules in {asked} and give those."
            )

    def _has_variables(self) -> bool:
        return any(key_of(each) in self._found.variables for each in self._named.values())

    def prepare(self, batch: Batch) -> None:
        """Where layers or optimizers are not built, runs the step once and puts everything back."""
        if not self._ready:
            held = self._tried(batch)
            if self._trial and self._found.unbuilt and not self._has_variables():
                raise self._lacking()
            self._look()
            self._settle(held)

    def _lacking(self) -> UserError:
        return UserError(
            "tf_module found no floating variable in what it was given: build the layers first. Call what holds them "
            "once, on zeros of the right shape (module(tf.zeros([1, 784]))), before tf_module(module, ...)."
            f"{self._trial}"
        )

    def _require(self) -> None:
        """Makes ready what no batch was given for."""
        if not self._ready:
            self._settle(self._tried())

    def _settle(self, held: Mapping[int, Sequence[Any]]) -> None:
        if not self._has_variables():
            raise self._lacking()
        self._read_precision()
        self._build_optimizers(held)
        self._ready = True
        self._shape_of = {name: tuple(np.shape(value)) for name, value in self._read().items()}

    def _read_precision(self) -> None:
        if self.precision == "float64":
            for rule in self._rules.values():
                if isinstance(rule, KerasOptimizer):
                    round_hyperparameters(rule.outer)
        left = sorted({_plain_name(each) for each in self._others.values()})
        if left:
            self._remark(f"left out, and put back where something looks: {', '.join(left[:5])}")
        if not self._rules:
            self._remark("no optimizer was found: what the step's tapes return is taken for its gradients")

    # --- Optimizers' slots --------------------------------------------------------------------------------------------
    def _build_optimizers(self, held: Mapping[int, Sequence[Any]]) -> None:
        """Makes the slots of optimizers that have made no update yet.

        Args:
          held: id of an optimizer -> what a run of the step handed to it.
        """
        waiting = {name: rule for name, rule in self._rules.items() if not rule.built}
        floating = [each for each in self._named.values() if np.issubdtype(_dtype(each), np.floating)]
        trainable = [each for each in floating if getattr(each, "trainable", True)]
        chosen: dict[str, Sequence[Any]] = {}
        for name, rule in waiting.items():
            if held.get(id(rule.outer)):
                chosen[name] = held[id(rule.outer)]
            elif len(self._rules) == 1:
                chosen[name] = trainable
            elif name in self.modules:
                part = _Found()
                part.walk(name, self.modules[name])
                chosen[name] = [each for each in trainable if key_of(each) in part.variables]
            else:
                raise UserError(
                    f"the optimizer {name!r} ({type(rule.outer).__name__}) has made no update yet, and which variables "
                    "it gets cannot be told: call its build(variables), give it the name of its module, or give "
                    "inputs={name: (shape, dtype)} so that the step can be tried."
                    f"{self._trial}"
                )
        for name, variables in chosen.items():
            self._rules[name].build(variables)
        told = [name for name, rule in self._rules.items() if held.get(id(rule.outer)) and name in waiting]
        if told:
            self._remark(f"which variables {', '.join(told)} get was found by a run of the step")

    def _tried(self, batch: Batch | None = None) -> dict[int, list[Any]]:
        """Id of an optimizer -> what an eager run of the outputs and the phases hands to it.

        It also builds layers. Without a batch it is run on ones, where enough is known of the inputs.
        """
        if batch is None and all(rule.built for rule in self._rules.values()):
            return {}
        infos = self.inputs()
        if batch is None:
            if not infos or any(info.shape is None for info in infos):
                return {}
            batch = {
                info.name: np.ones([2 if n is None else n for n in info.shape or ()], info.dtype or self.precision)
                for info in infos
            }
        try:
            with (
                first_run.nothing_updated({name: rule.outer for name, rule in self._rules.items()}) as handed,
                first_run.numbers_kept(self._found.kept),
                steps.seeded_with(self.draws.seed),
                self._put_back(),
                first_run.eagerly(),
            ):
                tensors = self._tensors(batch)
                if self._found.unbuilt:
                    with contextlib.suppress(UserError):  # there may be no way to say what it computes
                        self._forward(tensors, False)
                for phase in self.phases:
                    self._call(phase, tensors)
        except Exception as error:  # the batch may be none that the code can take: then it is another way's turn
            self._trial = f" A run of the step stopped with {said(error)}"
            return {}
        rules = dict(self._rules)
        for name, rule in rules.items():
            if not handed[name] and (id(rule.outer) in self._found.lent or not rule.built):
                self._unused[name] = rule.outer
        if self._unused:
            self._look()
        return {id(rules[name].outer): list(each.values()) for name, each in handed.items() if each}

    # --- What it is ---------------------------------------------------------------------------------------------------
    def inputs(self) -> tuple[InputInfo, ...]:
        """As given, else as a tf.function's input_signature or the step's parameters say."""
        if self._given_inputs is None:
            found: dict[str, InputInfo] = {}
            for function in self._functions.values():
                signature = getattr(function, "input_signature", None)
                names = steps.names_of(function)
                if signature is None or len(names) != len(signature):
                    break
                for name, spec in zip(names, signature, strict=True):
                    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
                    found[name] = InputInfo(name, shape, spec.dtype.name)
            else:
                return tuple(found.values())
        return steps.input_infos(self._given_inputs, list(self._functions.values()))

    def may_take(self, name: str) -> bool:
        """Whether a function that it was given may use it."""
        looking = self._forward_function
        return any(steps.takes(each, name) for each in [*self._functions.values(), *([looking] if looking else [])])

    def variables(self) -> tuple[VariableInfo, ...]:
        """Variables of the modules in the order of creation, counters last."""
        self._require()
        held = {
            name: {key_of(each) for each in rule.held(list(self._named.values()))} for name, rule in self._rules.items()
        }
        return tuple(
            VariableInfo(
                name,
                _plain_name(each),
                tuple(int(size) for size in each.shape),
                _dtype(each).name,
                bool(getattr(each, "trainable", True)),
                tuple(rule for rule, keys in held.items() if key_of(each) in keys),
            )
            for name, each in self._named.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Read off the optimizers; a step without one has an algorithm called "none"."""
        self._require()
        if not self._rules:
            return (OptimizerInfo("step", "none", {}),)
        return tuple(OptimizerInfo(name, rule.algorithm, rule.hyperparameters()) for name, rule in self._rules.items())

    def phase_optimizers(self) -> Mapping[str, tuple[str, ...]]:
        """Known where there is one of each, and of a phase that has run."""
        self._require()
        if len(self.phases) == 1 and len(self._rules) == 1:
            return {self.phases[0]: tuple(self._rules)}
        found = {phase: tuple(spy.applied) for phase, spy in self._spies.items() if spy.applied}
        return found if self._rules else {}

    def random_draws(self) -> tuple[DrawInfo, ...]:
        """Those of the calls so far, and the random ops that their traces hold and that are not fed."""
        for (way, _), clones in self._clones.items():
            for _, clone in clones.values() if way == "fed" else ():
                for concrete in clone._list_all_concrete_functions():
                    self._interceptor.note_left(concrete.graph)
        return tuple(self._interceptor.infos())

    def notes(self) -> tuple[str, ...]:
        """What was found by itself and what was left out."""
        return tuple(self._notes)

    def _remark(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def counted_in_python(self) -> tuple[str, ...]:
        """Whole numbers that the user's code counts up."""
        return tuple(self._python.found)

    # --- State --------------------------------------------------------------------------------------------------------
    def _slots(self) -> dict[str, tuple[Rule, str, Any]]:
        """State name -> (optimizer, slot, the variable that keeps it)."""
        found: dict[str, tuple[Rule, str, Any]] = {}
        for name, rule in self._rules.items():
            for slot, rows in rule.slots(list(self._named.values())).items():
                for variable, kept in rows:
                    if key_of(variable) in self.names:
                        found[slot_name(name, slot, self.names[key_of(variable)])] = (rule, slot, kept)
            for extra, kept in rule.extras().items():
                found[f"optimizer/{name}/{extra}"] = (rule, "", kept)
        return found

    def _read(self) -> dict[str, Array]:
        arrays = {name: read(each) for name, each in self._named.items()}
        for name, (rule, slot, kept) in self._slots().items():
            arrays[name] = rule.get(slot, kept) if slot else read(kept)
        for name, rule in self._rules.items():
            arrays[iterations_name(name)] = np.array(_read_count(rule), np.int64)
        return arrays

    def state(self) -> State:
        """A copy of the whole state."""
        self._require()
        return State("+".join(name or type(each).__name__ for name, each in self.modules.items()), self._read())

    def load(self, state: State) -> None:
        """Assigns every variable, count and slot; counts first, since a slot may be kept in terms of the rate."""
        self._require()
        expected = {name: np.broadcast_to(np.zeros(()), shape) for name, shape in self._shape_of.items()}
        State("+".join(name or type(each).__name__ for name, each in self.modules.items()), expected).check_fits(state)
        for name, each in self._named.items():
            write(each, state.arrays[name])
        for name, rule in self._rules.items():
            _write_count(rule, int(state.arrays[iterations_name(name)]))
        for name, (rule, slot, kept) in self._slots().items():
            if slot:
                rule.set(slot, kept, state.arrays[name])
            else:
                write(kept, state.arrays[name])

    def initialise(self, seed: int) -> None:
        """Builds the modules again with `rebuild`, all generators seeded, and takes over the weights."""
        if self._rebuild is None:
            raise NotImplementedError(
                "the modules were given as objects and cannot be drawn again; give tf_module rebuild=, a function that "
                "builds them."
            )
        with steps.seeded_with(seed):
            tf.random.set_seed(seed)
            built = self._rebuild(seed) if inspect.signature(self._rebuild).parameters else self._rebuild()
        if isinstance(built, Program):
            fresh = dict(built.state().arrays)
        else:
            found = _Found()
            modules = dict(built) if isinstance(built, Mapping) else {"": built}
            for name, module in modules.items():
                found.walk(name, module)
            # Names that Keras counts up for each new layer are no names to go by: the order of creation is.
            own = set()
            for each in found.optimizers.values():
                rule: Rule = V1Optimizer("", each) if is_v1_optimizer(each) else KerasOptimizer("", each)
                own |= {key_of(variable) for variable in rule.all_variables()}
            named = _named(found, own)
            if len(named) == len(self._named) and not named.keys() >= self._named.keys():
                named = dict(zip(self._named, named.values(), strict=True))
            fresh = {name: read(each) for name, each in named.items()}
        arrays = self._read()
        wrong = [n for n in self._named if n not in fresh or fresh[n].shape != arrays[n].shape]
        if wrong:
            raise UserError(
                f"rebuild= gives modules without {wrong[0]!r} of shape {arrays[wrong[0]].shape}; it must build the "
                "same modules as tf_module was given."
            )
        slots = self._slots()
        for name in arrays:
            if name in fresh:
                arrays[name] = fresh[name]
            elif name in slots and slots[name][1]:
                arrays[name] = np.full_like(arrays[name], _start(slots[name][0], slots[name][1]))
            elif name not in self._named:
                arrays[name] = np.zeros_like(arrays[name]) if name.endswith("/iterations") else arrays[name]
        self.load(State("", arrays))

    # --- Running ------------------------------------------------------------------------------------------------------
    def _tensors(self, batch: Batch) -> dict[str, Any]:
        """The batch as tensors: floats in the Program's precision, but for halves, which are meant as such."""
        infos = {info.name: info for info in self.inputs()}
        declared = () if self._given_inputs is None else tuple(infos.values())
        found = {}
        for name, value in steps.batch_checked(batch, declared).items():
            info = infos.get(name)
            dtype = info.dtype if info is not None and info.dtype is not None else str(value.dtype)
            if np.dtype(dtype).char in "fd":
                dtype = self.precision
            found[name] = tf.constant(value, dtype)
        return found

    @contextlib.contextmanager
    def _functions_of(self, way: str, phase: str) -> Iterator[None]:
        """Inside, a tf.function that is called is one of the Program's own, traced for this way of running a phase."""
        kind = _function_class()
        original = kind.__call__
        clones = self._clones.setdefault((way, phase), {})
        ours: set[int] = set()

        def call(function: Any, *args: Any, **kwargs: Any) -> Any:
            if id(function) in ours or tf.config.functions_run_eagerly():
                return original(function, *args, **kwargs)
            if id(function) not in clones:
                clone = function._clone(None)
                if clone._jit_compile:
                    clone._jit_compile = None
                    self._remark("jit_compile=True was set aside: what draws are fed through cannot be compiled by XLA")
                clones[id(function)] = (function, clone)
            clone = clones[id(function)][1]
            ours.add(id(clone))
            return original(clone, *args, **kwargs)

        kind.__call__ = call
        try:
            yield
        finally:
            kind.__call__ = original

    @contextlib.contextmanager
    def _put_back(self) -> Iterator[None]:
        """Puts back every variable that a step can reach."""
        kept = {id(each): (each, read(each)) for each in self._all()}
        numbers = [(rule, rule.number) for rule in self._rules.values() if isinstance(rule, V1Optimizer)]
        try:
            yield
        finally:
            for each, value in kept.values():
                write(each, value)
            for rule, number in numbers:
                rule.number = number

    def _all(self) -> list[Any]:
        found = [*self._named.values(), *self._others.values()]
        for rule in self._rules.values():
            found += rule.all_variables()
        return found

    @contextlib.contextmanager
    def _fed(self, phase: str, way: str = "fed") -> Iterator[None]:
        with self._interceptor.feeding(phase), self._seeded(), self._functions_of(way, phase):
            yield

    @contextlib.contextmanager
    def _seeded(self) -> Iterator[None]:
        """Generators of Python's and numpy's that the code holds; the global ones are the Interceptor's."""
        with steps.held_seeded(self.draws, self._generators):
            yield

    def _function(self, phase: str) -> steps.Function:
        if phase not in self._functions:
            raise UserError(f"there is no phase {phase!r}; the phases are {', '.join(self.phases)}.")
        return self._functions[phase]

    def _call(self, phase: str, tensors: Mapping[str, Any]) -> Any:
        function = self._function(phase)
        return steps.call(function, f"the phase {phase!r} ({steps.called(function)})", tensors)

    def _forward(self, tensors: Mapping[str, Any], training: bool) -> dict[str, Any]:
        """The outputs, as tensors."""
        if self._forward_function is not None:
            title = f"forward= ({steps.called(self._forward_function)})"
            found = steps.named_outputs(steps.call(self._forward_function, title, tensors, training=training), title)
        else:
            found = steps.named_outputs(self._call_module(tensors, training), type(self._only()).__name__)
        if self._outputs is None:
            return found
        names = [self._outputs] if isinstance(self._outputs, str) else list(self._outputs)
        if len(names) == len(found) and not set(names) <= found.keys():
            return dict(zip(names, found.values(), strict=True))
        missing = [name for name in names if name not in found]
        if missing:
            raise UserError(f"outputs= names {missing[0]!r}, and the outputs are {', '.join(found)}; name those.")
        return {name: found[name] for name in names}

    def _only(self) -> Any:
        if len(self.modules) > 1:
            raise UserError(
                f"tf_module was given {len(self.modules)} modules ({', '.join(self.modules)}) and no forward=; give "
                "forward=, a function of the batch that returns the outputs to compare, by name."
            )
        (module,) = self.modules.values()
        return module

    def _call_module(self, tensors: Mapping[str, Any], training: bool) -> Any:
        """The one module's own call."""
        module = self._only()
        if not callable(module):
            raise UserError(
                f"{type(module).__name__} cannot be called; give tf_module forward=, a function of the batch (and of "
                "training, if it matters) that returns the outputs to compare."
            )
        keras = _is_keras(module, "Layer")
        parameters = steps.parameters(module.call if keras else module.__call__)
        more = {"training": training} if "training" in parameters or keras else {}
        needed = [
            name for name, each in parameters.items() if each.default is each.empty and name not in ("training", "mask")
        ]
        names = [name for name in getattr(module, "input_names", None) or () if name in tensors]
        if keras and len(names) > 1:
            return module([tensors[name] for name in names], **more)
        if len(needed) == 1 and needed[0] not in tensors and tensors:
            return module(tensors[names[0]] if names else next(iter(tensors.values())), **more)
        if needed and all(name in tensors for name in needed):
            return module(*(tensors[name] for name in needed), **more)
        raise UserError(
            f"{type(module).__name__} is called with {', '.join(needed) or 'nothing'}, and the batch has "
            f"{', '.join(tensors)}; give tf_module forward=, a function of the batch that returns the outputs."
        )

    # --- Looking ------------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """What `forward` returns, else what the one module returns."""
        self.prepare(batch)
        tensors = self._tensors(batch)
        with self._put_back(), self._fed("forward"):
            found = self._forward(tensors, training)
            return {name: np.array(value) for name, value in found.items()}

    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> Sequence[Node]:
        """The ops behind the outputs, or behind the targets of the phase's tapes."""
        self.prepare(batch)
        tensors = self._tensors(batch)
        if phase is None:
            graph = isinstance(self._forward_function, _function_class())
            with self._put_back(), self._fed("forward", "nodes"):
                return self._traces.get(
                    (None, training, self.draws.seed),
                    self.draws.step,
                    lambda given: list(self._forward(given, training).values()),
                    tensors,
                    self._named,
                    autograph=graph,
                    once=graph and not self._generators,
                ).run(tensors)
        function = self._function(phase)
        graph = isinstance(function, _function_class())
        spy = _Spy(self._rules, lambda: self.names, self._unused)

        def targets(given: dict[str, Any]) -> list[Any]:
            with spy.watching():
                self._call(phase, given)
            return list(spy.targets)

        with self._put_back(), self._fed(phase, "nodes"):
            found = self._traces.get(
                (phase, None, self.draws.seed),
                self.draws.step,
                targets,
                tensors,
                self._named,
                autograph=graph,
                once=graph and not self._generators,
            ).run(tensors)
        if not found:
            raise NotImplementedError(_no_tape(phase))
        return found

    def _watched(self, phase: str, batch: Batch) -> _Spy:
        """Runs a phase, puts everything back, and returns what was seen."""
        self._function(phase)
        self.prepare(batch)
        tensors = self._tensors(batch)
        with self._put_back(), self._fed(phase), self._spies[phase] as spy:
            self._call(phase, tensors)
        return spy

    def loss(self, phase: str, batch: Batch) -> float:
        """The sum of the targets of the phase's tapes."""
        found = self._watched(phase, batch).losses
        if not found:
            raise NotImplementedError(_no_tape(phase))
        return sum(found[1:], found[0])

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """What each optimizer goes by first in the phase."""
        spy = self._watched(phase, batch)
        found: dict[str, Array | None] = {}
        told: set[str] = set()
        for handed in spy.reached():
            again = handed.optimizer in told
            for variable, gradient in zip(handed.variables, handed.gradients, strict=True):
                if key_of(variable) in self.names and not (again and gradient is not None):
                    found.setdefault(self.names[key_of(variable)], gradient)
            told |= {handed.optimizer} if any(each is not None for each in handed.gradients) else set()
        if not spy.captured:
            found = dict(spy.asked)
            if not found:
                raise NotImplementedError(
                    f"the phase {phase!r} hands nothing to an optimizer and asks no GradientTape for gradients of the "
                    "modules' variables: its gradients cannot be told."
                )
        return {name: found[name] for name in self._named if name in found}

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        """What the phase's tapes return for the modules' variables, added up."""
        spy = self._watched(phase, batch)
        if spy.captured and spy.plain:
            return None
        if not spy.asked:
            raise NotImplementedError(_no_tape(phase))
        return {name: spy.asked[name] for name in self._named if name in spy.asked}

    # --- Training -----------------------------------------------------------------------------------------------------
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """One call of the user's function, in the trace that `gradients` runs too."""
        function = self._function(phase)
        self.prepare(batch)
        tensors = self._tensors(batch)
        with self._fed(phase), self._spies[phase] as spy, self._python.watching(phase):
            result = self._call(phase, tensors)
        loss = sum(spy.losses[1:], spy.losses[0]) if spy.losses else None
        what = f"the phase {phase!r} ({steps.called(function)})"
        return steps.reports(result, what, _number, loss, only=len(self.phases) == 1)

    def drawn(self, phase: str, batch: Batch) -> Mapping[str, str]:
        """Runs the phase unfed; its generators and seeds go on from one such run to the next, apart from the rest."""
        self._function(phase)
        self.prepare(batch)
        tensors = self._tensors(batch)
        with self._put_back(), steps.apart(self._states, self._generators), self._functions_of("recorded", phase):
            for key, value in self._apart.items():
                write(self._others[key], value)
            with self._interceptor.recording(phase) as found:
                self._call(phase, tensors)
            self._apart = {key: read(each) for key, each in self._others.items()}
        return dict(found)

    def close(self) -> None:
        """Forgets the traces."""
        self._clones.clear()


def _no_tape(phase: str) -> str:
    return (
        f"the phase {phase!r} asks no tf.GradientTape for gradients of the modules' variables: its loss cannot be told."
    )


def _number(value: Any) -> float:
    return float(np.asarray(value).item())


def _sought(value: Any) -> bool:
    return (
        is_optimizer(value)
        or is_v1_optimizer(value)
        or steps.is_generator(value)
        or isinstance(value, (tf.Variable, tf.random.Generator))
        or _is_keras(value, "Layer", "Metric", "Variable", "KerasVariable")
    )


def _policy(layer: Any) -> str:
    """The dtype that an unbuilt layer's variables will have."""
    return str(getattr(layer, "variable_dtype", None) or layer.dtype or "float32")


def _safe(rule: Rule) -> bool:
    return rule.built or isinstance(rule, KerasOptimizer)


def _start(rule: Rule, slot: str) -> float:
    """What a slot is before the first update."""
    if slot == "accumulator" and rule.algorithm.startswith(("Adagrad", "Ftrl")):
        for attribute in ("initial_accumulator_value", "_initial_accumulator_value"):
            if hasattr(rule.outer, attribute):
                return float(getattr(rule.outer, attribute))
    return 1.0 if isinstance(rule, V1Optimizer) and slot == "rms" else 0.0


def _global_generator() -> Any:
    from tensorflow.python.ops import stateful_random_ops

    return getattr(stateful_random_ops, "global_generator", None)


# --- The constructor --------------------------------------------------------------------------------------------------
def tf_module(
    module: Any,
    *,
    step: steps.Function | None = None,
    phases: Mapping[str, steps.Function] | None = None,
    optimizers: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | str | None = None,
    forward: steps.Function | None = None,
    inputs: steps.Inputs = None,
    seed: int = 0,
    precision: str | None = None,
    rebuild: Callable[..., Any] | None = None,
) -> Program:
    """A Program of modules of TensorFlow's and the function that trains them.

    Args:
      module: a tf.Module, a Keras model trained by a loop of one's own, any object that holds variables, or name ->
        such an object.
      step: the training step, usually a tf.function: takes a batch (`step(batch)`, a mapping of tensors, or
        `step(x, y)` by the inputs' names), updates, and returns the loss or a mapping with "loss".
      phases: name -> such a function, for a step that has parts, in the order they run.
      optimizers: name -> optimizer; by default those that are found among the modules' attributes and in what the
        step reaches.
      outputs: names for what `forward` or the module returns.
      forward: a function of the batch (with `training`, if it has such a parameter) that returns the outputs to
        compare; by default the one module is called.
      inputs: what a batch holds, where the step does not say it: names, or name -> (shape, dtype).
      seed: of the draws.
      precision: what the modules must be in, "float32" or "float64".
      rebuild: builds the modules again, for new weights; may take the seed.

    Raises:
      UserError: something given does not fit the rest.
    """
    if module is None or isinstance(module, (str, int, float, np.ndarray, tf.Tensor)):
        raise UserError(
            f"tf_module got a {type(module).__name__}; give a tf.Module, an object that holds variables, or a mapping "
            "of names to such objects."
        )
    functions = steps.check_functions("tf_module", step, phases)
    if forward is not None and not callable(forward):
        raise UserError(f"tf_module's forward= is a {type(forward).__name__}; give a function of the batch.")
    if outputs is not None and callable(outputs):
        raise UserError("tf_module's outputs= are names; give the function that computes them as forward=.")
    if precision not in (None, "float32", "float64"):
        raise UserError(f'precision={precision!r} is unknown; give "float32" or "float64".')
    modules = dict(module) if isinstance(module, Mapping) else {"": module}
    return ModuleProgram(modules, functions, optimizers, outputs, forward, inputs, seed, precision, rebuild)
