"""Figures of the report: SVG without date or random ids that takes the page's own ink, and PNG data URIs.

No class name enters a figure: names stand in the page, which escapes them.
"""

import base64
import io
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

PALETTE = ("#3b82c4", "#d9772b", "#2f9e6e", "#a866c9", "#b8962e", "#d1567a", "#5a8f9e", "#8a7560")
INK = "#010203"  # stands for the page's text colour and is replaced by `currentColor`
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "rootstock",
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
THUMBNAIL = 128  # pixels, longest side


class Point(NamedTuple):
    """An accuracy with its interval, all in [0, 1], in a named group."""

    group: str
    value: float
    low: float
    high: float


def colours(groups: Iterable[str]) -> dict[str, str]:
    """Give each group a colour that reads on light and dark; they repeat after eight."""
    return {group: PALETTE[index % len(PALETTE)] for index, group in enumerate(groups)}


def curves(histories: list[tuple[str, pd.DataFrame]]) -> str:
    """Draw training loss and validation top-1 over epochs.

    Args:
        histories: (group, history as in `rootstock.schema.history`); lines of a group share its colour.

    Returns:
        An `<svg>` element.
    """
    colour = colours(dict.fromkeys(group for group, _ in histories))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        panels = figure.subplots(1, 2)
        columns = (("train_loss", 1, "Training loss (nats an image)"), ("val_top1", 100, "Validation top-1 (%)"))
        for axes, (column, factor, title) in zip(panels, columns, strict=True):
            drawn = set()
            for group, history in histories:
                label = None if group in drawn else group
                drawn.add(group)
                marker = "o" if len(history) <= 12 else None
                values = factor * history[column]
                axes.plot(history["epoch"], values, color=colour[group], lw=1.5, marker=marker, ms=3, label=label)
            axes.set(title=title, xlabel="epoch")
            longest = max(len(history) for _, history in histories)
            axes.set_xlim(max(1 - 0.04 * longest, 0.5), 1.04 * longest)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].set_ylim(0, None)
        if len(colour) > 1:
            panels[1].legend(loc="lower right")
        return _svg(figure, "Training loss and validation accuracy by epoch")


def replicas(points: list[Point], *, label: str) -> str:
    """Draw each replica's accuracy with its interval, a row of dots a group, and the group's mean as a bar.

    Args:
        points: in the order of drawing, from the top.
        label: of the axis, with its unit (%).

    Returns:
        An `<svg>` element.
    """
    groups = list(dict.fromkeys(point.group for point in points))
    colour = colours(groups)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.75 + 0.62 * len(groups)), layout="constrained")
        axes = figure.subplots()
        for row, group in enumerate(groups):
            members = [point for point in points if point.group == group]
            for place, point in zip(np.linspace(-0.25, 0.25, len(members) + 2)[1:-1], members, strict=True):
                ends = [100 * point.low, 100 * point.high]
                axes.plot(ends, [row + place] * 2, color=colour[group], lw=2, alpha=0.55, solid_capstyle="round")
                axes.plot([100 * point.value], [row + place], "o", color=colour[group], ms=5)
            mean = 100 * float(np.mean([point.value for point in members]))
            axes.plot([mean, mean], [row - 0.36, row + 0.36], color=INK, lw=1.5)
        axes.set(yticks=range(len(groups)), yticklabels=groups, ylim=(len(groups) - 0.5, -0.5), xlabel=label)
        axes.grid(visible=False, axis="y")
        return _svg(figure, label)


def class_accuracies(classes: pd.DataFrame) -> str:
    """Draw every class's accuracy with its interval, sorted.

    Args:
        classes: accuracy, low, high in [0, 1], as `metrics.per_class` gives them; classes without images are left out.

    Returns:
        An `<svg>` element.
    """
    classes = classes.dropna(subset="accuracy").sort_values(["accuracy", "low"], ignore_index=True)
    rank = np.arange(1, len(classes) + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.vlines(rank, 100 * classes["low"], 100 * classes["high"], color=PALETTE[0], lw=2, alpha=0.35)
        axes.plot(rank, 100 * classes["accuracy"], "o", color=PALETTE[0], ms=3)
        axes.set(xlabel="classes, from the hardest to the easiest", ylabel="accuracy (%)", ylim=(-3, 103))
        axes.margins(x=0.01)
        return _svg(figure, "Accuracy of each class, sorted")


def reliability(bins: pd.DataFrame) -> str:
    """Draw accuracy against confidence, and how many images each bin holds.

    Args:
        bins: as `metrics.reliability` gives them.

    Returns:
        An `<svg>` element.
    """
    filled = bins[bins["num_images"] > 0]
    centres, width = (bins["low"] + bins["high"]) / 2, float(bins["high"].iloc[0] - bins["low"].iloc[0])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, 100], [0, 100], color=INK, lw=1, ls="--", alpha=0.6)
        sizes = 12 + 100 * filled["num_images"] / filled["num_images"].max()
        left.plot(100 * filled["confidence"], 100 * filled["accuracy"], color=PALETTE[0], lw=1.2)
        left.scatter(100 * filled["confidence"], 100 * filled["accuracy"], s=sizes, color=PALETTE[0], alpha=0.8)
        left.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(-3, 104), ylim=(-3, 106))
        left.set_title("Accuracy against confidence")
        right.bar(100 * centres, bins["num_images"], width=92 * width, color=PALETTE[0], alpha=0.7)
        right.set(xlabel="confidence (%)", ylabel="images", title="Images in each bin", xlim=(-3, 104))
        return _svg(figure, "Reliability diagram")


def heat_map(shares: np.ndarray) -> str:
    """Draw a matrix of shares as a transparent PNG: the more opaque, the larger.

    Args:
        shares: floats (K, K) in [0, 1].

    Returns:
        A data URI; at least 512 pixels wide, a whole number of pixels a cell.
    """
    assert shares.ndim == 2, shares.shape
    ink = tuple(int(PALETTE[0][start : start + 2], 16) for start in (1, 3, 5))
    pixels_RGBA = np.zeros((*shares.shape, 4), np.uint8)
    pixels_RGBA[..., :3] = ink
    pixels_RGBA[..., 3] = np.round(255 * opacity(shares))
    cell = math.ceil(512 / len(shares))
    return _data_uri(Image.fromarray(np.kron(pixels_RGBA, np.ones((cell, cell, 1), np.uint8))))


def opacity(shares: np.ndarray) -> np.ndarray:
    """Map shares in [0, 1] to opacities: none stays none, and a rare one can still be seen on light and dark."""
    return np.where(shares > 0, 0.25 + 0.75 * np.sqrt(np.clip(shares, 0, 1)), 0.0)


def picture(image_HWC: np.ndarray) -> str:
    """Return a PNG data URI of an RGB image, shrunk to a longest side of 128 pixels where it is larger.

    Args:
        image_HWC: uint8 (H, W, 3).
    """
    assert (image_HWC.dtype, image_HWC.shape[2]) == (np.uint8, 3), (image_HWC.dtype, image_HWC.shape)
    image = Image.fromarray(np.ascontiguousarray(image_HWC))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return _data_uri(image)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Title": title})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would style the whole page
    # ids of groups repeat from figure to figure and nothing refers to them
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r'<svg role="img" \1', text, count=1)
    return text.replace(INK, "currentColor")
