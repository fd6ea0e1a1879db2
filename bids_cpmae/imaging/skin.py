"""The skin of a head and the parts of its face: what parts tissue from air, and which part a point belongs to."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

REGIONS = ("nose", "eyes", "lips", "chin", "cheeks", "forehead", "ears", "neck")
NOT_FACE = ("ears", "neck")
THRESHOLD_SHARE = 0.4


def region_of(points: np.ndarray) -> np.ndarray:
    """Which part of the face a point in head space belongs to.

    Parameters
    ----------
    points : ndarray (..., 3)
        RAS+ mm from the anterior commissure. On the template the tip of the nose lies at (0, 92, -70), the eyes at
        (+-32, 62, -28), the mouth at (0, 70, -93), the chin at (0, 60, -120). Meant for skin that is replaced: all of
        it behind the face is ``ears``.

    Returns
    -------
    ndarray (...), int
        Index into `REGIONS`.
    """
    across, forward, up = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    return np.select(
        [
            forward < 5,
            up > -14,
            (across < np.where(up < -32, 20, 10)) & (up > -80) & (forward > 60),
            (across > 10) & (across < 55) & (up > -44) & (forward > 30),
            (across < 28) & (up > -106) & (up <= -80) & (forward > 45),
            (across < 30) & (up <= -106) & (up > -132) & (forward > 45),
            up < -126,
        ],
        [REGIONS.index(name) for name in ("ears", "forehead", "nose", "eyes", "lips", "chin", "neck")],
        REGIONS.index("cheeks"),
    )


def otsu_threshold(values: np.ndarray, *, bins: int = 256) -> float:
    """The value that best parts a sample in two classes; NaN if all are equal.

    Otsu 1979, doi:10.1109/TSMC.1979.4310076.
    """
    counts, edges = np.histogram(values, bins=bins)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(float)
    sums = np.cumsum(counts * middles)
    above = below[-1] - below
    parted = (below > 0) & (above > 0)
    if not parted.any():
        return float("nan")
    between = np.zeros(bins)
    between[parted] = (
        below * above * (sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)) ** 2
    )[parted]
    # every value in a gap between the classes is as good: take the gap's middle
    best = middles[between >= between.max() * (1 - 1e-9)]
    return float((best[0] + best[-1]) / 2)


def skin_level(data: np.ndarray) -> float:
    """Where air ends and tissue starts, in the scan's units; 0 where the two cannot be told apart.

    Bright fat and vessels would draw Otsu's threshold up and eat the thin lids, so they are clipped and a share counts.
    """
    level = THRESHOLD_SHARE * otsu_threshold(np.clip(data, 0, np.percentile(data, 98)))
    return level if level > 0 else 0.0


def air_around(solid: np.ndarray) -> np.ndarray:
    """The air around a head (X, Y, Z), bool, of which ``solid`` (X, Y, Z; bool) is what shows as tissue.

    Skull is as dark as air, and thin walls part the two, or none where a field of view ends: only what has no tissue on
    some side can be air, and of that the largest part is.
    """
    enclosed = np.ones(solid.shape, bool)
    for axis in range(3):
        enclosed &= np.maximum.accumulate(solid, axis)
        enclosed &= np.flip(np.maximum.accumulate(np.flip(solid, axis), axis), axis)
    parts, _ = label(~solid & ~enclosed)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (parts == sizes.argmax()) & (parts > 0)
