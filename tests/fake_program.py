"""Training programs in plain numpy that meet `tfport.program`, quick, with switches that plant one fault each.

`FakeProgram` is a small dense network with SGD, Momentum or Adam and one or two phases; `HeavyProgram` is wide, and
holds its arrays where tracemalloc does not see them, so that what is seen is the check's own.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfport import adam
from tfport.checking.batches import Batch
from tfport.checking.draws import DrawSource
from tfport.program import Array, DrawInfo, InputInfo, Node, OptimizerInfo, Program, State, VariableInfo
from tfport.state import iterations_name, slot_name

EXAMPLES = 5


@dataclass(frozen=True)
class Layer:
    """One dense layer: `<name>/kernel` [inputs, units] and `<name>/bias`."""

    name: str
    inputs: int
    units: int
    activation: str = "none"
    """"none", "relu", "leaky", "tanh" or "sigmoid"."""
    twin: bool = False
    """Whether a second kernel, `<name>/twin`, reads the same inputs, so that nothing tells the two apart."""


@dataclass(frozen=True)
class Phase:
    """One part of the step: these layers, moved by that optimizer."""

    name: str
    optimizer: str
    layers: tuple[str, ...]


Optimizer = tuple[str, str, Mapping[str, float]]
"""Name, algorithm and hyperparameters."""
_SHARED: dict[str, int] = {}
"""A count that outlives programs, as a global of a module does."""
SLOTS = {"SGD": (), "Momentum": ("accumulator",), "Adam": ("m", "v")}
LAYERS = (Layer("hidden", 4, 6, "tanh"), Layer("output", 6, 2))
SGD: Optimizer = ("sgd", "SGD", {"learning_rate": 0.1})
MOMENTUM: Optimizer = ("momentum", "Momentum", {"learning_rate": 0.1, "momentum": 0.9})
ADAM: Optimizer = ("adam", "Adam", {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7})
TWO_PHASES = (Phase("first", "sgd", ("hidden",)), Phase("second", "adam", ("output",)))


@dataclass(frozen=True)
class Plan:
    """What a program is, and what is wrong with it; its variables go by the names that `Layer` gives them."""

    # --- What it is ---------------------------------------------------------------------------------------------------
    layers: tuple[Layer, ...] = LAYERS
    optimizers: tuple[Optimizer, ...] = (ADAM,)
    phases: tuple[Phase, ...] = (Phase("train", "adam", ("hidden", "output")),)
    dropout: float = 0.0
    """Rate behind every layer but the last, in training."""
    noise: float = 0.0
    """Deviation of what is added to the inputs in training."""
    normalised: bool = False
    """Whether a mean over the batch, or the moving one, is taken off the inputs."""
    # --- How it is written: no fault ----------------------------------------------------------------------------------
    names: Mapping[str, str] = field(default_factory=dict)
    """Variable -> what the program calls it."""
    order: tuple[str, ...] = ()
    """Variables in the order in which they are told, where it is not that of computation."""
    transposed: tuple[str, ...] = ()
    """Kernels that are kept [units, inputs]."""
    wide: tuple[str, ...] = ()
    """Biases that are kept [1, units]."""
    scope: str = ""
    """Before the name of every node."""
    output: str = "prediction"
    shows: Mapping[str, str] = field(default_factory=dict)
    """Output -> the layer whose values it is, in place of the one `output`."""
    inputs: tuple[str, str] = ("x", "y")
    reordered: bool = False
    """Sums are taken from the other end: the same function, other rounding."""
    powers: str = "product"
    """Beta powers are multiplied up as in TF1 ("product") or come from pow, as in Keras ("pow")."""
    phase_optimizers_told: bool = True
    reinitialised: bool = True
    """Whether it can draw its weights again."""
    hides: tuple[str, ...] = ()
    """"loss" or "gradients", which it gives no way to tell."""
    # --- What is wrong ------------------------------------------------------------------------------------------------
    loss_factor: float = 1.0
    gradient_factor: float = 1.0
    """On what the optimizer is handed; the loss is the same."""
    shows_derivatives: bool = False
    """Whether it shows them as they are before `gradient_factor`."""
    rate_factor: float = 1.0
    """On the learning rate as it is used; it is told as it is in `optimizers`."""
    power_offset: int = 0
    """How many steps beta powers are ahead."""
    no_gradient: tuple[str, ...] = ()
    """Variables for which the code gives None."""
    no_slope: tuple[str, ...] = ()
    """Variables whose gradient is zero everywhere."""
    frozen: tuple[str, ...] = ()
    """Variables that are not moved."""
    leak: tuple[str, ...] = ()
    """Variables that every phase moves by a hundredth as well."""
    reports: str = ""
    """How what is reported is not so: "half", "negative", "after" (read after the update), "running" (a mean over
    steps), "nan"."""
    simultaneous: bool = False
    """The step takes all its gradients first."""
    dirty: str = ""
    """A variable that looking at outputs moves."""
    uncontrolled: bool = False
    """Nobody can feed what is drawn."""
    noise_seen: str = ""
    """What its own draws look like: "same" at every step, or "traced"."""
    still_statistics: bool = False
    slips_at: int = 0
    """The update, counted from 1, that is made with twice the rate."""
    remembers: bool = False
    """Whether every update adds a part of the ones before it since the last load, which no state tells."""
    restarts: str = ""
    """What counts the updates up to the thousandth, at which, as at the first of all, slots begin anew: "count", the
    optimizer's count, which is no fault; "python", a number in the program; "shared", one of all programs."""
    miscount: int = 0
    """How many steps too many each update counts."""
    not_a_number: str = ""
    """A variable that begins with NaN in it."""
    stddev: float = 0.5
    """Of the kernels that its own initialisers draw."""
    bias: float = 0.0
    """Where biases begin."""
    constant: float = 1.0
    """What the inputs are multiplied by."""
    rounded_constant: bool = False
    """`constant` is float32 in every precision."""
    half_precision: str = ""
    """A layer whose sums are rounded to half the digits of its precision."""
    single_node: str = ""
    """A layer whose sums are float32 in every precision."""
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Variable -> what is told of it in place of the truth."""
    algorithm_told: str = ""
    numbers_told: Mapping[str, float] | None = None
    """Hyperparameters that are told in place of every optimizer's own."""
    close_calls: list[str] = field(default_factory=list)
    """Takes a line when a program is closed."""


