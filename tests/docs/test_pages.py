"""Everything that the walks in docs/ show is run, and does what the page says.

A page's fenced blocks are told apart by their first line:

* `python title=NAME` is a file; `diff title=NAME` mends one.
* `console` holds commands behind "$ " and what they print; `console exit=1` says how the last one ends.
* `python` is typed into one Python session that lasts for the page; a `text` block right behind it is what it prints.
* `python needs=MODULE` is typed in only where the module is there.

A section's commands run in a folder that holds the files as they stand there. "..." alone on a line stands for any
lines, within a line for any text. Figures need to agree in their order of magnitude, whole numbers to the digit.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("your-own-model.md", "rnns.md", "your-checkpoint.md", "old-frameworks.md", "records.md")
WIDTH = 100
MARK = "<<< end of block >>>"
FIGURE = re.compile(r"\d+\.\d+(?:e[+-]\d+)?|\d+e[+-]\d+")


# --- Reading the page -------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block."""

    line: int
    section: str
    language: str
    options: Mapping[str, str]
    text: str


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a console block."""

    line: int
    words: str
    prints: str
    status: int


def blocks(page: str) -> list[Block]:
    """The page's blocks in order, each under the heading that it stands below."""
    found: list[Block] = []
    section, lines = "", page.splitlines()
    number = 0
    while number < len(lines):
        if lines[number].startswith("```"):
            language, *words = lines[number].removeprefix("```").split()
            start = number + 1
            number = lines.index("```", start)
            options = dict(word.partition("=")[::2] for word in words)
            found.append(Block(start, section, language, options, "\n".join(lines[start:number]) + "\n"))
        elif lines[number].startswith("#"):
            section = lines[number].lstrip("# ")
        number += 1
    return found


def commands(block: Block) -> list[Command]:
    """A console block's commands; a backslash at a line's end goes on in the next."""
    found: list[Command] = []
    joined = block.text.replace("\\\n", " ")
    parts = re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]
    for number, part in enumerate(parts, 1):
        words, _, prints = part.partition("\n")
        status = int(block.options.get("exit", 0)) if number == len(parts) else 0
        found.append(Command(block.line, " ".join(words.split()), prints.rstrip("\n"), status))
    return found


def written(files: dict[str, str], block: Block) -> None:
    """Takes a block's file, or its change of one, into `files`."""
    name = block.options["title"]
    if block.language == "python":
        files[name] = block.text
        return
    old, new = (
        "".join(line[1:] for line in block.text.splitlines(keepends=True) if line[0] in kept) for kept in (" -", " +")
    )
    assert files[name].count(old) == 1, f"line {block.line}: the change does not fit {name}"
    files[name] = files[name].replace(old, new)


# --- Running it -------------------------------------------------------------------------------------------------------
def environment() -> dict[str, str]:
    """Of a reader in an activated environment, whose terminal is as wide as the page."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return {**kept, "PATH": path, "COLUMNS": str(WIDTH), "TF_CPP_MIN_LOG_LEVEL": "3", "NO_COLOR": "1"}


def run(words: str | list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell command, or a program, in a folder; nothing on the page is long."""
    return subprocess.run(
        words,
        shell=isinstance(words, str),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )


def put(files: Mapping[str, str], folder: Path) -> None:
    """Writes the files into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def in_order(section: list[Block], files: dict[str, str], folder: Path) -> list[str]:
    """Runs one section's commands; what did not go as the page says."""
    put(files, folder)
    problems: list[str] = []
    for block in section:
        if "title" in block.options:
            written(files, block)
            put(files, folder)
        for command in commands(block) if block.language == "console" else []:
            done = run(command.words, folder)
            said = done.stdout + (done.stderr if done.returncode == 2 else "")
            problems += [
                f"line {command.line}: {command.words}\n{problem}\n--- printed:\n{said}{done.stderr[-3000:]}"
                for problem in [
                    *([f"exit code {done.returncode}"] if done.returncode != command.status else []),
                    *unlike(command.prints, said),
                ]
            ]
    return problems


def session(page: list[Block], files: dict[str, str], folder: Path) -> list[str]:
    """Types the page's Python into one session; what did not print what the page says."""
    put(files, folder)
    typed = [block for block in page if block.language == "python" and "title" not in block.options]
    typed = [block for block in typed if all(importlib.util.find_spec(name) for name in needed(block))]
    script = "".join(f"{block.text}\nprint({MARK!r}, flush=True)\n" for block in typed)
    (folder / "session_of_the_page.py").write_text(script)
    done = run([sys.executable, "session_of_the_page.py"], folder)
    printed = done.stdout.split(MARK + "\n")
    problems = (
        [] if done.returncode == 0 else [f"the Python session ended with {done.returncode}\n{done.stderr[-3000:]}"]
    )
    for block, said in zip(typed, printed, strict=False):
        following = page[page.index(block) + 1 : page.index(block) + 2]
        prints = following[0].text if following and following[0].language == "text" else ""
        problems += [f"line {block.line}: {each}\n--- printed:\n{said}" for each in unlike(prints.rstrip("\n"), said)]
    return problems


