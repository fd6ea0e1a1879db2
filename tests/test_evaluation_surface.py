"""Distances between skins, in the right place and of the right size, and shape that gives its owner away."""

import numpy as np
import pytest
from heads import average_head, somebody

from bids_cpmae.evaluation.surface import (
    FAR_MM,
    by_region,
    depth_distance,
    depth_maps,
    face_pixels,
    rigid_on_brain,
    skin_distances,
    skin_of,
)
from bids_cpmae.imaging.headspace import apply_affine
from bids_cpmae.imaging.rendering import head_surface
from bids_cpmae.imaging.skin import REGIONS, region_of


@pytest.fixture(scope="module")
def head():
    return average_head()


@pytest.fixture(scope="module")
def surface(head):
    return head_surface(*head)


def coordinates(affine, shape):
    return np.moveaxis(apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)), -1, 0)


@pytest.mark.parametrize(("point", "name"), [
    ((0, 92, -70), "nose"), ((0, 78, -25), "nose"), ((32, 62, -28), "eyes"), ((-32, 62, -28), "eyes"),
    ((0, 70, -93), "lips"), ((5, 60, -120), "chin"), ((-50, 40, -70), "cheeks"), ((20, 74, -5), "forehead"),
    ((79, -20, -40), "ears"), ((40, 40, -134), "neck"),
])  # fmt: skip
def test_regions_lie_where_the_template_has_them(point, name):
    assert REGIONS[region_of(np.array(point, float))] == name


def test_a_head_is_no_distance_from_itself(surface):
    skin = skin_of(surface)
    assert 20_000 < skin.sum() < 400_000
    index, distances = skin_distances(surface, surface, np.ones_like(skin))
    assert len(index) == 2 * skin.sum() and not distances.any()


def test_a_shaved_nose_is_seen_where_it_was(head, surface):
    values, affine = head
    x, y, z = coordinates(affine, values.shape)
    # everything in front of a plane through the nose goes: about 10 mm at its tip
    nose = (abs(x) < 22) & (z < -50) & (z > -84) & (y > 82)
    shaved = head_surface(np.where(nose, 2, values), affine)
    _, front, _ = coordinates(surface.affine, surface.field.shape)
    index, distances = skin_distances(surface, shaved, front > 40)
    regions = region_of(apply_affine(surface.affine, index))
    found = by_region(distances, regions)
    assert found["nose"] > 1 and distances.max() > 6
    assert max(found[name] for name in ("chin", "forehead", "eyes")) < 0.2
    assert "ears" not in found
    # what was added counts as well as what is gone
    index, distances = skin_distances(shaved, surface, front > 40)
    assert by_region(distances, region_of(apply_affine(surface.affine, index)))["nose"] == pytest.approx(found["nose"])


def test_a_head_without_a_face_is_far_but_not_infinitely(head, surface):
    values, affine = head
    _, y, _ = coordinates(affine, values.shape)
    cut = head_surface(np.where(y > 20, 2, values), affine)
    _, front, _ = coordinates(surface.affine, surface.field.shape)
    _, distances = skin_distances(surface, cut, front > 40)
    assert FAR_MM / 2 < distances.mean() <= FAR_MM and distances.max() == FAR_MM


def test_only_skin_that_is_replaced_counts_where_asked():
    face = face_pixels()
    assert 0.2 < face.mean() < 0.8
    flat = np.zeros(face.shape, np.float32)
    assert depth_distance(flat, np.where(face, 0, 9), face) == 0
    assert depth_distance(flat, np.where(face, 9, 0), face) == 9


def test_shape_tells_people_apart_however_they_lie():
    people = [somebody(number) for number in range(3)]
    depths = []
    for image in people:
        values, affine = image.get_fdata(dtype=np.float32), image.affine
        depths.append(depth_maps(head_surface(values, affine), rigid_on_brain(values, affine)))
    # the first again, turned and moved in the scanner
    values, affine = people[0].get_fdata(dtype=np.float32), people[0].affine
    angle = np.deg2rad(8)
    turn = np.array([[1, 0, 0, 3], [0, np.cos(angle), -np.sin(angle), -6], [0, np.sin(angle), np.cos(angle), 9],
                     [0, 0, 0, 1]])  # fmt: skip
    moved = depth_maps(head_surface(values, turn @ affine), rigid_on_brain(values, turn @ affine))
    distances = [depth_distance(moved, depth) for depth in depths]
    assert np.argmin(distances) == 0 and distances[0] < 0.7 * min(distances[1:])
    with pytest.raises(ValueError, match="share no skin"):
        depth_distance(moved, np.full_like(moved, np.nan))
