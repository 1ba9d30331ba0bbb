"""A side's code is imported once, every program of it is as new, and what ends a process is one message."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tfport
from tfport.checking.home import Home
from tfport.checking.remote import RemoteProgram
from tfport.errors import UserError

CODE = """
import os, threading, time
from pathlib import Path
from fake_program import FakeProgram

with Path("imports.txt").open("a") as file:
    file.write(f"{os.getpid()}\\n")
builds = 0

class Ending(FakeProgram):
    stage = ""

def ends(name):
    def method(self, *words, **named):
        if name == os.environ["TFPORT_TEST_ENDS"]:
            print("the last words", file=sys.stderr, flush=True)
            os._exit(7)
        return getattr(FakeProgram, name)(self, *words, **named)
    return method

import sys
for name in ("prepare", "forward", "nodes", "loss", "gradients", "run_phase", "load", "state", "variables"):
    setattr(Ending, name, ends(name))

def side():
    global builds
    builds += 1
    with Path("builds.txt").open("a") as file:
        file.write(f"{os.getpid()} {builds}\\n")
    return FakeProgram()

def ending():
    if os.environ["TFPORT_TEST_ENDS"] == "build":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(7)
    return Ending()
"""
SLOW = """
def slow(dtype="float32"):
    time.sleep(60 if dtype == "float64" else 0)
    return side()
"""
LATE = """
def late():
    None
    import tf_keras
    return side()
"""
THREADED = CODE + "\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module of code, in the folder that one stands in; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        name = f"side_{abs(hash(text))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture
def home_of() -> Iterator[Callable[[str], Home]]:
    made: list[Home] = []

    def make(given: str) -> Home:
        made.append(Home(given, "modern"))
        return made[-1]

    yield make
    for home in made:
        home.close()


def lines(name: str) -> list[str]:
    return Path(name).read_text().splitlines()


def test_a_whole_check_starts_one_process_a_side(code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Counted(subprocess.Popen[str]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    name = code(CODE)
    report = tfport.check(f"{name}:side", f"{name}:side", "check_sides:batches", steps=2)
    assert report.equal
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)
    assert len(set(lines("imports.txt"))) == len(lines("imports.txt")) == 2


def test_each_program_is_built_where_nothing_has_run(code: Any, home_of: Any) -> None:
    name = code(CODE)
    home = home_of(f"{name}:side")
    for _ in range(2):
        program = RemoteProgram(f"{name}:side", "modern", home=home)
        program.close()
    assert len(lines("imports.txt")) == 1
    processes, counts = zip(*(line.split() for line in lines("builds.txt")), strict=True)
    assert len(set(processes)) == 2 and counts == ("1", "1")


@pytest.mark.parametrize("environment", [False, True])
def test_what_a_build_imports_is_imported_for_the_next_ones(environment: bool, code: Any, home_of: Any) -> None:
    Path("tf_keras.py").write_text("with open('frameworks.txt', 'a') as file:\n    file.write('once\\n')\n")
    name = code(CODE + LATE.replace("None", "os.environ.update(TF_LATE='1')" if environment else "None"))
    home = home_of(f"{name}:late")
    for _ in range(3):
        RemoteProgram(f"{name}:late", "modern", home=home).close()
    assert len(lines("frameworks.txt")) == (3 if environment else 2)


def test_code_that_keeps_a_thread_is_imported_for_each_program(code: Any, home_of: Any) -> None:
    name = code(THREADED)
    home = home_of(f"{name}:side")
    program = RemoteProgram(f"{name}:side", "modern", home=home)
    assert isinstance(program._process, subprocess.Popen)
    assert len(program.variables()) == 4
    program.close()
    assert len(lines("imports.txt")) == 2


def test_code_that_cannot_be_imported_is_refused_as_it_is_without_a_home(code: Any, home_of: Any) -> None:
    name = code("import no_such_module_at_all")
    said = []
    for home in (None, home_of(f"{name}:side")):
        with pytest.raises(UserError, match=r"no module|importing") as refused:
            RemoteProgram(f"{name}:side", "modern", home=home)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_home_that_is_gone_is_done_without(code: Any, home_of: Any) -> None:
    name = code(CODE)
    home = home_of(f"{name}:side")
    first = RemoteProgram(f"{name}:side", "modern", home=home)
    os.kill(home._process.pid, signal.SIGKILL)
    home._process.wait()
    second = RemoteProgram(f"{name}:side", "modern", home=home)
    assert first.variables() == second.variables()
    for program in (first, second):
        program.close()
        assert program._process.returncode is not None


def test_a_fork_that_is_killed_is_told_and_leaves_nothing(code: Any, home_of: Any) -> None:
    name = code(CODE)
    program = RemoteProgram(f"{name}:side", "modern", home=home_of(f"{name}:side"))
    folder = Path(program._folder.name)
    os.kill(program._process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=rf"the process of {name}:side ended unasked: .*killed from outside"):
        program.state()
    program.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(program._process.pid, 0)


@pytest.mark.parametrize(
    "stage", ["build", "variables", "prepare", "state", "load", "forward", "nodes", "loss", "gradients", "run_phase"]
)
@pytest.mark.parametrize("role", ["legacy", "modern"])
def test_code_that_ends_its_process_is_one_message_at_every_stage(
    role: str, stage: str, code: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = code(CODE)
    monkeypatch.setenv("TFPORT_TEST_ENDS", stage)
    sides = {"legacy": f"{name}:side", "modern": f"{name}:side", role: f"{name}:ending"}
    with pytest.raises(UserError) as told:
        tfport.check(sides["legacy"], sides["modern"], "check_sides:batches", steps=2)
    assert str(told.value) == (
        f"the process of {name}:ending ended unasked: the last words (exit code 7; something in its code ends the "
        "process: run that by itself to see what)"
    )


def test_a_home_that_is_closed_ends_its_programs_and_begins_none(code: Any, home_of: Any) -> None:
    name = code(CODE)
    for text in (CODE, THREADED):
        name = code(text)
        home = home_of(f"{name}:side")
        program = RemoteProgram(f"{name}:side", "modern", home=home)
        home.close()
        with pytest.raises(UserError, match="ended unasked"):
            program.state()
        program.close()
        with pytest.raises(ProcessLookupError):
            os.kill(program._process.pid, 0)
        with pytest.raises(UserError, match="the check has ended"):
            RemoteProgram(f"{name}:side", "modern", home=home)


def test_what_was_begun_ahead_and_is_not_needed_is_ended(code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides are equal bit by bit, so that nobody asks for float64."""
    name = code(
        CODE + "\ndef slow(dtype='float32'):\n    time.sleep(60 if dtype == 'float64' else 0)\n    return side()\n"
    )
    closed: list[RemoteProgram] = []
    close = RemoteProgram.close

    def kept(self: RemoteProgram) -> None:
        close(self)
        closed.append(self)

    monkeypatch.setattr(RemoteProgram, "close", kept)
    began = time.monotonic()
    assert tfport.check(f"{name}:slow", f"{name}:slow", "check_sides:batches", steps=2).equal
    assert time.monotonic() - began < 50
    assert len(closed) == 4
    for program in closed:
        assert not Path(program._folder.name).exists()
        with pytest.raises(ProcessLookupError):
            os.kill(program._process.pid, 0)


def test_an_import_that_fails_ahead_is_told_when_it_is_needed(code: Any) -> None:
    name = code(CODE)
    with pytest.raises(UserError, match="no_such_batches"):
        tfport.check(f"{name}:side", f"{name}:side", "no_such_batches:batch", steps=2)
