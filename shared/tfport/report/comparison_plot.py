"""The chart of a comparison: losses of all paradigms over each other, and their distances on a log axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfport.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Curves = Mapping[str, Mapping[str, Sequence[float]]]

_LEGACY: dict[str, Any] = {"color": canvas.GRID, "linewidth": 7.0, "solid_capstyle": "round"}
_MODERN: tuple[dict[str, Any], ...] = (
    {"linewidth": 4.2, "linestyle": "solid", "alpha": 0.75},
    {"linewidth": 1.9, "linestyle": (0, (4, 4)), "dash_capstyle": "butt"},
    {"linewidth": 1.9, "linestyle": (4, (4, 4)), "dash_capstyle": "butt"},
    {"linewidth": 1.0, "linestyle": (0, (1, 2)), "dash_capstyle": "butt"},
)
"""A band, a line on it, then dashes that fill each other's gaps: lines that lie on each other all show."""
_LOSS_STYLES: tuple[Any, ...] = ("solid", (0, (4, 2)), (0, (1.2, 1.8)), (0, (8, 2, 1.5, 2)))


def draw(curves: Curves, legacy: str, unit: str, steps: Sequence[int], title: str) -> str:
    """The chart as an `<svg>` element; see `tfport.report.plots.comparison_curves`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    moderns = [name for name in curves if name != legacy]
    with canvas.look():
        figure = Figure(figsize=(9, 7.4), layout=ConstrainedLayoutEngine(h_pad=0.12))
        figure.patch.set_visible(False)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.15, 1))
        for axes in (top, bottom):
            axes.patch.set_visible(False)
        _losses(top, curves, legacy, moderns, unit, steps)
        top.set_title(title, pad=28)
        _distances(bottom, curves, legacy, moderns, unit, steps)
        canvas.count_steps(bottom)
        label = f"Loss against training step for {', '.join(curves)}, and each one's distance from {legacy}."
        return canvas.inline_svg(figure, label)


def _losses(axes: Axes, curves: Curves, legacy: str, moderns: list[str], unit: str, steps: Sequence[int]) -> None:
    ends: dict[str, float] = {}
    for name in [legacy, *moderns]:
        style = _LEGACY if name == legacy else _modern_style(moderns.index(name))
        for number, (loss, values) in enumerate(curves.get(name, {}).items()):
            points = canvas.series(values)
            dot = canvas.marker(points) if len(points) < 3 or not np.isfinite(points).all() else ""
            axes.plot(
                *canvas.thin(_numbers(steps, len(points)), points),
                marker=dot,
                label=name if number == 0 else "_",
                **style,
            )
            finite = points[np.isfinite(points)]
            if len(finite):
                ends.setdefault(loss, float(finite[-1]))
    axes.set_ylabel(f"loss ({unit})")
    axes.margins(x=0.01, y=0.08)
    if not ends:
        canvas.say(axes, "no finite loss")
        return
    _name_lines(axes, ends)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=5, handlelength=3.2, borderaxespad=0.2)


def _name_lines(axes: Axes, ends: dict[str, float]) -> None:
    """Writes each loss's name beside the end of its lines, names pushed apart where they would touch."""
    low, high = axes.get_ylim()
    floor = -1.0
    for loss, value in sorted(ends.items(), key=lambda item: item[1]):
        floor = max((value - low) / (high - low), floor + 0.08)
        axes.text(1.01, floor, loss, transform=axes.transAxes, va="center", fontweight="bold")


def _distances(axes: Axes, curves: Curves, legacy: str, moderns: list[str], unit: str, steps: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    axes.set_title(f"Distance from {legacy}, log axis", pad=8)
    axes.set_xlabel("training step")
    axes.set_ylabel(f"|difference| ({unit})")
    handles: list[Line2D] = []
    drawn = False
    for number, name in enumerate(moderns):
        for which, (loss, values) in enumerate(curves[name].items()):
            partner = curves.get(legacy, {}).get(loss)
            if partner is None:
                handles.append(Line2D([], [], linestyle="none", label=f"{name} {loss}: {legacy} has no such loss"))
                continue
            style = {
                "color": canvas.PALETTE[number % len(canvas.PALETTE)],
                "linestyle": _LOSS_STYLES[which % len(_LOSS_STYLES)],
                "linewidth": 1.5,
            }
            distance, remark = _distance(values, partner)
            if np.isfinite(distance).any():
                drawn = True
                axes.plot(
                    *canvas.thin(_numbers(steps, len(distance)), distance),
                    marker=canvas.marker(distance),
                    markersize=4,
                    **style,
                )
            else:
                style["alpha"] = 0.45
            handles.append(Line2D([], [], label=f"{name} {loss}{remark}", **style))
    if drawn:
        axes.set_yscale("log")
    else:
        axes.set_yticks([])
        everywhere = handles and all("identical" in str(handle.get_label()) for handle in handles)
        canvas.say(axes, "no difference at any step" if everywhere else "nothing to draw")
    if handles:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.01, -0.2), ncols=2, handlelength=3.2)


def _distance(values: Sequence[float], partner: Sequence[float]) -> tuple[canvas.Series, str]:
    """|values - partner| [steps] with NaN where a log axis has no place, and what the legend must say of it."""
    steps = min(len(values), len(partner))
    with np.errstate(invalid="ignore", over="ignore"):
        raw = np.abs(np.asarray(values[:steps], np.float64) - np.asarray(partner[:steps], np.float64))
    distance = np.where(raw > 0, canvas.series(raw), np.nan)
    remarks = []
    if len(values) != len(partner):
        remarks.append(f"{len(values):,} steps against {len(partner):,}")
    broken = int((~np.isfinite(raw)).sum())
    if broken:
        remarks.append(f"not finite at {broken:,} of {steps:,} steps")
    if steps and not broken and not raw.any():
        remarks.append("identical (0 everywhere)")
    elif zeros := int((raw == 0).sum()):
        remarks.append(f"0 at {zeros:,} of {steps:,} steps")
    return distance, ": " + ", ".join(remarks) if remarks else ""


def _modern_style(number: int) -> dict[str, Any]:
    return {"color": canvas.PALETTE[number % len(canvas.PALETTE)], **_MODERN[number % len(_MODERN)]}


def _numbers(steps: Sequence[int], count: int) -> canvas.Series:
    """The step number of each of `count` values [count]; 1, 2, ... where none are given."""
    return np.asarray(steps[:count] if len(steps) >= count else np.arange(1, count + 1), np.float64)
