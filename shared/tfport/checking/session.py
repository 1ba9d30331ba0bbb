"""What a check is asked, and what its parts share: opening sides, batches, clocks and bars."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from tfport.checking import counters, factories, ignored, old_names
from tfport.checking.ahead import Ahead
from tfport.checking.batches import BatchSource, fed, feeding, made_up
from tfport.checking.bounds import Sample
from tfport.checking.home import Home
from tfport.checking.renamed import BuiltNames, under
from tfport.checking.sides import Names, Side
from tfport.checking.store import Store
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS
from tfport.errors import LegacyKerasNeeded, StandInsNeeded, UserError, unknown, whole
from tfport.program import Batch, OptimizerInfo, Program
from tfport.state import State

Array = np.ndarray[Any, Any]
T = TypeVar("T")

DEFAULT_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Order:
    """What to check, and how."""

    legacy: Any
    modern: Any
    batches: Any = None
    steps: int = DEFAULT_STEPS
    precision: str = "float32"
    seed: int = 0
    mapping: Path | None = None
    write_mapping: Path | None = None
    sample: Sample = dataclasses.field(default_factory=Sample)
    rungs: tuple[str, ...] = RUNGS
    ignore: tuple[str, ...] = ()
    """Patterns of the variables that are left out, by their own names on either side."""
    names: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Inputs, outputs, losses and train_ops of a legacy TF1 graph, where they must be named."""
    isolated: bool | None = None
    """Whether sides live in processes of their own; None: those that are given as text do."""
    progress: bool = False
    command: str = ""

    @property
    def measured(self) -> tuple[str, ...]:
        """The rungs that are asked for and those without which they cannot be judged as in a whole check.

        Rungs 1 and 3 to 6 are looked at anyway; a free trajectory is judged by the forced one, and rung 9 by both.
        """
        needed = {*self.rungs, *RUNGS[FIRST_NUMERICAL:-3], "structure"}
        if "resume" in needed:
            needed.add("free_trajectory")
        if "free_trajectory" in needed:
            needed.add("forced_trajectory")
        return tuple(name for name in RUNGS if name in needed)

    def check(self) -> Order:
        """The order, when it can be carried out.

        Raises:
          UserError: a number out of range, or an unknown precision or rung.
        """
        if self.precision not in ("float32", "float64"):
            raise UserError(f"--precision={self.precision} is neither float32 nor float64.")
        for rung in self.rungs:
            if rung not in RUNGS:
                raise unknown("rung", rung, RUNGS)
        if not self.rungs:
            raise UserError(f"no rung is asked for: name some of {', '.join(RUNGS)}.")
        whole("steps", self.steps, 1, 40_000)
        whole("seed", self.seed, 0, 2**31 - 1)
        return self

    def given(self, role: str) -> Any:
        """What was given as that side."""
        return self.legacy if role == "legacy" else self.modern

    def elsewhere(self, role: str) -> bool:
        """Whether that side lives in processes of its own."""
        given = self.given(role)
        if given is None or isinstance(given, Program):
            return False
        return isinstance(given, str) if self.isolated is None else self.isolated


