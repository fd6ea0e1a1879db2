"""One head in two contrasts: aligned, masked and given the same face, with nothing read from under a mask."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from heads import as_image, average_head, moved, t2_like
from scipy.ndimage import gaussian_filter, map_coordinates

from bids_cpmae.imaging.align import HeadFrame
from bids_cpmae.imaging.certify import certify
from bids_cpmae.imaging.contrast import Anatomy, Stage
from bids_cpmae.imaging.facemask import carry_face, map_grid
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, grid_points, head_affine, head_shape
from bids_cpmae.imaging.nifti import SourceImage, load_source, save_like
from bids_cpmae.imaging.recolour import compose_series, recolour
from bids_cpmae.imaging.resample import downsample, resample
from bids_cpmae.imaging.rigid import align_rigid
from bids_cpmae.imaging.template import load_template

UNITS = 600


def scan_of(values: np.ndarray, affine: np.ndarray, dtype=np.int16) -> SourceImage:
    """With a little noise, as read from a file."""
    noise = np.random.default_rng(2).standard_normal((2, *values.shape)) * 8
    return load_source(as_image(np.hypot(values + noise[0], noise[1]), affine, dtype))


@pytest.fixture(scope="module")
def other_scan():
    """The average head, T2-like, turned and shifted, in slices of 5 mm; and the rigid that leads back."""
    rigid = moved((0.05, -0.03, 0.08), (5, -4, 7))
    affine = rigid @ nib.affines.from_matvec(np.diag([1.5, 1.5, 5.0]), (-95, -110, -125))
    grid = load_template().grid
    fine = resample(t2_like(grid.data), grid.affine, np.linalg.inv(rigid) @ affine, (128, 150, 46))
    return scan_of(fine, affine), np.linalg.inv(rigid)


@pytest.fixture(scope="module")
def made():
    """A frame of the average head as a reference's, and a new head: the same, with another nose and jaw."""
    template = load_template()
    fine = resample(template.grid.data, template.grid.affine, head_affine(), head_shape())
    blank = resample(template.replaced_with_air(), template.grid.affine, head_affine(), head_shape()) > 0.5
    bent = map_coordinates(fine, np.indices(fine.shape) - np.array([0, 5, 0]).reshape(3, 1, 1, 1), order=1)
    depth = gaussian_filter(blank.astype(np.float32), 3)
    head = (0.5 * (fine + depth * (bent - fine))).astype(np.float32)
    unit = np.where(blank, 0, 0.5 * fine).astype(np.float32)
    points = grid_points(head_affine(4), head_shape(4)).astype(np.float32)
    same = CoordinateMap(head_affine(4), points)
    return HeadFrame(np.clip(unit, 0, 1), blank, same, same, 2.0 * UNITS), np.clip(head, 0, 1)


@pytest.fixture(scope="module")
def staged(other_scan, made):
    source, to_average = other_scan
    to_head = made[0].to_head.after(to_average, *map_grid(source))
    located, anatomy = carry_face(source, to_head), Anatomy.of(*made)
    return source, located, anatomy, to_head, Stage.of(source, located.mask, anatomy, to_head)


def test_scans_of_two_contrasts_are_aligned(other_scan):
    source, expected = other_scan
    values, affine = average_head()
    reference = load_source(as_image(values, affine))
    template = load_template()
    brain = resample(template.mask(1), template.grid.affine, affine, values.shape) > 0.5
    found = align_rigid(source, reference, brain)
    points = apply_affine(affine, np.argwhere(brain)[::997])
    back = np.linalg.inv(expected)
    away = np.linalg.norm(apply_affine(found.affine, apply_affine(back, points)) - points, axis=-1)
    assert away.max() < 1.5
    assert np.allclose(np.linalg.svd(found.affine[:3, :3])[1], 1, atol=1e-4), "not rigid"
    assert found.information > 0.1


def test_mask_goes_with_the_head_and_on_to_the_edge(staged):
    source, located, _, to_head, _ = staged
    at = to_head(grid_points(source.affine, source.shape3))
    template = load_template()
    inside = resample(template.replaced_with_air(), template.grid.affine, source.affine, source.shape3,
                      through=to_head, outside="edge") > 0.5  # fmt: skip
    assert (located.mask & ~inside).sum() < 0.02 * located.mask.sum()
    assert not (located.mask & located.brain).any()
    before_nose = (np.abs(at[..., 0]) < 15) & (at[..., 1] > 95) & (np.abs(at[..., 2] + 60) < 15)
    assert before_nose.any() and located.mask[before_nose].all()


def test_the_new_face_has_the_scans_own_contrast(staged, made):
    source, located, anatomy, to_head, stage = staged
    synthetic, correlation = stage.translate(source)
    assert correlation > 0.85
    truth = resample(t2_like(2 * made[1]), head_affine(), source.affine, source.shape3, through=to_head)
    deep = located.mask & (resample(anatomy.depth, head_affine(2), source.affine, source.shape3, through=to_head) > 3)
    error = np.abs(synthetic - truth)[deep]
    # a T1w face would be off by some 300: its fat bright where this contrast has it dark
    assert np.median(error) < 90
    assert np.corrcoef(synthetic[deep], truth[deep])[0, 1] > 0.6


def test_eyes_take_the_value_of_fluid(staged):
    source, located, anatomy, to_head, stage = staged
    synthetic, _ = stage.translate(source)
    fluid = resample(anatomy.fluid, head_affine(), source.affine, source.shape3, through=to_head) > 0.95
    assert fluid.sum() > 30
    # vitreous and the fluid of the brain are about 0.25 of the brain's white in a T1w scan
    assert np.median(synthetic[fluid]) == pytest.approx(t2_like(np.array(0.25)), rel=0.2)


