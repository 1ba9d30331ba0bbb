"""A pytest plugin: the fixture `assert_equivalent` holds a port against its original inside a test.

Settings of pytest's configuration are the defaults of every check: tfport_steps, tfport_precision, tfport_seed,
tfport_sample, tfport_rungs and tfport_ignore. `--tfport-html=FOLDER` writes a page for each check.

pytest loads this module in every run, so nothing heavy is imported before a test asks for a check.
"""

from __future__ import annotations

import re
import shlex
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from tfport.checking.report import CheckReport

_LONGEST = 150
"""Characters of a page's name, before its ending."""


class AssertEquivalent(Protocol):
    """What the fixture gives a test."""

    def __call__(self, legacy: Any, modern: Any, batches: Any = None, **options: Any) -> CheckReport:
        """Checks as `tfport.check` does, and fails the test where the report is not equal.

        Args:
          legacy: the original; None to hold the modern side against its contracts alone.
          modern: the port.
          batches: a batch, a sequence of them, or a function of the step.
          **options: of `tfport.check`; they go before pytest's configuration.

        Returns:
          The report of a check that passed.
        """


# --- Settings ---------------------------------------------------------------------------------------------------------
def _whole(text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"\d+", text) or not low <= int(text) <= high:
        raise ValueError(f"expected a whole number from {low:,} to {high:,}")
    return int(text)


def _precision(text: str) -> str:
    if text not in ("float32", "float64"):
        raise ValueError("expected float32 or float64")
    return text


def _sample(text: str) -> str:
    from tfport.checking import bounds

    _parsed(bounds.Sample.parse, text)
    return text


def _rungs(text: str) -> tuple[str, ...]:
    from tfport.checking import bounds

    found: tuple[str, ...] = _parsed(bounds.rungs, text)
    return found


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    """What `parse` makes of a text; its refusal without the flag's name, since an option of pytest is meant."""
    from tfport.errors import UserError

    try:
        return parse(text)
    except UserError as refused:
        raise ValueError(str(refused).partition(": ")[2]) from None


_SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {
    "steps": (lambda text: _whole(text, 1, 40_000), "steps of the trajectories (20)"),
    "precision": (_precision, "float32 or float64 (float32)"),
    "seed": (lambda text: _whole(text, 0, 2**31 - 1), "seed of everything that is drawn (0)"),
    "sample": (_sample, "bounds for large models: steps:N, tensors:N or both"),
    "rungs": (_rungs, "rungs to ask, by number or name, with ranges: 1,3-6 (all)"),
    "ignore": (str, "variables that take no part, by name or pattern: avg_loss,metrics/* (none)"),
}
"""Option of `tfport.check` -> what reads its text, and what it is."""


def _defaults(config: pytest.Config) -> dict[str, Any]:
    """The options that pytest's configuration sets.

    Raises:
      pytest.UsageError: one cannot be used.
    """
    found: dict[str, Any] = {}
    for option, (read, _) in _SETTINGS.items():
        text = str(config.getini(f"tfport_{option}") or "").strip()
        if not text:
            continue
        try:
            found[option] = read(text)
        except ValueError as error:
            where = f" in {config.inipath.name}" if config.inipath else ""
            raise pytest.UsageError(f"tfport_{option} = {text}{where}: {error}.") from None
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --tfport-html and the settings."""
    parser.getgroup("tfport").addoption(
        "--tfport-html", metavar="FOLDER", help="folder to write a page to for each check of assert_equivalent"
    )
    for option, (_, text) in _SETTINGS.items():
        parser.addini(f"tfport_{option}", f"assert_equivalent: {text}", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Refuses settings that cannot be used before any test runs."""
    _defaults(config)
    folder = _folder(config)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise pytest.UsageError(f"--tfport-html={config.getoption('--tfport-html')} is a file; expected a folder.")


# --- Pages ------------------------------------------------------------------------------------------------------------
def _folder(config: pytest.Config) -> Path | None:
    given: str | None = config.getoption("--tfport-html")
    return config.invocation_params.dir / given if given else None


def _page_name(test: str, number: int) -> str:
    """The file of a test's check; a test with parameters has a digest, since what tells them apart may not be kept."""
    name = re.sub(r"[^\w.]+", "-", test).strip("-")[:_LONGEST]
    if "[" in test or len(test) > _LONGEST:
        name += f"-{zlib.crc32(test.encode()):08x}"
    return f"{name}.html" if number == 1 else f"{name}-{number}.html"


# --- The fixture ------------------------------------------------------------------------------------------------------
@pytest.fixture
def assert_equivalent(request: pytest.FixtureRequest) -> AssertEquivalent:
    """A function that fails the test unless a port computes what its original computes; see `tfport.check`."""
    defaults = _defaults(request.config)
    folder = _folder(request.config)
    checks = 0

    def check_both(legacy: Any, modern: Any, batches: Any = None, **options: Any) -> CheckReport:
        __tracebackhide__ = True
        nonlocal checks
        checks += 1
        from tfport.checking.check import check
        from tfport.errors import UserError
        from tfport.report.check_words import assertion_text

        asked = {"command": shlex.join(["pytest", request.node.nodeid]), **defaults, **options}
        problem = ""
        try:
            if isinstance(asked.get("rungs"), str):
                asked["rungs"] = _given_rungs(asked["rungs"])
            report = check(legacy, modern, batches, **asked)
            if folder is not None:
                from tfport.report.check_html import write_check

                page = folder / _page_name(request.node.nodeid, checks)
                write_check(page, report)
                request.node.add_report_section("call", "tfport", f"Report: {page}")
        except UserError as error:
            problem = str(error)
        if problem:
            pytest.fail(problem, pytrace=False)
        if not report.equal:
            raise AssertionError(assertion_text(report))
        return report

    return check_both


def _given_rungs(text: str) -> tuple[str, ...]:
    from tfport.errors import UserError

    try:
        return _rungs(text)
    except ValueError as error:
        raise UserError(f"rungs={text!r}: {error}.") from None
