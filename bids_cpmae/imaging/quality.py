"""How well a face was replaced, in numbers: measured on the private side, where the original still is.

The numbers go to the table of verdicts; no voxel does. All is cheap: skins are compared at 1.5 mm, the rest at 2 mm.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, label

from bids_cpmae.imaging.align import mask_box
from bids_cpmae.imaging.distance import distance_in, squares_to
from bids_cpmae.imaging.facemask import COARSE_MM, coarse_scan
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, corner_of, covering_grid
from bids_cpmae.imaging.landmarks import Landmarks, mask_coverage
from bids_cpmae.imaging.morphology import filled, grown, shrunk
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.registration import Grid
from bids_cpmae.imaging.resample import downsample, resample
from bids_cpmae.imaging.seam import border_steps, box_around, noise_levels
from bids_cpmae.imaging.skin import NOT_FACE, REGIONS, region_of, skin_level
from bids_cpmae.imaging.template import FACE_BIT, load_template

SKIN_MM, SMOOTH_MM, FAR_MM, CLOSING_MM, ROUGH_MM = 1.5, 0.8, 15.0, 6.0, 3.0
MARGIN_MM = 16.0
# how far a face is moved forwards and upwards, and back and down, to lay it on the template's
LAID_MM = (12.0, 9.0)
LEAST_SKIN = 50
NO_FACE = [REGIONS.index(name) for name in NOT_FACE]
RESIDUAL_REGIONS = tuple(name for name in REGIONS if name != "neck")
TEMPLATE_SKIN = 0.15
DETAIL_MM = 4.0
THIN_MM = 1.6
TISSUE = 0.3
# above this height in head space nothing bright lies deeper under the skin than this but brain
BRAIN_ABOVE_MM, BRAIN_DEEPER_MM = -10.0, 14.0
BRAIN_BRIGHT, INNERMOST_MM = (0.55, 1.8), 35.0
# head-space boxes in mm, |x|, y and z, that hold the ridge of the nose and the cheeks beside it
NOSE, CHEEKS = ((0, 10), (40, 130), (-80, -55)), ((26, 42), (20, 130), (-80, -55))


def measure_quality(
    source: SourceImage,
    stored: np.ndarray,
    mask: np.ndarray,
    *,
    to_head: CoordinateMap,
    regions: tuple[str, ...] = ("face", "ears"),
) -> dict[str, float]:
    """Hold a refaced scan against its original.

    Parameters
    ----------
    source : SourceImage
        The original.
    stored : ndarray
        The refaced scan's values as stored, of the source's shape and type.
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    to_head : CoordinateMap
        From the scan's world to head space.
    regions : tuple of {"face", "ears"}
        What was replaced; without ``face``, nothing is said of the face.

    Returns
    -------
    dict of str to float
        Named and explained in `bids_cpmae.bids.verdicts.MEASURES`; what cannot be told is left out.
    """
    new = _refaced(source, stored)
    scan = coarse_scan(source.data, source.affine)
    level = skin_level(scan.data)
    measures = grain(source, new, mask)
    if "face" in regions:
        measures["mask_coverage"] = mask_coverage(source, to_head, mask)
        measures.update(likeness(Landmarks.of(source, to_head, scan=scan, bits=FACE_BIT), new, level))
    if level > 0 and mask.any():
        measures["brain_overlap_ml"] = brain_overlap(source, scan, mask, level, to_head)
        measures.update(skin_measures(FaceGrid.of(source, mask, to_head), source, new, level))
    return {name: round(float(value), 4) for name, value in measures.items() if np.isfinite(value)}


def _refaced(source: SourceImage, stored: np.ndarray) -> SourceImage:
    return SourceImage(source.header, source.affine, stored.reshape(source.stored.shape), source.slope, source.inter)


@dataclass(frozen=True)
class FaceGrid:
    """A 1.5 mm RAS+ grid around the mask.

    Attributes
    ----------
    affine : ndarray (4, 4)
    box : tuple of slice
        The part of the scan that it covers.
    under : ndarray (X, Y, Z), bool
        True under the mask.
    template : ndarray (X, Y, Z), bool
        The template's head.
    to_head : CoordinateMap
        From the scan's world to head space.
    """

    affine: np.ndarray
    box: tuple[slice, ...]
    under: np.ndarray
    template: np.ndarray
    to_head: CoordinateMap

    @classmethod
    def of(cls, source: SourceImage, mask: np.ndarray, to_head: CoordinateMap) -> FaceGrid:
        """Around a mask (X, Y, Z) of a scan."""
        box = mask_box(mask, source.affine, MARGIN_MM)
        part, corner = mask[box], corner_of(source.affine, box)
        affine, shape = covering_grid(corner, part.shape, SKIN_MM)
        template = load_template().grid
        tissue = resample(template.data, template.affine, affine, shape, through=to_head) > TEMPLATE_SKIN
        under = resample(part, corner, affine, shape) > 0.5
        return cls(affine, box, under, _solid(tissue, SKIN_MM), to_head)

    def points(self, where: np.ndarray) -> np.ndarray:
        """Head-space coordinates (N, 3), RAS+ mm, of the voxels where a mask (X, Y, Z) is True."""
        return _points_of(self.affine, where, self.to_head)

    def head(self, image: SourceImage, level: float) -> np.ndarray:
        """The head (X, Y, Z), True inside."""
        scan = downsample(image.data[self.box], corner_of(image.affine, self.box), self.affine, self.under.shape)
        return _solid(gaussian_filter(scan, SMOOTH_MM / SKIN_MM) > level, SKIN_MM)


def _points_of(affine: np.ndarray, where: np.ndarray, to_head: CoordinateMap) -> np.ndarray:
    """Head-space coordinates (N, 3) of the voxels of a grid where a mask (X, Y, Z) is True."""
    index = np.argwhere(where)
    return to_head(apply_affine(affine, index)) if len(index) else np.zeros((0, 3))


def _solid(tissue: np.ndarray, spacing: float) -> np.ndarray:
    """The largest part of tissue, gaps of some millimetres closed and holes filled."""
    names, count = label(tissue)
    if not count:
        return tissue
    sizes = np.bincount(names.ravel())
    sizes[0] = 0
    reach = max(1, round(CLOSING_MM / 2 / spacing))
    head = np.pad(names == sizes.argmax(), reach + 1, mode="edge")
    closed = filled(shrunk(grown(head, reach), reach) | head)
    return closed[(slice(reach + 1, -reach - 1),) * 3]


def _skin(solid: np.ndarray) -> np.ndarray:
    """Voxels of a head that touch the air; the edge of the grid is no air."""
    return solid & grown(~solid)


def _foremost(solid: np.ndarray) -> np.ndarray:
    """Voxels of a head (X, Y, Z; RAS+) with nothing but air in front: no hollow that a dark jaw opens."""
    return solid & (np.cumsum(solid[:, ::-1], axis=1)[:, ::-1] == 1)


def skin_measures(grid: FaceGrid, source: SourceImage, new: SourceImage, level: float) -> dict[str, float]:
    """Distances between original, new and template skin under the mask, and the shape of the new face.

    Parameters
    ----------
    grid : FaceGrid
    source, new : SourceImage
        The original and the refaced scan.
    level : float
        Where tissue starts, in the scan's units.
    """
    heads = [grid.head(image, level) for image in (source, new)]
    skins = [_skin(head) for head in heads]
    old, fresh = (skin & grid.under for skin in skins)
    distance = np.concatenate([_distance(skins[1], old), _distance(skins[0], fresh)])
    regions = [region_of(grid.points(skin)) for skin in (old, fresh)]
    region = np.concatenate(regions)
    found = {"residual_face_mm": _mean(distance[~np.isin(region, NO_FACE)])}
    for name in RESIDUAL_REGIONS:
        found[f"residual_{name}_mm"] = _mean(distance[region == REGIONS.index(name)])
    face = np.zeros(fresh.shape, bool)
    face[fresh] = ~np.isin(regions[1], NO_FACE)
    found["template_mm"] = shape_distance(_skin(grid.template), face & _foremost(heads[1]))
    found["nose_mm"] = nose(grid.points(skins[1]))
    found["skin_roughness"] = roughness(heads[1], face)
    return found


def _distance(skin: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Distance in mm to a skin from voxels (N,), `FAR_MM` at most: a hole counts as one, and not for what lies at its
    bottom."""
    # skin beyond this box is too far to count
    box = box_around(where, FAR_MM, SKIN_MM)
    return _distance_to(skin[box])[where[box]]


