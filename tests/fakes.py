"""GANs in plain numpy, cut down to a few units and quick, with switches that plant one fault each.

They stand for vanilla_gan, whose discriminator has one phase, and for leaky_gan, whose discriminator has two phases
that share an optimizer and report accuracies.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfport import models, state
from tfport.models.spec import Adam, Dense, Input, ModelSpec, Network, Normal
from tfport.state import State, iterations_name, slot_name
from tfport.subject import Array, Batch, OptimizerInfo, Subject, VariableInfo

BATCH = 5
_NUMBERS = ("learning_rate", "beta_1", "beta_2", "epsilon")


def small_spec(model: str = "vanilla_gan") -> ModelSpec:
    """The model with 4 numbers of noise, 6 hidden units and images of 3 x 3, sigmoids and relus throughout."""
    drawn = Normal(0.5)
    networks = (
        Network("generator", (Dense("hidden", 4, 6, "relu", drawn), Dense("output", 6, 9, "sigmoid", drawn))),
        Network("discriminator", (Dense("hidden", 9, 6, "relu", drawn), Dense("output", 6, 1, "sigmoid", drawn))),
    )
    inputs = (Input("images", 9, "images"), Input("latent", 4, "normal"))
    return dataclasses.replace(models.get(model), networks=networks, inputs=inputs, image_size=3)


def used_optimizers(spec: ModelSpec) -> list[str]:
    """The optimizers that some phase has, in the spec's order."""
    return [name for name, _ in spec.optimizers if any(phase.optimizer == name for phase in spec.phases)]


def initial_state(spec: ModelSpec, precision: str = "float32", seed: int = 0) -> State:
    """The state before the first step, drawn in float32."""
    held = {name: spec.held(name) for name in used_optimizers(spec)}
    slots = {name: spec.optimizer(name).slots for name in held}
    return state.fresh(spec.name, _drawn(spec, seed), held, slots).astype(precision)


class FakeBatches:
    """`batches[step]` as the ladder asks for it; both precisions see the same numbers."""

    def __init__(self, spec: ModelSpec, precision: str = "float32", seed: int = 0) -> None:
        self.spec, self.precision, self.seed = spec, precision, seed

    def __getitem__(self, step: int) -> Batch:
        random = np.random.default_rng((self.seed, step))
        return {
            "images": random.random((BATCH, self.spec.pixels), np.float32).astype(self.precision),
            "latent": random.standard_normal((BATCH, self.spec.width("latent")), np.float32).astype(self.precision),
        }


