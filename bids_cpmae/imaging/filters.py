"""SciPy's Gaussian filter in several threads, and a step without corners."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from bids_cpmae.imaging.threads import threads

# smaller volumes are not worth a second thread
LEAST_VOXELS = 200_000


def gaussian(
    volume: np.ndarray, sigma: float | np.ndarray, *, mode: str = "reflect", truncate: float = 3.0
) -> np.ndarray:  # fmt: skip
    """What `scipy.ndimage.gaussian_filter` yields, bit by bit, however many threads there are.

    Parameters
    ----------
    volume : ndarray (X, Y, Z), floating
    sigma : float or ndarray (3,)
        Standard deviation in voxels, for all axes or for each.
    mode : str
        What lies beyond the border, as SciPy names it.
    truncate : float
        Where the Gaussian ends, in standard deviations.

    Returns
    -------
    ndarray (X, Y, Z)
        Of the volume's type.
    """
    count = threads()
    if count == 1 or volume.size < LEAST_VOXELS or not np.any(sigma):
        return gaussian_filter(volume, sigma, mode=mode, truncate=truncate)
    with ThreadPoolExecutor(count) as pool:
        for axis, width in enumerate(np.broadcast_to(sigma, volume.ndim)):
            if width == 0:
                continue
            # in slabs across another axis, each row whole
            other = 1 if axis == 0 else 0
            filtered = np.empty(volume.shape, volume.dtype)
            slabs = zip(np.array_split(volume, count, other), np.array_split(filtered, count, other))
            jobs = [
                pool.submit(gaussian_filter1d, slab, width, axis, output=into, mode=mode, truncate=truncate)
                for slab, into in slabs
            ]
            for job in jobs:
                job.result()
            volume = filtered
    return volume


def smooth_step(values: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)
