"""Where the face is: the template's masks carried to a scan by registration, kept off the brain by a margin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from bids_cpmae.errors import SkippedError
from bids_cpmae.imaging.headspace import CoordinateMap, covering_grid, head_affine
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.registration import Grid, register, scratch_folder
from bids_cpmae.imaging.resample import downsample, resample
from bids_cpmae.imaging.template import BRAIN_BIT, SPACING, load_template

BRAIN_MARGIN_MM = 8.0
COARSE_MM = 2.0
FIELD_MM = 4.0


@dataclass(frozen=True)
class FaceLocation:
    """What will be replaced in a scan, and what must not change.

    Attributes
    ----------
    mask : ndarray (X, Y, Z), bool
        True = replaced. On the scan's own grid.
    brain : ndarray (X, Y, Z), bool
        The registered template brain, True inside, without the margin.
    measures : dict of str to float
        ``registration_correlation``, ``mask_share`` (of the field of view) and ``brain_ml``.
    to_head : CoordinateMap, optional
        From the scan's world to head space, as registered.
    """

    mask: np.ndarray
    brain: np.ndarray
    measures: dict[str, float]
    to_head: CoordinateMap | None = None


def coarse_scan(data: np.ndarray, affine: np.ndarray) -> Grid:
    """A scan on the axis-aligned 2 mm grid that covers its field of view, whatever its own orientation."""
    grid, shape = covering_grid(affine, data.shape, COARSE_MM)
    return Grid(downsample(data, affine, grid, shape), grid)


def signed_distance(inside: np.ndarray, spacing: float) -> np.ndarray:
    """Distance in mm to a mask's border: positive outside, negative inside, half a voxel off zero at the border."""
    if not inside.any():
        return np.full(inside.shape, 1e3, np.float32)
    if inside.all():
        return np.full(inside.shape, -1e3, np.float32)
    half = spacing / 2
    outside = distance_transform_edt(~inside, sampling=spacing) - half
    within = distance_transform_edt(inside, sampling=spacing) - half
    return np.where(inside, -within, outside).astype(np.float32)


def locate_face(
    source: SourceImage,
    *,
    mode: str = "face",
    regions: tuple[str, ...] = ("face", "ears"),
    seed: int = 0,
) -> FaceLocation:
    """Register the template to a scan and carry its masks over.

    Parameters
    ----------
    source : SourceImage
    mode : {"face", "head"}
        ``head`` takes everything but the brain and its margin, the paper's setting.
    regions : tuple of {"face", "ears"}
        What face mode replaces.
    seed : int
        Of the registration.

    Returns
    -------
    FaceLocation

    Raises
    ------
    SkippedError
        When no face lies in the field of view.
    """
    template = load_template()
    data = source.data
    scan = coarse_scan(data, source.affine)
    with scratch_folder() as folder:
        found = register(template.grid, scan, folder=Path(folder), seed=seed)
        to_head = found.moving_to_fixed(*covering_grid(scan.affine, scan.data.shape, FIELD_MM, pad=FIELD_MM))
    wanted = template.replaced_with_air(tuple(regions)) if mode == "face" else np.ones_like(template.masks, bool)
    face = _carry(signed_distance(wanted, SPACING), scan, to_head)
    brain = _carry(signed_distance(template.mask(BRAIN_BIT), SPACING), scan, to_head)
    # the field stretches distances: measure the margin where the brain came to lie
    brain = signed_distance(brain < 0, COARSE_MM)
    on_grid = [resample(field, scan.affine, source.affine, data.shape, outside="edge") for field in (face, brain)]
    mask = (on_grid[0] < 0) & (on_grid[1] > BRAIN_MARGIN_MM)
    inside = on_grid[1] < 0
    if not mask.any():
        name = source.path.name if source.path else "the image given"
        raise SkippedError(f"{name}: no part of the face lies in the field of view; see that it shows no face")
    voxel_ml = abs(np.linalg.det(source.affine[:3, :3])) / 1000
    measures = {
        "registration_correlation": round(found.similarity, 4),
        "mask_share": round(float(mask.mean()), 4),
        "brain_ml": round(float(inside.sum() * voxel_ml), 1),
    }
    return FaceLocation(mask, inside, measures, to_head)


def _carry(field: np.ndarray, scan: Grid, to_head) -> np.ndarray:
    """A template field on the scan's coarse grid; beyond head space the nearest edge counts, so air goes on."""
    return resample(field, head_affine(SPACING), scan.affine, scan.data.shape, through=to_head, outside="edge")
