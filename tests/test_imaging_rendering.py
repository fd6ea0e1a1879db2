"""The skin of a head as a picture: place, size, turn and light."""

import numpy as np
import pytest

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.headspace import apply_affine
from bids_cpmae.imaging.rendering import FRAME_MM, Surface, View, _depths, _frame, first_hit, head_surface, render
from bids_cpmae.imaging.resample import sample_points
from bids_cpmae.imaging.skin import otsu_threshold

RADIUS_MM = 60


def ball_with_bump(bump=(0.0, 1.0, 0.0)):
    """A ball of tissue, 2 mm voxels, with a knob on its surface in a direction (RAS+)."""
    axis = np.arange(-80.0, 81.0, 2.0)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    knob = RADIUS_MM * np.array(bump) / np.linalg.norm(bump)
    inside = (np.linalg.norm(points, axis=-1) < RADIUS_MM) | (np.linalg.norm(points - knob, axis=-1) < 12)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -80
    noise = np.abs(np.random.default_rng(0).standard_normal(inside.shape))
    return (100 * inside + 2 * noise).astype(np.float32), affine


def brightest_side(picture):
    """Mean brightness of the left and the right half."""
    half = picture.shape[1] // 2
    return picture[:, :half].mean(), picture[:, half:].mean()


@pytest.fixture(scope="module")
def ball():
    return head_surface(*ball_with_bump((1.0, 1.0, 0.6)))


@pytest.fixture(scope="module")
def nosed():
    return head_surface(*ball_with_bump())


def test_otsu_parts_two_classes():
    values = np.concatenate([np.random.default_rng(0).normal(m, 1, 1000) for m in (10, 50)])
    assert values[:1000].max() <= otsu_threshold(values) <= values[1000:].min()


def test_first_hit_is_finer_than_a_voxel():
    field = np.tile(np.clip(np.arange(10) / 4.0 - 0.6, 0, 2)[None, :, None], (2, 1, 2)).astype(np.float32)
    field[1] = 0
    depth = first_hit(field)
    np.testing.assert_allclose(depth[0], 6.4, atol=1e-4)
    assert np.isnan(depth[1]).all()


@pytest.mark.parametrize("view", [View(size=90), View(yaw=50, pitch=-20, size=140), View(pitch=80, size=60)])
def test_rays_meet_the_same_skin_as_on_a_whole_grid(nosed, view):
    # cut where a field of view ends, and with a cavity
    field = nosed.field.copy()
    field[50:70, 60:110, 70:80] = 0
    cut = Surface(field[:, :, 40:], nosed.affine)
    to_field, shape = _frame(cut, view)
    points = apply_affine(to_field, np.moveaxis(np.indices(shape, np.float32), 0, -1))
    whole = first_hit(sample_points(cut.field[None], points)[..., 0])
    np.testing.assert_allclose(_depths(cut, to_field, shape), whole, atol=2e-3)


def test_size_and_type(nosed):
    picture = render(nosed, View(size=200))
    assert picture.shape == (200, 200) and picture.dtype == np.uint8
    width = np.flatnonzero(picture.any(axis=0))
    measured = (width[-1] - width[0] + 1) * FRAME_MM / 200
    assert abs(measured - 2 * RADIUS_MM) < 5


def test_the_subjects_left_is_on_the_right_of_the_picture(ball):
    flat = head_surface(*ball_with_bump((0.0, -1.0, 0.0)))
    view = View(light=(0, 0, 1), size=150)
    changed = np.abs(render(ball, view).astype(int) - render(flat, view))
    rows, columns = np.nonzero(changed > 60)
    assert len(rows) > 20
    lit = np.flatnonzero(render(flat, view).any(axis=1))
    assert columns.mean() < 75  # +x is the subject's right: left in the picture
    assert rows.mean() < lit.mean()  # the knob sits above the middle


def test_yaw_turns_the_nose_to_the_subjects_left(nosed):
    ball = head_surface(*ball_with_bump((0.0, -1.0, 0.0)))
    columns = []
    for yaw in (0, 30):
        view = View(yaw=yaw, light=(0, 0, 1), size=150)
        changed = np.abs(render(nosed, view).astype(int) - render(ball, view)) > 60
        columns.append(np.nonzero(changed)[1].mean())
    assert abs(columns[0] - 75) < 2
    assert columns[1] - columns[0] == pytest.approx(30 * 150 / FRAME_MM, abs=4)


def test_light_from_the_right_lights_the_right(nosed):
    left, right = brightest_side(render(nosed, View(light=(1, 0, 0.5), size=100)))
    assert right > 1.5 * left


def test_orientation_of_storage_does_not_matter(nosed):
    volume, affine = ball_with_bump()
    stored = np.ascontiguousarray(volume.transpose(2, 0, 1)[:, ::-1])
    other = affine[:, [2, 0, 1, 3]].copy()
    other[:3, 3] += other[:3, 1] * (volume.shape[0] - 1)
    other[:3, 1] *= -1
    view = View(size=120)
    difference = np.abs(render(head_surface(stored, other), view).astype(int) - render(nosed, view))
    assert np.percentile(difference, 99) <= 2


def test_air_alone_is_refused():
    with pytest.raises(ScanError, match="head"):
        head_surface(np.zeros((40, 40, 40)), np.eye(4))
    speck = np.zeros((40, 40, 40))
    speck[18:22, 18:22, 18:22] = 1
    with pytest.raises(ScanError, match="as large as a head"):
        head_surface(speck, np.eye(4))
