"""Distributions of measures as small drawings in SVG, with some scans marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_cpmae.report.tables import robust_sigma

WIDTH, HEIGHT, MARGIN = 240, 36, 5
MOST_TICKS = 60
BINS = 32
# beyond so many robust standard deviations a value is drawn at the edge, so that it does not squeeze the others
REACH = 6


@dataclass(frozen=True)
class Mark:
    """A scan in a drawing: its place, whether it lies beyond the edge, and its name and address, if it has them."""

    x: float
    beyond: bool
    label: str = ""
    link: str = ""


@dataclass(frozen=True)
class Strip:
    """A distribution ready to be drawn.

    Attributes
    ----------
    shape : str
        SVG path: a tick a scan, or a histogram where there are many.
    filled : bool
        Whether the path is an area.
    quartiles : tuple of float
        Places of the first, second and third quartile.
    low, high : float
        Values at the edges.
    marks : tuple of Mark
    count : int
        Values that there are.
    constant : bool
        Whether they are all the same.
    """

    shape: str
    filled: bool
    quartiles: tuple[float, float, float]
    low: float
    high: float
    marks: tuple[Mark, ...]
    count: int
    constant: bool = False
    width: int = WIDTH
    height: int = HEIGHT


def strip(values: Sequence[float], marked: Sequence[tuple[float, str, str]] = ()) -> Strip | None:
    """Draw a distribution; None where there is no value.

    Parameters
    ----------
    values : sequence of float
        NaN is missing.
    marked : sequence of (value, label, link)
        Scans to point out.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = limits(values)

    def place(value: float) -> float:
        inner = WIDTH - 2 * MARGIN
        return round(float(MARGIN + inner * np.clip((value - low) / (high - low), 0, 1)), 1)

    many = len(values) > MOST_TICKS
    marks = tuple(
        Mark(place(value), not low <= value <= high, label, link)
        for value, label, link in marked
        if np.isfinite(value)
    )
    quartiles = tuple(place(value) for value in np.percentile(values, [25, 50, 75]))
    shape = _histogram(values, low, high) if many else _ticks(sorted({place(value) for value in values}))
    return Strip(shape, many, quartiles, low, high, marks, len(values), bool(values.min() == values.max()))


def limits(values: np.ndarray) -> tuple[float, float]:
    """Values at the edges of a drawing: the range, less what is far out."""
    middle, sigma = np.median(values), robust_sigma(values)
    low = float(max(values.min(), middle - REACH * sigma))
    high = float(min(values.max(), middle + REACH * sigma))
    if high <= low:
        pad = abs(low) * 0.05 or 1.0
        return low - pad, high + pad
    return low, high


def _ticks(places: Sequence[float]) -> str:
    return "".join(f"M{x:g} 9V{HEIGHT - 9}" for x in places)


def _histogram(values: np.ndarray, low: float, high: float) -> str:
    counts, _ = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
    step = (WIDTH - 2 * MARGIN) / BINS
    # the root keeps small counts in sight beside tall ones
    tops = HEIGHT - 4 - (HEIGHT - 10) * np.sqrt(counts / counts.max())
    steps = "".join(f"V{top:.1f}h{step:.2f}" for top in tops)
    return f"M{MARGIN} {HEIGHT - 4}{steps}V{HEIGHT - 4}Z"
