"""Runs a verb under absl: its flags, its help, and what becomes of errors."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NoReturn

from absl import app, flags, logging

from tfport.cli import say
from tfport.errors import TrainingDiverged, UserError

words: list[str] = []
"""The verb's arguments as they were given, for the command that a report repeats."""

positionals: list[str] = []
"""The verb's arguments that are no flags, in their order; as many as its POSITIONAL allows."""


def run(verb: ModuleType, name: str, arguments: Sequence[str], defaults: Mapping[str, str]) -> NoReturn:
    """Parses flags and calls `verb.main()`, whose return is the exit code.

    A verb that takes words beside flags names them in `POSITIONAL`, a tuple: "A" must be given, "[A]" may be. Flags and
    words come in any order; what follows "--" is no flag. The words are in `positionals` when `main` is called.

    Exit codes: what main returns; 1 for training that diverged; 2 for bad input; 130 for Ctrl-C before any work.
    """
    program = f"tfport {name}"
    for flag, value in defaults.items():
        flags.FLAGS.set_default(flag, value)  # for --help
    # As if they had been written first, so that --resume refuses a run of another paradigm.
    arguments = [*(f"--{flag}={value}" for flag, value in defaults.items()), *arguments]
    asked = {word.lstrip("-") for word in arguments if word.startswith("-")}
    if asked & {"h", "help", "helpshort"}:
        say(f"{verb.__doc__}\nFlags:\n{flags.FLAGS.module_help(verb)}\n\n--helpfull lists absl's own flags too.\n")
        sys.exit(0)
    if "helpfull" in asked:
        say(f"{verb.__doc__}\n{flags.FLAGS.get_help()}\n")
        sys.exit(0)

    expected: tuple[str, ...] = getattr(verb, "POSITIONAL", ())
    if expected:
        flags.FLAGS.set_gnu_getopt(True)

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            rest: list[str] = flags.FLAGS(argv)
        except flags.Error as error:
            _refuse(program, str(error).removeprefix("FATAL Flags parsing error: "))
        except (OSError, UnicodeDecodeError) as error:
            _refuse(program, f"a --flagfile cannot be read: {error}")
        given = rest[1:]
        if given and not expected:
            _refuse(program, f"{given[0]!r} is not a flag; flags are written --name=value (see {program} --help).")
        if len(given) > len(expected):
            _refuse(program, f"{given[len(expected)]!r} is one word too many: {_form(program, expected)}.")
        missing = [word for word in expected[len(given) :] if not word.startswith("[")]
        if missing:
            are = "is" if len(missing) == 1 else "are"
            _refuse(program, f"{' and '.join(missing)} {are} missing: {_form(program, expected)}.")
        positionals[:] = given
        return rest[:1]

    def call(_: Sequence[str]) -> int:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)  # the frameworks tell of every file they write
        try:
            code: int = verb.main()
        except UserError as error:
            _refuse(program, str(error))
        except TrainingDiverged as error:
            print(f"{program}: training diverged. {error}", file=sys.stderr)
            return 1
        return code

    global words
    words = list(arguments)
    try:
        app.run(call, argv=[program, *arguments], flags_parser=parse)
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted.", file=sys.stderr)
    sys.exit(130)


def _form(program: str, expected: Sequence[str]) -> str:
    """What may be written, and where more is told."""
    return f"expected {program} {' '.join(expected)}, and flags (see {program} --help)"


def _refuse(program: str, message: str) -> NoReturn:
    print(f"{program}: {message}", file=sys.stderr)
    sys.exit(2)
