"""How well a face was replaced, in numbers: measured on the private side, where the original still is.

The numbers go to the table of verdicts; no voxel does. All is cheap: skins are compared at 1.5 mm, the rest at 2 mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_cpmae.imaging.align import mask_box
from bids_cpmae.imaging.facemask import coarse_scan
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, covering_grid, grid_points
from bids_cpmae.imaging.landmarks import Landmarks, face_coverage
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.resample import downsample, resample, sample_points
from bids_cpmae.imaging.seam import border_step, noise_level
from bids_cpmae.imaging.skin import NOT_FACE, REGIONS, region_of, skin_level
from bids_cpmae.imaging.template import load_template

SKIN_MM, FAR_MM, CLOSING_MM = 1.5, 15.0, 6.0
MARGIN_MM = 16.0
LEAST_SKIN = 50
TEMPLATE_SKIN = 0.15
DETAIL_MM = 4.0
VOXEL_MM = 1.6
TISSUE = 0.3
BRIGHT = (0.55, 1.6)
CORE_MM, OPENING_MM = 12.0, 4.0
# head-space boxes in mm, |x|, y and z, that hold the ridge of the nose and the cheeks beside it
NOSE, CHEEKS = ((0, 10), (40, 130), (-80, -55)), ((26, 42), (20, 130), (-80, -55))


def measure_quality(
    source: SourceImage, stored: np.ndarray, mask: np.ndarray, brain: np.ndarray, *, to_head: CoordinateMap
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
    brain : ndarray (X, Y, Z), bool
        The registered brain.
    to_head : CoordinateMap
        From the scan's world to head space.

    Returns
    -------
    dict of str to float
        Named and explained in `bids_cpmae.bids.verdicts.MEASURES`; what cannot be told is left out.
    """
    new = _refaced(source, stored)
    marks = Landmarks.of(source, to_head)
    seen = face_coverage(source, to_head)
    measures = {
        "mask_coverage": face_coverage(source, to_head, mask) / seen if seen > 0 else float("nan"),
        **skin_measures(source, new, mask, to_head),
        **likeness(marks, coarse_scan(new.data, source.affine).data),
        **grain(source, new, mask),
        "brain_overlap_ml": brain_overlap(source, marks, mask, brain),
    }
    return {name: round(float(value), 4) for name, value in measures.items() if np.isfinite(value)}


def _refaced(source: SourceImage, stored: np.ndarray) -> SourceImage:
    return SourceImage(source.header, source.affine, stored.reshape(source.stored.shape), source.slope, source.inter)


@dataclass(frozen=True)
class _FaceGrid:
    """A 1.5 mm RAS+ grid around the mask: what is under it, what the template has there, and where that is."""

    affine: np.ndarray
    shape: tuple[int, ...]
    under: np.ndarray
    template: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, source: SourceImage, mask: np.ndarray, to_head: CoordinateMap) -> _FaceGrid:
        box = mask_box(mask, source.affine, MARGIN_MM)
        corner = source.affine.copy()
        corner[:3, 3] = apply_affine(source.affine, np.array([part.start for part in box], float))
        affine, shape = covering_grid(corner, tuple(part.stop - part.start for part in box), SKIN_MM)
        points = to_head(grid_points(affine, shape))
        template = load_template()
        index = apply_affine(np.linalg.inv(template.grid.affine), points)
        tissue = sample_points(template.grid.data[None], index)[..., 0] > TEMPLATE_SKIN
        under = resample(mask.astype(np.float32), source.affine, affine, shape) > 0.5
        return cls(affine, shape, under, tissue, points)

    def solid(self, image: SourceImage, level: float) -> np.ndarray:
        """The head (X, Y, Z), True inside: tissue, with gaps up to some millimetres closed."""
        box = downsample(image.data, image.affine, self.affine, self.shape)
        return _filled(ndimage.gaussian_filter(box, 0.8 / SKIN_MM) > level)


def _filled(tissue: np.ndarray) -> np.ndarray:
    """The largest part of a head, closed, without holes."""
    labels, count = ndimage.label(tissue)
    if not count:
        return tissue
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    head = np.pad(labels == sizes.argmax(), 4, mode="edge")
    reach = int(round(CLOSING_MM / 2 / SKIN_MM))
    closed = ndimage.binary_closing(head, ndimage.generate_binary_structure(3, 1), iterations=reach)
    return ndimage.binary_fill_holes(closed | head)[4:-4, 4:-4, 4:-4]


def _skin(solid: np.ndarray) -> np.ndarray:
    """Voxels of a head that touch the air; the edge of the grid is no air."""
    return solid & ndimage.binary_dilation(~solid)


