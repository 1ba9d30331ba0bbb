"""The line of the user's code is the innermost one that is neither tfport's nor a library's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tfport.program
from tfport.user_code import calling, user_line

OWN = str(Path(tfport.program.__file__))
LIBRARY = str(Path(np.__file__))
STANDARD = str(Path(json.__file__))


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "gan.py"
    path.write_text("")
    return str(path)


def test_the_innermost_line_of_the_user_is_taken(mine: str) -> None:
    assert user_line([(mine, 3), (LIBRARY, 5), (mine, 41), (LIBRARY, 7), (STANDARD, 9)]) == "gan.py:41"
    assert user_line([(LIBRARY, 5), (STANDARD, 1), ("<string>", 2)]) == ""


def test_who_asked_for_the_check_is_not_looked_at(mine: str) -> None:
    assert user_line([(mine, 3), (OWN, 5), (LIBRARY, 7)]) == ""
    assert user_line([(mine, 3), (OWN, 5), (mine, 8), (OWN, 6), (LIBRARY, 7)]) == "gan.py:8"


def test_a_layer_of_a_functional_model_is_where_it_was_made(mine: str, tmp_path: Path) -> None:
    functional = tmp_path / "site-packages" / "keras" / "functional.py"
    assert user_line([(mine, 3), (str(functional), 5), (LIBRARY, 7)], "gan.py:12") == "gan.py:12"
    assert user_line([(mine, 3), (LIBRARY, 7)], "gan.py:12") == "gan.py:3"
    assert user_line([(LIBRARY, 7)], "gan.py:12") == "gan.py:12"


def test_the_frames_of_a_call_come_outermost_first() -> None:
    frames = list(calling(sys._getframe()))
    assert frames[-1][0] == __file__ and user_line(frames).startswith("test_user_code.py:")
