"""Programs made of compiled Keras models, of Keras 3 or tf_keras, that are trained by `train_on_batch`.

What runs is the user's own compiled step: its train function is traced again, with random numbers fed
(`tfport.adapters.tf_draws`) and with what is handed to the optimizers and what is differentiated told on the side. One
trace serves `run_phase`, `gradients` and `loss`, so that all three see the same flags, the same graph and the same
draws; what only looks runs the step and puts everything back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfport.adapters import steps
from tfport.adapters.func_graphs import Found, Traces
from tfport.adapters.keras_optimizers import (
    GradientSpy,
    Handed,
    KerasOptimizer,
    flavour_of,
    initial_value,
    is_optimizer,
    is_variable,
    key_of,
    native,
    read,
    round_hyperparameters,
    write,
)
from tfport.adapters.python_draws import Holders
from tfport.adapters.tf_draws import Interceptor
from tfport.checking.draws import DrawSource
from tfport.errors import UserError
from tfport.program import Array, Batch, DrawInfo, InputInfo, Node, Program, precision_of
from tfport.state import State, iterations_name, slot_name
from tfport.subject import OptimizerInfo, VariableInfo

_FUNCTIONS = ("train_function", "test_function", "predict_function")
_OUTSIDE = ("tensorflow", "keras", "tf_keras", "numpy", "tfport")
"""Packages whose functions and objects are not looked into."""
_COUNTERS = ("_train_counter", "_test_counter", "_predict_counter")
_LABELS = {"keras3": "Keras 3", "keras2": "tf_keras"}

Phase = Callable[[Batch], Any]
Outputs = Callable[[Batch, bool], Mapping[str, Any]]


class LazyArrays(Mapping[str, Array]):
    """Arrays that are read when asked for."""

    def __init__(self, readers: Mapping[str, Callable[[], Array]]) -> None:
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> Array:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __contains__(self, name: object) -> bool:
        return name in self._readers


class KerasProgram(Program):
    """Keras models that share variables, and phases that train them; see the module's text."""

    def __init__(
        self,
        models: Mapping[str, Any],
        phases: Mapping[str, Phase],
        outputs: Outputs,
        inputs: Sequence[InputInfo],
        *,
        seed: int = 0,
        precision: str | None = None,
        rebuild: Callable[[int], Any] | None = None,
        remarks: Sequence[str] = (),
        build: Callable[[Batch], None] | None = None,
        optional: Sequence[str] | None = (),
    ) -> None:
        """Takes what the constructors below make of what a user gives.

        `optional` names what a batch may hold beside its inputs; None: anything.
        """
        self.models = dict(models)
        self.phases = tuple(phases)
        self.draws = DrawSource(seed)
        self._run = dict(phases)
        self._python = steps.PythonCounts([*phases.values(), *models.values()], _OUTSIDE)
        self._outputs = outputs
        self._inputs = tuple(inputs)
        self._rebuild = rebuild
        self._build = build
        self._remarks = list(remarks)
        self._optional = optional
        self._interceptor = Interceptor(self.draws)
        own_steps = [model.train_step for model in models.values() if not _keras_step(model)]
        held = steps.reachable([*phases.values(), *own_steps], steps.is_generator, _OUTSIDE)
        self._interceptor.holders = Holders(list(held.values()))
        flavours = {flavour_of(model) for model in self.models.values()}
        if len(flavours) > 1:
            raise UserError(
                "the models are partly Keras 3's and partly tf_keras's; expected all of one, since the two share no "
                "variables."
            )
        self.flavour = flavours.pop()
        self.kind = f"{_LABELS[self.flavour]} model" + ("s" if len(self.models) > 1 else "")
        self._optimizers: dict[str, KerasOptimizer] = {}
        self._find_optimizers()
        self._spy = GradientSpy({name: each.outer for name, each in self._optimizers.items()})
        self._losses: list[tuple[str, str, float]] = []
        self._traces = Traces()
        self._collecting = False
        self._phase_optimizers: dict[str, tuple[str, ...]] = {}
        self._settled = False
        self._unused: set[str] = set()
        self._steps: dict[str, Any] = {}
        self._recording_functions: dict[tuple[str, str], Any] = {}
        self._named: dict[str, Any] | None = None
        for name, model in self.models.items():
            self._ready(name, model)
        self.precision = precision or "float32"
        if self._all_built():
            self._read_precision(precision)
        self._wanted_precision = precision
        self._rounded = False
        self._round()

    # --- Getting ready ------------------------------------------------------------------------------------------------
    def _find_optimizers(self) -> None:
        """Every optimizer of the models, each once, by the name of the model that has it first.

        A model with a step of its own may hold them anywhere: as attributes, in lists and dicts, in what its step
        reaches, in models within it.
        """
        seen: set[int] = set()
        for name, model in self.models.items():
            given = {"optimizer": getattr(model, "optimizer", None)}
            if not _keras_step(model):
                reached = steps.reachable([model.train_step], is_optimizer, _OUTSIDE)
                given |= {label: each for label, each in reached.items() if label != "optimizer"}
                inner = [each for each in model._flatten_layers() if getattr(each, "optimizer", None) is not None]
                given |= {f"{each.name}.optimizer": each.optimizer for each in inner if each is not model}
            for attribute, value in given.items():
                if value is None or not is_optimizer(value) or id(value) in seen:
                    continue
                seen.add(id(value))
                if attribute == "optimizer":
                    label = "optimizer" if len(self.models) == 1 else name
                else:
                    label = attribute if len(self.models) == 1 else f"{name}.{attribute}"
                self._optimizers[label] = KerasOptimizer(label, value)

    def _ready(self, name: str, model: Any) -> None:
        """Forgets what a model has traced, since only what is traced while feeding is fed."""
        if getattr(model, "jit_compile", None) is True:
            model.jit_compile = False
            self._remarks.append(
                f"{name}: jit_compile was on and has been turned off, since XLA can run no fed random numbers"
            )
        for function in _FUNCTIONS:
            if hasattr(model, function):
                setattr(model, function, None)
        self._steps[name] = getattr(model, "train_step", None)

    def _all_built(self) -> bool:
        return all(bool(model.built) for model in self.models.values())

    def _require_built(self) -> None:
        missing = [name for name, model in self.models.items() if not model.built]
        if missing:
            raise UserError(
                f"the model {missing[0]!r} is not built, so it has no variables yet; expected one with known input "
                "shapes: begin it with an Input, call it once, or call prepare(batch) of this program."
            )

    def _read_precision(self, asked: str | None) -> None:
        self.precision = precision_of([_dtype(each) for each in self._variables().values()])
        if asked is not None and asked != self.precision:
            raise UserError(
                f"the {self.kind} is in {self.precision}, not in {asked} as asked; call set_floatx({asked!r}) before "
                "building it, or leave precision out."
            )

    def _round(self) -> None:
        if self.precision == "float64" and not self._rounded and self._all_built():
            self._rounded = True
            for each in self._optimizers.values():
                round_hyperparameters(each.outer)
            self._remarks.append("float64: the optimizers' numbers are rounded to float32, as TF1 keeps them")

    def prepare(self, batch: Batch) -> None:
        """Builds what only a batch can tell: unbuilt models, and which optimizer takes which variables.

        Where the user's code may choose at the first step (phases, a train_step of its own), the phases are run once in
        order and everything is put back. Every method that takes a batch calls this first. A check that asks for
        variables or the state before any batch does well to call it before: without it, optimizers are built for the
        variables that are trainable at that moment, which phases that set flags may see otherwise.
        """
        if not self._all_built():
            if self._build is None:
                self._require_built()
            else:
                self._build(batch)
                self._require_built()
            self._named = None
            self._read_precision(self._wanted_precision)
            self._round()
        if self._settled:
            return
        self._settled = True
        if self._plain() or all(each.built for each in self._optimizers.values()):
            self._build_optimizers()
            return
        with self._put_back():
            for phase in self.phases:
                self._call(phase, batch)
        self._drop_unused()
        for each in self._optimizers.values():
            each.saw(self._spy.applied.get(each.name, {}).values())

    def _plain(self) -> bool:
        """Whether it is one model whose step is Keras's own, so that its optimizer takes its trainable variables."""
        return len(self.models) == 1 and all(_keras_step(model) for model in self.models.values())

    def _build_optimizers(self) -> None:
        """Builds optimizers as the framework would at a first step with the flags as they are now."""
        for model in self.models.values():
            for each in self._optimizers.values():
                if each.outer is getattr(model, "optimizer", None) and not each.built and _keras_step(model):
                    variables = _trainable(model)
                    if variables:
                        each.build(variables)

    def _settle(self) -> None:
        """What is asked without a batch: builds what can be built."""
        self._require_built()
        if not self._settled:
            self._build_optimizers()
            if self._plain():
                self._settled = True

    def _drop_unused(self) -> None:
        """Leaves out optimizers that no phase applies."""
        for name, each in self._optimizers.items():
            if name not in self._spy.applied and not each.built:
                self._unused.add(name)
                self._remarks.append(
                    f"the optimizer {name} ({type(each.outer).__name__}) is used by no phase, and is left out"
                )

    def _live(self) -> dict[str, KerasOptimizer]:
        return {name: each for name, each in self._optimizers.items() if name not in self._unused}

    # --- What it is ---------------------------------------------------------------------------------------------------
    def inputs(self) -> tuple[InputInfo, ...]:
        """The batch's names."""
        return self._inputs

    def may_take(self, name: str) -> bool:
        """What `optional` says."""
        return self._optional is None or name in self._optional or not self._inputs

    def _variables(self) -> dict[str, Any]:
        """Name -> variable, for weights and statistics."""
        if self._named is not None:
            return self._named
        hidden = {key_of(each) for each in self._hidden()}
        found: dict[int, tuple[str, Any]] = {}
        for label, model in self.models.items():
            for variable in model.weights:
                if key_of(variable) not in hidden:
                    found.setdefault(key_of(variable), (label, variable))
        plain = [_name(variable) for _, variable in found.values()]
        named: dict[str, Any] = {}
        for label, variable in found.values():
            name = _name(variable)
            if plain.count(name) > 1:
                name = f"{label}/{name}"
            unique, count = name, 0
            while unique in named:
                count += 1
                unique = f"{name}_{count}"
            named[unique] = variable
        if self._all_built():
            self._named = named
        return named

    def _hidden(self) -> list[Any]:
        """Variables of metrics and optimizers."""
        found: list[Any] = []
        for model in self.models.values():
            for metric in _metrics(model):
                found.extend(metric.variables)
        for each in self._optimizers.values():
            found.extend(each.all_variables())
        return found

    def variables(self) -> tuple[VariableInfo, ...]:
        """Weights and statistics, with who really holds them."""
        self._settle()
        named = self._variables()
        held = {
            name: {key_of(each) for each in optimizer.held(list(named.values()))}
            for name, optimizer in self._live().items()
        }
        known = any(each.built for each in self._live().values())
        return tuple(
            VariableInfo(
                name,
                name,
                tuple(variable.shape),
                _dtype(variable),
                any(key_of(variable) in keys for keys in held.values()) if known else bool(variable.trainable),
                tuple(optimizer for optimizer, keys in held.items() if key_of(variable) in keys),
            )
            for name, variable in named.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Read off the optimizers as they are now."""
        return tuple(OptimizerInfo(name, each.algorithm, each.hyperparameters()) for name, each in self._live().items())

    def phase_optimizers(self) -> Mapping[str, tuple[str, ...]]:
        """Phase -> the optimizers that it was seen to apply."""
        return dict(self._phase_optimizers)

    def random_draws(self) -> tuple[DrawInfo, ...]:
        """What has drawn so far; what only looking draws is told where it is not controlled."""
        found = []
        for info in self._interceptor.infos():
            phases = tuple(phase for phase in info.phases if phase in self.phases)
            if phases or not info.controlled:
                found.append(dataclasses.replace(info, phases=phases))
        return tuple(found)

    def notes(self) -> tuple[str, ...]:
        """What was changed or chosen for the user, and phases that were seen to train nothing."""
        idle = [phase for phase, applied in self._phase_optimizers.items() if not applied]
        reads = "when train_on_batch first runs" if self.flavour == "keras3" else "when the model is compiled"
        return (
            *self._remarks,
            *(
                f"the phase {phase!r} hands nothing to any optimizer, so it trains nothing: the model has no trainable "
                f"variable ({_LABELS[self.flavour]} reads the flag `trainable` {reads})"
                for phase in idle
            ),
        )

    def counted_in_python(self) -> tuple[str, ...]:
        """Whole numbers that the user's code counts up."""
        return tuple(self._python.found)

    # --- State --------------------------------------------------------------------------------------------------------
    def _kept(self) -> dict[str, tuple[Any, KerasOptimizer | None, str]]:
        """State name -> (variable, the optimizer that keeps it, its slot)."""
        named = self._variables()
        names = {key_of(variable): name for name, variable in named.items()}
        found: dict[str, tuple[Any, KerasOptimizer | None, str]] = {
            name: (variable, None, "") for name, variable in named.items()
        }
        for label, optimizer in self._live().items():
            for slot, rows in optimizer.slots(list(named.values())).items():
                for variable, kept in rows:
                    if key_of(variable) in names:
                        found[slot_name(label, slot, names[key_of(variable)])] = (kept, optimizer, slot)
            for extra, kept in optimizer.extras().items():
                found[f"optimizer/{label}/{extra}"] = (kept, optimizer, extra)
            found[iterations_name(label)] = (optimizer.count, optimizer, "iterations")
        return found

    def state(self) -> State:
        """Weights, slots and counts, each read when asked for."""
        self._settle()

        def reader(kept: Any, optimizer: KerasOptimizer | None, slot: str) -> Callable[[], Array]:
            if slot == "iterations":
                return lambda: read(kept).astype(np.int64)
            return (lambda: read(kept)) if optimizer is None else (lambda: optimizer.get(slot, kept))

        return State(self.kind, LazyArrays({name: reader(*each) for name, each in self._kept().items()}))

    def load(self, state: State) -> None:
        """Assigns tensor by tensor, after names and shapes have been checked."""
        self._settle()
        kept = self._kept()
        nothing = np.zeros((), np.float32)
        State(
            self.kind, {name: np.broadcast_to(nothing, tuple(each[0].shape)) for name, each in kept.items()}
        ).check_fits(state)
        # Counts first: a schedule's rate, which a slot may be kept in terms of, is a function of them.
        for name, (variable, optimizer, slot) in sorted(kept.items(), key=lambda item: item[1][2] != "iterations"):
            value = np.asarray(state.arrays[name])
            if optimizer is None or slot == "iterations":
                write(variable, value)
            else:
                optimizer.set(slot, variable, value)

    def initialise(self, seed: int) -> None:
        """Takes over the weights of models that `rebuild` makes, and resets the optimizers."""
        if self._rebuild is None:
            raise NotImplementedError(
                "these models were given as objects, and nothing tells how to build them anew; give rebuild=, a "
                "function of a seed that returns what was given here, built again."
            )
        self._settle()
        sys.modules["keras" if self.flavour == "keras3" else "tf_keras"].utils.set_random_seed(seed)
        again = self._rebuild(seed)
        fresh = again if isinstance(again, Mapping) else dict.fromkeys(self.models, again)
        hidden = {key_of(each) for each in self._hidden()}
        taken: dict[int, tuple[str, Any, Any]] = {}
        for label, model in self.models.items():
            ours = [each for each in model.weights if key_of(each) not in hidden]
            if label not in fresh:
                raise UserError(f"rebuild returned no model {label!r}; expected {', '.join(self.models)}.")
            strange = {key_of(each) for metric in _metrics(fresh[label]) for each in metric.variables}
            theirs = [each for each in fresh[label].weights if key_of(each) not in strange]
            if [tuple(each.shape) for each in ours] != [tuple(each.shape) for each in theirs]:
                raise UserError(
                    f"what rebuild returned as {label!r} has other variables ({len(theirs)}) than the model given "
                    f"({len(ours)}); expected the same shapes in the same order, built."
                )
            for mine, new in zip(ours, theirs, strict=True):
                taken.setdefault(key_of(mine), (label, mine, new))
        for _, mine, new in taken.values():
            write(mine, read(new))
        for variable, optimizer, slot in sorted(self._kept().values(), key=lambda each: each[2] != "iterations"):
            if optimizer is None:
                continue
            if slot == "iterations":
                write(variable, np.zeros((), np.int64))
            else:
                optimizer.set(slot, variable, initial_value(optimizer, slot, variable))

    def _everything(self) -> dict[int, Any]:
        """Every variable that a call may move: weights, metrics, counters, seeds and what optimizers keep."""
        found: dict[int, Any] = {}
        for model in self.models.values():
            every = [*model.variables, *model.weights]
            every += [each for metric in _metrics(model) for each in metric.variables]
            every += [getattr(model, counter) for counter in _COUNTERS if is_variable(getattr(model, counter, None))]
            every += _generators(model)
            for each in every:
                found[key_of(each)] = each
        for optimizer in self._optimizers.values():
            for each in optimizer.all_variables():
                found[key_of(each)] = each
        if self.flavour == "keras3":
            from keras.src.backend.common import global_state

            generator = global_state.get_global_attribute("global_seed_generator")
            if generator is not None:
                found[key_of(generator.state)] = generator.state
        return found

    @contextlib.contextmanager
    def _put_back(self) -> Iterator[None]:
        """Puts back every variable there is, bit for bit, and the flags `trainable`, which a phase may set.

        Metrics that came into being meanwhile are reset.
        """
        before = self._everything()
        values = {key: read(variable) for key, variable in before.items()}
        flags = self._flags()
        try:
            yield
        finally:
            for holder, attribute, flag in flags:
                if getattr(holder, attribute) != flag:
                    setattr(holder, attribute, flag)
            for key, variable in before.items():
                write(variable, values[key])
            new = {key: each for key, each in self._everything().items() if key not in before}
            if new:
                self._reset_new(new)

    def _flags(self) -> list[tuple[Any, str, bool]]:
        """(layer or variable, attribute, value) for every flag of whether something is trained."""
        found: list[tuple[Any, str, bool]] = []
        for model in self.models.values():
            found += [(each, "_trainable", each._trainable) for each in model._flatten_layers()]
            if self.flavour == "keras3":
                found += [(each, "trainable", bool(each.trainable)) for each in model.weights]
        return found

    def _reset_new(self, new: Mapping[int, Any]) -> None:
        """Gives their first values to variables that were made during a call that is put back."""
        for model in self.models.values():
            for metric in _metrics(model):
                if any(key_of(each) in new for each in metric.variables):
                    (metric.reset_state if hasattr(metric, "reset_state") else metric.reset_states)()
        for optimizer in self._optimizers.values():
            for slot, rows in optimizer.slots(list(self._variables().values())).items():
                for _, kept in rows:
                    if key_of(kept) in new:
                        optimizer.set(slot, kept, initial_value(optimizer, slot, kept))
            for extra, kept in optimizer.extras().items():
                if key_of(kept) in new:
                    write(kept, initial_value(optimizer, extra, kept))
            if key_of(optimizer.count) in new:
                write(optimizer.count, np.zeros((), np.int64))

    # --- Running a phase ----------------------------------------------------------------------------------------------
    def _call(self, phase: str, batch: Batch) -> Any:
        """One phase as the user's code runs it, fed and watched."""
        if phase not in self._run:
            raise UserError(f"there is no phase {phase!r}; expected one of {', '.join(self.phases)}.")
        self._spy.ran.clear()
        with self._interceptor.feeding(phase), self._spy.watching(), self._watched_steps():
            value = self._run[phase](batch)
        if self._spy.ran or phase not in self._phase_optimizers:
            self._phase_optimizers[phase] = tuple(name for name in self._optimizers if name in self._spy.ran)
        for name, by_key in self._spy.applied.items():
            if name in self._unused:
                raise UserError(
                    f"the optimizer {name!r} was not used in the first run of the step, and is now: call its "
                    "build(variables) before the check."
                )
            self._optimizers[name].saw(by_key.values())
        return value

    @contextlib.contextmanager
    def _watched_steps(self) -> Iterator[None]:
        """While it lasts, what the models trace tells its loss, and leftover random ops are noted."""
        shadows: list[tuple[Any, str]] = []
        try:
            for name, model in self.models.items():
                if self._steps[name] is None or "train_step" in vars(model):
                    continue
                vars(model)["train_step"] = self._watched(name, model)
                shadows.append((model, "train_step"))
            yield
        finally:
            for model, attribute in shadows:
                vars(model).pop(attribute, None)

    def _watched(self, name: str, model: Any) -> Callable[[Any], Any]:
        original = self._steps[name]

        def train_step(data: Any) -> Any:
            with _targets(model, lambda way, loss: self._tell(name, way, loss)):
                result = _stepped(self.flavour, original, data)
            if not tf.executing_eagerly():
                self._interceptor.note_left(tf.compat.v1.get_default_graph())
            return result

        return tf.autograph.experimental.do_not_convert(train_step)  # type: ignore[no-any-return]

    def _tell(self, name: str, way: str, loss: Any) -> None:
        """Has a step tell its loss each time it runs."""

        def tell(value: Array) -> None:
            if self._collecting:
                self._losses.append((name, way, float(np.sum(value, dtype=np.float64))))

        if tf.executing_eagerly():
            tell(np.asarray(loss))
        else:
            tf.numpy_function(tell, [loss], [], stateful=True, name="tfport_loss")

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """The user's own step, in the mode that the model was compiled for."""
        self.prepare(batch)
        with self._python.watching(phase):
            value = self._call(phase, batch)
        return _report(value)

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """What the optimizers of the phase's step go by; of several calls for one variable, the last."""
        self._look(phase, batch)
        return self._by_name(self._spy.reached())

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        """What the phase's step hands to its optimizers; of several calls for one variable, the last."""
        if not self._spy.changing and all(_keras_step(model) for model in self.models.values()):
            return None
        self._look(phase, batch)
        return self._by_name(self._spy.captured)

    def _look(self, phase: str, batch: Batch) -> None:
        self.prepare(batch)
        with self._put_back(), self._spy:
            self._call(phase, batch)

    def _by_name(self, told: Sequence[Handed]) -> dict[str, Array | None]:
        names = {key_of(variable): name for name, variable in self._variables().items()}
        found: dict[str, Array | None] = {}
        for handed in told:
            for variable, gradient in zip(handed.variables, handed.gradients, strict=True):
                if key_of(variable) in names:
                    found[names[key_of(variable)]] = gradient
        return found

    def loss(self, phase: str, batch: Batch) -> float:
        """What the phase's step differentiates.

        Raises:
          NotImplementedError: nothing is seen to be differentiated, or several losses are, one after the other: what
            the phase reports is then the code's own way of putting them together.
        """
        self.prepare(batch)
        self._losses = []
        self._collecting = True
        try:
            with self._put_back():
                self._call(phase, batch)
        finally:
            self._collecting = False
        if not self._losses:
            raise NotImplementedError(
                f"nothing in the phase {phase!r} computes a loss that can be seen: neither compute_loss nor the "
                "gradient of a tape was called inside train_step."
            )
        seen = [(name, way) for name, way, _ in self._losses]
        if len(set(seen)) < len(seen) or len({name for name, _ in seen}) > 1:
            raise NotImplementedError(f"the phase {phase!r} trains more than once, each time on a loss of its own.")
        last = self._losses[-1][0]
        ways = {way: value for name, way, value in self._losses if name == last}
        model = self.models[last]
        scaled = hasattr(getattr(model, "optimizer", None), "inner_optimizer")
        order = ("compute_loss", "tape") if scaled else ("tape", "compute_loss")
        return next(ways[way] for way in order if way in ways)

    def drawn(self, phase: str, batch: Batch) -> Mapping[str, str]:
        """Digests of what the phase draws by itself.

        Weights, slots and metrics are put back. The framework's generators are not: they move on as in training, since
        a draw that is the same twice is what this is asked for.
        """
        self.prepare(batch)
        generators = {key_of(each) for each in self._moving_generators()}
        kept = {key: (each, read(each)) for key, each in self._everything().items() if key not in generators}
        flags = self._flags()
        before: dict[tuple[str, str], Any] = {}
        for name, model in self.models.items():
            for function in _FUNCTIONS:
                if hasattr(model, function):
                    before[name, function] = getattr(model, function)
                    setattr(model, function, self._recording_functions.get((name, function)))
        try:
            with self._interceptor.recording(phase) as found:
                self._run[phase](batch)
        finally:
            for (name, function), value in before.items():
                self._recording_functions[name, function] = getattr(self.models[name], function)
                setattr(self.models[name], function, value)
            for each, value in kept.values():
                write(each, value)
            for holder, attribute, flag in flags:
                setattr(holder, attribute, flag)
        return dict(found)

    def _moving_generators(self) -> list[Any]:
        """Variables that keep the state of a generator of random numbers."""
        weights = {key_of(each) for each in self._hidden()} | {key_of(each) for each in self._variables().values()}
        found = [each for model in self.models.values() for each in _generators(model)]
        if self.flavour == "keras3":
            for model in self.models.values():
                found += [each for each in model.variables if key_of(each) not in weights]
            from keras.src.backend.common import global_state

            generator = global_state.get_global_attribute("global_seed_generator")
            if generator is not None:
                found.append(generator.state)
        return found

    # --- Looking ------------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """The outputs, computed eagerly."""
        self.prepare(batch)
        with self._put_back(), self._interceptor.feeding("forward"):
            return {name: np.array(value) for name, value in self._outputs(batch, training).items()}

    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> Sequence[Node]:
        """Intermediates of the outputs, or of a phase's loss (of several calls in one phase, the last's)."""
        self.prepare(batch)
        if phase is not None:
            return self._phase_nodes(phase, batch)
        with self._put_back(), self._interceptor.feeding("forward"):
            traced = self._traces.get(
                (None, training, self.draws.seed),
                self.draws.step,
                lambda named: list(self._outputs(named, training).values()),
                {name: np.asarray(value) for name, value in batch.items()},
                self._variables(),
                autograph=self.flavour == "keras2",
            )
            return traced.run(batch)

    def _phase_nodes(self, phase: str, batch: Batch) -> list[Node]:
        """Runs the phase with each train function looked into before it runs."""
        found: list[list[Node]] = []
        with self._put_back():
            originals = {name: getattr(model, "train_function", None) for name, model in self.models.items()}
            try:
                for name, model in self.models.items():
                    if hasattr(model, "train_function"):
                        self._look_into(phase, name, model, batch, found)
                self._call(phase, batch)
            finally:
                for name, function in originals.items():
                    if hasattr(self.models[name], "train_function"):
                        current = getattr(self.models[name].train_function, "_tfport_real", None)
                        self.models[name].train_function = function if function is not None else current
        if not found:
            raise NotImplementedError(f"the phase {phase!r} called no train function that could be looked into.")
        return found[-1]

    def _look_into(self, phase: str, name: str, model: Any, batch: Batch, found: list[list[Node]]) -> None:
        real = model.train_function

        def train_function(iterator: Any) -> Any:
            data = next(iterator)
            source = self._interceptor.draws
            counts = dict(source._counts)
            with self._put_back():
                key = (phase, len(found), name, source.seed)
                found.append(self._step_nodes(name, model, data, batch, key))
            source._counts = counts
            if train_function._tfport_real is None:  # type: ignore[attr-defined]
                model.train_function = None
                model.make_train_function()
                train_function._tfport_real = model.train_function  # type: ignore[attr-defined]
                model.train_function = train_function
            again = iter(tf.data.Dataset.from_tensors(data)) if self.flavour == "keras2" else iter([data])
            return train_function._tfport_real(again)  # type: ignore[attr-defined]

        train_function._tfport_real = real  # type: ignore[attr-defined]
        model.train_function = train_function

    def _step_nodes(self, name: str, model: Any, data: Any, batch: Batch, key: Any) -> list[Node]:
        """The nodes of one train_step's loss on what it is given."""
        leaves = tf.nest.flatten(data)
        names: dict[int, str] = {}
        for index, leaf in enumerate(leaves):
            if leaf is None:
                continue
            value = np.asarray(leaf)
            same = [
                key for key, given in batch.items() if np.shape(given) == value.shape and np.array_equal(given, value)
            ]
            fresh = [key for key in same if key not in names.values()]
            names[index] = fresh[0] if fresh else f"{name}/fed_{index}"
        fed = {label: leaves[index] for index, label in names.items()}
        stop = _keras_step(model) and not hasattr(getattr(model, "optimizer", None), "inner_optimizer")

        def step(named: dict[str, Any]) -> Any:
            seen: list[tuple[str, Any]] = []

            def see(way: str, loss: Any) -> None:
                if way == "tape" and stop:
                    raise Found(loss)
                seen.append((way, loss))

            packed = tf.nest.pack_sequence_as(
                data, [None if index not in names else named[names[index]] for index in range(len(leaves))]
            )
            with _targets(model, see):
                _stepped(self.flavour, self._steps[name], packed)
            preferred = "compute_loss" if hasattr(getattr(model, "optimizer", None), "inner_optimizer") else "tape"
            return [loss for way, loss in seen if way == preferred] or [loss for _, loss in seen]

        once = not getattr(model, "run_eagerly", False)
        return self._traces.get(key, self.draws.step, step, fed, self._variables(), once=once).run(fed)

    def close(self) -> None:
        """Forgets what was traced, so that the models can be used without being fed."""
        for model in self.models.values():
            for function in _FUNCTIONS:
                if hasattr(model, function):
                    setattr(model, function, None)
        self._recording_functions.clear()


# --- Helpers ----------------------------------------------------------------------------------------------------------
def _stepped(flavour: str, step: Any, data: Any) -> Any:
    """Calls a train_step, with its Python converted as its Keras would."""
    if flavour == "keras3" or tf.executing_eagerly():
        return step(data)
    from tensorflow.python.autograph.core import ag_ctx

    with ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED):
        return tf.__internal__.autograph.tf_convert(step, ag_ctx.control_status_ctx())(data)


