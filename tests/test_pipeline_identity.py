"""One identity on real data: the T1w and the T2w scan of one person carry the same new face."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from bids_cpmae.evaluation.surface import FAR_MM, skin_of
from bids_cpmae.imaging.align import align_blanked, resample_to_scan
from bids_cpmae.imaging.contrast import Anatomy, Stage
from bids_cpmae.imaging.facemask import carry_face, locate_face, map_grid
from bids_cpmae.imaging.headspace import apply_affine, head_affine
from bids_cpmae.imaging.nifti import SourceImage, load_source
from bids_cpmae.imaging.recolour import compose_series, recolour
from bids_cpmae.imaging.rendering import head_surface
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.rigid import align_rigid
from bids_cpmae.model.weights import load_cpmae

EDGE_MM = 3
SEED, OTHER_SEEDS = 5, (6, 7)


def skin(source: SourceImage, stored: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points in mm of a head's skin, and of the part of it under a mask, off the edge of the field of view."""
    surface = head_surface(stored.astype(np.float32), source.affine)
    new, seen = (
        resample(part, source.affine, surface.affine, surface.field.shape) > share
        for part, share in ((mask, 0.5), (np.ones(source.shape3), 0.99))
    )
    found = skin_of(surface) & binary_erosion(seen, iterations=EDGE_MM)
    return tuple(apply_affine(surface.affine, np.argwhere(part)) for part in (found, found & new))


def apart(skin_points: cKDTree, points: np.ndarray) -> float:
    """Mean distance in mm from points to a skin; of points of a grid, a median takes a few values only."""
    return float(np.minimum(skin_points.query(points)[0], FAR_MM).mean())


@pytest.fixture(scope="module")
def faces(real_data):
    """Both scans of one person refaced: sources, masks, stored values; the rigid between them; the first's frame."""
    folder = real_data / "heads/sub-adult/anat"
    first, second = (load_source(folder / f"sub-adult_{name}.nii.gz") for name in ("T1w", "T2w"))
    located = locate_face(first)
    frame = align_blanked(first, located.mask)
    head = load_cpmae(None, "cpu").remodel(frame.volume, frame.blank, identity_seed=SEED, head_size=frame.head_size)
    stored = compose_series(first, located.mask, resample_to_scan(frame, head, first, located.mask))
    in_view = align_rigid(second, first, located.brain).affine
    carried = carry_face(second, located.to_head.after(in_view, *map_grid(second)))
    rigid = align_rigid(second, first, located.brain, mask=carried.mask, reference_mask=located.mask).affine
    stage = Stage.of(second, carried.mask, Anatomy.of(frame, head), frame.to_head.after(rigid, *map_grid(second)))
    other, measures = recolour(second, carried.mask, stage)
    return (first, located.mask, stored), (second, carried.mask, other), rigid, measures, frame


@pytest.fixture(scope="module")
def first_skin(faces) -> tuple[np.ndarray, np.ndarray]:
    """The first scan's new `skin`."""
    source, mask, stored = faces[0]
    return skin(source, stored, mask)


@pytest.fixture(scope="module")
def between(faces, first_skin) -> float:
    """How far in mm the new skins of the two scans lie apart."""
    (source, mask, stored), rigid = faces[1], faces[2]
    points = apply_affine(rigid, skin(source, stored, mask)[1])
    assert len(points) > 5000
    return apart(cKDTree(first_skin[0]), points)


def test_new_skins_of_two_contrasts_lie_on_each_other(faces, between):
    assert between <= 1.5
    assert faces[3]["registration_correlation"] > 0.6


def test_new_skins_are_not_the_old_one(faces, first_skin, between):
    """The original's own would lie as near to itself as the two contrasts do to each other; identities differ."""
    (first, mask, _), frame = faces[0], faces[4]
    original = cKDTree(skin(first, first.data, mask)[0])
    new = [first_skin[1]]
    for seed in OTHER_SEEDS:
        head = load_cpmae(None, "cpu").remodel(frame.volume, frame.blank, identity_seed=seed, head_size=frame.head_size)
        new.append(skin(first, compose_series(first, mask, resample_to_scan(frame, head, first, mask)), mask)[1])
    assert min(apart(original, points) for points in new) > between + 0.5


def test_the_frame_tells_where_the_view_ends(faces):
    """The scan's foremost slice, as the map finds it in head space, is where nothing lies beyond."""
    first, frame = faces[0][0], faces[4]
    end = np.array([(n - 1) / 2 for n in first.shape3])
    axis = np.abs(first.affine[1, :3]).argmax()
    end[axis] = first.shape3[axis] - 0.5 if first.affine[1, axis] > 0 else -0.5
    grid = np.eye(4)
    grid[:3, 3] = frame.to_head(apply_affine(first.affine, end))
    found = resample(frame.beyond, head_affine(4), grid, (1, 1, 1), outside="edge")
    assert abs(found.item()) < 1.5


def test_t2w_face_has_bright_eyes_and_dark_muscle_as_the_scan_has(faces):
    _, (source, mask, stored), *_ = faces
    brightest = np.percentile(stored[mask], 99)
    fluid = np.percentile(source.data[~mask], 99)
    assert 0.6 < brightest / fluid < 1.6
    assert np.median(stored[mask & (stored > np.percentile(stored[mask], 60))]) < 0.6 * fluid