def _distance_to(skin: np.ndarray) -> np.ndarray:
    """Distance in mm to a skin (X, Y, Z), True = skin, from every voxel, `FAR_MM` at most; float32."""
    return np.sqrt(np.float32(SKIN_MM**2) * squares_to(skin, round(FAR_MM / SKIN_MM)))


def shape_distance(skin: np.ndarray, face: np.ndarray) -> float:
    """Mean distance of a face to a skin on which it is laid by moving it along Y and Z to where that is least.

    How large a face is and how it sits in its head is drawn apart from its shape; to first order, this takes both away.

    Parameters
    ----------
    skin, face : ndarray (X, Y, Z), bool
        On one RAS+ grid of `SKIN_MM`, True = skin; moved beyond its ends, ``face`` stays at them.

    Returns
    -------
    float
        In mm, no place counting more than `FAR_MM`; NaN with fewer than `LEAST_SKIN` voxels of a face.
    """
    if face.sum() < LEAST_SKIN:
        return float("nan")
    box = box_around(face, FAR_MM + max(LAID_MM), SKIN_MM)
    distance, places, last = _distance_to(skin[box]), np.argwhere(face[box]), np.array(face[box].shape) - 1
    forwards, upwards = (np.arange(-n, n + 1) for n in np.rint(np.array(LAID_MM) / SKIN_MM).astype(int))
    # every second step upwards is enough, faces being smoother that way
    steps = itertools.product([0], forwards, upwards[::2])
    return float(min(distance[tuple(np.clip(places + step, 0, last).T)].mean() for step in steps))


