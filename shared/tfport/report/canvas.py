"""What every chart shares: one look, one way to save the same bytes each time, and series that survive NaN."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = npt.NDArray[np.float64]

INK = "#1c2127"
MUTED = "#6b7280"
GRID = "#e3e5e8"
PALETTE: tuple[str, ...] = ("#0067b0", "#c84f00", "#00805c", "#8f3f8f", "#806000")
"""Series colours that stay apart for colour-blind readers, dark enough for a white page."""
_LARGEST = 1e300
"""Beyond this the axis limits themselves overflow."""


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Charts inside the block look the same whatever matplotlibrc the reader has."""
    import matplotlib

    defaults: dict[str, Any] = {
        key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")
    }
    chosen: dict[str, Any] = {
        "svg.hashsalt": "tfport",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10.0,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlelocation": "left",
        "axes.titlesize": 11.0,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(cast(Any, defaults | chosen)):
        yield


def save(figure: Figure, kind: str, dpi: float = 150.0) -> bytes:
    """The figure as "png" or "svg" bytes, the same for the same figure: no date, no version."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def inline_svg(figure: Figure, label: str) -> str:
    """The figure as an `<svg>` element for an HTML page: colours follow the page's `--plot-*` variables.

    The element carries no namespace, so it is not a file of its own.
    """
    import html

    text = save(figure, "svg", dpi=72).decode()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    _, body = text.split(">", 1)
    names = {INK: "ink", MUTED: "muted", GRID: "grid"} | {colour: f"{n}" for n, colour in enumerate(PALETTE, 1)}
    for colour, name in names.items():
        body = body.replace(colour, f"var(--plot-{name}, {colour})")
    width, height = figure.get_size_inches() * 72
    opening = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}">'
    return opening + body.strip()


def series(values: Sequence[float] | npt.NDArray[np.floating]) -> Series:
    """Values as float64 [steps] with everything that cannot be drawn (NaN, infinities) as NaN."""
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    return np.where(np.abs(array) < _LARGEST, array, np.nan)


def thin(steps: Series, values: Series, buckets: int = 600) -> tuple[Series, Series]:
    """At most two points a bucket, its smallest and its largest, so that spikes stay and the file stays small.

    Args:
      steps: [steps], ascending.
      values: [steps]; NaN is a gap.
      buckets: how many stretches the run is cut into.
    """
    if len(values) <= 2 * buckets:
        return steps, values
    kept: list[int] = []
    for part in np.array_split(np.arange(len(values)), buckets):
        finite = part[np.isfinite(values[part])]
        ends = (finite[np.argmin(values[finite])], finite[np.argmax(values[finite])]) if len(finite) else (part[0],)
        kept += sorted({int(end) for end in ends})
    return steps[kept], values[kept]


def marker(values: Series) -> str:
    """A dot where a line alone would not show: few points, or points between gaps."""
    finite = np.isfinite(values)
    alone = finite & ~np.r_[False, finite[:-1]] & ~np.r_[finite[1:], False]
    return "." if finite.sum() <= 40 or alone.any() else ""


def count_steps(axes: Axes) -> None:
    """Whole, readable numbers on a step axis, also for a run of one step."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    low, high = axes.dataLim.intervalx
    if not high > low:
        middle = float(low) if np.isfinite(low) else 0.0
        axes.set_xlim(middle - 1, middle + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def say(axes: Axes, text: str) -> None:
    """Writes into the middle of an otherwise empty panel."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=11)
