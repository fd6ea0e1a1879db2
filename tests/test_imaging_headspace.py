"""Grids, coordinate maps, resampling and registration."""

import numpy as np
import pytest
from heads import average_head

from bids_cpmae.imaging.headspace import (
    AC_VOXEL,
    CoordinateMap,
    Displacement,
    apply_affine,
    covering_grid,
    grid_points,
    head_affine,
    head_shape,
)
from bids_cpmae.imaging.registration import Fixed, Grid, register
from bids_cpmae.imaging.resample import downsample, resample
from bids_cpmae.imaging.template import load_template


@pytest.mark.parametrize("spacing", [1, 2, 4])
def test_head_space_has_its_origin_at_the_commissure_at_every_spacing(spacing):
    affine, shape = head_affine(spacing), head_shape(spacing)
    corner = apply_affine(affine, np.array([-0.5, -0.5, -0.5]))
    far = apply_affine(affine, np.array(shape) - 0.5)
    assert np.allclose(corner, -np.array(AC_VOXEL) - 0.5)
    assert np.allclose(far - corner, 256)


def test_mirroring_the_first_axis_mirrors_the_head():
    points = grid_points(head_affine(2), head_shape(2))
    assert np.allclose(points[::-1, ..., 0], -points[..., 0])


def test_covering_grid_holds_every_corner():
    angle = np.deg2rad(20)
    cos, sin = np.cos(angle), np.sin(angle)
    affine = np.array([[0, -sin, cos, 5], [-1.2, 0, 0, 3], [0, 2 * cos, sin, 1], [0, 0, 0, 1]])
    shape = (30, 20, 40)
    cover, size = covering_grid(affine, shape, 2.0)
    index = apply_affine(np.linalg.inv(cover), apply_affine(affine, np.array([[0, 0, 0], [29, 19, 39], [29, 0, 39]])))
    assert (index >= -0.5).all() and (index <= np.array(size) - 0.5).all()


def test_resampling_a_linear_ramp_is_exact():
    affine = np.diag([2.0, 3.0, 1.0, 1.0])
    ramp = grid_points(affine, (20, 20, 20)) @ np.array([1.0, -2.0, 0.5])
    target = np.diag([1.5, 1.5, 1.5, 1.0])
    target[:3, 3] = 4
    found = resample(ramp, affine, target, (8, 8, 8))
    wanted = grid_points(target, (8, 8, 8)) @ np.array([1.0, -2.0, 0.5])
    assert np.allclose(found, wanted, atol=1e-3)


def test_outside_the_field_of_view_is_zero_or_the_edge():
    volume = np.full((8, 8, 8), 3.0)
    far = np.diag([1.0, 1, 1, 1])
    far[0, 3] = 100
    assert (resample(volume, np.eye(4), far, (2, 2, 2)) == 0).all()
    assert (resample(volume, np.eye(4), far, (2, 2, 2), outside="edge") == 3).all()


def test_coordinate_maps_go_on_linearly_beyond_their_grid():
    shift = np.array([5.0, -3.0, 2.0])
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    field = CoordinateMap(affine, (grid_points(affine, (6, 6, 6)) + shift).astype(np.float32))
    points = np.array([[1.0, 2, 3], [-10, 0, 40], [8, 8, 8]])
    assert np.allclose(field(points), points + shift, atol=1e-3)


@pytest.mark.parametrize("factors", [(1, 1, 1), (1.05, 1.05, 1.05), (0.9, 1.0, 1.1)])
def test_a_map_tells_how_much_longer_things_become(factors):
    affine, shape = head_affine(16), head_shape(16)
    cos, sin = np.cos(0.4), np.sin(0.4)
    turned = grid_points(affine, shape) * factors @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) + (9, -4, 2)
    assert CoordinateMap(affine, turned.astype(np.float32)).stretch == pytest.approx(np.prod(factors) ** (1 / 3), 1e-4)


@pytest.mark.parametrize("turn", ["none", "axes change places", "oblique"])
def test_resampling_through_a_map_looks_where_the_map_says(turn):
    """A ramp, in which every place has a value of its own, through a map that bends, on grids that lie differently."""
    rng = np.random.default_rng(0)
    affine, weights = np.diag([4.0, 4.0, 4.0, 1.0]), np.array([1.0, -2.0, 0.5])
    places = grid_points(affine, (9, 8, 7))
    bend = CoordinateMap(affine, (places + rng.uniform(-3, 3, places.shape)).astype(np.float32))
    volume = np.diag([1.0, 1.5, 2.0, 1.0])
    volume[:3, 3] = -20
    ramp = grid_points(volume, (80, 60, 50)) @ weights
    target = {
        "none": np.diag([1.0, 1.2, 1.4, 1.0]),
        "axes change places": np.array([[0, 1.2, 0, 1], [0, 0, -1.0, 22], [1.3, 0, 0, 2], [0, 0, 0, 1]]),
        "oblique": np.array([[0.9, -0.4, 0, 9], [0.4, 0.9, 0, 2], [0, 0, 1.0, 3], [0, 0, 0, 1]]),
    }[turn]
    shape = (16, 17, 15)
    found = resample(np.stack([ramp, 2 * ramp]), volume, target, shape, through=bend)
    points = grid_points(target, shape)
    inside = ((points >= 0) & (points <= 4 * (np.array([9, 8, 7]) - 1))).all(-1)
    assert inside.mean() > 0.6
    np.testing.assert_allclose(found[0][inside], (bend(points) @ weights)[inside], atol=2e-3)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-5)
    shifted = resample(ramp, volume, target, shape, through=Displacement(affine, bend.shift()))
    np.testing.assert_allclose(shifted, found[0], atol=1e-4)


