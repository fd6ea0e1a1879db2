"""Measures of a replaced face: what a good one gives, and that planted failures are seen for what they are."""

import bad_inputs as bad
import numpy as np
import pytest
from heads import average_head, somebody
from scipy.ndimage import gaussian_filter, shift
from test_imaging_screening import located as registered
from test_imaging_screening import real

from bids_cpmae.bids.verdicts import FAIL, MEASURES, PASS, REVIEW, judge
from bids_cpmae.imaging.compose import compose_face
from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, grid_points
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.quality import FAR_MM, SKIN_MM, _distance, measure_quality, shape_distance
from bids_cpmae.imaging.screening import screen_located


@pytest.fixture(scope="module")
def source():
    return load_source(bad.head())


@pytest.fixture(scope="module")
def location(source):
    return bad.located_by_hand(source)


@pytest.fixture(scope="module")
def new_face(source, location):
    """Another head under the mask, bent and 3 mm further back, matched to the scan as new faces are."""
    other = gaussian_filter(np.asarray(somebody(3).dataobj, np.float32), 0.5)
    return compose_face(source, location.mask, np.abs(shift(other, (0, -1.5, 0), order=1)), seed=1)


def measured(source, stored, location, *, mask=None, **more):
    mask = location.mask if mask is None else mask
    return measure_quality(source, stored, mask, to_head=location.to_head, **more)


def verdict(source, stored, location, **more):
    before = {**location.measures, **screen_located(source, location)}
    return judge({**before, **measured(source, stored, location, **more)})


def test_a_new_face_passes(source, location, new_face):
    found = measured(source, new_face, location)
    assert judge(found) == (PASS, ""), found
    assert set(found) <= set(MEASURES)
    assert found["residual_face_mm"] > 1.5
    assert 25 < found["nose_mm"] < 40
    assert found["brain_overlap_ml"] == 0


def test_a_face_left_in_fails(source, location):
    result, reason = verdict(source, source.stored, location)
    assert result == FAIL
    assert "residual_face_mm 0" in reason and "face_match 1" in reason


def test_a_face_left_in_under_noise_fails(source, location):
    rng = np.random.default_rng(1)
    noisy = source.stored + np.where(location.mask, rng.normal(0, 25, source.shape3), 0)
    result, reason = verdict(source, np.rint(noisy).astype(np.int16), location)
    assert result == FAIL and "residual_face_mm" in reason, reason


@pytest.mark.parametrize("part", ["nose", "ears"])
def test_a_part_left_in_asks_for_a_look(source, location, new_face, part):
    points = grid_points(source.affine, source.shape3)
    nose = (np.abs(points[..., 0]) < 25) & (points[..., 1] > 50) & (np.abs(points[..., 2] + 55) < 30)
    kept = nose if part == "nose" else points[..., 1] < 8
    result, reason = verdict(source, np.where(kept, source.stored, new_face), location)
    assert result == REVIEW and f"residual_{part}_mm" in reason, reason


def test_a_mask_that_misses_the_face_fails(source, location, new_face):
    moved = np.roll(location.mask, 20, axis=1)
    stored = np.where(moved, new_face, source.stored)
    result, reason = verdict(source, stored, location, mask=moved)
    assert result == FAIL and "mask_coverage" in reason


def test_a_registration_that_has_slipped_fails(source, new_face):
    """Mask, brain and map all sit 25 mm too far back, so only what the scan itself shows can tell."""
    slipped = bad.located_by_hand(source, shift=(0.0, 25.0, 0.0))
    stored = np.where(slipped.mask, new_face, source.stored)
    result, reason = verdict(source, stored, slipped)
    assert result == FAIL and "brain_overlap_ml" in reason, reason


def test_a_mask_that_cuts_the_brain_fails(source, location, new_face):
    points = apply_affine(source.affine, np.indices(source.shape3).transpose(1, 2, 3, 0).astype(float))
    frontal = (np.abs(points[..., 0]) < 30) & (points[..., 1] > 30) & (points[..., 2] > 0) & (points[..., 2] < 40)
    result, reason = verdict(source, new_face, location, mask=location.mask | frontal)
    assert result == FAIL and "brain_overlap_ml" in reason


def test_holes_noise_and_steps_ask_for_a_look(source, location, new_face):
    rng = np.random.default_rng(0)
    air = average_head()[0][:8, :8, :8].mean()
    spoilt = {
        "face_filled": np.where(rng.random(source.shape3) < 0.5, air, new_face),
        "noise_ratio": new_face + rng.normal(0, 120, source.shape3),
        "seam": 2.5 * new_face,
    }
    for name, values in spoilt.items():
        stored = np.where(location.mask, np.rint(np.abs(values)), source.stored).astype(np.int16)
        result, reason = verdict(source, stored, location)
        assert result == REVIEW and name in reason, (name, reason)


def test_distances_to_skin_are_exact_up_to_the_farthest_that_counts():
    rng = np.random.default_rng(0)
    skin, where = rng.random((40, 30, 50)) > 0.9995, rng.random((40, 30, 50)) > 0.9
    expected = np.minimum(distance_in(~skin, SKIN_MM), FAR_MM)[where]
    np.testing.assert_array_equal(_distance(skin, where), expected)
    assert (expected == FAR_MM).any()
    np.testing.assert_array_equal(_distance(np.zeros_like(skin), where), FAR_MM)


def test_the_shape_of_a_face_is_told_wherever_it_sits():
    skin = np.zeros((40, 60, 50), bool)
    skin[:, 30, :] = True
    skin[15:25, 36, 20:30] = True  # a nose
    face = np.roll(skin & (np.indices(skin.shape)[2] > 10), (4, -2), axis=(1, 2))
    assert shape_distance(skin, face) < 0.2 < shape_distance(skin, np.roll(face, 6, axis=1))
    flat = face & (np.indices(skin.shape)[1] == 34)
    assert shape_distance(face, flat) < shape_distance(flat, face)
    assert np.isnan(shape_distance(skin, np.zeros_like(skin)))


def test_ears_alone_say_nothing_of_the_face(source, location, new_face):
    ears = location.mask & (grid_points(source.affine, source.shape3)[..., 1] < 0)
    found = measured(source, np.where(ears, new_face, source.stored), location, mask=ears, regions=("ears",))
    assert "residual_ears_mm" in found
    assert not {"mask_coverage", "face_match", "face_filled", "residual_nose_mm"} & set(found)


def test_finer_voxels_give_about_the_same(source, location, new_face):
    coarse = measured(source, new_face, location)
    image = bad.finer(bad.head(), 1.5)
    fine = load_source(image)
    there = bad.located_by_hand(fine)
    stored = bad.finer(bad.as_image(new_face, source.affine), 1.5)
    found = measured(fine, np.asarray(stored.dataobj), there)
    for name in ("residual_face_mm", "nose_mm", "mask_coverage"):
        assert found[name] == pytest.approx(coarse[name], rel=0.15, abs=0.3), name


def test_a_real_face_left_in_or_missed_fails(real_data):
    source = real(real_data, "IXI033")
    found = registered(source.path)
    left = measure_quality(source, source.stored, found.mask, to_head=found.to_head)
    assert judge(left)[0] == FAIL and left["residual_face_mm"] == 0
    slipped = CoordinateMap(found.to_head.affine, found.to_head.points + np.array([0, 25, 0], np.float32))
    moved = np.roll(found.mask, -12 if source.affine[1, 1] > 0 else 12, axis=1)
    assert judge(measure_quality(source, source.stored, moved, to_head=slipped))[0] == FAIL
