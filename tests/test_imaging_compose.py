"""The new face in the scan: never a look under the mask, no step, and the scan's own noise."""

import warnings
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from phantoms import CASES, Case, draw_head, make_phantom
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.air import find_air
from bids_cpmae.imaging.compose import clear_skin, compose_face
from bids_cpmae.imaging.detail import match_detail, with_texture
from bids_cpmae.imaging.intensity import tissue_level
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.seam import border_step, noise_level
from bids_cpmae.imaging.template import load_template

FINE = Case(spacing=(3.0, 3.0, 3.0), shape=(64, 72, 68))


def synthetic_of(case, gain=0.8):
    """The noise-free head in another gain, which also drifts from side to side, with a haze in its air."""
    clean = draw_head(case)[0]
    drift = np.linspace(0.9, 1.1, clean.shape[0])[:, None, None]
    return (gain * drift * clean + 4).astype(np.float32)


def values_of(source, stored):
    return stored.reshape(source.shape3).astype(float) * source.slope + source.inter


def garbage(kind, dtype, size):
    """What could stand under a mask to lead a careless statistic astray."""
    rng = np.random.default_rng(5)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    if kind == "noise":
        return rng.uniform(0, 250, size).astype(dtype)
    if kind == "extremes":
        return np.where(rng.random(size) < 0.5, limits.min, limits.max).astype(dtype)
    if kind == "zeros":
        return np.zeros(size, dtype)
    if kind == "fractions":
        return (rng.random(size) * 0.999).astype(dtype)
    return np.resize(np.array([np.nan, np.inf, -np.inf]), size).astype(dtype)


@pytest.mark.parametrize("name", ["RAS", "uint8", "scaled", "float32", "float64", "big-endian", "thick-slices"])
def test_what_stands_under_the_mask_changes_no_byte(tmp_path, name):
    case = CASES[name]
    phantom = make_phantom(tmp_path, case)
    synthetic = synthetic_of(case)
    source = load_source(phantom.path)
    expected = compose_face(source, phantom.face, synthetic, seed=3).tobytes()
    kinds = ["noise", "extremes", "zeros"] + (["fractions", "nan"] if source.stored.dtype.kind == "f" else [])
    for kind in kinds:
        stored = source.stored.copy()
        stored[phantom.face] = garbage(kind, stored.dtype, phantom.face.sum())
        astray = replace(source, stored=stored)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the largest floats overflow in the discarded part
            assert not np.array_equal(astray.data, source.data)
            assert compose_face(astray, phantom.face, synthetic, seed=3).tobytes() == expected, kind


def test_every_kind_of_scan_keeps_its_outside(phantom, request):
    case = CASES[request.node.callspec.params["phantom"]]
    source = load_source(phantom.path)
    stored = compose_face(source, phantom.face, synthetic_of(case), seed=0)
    assert stored.dtype == source.stored.dtype
    assert stored.shape == source.stored.shape
    before, after = (part.reshape(source.shape3) for part in (source.stored, stored))
    np.testing.assert_array_equal(before[~phantom.face], after[~phantom.face])
    assert (before != after)[phantom.face].mean() > 0.5
    # the phantom's synthetic head is its own clean self, so the composed one has to look like it, but for its detail
    bright = phantom.face & (phantom.values > 200)
    assert values_of(source, stored)[bright].mean() == pytest.approx(phantom.values[bright].mean(), rel=0.07)


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """A 3 mm phantom, its composition, and regions of air and muscle under the mask."""
    phantom = make_phantom(tmp_path_factory.mktemp("fine"), FINE)
    source = load_source(phantom.path)
    values = values_of(source, compose_face(source, phantom.face, synthetic_of(FINE), seed=1))
    clean = draw_head(FINE)[0]
    air = phantom.face & ~binary_dilation(clean > 0, iterations=3)
    muscle = phantom.face & binary_erosion((clean > 200) & (clean < 350), iterations=2)
    return source, phantom, values, air, muscle


