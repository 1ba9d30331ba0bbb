"""Pictures: the sample grid, a run's losses, and the paradigms' losses over each other.

Object-oriented matplotlib only (no pyplot), imported when a picture is asked for.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tfport.files import write_atomically
from tfport.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

Curve = tuple[Sequence[float] | npt.NDArray[np.integer | np.floating], Sequence[float] | npt.NDArray[np.floating]]
"""(steps [n], values [n])"""

_GAP_GREY = 64
_BROKEN_PIXEL = (214, 40, 40)


def sample_grid(
    images: npt.NDArray[np.floating],
    rows: int,
    columns: int,
    data_range: tuple[float, float],
    scale: int = 3,
    gap: int = 1,
) -> Image:
    """A plain pixel grid of samples, row by row, the range's lower end black and its upper end white.

    Args:
      images: [N, pixels] or [N, side, side], square images; missing ones leave their cell black.
      rows: images down.
      columns: images across.
      data_range: (black, white); values beyond are clipped.
      scale: how many pixels across each image pixel becomes, nearest neighbour.
      gap: grey pixels between images, before scaling.

    Returns:
      A greyscale PIL image; RGB with red pixels if any value is not finite, because that must not pass for black.

    Raises:
      ValueError: images that are not square, more images than cells, or an empty range.
    """
    from PIL import Image

    flat = np.asarray(images, dtype=np.float64).reshape(len(images), -1)
    side = math.isqrt(flat.shape[1])
    if side == 0 or side * side != flat.shape[1]:
        raise ValueError(f"images of {flat.shape[1]} pixels are not square: expected [N, side * side]")
    if len(flat) > rows * columns:
        raise ValueError(f"{len(flat)} images do not fit a grid of {rows} x {columns}: ask for more rows or columns")
    low, high = data_range
    if not low < high:
        raise ValueError(f"data_range {data_range} is empty: expected (black, white) with black < white")

    pitch = side + gap
    grid = np.full((rows * pitch - gap, columns * pitch - gap), _GAP_GREY, dtype=np.uint8)
    broken = np.zeros(grid.shape, dtype=bool)
    for cell in range(rows * columns):
        top, left = cell // columns * pitch, cell % columns * pitch
        place = (slice(top, top + side), slice(left, left + side))
        image = flat[cell].reshape(side, side) if cell < len(flat) else np.full((side, side), low)
        broken[place] = ~np.isfinite(image)
        shade = np.clip((np.where(broken[place], low, image) - low) / (high - low), 0.0, 1.0)
        grid[place] = np.rint(255 * shade).astype(np.uint8)
    picture = grid
    if broken.any():
        picture = np.where(broken[..., None], np.array(_BROKEN_PIXEL, np.uint8), grid[..., None])
    return Image.fromarray(picture.repeat(scale, axis=0).repeat(scale, axis=1))


def png_bytes(image: Image) -> bytes:
    """The image as PNG, the same bytes for the same pixels."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_png(image: Image, path: Path) -> None:
    """Writes the image as PNG, atomically.

    Raises:
      RunError: the disk refused; an older file is untouched.
    """
    write_atomically(path, png_bytes(image))


def loss_curves(
    curves: Mapping[str, Curve],
    title: str,
    xlabel: str = "training step",
    ylabel: str = "loss (nats)",
    window: int | None = None,
    kind: Literal["png", "svg"] = "png",
) -> bytes:
    """A training run's losses against the step: every logged value faint, its moving mean strong.

    Args:
      curves: series name -> (steps [n], values [n]); NaN and infinities leave gaps and are counted in the legend.
      title: stands over the chart.
      xlabel: what the steps are.
      ylabel: what the values are, with their unit.
      window: points in the centred moving mean; about a fiftieth of the run when None; 1 draws the values alone.
      kind: "png" (1,350 x 750 pixels) or "svg".

    Returns:
      The file's bytes, the same for the same arguments.

    Raises:
      ValueError: a series whose steps and values have unequal lengths.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with canvas.look():
        figure = Figure(figsize=(9, 5), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor="white")
        axes = figure.add_subplot()
        drawn = 0
        widest = 1
        for number, (name, (steps, values)) in enumerate(curves.items()):
            if len(steps) != len(values):
                raise ValueError(f"series {name!r} has {len(steps)} steps and {len(values)} values")
            points = canvas.series(values)
            span = window or (len(points) // 50 | 1)
            widest = max(widest, span)
            colour = canvas.PALETTE[number % len(canvas.PALETTE)]
            _draw(axes, np.asarray(steps, dtype=np.float64), points, span, colour, name)
            drawn += int(np.isfinite(points).any())
        axes.set_title(title, pad=10)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.margins(x=0.01)
        canvas.count_steps(axes)
        if not drawn:
            canvas.say(axes, "no finite value was logged")
        if curves:
            note = f"faint: every logged value, strong: mean over {widest:,} of them" if widest > 1 else None
            figure.legend(
                *axes.get_legend_handles_labels(), loc="outside lower left", ncols=4, title=note, alignment="left"
            )
        return canvas.save(figure, kind)


def _draw(axes: Axes, steps: canvas.Series, values: canvas.Series, span: int, colour: str, name: str) -> None:
    missing = int((~np.isfinite(values)).sum())
    label = name if not missing else f"{name} ({missing:,} of {len(values):,} not finite)"
    strong = moving_mean(values, span)
    if span > 1:
        axes.plot(*canvas.thin(steps, values, 1500), color=colour, alpha=0.25, linewidth=0.7)
    axes.plot(steps, strong, color=colour, linewidth=1.8, marker=canvas.marker(strong), markersize=6, label=label)


def moving_mean(values: canvas.Series, window: int) -> canvas.Series:
    """Centred mean over `window` points, [n] -> [n]; ends use what there is, NaN stays a gap and spoils no mean."""
    finite = np.isfinite(values)
    window = min(window, len(values))
    if window <= 1:
        return values
    kernel = np.ones(window)
    total = np.convolve(np.where(finite, values, 0.0), kernel, mode="same")
    count = np.convolve(finite.astype(np.float64), kernel, mode="same")
    return np.where(finite, total / np.maximum(count, 1.0), np.nan)


def comparison_curves(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    legacy: str,
    unit: str = "nats",
    steps: Sequence[int] = (),
    title: str = "Losses as each paradigm reports them",
) -> str:
    """Every paradigm's losses over each other, and beneath how far each lies from the legacy side's.

    Args:
      curves: paradigm -> loss name -> [steps], as in Report.curves.
      legacy: the paradigm that the others are measured from.
      unit: what the losses are counted in, for the axes.
      steps: the training step of each value; empty where there is one value a step, from step 1.
      title: stands over the upper panel.

    Returns:
      An `<svg>` element for an HTML page, the same text for the same curves; its colours follow the page's
      `--plot-*` variables.
    """
    from tfport.report.comparison_plot import draw

    return draw(curves, legacy, unit, steps, title)
