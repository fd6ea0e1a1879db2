"""A scan's noise: what its air looks like, how strong the noise in tissue is, and more of the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter1d
from scipy.special import ndtr

from bids_cpmae.imaging.fields import block_size, blocks, carry

AIR_BLOCK_MM, FIELD_BLOCK_MM, QUIET_BLOCK_MM = 6.0, 8.0, 6.0
QUIET_SHARE = 0.1
# near the scanner's coils the air is noisier: its level is followed over a few centimetres, then the average counts
AIR_SCALES = {16.0: 1.0, 40.0: 0.05}
LEVEL_LIMITS = (1 / 3, 3.0)
LEAST_SAMPLES = 1000
MOST_SAMPLES = 200_000
# mean and standard deviation of a Rayleigh distribution over the standard deviation of the Gaussian noise behind it
RAYLEIGH_MEAN, RAYLEIGH_SPREAD = 1.2533, 0.6551
MEDIAN_SQUARE = 0.4549
MOST_CORRELATED = 0.8


def find_air(known: np.ndarray, outside: np.ndarray, level: float, spacing: np.ndarray) -> np.ndarray:
    """Voxels of air that are surely no tissue, bone or sinus.

    Parameters
    ----------
    known : ndarray (X, Y, Z)
        Scan, 0 under the mask.
    outside : ndarray (X, Y, Z), bool
        True = not under the mask. Nothing else is called air.
    level : float
        Typical value of tissue.
    spacing : ndarray (3,)
        In mm.

    Returns
    -------
    ndarray (X, Y, Z), bool
    """
    block = block_size(AIR_BLOCK_MM, spacing)
    count = blocks(outside.astype(np.float32), block, "sum")
    there = count > 0
    mean = blocks(known, block, "sum") / np.maximum(count, 1)
    peak = blocks(known, block, "max")
    # six times the darkest fifth's level lets all of a noisy background pass
    darkest = np.sort(mean[there])[: max(1, int(there.sum()) // 5)]
    limit = np.clip(6 * np.median(darkest), 0.12 * level, 0.4 * level)
    dark = (peak < limit) & (mean < limit / 2)
    # a block's neighbours must be dark as well, so that no partial volume of skin counts; unknown ones do not matter
    inner = binary_erosion(dark | ~there, np.ones((3, 3, 3)), border_value=1) & dark & there
    lit = inner & (peak > 0)
    if lit.sum() > 0.2 * inner.sum():
        # stretches of exact zeros are the scanner's padding, not its background
        inner = lit
    for axis, step in enumerate(block):
        inner = np.repeat(inner, step, axis)
    return inner[tuple(slice(n) for n in known.shape)] & outside


def neighbour_correlation(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Correlation of neighbouring voxels along each axis (3,), over pairs that both lie in ``where``."""
    found = np.zeros(3)
    centred = np.where(where, values, 0).astype(np.float32)
    centred -= np.where(where, centred.sum(dtype=float) / max(1, where.sum()), 0).astype(np.float32)
    for axis in range(3):
        first, second = _shifted(where, 1, axis)
        pairs = int((first & second).sum())
        if pairs < LEAST_SAMPLES:
            continue
        a, b = _shifted(centred, 1, axis)
        power = float((centred**2).sum(dtype=float)) / max(1, where.sum())
        found[axis] = float((a * b).sum(dtype=float)) / pairs / power if power > 0 else 0.0
    return np.clip(found, 0, MOST_CORRELATED)


