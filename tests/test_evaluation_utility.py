"""Utility: the measures by hand, one scan through all steps, and failures that must not end in a silent zero."""

import nibabel as nib
import numpy as np
import pytest
from heads import as_image, average_head
from scipy.ndimage import distance_transform_edt

from bids_cpmae.evaluation import pipelines, utility
from bids_cpmae.evaluation.pipelines import STEPS, Products, entropy_focus, head_mask, image_quality
from bids_cpmae.imaging.headspace import apply_affine, covering_grid, grid_points
from bids_cpmae.imaging.registration import Grid
from bids_cpmae.imaging.resample import downsample
from bids_cpmae.imaging.template import BRAIN_BIT, load_template

ITERATIONS = 60
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
NUMBERS = {
    "tiv_ml": 1500.0, "csf_ml": 200.0, "gm_ml": 700.0, "wm_ml": 600.0, "snr_total": 10.0, "cjv": 0.5, "cnr": 3.0,
    "efc": 0.5, "fber": 100.0, "wm2max": 0.7,
}  # fmt: skip


def made(shift=0.0, *, grown=0, **numbers):
    """Products on a 2 mm grid of 20^3 whose maps lie ``shift`` mm to the right; ``grown`` slices more brain."""
    brain = np.zeros((20, 20, 20), bool)
    brain[5 : 15 + grown, 5:15, 5:15] = True
    tissues = brain.astype(np.uint8)
    tissues[:, :, 8:], tissues[:, :, 12:] = 2 * brain[:, :, 8:], 3 * brain[:, :, 12:]
    points = grid_points(np.diag([4.0, 4.0, 4.0, 1.0]), (10, 10, 10)).astype(np.float32)
    points[..., 0] += shift
    return Products(AFFINE, brain, brain, tissues, points, 2 * points, NUMBERS | numbers)


def test_quality_by_hand():
    """Two values a tissue: the mean lies between them, the standard deviation is half their distance."""
    data, head = np.zeros((12, 12, 12)), np.zeros((12, 12, 12), bool)
    head[4:8, 4:8, 4:8] = True
    tissues = np.zeros(data.shape, np.uint8)
    tissues[4:6, 4:8, 4:8], tissues[6, 4:8, 4:8], tissues[7, 4:8, 4:8] = 1, 2, 3
    checkers = np.where(np.indices(data.shape).sum(0) % 2, 1.0, -1.0)
    for label, (mean, half) in {1: (40, 8), 2: (100, 10), 3: (200, 20)}.items():
        data[tissues == label] = (mean + half * checkers)[tissues == label]
    data[~head] = (3 + checkers)[~head]
    found = image_quality(data, tissues, head)
    n_csf, n = 32, 16
    assert found["snr_csf"] == pytest.approx(40 / 8 / np.sqrt(n_csf / (n_csf - 1)))
    assert found["snr_gm"] == found["snr_wm"] == pytest.approx(10 / np.sqrt(n / (n - 1)))
    assert found["snr_total"] == pytest.approx((found["snr_csf"] + 2 * found["snr_gm"]) / 3)
    assert found["cjv"] == pytest.approx(30 / 100)
    # air is 2 and 4: variance 1, mean energy 10
    assert found["cnr"] == pytest.approx(100 / np.sqrt(10**2 + 20**2 + 1), rel=1e-3)
    energy = (32 * (40**2 + 8**2) + 16 * (100**2 + 10**2) + 16 * (200**2 + 20**2)) / 64
    assert found["fber"] == pytest.approx(energy / 10, rel=1e-2)
    assert found["wm2max"] == pytest.approx(200 / 220, rel=1e-2)
    assert "fber" not in image_quality(np.where(head, data, 0), tissues, head)


def test_entropy_focus_goes_from_one_voxel_to_all():
    one = np.zeros((4, 4, 4))
    one[1, 2, 3] = 7
    assert entropy_focus(one) == 0 and entropy_focus(np.full((4, 4, 4), 3.0)) == pytest.approx(1)
    two = one.copy()
    two[0, 0, 0] = 7
    # each holds 1 / sqrt(2): sqrt(2) ln sqrt(2), over sqrt(64) ln sqrt(64)
    assert entropy_focus(two) == pytest.approx(np.sqrt(2) * np.log(np.sqrt(2)) / (8 * np.log(8)))


