"""The new face kept within the scan's field of view: a nose that would be cut off by its front end is set back."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from bids_cpmae.imaging.fields import enlarge
from bids_cpmae.imaging.filters import smooth_step
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, head_affine
from bids_cpmae.imaging.resample import resample, sample_points

# of a new head, the brain's level at one half
TISSUE = 0.15
# skin comes to lie this far behind the end of the view; what lies so far behind it stays; what stands out by more than
# this, or by less, is left
CLEAR_MM, REACH_MM, MOST_MM, LEAST_MM = 3.0, 35.0, 14.0, 0.5
# columns that are looked along, and how widely what sets one back counts for those beside it
COLUMN_MM, AROUND_MM, SMOOTH_MM = 2, 8.0, 5.0
# of the view's end against head space
LEAST_SLOPE = 0.5


def before_the_end(to_scan: CoordinateMap, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """How far in mm each point of a map lies beyond the front end of a field of view; negative within.

    Parameters
    ----------
    to_scan : CoordinateMap
        From head space to the scan's world.
    affine, shape
        The scan's grid, of any orientation.

    Returns
    -------
    ndarray (X, Y, Z), float32
        On the map's grid.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axis = int(np.abs(affine[1, :3] / spacing).argmax())
    index = apply_affine(np.linalg.inv(affine), to_scan.points)[..., axis]
    beyond = index - (shape[axis] - 0.5) if affine[1, axis] > 0 else -0.5 - index
    return (beyond * spacing[axis]).astype(np.float32)


def into_view(head: np.ndarray, beyond: np.ndarray | None) -> np.ndarray:
    """A new head that ends before the scan does, pressed together from the front where it would not.

    Parameters
    ----------
    head : ndarray (256, 256, 256), float32
        In head space, 0 to 1.
    beyond : ndarray (N, N, N) or None
        `before_the_end` on a grid of head space; all is in view if not given.

    Returns
    -------
    ndarray (256, 256, 256), float32
        The very same where nothing stands out, or more than `MOST_MM`, which would leave no nose.
    """
    first = None if beyond is None else np.flatnonzero((beyond > -REACH_MM).any((0, 2)))
    if first is None or not first.size or beyond.max() <= -CLEAR_MM:
        return head
    spacing = len(head) // len(beyond)
    start = max(0, (first[0] - 1) * spacing)

    def far(box: tuple[slice, ...], step: tuple[int, int, int]) -> np.ndarray:
        grid = head_affine() @ np.diag([*step, 1.0])
        grid[:3, 3] = apply_affine(head_affine(), np.array([side.start for side in box], float))
        shape = tuple(len(range(*side.indices(len(head)))) for side in box)
        return resample(beyond, head_affine(spacing), grid, shape, outside="edge")

    # along columns to the front, 2 mm apart
    columns = (slice(0, None, COLUMN_MM), slice(start, None), slice(0, None, COLUMN_MM))
    place = far(columns, (COLUMN_MM, 1, COLUMN_MM))
    out = np.where(head[columns] > TISSUE, place + CLEAR_MM, 0).max(1)
    if not LEAST_MM < out.max() <= MOST_MM + CLEAR_MM:
        return head
    slope = np.maximum((place[:, -1] - place[:, 0]) / (place.shape[1] - 1), LEAST_SLOPE)
    wide = maximum_filter(out / slope, round(2 * AROUND_MM / COLUMN_MM) + 1)
    back = gaussian_filter(wide, SMOOTH_MM / COLUMN_MM, mode="constant")
    back = enlarge(back[:, None], np.array([COLUMN_MM, 1, COLUMN_MM]), (len(head), 1, len(head)))[:, 0]
    sides = [slice(hit.min(), hit.max() + 1) for hit in np.nonzero(back > 0)]
    box = (sides[0], slice(start, len(head)), sides[1])
    shift = back[sides[0], None, sides[1]] * smooth_step(far(box, (1, 1, 1)), -REACH_MM, -CLEAR_MM)
    index = np.moveaxis(np.indices(shift.shape, dtype=np.float32), 0, -1) + np.float32([side.start for side in box])
    index[..., 1] += shift
    moved = head.copy()
    moved[box] = np.where(shift > 0, sample_points(head[None], index)[..., 0], head[box])
    return moved