def _shifted(values: np.ndarray, lag: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    front, back = [slice(None)] * 3, [slice(None)] * 3
    front[axis], back[axis] = slice(None, -lag), slice(lag, None)
    return values[tuple(front)], values[tuple(back)]


@dataclass(frozen=True)
class Background:
    """The air around a head.

    Attributes
    ----------
    level : ndarray (X, Y, Z), float32
        Mean of the air at every voxel of the box, carried there from the known air.
    shape : ndarray (N,), float32
        Quantiles of the air divided by its local mean.
    correlation : ndarray (3,)
        Of neighbouring voxels along each axis.
    """

    level: np.ndarray
    shape: np.ndarray
    correlation: np.ndarray

    @classmethod
    def of(
        cls, known: np.ndarray, air: np.ndarray, box: tuple[slice, ...], spacing: np.ndarray, *, fallback: float
    ) -> Background:
        """From the voxels of a scan (X, Y, Z) in ``air``, for a box of it.

        Without air in sight, Rayleigh noise of a Gaussian ``fallback`` stands in.
        """
        count = int(air.sum())
        if count < LEAST_SAMPLES:
            shape = tuple(s.stop - s.start for s in box)
            quantiles = np.sqrt(-2 * np.log(1 - (np.arange(1000) + 0.5) / 1000)) / RAYLEIGH_MEAN
            level = np.full(shape, RAYLEIGH_MEAN * fallback, np.float32)
            return cls(level, quantiles.astype(np.float32), np.zeros(3))
        amount = np.where(air, known, 0)
        mean = float(amount.sum(dtype=float)) / count
        if mean == 0:
            return cls(np.zeros([s.stop - s.start for s in box], np.float32), np.zeros(1, np.float32), np.zeros(3))
        level = carry(
            amount, air.astype(np.float32), spacing, scales=AIR_SCALES, block_mm=FIELD_BLOCK_MM, prior=mean,
            prior_weight=1e-4,
        )  # fmt: skip
        level = np.clip(level, LEVEL_LIMITS[0] * mean, LEVEL_LIMITS[1] * mean)
        ratio = known / level
        values = ratio[air]
        values = values[:: max(1, values.size // MOST_SAMPLES)]
        quantiles = np.sort(values)
        correlation = _behind(quantiles, neighbour_correlation(ratio, air))
        return cls(np.ascontiguousarray(level[box]), quantiles, correlation)

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian noise behind the magnitude."""
        return float(self.level.mean() * self.shape.std()) / RAYLEIGH_SPREAD

    def deviate(self, field: np.ndarray) -> np.ndarray:
        """Air less its local mean, from Gaussian noise (X, Y, Z) of unit variance: the histogram is the scan's own."""
        rank = (ndtr(field) * self.shape.size).astype(np.int32)
        np.minimum(rank, self.shape.size - 1, out=rank)
        return (self.shape - self.shape.mean())[rank] * self.level


def _behind(quantiles: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Correlation (3,) of Gaussian noise that has the one wanted once it is given a histogram.

    A skewed histogram, such as that of an air that is mostly zeros, takes correlation away; by how much is tried out.
    """
    rng = np.random.default_rng(0)
    first, fresh = rng.standard_normal((2, 20_000))
    tried, got = np.linspace(0, 0.99, 23), []
    for rho in tried:
        pair = (first, rho * first + np.sqrt(1 - rho**2) * fresh)
        values = [quantiles[np.minimum((ndtr(x) * quantiles.size).astype(int), quantiles.size - 1)] for x in pair]
        got.append(float(np.corrcoef(*values)[0, 1]))
    return np.interp(correlation, np.maximum.accumulate(got), tried)


@dataclass(frozen=True)
class Grain:
    """Noise and fine texture that tissue lacks.

    Attributes
    ----------
    sigma : float
        Standard deviation of the noise, the same everywhere.
    texture : float
        Standard deviation of the texture, per unit of signal.
    correlation : ndarray (3,)
        Of neighbouring voxels along each axis.
    """

    sigma: float
    texture: float
    correlation: np.ndarray

    @classmethod
    def missing(
        cls, scan: np.ndarray, scan_at: np.ndarray, new: np.ndarray, new_at: np.ndarray, spacing: np.ndarray,
        *, noise: float,
    ) -> Grain:  # fmt: skip
        """What a new head lacks compared with a scan.

        Differences between voxels one and two apart are compared between the tissue of the scan and that of the new
        head; their medians are noise and texture, hardly edges. What lacks at one voxel relative to two tells how
        finely grained it is.

        Parameters
        ----------
        scan, new : ndarray (X, Y, Z)
        scan_at, new_at : ndarray (X, Y, Z), bool
            Where each is tissue.
        spacing : ndarray (3,)
            In mm.
        noise : float
            Standard deviation of the scan's noise; what lacks beyond it is texture, and grows with the signal.
        """
        variances, correlation = [], np.zeros(3)
        rho = np.linspace(0, MOST_CORRELATED, 81)
        for axis in range(3):
            if spacing[axis] > 2 * spacing.min():
                continue  # between thick slices it is anatomy that differs
            lacks = [_variation(scan, scan_at, k, axis) - _variation(new, new_at, k, axis) for k in (1, 2)]
            if lacks[0] <= 0:
                variances.append(0.0)
                continue
            # Gaussian grain correlates by rho between neighbours and by rho^4 two voxels apart
            correlation[axis] = np.interp(-lacks[0] / max(lacks[1], lacks[0]), -(1 - rho) / (1 - rho**4), rho)
            variances.append(lacks[0] / (1 - correlation[axis]))
        total = float(np.median(variances)) if variances else 0.0
        even = min(total, noise**2)
        power = float(np.mean(scan[scan_at] ** 2)) if scan_at.any() else 0.0
        texture = np.sqrt((total - even) / power) if power > 0 else 0.0
        return cls(float(np.sqrt(even)), float(texture), correlation)

    def scaled(self, signal: np.ndarray) -> np.ndarray:
        """Standard deviation where the signal is as given."""
        return np.sqrt(self.sigma**2 + (self.texture * signal) ** 2)


def quiet_sigma(scan: np.ndarray, tissue: np.ndarray, spacing: np.ndarray) -> float:
    """Standard deviation of the noise from the quietest tenth of blocks of tissue."""
    axis = int(np.argmin(spacing))
    pairs = tissue & np.roll(tissue, 1, axis)
    squares = np.where(pairs, (scan - np.roll(scan, 1, axis)) ** 2, 0)
    block = block_size(QUIET_BLOCK_MM, spacing)
    count = blocks(pairs.astype(np.float32), block, "sum")
    full = count > 0.9 * block.prod()
    if not full.any():
        return 0.0
    return float(np.sqrt(np.quantile(blocks(squares, block, "sum")[full] / count[full], QUIET_SHARE) / 2))


def _variation(values: np.ndarray, where: np.ndarray, lag: int, axis: int) -> float:
    """Half the robust mean square difference between voxels ``lag`` apart: the variance, for white noise."""
    first, second = _shifted(where, lag, axis)
    pairs = first & second
    if pairs.sum() < LEAST_SAMPLES:
        return 0.0
    a, b = _shifted(values, lag, axis)
    difference = a[pairs] - b[pairs]
    difference = difference[:: max(1, difference.size // MOST_SAMPLES)]
    return float(np.median(difference**2)) / MEDIAN_SQUARE / 2


def grained(white: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """White Gaussian noise of unit variance given a neighbour correlation (3,) along each axis, unit variance kept."""
    field = white
    for axis, rho in enumerate(correlation):
        if rho > 0.02:
            # white noise smoothed by a Gaussian of width s correlates between neighbours by exp(-1 / (4 s^2))
            width = np.sqrt(-1 / (4 * np.log(rho)))
            field = gaussian_filter1d(field, width, axis, mode="wrap", truncate=4)
    return field if field is white else field / field.std()