def test_head_mask_is_the_largest_piece_without_holes():
    data = np.zeros((30, 30, 30))
    data[5:20, 5:20, 5:20] = 100
    whole = data > 0
    data[10:13, 10:13, 10:13] = 0
    data[25:28, 25:28, 25:28] = 100
    assert np.array_equal(head_mask(data), whole)


def test_dice_by_hand():
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 1], bool)
    assert utility.dice(a, b) == pytest.approx(2 / 5) and utility.dice(a, a) == 1 and utility.dice(a, ~a) == 0


def test_points_in_the_brain_are_found_through_the_affine():
    brain = np.zeros((10, 10, 10), bool)
    brain[3, 4, 5] = True
    affine = np.array([[0, -2, 0, 30], [3, 0, 0, -7], [0, 0, 1.5, 2], [0, 0, 0, 1.0]])
    points = np.zeros((2, 2, 1, 3)) + 500.0
    points[1, 0, 0] = apply_affine(affine, np.array([3, 4, 5.0])) + 0.4
    assert np.argwhere(utility.brain_in_reference(points, brain, affine)).tolist() == [[1, 0, 0]]


def test_compare_by_hand():
    original, inside = made(), np.zeros((10, 10, 10), bool)
    inside[3:7, 3:7, 3:7] = True
    same = utility.compare(original, made(), inside)
    assert {same.pop(name) for name in utility.DICE} == {1.0} and set(same.values()) == {0.0}
    moved = made(1.5, grown=2, tiv_ml=1800.0, wm2max=0.63)
    moved.affine_points[~inside] += 100
    found = utility.compare(original, moved, inside)
    assert found["dice_brain"] == found["dice_plain_brain"] == pytest.approx(2 * 1000 / (1000 + 1200))
    assert found["dice_gm"] == pytest.approx(2 * 400 / (400 + 480)) == found["dice_tissues"]
    assert found["tiv_ml_percent"] == pytest.approx(20) and found["gm_ml_percent"] == 0
    assert found["wm2max_percent"] == pytest.approx(-10)
    assert found["affine_mm"] == pytest.approx(1.5) and found["deformable_mm"] == pytest.approx(3)
    assert set(found) == set(utility.MEASURES) - {"brain_changed"}


def test_what_failed_has_no_measures_and_is_counted():
    inside = np.ones((10, 10, 10), bool)
    broken = Products(AFFINE, affine_points=made().affine_points, failures={STEPS[0]: "3304 ml are no brain"})
    found = utility.compare(made(), broken, inside)
    assert found == {"affine_mm": 0.0}
    good = utility.compare(made(), made(), inside) | {"brain_changed": 0.0}
    results = [
        ("original", "sub-1", {}, {}), ("original", "sub-2", {}, {}),
        ("cut", "sub-1", {}, good), ("cut", "sub-2", broken.failures, found),
        ("gone", "sub-1", broken.failures, {}), ("gone", "sub-2", broken.failures, {}),
    ]  # fmt: skip
    original, cut, gone = (dict(zip(utility.HEADER, row, strict=True)) for row in utility.rows_of(results, 0))
    assert (original["failures"], cut["failures"], gone["failures"]) == ("0/6", "1/6", "2/6")
    assert float(cut["dice_brain_median"]) == float(cut["dice_brain_worst"]) == 1
    assert gone["dice_brain_median"] is None and gone["tiv_ml_percent"] is None and gone["affine_mm"] is None


@pytest.fixture(scope="module")
def coarse():
    """The average head at 4 mm with a dark skull, which averaging has washed out, and its affine."""
    values, affine = average_head()
    template = load_template()
    index = np.linalg.inv(template.grid.affine) @ affine
    corner = np.rint(index[:3, 3]).astype(int)
    brain = template.mask(BRAIN_BIT)[tuple(slice(c, c + n) for c, n in zip(corner, values.shape, strict=True))]
    depth = 2 * distance_transform_edt(~brain)
    values[(depth > 3) & (depth < 9)] *= 0.25
    grid, shape = covering_grid(affine, values.shape, 4.0)
    return downsample(values, affine, grid, shape), grid


def scan(path, values, affine):
    nib.save(as_image(values, affine), path)
    return path


def refuse(*args, **kwargs):
    raise RuntimeError("ITK says\n no")


