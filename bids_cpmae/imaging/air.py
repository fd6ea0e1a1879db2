"""The air around a head: where it surely is, what its noise looks like, and more of the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.special import ndtr

from bids_cpmae.imaging.fields import block_size, blocks, carry
from bids_cpmae.imaging.noise import LEAST_SAMPLES, MOST_SAMPLES, neighbour_correlation

AIR_BLOCK_MM, LEVEL_BLOCK_MM = 6.0, 8.0
# near the scanner's coils the air is noisier: its level is followed over a few centimetres, then the average counts
LEVEL_SCALES = {16.0: 1.0, 40.0: 0.05}
LEVEL_BINS, QUANTILES = 12, 4096
# standard deviation of a Rayleigh distribution over that of the Gaussian noise behind it
RAYLEIGH_SPREAD = 0.6551


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


@dataclass(frozen=True)
class Background:
    """The air around a head, sorted into bins by its local mean.

    Attributes
    ----------
    bin : ndarray (X, Y, Z), int16
        Which bin the air at every voxel of the box belongs to.
    values : ndarray (bins, N), float32
        Quantiles of the scan's own air, bin by bin.
    correlation : ndarray (3,)
        Of the Gaussian noise, between neighbouring voxels along each axis, that gives the air's correlation.
    seen : bool
        False where no air was in sight and Rayleigh noise stands in.
    """

    bin: np.ndarray
    values: np.ndarray
    correlation: np.ndarray
    seen: bool = True

    @classmethod
    def of(
        cls, known: np.ndarray, air: np.ndarray, box: tuple[slice, ...], spacing: np.ndarray, *, fallback: float
    ) -> Background:
        """From the voxels of a scan (X, Y, Z) in ``air``, for a box of it.

        Without air in sight, Rayleigh noise of a Gaussian ``fallback`` stands in.
        """
        count, shape = int(air.sum()), tuple(s.stop - s.start for s in box)
        if count < LEAST_SAMPLES:
            quantiles = fallback * np.sqrt(-2 * np.log(1 - (np.arange(1000) + 0.5) / 1000))
            return cls(np.zeros(shape, np.int16), quantiles[None].astype(np.float32), np.zeros(3), False)
        amount = np.where(air, known, 0)
        mean = float(amount.sum(dtype=float)) / count
        level = carry(
            amount, air.astype(np.float32), spacing, scales=LEVEL_SCALES, block_mm=LEVEL_BLOCK_MM, prior=mean,
            prior_weight=1e-4,
        )  # fmt: skip
        thin = slice(None, None, max(1, count // MOST_SAMPLES))
        levels, values = level[air][thin], known[air][thin]
        edges = np.quantile(levels, np.linspace(0, 1, LEVEL_BINS + 1)[1:-1])
        order = np.digitize(levels, edges)
        ranks = (np.arange(QUANTILES) + 0.5) / QUANTILES
        # taken as they are, never interpolated: a background of whole numbers stays one
        quantiles = []
        for k in range(LEVEL_BINS):
            # sorted, which for so many quantiles is many times as fast as looking for each
            part = np.sort(part if (part := values[order == k]).size else values)
            quantiles.append(part[np.rint(ranks * (part.size - 1)).astype(int)])
        correlation = _behind(np.sort(values), neighbour_correlation(known - level, air))
        return cls(np.digitize(level[box], edges).astype(np.int16), np.stack(quantiles), correlation)

    @property
    def level(self) -> np.ndarray:
        """Mean of the air at every voxel of the box, float32."""
        return self.values.mean(1)[self.bin]

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian noise behind the magnitude."""
        return float(self.values.std(1).mean()) / RAYLEIGH_SPREAD

    def deviate(self, field: np.ndarray) -> np.ndarray:
        """Air less its local mean, from Gaussian noise (X, Y, Z) of unit variance: the histogram is the scan's own."""
        size = self.values.shape[1]
        if not self.values.any():
            return np.zeros_like(field)
        rank = np.minimum((ndtr(field) * size).astype(np.int32), size - 1)
        return (self.values - self.values.mean(1, keepdims=True))[self.bin, rank]


def _behind(quantiles: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Correlation (3,) of Gaussian noise that has the one wanted once it is given a histogram.

    A skewed histogram, such as that of an air that is mostly zeros, takes correlation away; by how much is tried out.
    """
    if quantiles[0] == quantiles[-1]:
        return np.zeros(3)
    rng = np.random.default_rng(0)
    first, fresh = rng.standard_normal((2, 20_000))
    tried, got = np.linspace(0, 0.98, 15), []
    for rho in tried:
        pair = (first, rho * first + np.sqrt(1 - rho**2) * fresh)
        values = [quantiles[np.minimum((ndtr(x) * quantiles.size).astype(int), quantiles.size - 1)] for x in pair]
        spread = values[0].std() * values[1].std()
        got.append(float(np.cov(*values)[0, 1] / spread) if spread > 0 else 0.0)
    return np.interp(correlation, np.maximum.accumulate(got), tried)
