"""New skins are moved to where the scan's skin is, and no dark part of a head is taken for the air around it."""

import numpy as np
import pytest

from bids_cpmae.imaging import skinfit
from bids_cpmae.imaging.skinfit import cover_bone, cover_kept, meet_skin, thicken


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_a_new_skin_meets_the_old_one_where_the_mask_ends(spacing):
    """Two half spaces whose skins lie 4 mm apart: no step at the border, the new one's own place far inside."""
    y, z = np.mgrid[:40, :80]
    scan = np.where(y < 20, 100.0, 0.0).astype(np.float32)[None].repeat(30, 0)
    own = 20 + int(4 / spacing)
    new = np.where(y < own, 100.0, 0.0).astype(np.float32)[None].repeat(30, 0)
    inside = np.broadcast_to(z > 30, scan.shape)
    found = meet_skin(np.where(inside, np.nan, scan), new, inside, 100.0, np.full(3, spacing))
    skin = (found[15] > 50).sum(0)
    assert abs(skin[31] - 20) <= 1 and skin[79] == own
    assert np.abs(np.diff(skin)).max() <= 1
    np.testing.assert_allclose(meet_skin(new, new, inside, 100.0, np.full(3, spacing)), new, atol=1e-3)


def test_skins_that_lie_closer_than_is_worth_moving_stay():
    """The new skin 0.03 mm off where the mask ends: nothing moves, and nothing is sought at no place."""
    from bids_cpmae.imaging.skinfit import _moved

    new = np.random.default_rng(0).random((16, 16, 16), dtype=np.float32)
    height = np.broadcast_to(np.arange(16.0) - 8, new.shape).astype(np.float32)
    apart = np.full(new.shape, 0.03, np.float32)
    assert _moved(new, np.ones(3, int), height, apart, np.ones(3)) is new


def test_a_new_scalp_covers_the_kept_shell():
    """Head mode: a new head whose skin lies 2 mm inside the kept shell on one side is moved out there alone."""
    x, y, z = np.mgrid[:64, :64, :64] - 32.0
    shell = np.sqrt(x**2 + y**2 + z**2) < 20
    new = np.where(np.sqrt((x + 8) ** 2 + y**2 + z**2) < 26, 100, 0).astype(np.float32)
    found = cover_kept(new, ~shell, 100.0, np.ones(3))
    assert new[32 + 20, 32, 32] == 0
    assert found[32 + 20 : 32 + 23, 32, 32].min() > 50
    # it is thick enough on the other side, and stays where it was
    np.testing.assert_allclose(found[:8, 32, 32], new[:8, 32, 32], atol=5)
    thick = np.where(np.sqrt(x**2 + y**2 + z**2) < 28, 100, 0).astype(np.float32)
    np.testing.assert_array_equal(cover_kept(thick, ~shell, 100.0, np.ones(3)), thick)


def head_of_layers(radius, shape=(96, 96, 96), skull=0):
    """Brain, dark skull of 8 mm and scalp of 6 mm, cut off below and behind, as a box around a face cuts it."""
    x, y, z = np.indices(shape, np.float32)
    far = np.sqrt((x - 48) ** 2 + (y - 20) ** 2 + (z - 20) ** 2)
    bone = (far >= radius - 14) & (far <= radius - 6)
    return np.where(far < radius, np.where(bone, skull, 100), 0).astype(np.float32)


def test_a_skull_as_dark_as_air_moves_no_skin():
    """Two heads of one size, one without a skull in it: nothing lies apart, whatever reaches the box's border."""
    scan, filled = head_of_layers(40), head_of_layers(40, skull=100)
    _, y, z = np.indices(scan.shape)
    inside = np.broadcast_to((y > 40) & (z < 40), scan.shape)
    np.testing.assert_array_equal(meet_skin(scan, filled, inside, 100.0, np.ones(3)), filled)


