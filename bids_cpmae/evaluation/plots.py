"""Plots of the evaluation's tables; no face but the template's, which is nobody's, is ever drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

COLOUR = "#0072b2"
# Okabe & Ito, told apart by colour-blind readers too
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", ":")


def bars(
    labels: Sequence[str], values: Sequence[float], intervals: Sequence[tuple[float, float]], *, xlabel: str,
    chance: float | None = None,
) -> Figure:  # fmt: skip
    """A bar a method, its interval as whiskers, guessing as a dashed line."""
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.barh(labels, values, color=COLOUR, height=0.6)
    low, high = np.transpose(intervals)
    middle = np.asarray(values, float)
    reach = np.maximum([middle - low, high - middle], 0)
    axes.errorbar(middle, labels, xerr=reach, fmt="none", ecolor="black", capsize=3)
    if chance is not None:
        axes.axvline(chance, color="grey", linestyle="--", label="guessing")
        axes.legend()
    axes.set_xlabel(xlabel)
    axes.invert_yaxis()
    return figure


def points(
    labels: Sequence[str], values: Sequence[float], intervals: Sequence[tuple[float, float]], *, xlabel: str
) -> Figure:
    """A point a method with its interval, for values that lie near to one another and far from 0."""
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(labels)), layout="constrained")
    axes = figure.subplots()
    low, high = np.transpose(intervals)
    middle = np.asarray(values, float)
    reach = np.maximum([middle - low, high - middle], 0)
    axes.errorbar(middle, labels, xerr=reach, fmt="o", color=COLOUR, ecolor="black", capsize=3)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", alpha=0.4)
    axes.invert_yaxis()
    return figure


def match_curves(ranks: Mapping[str, Sequence[int]], gallery: int) -> Figure:
    """Cumulative match curves: the share of people found among the k likest, against k."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(1, gallery + 1)
    for number, (name, found) in enumerate(ranks.items()):
        share = (np.asarray(found)[:, None] <= places).mean(0)
        style = {"color": CYCLE[number % len(CYCLE)], "linestyle": STYLES[number // len(CYCLE) % len(STYLES)]}
        axes.step(places, share, where="post", label=name, **style)
    axes.plot(places, places / gallery, color="grey", linestyle="--", label="guessing")
    axes.set(xscale="log", xlabel=f"among the k likest of {gallery}", ylabel="share of people", ylim=(0, 1.02))
    axes.legend(fontsize="small")
    return figure


def region_map(millimetres: Mapping[str, Sequence], regions: Sequence[str]) -> Figure:
    """Methods against regions of the face, coloured by how far the skin moved; empty where there is no skin."""
    values = np.array([[np.nan if cell is None else float(cell) for cell in row] for row in millimetres.values()])
    figure = Figure(figsize=(8, 1.5 + 0.45 * len(values)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis", aspect="auto", vmin=0)
    middle = np.nanmax(values) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(regions)), regions)
    axes.set_yticks(range(len(millimetres)), list(millimetres))
    figure.colorbar(image, label="mm")
    axes.set_title("mean distance between old and new skin, mm", fontsize="medium")
    return figure