def test_a_scan_goes_through_all_steps(coarse, tmp_path, monkeypatch):
    path = scan(tmp_path / "a.nii.gz", *coarse)
    reference, kept = load_template().grid, tmp_path / "kept"
    first = pipelines.process(path, reference, folder=kept, iterations=ITERATIONS)
    assert first.failures == {}
    assert 600 < first.numbers["tiv_ml"] < 2500 and np.isfinite(list(first.numbers.values())).all()
    means = [coarse[0][first.tissues == number].mean() for number in (1, 2, 3)]
    assert means == sorted(means) and set(np.unique(first.tissues[first.brain])) <= {0, 1, 2, 3}
    # the template's own head: normalisation must find that it lies where it lies
    inside = utility.brain_in_reference(first.deformable_points, first.brain, first.affine)
    where = grid_points(*covering_grid(reference.affine, reference.data.shape, pipelines.MAP_MM))
    for points in (first.affine_points, first.deformable_points):
        assert np.median(np.linalg.norm(points - where, axis=-1)[inside]) < 2
    again = pipelines.process(path, reference, iterations=ITERATIONS)
    found = utility.compare(first, again, inside)
    assert found["dice_brain"] == 1 and found["affine_mm"] == found["deformable_mm"] == 0
    assert found["dice_tissues"] > 0.998
    # half the brain gone; its registration would try all its starts
    values = coarse[0].copy()
    values[: len(values) // 2] = 0
    monkeypatch.setattr(pipelines, "register", refuse)
    cut = pipelines.process(scan(tmp_path / "cut.nii.gz", values, coarse[1]), reference, iterations=ITERATIONS)
    worse = utility.compare(first, cut, inside)
    assert worse.get("dice_brain", 0) < 0.9 and worse.get("dice_tissues", 0) < 0.9
    assert set(cut.failures) >= {STEPS[2]} and "affine_mm" not in worse
    # kept: nothing is run again
    monkeypatch.setattr(pipelines, "_attempt", lambda *args: pytest.fail("run again"))
    loaded = pipelines.process(path, reference, folder=kept, iterations=ITERATIONS)
    assert np.array_equal(loaded.tissues, first.tissues) and loaded.numbers == first.numbers


def test_what_is_added_before_the_face_moves_the_plain_brain_most(coarse, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "register", refuse)
    values, affine = coarse
    more = values.copy()
    more[:, -4:, 20:30] = values.max() / 2
    own, other = (
        pipelines.process(scan(tmp_path / f"{name}.nii.gz", data, affine), load_template().grid, iterations=150)
        for name, data in (("own", values), ("other", more))
    )
    plain, recentred = (utility.dice(getattr(own, name), getattr(other, name)) for name in ("plain_brain", "brain"))
    assert plain < 0.975 and recentred > 0.985


def test_steps_that_fail_are_named_with_their_reason(coarse, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "register", refuse)
    monkeypatch.setattr(pipelines, "BRAIN_ML", (5000.0, 6000.0))
    path = scan(tmp_path / "a.nii.gz", *coarse)
    found = pipelines.process(path, load_template().grid, folder=tmp_path / "kept", iterations=1)
    assert set(found.failures) == set(STEPS)
    assert "ml are no brain" in found.failures[STEPS[0]] and found.failures[STEPS[2]].endswith("ITK says no")
    assert found.brain is None and found.tissues is None and found.deformable_points is None
    assert not set(found.numbers) & {"tiv_ml", "gm_ml", "snr_total"}
    # the failure is remembered with its reason
    kept = pipelines.process(path, load_template().grid, folder=tmp_path / "kept", iterations=1)
    assert kept.failures == found.failures and kept.brain is None


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
def test_a_bare_tissue_class_is_a_failure(monkeypatch):
    class Flat:
        """A tool that finds one class only."""

        @staticmethod
        def numpy():
            return np.ones((12, 12, 12), np.float32)

    import ants

    monkeypatch.setattr(ants, "n4_bias_field_correction", lambda image, **kwargs: image)
    monkeypatch.setattr(ants, "atropos", lambda **kwargs: {"segmentation": Flat})
    products = Products(AFFINE, np.ones((12, 12, 12), bool))
    grid = Grid(np.random.default_rng(0).random((12, 12, 12)), AFFINE)
    pipelines._attempt(products, STEPS[1], lambda: pipelines._segment(products, grid))
    assert "hardly any" in products.failures[STEPS[1]] and products.tissues is None
