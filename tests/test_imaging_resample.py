"""Volumes on other grids, held against SciPy; distances held against those of one side at a time."""

import itertools

import numpy as np
import pytest
from nibabel.affines import from_matvec
from scipy.ndimage import distance_transform_edt, map_coordinates

from bids_cpmae.imaging.distance import closed, distance_across, distance_in, squares_to
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, grid_points
from bids_cpmae.imaging.resample import resample

TARGET, SHAPE = from_matvec(np.diag([1.5, 1.0, 0.8]), [-8.0, 3.0, -5.0]), (30, 41, 52)


@pytest.fixture(scope="module")
def volume():
    return np.random.default_rng(0).random((40, 36, 44)).astype(np.float32)


def _expected(volume, affine, points, outside):
    index = apply_affine(np.linalg.inv(affine), points).reshape(-1, 3).T
    if outside == "zeros":
        volume, index = np.pad(volume, 1), index + 1
    found = map_coordinates(volume.astype(float), index, order=1, mode="nearest")
    return found.reshape(points.shape[:3])


@pytest.mark.parametrize("outside", ["zeros", "edge"])
@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_seen_on_a_grid_however_the_volume_is_stored(volume, order, outside):
    affine = from_matvec(np.diag([-1.2, 1.0, 1.1])[:, order], [12.0, 1.0, -2.0])
    found = resample(volume, affine, TARGET, SHAPE, outside=outside)
    expected = _expected(volume, affine, grid_points(TARGET, SHAPE), outside)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("degrees", [0, 35])
def test_several_volumes_through_a_map(volume, degrees):
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    target = TARGET @ from_matvec([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], [2, -6, 0])
    coarse = from_matvec(np.diag([4.0, 4.0, 4.0]), [-60.0, -60.0, -20.0])
    points = grid_points(coarse, (40, 40, 24)) + [3.0, -2.0, 1.0]
    points += 2 * np.sin(points / 15)
    through = CoordinateMap(coarse, points.astype(np.float32))
    found = resample(np.stack([volume, 2 * volume]), np.eye(4), target, SHAPE, through=through, outside="edge")
    world = apply_affine(target, np.moveaxis(np.indices(SHAPE), 0, -1))
    expected = _expected(volume, np.eye(4), through(world), "edge")
    np.testing.assert_allclose(found[0], expected, atol=3e-3)
    np.testing.assert_allclose(found[1], 2 * found[0], atol=1e-5)


def test_a_single_slice(volume):
    found = resample(volume[:1], np.eye(4), np.eye(4), (3, 36, 44), outside="edge")
    np.testing.assert_allclose(found, np.repeat(volume[:1], 3, axis=0), atol=1e-4)


def test_distance_across_is_that_of_both_sides(volume):
    mask = volume > 0.97
    spacing = np.array([1.0, 1.2, 0.9])
    across = distance_across(mask, spacing)
    np.testing.assert_array_equal(across[mask], distance_in(mask, spacing)[mask])
    np.testing.assert_array_equal(across[~mask], distance_in(~mask, spacing)[~mask])
    np.testing.assert_allclose(across[~mask], distance_transform_edt(~mask, sampling=spacing)[~mask], rtol=1e-6)


@pytest.mark.parametrize("reach", [1.0, 2.5, 4.0])
def test_gaps_are_closed_by_distance(volume, reach):
    mask = volume > 0.98
    near = distance_transform_edt(~mask) <= reach
    np.testing.assert_array_equal(closed(mask, reach), distance_transform_edt(near) > reach)
    np.testing.assert_array_equal(squares_to(mask, 5), np.minimum(np.rint(distance_transform_edt(~mask) ** 2), 25))
