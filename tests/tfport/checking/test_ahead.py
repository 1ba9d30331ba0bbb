"""What is begun ahead gives its value or its error to whoever asks, and is waited for by nobody else."""

from __future__ import annotations

import threading

import pytest

from tfport.checking.ahead import Ahead


def test_its_value_is_there_as_often_as_asked() -> None:
    begun = Ahead(lambda: 3)
    assert (begun.result(), begun.result(), begun.ended(0)) == (3, 3, 3)


def test_its_error_is_raised_where_it_is_asked_for() -> None:
    def fails() -> int:
        raise ValueError("no such thing")

    begun = Ahead(fails)
    assert begun.ended(10) is None
    for _ in range(2):
        with pytest.raises(ValueError, match="no such thing"):
            begun.result()


def test_nobody_waits_for_what_is_not_asked_for() -> None:
    go_on = threading.Event()
    begun = Ahead(go_on.wait)
    assert begun.ended(0.01) is None
    go_on.set()
    assert begun.result() is True
