"""A scan's noise: how strong it is in tissue, what its background looks like, and more of the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

MAD_TO_SIGMA = 1.4826
LEAST_SAMPLES = 500


def fine_detail(data: np.ndarray) -> np.ndarray:
    """What a Gaussian of one voxel takes away: noise, and the sharpest of edges."""
    return data - gaussian_filter(data, 1.0, truncate=3)


def robust_sigma(values: np.ndarray) -> float:
    """Standard deviation from the median absolute deviation, which edges hardly touch."""
    if values.size == 0:
        return 0.0
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def neighbour_correlation(data: np.ndarray, where: np.ndarray) -> float:
    """Correlation of neighbouring voxels along the three axes, over pairs that both lie in ``where``."""
    found = []
    centred = data - (data[where].mean() if where.any() else 0)
    for axis in range(3):
        first = np.take(where, range(where.shape[axis] - 1), axis) & np.take(where, range(1, where.shape[axis]), axis)
        if first.sum() < LEAST_SAMPLES:
            continue
        a = np.take(centred, range(where.shape[axis] - 1), axis)[first]
        b = np.take(centred, range(1, where.shape[axis]), axis)[first]
        power = np.sqrt(np.mean(a * a) * np.mean(b * b))
        found.append(float(np.mean(a * b) / power) if power > 0 else 0.0)
    return float(np.clip(np.mean(found), 0, 0.95)) if found else 0.0


@dataclass(frozen=True)
class Background:
    """The air around a head: sorted sample of its ``values`` and the ``correlation`` of neighbouring voxels."""

    values: np.ndarray
    correlation: float

    @classmethod
    def of(cls, data: np.ndarray, air: np.ndarray, rng: np.random.Generator) -> Background:
        """From the voxels of ``data`` (X, Y, Z) in ``air`` (True = surely air); zeros if there are too few."""
        values = data[air]
        if values.size < LEAST_SAMPLES:
            return cls(np.zeros(1, np.float32), 0.0)
        correlation = neighbour_correlation(data, air)
        return cls(np.sort(rng.choice(values, min(values.size, 100_000), replace=False)), correlation)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Air of the same histogram and about the same smoothness, (X, Y, Z) float32."""
        if self.values[0] == self.values[-1]:
            return np.full(shape, self.values[0], np.float32)
        field = correlated_noise(shape, self.correlation, rng)
        rank = np.minimum((ndtr(field) * self.values.size).astype(np.int64), self.values.size - 1)
        return self.values[rank].astype(np.float32)


def correlated_noise(shape: tuple[int, ...], correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit variance whose neighbours correlate by ``correlation``, float32."""
    field = rng.standard_normal(shape, dtype=np.float32)
    if correlation > 0.02:
        # white noise smoothed by a Gaussian of width s correlates between neighbours by exp(-1 / (4 s^2))
        field = gaussian_filter(field, np.sqrt(-1 / (4 * np.log(correlation))), truncate=4, mode="wrap")
        field /= field.std()
    return field
