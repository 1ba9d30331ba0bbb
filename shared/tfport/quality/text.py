"""A Quality as plain text, 80 columns wide."""

from __future__ import annotations

import textwrap

from tfport.quality.histogram import CLASSES, Histogram
from tfport.quality.measure import Quality
from tfport.quality.neighbours import COPY_RATIO, Neighbours
from tfport.quality.parzen import Parzen

WIDTH = 80

_LABEL, _CELL, _CLASS = 44, 18, 6  # 44 + 18 + 18 = 80, and 20 + 10 * 6 = 80


def table(quality: Quality) -> str:
    """The figures, each generated one with its floor beside it, and how to read them; no line ends with a space."""
    reader, near, floor = quality.reader, quality.neighbours, quality.neighbours_floor
    right = f"{reader.accuracy:.2%}"
    lines = [
        f"Quality of {quality.given:,} generated images: {quality.dataset}, seed {quality.seed}",
        "",
        _row("", "generated", "real (floor)"),
        _row("Log-likelihood by Parzen windows, nats", _nats(quality.parzen), _nats(quality.parzen_floor)),
        _row("  sigma of a window", f"{quality.parzen.sigma:.3f}", f"{quality.parzen_floor.sigma:.3f}"),
        _row("  images compared", f"{quality.parzen.samples:,}", f"{quality.parzen_floor.samples:,}"),
        "",
        f"By a classifier that reads {right} of the {reader.tested:,} test images right:",
        _row("Fréchet distance (squared) from test images", f"{quality.frechet:.3f}", f"{quality.frechet_floor:.3f}"),
        _row(
            "Classes: total variation from the test's",
            f"{quality.histogram.total_variation:.4f}",
            f"{quality.histogram_floor.total_variation:.4f}",
        ),
        _row(
            "  mean confidence",
            f"{quality.histogram.confidence:.4f}",
            f"{quality.histogram_floor.confidence:.4f}",
        ),
        _row("  images compared", f"{quality.compared:,}", f"{quality.compared:,}"),
        "",
        _wide("class", [str(each) for each in range(CLASSES)]),
        _wide("generated", [f"{count:,}" for count in quality.histogram.counts]),
        _wide("generated, %", _percent(quality.histogram)),
        _wide("real training, %", _percent(quality.histogram_floor)),
        _wide("real test, %", _percent(quality.histogram_test)),
        "",
        _row(f"Nearest of {near.training:,} training images", "generated", "real test images"),
        _row("  median distance", f"{near.median:.3f}", f"{floor.median:.3f}"),
        _row("  5th percentile of distances", f"{near.fifth_percentile:.3f}", f"{floor.fifth_percentile:.3f}"),
        _row("  near-copies", _copies(near), _copies(floor)),
        "",
        *_paragraph(
            f"Floor: what {quality.compared:,} real training images give in the place of the generated ones, and for "
            f"neighbours, what the {floor.images:,} test images give."
        ),
        *_paragraph(
            f"Parzen: sigma is chosen on {quality.parzen.validated:,} training images that are held out; mean and "
            f"standard error are over {quality.parzen.tested:,} test images. It compares only between equal numbers."
        ),
        *_paragraph(
            f"Fréchet distances (squared) compare only within one classifier: this one, weights {reader.digest[:12]}, "
            f"{right} right. They are not those of Inception features. Shares and confidences are its readings too; "
            f"the test images, which it has not learnt, have a confidence of {quality.histogram_test.confidence:.4f}."
        ),
        *_paragraph(
            f"Near-copy: the nearest training image is less than {COPY_RATIO:g} times as far as the second nearest."
        ),
        *(line for note in quality.notes for line in _paragraph(f"Note: {note}")),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _row(label: str, generated: str, floor: str) -> str:
    return f"{label:<{_LABEL}}{generated:>{_CELL}}{floor:>{_CELL}}"


def _wide(label: str, cells: list[str]) -> str:
    return f"{label:<{WIDTH - CLASSES * _CLASS}}" + "".join(f"{cell:>{_CLASS}}" for cell in cells)


def _nats(found: Parzen) -> str:
    return f"{found.mean:.1f} ± {found.standard_error:.1f}"


def _percent(found: Histogram) -> list[str]:
    return [f"{100 * share:.1f}" for share in found.shares]


def _copies(found: Neighbours) -> str:
    return f"{found.near_copies:,} of {found.images:,}"


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