def nose(skin: np.ndarray) -> float:
    """How far in mm the nose stands out from the cheeks, from skin points (N, 3) in head space; NaN without either."""
    ridge, beside = (_within(skin, box)[:, 1] for box in (NOSE, CHEEKS))
    if min(ridge.size, beside.size) < LEAST_SKIN:
        return float("nan")
    return float(np.percentile(ridge, 90) - np.percentile(beside, 75))


def _within(points: np.ndarray, box) -> np.ndarray:
    low, high = np.array(box, float).T
    places = np.column_stack([np.abs(points[:, 0]), points[:, 1:]])
    return points[((places >= low) & (places <= high)).all(1)]


def roughness(solid: np.ndarray, where: np.ndarray) -> float:
    """Voxels per voxel of skin that smoothing by 3 mm takes away or adds within 3 mm of it; NaN without skin."""
    if where.sum() < LEAST_SKIN:
        return float("nan")
    box = box_around(where, 5 * ROUGH_MM, SKIN_MM)
    count, solid, where = where.sum(), solid[box], where[box]
    smooth = gaussian_filter(solid.astype(np.float32), ROUGH_MM / SKIN_MM) > 0.5
    return float(((smooth != solid) & grown(where, round(ROUGH_MM / SKIN_MM))).sum() / count)


