"""How visible the border of a replaced region is: intensity steps across it and the noise on both sides."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.filters import gaussian
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
    spacing = np.asarray(spacing, float)
    box = _box(mask, 4 * SIDE_MM, spacing)
    data, mask = np.asarray(data[box], np.float32), mask[box]
    border = mask & binary_dilation(~mask)
    if within is not None:
        border &= within[box]
    if not border.any() or mask.all():
        return float("nan")
    depth = distance_in(mask, spacing)
    height = distance_in(~mask, spacing)
    # a side is at least one voxel deep, however thick the slices
    deep = max(SIDE_MM, spacing.min()) + 1e-3
    inner = _local_mean(data, mask & (depth <= deep), border, spacing)
    outer = _local_mean(data, ~mask & (height <= deep), border, spacing)
    both = np.isfinite(inner) & np.isfinite(outer)
    if not both.any():
        return float("nan")
    step = float(np.abs(inner - outer)[both].mean())
    unit = _gradient(data, binary_erosion(~mask, border_value=1) & (height <= 2 * deep), border, spacing)
    return step / (unit * SIDE_MM) if unit > 0 else float("nan")


def _local_mean(data: np.ndarray, side: np.ndarray, border: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Mean of one side around every border voxel; NaN where that side is not near."""
    width = SIDE_MM / spacing
    weight = gaussian(side.astype(np.float32), width, truncate=2)[border]
    total = gaussian(np.where(side, data, 0), width, truncate=2)[border]
    return np.where(weight > LEAST_WEIGHT, total / np.maximum(weight, LEAST_WEIGHT), np.nan)


def _gradient(data: np.ndarray, where: np.ndarray, border: np.ndarray, spacing: np.ndarray) -> float:
    """Mean size of the gradient per mm in ``where``, near the border voxels that count."""
    near = where & (distance_in(~border, spacing) <= 3 * SIDE_MM)
    parts = []
    for axis in range(3):
        pairs = neighbours(where, axis)[0] & neighbours(near, axis)[1]
        steps = np.subtract(*neighbours(data, axis))[pairs]
        parts.append(np.mean(steps**2) / spacing[axis] ** 2 if pairs.any() else 0.0)
    return float(np.sqrt(np.sum(parts)))


def _box(mask: np.ndarray, margin: float, spacing: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis, size in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        pad = int(np.ceil(margin / spacing[axis])) + 1
        box.append(slice(max(0, hit[0] - pad), hit[-1] + 1 + pad) if hit.size else slice(0, size))
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
    box = _box(where, 3 * NOISE_MM, np.asarray(spacing, float))
    data, where = np.asarray(data[box], np.float32), where[box]
    if not where.any():
        return float("nan")
    width = np.maximum(NOISE_MM, 1.5 * np.asarray(spacing)) / spacing
    weight = gaussian(where.astype(np.float32), width)
    mean = gaussian(np.where(where, data, 0), width) / np.maximum(weight, LEAST_WEIGHT)
    rest = (data - mean)[where]
    if robust:
        return float(ROBUST_SIGMA * np.median(np.abs(rest - np.median(rest))))
    return float(rest.std())
