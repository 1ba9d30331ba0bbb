"""What one side of a check shows: at one state, and along a trajectory. Everything goes into a store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfport.checking.batches import BatchSource
from tfport.checking.draws import DrawSource
from tfport.checking.lazy import Lazy
from tfport.checking.sides import Side, is_variable
from tfport.checking.store import Kept, Place, Store
from tfport.program import Batch, Node, OptimizerInfo

Array = np.ndarray[Any, Any]
Tick = Callable[[], None]
MODES = ("training", "inference")


@dataclass(frozen=True)
class KeptNode:
    """A node whose value lies in a store."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    variables: tuple[str, ...]
    place: Place
    attributes: Mapping[str, str] = field(default_factory=dict)
    where: str = ""

    @property
    def value(self) -> Array:
        """The node's value."""
        return self.place.shown()


def keep_nodes(store: Store, nodes: Iterable[Node]) -> list[KeptNode]:
    """The nodes with their values in the store."""
    return [
        KeptNode(
            node.name,
            node.kind,
            node.inputs,
            node.variables,
            store.put(np.asarray(node.value)),
            node.attributes,
            node.where,
        )
        for node in nodes
    ]


@dataclass
class Still:
    """All that one side shows at one state."""

    step: int
    state: Kept
    inputs: Kept
    """What was fed, under the side's own names."""
    optimizers: tuple[OptimizerInfo, ...] = ()
    """With the numbers of the update that the next step makes."""
    outputs: dict[str, Kept] = field(default_factory=dict)
    """Mode -> outputs."""
    objectives: dict[str, float] = field(default_factory=dict)
    """Phase -> its loss, computed; missing where the code gives no way to tell."""
    gradients: dict[str, Kept] = field(default_factory=dict)
    """Phase -> what is applied; missing where the code gives no way to tell."""
    derivatives: dict[str, Kept] = field(default_factory=dict)
    """Phase -> what the objective's derivatives are; missing where the code gives no way to tell."""
    untouched: set[str] = field(default_factory=set)
    """The phases whose code plainly applies the derivatives as they are."""
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Phase -> the variables for which the code gives None."""
    reports: dict[str, dict[str, float]] = field(default_factory=dict)
    after: dict[str, Kept] = field(default_factory=dict)
    """Phase -> the state after it alone."""
    after_step: Kept | None = None
    step_reports: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, list[KeptNode]] = field(default_factory=dict)
    """ "inference", and each phase -> its intermediates."""
    faults: list[str] = field(default_factory=list)
    """Broken invariants."""
    unstable: set[str] = field(default_factory=set)
    """Names whose value differs between two runs of the same thing from the same state."""

    def moved(self, phase: str) -> list[str]:
        """The variables, not slots, whose bits the phase changed."""
        changed = self.after[phase].changed(self.state)
        return [name for name in changed if is_variable(name)]


def observe(
    side: Side,
    store: Store,
    state: Mapping[str, Array],
    batch: Batch,
    step: int,
    *,
    nodes: bool = True,
    twice: bool = False,
) -> Still:
    """Everything that the side shows at a state; the side ends in the state after one whole step.

    Args:
      side: the side.
      store: where the arrays go.
      state: under shared names.
      batch: as the user gives it.
      step: what draws are keyed by.
      nodes: whether to keep intermediates too.
      twice: whether to run phases twice, to see what does not repeat.
    """
    side.at(step)
    side.load(state)
    still = Still(step, store.keep(side.state().arrays), store.keep(side.feed(batch)), side.optimizers())
    for mode in MODES:
        still.outputs[mode] = store.keep(outputs_of(side, batch, mode == "training"))
    if twice:
        again = store.keep(outputs_of(side, batch, True))
        still.unstable |= set(still.outputs["training"].changed(again))
    if nodes:
        with contextlib.suppress(NotImplementedError):
            still.nodes["inference"] = keep_nodes(store, side.nodes(batch))
    for phase in side.phases:
        if nodes:
            with contextlib.suppress(NotImplementedError):
                still.nodes[phase] = keep_nodes(store, side.nodes(batch, phase=phase))
        with contextlib.suppress(NotImplementedError):
            still.objectives[phase] = float(side.loss(phase, batch))
        try:
            gradients = side.gradients(phase, batch)
        except NotImplementedError:
            continue
        still.without[phase] = tuple(name for name, value in gradients.items() if value is None)
        still.gradients[phase] = store.keep(_given(gradients))
        with contextlib.suppress(NotImplementedError):
            derivatives = side.derivatives(phase, batch)
            still.derivatives[phase] = (
                still.gradients[phase] if derivatives is None else store.keep(_given(derivatives))
            )
            still.untouched |= {phase} if derivatives is None else set()
    changed = store.keep(side.state().arrays).changed(still.state)
    if changed:
        still.faults.append(f"looking at outputs and gradients changed {changed[0]}")
    for phase in side.phases:
        side.load(still.state)
        still.reports[phase] = side.run_phase(phase, batch)
        still.after[phase] = store.keep(side.state().arrays)
        if twice:
            side.load(still.state)
            side.run_phase(phase, batch)
            still.unstable |= set(store.keep(side.state().arrays).changed(still.after[phase]))
    side.load(still.state)
    still.optimizers = _standing(still.optimizers, side.optimizers())
    still.step_reports = side.step(batch)
    still.after_step = store.keep(side.state().arrays)
    return still


def _standing(before: Sequence[OptimizerInfo], after: Sequence[OptimizerInfo]) -> tuple[OptimizerInfo, ...]:
    """Optimizers with the numbers that are the same after an update, in one state.

    A number that the step itself assigns is left from the step before, and which one an update used is not known.
    """
    again = {each.name: each.hyperparameters for each in after}
    return tuple(
        replace(
            each,
            hyperparameters={
                name: value for name, value in each.hyperparameters.items() if again[each.name].get(name) == value
            },
        )
        for each in before
    )


def _given(gradients: Mapping[str, Array | None]) -> dict[str, Array]:
    return {name: value for name, value in gradients.items() if value is not None}


def outputs_of(side: Side, batch: Batch, training: bool) -> dict[str, Array]:
    """The side's outputs; none where it was given without any."""
    try:
        return side.forward(batch, training)
    except NotImplementedError:
        return {}