class FakeProgram(Program):
    """See the module's text."""

    kind = "numpy program"

    def __init__(self, plan: Plan | None = None, precision: str = "float32", seed: int = 0) -> None:
        self.plan = plan or Plan()
        self.precision = precision
        self.phases = tuple(phase.name for phase in self.plan.phases)
        self.draws = DrawSource()
        self._past: dict[str, list[float]] = {}
        self._wild = 0
        self._memory: dict[str, Array] = {}
        self._made = 0
        self._layers = {layer.name: layer for layer in self.plan.layers}
        self._fill(seed)

    @property
    def _type(self) -> Any:
        return np.dtype(self.precision).type

    # --- Structure ----------------------------------------------------------------------------------------------------
    def _held(self, optimizer: str) -> list[str]:
        layers = {name for phase in self.plan.phases if phase.optimizer == optimizer for name in phase.layers}
        return [name for name in self._trained() if name.split("/")[0] in layers]

    def _trained(self) -> list[str]:
        return [
            f"{layer.name}/{role}"
            for layer in self.plan.layers
            for role in (("kernel", "twin", "bias") if layer.twin else ("kernel", "bias"))
        ]

    def _all(self) -> list[str]:
        return (["norm/moving_mean"] if self.plan.normalised else []) + self._trained()

    def _own(self, name: str) -> str:
        return self.plan.names.get(name, name)

    def _laid_out(self, name: str, array: Array) -> Array:
        if name in self.plan.transposed:
            return np.ascontiguousarray(array.T)
        return array.reshape(1, -1) if name in self.plan.wide else array

    def _laid_back(self, name: str, array: Array) -> Array:
        if name in self.plan.transposed:
            return np.ascontiguousarray(array.T)
        return array.reshape(-1) if name in self.plan.wide else array

    def inputs(self) -> tuple[InputInfo, ...]:
        sizes = self.plan.layers[0].inputs, self.plan.layers[-1].units
        return tuple(
            InputInfo(name, (None, size), self.precision) for name, size in zip(self.plan.inputs, sizes, strict=True)
        )

    def variables(self) -> tuple[VariableInfo, ...]:
        holders = {name: self._held(name) for name, _, _ in self.plan.optimizers}
        found = []
        for name in self.plan.order or self._all():
            held = tuple(each for each, names in holders.items() if name in names)
            array = self._laid_out(name, self.values[name])
            info = VariableInfo(self._own(name), self._own(name), array.shape, array.dtype.name, bool(held), held)
            found.append(replace(info, **self.plan.told.get(name, {})))
        return tuple(found)

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        return tuple(
            OptimizerInfo(
                name,
                self.plan.algorithm_told or algorithm,
                dict(numbers if self.plan.numbers_told is None else self.plan.numbers_told),
            )
            for name, algorithm, numbers in self.plan.optimizers
        )

    def phase_optimizers(self) -> Mapping[str, tuple[str, ...]]:
        if not self.plan.phase_optimizers_told:
            return {}
        return {phase.name: (phase.optimizer,) for phase in self.plan.phases}

    def random_draws(self) -> tuple[DrawInfo, ...]:
        controlled = not self.plan.uncontrolled
        reason = "" if controlled else "its generator is its own"
        found = []
        if self.plan.noise:
            found.append(DrawInfo("noise/normal", "normal", controlled, reason))
        if self.plan.dropout:
            found.append(DrawInfo("dropout/uniform", "uniform", controlled, reason))
        return tuple(found)

    # --- State --------------------------------------------------------------------------------------------------------
    def _fill(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.values: dict[str, Array] = {}
        for name in self._all():
            layer = self._layers.get(name.split("/")[0])
            if layer is None:
                self.values[name] = np.zeros(self.plan.layers[0].inputs, self.precision)
            elif name.endswith("/bias"):
                self.values[name] = np.full(layer.units, self.plan.bias, self.precision)
            else:
                drawn = random.standard_normal((layer.inputs, layer.units), np.float32) * np.float32(self.plan.stddev)
                self.values[name] = drawn.astype(self.precision)
        if self.plan.not_a_number:
            self.values[self.plan.not_a_number].flat[0] = np.nan
        self.slots: dict[tuple[str, str, str], Array] = {}
        self.counts: dict[str, int] = {}
        for optimizer, algorithm, _ in self.plan.optimizers:
            self.counts[optimizer] = 0
            for slot in SLOTS[algorithm]:
                for name in self._held(optimizer):
                    self.slots[optimizer, slot, name] = np.zeros_like(self.values[name])

    def initialise(self, seed: int) -> None:
        if not self.plan.reinitialised:
            raise NotImplementedError
        self._fill(seed)

    def state(self) -> State:
        found = {self._own(name): self._laid_out(name, self.values[name]).copy() for name in self._all()}
        for (optimizer, slot, name), array in self.slots.items():
            found[slot_name(optimizer, slot, self._own(name))] = self._laid_out(name, array).copy()
        for optimizer, count in self.counts.items():
            found[iterations_name(optimizer)] = np.array(count, np.int64)
        return State("fake", found)

    def load(self, state: State) -> None:
        self.state().check_fits(state)
        self._memory = {}

        def taken(own: str, name: str) -> Array:
            return np.array(self._laid_back(name, np.asarray(state.arrays[own])), self.precision)

        self.values = {name: taken(self._own(name), name) for name in self.values}
        self.slots = {
            (optimizer, slot, name): taken(slot_name(optimizer, slot, self._own(name)), name)
            for optimizer, slot, name in self.slots
        }
        self.counts = {name: int(state.arrays[iterations_name(name)]) for name in self.counts}

    # --- Computation --------------------------------------------------------------------------------------------------
    def _dot(self, left: Array, right: Array) -> Array:
        order = range(left.shape[1])
        total = np.zeros((left.shape[0], right.shape[1]), self.precision)
        for each in reversed(order) if self.plan.reordered else order:
            total += left[:, each : each + 1] * right[each : each + 1]
        return total

    def _drawn(self, kind: str, shape: tuple[int, ...]) -> Array:
        if self.plan.uncontrolled:
            self._wild += 1
            random = np.random.default_rng(self._wild)
            drawn = random.random(shape) if kind == "uniform" else random.standard_normal(shape)
            return drawn.astype(self.precision)
        return (
            self.draws.uniform(shape, self.precision) if kind == "uniform" else self.draws.normal(shape, self.precision)
        )

    def _pass(self, batch: Batch, training: bool) -> _Pass:
        plan, found = self.plan, _Pass(self.plan)
        value, last = batch[plan.inputs[0]], plan.inputs[0]
        constant = np.float32(plan.constant) if plan.rounded_constant else plan.constant
        if plan.constant != 1:
            value = value * self._type(constant)
            last = found.add("scale/Mul", "Mul", (last,), (), value)
        if plan.normalised:
            centre = value.mean(0) if training else self.values["norm/moving_mean"]
            found.centre = value.mean(0)
            value = value - centre
            last = found.add("norm/Sub", "Sub", (last,), () if training else ("norm/moving_mean",), value)
        if plan.noise and training:
            value = value + self._drawn("normal", value.shape) * self._type(plan.noise)
            last = found.add("noise/Add", "AddV2", (last,), (), value)
        for layer in plan.layers:
            found.entering.append(value)
            kernel = f"{layer.name}/kernel"
            total = self._dot(value, self.values[kernel])
            if layer.name == plan.half_precision:
                total = total.astype("float16" if self.precision == "float32" else "float32").astype(self.precision)
            summed = found.add(f"{layer.name}/MatMul", "MatMul", (last,), (kernel,), total)
            if layer.twin:
                twin = f"{layer.name}/twin"
                other = self._dot(value, self.values[twin])
                beside = found.add(f"{layer.name}/MatMul_1", "MatMul", (last,), (twin,), other)
                total = total + other
                summed = found.add(f"{layer.name}/Add", "AddV2", (summed, beside), (), total)
            value = total + self.values[f"{layer.name}/bias"]
            bias = (f"{layer.name}/bias",)
            shown = value.astype(np.float32) if layer.name == plan.single_node else value
            last = found.add(f"{layer.name}/BiasAdd", "BiasAdd", (summed,), bias, shown)
            value = _activated(layer.activation, value)
            found.leaving.append(value)
            if layer.activation != "none":
                kind = layer.activation.capitalize()
                last = found.add(f"{layer.name}/{kind}", kind, (last,), (), value)
            mask = np.ones_like(value)
            if plan.dropout and training and layer is not plan.layers[-1]:
                kept = self._drawn("uniform", value.shape) >= plan.dropout
                mask = kept.astype(self.precision) / self._type(1 - plan.dropout)
                value = value * mask
                last = found.add(f"{layer.name}/dropout/Mul", "Mul", (last,), (), value)
            found.masks.append(mask)
        found.prediction = value
        found.last = last
        return found

    def _looked(self, phase: str, batch: Batch) -> tuple[_Pass, float]:
        """A pass in training mode with the loss behind it."""
        self.draws.begin(phase)
        found = self._pass(batch, True)
        gap = found.prediction - batch[self.plan.inputs[1]]
        name = found.add("loss/Sub", "Sub", (found.last, self.plan.inputs[1]), (), gap)
        found.gap = gap
        squares = (gap * gap)[::-1] if self.plan.reordered else gap * gap
        loss = squares.mean(dtype=self.precision) * self._type(self.plan.loss_factor)
        found.add("loss/Mean", "Mean", (name,), (), np.asarray(loss, self.precision))
        return found, float(loss)

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        self.draws.begin("forward")
        found = self._pass(batch, training)
        if self.plan.dirty:
            self.values[self.plan.dirty] += 1
        layers = [layer.name for layer in self.plan.layers]
        shown = {name: found.leaving[layers.index(layer)] for name, layer in self.plan.shows.items()}
        return shown or {self.plan.output: found.prediction}

    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> Sequence[Node]:
        if phase is not None:
            return self._looked(phase, batch)[0].nodes
        self.draws.begin("forward")
        return self._pass(batch, training).nodes

    def loss(self, phase: str, batch: Batch) -> float:
        if "loss" in self.plan.hides:
            raise NotImplementedError
        return self._looked(phase, batch)[1]

    def _slopes(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """Backpropagation by hand, by the names of `Layer`."""
        found, _ = self._looked(phase, batch)
        factor = 2 * self.plan.loss_factor * self.plan.gradient_factor / found.gap.size
        slope = found.gap * self._type(factor)
        grads: dict[str, Array] = {}
        for place in reversed(range(len(self.plan.layers))):
            layer = self.plan.layers[place]
            slope = _slope(layer.activation, slope * found.masks[place], found.leaving[place])
            grads[f"{layer.name}/kernel"] = self._dot(found.entering[place].T, slope)
            if layer.twin:
                grads[f"{layer.name}/twin"] = grads[f"{layer.name}/kernel"].copy()
            grads[f"{layer.name}/bias"] = self._dot(np.ones((1, len(slope)), self.precision), slope)[0]
            kernel = self.values[f"{layer.name}/kernel"]
            slope = self._dot(slope, kernel.T + self.values[f"{layer.name}/twin"].T if layer.twin else kernel.T)
        layers = next(each.layers for each in self.plan.phases if each.name == phase)
        told: dict[str, Array | None] = {}
        for name in self._trained():
            if name.split("/")[0] in layers:
                told[name] = np.zeros_like(grads[name]) if name in self.plan.no_slope else grads[name]
                if name in self.plan.no_gradient:
                    told[name] = None
        return told

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        if "gradients" in self.plan.hides:
            raise NotImplementedError
        return {
            self._own(name): None if value is None else self._laid_out(name, value)
            for name, value in self._slopes(phase, batch).items()
        }

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        if not self.plan.shows_derivatives:
            raise NotImplementedError
        if self.plan.gradient_factor == 1:
            return None
        factor = self._type(self.plan.gradient_factor)
        return {name: None if value is None else value / factor for name, value in self.gradients(phase, batch).items()}

    # --- Training -----------------------------------------------------------------------------------------------------
    def _apply(self, phase: str, gradients: Mapping[str, Array | None]) -> None:
        which = next(each.optimizer for each in self.plan.phases if each.name == phase)
        name, algorithm, given = next(each for each in self.plan.optimizers if each[0] == which)
        numbers = {key: self._type(np.float32(value)) for key, value in given.items()}
        rate = numbers["learning_rate"] * self._type(self.plan.rate_factor)
        step = self.counts[name] + 1
        if self._begins_anew(step - 1):
            self.slots = {key: np.zeros_like(array) for key, array in self.slots.items()}
        self.counts[name] = step + self.plan.miscount
        one = self._type(1)
        for variable, gradient in gradients.items():
            if gradient is None:
                continue
            if algorithm == "SGD":
                change = rate * gradient
            elif algorithm == "Momentum":
                accumulator = self.slots[name, "accumulator", variable]
                accumulator *= numbers["momentum"]
                accumulator += gradient
                change = rate * accumulator
            else:
                first, second = self.slots[name, "m", variable], self.slots[name, "v", variable]
                first += (gradient - first) * (one - numbers["beta_1"])
                second += (gradient * gradient - second) * (one - numbers["beta_2"])
                powers = [self._power(numbers[beta], step + self.plan.power_offset) for beta in ("beta_1", "beta_2")]
                now = rate * np.sqrt(one - powers[1]) / (one - powers[0])
                change = now * first / (np.sqrt(second) + numbers["epsilon"])
            if step == self.plan.slips_at:
                change = change + change
            if self.plan.remembers:
                change = change + self._memory.get(variable, self._type(0)) * self._type(0.1)
                self._memory[variable] = change
            if variable not in self.plan.frozen:
                self.values[variable] -= change
        for variable in self.plan.leak:
            self.values[variable] *= self._type(0.99)

    def _begins_anew(self, count: int) -> bool:
        self._made += 1
        _SHARED["made"] = _SHARED.get("made", 0) + 1
        made = {"count": count, "python": self._made - 1, "shared": _SHARED["made"] - 1}
        return bool(self.plan.restarts) and made[self.plan.restarts] % 1_000 == 0

    def _power(self, beta: Any, step: int) -> Any:
        if self.plan.powers == "pow":
            return np.power(beta, self._type(step))
        return adam.beta_power(beta, step - 1, self.precision) if step else self._type(1)

    def _finished(self, phase: str, batch: Batch, loss: float, centre: Array | None) -> dict[str, float]:
        """What belongs to a phase beside its update."""
        if centre is not None and not self.plan.still_statistics:
            mean = self.values["norm/moving_mean"]
            mean += (centre - mean) * self._type(0.1)
        past = self._past.setdefault(phase, [])
        past.append(loss)
        after = self._looked(phase, batch)[1] if self.plan.reports == "after" else loss
        told = {
            "half": loss / 2,
            "negative": -loss,
            "after": after,
            "running": float(np.mean(past)),
            "nan": float("nan"),
        }
        return {"loss": told.get(self.plan.reports, loss)}

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        found, loss = self._looked(phase, batch)
        self._apply(phase, self._slopes(phase, batch))
        return self._finished(phase, batch, loss, found.centre)

    def step(self, batch: Batch) -> dict[str, float]:
        if not self.plan.simultaneous:
            return super().step(batch)
        looked = {phase: (self._looked(phase, batch), self._slopes(phase, batch)) for phase in self.phases}
        reports = {}
        for phase, ((found, loss), slopes) in looked.items():
            self._apply(phase, slopes)
            reports[f"{phase}/loss"] = self._finished(phase, batch, loss, found.centre)["loss"]
        return reports

    def drawn(self, phase: str, batch: Batch) -> Mapping[str, str]:
        found = {}
        for each in self.random_draws():
            self._wild += 1
            seen = 0 if self.plan.noise_seen == "same" else self._wild
            name = f"{each.name} (traced)" if self.plan.noise_seen == "traced" else each.name
            found[name] = hashlib.sha256(str(seen).encode()).hexdigest()
        return found

    def close(self) -> None:
        self.plan.close_calls.append("closed")


class _Pass:
    """One pass through the network."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.nodes: list[Node] = []
        self.entering: list[Array] = []
        self.leaving: list[Array] = []
        self.masks: list[Array] = []
        self.centre: Array | None = None
        self.prediction: Array = np.zeros(0)
        self.gap: Array = np.zeros(0)
        self.last = ""

    def add(self, name: str, kind: str, inputs: tuple[str, ...], variables: tuple[str, ...], value: Array) -> str:
        """Takes a node down; returns its name."""
        name = self._plan.scope + name
        own = tuple(self._plan.names.get(each, each) for each in variables)
        attributes = {"dtype": np.asarray(value).dtype.name}
        self.nodes.append(Node(name, kind, inputs, own, np.array(value), attributes, f"fake.py:{len(self.nodes) + 1}"))
        return name


def _activated(activation: str, value: Array) -> Array:
    one = value.dtype.type(1)
    if activation == "relu":
        return np.maximum(value, 0)
    if activation == "leaky":
        return np.where(value > 0, value, value * value.dtype.type(0.2))
    if activation == "tanh":
        return np.asarray(np.tanh(value))
    if activation == "sigmoid":
        return np.asarray(one / (one + np.exp(-value)))
    return value


def _slope(activation: str, slope: Array, value: Array) -> Array:
    """The slope before an activation, from that behind it and its value."""
    one = value.dtype.type(1)
    if activation == "relu":
        return slope * (value > 0)
    if activation == "leaky":
        return np.where(value > 0, slope, slope * value.dtype.type(0.2))
    if activation == "tanh":
        return np.asarray(slope * (one - value * value))
    return np.asarray(slope * value * (one - value)) if activation == "sigmoid" else slope


# --- Ways to give one -------------------------------------------------------------------------------------------------
Factory = Callable[..., FakeProgram]


def factory(plan: Plan | None = None, **changes: Any) -> Factory:
    """A factory that takes dtype and seed."""
    whole = replace(plan or Plan(), **changes)

    def build(dtype: str = "float32", seed: int = 0) -> FakeProgram:
        return FakeProgram(whole, dtype, seed)

    return build


def single(plan: Plan | None = None, **changes: Any) -> Factory:
    """A factory of float32 programs alone."""
    whole = replace(plan or Plan(), **changes)

    def build(seed: int = 0) -> FakeProgram:
        return FakeProgram(whole, "float32", seed)

    return build


def batches(step: int, inputs: int = 4, outputs: int = 2) -> dict[str, Array]:
    """The batch of a step."""
    random = np.random.default_rng((7, step))
    return {
        "x": random.standard_normal((EXAMPLES, inputs), np.float32),
        "y": random.standard_normal((EXAMPLES, outputs), np.float32),
    }


def plain() -> FakeProgram:
    """A factory to be named in text."""
    return FakeProgram()


# --- A large one ------------------------------------------------------------------------------------------------------
def _outside(shape: tuple[int, ...]) -> Array:
    """Zeros in memory of their own, which tracemalloc does not count."""
    size = int(np.prod(shape)) * 4
    return np.frombuffer(mmap.mmap(-1, size), np.float32).reshape(shape)


class _Lazy(Mapping[str, Array]):
    def __init__(self, program: HeavyProgram) -> None:
        self._program = program

    def __getitem__(self, name: str) -> Array:
        if name == iterations_name("sgd"):
            return np.array(self._program.count, np.int64)
        self._program.reads += 1
        return np.array(self._program.kernels[name])

    def __iter__(self) -> Iterator[str]:
        return iter([*self._program.kernels, iterations_name("sgd")])

    def __len__(self) -> int:
        return len(self._program.kernels) + 1


class HeavyProgram(Program):
    """The sum of `count` products of [width, width] kernels, its mean square minimised by SGD; its state is lazy."""

    kind, precision, phases = "heavy numpy program", "float32", ("train",)

    def __init__(self, width: int = 1_000, count: int = 10, reordered: bool = False) -> None:
        self.reordered = reordered
        self.width, self.rate, self.count, self.reads = width, np.float32(0.1), 0, 0
        self.draws = DrawSource()
        self.kernels = {f"layer_{number}/kernel": _outside((width, width)) for number in range(count)}
        random = np.random.default_rng(0)
        for kernel in self.kernels.values():
            for row in kernel:
                row[:] = random.standard_normal(width, np.float32) * np.float32(0.03)
        self._gradient = _outside((width, width))

    @property
    def bytes(self) -> int:
        """Of all weights."""
        return sum(kernel.nbytes for kernel in self.kernels.values())

    def inputs(self) -> tuple[InputInfo, ...]:
        return (InputInfo("x", (None, self.width), "float32"),)

    def variables(self) -> tuple[VariableInfo, ...]:
        shape = self.width, self.width
        return tuple(VariableInfo(name, name, shape, "float32", True, ("sgd",)) for name in self.kernels)

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        return (OptimizerInfo("sgd", "SGD", {"learning_rate": float(self.rate)}),)

    def state(self) -> State:
        return State("heavy", _Lazy(self))

    def load(self, state: State) -> None:
        for name, kernel in self.kernels.items():
            kernel[:] = state.arrays[name]
        self.count = int(state.arrays[iterations_name("sgd")])

    def initialise(self, seed: int) -> None:
        raise NotImplementedError

    def _nodes(self, batch: Batch) -> list[Node]:
        found = []
        for name, kernel in self.kernels.items():
            product = batch["x"] @ kernel
            found.append(Node(name.replace("kernel", "MatMul"), "MatMul", ("x",), (name,), product))
        total = np.zeros_like(batch["x"])
        for node in reversed(found) if self.reordered else found:
            total = total + node.value
        found.append(Node("sum", "AddN", tuple(node.name for node in found), (), total))
        return found

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        return {"sum": self._nodes(batch)[-1].value}

    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> Sequence[Node]:
        nodes = self._nodes(batch)
        if phase is not None:
            loss = np.asarray(np.square(nodes[-1].value).mean(), np.float32)
            nodes.append(Node("loss", "Mean", ("sum",), (), loss))
        return nodes

    def loss(self, phase: str, batch: Batch) -> float:
        return float(self.nodes(batch, True, phase)[-1].value)

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        total = self._nodes(batch)[-1].value
        np.matmul(batch["x"].T, total * np.float32(2 / total.size), out=self._gradient)
        return dict.fromkeys(self.kernels, self._gradient)

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        loss = self.loss(phase, batch)
        self.gradients(phase, batch)
        for kernel in self.kernels.values():
            kernel -= self.rate * self._gradient
        self.count += 1
        return {"loss": loss}
