"""Smooth fields known in one place and carried to another: worked out on coarse blocks, enlarged at the end."""

from __future__ import annotations

import numpy as np

from bids_cpmae.imaging.filters import gaussian

# so many voxels wide, a Gaussian leaves next to nothing that pairs of voxels do not tell
SMOOTH = 5.0


def block_size(size_mm: float, spacing: np.ndarray) -> np.ndarray:
    """Voxels (3,) along each axis of a block of about ``size_mm``; at least 1."""
    return np.maximum(1, np.rint(size_mm / np.asarray(spacing))).astype(int)


def blocks(volume: np.ndarray, block: np.ndarray, reduce: str = "mean") -> np.ndarray:
    """A floating volume (X, Y, Z) reduced block by block: ``mean``, ``sum`` or ``max``, with zeros at its ends."""
    if np.any(volume.shape % block):
        volume = np.pad(volume, [(0, int(-n % b)) for n, b in zip(volume.shape, block)])
    combine = {"mean": np.add, "sum": np.add, "max": np.maximum}[reduce]
    # axis by axis, which NumPy does several times as fast as all at once
    for axis, size in enumerate(block):
        first, *others = (volume[(slice(None),) * axis + (slice(start, None, size),)] for start in range(size))
        volume = first.copy() if others else first
        for part in others:
            combine(volume, part, out=volume)
    return volume / np.float32(np.prod(block)) if reduce == "mean" else volume


def enlarge(coarse: np.ndarray, block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Block values interpolated linearly to the voxels of a volume of ``shape``, float32."""
    fine = np.asarray(coarse, np.float32)
    for axis, step in enumerate(block):
        fine = _enlarged(fine, axis, int(step)) if step > 1 else fine
    return np.ascontiguousarray(fine[tuple(slice(n) for n in shape)])


def _enlarged(coarse: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Block values interpolated along one axis, to ``step`` times as many, and constant beyond the middle of the last.

    Every ``step``-th voxel lies equally far from the middles of the blocks around it, and all such are worked out at
    once.
    """
    sides = list(coarse.shape)
    sides[axis] *= step
    fine = np.empty(sides, np.float32)
    values, into = np.moveaxis(coarse, axis, 0), np.moveaxis(fine, axis, 0)
    rise = np.diff(values, axis=0)
    for first in range(step):
        at, part = (first + 0.5) / step - 0.5, into[first::step]
        between, end, nearest = (part[1:], part[:1], values[:1]) if at < 0 else (part[:-1], part[-1:], values[-1:])
        np.multiply(rise, np.float32(at % 1), out=between)
        between += values[:-1]
        end[:] = nearest
    return fine


def spread(amount: np.ndarray, weight: np.ndarray, spacing: np.ndarray, scales: dict[float, float]):
    """Sums of an amount and of its weight over Gaussian neighbourhoods of several widths.

    Their ratio is the weighted mean of what is near; far from any weight the wider neighbourhoods take over.

    Parameters
    ----------
    amount, weight : ndarray (X, Y, Z)
        What is known times how surely, and how surely.
    spacing : ndarray (3,)
        Grid spacing in mm.
    scales : dict of float to float
        Standard deviation in mm, and the share it counts with.

    Returns
    -------
    amount, weight : ndarray (X, Y, Z)
    """
    totals = [np.zeros(amount.shape, np.float32), np.zeros(amount.shape, np.float32)]
    for sigma, share in scales.items():
        for total, part in zip(totals, (amount, weight)):
            total += share * _smoothed(part, sigma / spacing)
    return totals


def _smoothed(part: np.ndarray, width: np.ndarray) -> np.ndarray:
    """A volume (X, Y, Z) after a Gaussian, widths (3,) in voxels; what gets smooth enough is worked out on pairs."""
    pairs = np.where(width > SMOOTH, 2, 1)
    # beyond the border nothing is known, and it must weigh nothing
    found = gaussian(blocks(part, pairs), width / pairs, mode="constant")
    return enlarge(found, pairs, part.shape)


def carry(
    amount: np.ndarray,
    weight: np.ndarray,
    spacing: np.ndarray,
    *,
    scales: dict[float, float],
    block_mm: float,
    prior: float,
    prior_weight: float = 1e-6,
) -> np.ndarray:
    """The local ratio of an amount to its weight as a smooth field over the whole grid.

    Parameters
    ----------
    amount, weight : ndarray (X, Y, Z), float32
        Their ratio is wanted; both are 0 where nothing is known.
    spacing : ndarray (3,)
        Voxel size in mm.
    scales : dict of float to float
        As in `spread`.
    block_mm : float
        Size of the blocks it is worked out on.
    prior, prior_weight : float
        What the field tends to far from anything known, and how soon.

    Returns
    -------
    ndarray (X, Y, Z), float32
    """
    block, shape = block_size(block_mm, spacing), amount.shape
    amount, weight = spread(blocks(amount, block), blocks(weight, block), spacing * block, scales)
    return enlarge((amount + prior * prior_weight) / (weight + prior_weight), block, shape)
