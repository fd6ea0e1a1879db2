"""Smooth fields known in one place and carried to another: worked out on coarse blocks, enlarged at the end."""

from __future__ import annotations

import numpy as np

from bids_cpmae.imaging.filters import gaussian


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
    for axis, (size, step, n) in enumerate(zip(coarse.shape, block, shape)):
        if step == 1:
            continue
        at = np.clip((np.arange(n) + 0.5) / step - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        below, above = (np.take(coarse, index, axis) for index in (low, np.minimum(low + 1, size - 1)))
        coarse = below + share * (above - below)
    return np.ascontiguousarray(coarse, np.float32)


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
            # beyond the border nothing is known, and it must weigh nothing
            total += share * gaussian(part, sigma / spacing, mode="constant")
    return totals


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