def likeness(marks: Landmarks, new: SourceImage, level: float) -> dict[str, float]:
    """How much of the original's fine structure is in the new face, and whether the new face is filled with tissue.

    Parameters
    ----------
    marks : Landmarks
        Of the face.
    new : SourceImage
        The refaced scan.
    level : float
        Where tissue starts.
    """
    where = np.zeros(marks.scan.data.shape, bool)
    where[marks.box] = marks.face_flesh
    if where.sum() < LEAST_SKIN:
        return {}
    # as far as the Gaussian below reaches
    box = box_around(where, 4 * DETAIL_MM, COARSE_MM)
    where, old, new = where[box], marks.scan.data[box], _coarse_part(new, marks.scan, box)
    fine = [(data - gaussian_filter(data, DETAIL_MM / COARSE_MM))[where] for data in (old, new)]
    flat = min(part.std() for part in fine) == 0
    return {
        "face_match": float("nan") if flat else float(np.corrcoef(*fine)[0, 1]),
        "face_filled": float((new > level)[where].mean()),
    }


def _coarse_part(image: SourceImage, grid: Grid, box: tuple[slice, ...]) -> np.ndarray:
    """A part of what `coarse_scan` makes of an image, on its ``grid``."""
    corners = np.array(np.meshgrid(*[(part.start, part.stop - 1) for part in box])).reshape(3, -1).T
    corners = apply_affine(np.linalg.inv(image.affine) @ grid.affine, corners)
    # and as far as the filter reaches that keeps detail from aliasing
    reach = 2 * COARSE_MM / image.spacing + 2
    low, high = np.floor(corners.min(0) - reach), np.ceil(corners.max(0) + reach)
    seen = tuple(slice(int(max(0, a)), int(min(b, n)) + 1) for a, b, n in zip(low, high, image.shape3))
    shape = tuple(part.stop - part.start for part in box)
    return downsample(image.data[seen], corner_of(image.affine, seen), corner_of(grid.affine, box), shape)


def grain(source: SourceImage, new: SourceImage, mask: np.ndarray) -> dict[str, float]:
    """Step at the mask's border and noise in tissue under it, each over the original's, on voxels thinned to 1.6 mm."""
    if not mask.any():
        return {}
    step = np.maximum(1, np.rint(THIN_MM / source.spacing)).astype(int)
    box = tuple(slice(part.start, part.stop, n) for part, n in zip(mask_box(mask, source.affine), step))
    old, fresh, inside, spacing = source.data[box], new.data[box], mask[box], source.spacing * step
    level = TISSUE * np.percentile(old, 90)
    tissue = (old > level) & (fresh > level)
    border = border_steps([fresh, old], inside, spacing, within=tissue)
    noise = noise_levels([fresh, old], shrunk(inside & tissue), spacing, robust=True)
    return {"seam": _ratio(*border), "noise_ratio": _ratio(*noise)}


def brain_overlap(source: SourceImage, coarse: Grid, mask: np.ndarray, level: float, to_head: CoordinateMap) -> float:
    """Volume in ml of the mask that lies on what must be brain, wherever the registration has put the brain.

    Above the eyes, bright tissue deeper than 14 mm under the skin is brain: scalp and skull are thinner.
    """
    scan = coarse.data
    deep = distance_in(np.pad(_solid(gaussian_filter(scan, 0.5) > level, 2.0), 1, constant_values=True))
    deep = 2.0 * deep[1:-1, 1:-1, 1:-1]
    inner = scan[deep > INNERMOST_MM]
    if not inner.size:
        return float("nan")
    low, high = np.median(inner) * np.array(BRAIN_BRIGHT)
    under = resample(mask, source.affine, coarse.affine, scan.shape) > 0.5
    hit = under & (deep > BRAIN_DEEPER_MM) & (scan > low) & (scan < high)
    above = _points_of(coarse.affine, hit, to_head)[:, 2] > BRAIN_ABOVE_MM
    return float(above.sum()) * 8.0 / 1000


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size >= LEAST_SKIN else float("nan")


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else float("nan")
