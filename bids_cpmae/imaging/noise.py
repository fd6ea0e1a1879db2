"""Noise in tissue: how much of it a new head lacks, dark and bright tissue apart, and more of the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from bids_cpmae.imaging.fields import block_size, blocks
from bids_cpmae.imaging.threads import side_by_side

# bounds of dark to bright tissue, in units of the typical tissue
SIGNAL_BINS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.6)
LEAST_SAMPLES, MOST_SAMPLES = 1000, 200_000
# grain is none below, and all there above these shares of the typical tissue
GRAIN_FROM = (0.2, 0.5)
# the mean of the smaller four fifths of squares of unit Gaussian noise
KEPT_SQUARES, KEPT_MEAN = 0.8, 0.4377
MOST_CORRELATED = 0.8
# standard deviations in voxels, within which every correlation up to that lies
WIDTHS = np.linspace(0.2, 2.0, 181)
QUIET_BLOCK_MM, QUIET_SHARE = 6.0, 0.1


def neighbour_correlation(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Correlation of neighbouring voxels along each axis (3,), over pairs that both lie in ``where``."""
    found = np.zeros(3)
    centred = np.where(where, values, 0).astype(np.float32)
    centred -= np.where(where, centred.sum(dtype=float) / max(1, where.sum()), 0).astype(np.float32)
    for axis in range(3):
        first, second = neighbours(where, axis)
        pairs = int((first & second).sum())
        if pairs < LEAST_SAMPLES:
            continue
        a, b = neighbours(centred, axis)
        power = float((centred**2).sum(dtype=float)) / max(1, where.sum())
        found[axis] = float((a * b).sum(dtype=float)) / pairs / power if power > 0 else 0.0
    return np.clip(found, 0, MOST_CORRELATED)