@dataclasses.dataclass(frozen=True)
class Faults:
    """What is wrong with a FakeSubject; as it stands, nothing."""

    reordered: bool = False
    """Sums run backwards: a correct port that rounds differently."""
    hyperparameters: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Adam's numbers that are used, and told, in place of the spec's."""
    hidden_epsilon: float | None = None
    """Adam's epsilon that is used and not told."""
    frozen: tuple[str, ...] = ()
    """Variables that are never updated."""
    leak: tuple[str, ...] = ()
    """Variables that every phase moves."""
    simultaneous: bool = False
    """`step` takes the generator's gradient before the discriminator has moved."""
    dirty_forward: str | None = None
    """A variable that `forward` changes."""
    lacks: tuple[str, ...] = ()
    """Variables that are taken as zero and are no part of the model."""
    no_gradient: tuple[str, ...] = ()
    """Variables whose gradient is not handed out."""
    unreported: tuple[str, ...] = ()
    """Reports that `step` says nothing of."""
    reports: str | None = None
    """How what is reported is not so: "half", "negated", "running_mean", "nan" or "float32_scalar" (right) of the loss;
    "by_phase", the loss under the phase's name; "misses", the share that is wrong in place of the accuracy."""
    extra_report: bool = False
    """`step` reports what nobody knows."""
    nan_in: str | None = None
    """A precision in which one output is NaN."""
    float64_outputs: bool = False
    """Outputs are float64 whatever was asked."""
    miscount_in: str | None = None
    """A precision in which the optimizers count one step more."""
    stddev: float = 1.0
    """Factor on the standard deviation of the own initialisers."""
    variables: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Variable -> what is told of it in place of the truth."""


class FakeSubject(Subject):
    """See the module's text."""

    def __init__(
        self, spec: ModelSpec, precision: str = "float32", seed: int = 0, faults: Faults | None = None
    ) -> None:
        self.spec, self.precision, self.paradigm = spec, precision, "fake"
        self.faults = faults or Faults()
        self.reported: dict[str, list[float]] = {}
        self.salt = seed
        self.initialise(seed)

    # --- Structure ----------------------------------------------------------------------------------------------------
    def _held(self, optimizer: str) -> list[str]:
        return [name for name in self.spec.held(optimizer) if name not in self.faults.lacks]

    def _optimizers(self) -> list[str]:
        return used_optimizers(self.spec)

    def variables(self) -> tuple[VariableInfo, ...]:
        held = {name: self._held(name) for name in self._optimizers()}
        return tuple(
            dataclasses.replace(
                VariableInfo(
                    name,
                    name,
                    array.shape,
                    array.dtype.name,
                    True,
                    tuple(each for each, names in held.items() if name in names),
                ),
                **self.faults.variables.get(name, {}),
            )
            for name, array in self.arrays.items()
            if not name.startswith("optimizer/")
        )

    def _adam(self, optimizer: str) -> Adam:
        numbers: Any = self.spec.optimizer(optimizer)
        found: Adam = dataclasses.replace(numbers, **self.faults.hyperparameters)
        return found

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        return tuple(
            OptimizerInfo(name, "Adam", {each: getattr(self._adam(name), each) for each in _NUMBERS})
            for name in self._optimizers()
        )

    # --- State --------------------------------------------------------------------------------------------------------
    def initialise(self, seed: int) -> None:
        drawn = {
            name: array * np.float32(self.faults.stddev)
            for name, array in _drawn(self.spec, (seed, self.salt)).items()
            if name not in self.faults.lacks
        }
        held = {name: self._held(name) for name in self._optimizers()}
        slots = {name: self.spec.optimizer(name).slots for name in held}
        self.arrays = dict(state.fresh(self.spec.name, drawn, held, slots).astype(self.precision).arrays)

    def state(self) -> State:
        return State(self.spec.name, {name: array.copy() for name, array in self.arrays.items()})

    def load(self, state: State) -> None:
        self.check_fits(state)
        self.arrays = {name: np.array(state.arrays[name], array.dtype) for name, array in self.arrays.items()}

    # --- Computation --------------------------------------------------------------------------------------------------
    def _dot(self, left: Array, right: Array) -> Array:
        """left [A, B] times right [B, C], summed from one end or the other."""
        order = range(left.shape[1])
        total = np.zeros((left.shape[0], right.shape[1]), self.precision)
        for each in reversed(order) if self.faults.reordered else order:
            total += left[:, each : each + 1] * right[each : each + 1]
        return total

    def _network(self, name: str, inputs: Array) -> tuple[Array, Array]:
        hidden = np.maximum(self._dense(f"{name}/hidden", inputs), 0)
        return hidden, 1 / (1 + np.exp(-self._dense(f"{name}/output", hidden)))

    def _dense(self, layer: str, inputs: Array) -> Array:
        product = self._dot(inputs, self.arrays[f"{layer}/kernel"])
        bias = self.arrays.get(f"{layer}/bias")
        return product if bias is None else product + bias

    def _outputs(self, batch: Batch) -> dict[str, Array]:
        found: dict[str, Array] = {}
        found["generator/hidden"], found["generator/output"] = self._network("generator", batch["latent"])
        for kind, images in (("real", batch["images"]), ("fake", found["generator/output"])):
            hidden, probability = self._network("discriminator", images)
            found[f"discriminator/hidden/{kind}"], found[f"discriminator/output/{kind}"] = hidden, probability
        return found

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        found = self._outputs(batch)
        if self.faults.nan_in == self.precision:
            found["generator/hidden"][1, 2] = np.nan
        if self.faults.float64_outputs:
            found = {name: array.astype(np.float64) for name, array in found.items()}
        if self.faults.dirty_forward:
            self.arrays[self.faults.dirty_forward] += 1
        return found

    def generate(self, inputs: Batch) -> Array:
        return self._network("generator", inputs["latent"])[1]

    def _gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """Backpropagation by hand of the loss as it is minimised."""
        found = self._outputs(batch)
        real, fake = found["discriminator/output/real"], found["discriminator/output/fake"]
        images = found["generator/output"]
        left, _ = self._backward("discriminator", batch["images"], found["discriminator/hidden/real"], real - 1)
        right, _ = self._backward("discriminator", images, found["discriminator/hidden/fake"], fake)
        if phase == "discriminator_real":
            return left
        if phase == "discriminator_fake":
            return right
        if phase == "discriminator":
            return {name: left[name] + right[name] for name in left}
        _, slope = self._backward("discriminator", images, found["discriminator/hidden/fake"], fake - 1)
        return self._backward(
            "generator", batch["latent"], found["generator/hidden"], slope * images * (1 - images), mean=False
        )[0]

    def _backward(
        self, network: str, inputs: Array, hidden: Array, slope: Array, mean: bool = True
    ) -> tuple[dict[str, Array], Array]:
        """Gradients of a network, and of its input, from the slope at its last sum [B, units]."""
        slope = slope / np.asarray(BATCH, self.precision) if mean else slope
        inner = self._dot(slope, self.arrays[f"{network}/output/kernel"].T) * (hidden > 0)
        found = {
            f"{network}/hidden/kernel": self._dot(inputs.T, inner),
            f"{network}/hidden/bias": self._summed(inner),
            f"{network}/output/kernel": self._dot(hidden.T, slope),
            f"{network}/output/bias": self._summed(slope),
        }
        outer = self._dot(inner, self.arrays[f"{network}/hidden/kernel"].T)
        return {name: array for name, array in found.items() if name in self.arrays}, outer

    def _summed(self, slope: Array) -> Array:
        total: Array = self._dot(np.ones((1, len(slope)), self.precision), slope)[0]
        return total

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        found = self._gradients(phase, batch)
        return {name: array for name, array in found.items() if name not in self.faults.no_gradient}

    def _apply(self, phase: str, gradients: Mapping[str, Array]) -> None:
        """Adam as TF1 has it, all in the run's precision."""
        optimizer = self.spec.phase(phase).optimizer
        adam, kind = self._adam(optimizer), np.dtype(self.precision).type
        count = iterations_name(optimizer)
        more = 2 if self.faults.miscount_in == self.precision else 1
        step = int(self.arrays[count]) + 1
        self.arrays[count] = np.array(self.arrays[count] + more, np.int64)
        epsilon = adam.epsilon if self.faults.hidden_epsilon is None else self.faults.hidden_epsilon
        rate = kind(adam.learning_rate * np.sqrt(1 - adam.beta_2**step) / (1 - adam.beta_1**step))
        for name, gradient in gradients.items():
            m, v = (self.arrays[slot_name(optimizer, slot, name)] for slot in ("m", "v"))
            m += (gradient - m) * kind(1 - adam.beta_1)
            v += (gradient * gradient - v) * kind(1 - adam.beta_2)
            if name not in self.faults.frozen:
                self.arrays[name] -= rate * m / (np.sqrt(v) + kind(epsilon))
        for name in self.faults.leak:
            self.arrays[name] *= kind(0.99)

    def _reports(self, phase: str, batch: Batch) -> dict[str, Any]:
        about, found = self.spec.phase(phase), self._outputs(batch)
        real, fake = found["discriminator/output/real"], found["discriminator/output/fake"]
        on_real, on_fake = np.log(real), np.log(1 - fake)
        terms: Array = {
            "discriminator": on_real + on_fake,
            "discriminator_real": on_real,
            "discriminator_fake": on_fake,
            "generator": np.log(fake),
        }[phase]
        loss = float(terms.mean()) * (1 if about.sense == "maximised" else -1)
        past = self.reported.setdefault(phase, [])
        past.append(loss)
        told: dict[str | None, Any] = {
            "half": loss / 2,
            "negated": -loss,
            "running_mean": float(np.mean(past)),
            "nan": float("nan"),
            "float32_scalar": np.float32(loss),
        }
        reports = {phase if self.faults.reports == "by_phase" else about.loss: told.get(self.faults.reports, loss)}
        if about.accuracy is not None:
            hits = float(np.mean(real > 0.5) if phase == "discriminator_real" else np.mean(fake <= 0.5))
            reports[about.accuracy] = 1 - hits if self.faults.reports == "misses" else hits
        return reports

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        reports = self._reports(phase, batch)
        self._apply(phase, self._gradients(phase, batch))
        return reports

    def step(self, batch: Batch) -> dict[str, float]:
        reports: dict[str, float] = {}
        if self.faults.simultaneous:
            gradients = {phase: self._gradients(phase, batch) for phase in self.phases}
            for phase in self.phases:
                reports |= self._reports(phase, batch)
            for phase in self.phases:
                self._apply(phase, gradients[phase])
        else:
            for phase in self.phases:
                reports |= self.run_phase(phase, batch)
        extra = {"loss_C": 0.0} if self.faults.extra_report else {}
        return {name: value for name, value in reports.items() if name not in self.faults.unreported} | extra

    # --- Checkpoint ---------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        state.write(folder / "state.npz", self.state())

    def restore(self, folder: Path) -> None:
        self.load(state.read(folder / "state.npz"))


