"""The sample picture of a model, laid out as its source shows samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfport.report import canvas, plots

if TYPE_CHECKING:
    from PIL.Image import Image

    from tfport.models.spec import ModelSpec
    from tfport.subject import Batch

Array = np.ndarray[Any, Any]

_BETWEEN = 12
"""Pixels between two panels."""


def picture(spec: ModelSpec, inputs: Batch, images: Array) -> Image:
    """The picture of `images` [N, pixels] that `generate` made of `inputs`; see `tfport.data.samples.sample_inputs`."""
    rows, columns = spec.samples.rows, spec.samples.columns
    if spec.samples.kind == "reconstructions":
        columns = len(images)  # a data set may have fewer test images than the picture has room for
        images = np.concatenate([inputs["images"], images])
    if spec.samples.kind != "by_code":
        return plots.sample_grid(images, rows, columns, spec.data_range)
    panels = [
        plots.sample_grid(part, rows, columns, spec.data_range)
        for part in images.reshape(-1, rows * columns, images.shape[1])
    ]
    return _side_by_side(panels)


def _side_by_side(panels: list[Image]) -> Image:
    from PIL import Image

    mode = "RGB" if any(panel.mode == "RGB" for panel in panels) else "L"
    width = sum(panel.width for panel in panels) + _BETWEEN * (len(panels) - 1)
    whole = Image.new(mode, (width, panels[0].height), "white" if mode == "RGB" else 255)
    left = 0
    for panel in panels:
        whole.paste(panel.convert(mode), (left, 0))
        left += panel.width + _BETWEEN
    return whole


def latent_scatter(codes: Array, labels: Array, title: str) -> bytes:
    """A PNG of codes [N, 2], each point coloured by its digit and named in the legend."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with canvas.look():
        figure = Figure(figsize=(7, 6), layout=ConstrainedLayoutEngine(), facecolor="white")
        axes = figure.add_subplot()
        colours = colormaps["tab10"]
        for digit in range(10):
            chosen = codes[labels == digit]
            axes.scatter(
                chosen[:, 0], chosen[:, 1], s=7, color=colours(digit), label=str(digit), linewidths=0, alpha=0.8
            )
        axes.set_title(title, pad=10)
        axes.set_xlabel("mean of the first latent coordinate")
        axes.set_ylabel("mean of the second")
        axes.set_aspect("equal", adjustable="datalim")
        figure.legend(loc="outside right upper", title="digit", markerscale=2)
        return canvas.save(figure, "png")