def neighbours(values: np.ndarray, axis: int, lag: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """All values (X, Y, Z) that have one ``lag`` voxels further along an axis, and those further ones; views."""
    front, back = [slice(None)] * 3, [slice(None)] * 3
    front[axis], back[axis] = slice(None, -lag), slice(lag, None)
    return values[tuple(front)], values[tuple(back)]


@dataclass(frozen=True)
class Grain:
    """Noise and fine texture that tissue lacks.

    Attributes
    ----------
    signal, sigma : ndarray (N,)
        Standard deviation by signal; the first is that without signal.
    correlation : ndarray (3,)
        Of neighbouring voxels along each axis.
    """

    signal: np.ndarray
    sigma: np.ndarray
    correlation: np.ndarray

    @classmethod
    def missing(
        cls, scan: np.ndarray, scan_at: np.ndarray, new: np.ndarray, new_at: np.ndarray, spacing: np.ndarray,
        *, level: float, noise: float, most: float = np.inf,
    ) -> Grain:  # fmt: skip
        """What a new head lacks compared with a scan.

        Differences between voxels one and two apart are compared between the tissue of the scan and that of the new
        head, dark and bright tissue apart. The largest fifth of them, edges of anatomy, does not count. What lacks at
        one voxel relative to two tells how finely grained it is.

        Parameters
        ----------
        scan, new : ndarray (X, Y, Z)
            The new head is also the guide to dark and bright.
        scan_at, new_at : ndarray (X, Y, Z), bool
            Where each is tissue.
        spacing : ndarray (3,)
            In mm.
        level : float
            Typical value of tissue.
        noise : float
            Standard deviation of the scan's noise where there is no signal.
        most : float
            Not to be exceeded; for head mode, where only the brain is left to compare with, and its folds are no noise.
        """
        # between thick slices it is anatomy that differs
        axes = [axis for axis in range(3) if spacing[axis] <= 2 * spacing.min()]
        bounds = level * np.asarray(SIGNAL_BINS)

        # (axes, lags, bins)
        def variations(values: np.ndarray, where: np.ndarray) -> np.ndarray:
            return np.array([[_variation(values, where, new, bounds, lag, axis) for lag in (1, 2)] for axis in axes])

        there, here = side_by_side(lambda: variations(scan, scan_at), lambda: variations(new, new_at))
        lacks = there - here
        told = np.isfinite(lacks).all((0, 1))
        if not told.any():
            return cls(np.zeros(1), np.zeros(1), np.zeros(3))
        near, far = np.maximum(lacks[..., told].mean(2), 1e-12).T
        rho = np.linspace(0, MOST_CORRELATED, 81)
        correlation = np.zeros(3)
        # Gaussian grain correlates by rho between neighbours and by rho^4 two voxels apart
        correlation[axes] = np.interp(-near / np.maximum(near, far), -(1 - rho) / (1 - rho**4), rho)
        variance = np.median(lacks[:, 0] / (1 - correlation[axes])[:, None], axis=0)[told]
        middles = (bounds[:-1] + bounds[1:])[told] / 2
        return cls(np.append(0, middles), np.append(noise, np.sqrt(np.clip(variance, 0, most**2))), correlation)

    def scaled(self, signal: np.ndarray) -> np.ndarray:
        """Standard deviation where the signal is as given."""
        return np.interp(signal, self.signal, self.sigma).astype(np.float32)


def quiet_sigma(scan: np.ndarray, tissue: np.ndarray, spacing: np.ndarray) -> float:
    """Standard deviation of the noise from the quietest tenth of blocks of tissue."""
    axis = int(np.argmin(spacing))
    pairs = np.logical_and(*neighbours(tissue, axis))
    squares = np.where(pairs, np.subtract(*neighbours(scan, axis)) ** 2, 0)
    block = block_size(QUIET_BLOCK_MM, spacing)
    count = blocks(pairs.astype(np.float32), block, "sum")
    full = count > 0.9 * block.prod()
    if not full.any():
        return 0.0
    return float(np.sqrt(np.quantile(blocks(squares, block, "sum")[full] / count[full], QUIET_SHARE) / 2))


def _variation(
    values: np.ndarray, where: np.ndarray, guide: np.ndarray, bounds: np.ndarray, lag: int, axis: int
) -> np.ndarray:
    """Half the robust mean square difference of voxels ``lag`` apart, in bins of ``guide``; NaN for too few pairs.

    For white noise this is its variance.
    """
    first, second = neighbours(where, axis, lag)
    pairs = np.flatnonzero(first & second)
    pairs = pairs[:: max(1, pairs.size // MOST_SAMPLES)]
    a, b = (part.reshape(-1)[pairs] for part in neighbours(values, axis, lag))
    c, d = (part.reshape(-1)[pairs] for part in neighbours(guide, axis, lag))
    squares, order = (a - b) ** 2, np.digitize((c + d) / 2, bounds)
    found = np.full(len(bounds) - 1, np.nan)
    for k in range(len(found)):
        part = squares[order == k + 1]
        if part.size >= LEAST_SAMPLES:
            kept = int(KEPT_SQUARES * part.size)
            found[k] = np.partition(part, kept)[:kept].mean(dtype=float) / KEPT_MEAN / 2
    return found


@lru_cache(maxsize=1)
def _correlations() -> np.ndarray:
    """Correlation of neighbours in white noise smoothed by a Gaussian, for each of `WIDTHS`, on whole voxels."""
    at = np.arange(-12, 13)
    kernels = np.exp(-((at / WIDTHS[:, None]) ** 2) / 2)
    return (kernels[:, 1:] * kernels[:, :-1]).sum(1) / (kernels**2).sum(1)


def grained(white: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """White Gaussian noise of unit variance given a neighbour correlation (3,) along each axis, unit variance kept."""
    field = white
    for axis, rho in enumerate(correlation):
        if rho > 0.02:
            width = np.interp(rho, _correlations(), WIDTHS)
            field = gaussian_filter1d(field, width, axis, mode="wrap", truncate=4)
    return field if field is white else field / field.std()
