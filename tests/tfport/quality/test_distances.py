"""distances: all of them, blockwise, as differences give them."""

from __future__ import annotations

import numpy as np
import pytest

from tfport.quality import distances


@pytest.mark.parametrize("count", [1, 99, 100, 101, 250])
def test_every_row_has_its_distances(generator: np.random.Generator, count: int) -> None:
    rows, against = generator.random((count, 7)), generator.random((31, 7))
    blocks = list(distances.squared_distances(rows, against))
    assert [(where.start, where.stop) for where, _ in blocks] == [
        (start, min(start + 100, count)) for start in range(0, count, 100)
    ]
    expected = ((rows[:, None] - against) ** 2).sum(axis=2)
    np.testing.assert_allclose(np.concatenate([block for _, block in blocks]), expected, rtol=1e-12, atol=1e-13)


def test_no_distance_is_below_zero(generator: np.random.Generator) -> None:
    """Rounding alone takes some of them there: the guard is needed."""
    rows = generator.random((300, 784))
    norms = (rows**2).sum(axis=1)
    unguarded = np.diag(norms[:, None] + norms - 2 * rows @ rows.T)
    assert unguarded.min() < 0
    for where, block in distances.squared_distances(rows, rows):
        own = np.diag(block[:, where])
        assert 0 <= own.min() <= own.max() < 1e-11


def test_float32_is_widened_before_anything_is_computed(generator: np.random.Generator) -> None:
    rows = generator.random((5, 784)).astype(np.float32)
    near = np.nextafter(rows, np.float32(2))
    ((_, block),) = distances.squared_distances(near, rows)
    assert block.dtype == np.float64
    np.testing.assert_allclose(np.diag(block), 0, atol=1e-11)


def test_a_bar_is_shown_only_when_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    rows = np.zeros((3, 2))
    list(distances.squared_distances(rows, rows, "looking"))
    assert capfd.readouterr().err == ""
    list(distances.squared_distances(rows, rows, "looking", progress=True))
    assert "looking" in capfd.readouterr().err