def test_gain_is_found_and_follows_its_drift(composed):
    source, phantom, values, _, _ = composed
    left, right = np.array_split(np.arange(source.shape3[0]), 2)
    for half in (left, right):
        bright = phantom.face[half] & (phantom.values[half] > 200)
        assert values[half][bright].mean() == pytest.approx(phantom.values[half][bright].mean(), rel=0.04)


def test_noise_is_the_scans_own(composed):
    source, phantom, values, air, muscle = composed
    assert air.sum() > 500 and muscle.sum() > 500
    for region in (air, muscle):
        expected = noise_level(phantom.values, region, source.spacing)
        assert noise_level(values, region, source.spacing) == pytest.approx(expected, rel=0.15)
    assert values[air].mean() == pytest.approx(phantom.values[air].mean(), rel=0.1)
    np.testing.assert_allclose(
        np.quantile(values[air], [0.1, 0.5, 0.9]), np.quantile(phantom.values[air], [0.1, 0.5, 0.9]), rtol=0.15, atol=1
    )


def test_no_step_across_the_border(composed):
    source, phantom, values, _, _ = composed
    untouched = border_step(phantom.values, phantom.face, source.spacing)
    assert border_step(values, phantom.face, source.spacing) <= 1.2 * untouched


def test_membrane_closes_a_step_in_the_synthetic_head(tmp_path):
    phantom = make_phantom(tmp_path, FINE)
    source = load_source(phantom.path)
    # brighter by a fifth under the mask and 6 mm around it: no smooth gain can explain that
    patch = binary_dilation(phantom.face, iterations=2)
    synthetic = synthetic_of(FINE) * np.where(patch, 1.2, 1.0)
    values = values_of(source, compose_face(source, phantom.face, synthetic.astype(np.float32), seed=1))
    untouched = border_step(phantom.values, phantom.face, source.spacing)
    assert border_step(values, phantom.face, source.spacing) <= 1.2 * untouched