def _drawn(spec: ModelSpec, seed: Any) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    drawn: dict[str, Array] = {}
    for name, each in spec.variables().items():
        stddev = each.initialiser.stddev if isinstance(each.initialiser, Normal) else 0.0
        drawn[name] = random.standard_normal(each.shape, np.float32) * np.float32(stddev)
    return drawn


# --- Factories for `module:function`; each gives the small model whatever spec is asked for ---------------------------
def plain(spec: ModelSpec, precision: str, seed: int) -> FakeSubject:
    """Nothing wrong."""
    return FakeSubject(small_spec(), precision, seed)


def halved(spec: ModelSpec, precision: str, seed: int) -> FakeSubject:
    """Nothing wrong, and a discriminator that takes half steps."""
    return FakeSubject(small_spec("leaky_gan"), precision, seed)


class _Shared(FakeSubject):
    def variables(self) -> tuple[VariableInfo, ...]:
        first, second, *rest = super().variables()
        both = dataclasses.replace(first, optimizers=("generator", "information"))
        return (both, dataclasses.replace(second, trainable=False, optimizers=()), *rest)


def shared(spec: ModelSpec, precision: str, seed: int) -> FakeSubject:
    """Tells of a variable that two optimizers hold and of one that none does."""
    return _Shared(small_spec(), precision, seed)


