"""A Program that lives in another process; arrays travel by files and are read one at a time.

A user's code may call `disable_v2_behavior()`, choose a Keras, set floatx or patch what it likes: all that is global to
a process, so a side that is named on the command line has one of its own.
"""

from __future__ import annotations

import dataclasses
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfport.checking import factories
from tfport.checking.draws import DrawSource
from tfport.checking.factories import NoSuchPrecision
from tfport.checking.home import FRAMEWORKS, Home, switched
from tfport.checking.lazy import Lazy, located
from tfport.checking.quoting import said
from tfport.checking.renamed import BuiltNames, under
from tfport.checking.store import ArrayFile, Place
from tfport.errors import UserError
from tfport.program import Batch, DrawInfo, InputInfo, Node, Program
from tfport.remote import OtherProcess, answer_each, answer_lines
from tfport.state import State
from tfport.subject import Array, OptimizerInfo, VariableInfo


class _Answer(Lazy):
    """Arrays of one answer, read from its file when asked; the file goes with the object."""

    def __init__(self, places: Mapping[str, Any]) -> None:
        self._places = {name: Place.from_json(told) for name, told in places.items()}
        super().__init__(self._places)
        for path in {place.path for place in self._places.values()}:
            weakref.finalize(self, path.unlink, missing_ok=True)

    def __getitem__(self, name: str) -> Array:
        return self._places[name].shown()

    def located(self, name: str) -> Place:
        """Its place in the answer's file."""
        return self._places[name]


class _Sent(Lazy):
    """Arrays of a request, each in memory of its own when asked for."""

    def __init__(self, places: Mapping[str, Any]) -> None:
        self._places = {name: Place.from_json(told) for name, told in places.items()}
        super().__init__(self._places)

    def __getitem__(self, name: str) -> Array:
        return self._places[name].read()


