"""Distances inside a mask, by the `edt` package: the same as SciPy's, four times as fast.

In one thread: in two it takes up to twice as long.
"""

from __future__ import annotations

import edt
import numpy as np

from bids_cpmae.imaging.noise import neighbours

FARTHEST_MM = 1e4


def distance_in(mask: np.ndarray, spacing: float | np.ndarray = 1.0) -> np.ndarray:
    """Distance from every voxel of a mask to the nearest one that is not of it.

    Parameters
    ----------
    mask : ndarray (X, Y, Z), bool
    spacing : float or ndarray (3,)
        Voxel size in mm.

    Returns
    -------
    ndarray (X, Y, Z), float32
        In mm; 0 where ``mask`` is False, and `FARTHEST_MM` where there is no such voxel.
    """
    return _distance(mask, spacing)


def distance_across(mask: np.ndarray, spacing: float | np.ndarray = 1.0) -> np.ndarray:
    """Distance from every voxel, of a mask or not, to the nearest on the other side.

    As `distance_in` of both sides, in half the time.

    Parameters
    ----------
    mask : ndarray (X, Y, Z), bool
    spacing : float or ndarray (3,)
        Voxel size in mm.

    Returns
    -------
    ndarray (X, Y, Z), float32
        In mm; `FARTHEST_MM` where there is no other side.
    """
    # edt parts labels from each other as it parts them from 0
    return _distance(np.where(mask, np.uint8(1), np.uint8(2)), spacing)


def _distance(labels: np.ndarray, spacing: float | np.ndarray) -> np.ndarray:
    anisotropy = tuple(float(size) for size in np.broadcast_to(spacing, labels.ndim))
    found = edt.edt(np.ascontiguousarray(labels), anisotropy=anisotropy, black_border=False, parallel=1)
    return np.minimum(found, np.float32(FARTHEST_MM))


def squares_to(mask: np.ndarray, most: int) -> np.ndarray:
    """Squared distance in voxels from every voxel to a mask (X, Y, Z), ``most`` squared at most, uint8.

    Squares add up axis by axis, and up to 11 a byte holds the sum of two: several times as fast as `distance_in`.
    """
    squares = np.where(mask, np.uint8(0), np.uint8(most**2))
    for axis in range(mask.ndim):
        nearest = squares.copy()
        for step in range(1, most):
            (first, second), (near, far) = (neighbours(values, axis, step) for values in (nearest, squares))
            np.minimum(first, far + np.uint8(step**2), out=first)
            np.minimum(second, near + np.uint8(step**2), out=second)
        squares = nearest
    return squares


def closed(mask: np.ndarray, reach: float) -> np.ndarray:
    """A mask with its gaps closed that are less than twice as wide as ``reach``; it ends at the array's edge.

    Parameters
    ----------
    mask : ndarray (X, Y, Z), bool
    reach : float
        In voxels, less than 10.

    Returns
    -------
    ndarray (X, Y, Z), bool
    """
    most = int(reach) + 1
    near = squares_to(mask, most) <= reach**2
    return squares_to(~near, most) > reach**2