def scalars(spec: ModelSpec, precision: str, seed: int) -> FakeSubject:
    """Reports its losses as numpy scalars, which JSON does not know."""
    return FakeSubject(small_spec(), precision, seed, Faults(reports="float32_scalar"))


class _Noisy(FakeSubject):
    def variables(self) -> tuple[VariableInfo, ...]:
        print('{"value": "from print", "arrays": false, "order": []}', flush=True)
        os.write(1, b"from the file descriptor\n")
        return super().variables()


def noisy(spec: ModelSpec, precision: str, seed: int) -> FakeSubject:
    """Prints to standard output where it should answer."""
    print("built", flush=True)
    return _Noisy(small_spec(), precision, seed)


class _Dying(FakeSubject):
    def state(self) -> State:
        print("out of memory", file=sys.stderr, flush=True)
        os._exit(3)


def dying(spec: ModelSpec, precision: str, seed: int) -> FakeSubject:
    """Ends its process when it is asked for its state."""
    return _Dying(small_spec(), precision, seed)


def stillborn(spec: ModelSpec, precision: str, seed: int) -> FakeSubject:
    """Ends its process before it is built."""
    print("no such device", file=sys.stderr, flush=True)
    os._exit(4)


class _Crashing(FakeSubject):
    def step(self, batch: Batch) -> dict[str, float]:
        raise ZeroDivisionError("nothing to divide by")

    def variables(self) -> tuple[VariableInfo, ...]:
        return (dataclasses.replace(super().variables()[0], name=np.float32(1)),)  # type: ignore[arg-type]


def crashing(spec: ModelSpec, precision: str, seed: int) -> FakeSubject:
    """Raises in `step`, and tells in `variables` what JSON does not know."""
    return _Crashing(small_spec(), precision, seed)
