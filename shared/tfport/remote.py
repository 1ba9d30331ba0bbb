"""A Subject that lives in another process; arrays travel by files.

floatx, op determinism, `disable_v2_behavior()` and the choice of Keras are global to a process, so two sides that
disagree on one of them need a process each. RemoteSubject is the contract on this side of the door; `python -m
tfport.remote` is the other side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfport import errors, paradigms
from tfport.errors import UserError
from tfport.models.spec import ModelSpec
from tfport.state import State
from tfport.subject import Array, Batch, OptimizerInfo, Subject, VariableInfo

_BANNER = re.compile(r"[IW]\d{4} |WARNING: All log messages before absl")
"""Begins a line that TensorFlow writes whenever it starts."""


class OtherProcess:
    """A child process that answers method calls; requests and answers are lines of JSON, arrays travel by files."""

    def __init__(self, module: str, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process.

        Args:
          module: what it runs, with the folder for arrays as its argument.
          name: what messages call it.
          environment: variables set for the process beside this one's own.
        """
        self._name = name
        self._folder = tempfile.TemporaryDirectory(prefix="tfport-")
        self._log = Path(self._folder.name, "stderr.txt").open("w+")  # noqa: SIM115  closed by close()
        try:
            self._process = self._started(module, environment)
        except BaseException:
            self._log.close()
            self._folder.cleanup()
            raise

    def _started(self, module: str, environment: Mapping[str, str] | None) -> Any:
        """The process, as `subprocess.Popen` shows it."""
        return subprocess.Popen(
            [sys.executable, "-m", module, self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=child_environment(environment),
        )

    def _call(self, method: str, arrays: Mapping[str, Array] | None = None, **arguments: Any) -> Any:
        """Asks the other process for `method`; returns (value, arrays)."""
        answer = self._ask(method, arrays, arguments)
        found: dict[str, Array] = {}
        if answer["arrays"]:
            with np.load(Path(self._folder.name, "answer.npz"), allow_pickle=False) as file:
                found = {name: file[name] for name in answer["order"]}
        return answer["value"], found

    def _ask(self, method: str, arrays: Mapping[str, Array] | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Sends one request and waits for its answer; raises what the other process refused."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = Path(self._folder.name, "request.npz")
        if arrays is not None:
            write_npz(request, arrays)
        try:
            self._process.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except ConnectionError:
            line = ""
        except BaseException:  # Ctrl-C: nobody waits for the answer any more
            self._process.kill()
            raise
        if not line.endswith("\n"):
            raise UserError(f"the process of {self._name} ended unasked: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise getattr(errors, answer["kind"], UserError)(answer["refused"])
        if "failed" in answer:
            raise RuntimeError(f"{self._name} in its own process: {answer['failed']}")
        return answer

    def _last_words(self) -> str:
        """What a process that ended said last, how it ended, and what to do."""
        lines = Path(self._log.name).read_text(errors="replace").strip().splitlines()
        tail = " ".join([line.strip() for line in lines if not _BANNER.match(line)][-3:]) or "no message"
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return tail
        if code == -signal.SIGKILL:
            return f"{tail} (killed from outside, often for want of memory: give it more memory, or less to do)"
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        return f"{tail} ({how}; something in its code ends the process: run that by itself to see what)"

    def close(self) -> None:
        """Ends the process and removes the files."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(ConnectionError):  # a request that a dead process never took
                self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
        self._folder.cleanup()


class RemoteSubject(OtherProcess, Subject):
    """A Subject in a process of its own, built there by `paradigms.build`."""

    def __init__(
        self,
        paradigm: str,
        spec: ModelSpec,
        precision: str = "float32",
        seed: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process and builds the model in it.

        Args:
          paradigm: a name or a factory, as for `paradigms.build`.
          spec: the model's facts.
          precision: "float32" or "float64".
          seed: seeds the implementation's own initialisers.
          environment: variables set for the process beside this one's own.

        Raises:
          UserError: as `paradigms.build`; the process is gone then.
        """
        super().__init__("tfport.remote", paradigm, environment)
        self.spec = spec
        self.paradigm = paradigm
        self.precision = precision
        try:
            self._call("build", paradigm=paradigm, spec=encode_spec(spec), precision=precision, seed=seed)
        except BaseException:
            self.close()
            raise

    def variables(self) -> tuple[VariableInfo, ...]:
        """As the other process says."""
        value, _ = self._call("variables")
        return tuple(
            VariableInfo(**{**each, "shape": tuple(each["shape"]), "optimizers": tuple(each["optimizers"])})
            for each in value
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """As the other process says."""
        value, _ = self._call("optimizers")
        return tuple(OptimizerInfo(**each) for each in value)

    def initialise(self, seed: int) -> None:
        """In the other process."""
        self._call("initialise", seed=seed)

    def state(self) -> State:
        """A copy of the other process's state."""
        return State(self.spec.name, self._call("state")[1])

    def load(self, state: State) -> None:
        """Sends a whole state over."""
        self._call("load", dict(state.arrays))

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """In the other process."""
        found: dict[str, Array] = self._call("forward", batch, training=training)[1]
        return found

    def generate(self, inputs: Batch) -> Array:
        """In the other process."""
        found: dict[str, Array] = self._call("generate", inputs)[1]
        return found["images"]

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """In the other process."""
        found: dict[str, Array] = self._call("gradients", batch, phase=phase)[1]
        return found

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """In the other process."""
        return {name: float(value) for name, value in self._call("run_phase", batch, phase=phase)[0].items()}

    def step(self, batch: Batch) -> dict[str, float]:
        """In the other process."""
        return {name: float(value) for name, value in self._call("step", batch)[0].items()}

    def save(self, folder: Path) -> None:
        """In the other process."""
        self._call("save", folder=str(folder.absolute()))

    def restore(self, folder: Path) -> None:
        """In the other process."""
        self._call("restore", folder=str(folder.absolute()))


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """What np.savez writes, holding one array at a time; any name will do."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(arrays[name]), allow_pickle=False)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with its import path, for a child that must find the same modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **(extra or {})}


def encode_spec(spec: ModelSpec) -> dict[str, Any]:
    """What of a spec a command line can change, and its name: enough to make it again."""
    return {
        "name": spec.name,
        "batch_size": spec.batching.batch_size,
        "optimizers": [[name, dataclasses.asdict(numbers)] for name, numbers in spec.optimizers],
    }


def decode_spec(encoded: Mapping[str, Any]) -> ModelSpec:
    """The inverse of `encode_spec`."""
    from tfport import models

    spec = models.get(encoded["name"])
    return dataclasses.replace(
        spec,
        batching=dataclasses.replace(spec.batching, batch_size=encoded["batch_size"]),
        optimizers=tuple(
            (name, dataclasses.replace(spec.optimizer(name), **numbers)) for name, numbers in encoded["optimizers"]
        ),
    )


class _Server:
    """The other side: one Subject, asked line by line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.subject: Subject | None = None

    def build(self, paradigm: str, spec: Mapping[str, Any], precision: str, seed: int) -> None:
        """Builds the Subject."""
        self.subject = paradigms.build(paradigm, decode_spec(spec), precision, seed)

    def answer(self, method: str, arguments: dict[str, Any]) -> tuple[Any, dict[str, Array]]:
        """Calls one method of the contract; returns its plain value and its arrays."""
        if method == "build":
            self.build(**arguments)
            return None, {}
        subject = self.subject
        assert subject is not None
        if method in ("variables", "optimizers"):
            return [dataclasses.asdict(each) for each in getattr(subject, method)()], {}
        if method == "state":
            return None, dict(subject.state().arrays)
        if method in ("initialise", "save", "restore"):
            value = arguments.get("seed", arguments.get("folder"))
            getattr(subject, method)(value if method == "initialise" else Path(str(value)))
            return None, {}
        with np.load(self.folder / "request.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if method == "load":
            subject.load(State(subject.spec.name, arrays))
            return None, {}
        if method == "generate":
            return None, {"images": subject.generate(arrays)}
        if method == "forward":
            return None, subject.forward(arrays, arguments["training"])
        if method == "gradients":
            return None, subject.gradients(arguments["phase"], arrays)
        reports = subject.run_phase(arguments["phase"], arrays) if method == "run_phase" else subject.step(arrays)
        return {name: float(value) for name, value in reports.items()}, {}


def serve(folder: Path) -> None:
    """Answers requests from standard input until it closes; what frameworks print goes to standard error."""
    server = _Server(folder)

    def answered(method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        value, arrays = server.answer(method, arguments)
        if arrays:
            write_npz(folder / "answer.npz", arrays)
        return {"value": value, "arrays": bool(arrays), "order": list(arrays)}

    answer_lines(answered)


def answer_lines(answered: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    """Reads requests from standard input, one a line, and writes the answers to standard output; see `answer_each`.

    The code that it calls reads nothing from standard input, and prints to standard error.
    """
    replies, requests = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(0))
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    answer_each(requests, replies, answered)


def answer_each(
    requests: Iterable[str], replies: IO[str], answered: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> None:
    """Writes what `answered` makes of each request, or what it raises."""
    for line in requests:
        request = json.loads(line)
        try:
            reply = json.dumps(answered(request["method"], request["arguments"]))
        except UserError as error:
            reply = json.dumps({"refused": str(error), "kind": type(error).__name__})
        except Exception as error:  # it must reach the process that asked, whatever it is
            reply = json.dumps({"failed": f"{type(error).__name__}: {error}"})
        replies.write(reply + "\n")
        replies.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
