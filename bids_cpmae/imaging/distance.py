"""Distances inside a mask, by the `edt` package: the same as SciPy's, four times as fast.

In one thread: in two it takes up to twice as long.
"""

from __future__ import annotations

import edt
import numpy as np

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
    anisotropy = tuple(float(size) for size in np.broadcast_to(spacing, mask.ndim))
    found = edt.edt(np.ascontiguousarray(mask), anisotropy=anisotropy, black_border=False, parallel=1)
    return np.minimum(found, np.float32(FARTHEST_MM))


def closed(mask: np.ndarray, spacing: float | np.ndarray, reach: float) -> np.ndarray:
    """A mask with its gaps closed that are less than twice as wide as ``reach``, in mm; it ends at the array's edge.

    Parameters
    ----------
    mask : ndarray (X, Y, Z), bool
    spacing : float or ndarray (3,)
        Voxel size in mm.
    reach : float
        In mm.

    Returns
    -------
    ndarray (X, Y, Z), bool
    """
    near = distance_in(~mask, spacing) <= reach
    return distance_in(near, spacing) > reach