@contextlib.contextmanager
def _targets(model: Any, see: Callable[[str, Any], None]) -> Iterator[None]:
    """Tells what tapes differentiate by variables ("tape") and what compute_loss returns ("compute_loss")."""
    tape_gradient = tf.GradientTape.gradient
    compute_loss = getattr(model, "compute_loss", None)
    shadowed = "compute_loss" in vars(model)

    def gradient(self: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
        if any(is_variable(each) and not isinstance(each, tf.Tensor) for each in tf.nest.flatten(sources)):
            flat = [each for each in tf.nest.flatten(target) if tf.is_tensor(each)]
            if flat:
                see("tape", flat[0] if len(flat) == 1 else tf.add_n([tf.reduce_sum(each) for each in flat]))
        return tape_gradient(self, target, sources, *args, **kwargs)

    def computed(*args: Any, **kwargs: Any) -> Any:
        loss = compute_loss(*args, **kwargs)  # type: ignore[misc]
        if tf.is_tensor(loss):
            see("compute_loss", loss)
        return loss

    tf.GradientTape.gradient = tf.autograph.experimental.do_not_convert(gradient)
    if compute_loss is not None and not shadowed:
        vars(model)["compute_loss"] = computed
    try:
        yield
    finally:
        tf.GradientTape.gradient = tape_gradient
        if compute_loss is not None and not shadowed:
            vars(model).pop("compute_loss", None)


def _keras_step(model: Any) -> bool:
    """Whether a model's train_step is Keras's own."""
    for kind in type(model).__mro__:
        if "train_step" in vars(kind):
            return kind.__module__.split(".")[0] in ("keras", "tf_keras")
    return False


def _trainable(model: Any) -> list[Any]:
    """What a model's own train_step would hand to its optimizer: tf_keras goes by the flags at compile time."""
    if flavour_of(model) == "keras3":
        return list(model.trainable_weights)
    from tf_keras.src.engine import training_utils

    with training_utils.RespectCompiledTrainableState(model):
        return list(model.trainable_variables)


def _metrics(model: Any) -> list[Any]:
    try:
        return list(model.metrics)
    except (AttributeError, ValueError):  # not compiled, or not built
        return []


def _generators(model: Any) -> list[Any]:
    """The states of the tf.random.Generators that a model's layers draw from."""
    found: list[Any] = []
    layers = [*model._flatten_layers()] if hasattr(model, "_flatten_layers") else []
    for holder in [*layers, *(getattr(layer, "_random_generator", None) for layer in layers)]:
        for value in list(vars(holder).values()) if holder is not None else []:
            if isinstance(value, tf.random.Generator):
                found.append(value.state)
    return found


def _name(variable: Any) -> str:
    """A variable's own name: Keras 3's path, tf_keras's name without ":0"."""
    return str(getattr(variable, "path", None) or variable.name).removesuffix(":0")


def _dtype(variable: Any) -> str:
    return str(native(variable).dtype.base_dtype.name)


def _report(value: Any) -> dict[str, float]:
    """What a phase returned, its loss as "loss" and first; nothing of one that returns nothing."""
    if value is None:  # it copies to a target network, or resets what is accumulated
        return {}
    if isinstance(value, Mapping):
        numbers = {str(name): float(np.asarray(each)) for name, each in value.items() if np.ndim(each) == 0}
        if not numbers:
            raise UserError("a phase returned an empty dict; expected its loss, or a dict that has it.")
        loss = numbers.pop("loss") if "loss" in numbers else next(iter(numbers.values()))
        return {"loss": loss, **numbers}
    flat = np.asarray(value, np.float64).reshape(-1)
    if not flat.size:
        raise UserError("a phase returned nothing; expected what train_on_batch returned.")
    return {("loss" if index == 0 else f"metric_{index}"): float(each) for index, each in enumerate(flat)}


def _check_compiled(name: str, model: Any) -> None:
    flavour_of(model)
    if not hasattr(model, "train_on_batch"):
        raise UserError(f"{name} is a {type(model).__name__}, which has no train_on_batch; expected a compiled model.")
    compiled = getattr(model, "compiled", None)
    if compiled is None:
        compiled = getattr(model, "_is_compiled", False)
    if not compiled:
        raise UserError(
            f"{name} is not compiled, so it has no loss and no optimizer; expected a compiled model: call its "
            "compile(optimizer, loss) first."
        )


# --- One model --------------------------------------------------------------------------------------------------------
class _Names:
    """How a batch's entries go into one model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def functional(self) -> bool:
        return bool(getattr(self.model, "inputs", None)) and self.model.built

    def _nested(self, which: str) -> Mapping[str, Any] | None:
        """The dict of the model's inputs or outputs, where it has them by key."""
        found = getattr(self.model, f"_{which}_struct", getattr(self.model, f"_nested_{which}", None))
        return found if isinstance(found, Mapping) else None

    def inputs(self) -> list[str]:
        """Names of the model's inputs in a batch."""
        nested = self._nested("inputs")
        if nested is not None:
            return list(nested)
        if not self.functional or len(self.model.inputs) == 1:
            return ["x"]
        names = getattr(self.model, "input_names", None)
        return list(names) if names else [each.name.split(":")[0] for each in self.model.inputs]

    def outputs(self) -> list[str]:
        """Names of the model's outputs."""
        nested = self._nested("outputs")
        if nested is not None:
            return list(nested)
        names = getattr(self.model, "output_names", None) if getattr(self.model, "outputs", None) else None
        return [str(each) for each in names] if names else ["output"]

    def targets(self) -> list[str]:
        """Names of the targets in a batch."""
        outputs = self.outputs()
        return ["y"] if len(outputs) == 1 else [f"y_{name}" for name in outputs]

    def x(self, batch: Mapping[str, Any]) -> Any:
        """What the model is called with."""
        names = self.inputs()
        missing = [name for name in names if name not in batch]
        if missing:
            others = {
                name: value for name, value in batch.items() if name not in (*self.targets(), "y", "sample_weight")
            }
            if not self.functional and others:
                return others
            raise UserError(
                f"the batch has no {missing[0]!r}; expected {', '.join([*names, *self.targets()])}, found "
                f"{', '.join(batch)}."
            )
        if self._nested("inputs") is not None:
            return {name: batch[name] for name in names}
        return batch[names[0]] if len(names) == 1 else [batch[name] for name in names]

    def y(self, batch: Mapping[str, Any]) -> Any:
        """The targets; None where the batch has none and the model wants none."""
        names = self.targets()
        if all(name in batch for name in names):
            if len(names) == 1 and self._nested("outputs") is None:
                return batch[names[0]]
            values = {output: batch[name] for output, name in zip(self.outputs(), names, strict=True)}
            return values if self._nested("outputs") is not None else list(values.values())
        if "y" in batch:
            return batch["y"]
        if getattr(self.model, "loss", None) is not None and _keras_step(self.model):
            missing = next(name for name in names if name not in batch)
            raise UserError(
                f"the batch has no {missing!r}, and the model has a loss of its targets; expected "
                f"{', '.join([*self.inputs(), *names])}, found {', '.join(batch)}."
            )
        return None

    def infos(self) -> list[InputInfo]:
        """What a batch must hold."""
        found: list[InputInfo] = []
        nested = self._nested("inputs")
        for place, name in enumerate(self.inputs()):
            tensor = nested[name] if nested is not None else self.model.inputs[place] if self.functional else None
            found.append(_info(name, tensor))
        outputs = list(getattr(self.model, "outputs", None) or [])
        if getattr(self.model, "loss", None) is not None or not _keras_step(self.model):
            # Targets of a sparse loss have another shape and dtype than the output: left open.
            known = getattr(self.model, "loss", None) is not None or outputs
            found += [InputInfo(name, None, None) for name in self.targets()] if known else []
        return found

    def call(self, batch: Mapping[str, Any], training: bool) -> Any:
        """The model's outputs, nested as it gives them."""
        takes = getattr(self.model, "_expects_training_arg", getattr(self.model, "_call_has_training_arg", True))
        return self.model(self.x(batch), training=training) if takes else self.model(self.x(batch))


def _info(name: str, tensor: Any) -> InputInfo:
    if tensor is None:
        return InputInfo(name, None, None)
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    return InputInfo(name, tuple(None if size is None else int(size) for size in tensor.shape), dtype)


def keras_model(
    model: Any,
    *,
    outputs: Outputs | Sequence[str] | None = None,
    seed: int = 0,
    precision: str | None = None,
    rebuild: Callable[[int], Any] | None = None,
) -> KerasProgram:
    """One compiled model as a Program with the phase "train".

    Args:
      model: a compiled model of Keras 3 or tf_keras, with Keras's train_step or its own. A batch holds "x" (or each
        input by name, where there are several), "y" (or "y_<output>") and, where wanted, "sample_weight".
      outputs: what `forward` gives: a function (batch, training) -> name to value, or names of layers; the model's own
        outputs where it is left out.
      seed: of the random numbers that it is fed.
      precision: "float32" or "float64", checked against the model's.
      rebuild: seed -> the model built anew, for `initialise`.

    Raises:
      UserError: the model is not compiled, or of no Keras.
    """
    _check_compiled("the model", model)
    names = _Names(model)

    def train(batch: Batch) -> Any:
        weight = batch.get("sample_weight")
        return model.train_on_batch(names.x(batch), names.y(batch), sample_weight=weight, return_dict=True)

    def own(batch: Batch, training: bool) -> Mapping[str, Any]:
        value = names.call(batch, training)
        if isinstance(value, Mapping):
            return {str(name): each for name, each in value.items()}
        flat = tf.nest.flatten(value)
        labels = names.outputs()
        if len(labels) != len(flat):
            labels = [f"output_{place}" for place in range(len(flat))]
        return dict(zip(labels, flat, strict=True))

    def build(batch: Batch) -> None:
        names.call({name: np.asarray(value)[:1] for name, value in batch.items()}, False)

    return KerasProgram(
        {"model": model},
        {"train": train},
        _chosen(model, names, outputs) if outputs is not None else own,
        names.infos(),
        seed=seed,
        precision=precision,
        rebuild=rebuild,
        build=build,
        optional=("y", "sample_weight") if names.functional else None,
    )


def _chosen(model: Any, names: _Names, outputs: Outputs | Sequence[str]) -> Outputs:
    """The outputs of layers by name, or what the user's function gives."""
    if callable(outputs):
        return outputs
    labels = [outputs] if isinstance(outputs, str) else list(outputs)
    present = [layer.name for layer in model.layers]
    unknown = [label for label in labels if label not in present]
    if unknown:
        raise UserError(f"the model has no layer {unknown[0]!r}; expected some of {', '.join(present)}.")
    looking: list[Any] = []

    def chosen(batch: Batch, training: bool) -> Mapping[str, Any]:
        if not looking:
            package = sys.modules["keras" if flavour_of(model) == "keras3" else "tf_keras"]
            looking.append(package.Model(model.inputs, [model.get_layer(label).output for label in labels]))
        return dict(zip(labels, tf.nest.flatten(looking[0](names.x(batch), training=training)), strict=True))

    return chosen


# --- Several models ---------------------------------------------------------------------------------------------------
def keras_phases(
    models: Mapping[str, Any],
    phases: Mapping[str, steps.Function],
    *,
    outputs: steps.Function | None = None,
    inputs: Sequence[InputInfo] | Sequence[str] | None = None,
    seed: int = 0,
    precision: str | None = None,
    rebuild: Callable[[int], Any] | None = None,
) -> KerasProgram:
    """Models that share variables, trained by phases as the user's loop does it.

    Args:
      models: name -> model; those that a phase trains compiled, all of them built.
      phases: name -> function that calls train_on_batch and returns what it returned (a number, a list or a dict, the
        loss first); it takes inputs by name, or the batch. Noise that it draws by np.random, random or TensorFlow is
        fed.
      outputs: what `forward` gives: a function of the batch, and of `training` if it has such a parameter, that returns
        name -> value.
      inputs: what a batch must hold: names, or InputInfos.
      seed: of the random numbers that it is fed.
      precision: "float32" or "float64", checked against the models'.
      rebuild: seed -> the models built anew, by name, for `initialise`.

    Raises:
      UserError: there is no model or no phase, none is compiled, or one is not built.
    """
    if not models or not phases:
        raise UserError("keras_phases needs at least one model and one phase; give both as dicts by name.")
    functions = steps.check_functions("keras_phases", None, phases)
    if outputs is not None and (not callable(outputs) or hasattr(outputs, "train_on_batch")):
        raise UserError(f"outputs= is {outputs!r}; give a function of the batch that returns the outputs by name.")
    for name, model in models.items():
        flavour_of(model)
        if not model.built:
            raise UserError(
                f"the model {name!r} is not built, so its variables cannot be told; begin it with an Input, or call it "
                "once before."
            )
    compiled = [each for each in models.values() if getattr(each, "optimizer", None) is not None]
    if not compiled:
        raise UserError(
            f"none of the models {', '.join(models)} is compiled, so nothing can train; compile those that the phases "
            "call train_on_batch of."
        )

    def looked(batch: Batch, training: bool) -> Mapping[str, Any]:
        if outputs is None:
            raise NotImplementedError("these phases have no outputs=, so there is nothing to look at forwards.")
        return steps.named_outputs(steps.call(outputs, "outputs", batch, training=training), "outputs")

    infos = tuple(each if isinstance(each, InputInfo) else InputInfo(each, None, None) for each in inputs or ())
    remarks = ["where a phase trains more than once, gradients and nodes are those of its last time"]
    called = {
        name: functools.partial(steps.call, function, f"the phase {name!r}") for name, function in functions.items()
    }
    return KerasProgram(models, called, looked, infos, seed=seed, precision=precision, rebuild=rebuild, remarks=remarks)


def keras_gan(
    discriminator: Any,
    generator: Any,
    combined: Any,
    *,
    latent: int | Sequence[int],
    half_steps: bool = True,
    fakes: str = "predict",
    latent_scale: float = 1.0,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    seed: int = 0,
    precision: str | None = None,
    rebuild: Callable[[int], Any] | None = None,
) -> KerasProgram:
    """The common loop of Keras GANs: a discriminator's step on real and generated images, then the combined model's.

    A batch holds "x", the real images, and may hold "z", the noise of both phases; without it, each phase draws its own
    by np.random.normal, as the loops in use do, and is fed.

    Args:
      discriminator: compiled, trained on images.
      generator: makes images of noise; need not be compiled.
      combined: compiled, noise to the discriminator's verdict; trained towards `real_label`.
      latent: the shape of one example's noise.
      half_steps: whether real and generated images are trained on one after the other; else in one joint batch.
      fakes: how the generator is called: "predict", or "call" for a plain call in inference mode.
      latent_scale: the noise's standard deviation.
      real_label: the label of real images, and the combined model's target.
      fake_label: the label of generated images.
      seed: of the random numbers that it is fed.
      precision: "float32" or "float64", checked against the models'.
      rebuild: seed -> {"discriminator": ..., "generator": ..., "combined": ...} built anew.

    Raises:
      UserError: a model is not compiled or not built, or `fakes` is no known way.
    """
    _check_compiled("the discriminator", discriminator)
    _check_compiled("the combined model", combined)
    if fakes not in ("predict", "call"):
        raise UserError(f"fakes={fakes!r} is no way to call a generator; expected 'predict' or 'call'.")
    shape = (latent,) if isinstance(latent, int) else tuple(latent)

    def real(batch: Batch) -> Any:
        if "x" not in batch:
            raise UserError(f"the batch has no 'x', the real images; found {', '.join(batch)}.")
        return batch["x"]

    def noise(batch: Batch, count: int) -> Any:
        if "z" in batch:
            return batch["z"]
        drawn = np.random.normal(0.0, latent_scale, (count, *shape))  # noqa: NPY002
        return drawn.astype(_dtype(generator.weights[0]) if generator.weights else "float32")

    def generated(z: Any) -> Any:
        return generator.predict(z, verbose=0) if fakes == "predict" else np.asarray(generator(z, training=False))

    def labels(count: int, value: float) -> Array:
        return np.full((count, 1), value, "float32")

    def train_discriminator(batch: Batch) -> Any:
        images = real(batch)
        fake = generated(noise(batch, len(images)))
        if half_steps:
            first = discriminator.train_on_batch(images, labels(len(images), real_label))
            second = discriminator.train_on_batch(fake, labels(len(fake), fake_label))
            return 0.5 * np.add(np.asarray(first, np.float64), np.asarray(second, np.float64))
        joint = np.concatenate([images, fake])
        return discriminator.train_on_batch(
            joint, np.concatenate([labels(len(images), real_label), labels(len(fake), fake_label)])
        )

    def train_generator(batch: Batch) -> Any:
        z = noise(batch, int(real(batch).shape[0]))
        return combined.train_on_batch(z, labels(len(z), real_label))

    def outputs(batch: Batch, training: bool) -> Mapping[str, Any]:
        z = noise(batch, int(real(batch).shape[0]))
        images = generator(z, training=training)
        return {
            "generated": images,
            "real_verdict": discriminator(real(batch), training=training),
            "fake_verdict": discriminator(images, training=training),
        }

    image = _info("x", discriminator.inputs[0] if getattr(discriminator, "inputs", None) else None)
    program = keras_phases(
        {"discriminator": discriminator, "generator": generator, "combined": combined},
        {"discriminator": train_discriminator, "generator": train_generator},
        outputs=outputs,
        inputs=[image],
        seed=seed,
        precision=precision,
        rebuild=rebuild,
    )
    program._optional = ("z",)
    return program
