"""A side's home: a process that has imported the side's code and built nothing; every program of the side is a fork.

Importing TensorFlow takes longer than a small check, and a check builds a side several times, each time in a process in
which nothing of it has run: what its code keeps in a global would otherwise be carried from one build to the next. A
fork has both: the imports are there, and the code is as it was when it was imported.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tfport import errors
from tfport.checking import factories
from tfport.errors import UserError
from tfport.remote import child_environment

_ADAPTERS = {
    "tensorflow": ("tfport.adapters.tf1_sides", "tfport.adapters.module_program", "tfport.adapters.keras_models"),
    "torch": ("tfport.adapters.torch_program",),
}
"""Framework -> what its sides are read by; imported ahead where the side's code has imported the framework."""
FRAMEWORKS = ("tensorflow", "keras", "tf_keras", "torch")
_SWITCHES = ("TF_", "KERAS_", "XLA_", "CUDA_", "TORCH_", "PYTORCH_")
_THREADS = Path("/proc/self/task")


class _Requests(io.TextIOWrapper):
    """What is written to a socket, which hears of its end while the answers may still be read."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel.makefile("wb"))
        self._channel = channel.dup()

    def close(self) -> None:
        """Ends what is written."""
        if not self.closed:
            with self._channel, contextlib.suppress(OSError):  # the other end has gone
                super().close()
                self._channel.shutdown(socket.SHUT_WR)


class Forked:
    """One fork, as `subprocess.Popen` would show it."""

    def __init__(self, home: Home, pid: int, channel: socket.socket) -> None:
        self._home, self.pid = home, pid
        self.returncode: int | None = None
        with channel:
            self.stdin: IO[str] = _Requests(channel)
            self.stdout: IO[str] = channel.makefile("r")

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._home.code_of(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; raises as Popen does when that takes longer."""
        end = time.monotonic() + (timeout or float("inf"))
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(0.005)
        return code

    def kill(self) -> None:
        """Ends it."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Home:
    """The process that imports a side's code."""

    def __init__(self, given: str, side: str, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process and waits for nothing.

        Args:
          given: `module:function`, a `.meta` file or a SavedModel's folder.
          side: "legacy" or "modern", for messages.
          environment: variables set for the side's processes beside this one's own.
        """
        self.environment = environment
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tfport.checking.home", side, given],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=child_environment(environment),
            )
        self._answers = self._channel.makefile("r")
        self._lock = threading.Lock()
        self._started: list[Any] = []
        """The processes of its programs, forks or not."""
        self._closed = False
        self._asks = 0
        self._known: set[str] = set()

    def fork(self, folder: Path) -> Forked | None:
        """A process for one program, which answers as `tfport.checking.remote` does.

        None where there can be none: the imported code keeps threads, which no fork has, or it ended the process.

        Raises:
          UserError: the code cannot be imported.
        """
        mine, theirs = socket.socketpair()
        with theirs:
            answer = self._asked({"fork": str(folder)}, theirs)
        if "refused" in answer:
            mine.close()
            raise getattr(errors, answer["kind"])(answer["refused"])
        if answer.get("pid") is None:
            mine.close()
            return None
        return Forked(self, answer["pid"], mine)

    def learn(self, frameworks: Sequence[str]) -> None:
        """Has it import, for the next forks, what a program has imported while it was built."""
        if more := [name for name in frameworks if name not in self._known]:
            self._known.update(more)
            self._asked({"import": more})

    def started(self, process: Any) -> None:
        """Takes down the process of a program, which ends with the home at the latest.

        Raises:
          UserError: the home is closed.
        """
        self._started = [each for each in self._started if each.returncode is None] + [process]
        if self._closed:
            process.kill()
            process.wait()
            raise UserError("the check has ended")

    def code_of(self, pid: int) -> int | None:
        """The exit code of a fork; None while it runs."""
        answer = self._asked({"poll": pid})
        if not answer:  # nobody knows any more, and nobody shall go on
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return -signal.SIGKILL
        code: int | None = answer["code"]
        return code

    def _asked(self, request: dict[str, Any], passed: socket.socket | None = None) -> dict[str, Any]:
        """The answer to one request; empty where the process is gone."""
        with self._lock:
            self._asks += 1
            line = json.dumps({**request, "number": self._asks}).encode() + b"\n"
            try:
                socket.send_fds(self._channel, [line], [] if passed is None else [passed.fileno()])
                while (found := self._answers.readline()).endswith("\n"):
                    answer: dict[str, Any] = json.loads(found)
                    if answer["number"] == self._asks:  # else whoever asked was interrupted
                        return answer
            except (OSError, ValueError):  # it has ended, or it is closed
                pass
        return {}

    def close(self) -> None:
        """Ends the process, and those of its programs."""
        self._closed = True
        for process in self._started:
            if process.returncode is None:
                process.kill()
                process.wait()
        self._process.kill()
        self._process.wait()
        with self._lock:  # whoever waits for an answer has heard by now that there is none
            self._answers.close()
            self._channel.close()


# --- The other side ---------------------------------------------------------------------------------------------------
def _imported(side: str, given: str) -> dict[str, Any]:
    """Imports what a build of the side imports; returns why it cannot be, as an answer."""
    try:
        factories.old_code_welcome()
        if not factories.is_file(given):
            factories.find(given, side)
        elif given.endswith(factories.SUFFIXES) or Path(given).is_dir():
            importlib.import_module("tensorflow")
    except UserError as error:
        return {"refused": str(error), "kind": type(error).__name__}
    _adapters_imported()
    return {}


def _adapters_imported() -> None:
    """Imports what reads the sides of those frameworks that are imported."""
    for framework, adapters in _ADAPTERS.items():
        if framework in sys.modules:
            for adapter in adapters:
                importlib.import_module(adapter)


def switched() -> dict[str, str]:
    """The variables of the environment that frameworks read when they are imported."""
    return {name: value for name, value in os.environ.items() if name.startswith(_SWITCHES)}


def _alone() -> bool:
    """Whether this process has one thread, so that a fork has all of it."""
    return len(list(_THREADS.iterdir())) == 1


def _forks(channel: socket.socket, side: str, given: str) -> tuple[socket.socket, Path] | None:
    """Forks as asked until the channel closes; returns in each fork, with what it serves."""
    refused = _imported(side, given)
    while True:
        line, passed, _, _ = socket.recv_fds(channel, io.DEFAULT_BUFFER_SIZE, 1)
        if not line:
            return None
        request = json.loads(line)
        answer: dict[str, Any] = {"number": request["number"]}
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer["code"] = os.waitstatus_to_exitcode(status) if pid else None
        elif "import" in request:
            channel.sendall(json.dumps(answer).encode() + b"\n")  # nobody waits for it
            for framework in request["import"]:
                importlib.import_module(framework)
            _adapters_imported()
            continue
        elif refused:
            answer |= refused
        elif hasattr(os, "fork") and _THREADS.exists():
            pid = os.fork()
            if not pid:
                channel.close()
                return socket.socket(fileno=passed[0]), Path(request["fork"])
            if _alone():  # only now: numpy's own threads end before a fork, and begin again when they are needed
                answer["pid"] = pid
            else:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for number in passed:
            os.close(number)
        channel.sendall(json.dumps(answer).encode() + b"\n")


def _main() -> None:
    from tfport.checking.remote import serve

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's, which needs to hear of each fork's end
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    served = _forks(channel, *sys.argv[1:])
    if served is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked, folder = served
    with (folder / "stderr.txt").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    with asked, asked.makefile("r") as requests, asked.makefile("w") as replies:
        serve(folder, requests, replies)
    # What the code registered for its end is done; freeing object by object what goes with the process takes a second.
    atexit._run_exitfuncs()
    os._exit(0)


if __name__ == "__main__":
    _main()