def probed_outputs(side: Side, batch: Batch) -> dict[str, Array]:
    """The side's outputs in inference, and those that it has in training alone."""
    return outputs_of(side, batch, True) | outputs_of(side, batch, False)


@dataclass
class Trajectory:
    """N steps of one side by itself."""

    reports: list[dict[str, float]] = field(default_factory=list)
    """One a step: "<phase>/<name>" -> value."""
    states: dict[int, Kept] = field(default_factory=dict)
    """How many steps were made -> the state then; 0 is the initial one."""


def run(
    side: Side,
    store: Store,
    initial: Mapping[str, Array],
    batches: BatchSource,
    steps: int,
    keep: Callable[[int], bool],
    tick: Tick,
) -> Trajectory:
    """N steps from a state; keeps the states after those numbers of steps for which `keep` says so."""
    side.at(0)
    side.load(initial)
    found = Trajectory()
    for step in range(steps):
        if keep(step):
            found.states[step] = store.keep(side.state().arrays)
        side.at(step)
        found.reports.append(side.step(batches[step]))
        tick()
    if keep(steps):
        found.states[steps] = store.keep(side.state().arrays)
    return found


def disturbed(
    arrays: Mapping[str, Array], seed: int, amplitudes: Mapping[str, float] | None = None
) -> Mapping[str, Array]:
    """The same arrays, each floating number moved to its neighbour above or below, at random.

    Args:
      arrays: a state or a batch.
      seed: of the direction.
      amplitudes: name -> how far to move at most, where that is more than one unit in the last place.
    """
    return _Disturbed(arrays, seed, amplitudes or {})


class _Disturbed(Lazy):
    def __init__(self, arrays: Mapping[str, Array], seed: int, amplitudes: Mapping[str, float]) -> None:
        super().__init__(arrays)
        self._arrays, self._seed, self._amplitudes = arrays, seed, amplitudes

    def __getitem__(self, name: str) -> Array:
        array = np.asarray(self._arrays[name])
        if array.dtype.kind != "f":
            return array
        generator = DrawSource(self._seed).number(f"disturbance {name}", array.shape)
        up = generator.random(array.shape, np.float32) < 0.5
        towards = np.where(up, np.inf, -np.inf).astype(array.dtype)
        moved = np.nextafter(array, towards)
        kept: Array = np.where(array == 0, array, moved)
        amplitude = self._amplitudes.get(name, 0.0)
        if amplitude:
            noise = generator.uniform(-amplitude, amplitude, array.shape).astype(array.dtype)
            kept = kept + (noise if array.size and array.min() < 0 else np.abs(noise))
        return kept


def probe_state(arrays: Mapping[str, Array], names: Sequence[str], seed: int) -> Mapping[str, Array]:
    """A state in which no two variables can be taken for each other: every floating one moved by N(0, .1).

    A moving variance stays positive: what was not negative stays so. Where a variable's own deviation is larger than .1
    it is moved by that share of it, so that functions are looked at where they are used.

    Args:
      arrays: a whole state.
      names: those that are variables; slots and counts are left as they are.
      seed: of the noise.
    """
    return _Probe(arrays, set(names), seed)


class _Probe(Lazy):
    def __init__(self, arrays: Mapping[str, Array], names: set[str], seed: int) -> None:
        super().__init__(arrays)
        self._arrays, self._names, self._seed = arrays, names, seed

    def __getitem__(self, name: str) -> Array:
        array = np.asarray(self._arrays[name])
        if name not in self._names or array.dtype.kind != "f" or not array.size:
            return array
        spread = max(0.1, 0.1 * float(array.std()))
        noise = DrawSource(self._seed).number(f"probe {name}", array.shape).standard_normal(array.shape, np.float32)
        moved: Array = array + (noise * np.float32(spread)).astype(array.dtype)
        if array.min() >= 0 and array.max() > 0:
            moved = np.abs(moved) + np.asarray(1e-3, array.dtype)
        return moved.astype(array.dtype)
