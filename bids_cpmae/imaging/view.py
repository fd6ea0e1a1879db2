"""The new face kept within the scan's field of view: a nose that would be cut off by its front end is set back."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter

from bids_cpmae.imaging.filters import smooth_step
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, grid_points, head_affine
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.resample import sample_points

# of a new head with the brain's level at one half
TISSUE = 0.15
# skin comes to lie this far behind the end of the view; what lies so far further back stays; what stands out by more
# than this, or by less, is left
CLEAR_MM, REACH_MM, MOST_MM, LEAST_MM = 3.0, 35.0, 14.0, 0.5
# columns that are looked along, and how widely what sets one back counts for those beside it
COLUMN_MM, AROUND_MM, SMOOTH_MM = 2.0, 8.0, 5.0


def into_view(head: np.ndarray, to_head: CoordinateMap, source: SourceImage, mask: np.ndarray) -> CoordinateMap:
    """A map by which a new head ends before the scan does, pressed together from the front where it would not.

    Parameters
    ----------
    head : ndarray (256, 256, 256), float32
        The new head in head space, 0 to 1.
    to_head : CoordinateMap
        From the scan's world to head space.
    source : SourceImage
        Its grid alone counts.
    mask : ndarray (X, Y, Z), bool
        True = replaced.

    Returns
    -------
    CoordinateMap
        On the same grid; the very same where nothing stands out, or so much that half a face is out of view.
    """
    axis = int(np.abs(source.affine[1, :3] / source.spacing).argmax())
    ahead = np.sign(source.affine[1, axis])
    last = mask.shape[axis] - 1 if ahead > 0 else 0
    face = np.take(mask, last, axis)
    if not face.any():
        return to_head
    # columns through the replaced part of the front end, as voxel indices there; how far before that end, in mm
    others = [other for other in range(3) if other != axis]
    low, high = (end(np.nonzero(face), axis=1) for end in (np.min, np.max))
    steps = COLUMN_MM / source.spacing[others]
    places = np.meshgrid(*map(np.arange, low, high + 1, steps), indexing="ij")
    before = np.arange(-CLEAR_MM, MOST_MM + 1)
    index = np.empty((*places[0].shape, before.size, 3))
    for other, place in zip(others, places):
        index[..., other] = place[..., None]
    index[..., axis] = last + ahead * (before / source.spacing[axis] + 0.5)
    where = apply_affine(np.linalg.inv(head_affine()), to_head(apply_affine(source.affine, index)))
    tissue = sample_points(head[None], where)[..., 0] > TISSUE
    tissue &= face[tuple(np.rint(place).astype(int).clip(0, n - 1) for place, n in zip(places, face.shape))][..., None]
    stands_out = np.where(tissue, before + CLEAR_MM + 1, 0).max(-1)
    if not LEAST_MM < stands_out.max() <= MOST_MM:
        return to_head
    wide = maximum_filter(stands_out, round(2 * AROUND_MM / COLUMN_MM) + 1)
    back = gaussian_filter(wide, SMOOTH_MM / COLUMN_MM, mode="constant")

    points = grid_points(to_head.affine, to_head.points.shape[:3])
    index = apply_affine(np.linalg.inv(source.affine), points)
    there = [(index[..., other] - first) / step for other, first, step in zip(others, low, steps)]
    depth = ahead * (index[..., axis] - last) * source.spacing[axis] - source.spacing[axis] / 2
    shift = map_coordinates(back, there, order=1, mode="constant") * smooth_step(depth, -REACH_MM, -CLEAR_MM)
    moved = shift > 0
    forward = ahead * source.affine[:3, axis] / source.spacing[axis]
    found = to_head.points.copy()
    found[moved] = to_head(points[moved] + shift[moved, None] * forward)
    return CoordinateMap(to_head.affine, found)