def test_eyes_show_no_steps_of_the_grid_they_are_found_on(staged):
    fluid = staged[2].fluid
    assert fluid.shape == (256, 256, 256) and fluid.max() > 0.9
    # a step of 2 mm lets its slope jump at every other voxel
    bends = [np.abs(np.diff(fluid, 2, axis)).max() for axis in range(3)]
    assert max(bends) < 0.1


def test_what_stands_under_either_mask_makes_no_difference(staged, made, tmp_path):
    source, located, _, to_head, _ = staged
    frame, head = made
    rng, written = np.random.default_rng(1), []
    for number in range(2):
        stored, volume = source.stored.copy(), frame.volume.copy()
        if number:
            stored[located.mask] = rng.integers(-30000, 30000, located.mask.sum())
            volume[frame.blank] = rng.random(frame.blank.sum())
        dirty = replace(source, stored=stored)
        stage = Stage.of(dirty, located.mask, Anatomy.of(replace(frame, volume=volume), head), to_head)
        result, _ = recolour(dirty, located.mask, stage, seed=3)
        path = save_like(source, result, tmp_path / f"{number}.nii.gz")
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert certify(source, path, located.mask, located.brain).outside_changed == 0


def test_alignment_does_not_look_under_the_masks(plain_phantom):
    first = load_source(plain_phantom.path)
    found = []
    for number in range(2):
        stored = first.stored.copy()
        if number:
            stored[plain_phantom.face] = np.random.default_rng(0).integers(0, 3000, plain_phantom.face.sum())
        scan = replace(first, stored=stored)
        found.append(align_rigid(scan, scan, plain_phantom.brain, mask=plain_phantom.face,
                                 reference_mask=plain_phantom.face).affine)  # fmt: skip
    assert np.array_equal(*found)


def series_of(source: SourceImage, *factors: float) -> SourceImage:
    """The volume scaled by each factor, as one 4-D file."""
    stored = np.stack([np.rint(source.stored * factor).astype(source.stored.dtype) for factor in factors], -1)
    return load_source(nib.Nifti1Image(stored, source.affine))


def test_every_echo_of_a_series_gets_one_face_in_its_own_brightness(staged, tmp_path):
    source, located, *_, stage = staged
    series = series_of(source, 1.0, 0.4)
    stored, measures = recolour(series, located.mask, stage)
    assert stored.shape == series.stored.shape
    path = save_like(series, stored, tmp_path / "series.nii.gz")
    proof = certify(series, path, located.mask, located.brain)
    assert proof.outside_changed == proof.brain_voxels_changed == 0
    shown = located.mask & (stored[..., 0] > 150)
    ratio = stored[..., 1][shown] / stored[..., 0][shown]
    assert abs(np.median(ratio) - 0.4) < 0.05
    assert measures["registration_correlation"] > 0.7


def test_a_face_left_in_one_volume_is_not_certified(staged, tmp_path):
    source, located, *_ = staged
    series = series_of(source, 1.0, 0.4)
    stored = series.stored.copy()
    stored[located.mask, 0] = 7
    path = save_like(series, stored, tmp_path / "left.nii.gz")
    with pytest.raises(Exception, match="volume 1"):
        certify(series, path, located.mask, located.brain)


def test_a_series_is_composed_volume_by_volume(staged):
    source, located, *_ = staged
    series, synthetic = series_of(source, 1.0, 0.5), np.full(source.shape3, 300, np.float32)
    stored = compose_series(series, located.mask, synthetic, seed=1)
    assert np.array_equal(stored[~located.mask], series.stored[~located.mask])
    assert (stored != series.stored)[located.mask].any(0).all()


@pytest.mark.parametrize("part", ["phase", "real", "imag"])
def test_parts_without_contrast_get_the_scans_own_air(staged, part):
    source, located, *_, stage = staged
    rng = np.random.default_rng(4)
    values = np.where(source.data > 100, 900, rng.integers(-4096, 4096, source.shape3)).astype("i2")
    phase = replace(source, stored=values)
    stored, measures = recolour(phase, located.mask, stage, part=part)
    drawn = stored[located.mask]
    assert measures == {}
    assert abs(drawn.mean()) < 200 and abs(drawn.std() - 4096 * 2 / np.sqrt(12)) < 200
    assert np.array_equal(stored[~located.mask], phase.stored[~located.mask])


def test_maps_with_noise_for_air_get_a_head_in_noise(staged):
    source, located, anatomy, to_head, stage = staged
    rng = np.random.default_rng(5)
    depth = resample(anatomy.depth, head_affine(2), source.affine, source.shape3, through=to_head, outside="edge")
    noisy = np.where(depth > 0, source.data - 500, rng.uniform(-2000, 2000, source.shape3)).astype(np.int16)
    image = replace(source, stored=noisy)
    stored, _ = recolour(image, located.mask, stage)
    air, tissue = located.mask & (depth < -4), located.mask & (depth > 6)
    assert 900 < stored[air].std() < 1400
    assert stored[tissue].std() < 600
    assert np.array_equal(stored[~located.mask], noisy[~located.mask])


def test_thick_slices_are_averages(made):
    # a slice of 6 mm holds the mean of what lies in it, not its middle
    frame, head = made
    from bids_cpmae.imaging.align import average_onto

    affine = nib.affines.from_matvec(np.diag([2.0, 2.0, 6.0]), (-60, 0, -120))
    seen = average_onto(head, head_affine(), affine, (60, 50, 20), through=frame.to_head)
    expected = downsample(head, head_affine(), affine, (60, 50, 20))
    assert np.abs(seen - expected).mean() < 0.02
