"""The documents name flags, files and make targets that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tfport.cli import VERBS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EVERYWHERE = ["help", "helpfull", "flagfile"]


@cache
def flags(verb: str) -> set[str]:
    """The flags that the verb's help lists."""
    command = [sys.executable, "-c", "from tfport.cli import main; main()", verb, "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {*re.findall(r"^ *--(?:\[no\])?([a-z_]+)", text, re.MULTILINE), *EVERYWHERE}


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(verb, its flags) of every tfport command in a text; a backslash goes on in the next line."""
    joined = text.replace("\\\n", " ")
    return [
        (verb, re.findall(r"--([a-z_]+)", rest))
        for verb, rest in re.findall(r"tfport ([a-z-]+)((?: [^\s`-][^\s`]*){0,2} --[^`\n]*)", joined)
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_flag_of_a_command_exists(document: Path) -> None:
    unknown = [
        f"{verb} --{flag}"
        for verb, named in commands(document.read_text())
        for flag in named
        if verb not in VERBS or flag not in flags(verb)
    ]
    assert unknown == []


def test_readme_has_commands_to_check() -> None:
    text = (ROOT / "README.md").read_text()
    assert set(re.findall(r"bin/tfport ([a-z-]+)", text)) == set(VERBS)
    assert commands("`tfport train --nonsense=3 \\\n --more`") == [("train", ["nonsense", "more"])]
    assert "nonsense" not in flags("train")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for document in DOCUMENTS for word in re.findall(r"`make ([a-z]+)`", document.read_text())}
    assert {"test", "lint", "prove", "demo"} <= targets
    assert named - targets == set()


def test_the_map_names_files_that_exist() -> None:
    text = (ROOT / "WORKSPACE.md").read_text()
    named = re.findall(r"`((?:shared|tests|tf1_graph|tf2_eager|docs)/[\w./]+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