class Session:
    """One check while it runs."""

    def __init__(self, order: Order, store: Store, roles: Sequence[str] = ("legacy", "modern")) -> None:
        """Begins a check of the sides that are run."""
        self.order, self.store = order, store
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.left_out: list[str] = []
        self._batches: BatchSource | None = None
        self._built: dict[str, BuiltNames] = {}
        """Role -> what its first build called things."""
        self.tracks: dict[str, dict[str, counters.Track]] = {}
        """Role -> own name of a counter, or of an optimizer's count -> what it does over the first steps."""
        self.numbers: dict[str, Sequence[OptimizerInfo]] = {}
        """Role -> its optimizers before any step was made."""
        self.ignored: dict[str, frozenset[str]] = {}
        """Role -> own names of the variables that are left out."""
        self._names: list[str] = []
        """The variables of both sides, as far as built, by their own names."""
        self.drawn: Path | None = None
        """The file of the arrays that a record's original drew; see `draws.DrawSource`."""
        self.spare: dict[str, tuple[str, ...]] = {}
        """Role -> the entries of a batch that feed nothing there."""
        self.inputs: dict[str, str] = {}
        """Role -> what its inputs are, as a message says it."""
        self._programs: dict[str, Program] = {}
        """Role -> the Program of a model that was given built."""
        self._ahead: dict[tuple[str, str], Ahead[Program]] = {}
        """Role and precision -> a side that is being built."""
        self.begun: list[Ahead[Any]] = []
        """All that was begun before it was asked for."""
        self._homes = {
            role: Home(order.given(role), role, self._needed(role)) for role in roles if order.elsewhere(role)
        }

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs.values():
            program.close()
        for home in self._homes.values():
            home.close()  # so that whatever was begun and waits for it ends
        for each in self.begun:
            each.ended(seconds=10)
        for built in self._ahead.values():
            if unused := built.ended(seconds=0):
                unused.close()

    def begin(self, call: Callable[[], T]) -> Ahead[T]:
        """Begins a call that is asked for later, or never: then it ends with the session."""
        found = Ahead(call)
        self.begun.append(found)
        return found

    @property
    def apart(self) -> bool:
        """Whether both sides live in processes of their own, so that they can run side by side."""
        return len(self._homes) == 2

    def build_ahead(self, role: str, precision: str) -> None:
        """Begins to build a side that lives in a process of its own."""
        if role in self._homes and (role, precision) not in self._ahead:
            seed = self.order.seed
            self._ahead[role, precision] = self.begin(lambda: self._remote(role, precision, seed))

    def import_ahead(self) -> None:
        """Imports, while the sides are being imported, what this process needs."""
        if not self._homes:
            return
        if isinstance(self.order.batches, str):
            with contextlib.suppress(UserError), factories.contained():  # raised once it is needed
                factories.find(self.order.batches, "batches")
        for name in ("scipy.optimize", "scipy.stats"):
            importlib.import_module(name)

    @contextmanager
    def opened(self, role: str, precision: str, seed: int | None = None) -> Iterator[Program]:
        """One side, built for the block; a Program that the user gave is put back as it was."""
        given = self._given(role)
        names = self.order.names if role == "legacy" else {}
        seed = self.order.seed if seed is None else seed
        if role in self._homes:
            ahead = self._ahead.pop((role, precision), None) if seed == self.order.seed else None
            program = ahead.result() if ahead else self._remote(role, precision, seed)
            program.draws.seed, program.draws.recorded = self.order.seed, self.drawn
            try:
                yield program
            finally:
                program.close()
            return
        with factories.Floatx(precision):
            program = factories.build(given, role, precision, seed, names)
            own = program is given
            draws = dataclasses.replace(program.draws)
            if own:
                self.side(program, role)  # its state is whole once it has seen a batch
            program.draws.seed, program.draws.recorded = self.order.seed, self.drawn
            before = self.store.keep(program.state().arrays) if own else None
            try:
                yield program
            finally:
                if before is not None:
                    program.load(State("", before))
                    program.draws.seed, program.draws.step, program.draws.aliases, program.draws.recorded = (
                        draws.seed,
                        draws.step,
                        draws.aliases,
                        draws.recorded,
                    )
                else:
                    program.close()

    def _given(self, role: str) -> Any:
        """What was given as that side; a model that is built already as one Program for the whole check."""
        given = self.order.given(role)
        if role not in self._homes and isinstance(given, str) and not factories.is_file(given):
            given = factories.find(given, role)
        if role in self._homes or isinstance(given, Program) or not factories.is_built(given):
            return given
        if role not in self._programs:
            names = self.order.names if role == "legacy" else {}
            self._programs[role] = factories.build(self.order.given(role), role, "float32", self.order.seed, names)
        return self._programs[role]

    def _needed(self, role: str) -> dict[str, str]:
        """What the process of a side is started with: what the original's source asks for."""
        given = self.order.given(role)
        if role != "legacy" or (factories.is_file(given) and not str(given).endswith(".py")):
            return {}
        found = old_names.needs(str(given), role)
        self.notes += found.notes
        return found.environment

    def _remote(self, role: str, precision: str, seed: int) -> Program:
        """The side in a process of its own; started again where its code needs Keras 2 or TensorFlow 1's names."""
        from tfport.checking.remote import RemoteProgram

        given, names = self.order.given(role), self.order.names if role == "legacy" else {}
        while True:
            home = self._homes[role]
            try:
                return RemoteProgram(given, role, precision, seed, names, home)
            except LegacyKerasNeeded:
                more, note = old_names.LEGACY_KERAS, old_names.legacy_keras_note(role)
                if importlib.util.find_spec("tf_keras") is None or more.items() <= (home.environment or {}).items():
                    raise
            except StandInsNeeded:
                more, note = old_names.STAND_INS, old_names.stand_ins_note(role)
                if more.items() <= (home.environment or {}).items():
                    raise
            home.close()
            self._homes[role] = Home(given, role, {**(home.environment or {}), **more})
            self.notes.append(note)

    @contextmanager
    def afresh(self, program: Program, role: str) -> Iterator[Program]:
        """The side built once more for the block, so that nothing of it has run; itself where it was given as built."""
        from tfport.checking.remote import RemoteProgram

        if isinstance(self._given(role), Program):
            yield program
        elif isinstance(program, RemoteProgram):
            with program.afresh():
                yield program
        else:
            with self.opened(role, program.precision) as fresh:
                yield fresh

    def batches(self, program: Program) -> BatchSource:
        """The batches; found once."""
        if self._batches is None:
            self._batches = self.given_batches()
        if self._batches is None:
            self._batches = made_up(program.inputs(), self.order.seed)
            self.notes.append("no batches were given: standard normal ones were made up")
        return self._batches

    def given_batches(self) -> BatchSource | None:
        """The batches that were given, if any were."""
        given = self.order.batches
        if isinstance(given, str):
            with factories.contained():
                function = factories.find(given, "batches")
            return BatchSource(function, given, factories.contained)
        return given if given is None or isinstance(given, BatchSource) else BatchSource(given)

    def feed_recorded(
        self, batches: BatchSource, inputs: str, spare: tuple[str, ...], names: Sequence[str], left_out: Sequence[str]
    ) -> None:
        """Takes over what a record holds in place of a legacy side.

        Args:
          batches: those that it was made with.
          inputs: the side's inputs, as a message names them.
          spare: the entries of a batch that feed nothing there.
          names: of the side's variables.
          left_out: of those, which --ignore left out of it.

        Raises:
          UserError: --ignore leaves out another one.
        """
        self._batches, self.inputs["legacy"], self.spare["legacy"] = batches, inputs, spare
        self._names += [*names, *left_out]
        for pattern, matches in ignored.matching(self.order.ignore, names).items():
            if matches:
                raise UserError(
                    f"--ignore={pattern}: the record holds {matches[0]} of the legacy side. Record the original again "
                    f"with --ignore={pattern}."
                )

    @contextmanager
    def built_again(self, side: Side, seed: int) -> Iterator[Mapping[str, Array] | None]:
        """The initial state of the side, built again with another seed, under shared names; None where it cannot be.

        Code that keeps its tensors in globals can be called once in a process; each build then has one of its own.
        """
        given = self._given(side.role)
        anew = callable(given) and not isinstance(given, Program)
        if not anew:
            try:
                side.program.initialise(seed)
            except NotImplementedError:
                yield None
                return
            except UserError:
                if side.role not in self._homes:
                    raise
                anew = True
        if not anew:
            side.loaded.clear()
            yield side.state().arrays
            return
        with self.opened(side.role, side.program.precision, seed) as program:
            yield self.side(program, side.role, side.names).state().arrays

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the block's seconds to the report's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = round(self.seconds.get(what, 0.0) + time.perf_counter() - began, 2)

    @contextmanager
    def bar(self, text: str, total: int) -> Iterator[Callable[[], None]]:
        """A progress bar, or nothing; what runs ahead shows none."""
        if not self.order.progress or threading.current_thread() is not threading.main_thread():
            yield lambda: None
            return
        slow = 0.2 if sys.stderr.isatty() else 10.0
        with tqdm(total=total, desc=text, unit="step", dynamic_ncols=True, mininterval=slow) as bar:
            yield lambda: bar.update() and None

    def side(self, program: Program, role: str, names: Names | None = None) -> Side:
        """The program as a side, made ready with the first batch."""
        first = self.batches(program)[0]
        assigned = feeding(first, program, role)
        self._taken(program, role, [name for name in first if name not in assigned.values()])
        program.prepare(fed(first, assigned, program.precision))
        program = under(self._built.setdefault(role, BuiltNames.of(program)), program)
        if role not in self.tracks:
            self.numbers[role] = program.optimizers()  # now: a step may leave the rate that it assigned
            self.ignored[role] = self._left_out(program, role)
            self.watch(program, role)
        return Side(program, role, names, frozenset(self.tracks[role]), self.ignored[role])

    def _left_out(self, program: Program, role: str) -> frozenset[str]:
        """The variables that `--ignore` leaves out of a side.

        Raises:
          UserError: one takes part, or a pattern matches none of either side.
        """
        own = [each.name for each in program.variables()]
        self._names += own
        matches = ignored.matching(self.order.ignore, own)
        ignored.check_takes_no_part(program, role, matches, self.first_batches(program, role))
        found = dict.fromkeys(name for names in matches.values() for name in names)
        if found:
            self.left_out.append(f"{', '.join(found)} of the {role} side (--ignore): {ignored.proof(program)}")
        for pattern, names in ignored.matching(self.order.ignore, self._names).items():
            if not names and role == "modern":
                raise unknown("variable in --ignore", pattern, self._names)
        return frozenset(found)

    def first_batches(self, program: Program, role: str) -> list[Batch]:
        """The batches of the first steps, as the program is fed."""
        source = self.batches(program)
        assigned = feeding(source[0], program, role)
        steps = range(min(counters.WATCHED, self.order.steps))
        return [fed(source[step], assigned, program.precision) for step in steps]

    def _taken(self, program: Program, role: str, spare: Sequence[str]) -> None:
        """Takes down which entries of a batch feed nothing on a side.

        Raises:
          UserError: one feeds nothing on any side.
        """
        if role in self.spare:
            return
        self.spare[role] = tuple(spare)
        self.inputs[role] = f"{role}: {', '.join(each.name for each in program.inputs()) or 'none'}"
        if self.order.legacy is not None and len(self.spare) < 2:
            return
        unused = set.intersection(*map(set, self.spare.values()))
        if unused:
            raise UserError(
                f"the batch's {', '.join(sorted(unused))} feeds no input; the inputs are "
                f"{'; '.join(self.inputs.values())}. Name the entries of the batch as the inputs are named, and leave "
                "out what nothing takes."
            )
        self.notes += [
            f"the batch's {', '.join(names)} feeds no input of the {side} side"
            for side, names in self.spare.items()
            if names
        ]

    def watch(self, program: Program, role: str, counts: bool = False) -> None:
        """Has the program's counters watched, and its optimizers' counts; see `counters.watch`."""
        found = counters.watch(program, self.first_batches(program, role), counts)
        self.tracks[role] = {name: track for name, track in found.items() if name not in self.ignored[role]}

    def batches_described(self) -> str:
        """Where the batches came from, and what is in one."""
        assert self._batches is not None
        batch = self._batches[0]
        held = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in batch.items())
        return f"{self._batches.name}: {held}"