class RemoteProgram(OtherProcess, Program):
    """A side in a process of its own, built there by `factories.build`."""

    def __init__(
        self,
        given: str,
        side: str,
        precision: str = "float32",
        seed: int = 0,
        names: Mapping[str, Any] | None = None,
        home: Home | None = None,
    ) -> None:
        """Starts the process and builds the side in it.

        Args:
          given: `module:function`, a `.meta` file or a SavedModel's folder.
          side: "legacy" or "modern", for messages.
          precision: "float32" or "float64".
          seed: as `factories.build` takes it.
          names: as `factories.build` takes them; plain values.
          home: which the process is forked from; without one, and where that cannot be, it begins by itself.

        Raises:
          UserError: as `factories.build`; the process is gone then.
          NoSuchPrecision: it can be built, but not in this precision.
        """
        self._home = home
        super().__init__("tfport.checking.remote", given, home.environment if home else None)
        self.draws = DrawSource(seed)
        try:
            made = self._ask(
                "build",
                None,
                {"given": given, "side": side, "precision": precision, "seed": seed, "names": dict(names or {})},
            )["value"]
            if "no_such_precision" in made:
                raise NoSuchPrecision(made["no_such_precision"])
        except BaseException:
            self.close()
            raise
        self.kind, self.precision, self.phases = made["kind"], made["precision"], tuple(made["phases"])
        self.furthest = made["furthest"]
        if home is not None:
            home.learn(made["imported"])

    def _started(self, module: str, environment: Mapping[str, str] | None) -> Any:
        """A fork of the side's home where there can be one."""
        if self._home is None:
            return super()._started(module, environment)
        process = self._home.fork(Path(self._folder.name)) or super()._started(module, environment)
        self._home.started(process)
        return process

    def _said(self, method: str, arrays: Mapping[str, Array] | None = None, **arguments: Any) -> Any:
        """The plain value of a method's answer."""
        return self._answered(method, arrays, arguments)["value"]

    def _arrays(self, method: str, arrays: Mapping[str, Array] | None = None, **arguments: Any) -> _Answer:
        """The arrays of a method's answer."""
        return _Answer(self._answered(method, arrays, arguments)["arrays"])

    def _answered(self, method: str, arrays: Mapping[str, Array] | None, arguments: dict[str, Any]) -> dict[str, Any]:
        draws = {
            "seed": self.draws.seed,
            "step": self.draws.step,
            "aliases": dict(self.draws.aliases),
            "recorded": str(self.draws.recorded) if self.draws.recorded else None,
        }
        sent = {} if arrays is None else self._sent(arrays)
        answer = self._ask(method, None, {**arguments, "draws": draws, "arrays": sent})
        if "not_implemented" in answer:
            raise NotImplementedError(answer["not_implemented"])
        return answer

    def _sent(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """The places of arrays in files: what lies in one is read there."""
        found = {}
        with ArrayFile(Path(self._folder.name, "request.bin")) as file:
            for name in arrays:
                place = located(arrays, name) or file.add(np.asarray(arrays[name]))
                found[name] = place.to_json()
        return found

    def inputs(self) -> tuple[InputInfo, ...]:
        """As the other process says."""
        return tuple(
            InputInfo(each["name"], None if each["shape"] is None else tuple(each["shape"]), each["dtype"])
            for each in self._said("inputs")
        )

    def may_take(self, name: str) -> bool:
        """As the other process says."""
        return bool(self._said("may_take", name=name))

    def variables(self) -> tuple[VariableInfo, ...]:
        """As the other process says."""
        return tuple(
            VariableInfo(**{**each, "shape": tuple(each["shape"]), "optimizers": tuple(each["optimizers"])})
            for each in self._said("variables")
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """As the other process says."""
        return tuple(OptimizerInfo(**each) for each in self._said("optimizers"))

    def phase_optimizers(self) -> Mapping[str, tuple[str, ...]]:
        """As the other process says."""
        return {phase: tuple(names) for phase, names in self._said("phase_optimizers").items()}

    def random_draws(self) -> tuple[DrawInfo, ...]:
        """As the other process says."""
        return tuple(DrawInfo(**{**each, "phases": tuple(each["phases"])}) for each in self._said("random_draws"))

    def notes(self) -> tuple[str, ...]:
        """As the other process says."""
        return tuple(self._said("notes"))

    def counted_in_python(self) -> tuple[str, ...]:
        """As the other process says."""
        return tuple(self._said("counted_in_python"))

    def reaches(self) -> Mapping[str, Sequence[str]] | None:
        """As the other process says."""
        found: Mapping[str, Sequence[str]] | None = self._said("reaches")
        return found

    def prepare(self, batch: Batch) -> None:
        """In the other process."""
        self._said("prepare", batch)

    def state(self) -> State:
        """The other process's state, in a file that is read tensor by tensor."""
        return State(self._name, self._arrays("state"))

    def load(self, state: State) -> None:
        """Sends a whole state over, tensor by tensor."""
        self._said("load", state.arrays)

    def initialise(self, seed: int) -> None:
        """In the other process."""
        self._said("initialise", seed=seed)

    @contextmanager
    def afresh(self) -> Iterator[None]:
        """In the block the other process has the program built once more, in the one that it had aside."""
        self._said("afresh")
        try:
            yield
        finally:
            self._said("back")

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """In the other process."""
        return dict(self._arrays("forward", batch, training=training))

    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> Sequence[Node]:
        """In the other process."""
        answer = self._answered("nodes", batch, {"training": training, "phase": phase})
        values = _Answer(answer["arrays"])
        return [
            Node(
                each["name"],
                each["kind"],
                tuple(each["inputs"]),
                tuple(each["variables"]),
                values[str(number)],
                each["attributes"],
                each["where"],
            )
            for number, each in enumerate(answer["value"])
        ]

    def loss(self, phase: str, batch: Batch) -> float:
        """In the other process."""
        return float(self._said("loss", batch, phase=phase))

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """In the other process."""
        found = self._gradients("gradients", phase, batch)
        assert found is not None
        return found

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        """In the other process."""
        return self._gradients("derivatives", phase, batch)

    def _gradients(self, method: str, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        answer = self._answered(method, batch, {"phase": phase})
        if answer["value"] is None:
            return None
        values = _Answer(answer["arrays"])
        return {name: values.get(name) for name in answer["value"]}

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """In the other process."""
        return {name: float(value) for name, value in self._said("run_phase", batch, phase=phase).items()}

    def step(self, batch: Batch) -> dict[str, float]:
        """In the other process."""
        return {name: float(value) for name, value in self._said("step", batch).items()}

    def drawn(self, phase: str, batch: Batch) -> Mapping[str, str]:
        """In the other process."""
        found: Mapping[str, str] = self._said("drawn", batch, phase=phase)
        return found


_DOING = {
    "prepare": "its first batch",
    "state": "reading its variables",
    "load": "setting its variables",
    "initialise": "being built again",
    "afresh": "being built again",
    "forward": "computing its outputs",
    "nodes": "computing its outputs or its loss",
    "loss": "computing its loss",
    "gradients": "computing its gradients",
    "derivatives": "computing its gradients",
    "run_phase": "a training step",
    "step": "a training step",
    "drawn": "a training step",
}
"""What a method has the user's code do."""


class _Server:
    """The other side: one Program, asked line by line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program: Program | None = None
        self.aside: Program | None = None
        self.order: dict[str, Any] = {}
        self.seed = 0
        self.first_batch: Batch = {}
        self._fed = ""
        self.count = 0

    def answered(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        if method == "build":
            return {"value": self.build(**arguments)}
        program, self._fed = self.program, ""
        assert program is not None
        draws, sent = arguments.pop("draws"), _Sent(arguments.pop("arrays"))
        program.draws.seed, program.draws.step, program.draws.aliases = draws["seed"], draws["step"], draws["aliases"]
        program.draws.recorded = Path(draws["recorded"]) if draws["recorded"] else None
        try:
            return self._answered(program, method, arguments, sent)
        except NotImplementedError as error:
            return {"not_implemented": str(error)}
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # nearly always the user's code; a traceback of ours helps nobody
            raise UserError(
                f"the {self.order['side']} side {self.order['given']} raised {said(error)} in "
                f"{_DOING.get(method, method)}{self._fed}. Run that by itself to see more."
            ) from error

    def build(self, given: str, side: str, precision: str, seed: int, names: dict[str, Any]) -> dict[str, Any]:
        """Builds the program."""
        factories.old_code_welcome()
        environment = switched()  # under another one, what is imported may be another thing
        factories.Floatx(precision).__enter__()  # for the life of the process
        self.order = {"given": given, "side": side, "precision": precision, "names": names}
        self.seed = seed
        try:
            self.program = factories.build(given, side, precision, seed, names)
        except NoSuchPrecision as reason:
            return {"no_such_precision": str(reason)}
        return {
            "kind": self.program.kind,
            "precision": self.program.precision,
            "phases": list(self.program.phases),
            "furthest": self.program.furthest,
            "imported": [] if switched() != environment else [name for name in FRAMEWORKS if name in sys.modules],
        }

    def _is_built(self) -> bool:
        given = self.order["given"]
        return not factories.is_file(given) and factories.is_built(factories.find(given, self.order["side"]))

    def initialise(self, program: Program, seed: int) -> None:
        """Takes over what a second build draws; a graph's file runs its own initialisers again."""
        if self._is_built() or factories.is_file(self.order["given"]):
            program.initialise(seed)
            return
        fresh = factories.build(**self.order, seed=seed)
        fresh.prepare(self.first_batch)
        program.load(under(BuiltNames.of(program), fresh).state())
        fresh.close()

    def afresh(self, program: Program) -> None:
        """Puts the program aside and has it built once more; one that was given built is the same once more."""
        if self._is_built():
            self.aside = program
            return
        fresh = factories.build(**self.order, seed=self.seed)
        fresh.draws.seed, fresh.draws.step = program.draws.seed, program.draws.step
        fresh.prepare(self.first_batch)
        self.program, self.aside = under(BuiltNames.of(program), fresh), program

    def back(self, program: Program) -> None:
        """Has the program back that was put aside."""
        assert self.aside is not None
        if program is not self.aside:
            program.close()
        self.program, self.aside = self.aside, None

    def _answered(
        self, program: Program, method: str, arguments: dict[str, Any], sent: Mapping[str, Array]
    ) -> dict[str, Any]:
        if method in ("inputs", "variables", "optimizers", "random_draws"):
            return {"value": [dataclasses.asdict(each) for each in getattr(program, method)()]}
        if method == "may_take":
            return {"value": program.may_take(arguments["name"])}
        if method == "reaches":
            return {"value": program.reaches()}
        if method in ("phase_optimizers", "notes", "counted_in_python"):
            value = getattr(program, method)()
            return {"value": dict(value) if isinstance(value, Mapping) else list(value)}
        if method == "state":
            return self._file(program.state().arrays)
        if method in ("afresh", "back"):
            getattr(self, method)(program)
            return {"value": None}
        if method == "initialise":
            self.initialise(program, arguments["seed"])
            return {"value": None}
        if method == "load":
            program.load(State("", sent))
            return {"value": None}
        batch = dict(sent)
        self._fed = " with " + ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in batch.items())
        if method == "prepare":
            self.first_batch = batch
            program.prepare(batch)
            return {"value": None}
        if method == "nodes":
            nodes = program.nodes(batch, arguments["training"], arguments["phase"])
            told = [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "inputs": each.inputs,
                    "variables": each.variables,
                    "attributes": dict(each.attributes),
                    "where": each.where,
                }
                for each in nodes
            ]
            return {**self._file({str(number): each.value for number, each in enumerate(nodes)}), "value": told}
        if method in ("gradients", "derivatives"):
            found = getattr(program, method)(arguments["phase"], batch)
            if found is None:
                return {"value": None}
            held = {name: value for name, value in found.items() if value is not None}
            return {**self._file(held), "value": list(found)}
        if method == "forward":
            return self._file(program.forward(batch, arguments["training"]))
        if method == "step":
            reports = program.step(batch)
        elif method == "loss":
            return {"value": float(program.loss(arguments["phase"], batch))}
        elif method == "drawn":
            return {"value": dict(program.drawn(arguments["phase"], batch))}
        else:
            reports = program.run_phase(arguments["phase"], batch)
        return {"value": {name: float(value) for name, value in reports.items()}}

    def _file(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """Writes arrays one at a time into a file of their own."""
        self.count += 1
        with ArrayFile(self.folder / f"answer-{self.count}.bin") as file:
            return {"value": None, "arrays": {name: file.add_known(arrays[name]).to_json() for name in arrays}}


def serve(folder: Path, requests: Iterable[str], replies: IO[str]) -> None:
    """Answers requests until there are no more."""
    answer_each(requests, replies, _Server(folder).answered)


if __name__ == "__main__":
    answer_lines(_Server(Path(sys.argv[1])).answered)