def test_bone_beside_new_skin_leaves_no_hole_in_it(tmp_path):
    phantom = make_phantom(tmp_path, FINE)
    source = load_source(phantom.path)
    synthetic = synthetic_of(FINE, gain=1.0)
    # dark where it is kept beside the mask, but for a scalp over it: bone, where the new head has flesh
    head = gaussian_filter(synthetic, 1) > 0.25 * tissue_level(synthetic[synthetic > 0])
    beside = binary_dilation(phantom.face, iterations=3) & ~phantom.face
    bone = beside & binary_erosion(head | phantom.face, iterations=3)
    dark = np.where(bone, source.stored // 10, source.stored).astype(source.stored.dtype)
    values = values_of(source, compose_face(replace(source, stored=dark), phantom.face, synthetic, seed=1))
    level = tissue_level(synthetic[synthetic > 0])
    flesh = phantom.face & ~binary_erosion(phantom.face) & (gaussian_filter(synthetic, 1) > 0.8 * level)
    assert flesh.sum() > 100
    assert np.quantile(values[flesh] / synthetic[flesh], 0.05) > 0.7


def test_seed_decides_the_noise(plain_phantom):
    source, synthetic = load_source(plain_phantom.path), synthetic_of(CASES["RAS"])
    one, again, other = (compose_face(source, plain_phantom.face, synthetic, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other)[plain_phantom.face].mean() > 0.5


def test_threads_change_no_bit(plain_phantom):
    source, synthetic = load_source(plain_phantom.path), synthetic_of(CASES["RAS"])
    before, made = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        made.append(compose_face(source, plain_phantom.face, synthetic, seed=1))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(*made)


def test_an_exactly_black_background_stays_black(tmp_path):
    phantom = make_phantom(tmp_path, FINE, noise=0)
    source = load_source(phantom.path)
    stored = compose_face(source, phantom.face, synthetic_of(FINE), seed=0)
    air = phantom.face & ~binary_dilation(phantom.values > 0, iterations=4)
    assert air.sum() > 500
    assert not stored[air].any()


def test_composed_values_stay_in_the_scans_range(tmp_path):
    phantom = make_phantom(tmp_path, CASES["RAS"])
    source = load_source(phantom.path)
    synthetic = synthetic_of(CASES["RAS"])
    synthetic[phantom.face] *= 20
    stored = compose_face(source, phantom.face, synthetic, seed=0)
    kept = source.stored[~phantom.face]
    assert kept.min() <= stored.min() and stored.max() <= kept.max()


def test_whole_numbers_in_float_stay_whole(tmp_path):
    phantom = make_phantom(tmp_path, CASES["float32"])
    source = load_source(phantom.path)
    source = replace(source, stored=np.rint(source.stored))
    stored = compose_face(source, phantom.face, synthetic_of(CASES["float32"]), seed=0)
    np.testing.assert_array_equal(stored, np.rint(stored))


def test_head_mode_without_any_air_outside(tmp_path):
    phantom = make_phantom(tmp_path, FINE)
    source = load_source(phantom.path)
    mask = ~binary_dilation(phantom.brain, iterations=1)
    values = values_of(source, compose_face(source, mask, synthetic_of(FINE), seed=0))
    clean = draw_head(FINE)[0]
    air = mask & ~binary_dilation(clean > 0, iterations=3)
    # nothing is known of its air: dark, noisy, and of the order of the tissue's noise
    assert 0 < values[air].mean() < 60
    skin = mask & (clean > 350)
    assert values[skin].mean() == pytest.approx(phantom.values[skin].mean(), rel=0.15)


def test_thick_slices_are_not_sharper_than_the_scan(tmp_path):
    phantom = make_phantom(tmp_path, FINE, noise=2)
    source = load_source(phantom.path)
    soft = gaussian_filter(phantom.values, (0, 0, 1.2))
    source = replace(source, stored=np.rint(soft).astype(source.stored.dtype))
    values = values_of(source, compose_face(source, phantom.face, synthetic_of(FINE), seed=0))
    inner = binary_erosion(phantom.face, iterations=2)

    def roughness(data):
        return np.sqrt(np.mean(np.diff(data, axis=2)[inner[:, :, 1:] & inner[:, :, :-1]] ** 2))

    assert roughness(values) < 1.3 * roughness(soft)
    assert roughness(phantom.values) > 1.5 * roughness(soft)


@pytest.mark.parametrize("where", ["one voxel", "corner", "one slab"])
def test_small_and_cut_masks(plain_phantom, where):
    source = load_source(plain_phantom.path)
    mask = np.zeros(source.shape3, bool)
    mask[{"one voxel": (24, 45, 20), "corner": np.s_[:6, -6:, :6], "one slab": np.s_[:, -20:]}[where]] = True
    stored = compose_face(source, mask, synthetic_of(CASES["RAS"]), seed=0)
    np.testing.assert_array_equal(stored[~mask], source.stored[~mask])
    assert np.abs(values_of(source, stored) - plain_phantom.values)[mask].mean() < 60


def test_an_empty_mask_changes_nothing(plain_phantom):
    source = load_source(plain_phantom.path)
    stored = compose_face(source, np.zeros(source.shape3, bool), synthetic_of(CASES["RAS"]), seed=0)
    np.testing.assert_array_equal(stored, source.stored)


def test_nothing_to_match_to_is_an_error(plain_phantom):
    source = load_source(plain_phantom.path)
    with pytest.raises(ScanError, match="no tissue outside"):
        compose_face(source, np.ones(source.shape3, bool), synthetic_of(CASES["RAS"]), seed=0)


def test_real_scan(real_data):
    path = real_data / "heads" / "sub-adult" / "anat" / "sub-adult_T1w.nii.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    source = load_source(path)
    spacing, data = source.spacing, source.data
    index = np.stack(np.meshgrid(*(np.arange(n) for n in source.shape3), indexing="ij"), -1)
    _, y, z = np.moveaxis(index @ source.affine[:3, :3].T + source.affine[:3, 3], -1, 0)
    y, z = y - y.mean(), z - z.mean()
    face = (y > 55 + 0.004 * (z + 40) ** 2) & (z < 10)
    # the scan's own self, smoothed, in another gain: a reconstruction as a good network would make it
    synthetic = gaussian_filter(data, 0.8 / spacing) * (0.9 + 0.001 * y).astype(np.float32)
    values = values_of(source, compose_face(source, face, synthetic.astype(np.float32), seed=0))
    assert border_step(values, face, spacing) <= 1.2 * border_step(data, face, spacing)
    smooth = gaussian_filter(data, 2 / spacing)
    # plain air: ghosts of the eyes, brighter than that, are not drawn anew
    air = face & ~binary_dilation(smooth > 12, iterations=4)
    tissue = face & binary_erosion(smooth > 120, iterations=2)
    assert air.sum() > 1000 and tissue.sum() > 1000
    assert noise_level(values, air, spacing) == pytest.approx(noise_level(data, air, spacing), rel=0.15)
    level = noise_level(values, tissue, spacing, robust=True)
    assert level == pytest.approx(noise_level(data, tissue, spacing, robust=True), rel=0.2)


def test_a_slope_between_tissue_and_air_becomes_a_skin():
    along = np.clip(np.arange(40, dtype=np.float32) - 16, 0, 8)[:, None, None] / 8 * 100
    slope = np.broadcast_to(along, (40, 12, 12)).copy()
    slope[34:] = 30  # dark tissue deep inside is no skin
    found = clear_skin(slope, 100.0, np.ones(3))[:, 6, 6]
    assert np.diff(found[:28]).max() > 1.4 * np.diff(slope[:28, 6, 6]).max()
    assert np.all(np.diff(found[:28]) >= 0)
    assert abs(int(np.argmax(found > 40)) - int(np.argmax(slope[:, 6, 6] > 40))) <= 1
    np.testing.assert_array_equal(found[34:], 30)
    np.testing.assert_array_equal(found[:16], 0)


def test_a_soft_face_is_given_the_detail_of_its_scan():
    rng = np.random.default_rng(0)
    blobs = gaussian_filter(rng.standard_normal((48, 48, 48)), 3)
    scan = np.where(blobs > 0, 150, 60).astype(np.float32)
    inside = np.zeros(scan.shape, bool)
    inside[:, 20:] = True
    soft = np.where(inside, gaussian_filter(scan, 1.5), scan)

    def detail(values):
        return (values - gaussian_filter(values, 1.5))[:, 30:44].std()

    found = match_detail(scan, soft, inside, 100.0, np.ones(3), noise=0.0)
    assert detail(soft) < 0.7 * detail(scan)
    assert 1.15 * detail(soft) < detail(found) < detail(scan)
    np.testing.assert_array_equal(found[~inside], soft[~inside])
    beyond = 0.4 * 100
    assert found.min() >= soft.min() - beyond and found.max() <= soft.max() + beyond
    same = match_detail(scan, scan, inside, 100.0, np.ones(3), noise=0.0)
    assert detail(same) == pytest.approx(detail(scan), rel=0.2)
    # noise is no detail to match
    assert detail(match_detail(scan, soft, inside, 100.0, np.ones(3), noise=1e3)) < 0.95 * detail(found)
    # no rim along the skin
    scan[:10], soft[:10] = 0, 0
    found = match_detail(scan, soft, inside, 100.0, np.ones(3), noise=0.0)
    assert found[8:12].min() >= 0 and found[8:12].max() <= soft[8:15].max()
    # and none in the air beside it
    smooth = np.where(inside, gaussian_filter(scan, 1.5), scan)
    air = smooth < 10
    assert air[:, 30:44].sum() > 1000
    found = match_detail(scan, smooth, inside, 100.0, np.ones(3), noise=0.0)
    assert np.all(found[air] <= smooth[air]) and np.ptp(found - smooth) > 20


def test_what_a_head_of_1_mm_cannot_hold_is_not_sharpened():
    # steps of 1 mm seen with voxels of a quarter of that: their edges lie beyond half a cycle a mm
    rng, spacing = np.random.default_rng(0), np.full(3, 0.25)
    scan = 100 + 30 * gaussian_filter(rng.standard_normal((80, 80, 80)), 1).astype(np.float32) / 0.1
    inside = np.zeros(scan.shape, bool)
    inside[:, 28:] = True
    coarse = gaussian_filter(rng.standard_normal((20, 20, 20)), 1)
    steps = (100 + 150 * np.kron(coarse, np.ones((4, 4, 4)))).astype(np.float32)
    found = match_detail(scan, steps, inside, 100.0, spacing, noise=0.0)

    def edges(values):
        """Jumps between blocks over what changes within them."""
        jumps = np.abs(np.diff(values[:, 60:], axis=0)).mean((1, 2))
        return jumps[3::4].mean()

    assert edges(found) < 1.3 * edges(steps)


def test_a_head_in_the_scans_light_keeps_it(plain_phantom):
    # in a scan that is darker on one side than the head that is given: followed, but where that is said to be right
    source, synthetic = load_source(plain_phantom.path), synthetic_of(CASES["RAS"])
    followed, kept = (
        values_of(source, compose_face(source, plain_phantom.face, synthetic, seed=1, shaded=shaded))
        for shaded in (False, True)
    )
    deep = binary_erosion(plain_phantom.face & (synthetic > 0.5 * np.percentile(synthetic, 90)), iterations=2)
    across = np.arange(synthetic.shape[0])[:, None, None] * np.ones(synthetic.shape)
    trends = [np.polyfit(across[deep], (values / synthetic)[deep], 1)[0] for values in (followed, kept)]
    assert trends[0] < -1e-4 and abs(trends[1]) < abs(trends[0]) / 2


def test_a_soft_face_is_given_the_texture_of_its_scan():
    rng = np.random.default_rng(0)
    scan = 100 + 12 * rng.standard_normal((40, 40, 40)).astype(np.float32)
    inside = np.zeros(scan.shape, bool)
    inside[:, 18:] = True
    scan[:4] = 0
    smooth = np.where(scan > 0, 100, 0) + 4 * rng.standard_normal(scan.shape).astype(np.float32) * (scan > 0)
    found = with_texture(np.where(inside, np.nan, scan), smooth, inside, 100.0, np.ones(3), rng)
    assert found[10:, 22:].std() == pytest.approx(12, rel=0.15)
    # less of it on the skin, none in the air
    assert found[4, 22:].std() < 0.7 * found[10:, 22:].std()
    assert found[:4].max() == 0
    # rough enough already
    rough = np.where(scan > 0, 100 + 1.2 * (scan - 100), 0).astype(np.float32)
    np.testing.assert_array_equal(with_texture(scan, rough, inside, 100.0, np.ones(3), rng), rough)


@pytest.fixture(scope="module")
def noisy():
    """The average head at a brain's signal-to-noise ratio of about 9: no block of its air is surely air."""
    template, rng = load_template(), np.random.default_rng(0)
    head = 600 * template.grid.data
    real, imaginary = 65 * rng.standard_normal((2, *head.shape))
    image = nib.Nifti1Image(np.hypot(head + real, imaginary).astype(np.int16), template.grid.affine)
    return load_source(image), head.astype(np.float32)


def test_a_face_meets_a_noisy_scan_without_growing(noisy):
    """Air that cannot be told from tissue is no word that nothing but a brain is kept."""
    source, head = noisy
    mask = load_template().replaced_with_air()
    assert not find_air(np.where(mask, 0, source.data), ~mask, tissue_level(source.data[~mask]), source.spacing).any()
    values = values_of(source, compose_face(source, mask, head, seed=1))
    grown = gaussian_filter(values, 1)[mask] - gaussian_filter(source.data, 1)[mask]
    # ml; 63 where the head is taken for a brain alone and skin is put into the air before it
    assert (grown > 100).sum() * 8e-3 < 20