def skin_measures(
    source: SourceImage, new: SourceImage, mask: np.ndarray, to_head: CoordinateMap
) -> dict[str, float]:  # fmt: skip
    """Distances between original, new and template skin under the mask, and the shape of the new face."""
    level = skin_level(coarse_scan(source.data, source.affine).data)
    if level <= 0 or not mask.any():
        return {}
    grid = _FaceGrid.of(source, mask, to_head)
    old_head, new_head = grid.solid(source, level), grid.solid(new, level)
    old_skin, new_skin = _skin(old_head) & grid.under, _skin(new_head) & grid.under
    away_from_old, away_from_new, away_from_template = (
        np.minimum(ndimage.distance_transform_edt(~skin, sampling=SKIN_MM), FAR_MM)
        for skin in (_skin(old_head), _skin(new_head), _skin(_filled(grid.template)))
    )
    both = [(away_from_new[old_skin], grid.points[old_skin]), (away_from_old[new_skin], grid.points[new_skin])]
    distance, at = (np.concatenate(parts) for parts in zip(*both, strict=True))
    region = region_of(at)
    face = ~np.isin(region, [REGIONS.index(name) for name in NOT_FACE])
    found = {"residual_face_mm": _median(distance[face])}
    for name in (*(name for name in REGIONS if name != "neck"),):
        found[f"residual_{name}_mm"] = _median(distance[region == REGIONS.index(name)])
    own = new_skin & ~np.isin(region_of(grid.points), [REGIONS.index(name) for name in NOT_FACE])
    found["template_mm"] = _median(away_from_template[own])
    found["nose_mm"] = nose(grid.points[_skin(new_head)])
    found["skin_roughness"] = roughness(new_head, own)
    return found


def nose(skin: np.ndarray) -> float:
    """How far in mm the nose stands out from the cheeks, from skin points (N, 3) in head space."""
    ridge, beside = (_within(skin, box)[:, 1] for box in (NOSE, CHEEKS))
    if min(ridge.size, beside.size) < LEAST_SKIN:
        return float("nan")
    return float(np.percentile(ridge, 90) - np.percentile(beside, 75))


def _within(points: np.ndarray, box) -> np.ndarray:
    places = np.column_stack([np.abs(points[:, 0]), points[:, 1:]])
    return points[np.all([(places[:, axis] >= low) & (places[:, axis] <= high) for axis, (low, high) in enumerate(box)], 0)]


def roughness(solid: np.ndarray, where: np.ndarray) -> float:
    """Voxels per voxel of skin that smoothing by 3 mm takes away or adds within 3 mm of it; NaN without skin."""
    if where.sum() < LEAST_SKIN:
        return float("nan")
    smooth = ndimage.gaussian_filter(solid.astype(np.float32), 3.0 / SKIN_MM) > 0.5
    near = ndimage.binary_dilation(where, iterations=2)
    return float(((smooth != solid) & near).sum() / where.sum())


def likeness(marks: Landmarks, new: np.ndarray) -> dict[str, float]:
    """How much of the original's fine structure is in the new face, and whether the new face is filled with tissue."""
    where, width = marks.face_flesh, DETAIL_MM / 2.0
    if where.sum() < LEAST_SKIN:
        return {}
    fine = [(data - ndimage.gaussian_filter(data, width))[where] for data in (marks.scan.data, new)]
    flat = min(part.std() for part in fine) == 0
    level = skin_level(marks.scan.data)
    return {
        "face_match": float("nan") if flat else float(np.corrcoef(*fine)[0, 1]),
        "face_filled": float((new > level)[where].mean()),
    }


def grain(source: SourceImage, new: SourceImage, mask: np.ndarray) -> dict[str, float]:
    """Step at the mask's border and noise in tissue under it, each over the original's, on voxels thinned to 1.6 mm."""
    step = np.maximum(1, np.rint(VOXEL_MM / source.spacing)).astype(int)
    box = tuple(slice(part.start, part.stop, n) for part, n in zip(mask_box(mask, source.affine), step))
    old, fresh, inside, spacing = source.data[box], new.data[box], mask[box], source.spacing * step
    level = np.percentile(old, 90)
    tissue = (old > TISSUE * level) & (fresh > TISSUE * level)
    border = [border_step(data, inside, spacing, within=tissue) for data in (fresh, old)]
    deep = ndimage.binary_erosion(inside & tissue)
    noise = [noise_level(data, deep, spacing, robust=True) for data in (fresh, old)]
    return {"seam": _ratio(*border), "noise_ratio": _ratio(*noise)}


def brain_overlap(source: SourceImage, marks: Landmarks, mask: np.ndarray, brain: np.ndarray) -> float:
    """Volume in ml of the mask that lies in what looks like brain and hangs together with it.

    From the core of the registered brain outwards, through tissue as bright as brain and no thinner than some
    millimetres: an outline that does not rely on the registration's border.
    """
    affine, shape = marks.scan.affine, marks.scan.data.shape
    inner = resample(brain.astype(np.float32), source.affine, affine, shape) > 0.5
    if not inner.any():
        return float("nan")
    level = float(np.median(marks.scan.data[inner]))
    low, high = BRIGHT
    bright = (marks.scan.data > low * level) & (marks.scan.data < high * level)
    thick = ndimage.distance_transform_edt(bright, sampling=2.0) > OPENING_MM
    core = ndimage.distance_transform_edt(inner, sampling=2.0) > CORE_MM
    labels, _ = ndimage.label(thick)
    names = np.unique(labels[core & thick])
    found = np.isin(labels, names[names > 0])
    found = ndimage.distance_transform_edt(~found, sampling=2.0) <= OPENING_MM if found.any() else found
    under = resample(mask.astype(np.float32), source.affine, affine, shape) > 0.5
    return float((found & bright & under).sum()) * 8.0 / 1000


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size >= LEAST_SKIN else float("nan")


def _ratio(above: float, below: float) -> float:
    return above / below if below and np.isfinite(above) and np.isfinite(below) else float("nan")
