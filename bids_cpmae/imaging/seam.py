"""How visible the border of a replaced region is: intensity steps across it and the noise on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_cpmae.imaging.distance import distance_across, distance_in
from bids_cpmae.imaging.filters import gaussian
from bids_cpmae.imaging.morphology import grown, shrunk
from bids_cpmae.imaging.noise import neighbours

SIDE_MM = 2.0
NOISE_MM = 2.0
LEAST_WEIGHT = 1e-3
ROBUST_SIGMA = 1.4826


def border_step(data: np.ndarray, mask: np.ndarray, spacing: np.ndarray, *, within: np.ndarray | None = None) -> float:
    """Step of intensity across a mask's border, in units of the scan's own gradient there.

    At every border voxel the mean of the 2 mm inside and that of the 2 mm outside are compared. Their mean absolute
    difference is divided by the mean gradient of the 4 mm outside, times 2 mm. What lies inside does not enter the
    unit, so the measures of a refaced and of the untouched scan divide to the ratio of their steps.

    Parameters
    ----------
    data : ndarray (X, Y, Z)
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    spacing : ndarray (3,)
        Voxel size in mm.
    within : ndarray (X, Y, Z), bool, optional
        Which border voxels count, for example those of tissue; all if not given.

    Returns
    -------
    float
        NaN where there is no border, or nothing but flat ground outside it.
    """
    return border_steps([data], mask, spacing, within=within)[0]


def border_steps(
    volumes: list[np.ndarray], mask: np.ndarray, spacing: np.ndarray, *, within: np.ndarray | None = None
) -> list[float]:
    """`border_step` of several volumes (X, Y, Z) across one border, whose surroundings are worked out once."""
    spacing = np.asarray(spacing, float)
    # a side is at least one voxel deep, however thick the slices
    deep = max(SIDE_MM, spacing.min()) + 1e-3
    box = box_around(mask, 2 * deep, spacing)
    mask = mask[box]
    border = mask & grown(~mask)
    if within is not None:
        border &= within[box]
    if not border.any() or mask.all():
        return [float("nan")] * len(volumes)
    away = distance_across(mask, spacing)
    sides = [_Side.of(side & (away <= deep), border, spacing) for side in (mask, ~mask)]
    around = shrunk(~mask, beyond=True) & (away <= 2 * deep)
    near = around & (distance_in(~border, spacing) <= 3 * SIDE_MM)
    pairs = [np.nonzero(neighbours(around, axis)[0] & neighbours(near, axis)[1]) for axis in range(3)]
    return [_step(np.asarray(data[box], np.float32), sides, pairs, spacing) for data in volumes]


@dataclass(frozen=True)
class _Side:
    """What lies on one side of a border: True ``where`` (X, Y, Z), and how much of it is near each ``border`` voxel."""

    where: np.ndarray
    border: np.ndarray
    width: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, where: np.ndarray, border: np.ndarray, spacing: np.ndarray) -> _Side:
        width = SIDE_MM / spacing
        return cls(where, border, width, gaussian(where.astype(np.float32), width, truncate=2)[border])

    def mean(self, data: np.ndarray) -> np.ndarray:
        """Mean of the side around every border voxel; NaN where it is not near."""
        total = gaussian(np.where(self.where, data, 0), self.width, truncate=2)[self.border]
        return np.where(self.weight > LEAST_WEIGHT, total / np.maximum(self.weight, LEAST_WEIGHT), np.nan)


def _step(data: np.ndarray, sides: list[_Side], pairs: list[tuple], spacing: np.ndarray) -> float:
    inner, outer = (side.mean(data) for side in sides)
    both = np.isfinite(inner) & np.isfinite(outer)
    if not both.any():
        return float("nan")
    step = float(np.abs(inner - outer)[both].mean())
    unit = _gradient(data, pairs, spacing)
    return step / (unit * SIDE_MM) if unit > 0 else float("nan")


def _gradient(data: np.ndarray, pairs: list[tuple], spacing: np.ndarray) -> float:
    """Mean size of the gradient per mm between the neighbours, along each axis, whose first indices are given."""
    parts = []
    for axis, first in enumerate(pairs):
        before, after = (values[first] for values in neighbours(data, axis))
        parts.append(np.mean((before - after) ** 2) / spacing[axis] ** 2 if first[0].size else 0.0)
    return float(np.sqrt(np.sum(parts)))


def box_around(mask: np.ndarray, margin: float, spacing: float | np.ndarray) -> tuple[slice, ...]:
    """The smallest box of voxels that holds a mask and ``margin`` mm around it; all where the mask is empty."""
    spacing, box = np.broadcast_to(spacing, mask.ndim), []
    for axis, size in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        pad = int(np.ceil(margin / spacing[axis])) + 1
        box.append(slice(max(0, hit[0] - pad), min(size, hit[-1] + 1 + pad)) if hit.size else slice(0, size))
    return tuple(box)


def noise_level(data: np.ndarray, where: np.ndarray, spacing: np.ndarray, *, robust: bool = False) -> float:
    """Standard deviation of what a Gaussian of 2 mm takes away, within a region.

    Parameters
    ----------
    data : ndarray (X, Y, Z)
    where : ndarray (X, Y, Z), bool
        Region to measure in, for example air or a muscle; averaging does not reach beyond it.
    spacing : ndarray (3,)
        Voxel size in mm.
    robust : bool
        From the median absolute deviation, so that edges in tissue hardly count.

    Returns
    -------
    float
        In the data's units; NaN in an empty region.
    """
    return noise_levels([data], where, spacing, robust=robust)[0]


def noise_levels(
    volumes: list[np.ndarray], where: np.ndarray, spacing: np.ndarray, *, robust: bool = False
) -> list[float]:  # fmt: skip
    """`noise_level` of several volumes (X, Y, Z) in one region, whose surroundings are worked out once."""
    box = box_around(where, 3 * NOISE_MM, np.asarray(spacing, float))
    where = where[box]
    if not where.any():
        return [float("nan")] * len(volumes)
    width = np.maximum(NOISE_MM, 1.5 * np.asarray(spacing)) / spacing
    weight = np.maximum(gaussian(where.astype(np.float32), width)[where], LEAST_WEIGHT)
    levels = []
    for data in volumes:
        data = np.asarray(data[box], np.float32)
        rest = data[where] - gaussian(np.where(where, data, 0), width)[where] / weight
        spread = ROBUST_SIGMA * np.median(np.abs(rest - np.median(rest))) if robust else rest.std()
        levels.append(float(spread))
    return levels