def test_downsampling_keeps_the_mean_and_quietens_noise():
    rng = np.random.default_rng(0)
    noise = 10 + rng.standard_normal((40, 40, 40))
    small = downsample(noise, np.diag([1.0, 1, 1, 1]), np.diag([4.0, 4, 4, 1]), (10, 10, 10))
    assert small[2:8, 2:8, 2:8].mean() == pytest.approx(10, abs=0.1)
    assert small[2:8, 2:8, 2:8].std() < 0.4


@pytest.fixture(scope="module")
def moved():
    """The average head, nodded by 12 degrees, shifted and 6 % larger, and where its points went."""
    values, affine = average_head()
    angle = np.deg2rad(12)
    matrix = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]) * 1.06
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = matrix, (7, -12, 9)
    grid, shape = covering_grid(truth @ affine, values.shape, 2.0)
    return Grid(resample(values, truth @ affine, grid, shape), grid), truth


@pytest.mark.parametrize("deformable", [False, True])
def test_registration_finds_a_known_move_and_its_way_back(moved, deformable, tmp_path):
    scan, truth = moved
    found = register(Fixed.of(load_template().grid), scan, folder=tmp_path, deformable=deformable)
    points = np.array([[0, 0, 0], [40, -30, 30], [-30, 40, -20], [0, 70, -60.0]])
    there = found.fixed_to_moving(head_affine(4), head_shape(4))(points)
    assert np.abs(there - apply_affine(truth, points)).max() < 3
    back = found.moving_to_fixed(*covering_grid(scan.affine, scan.data.shape, 4.0))(there)
    assert np.abs(back - points).max() < 0.5
    assert found.similarity > 0.9


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("side", [-1, 1])
def test_registration_bears_the_light_of_a_coil(moved, axis, side, tmp_path):
    scan, truth = moved
    along = np.linspace(-1, 1, scan.data.shape[axis]).reshape([-1 if axis == other else 1 for other in range(3)])
    lit = Grid(scan.data * np.exp(1.2 * side * along), scan.affine)
    found = register(Fixed.of(load_template().grid), lit, folder=tmp_path)
    points = np.array([[0, 0, 0], [40, -30, 30], [-30, 40, -20], [0, 70, -60.0]])
    there = found.fixed_to_moving(head_affine(4), head_shape(4))(points)
    off = np.linalg.norm(there - apply_affine(truth, points), axis=1)
    assert off.max() < 6 and off.mean() < 4, off


@pytest.mark.parametrize("noise", [0, 0.05, 0.2])
def test_what_changes_slowly_is_evened_out(noise):
    place = np.moveaxis(np.indices((40, 50, 60)), 0, -1) * 4.0
    inside = np.linalg.norm(place - [80, 100, 120], axis=-1) < 70
    light = np.exp((place[..., 2] - 120) / 80)
    rng = np.random.default_rng(0)
    real, imaginary = noise * rng.standard_normal((2, *light.shape))
    values = np.hypot(inside * light + real, imaginary)
    values[:3] = 0
    evened = Grid(values, np.diag([4.0, 4, 4, 1])).evened().data
    low, high = (float(evened[inside & near].mean()) for near in (place[..., 2] < 80, place[..., 2] > 160))
    assert 0.6 < low / high < 1.2
    assert np.median(evened[~inside & (place[..., 0] > 8)]) < 0.3 * low
    assert (evened[:3] == 0).all() and (evened[3:][values[3:] > 0] > 0).all()


def test_registration_repeats_itself(moved, tmp_path):
    folders = [tmp_path / name for name in "ab"]
    fields = []
    for folder in folders:
        folder.mkdir()
        found = register(Fixed.of(load_template().grid), moved[0], folder=folder, seed=3)
        fields.append(found.fixed_to_moving(head_affine(8), head_shape(8)).points)
    assert np.array_equal(*fields)


@pytest.mark.parametrize("shape", [(9, 10, 11), (9, 10, 1)])
def test_a_map_goes_on_beyond_its_grid_as_it_was(shape):
    angle = np.deg2rad(20)
    nod = np.eye(4)
    nod[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    nod[:3, 3] = 3, -7, 11
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -20, 5, 30
    turned = CoordinateMap(affine, apply_affine(nod, grid_points(affine, shape)).astype(np.float32))
    flat = shape[2] == 1
    beyond = apply_affine(affine, np.array([[-20, 3, 0], [4, 30, 0], [2, 2, 0 if flat else 40], [5, 5, 0]], float))
    assert np.allclose(turned(beyond), apply_affine(nod, beyond), atol=1e-2)
