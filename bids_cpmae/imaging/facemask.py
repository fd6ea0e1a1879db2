"""Where the face is: the template's masks carried to a scan by registration, kept off the brain by a margin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation, binary_propagation

from bids_cpmae.errors import SkippedError
from bids_cpmae.imaging.distance import distance_across, distance_in
from bids_cpmae.imaging.headspace import CoordinateMap, covering_grid, head_affine
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.registration import Grid, register, scratch_folder
from bids_cpmae.imaging.resample import downsample, resample
from bids_cpmae.imaging.skin import air_around
from bids_cpmae.imaging.template import BRAIN_BIT, EARS_BIT, SPACING, fixed_template, load_template

# in head mode the skin over the crown must be new as a whole: it begins some 8 mm from the brain
BRAIN_MARGIN_MM, HEAD_MARGIN_MM = 8.0, 5.0
COARSE_MM = 2.0
FIELD_MM = 4.0
# of every side of the field of view, more than this is masked where a brain alone is kept; it may be cut by one side
MASKED_SIDE = 0.25
# tissue outside the mask that no ball of this radius inside the head reaches, and that stands out from what they reach
# by so much near an ear, is an ear's; how near, and how far what hangs together with it is followed
STRAY_LEVEL, STRAY_MM, STRAY_HEIGHT_MM, STRAY_NEAR_MM, STRAY_REACH_MM = 0.25, 6.0, 4.0, 12.0, 25.0


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
        ``registration_correlation`` (of `locate_face`), ``mask_share`` (of the field of view) and ``brain_ml``.
    to_head : CoordinateMap
        From the scan's world to head space, by which they were carried.
    """

    mask: np.ndarray
    brain: np.ndarray
    measures: dict[str, float]
    to_head: CoordinateMap


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
    away = distance_across(inside, spacing) - np.float32(spacing / 2)
    return np.where(inside, -away, away)


def locate_face(
    source: SourceImage,
    *,
    mode: str = "face",
    regions: tuple[str, ...] = ("face", "ears"),
    alike: bool = True,
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
    alike : bool
        The scan shows tissues as a T1w scan does.
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
    scan = coarse_scan(source.data, source.affine)
    with scratch_folder() as folder:
        found = register(fixed_template(), scan, folder=Path(folder), alike=alike, seed=seed)
        to_head = found.moving_to_fixed(*map_grid(source))
    located = carry_face(source, to_head, mode=mode, regions=regions, scan=scan)
    return replace(located, measures={"registration_correlation": round(found.similarity, 4), **located.measures})


def map_grid(source: SourceImage) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape of the grid of 4 mm on which maps from a scan's world are kept."""
    return covering_grid(*covering_grid(source.affine, source.shape3, COARSE_MM), FIELD_MM, pad=FIELD_MM)


def carry_face(
    source: SourceImage,
    to_head: CoordinateMap,
    *,
    mode: str = "face",
    regions: tuple[str, ...] = ("face", "ears"),
    scan: Grid | None = None,
) -> FaceLocation:
    """Carry the template's masks to a scan by a map that is known.

    Parameters
    ----------
    source : SourceImage
        Its values are looked at only for thin parts that stick out beside the face, see `with_strays`.
    to_head : CoordinateMap
        From the scan's world to head space.
    mode, regions
        As in `locate_face`.
    scan : Grid, optional
        Its `coarse_scan`, where the caller has it.

    Returns
    -------
    FaceLocation

    Raises
    ------
    SkippedError
        When no face lies in the field of view.
    """
    grid, shape = covering_grid(source.affine, source.shape3, COARSE_MM)
    # beyond head space the nearest edge counts, so that the air before the face goes on
    face, brain, ears = resample(
        _template_distances(mode, tuple(regions)), head_affine(SPACING), grid, shape, through=to_head, outside="edge"
    )
    # the field stretches distances: measure the margin where the brain came to lie
    brain = signed_distance(brain < 0, COARSE_MM)
    if mode == "face" and "ears" in regions:
        face = with_strays(face, brain, ears, (scan or coarse_scan(source.data, source.affine)).data)
    face, brain = resample(np.stack([face, brain]), grid, source.affine, source.shape3, outside="edge")
    margin = BRAIN_MARGIN_MM if mode == "face" else HEAD_MARGIN_MM
    mask, inside = (face < 0) & (brain > margin), brain < 0
    if not mask.any():
        name = source.path.name if source.path else "the image given"
        raise SkippedError(f"{name}: no part of the face lies in the field of view; see that it shows no face")
    voxel_ml = abs(np.linalg.det(source.affine[:3, :3])) / 1000
    measures = {
        "mask_share": round(float(mask.mean()), 4),
        "brain_ml": round(float(inside.sum() * voxel_ml), 1),
    }
    return FaceLocation(mask, inside, measures, to_head)


def keeps_brain_alone(mask: np.ndarray) -> bool:
    """Whether a mask (X, Y, Z) leaves nothing but a brain and a shell around it, as in head mode.

    The back of a head or its top is kept otherwise, and with it one side of the field of view.
    """
    sides = [np.take(mask, end, axis).mean() for axis in range(3) for end in (0, -1)]
    return bool(min(sides) > MASKED_SIDE)


def prepare_template(mode: str = "face", regions: tuple[str, ...] = ("face", "ears")) -> None:
    """Work out what `locate_face` asks of the template once a process."""
    fixed_template()
    _template_distances(mode, tuple(regions))


@lru_cache(maxsize=2)
def _template_distances(mode: str, regions: tuple[str, ...]) -> np.ndarray:
    """Signed distances (3, 128, 128, 128) in mm in head space, to what is replaced, the brain, and the ears."""
    template = load_template()
    wanted = template.replaced_with_air(regions) if mode == "face" else np.ones_like(template.masks, bool)
    return np.stack([
        signed_distance(part, SPACING) for part in (wanted, template.mask(BRAIN_BIT), template.mask(EARS_BIT))
    ])  # fmt: skip


def with_strays(face: np.ndarray, brain: np.ndarray, ears: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """The face with what of an ear would be left sticking out of the head beside it.

    Parameters
    ----------
    face, brain, ears : ndarray (X, Y, Z), float32
        Signed distances in mm on the coarse grid, negative inside; to all that is replaced, the brain, and the ears.
    scan : ndarray (X, Y, Z)

    Returns
    -------
    ndarray (X, Y, Z), float32
        Signed distance of the face and the strays.
    """
    if not (face < 0).any():
        return face
    tissue = scan > STRAY_LEVEL * np.percentile(scan[scan > 0], 75) if (scan > 0).any() else scan > 0
    # a scalp over dark bone is no thin part that sticks out
    head = ~air_around(tissue)
    core = distance_in(~(distance_in(head, COARSE_MM) > STRAY_MM), COARSE_MM) <= STRAY_MM
    thin = head & ~core & (face > 0) & (ears < STRAY_REACH_MM) & (brain > BRAIN_MARGIN_MM)
    out = thin & (distance_in(~core, COARSE_MM) >= STRAY_HEIGHT_MM) & (ears < STRAY_NEAR_MM)
    strays = binary_propagation(out, np.ones((3, 3, 3)), mask=thin)
    if not strays.any():
        return face
    # and the air next to them, so that no halo of theirs stays
    around = binary_dilation(strays, iterations=2) & ~(head & ~strays)
    return np.where(strays | around, np.minimum(face, -COARSE_MM / 2), face).astype(np.float32)