def test_a_larger_head_is_met_over_the_skull_too():
    """The new head is 4 mm smaller; where the mask ends over the skull its skin is carried out, skull and all."""
    scan, new = head_of_layers(40), head_of_layers(36)
    _, y, z = np.indices(scan.shape)
    inside = np.broadcast_to((y > 40) & (z < 40), scan.shape)
    found = meet_skin(np.where(inside, np.nan, scan), new, inside, 100.0, np.ones(3))

    def skin(head):  # along a ray just under the mask's upper border
        return 20 + np.flatnonzero(head[48, 20:, 37] > 50).max()

    assert skin(scan) - skin(new) >= 3
    assert abs(skin(found) - skin(scan)) <= 1


def test_no_kept_bone_of_a_forehead_is_left_bare(monkeypatch):
    """The scan's forehead stood out where the mask is and its bone is kept: the new head comes to lie over it."""
    x, y, z = np.indices((96, 96, 96), np.float32)
    far = np.sqrt((x - 48) ** 2 + (y - 20) ** 2 + (z - 20) ** 2)
    scan, brain = head_of_layers(46), far < 32
    inside = (far > 37) & (z < 44)
    over = inside & (far > 37.5) & (far < 40) & (z > 30) & (z < 40) & (y > 30)
    small, large = head_of_layers(36), head_of_layers(46, skull=100)
    read = np.where(inside, np.nan, scan)
    found = cover_bone(read, small, inside, 100.0, np.ones(3), brain)
    assert small[over].max() == 0 and (found[over] > 50).mean() > 0.9
    np.testing.assert_array_equal(cover_bone(read, large, inside, 100.0, np.ones(3), brain), large)
    # a skin that comes to lie there is no darker than flesh, whatever was drawn, but next to bone
    outer = inside & (far > 38.5) & (far < 40) & (z > 30) & (z < 40) & (y > 44)
    dim = cover_bone(read, np.where(small > 0, 45, 0).astype(np.float32), inside, 100.0, np.ones(3), brain)
    assert np.median(dim[outer]) > 70 > 60 > np.median(dim[inside & (far < 38)])
    # a skull that a nostril opens to the air lies under its scalp all the same
    open_skull = head_of_layers(46)
    open_skull[46:50, 60:, 20:24] = 0
    np.testing.assert_array_equal(cover_bone(read, open_skull, inside, 100.0, np.ones(3), brain), open_skull)
    # behind the brain there is no forehead
    before = inside & (y > 40)
    read_before = np.where(before, np.nan, scan)
    assert (cover_bone(read_before, small, before, 100.0, np.ones(3), brain)[over & (y > 44)] > 50).mean() > 0.9
    turned = [part[:, ::-1] for part in (read_before, small, before, brain)]
    np.testing.assert_array_equal(cover_bone(*turned[:3], 100.0, np.ones(3), turned[3]), turned[1])
    # dark and far from the brain it is an airway
    np.testing.assert_array_equal(cover_bone(read, small, inside, 100.0, np.ones(3), far < 10), small)
    # a few blocks are no forehead
    monkeypatch.setattr(skinfit, "LEAST_BARE", 10**6)
    assert cover_bone(read, small, inside, 100.0, np.ones(3), brain) is small


def test_more_flesh_lies_under_the_skin_and_not_next_to_kept_skin():
    """3 mm more: the skin moves out as far where the mask ends far away, not at its border, and no bone with it."""
    head = head_of_layers(40)
    _, y, z = np.indices(head.shape)
    inside = np.broadcast_to((y > 40) & (z < 50), head.shape)
    brain = np.zeros(head.shape, bool)
    found = thicken(head, inside, 100.0, np.ones(3), brain, np.full(head.shape, 3, np.float32))

    def skin(volume, z):
        return np.flatnonzero(volume[48, :, z] > 50).max()

    assert skin(found, 20) - skin(head, 20) == 3
    assert skin(found, 49) == skin(head, 49)
    np.testing.assert_array_equal(found[48, 20:50, 20] > 50, head[48, 20:50, 20] > 50)
    np.testing.assert_array_equal(thicken(head, inside, 100.0, np.ones(3), brain, np.zeros_like(head)), head)
