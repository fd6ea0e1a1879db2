"""How far the new skin lies from the old, and whether the shape of a face alone gives its owner away.

Regions are told in head space, on the template's face, and carried to a scan by registration. For identification every
head is brought to one frame by its brain alone, size kept, as one would who holds another scan of the person.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.linalg import polar

from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.facemask import coarse_scan
from bids_cpmae.imaging.headspace import apply_affine, covering_grid
from bids_cpmae.imaging.registration import Fixed, register, scratch_folder
from bids_cpmae.imaging.rendering import GRID_MM, Surface, first_hit
from bids_cpmae.imaging.resample import sample_points
from bids_cpmae.imaging.skin import NOT_FACE, REGIONS

DEPTH_MM = 2.0
# head-space boxes in mm that a face is looked at through: right, front and left side, first hit along the second axis
FACE_BOX = ((-80.0, 80.0), (-40.0, 120.0), (-140.0, 0.0))
FAR_MM = 15.0
TEMPLATE_SKIN = 0.15


def skin_of(surface: Surface) -> np.ndarray:
    """The outermost voxels (X, Y, Z), bool, of a head: those that touch the air outside it."""
    inside = np.pad(surface.field >= 1, 1)
    labels, _ = ndimage.label(~inside)
    skin = inside & ndimage.binary_dilation(labels == labels[0, 0, 0])
    return skin[1:-1, 1:-1, 1:-1]


def skin_distances(original: Surface, version: Surface, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each skin point of the original is from a version's skin, and each of the version's from the original's.

    Parameters
    ----------
    original, version : Surface
        Drawn from scans on one grid.
    where : ndarray (X, Y, Z), bool
        On the surfaces' grid, True where skin counts.

    Returns
    -------
    index : ndarray (N, 3)
        Voxels of the skin, the original's first.
    distances : ndarray (N,)
        In mm; `FAR_MM` at most, so that a hole counts as one and not for what lies at its bottom.
    """
    skins = skin_of(original), skin_of(version)
    ways = [_one_way(skins[0] & where, skins[1]), _one_way(skins[1] & where, skins[0])]
    return tuple(np.concatenate(parts) for parts in zip(*ways, strict=True))


def _one_way(start: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    index = np.argwhere(start)
    if not index.size:
        return index, np.zeros(0)
    # skin further away than counts need not be looked at
    reach = int(np.ceil(FAR_MM / GRID_MM)) + 1
    low, high = np.maximum(index.min(0) - reach, 0), index.max(0) + reach + 1
    near = target[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if not near.any():
        return index, np.full(len(index), FAR_MM)
    away = ndimage.distance_transform_edt(~near, sampling=GRID_MM)
    return index, np.minimum(away[tuple((index - low).T)], FAR_MM)


def by_region(distances: np.ndarray, regions: np.ndarray) -> dict[str, float]:
    """Mean distance in mm over the whole ``face`` (without ears and neck) and in each region that has skin."""
    face = ~np.isin(regions, [REGIONS.index(name) for name in NOT_FACE])
    found = {"face": float(distances[face].mean())} if face.any() else {}
    for number, name in enumerate(REGIONS):
        here = regions == number
        if here.any():
            found[name] = float(distances[here].mean())
    return found


def rigid_on_brain(data: np.ndarray, affine: np.ndarray, *, scaled: bool = False) -> np.ndarray:
    """The rigid part (4, 4) of the affine that brings head space onto a scan, fitted on the brain alone.

    Rotation and place come from the brain; size is kept, for it tells people apart. With ``scaled`` the one factor of
    size that fits best is taken in, so that heads compare as if all brains were equally large.
    """
    from bids_cpmae.imaging.template import BRAIN_BIT, load_template

    template = load_template()
    brain = ndimage.binary_dilation(template.mask(BRAIN_BIT), iterations=2)
    scan = coarse_scan(data, affine)
    with scratch_folder() as folder:
        found = register(Fixed.of(template.grid, mask=brain), scan, folder=Path(folder), deformable=False)
        made = found.fixed_to_moving(*covering_grid(template.grid.affine, brain.shape, 32.0))
    points = apply_affine(made.affine, np.moveaxis(np.indices(made.points.shape[:3]), 0, -1)).reshape(-1, 3)
    design = np.column_stack([points, np.ones(len(points))])
    linear = np.linalg.lstsq(design, made.points.reshape(-1, 3).astype(float), rcond=None)[0]
    turn, stretch = polar(linear[:3].T)
    if scaled:
        turn = turn * float(np.cbrt(np.linalg.det(stretch)))
    centre = apply_affine(template.grid.affine, np.argwhere(brain).mean(0))
    rigid = np.eye(4)
    rigid[:3, :3] = turn
    rigid[:3, 3] = centre @ linear[:3] + linear[3] - turn @ centre
    return rigid


def depth_maps(surface: Surface, to_scan: np.ndarray) -> np.ndarray:
    """First hits of rays from the right, the front and the left, (3, U, V), in mm; NaN where nothing is met.

    ``to_scan`` (4, 4) leads from head space to the surface's world.
    """
    low, high = np.array(FACE_BOX).T
    counts = ((high - low) / DEPTH_MM).astype(int)
    to_index = np.linalg.inv(surface.affine) @ to_scan
    at = [low[axis] + DEPTH_MM * (np.arange(counts[axis]) + 0.5) for axis in range(3)]
    points = np.stack(np.meshgrid(*at, indexing="ij"), -1)
    field = sample_points(surface.field[None], apply_affine(to_index, points))[..., 0]
    seen = (np.swapaxes(field, 0, 1)[:, ::-1], field[:, ::-1], np.swapaxes(field, 0, 1))
    return np.stack([DEPTH_MM * first_hit(np.ascontiguousarray(view)) for view in seen])


@lru_cache(maxsize=1)
def _template_pixels() -> tuple[np.ndarray, np.ndarray]:
    """Pixels of `depth_maps` (3, U, V), bool, in which the template shows skin that face mode replaces, and keeps."""
    from bids_cpmae.imaging.template import load_template

    template = load_template()
    tissue = Surface(template.grid.data / TEMPLATE_SKIN, template.grid.affine)
    replaced, everything = (depth_maps(Surface(np.where(part, tissue.field, 0), tissue.affine), np.eye(4))
                            for part in (template.replaced(), np.ones(tissue.field.shape, bool)))  # fmt: skip
    face = np.isfinite(replaced) & (replaced <= everything + 2 * DEPTH_MM)
    return face, np.isfinite(everything) & ~face


def face_pixels(beyond_mm: float = 0.0) -> np.ndarray:
    """Pixels of `depth_maps` (3, U, V), bool, in which the template shows skin that face mode replaces.

    With ``beyond_mm``, only those that lie so far from skin that is kept, as it is seen.
    """
    face, kept = _template_pixels()
    return face & (np.stack([distance_in(~side, DEPTH_MM) for side in kept]) > beyond_mm)


def depth_distance(a: np.ndarray, b: np.ndarray, where: np.ndarray | None = None) -> float:
    """Mean difference in mm of two heads' depth maps where both have skin, no pixel counting more than `FAR_MM`.

    Parameters
    ----------
    a, b : ndarray (3, U, V)
        Of `depth_maps`.
    where : ndarray (3, U, V), bool, optional
        Pixels that count; all if not given.

    Raises
    ------
    ValueError
        When they share no pixel.
    """
    both = np.isfinite(a) & np.isfinite(b)
    if where is not None:
        both &= where
    if not both.any():
        raise ValueError("the two heads share no skin to compare")
    return float(np.minimum(np.abs(a - b)[both], FAR_MM).mean())