def needed(block: Block) -> list[str]:
    return [block.options["needs"]] if "needs" in block.options else []


# --- What is printed --------------------------------------------------------------------------------------------------
def unlike(expected: str, said: str) -> Iterator[str]:
    """Yields why a text is not what the page shows of it, if it is not."""
    lines = [line.rstrip() for line in said.rstrip().splitlines()]
    place, free = 0, False
    for wanted in (line.rstrip() for line in expected.splitlines()):
        if wanted.strip() == "...":
            free = True
            continue
        reach = range(place, len(lines) if free else min(place + 1, len(lines)))
        fitting = next((number for number in reach if fits(wanted, lines[number])), None)
        if fitting is None:
            yield f"not printed{'' if free else ' here'}: {wanted}"
            return
        place, free = fitting + 1, False
    if not free and place < len(lines):
        yield f"printed besides: {lines[place]}"


def fits(wanted: str, line: str) -> bool:
    """Whether a line is what the page shows of it."""
    texts = re.split(rf"(\.\.\.|{FIGURE.pattern})", wanted)
    pattern = "".join(
        "(?:.*)" if text == "..." else f"({FIGURE.pattern})" if FIGURE.fullmatch(text) else re.escape(text)
        for text in texts
    )
    match = re.fullmatch(pattern, line)
    if match is None:
        return False
    shown = [float(text) for text in texts if FIGURE.fullmatch(text)]
    return all(alike(one, float(other)) for one, other in zip(shown, match.groups(), strict=True))


def alike(shown: float, printed: float) -> bool:
    """Rounding's figures vary with the processor, others hardly."""
    if shown == printed:
        return True
    factor = 30 if abs(shown) < 1e-4 else 1.2
    return shown * printed > 0 and 1 / factor < shown / printed < factor


# --- The tests --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> list[Block]:
    return blocks((DOCS / request.param).read_text())


@pytest.mark.slow  # seven checks of two processes and two precisions each: `make test-docs`, which CI runs
def test_the_page_does_what_it_says(page: list[Block], tmp_path: Path) -> None:
    files: dict[str, str] = {}
    waiting: list[Future[list[str]]] = []
    with ThreadPoolExecutor(2) as pool:
        for number, section in enumerate(dict.fromkeys(block.section for block in page)):
            own = [block for block in page if block.section == section]
            if any(block.language == "console" for block in own):
                waiting.append(pool.submit(in_order, own, dict(files), tmp_path / str(number)))
            for block in own:
                if "title" in block.options:
                    written(files, block)
        waiting.append(pool.submit(session, page, dict(files), tmp_path / "session"))
    problems = [problem for each in waiting for problem in each.result()]
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


def test_what_is_not_run_needs_what_is_not_here(page: list[Block]) -> None:
    """A snippet is left out for a missing package only, and then for PyTorch."""
    assert {name for block in page for name in needed(block)} <= {"torch"}
    known = {
        ("python",),
        ("python", "title"),
        ("python", "needs"),
        ("diff", "title"),
        ("console",),
        ("text",),
        ("json",),
        (),
    }
    assert {(block.language, *(set(block.options) - {"exit"})) for block in page} <= known


def test_nothing_is_wider_than_the_page(page: list[Block]) -> None:
    wide = [line for block in page for line in block.text.splitlines() if len(line) > WIDTH]
    assert wide == []


def test_a_change_of_output_is_seen() -> None:
    printed = "legacy  a (TF1 graph)\nverdict  different  1.2e-01\n\nSteps: 20\n"
    assert list(unlike("legacy  a (TF1 graph)\n...\nSteps: 20", printed)) == []
    assert list(unlike("legacy  ... (TF1 graph)\nverdict  different  1.3e-01\n...", printed)) == []
    assert list(unlike("legacy  a (TF1 graph)\n...\nSteps: 21", printed)) == ["not printed: Steps: 21"]
    assert list(unlike("...\nverdict  different  1.2e-03\n...", printed))
    assert list(unlike("legacy  a (TF1 graph)\nSteps: 20", printed)) == ["not printed here: Steps: 20"]
    assert list(unlike("legacy  a (TF1 graph)", printed)) == ["printed besides: verdict  different  1.2e-01"]
    assert alike(1e-7, 8e-7) and not alike(0.1, 0.2) and not alike(0.1, -0.1)


def test_a_change_is_applied_once() -> None:
    files = {"a.py": "x = 1\ny = 2\n"}
    written(files, Block(1, "", "diff", {"title": "a.py"}, "-y = 2\n+y = 3\n"))
    assert files == {"a.py": "x = 1\ny = 3\n"}
    with pytest.raises(AssertionError, match="does not fit"):
        written(files, Block(1, "", "diff", {"title": "a.py"}, "-y = 2\n+y = 3\n"))
