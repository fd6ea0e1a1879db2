"""A new face that would not fit into the scan's field of view is set back, whatever the scan's orientation."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from bids_cpmae.imaging.align import HeadFrame, resample_to_scan, stand_in
from bids_cpmae.imaging.contrast import Anatomy
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, grid_points, head_affine, head_shape
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.view import CLEAR_MM, MOST_MM, before_the_end, into_view

FRONT_MM = 60.0
SHAPE = (60, 80, 60)


def head(nose_mm: float) -> np.ndarray:
    """A block with its front at 40 mm and a nose that ends ``nose_mm`` beyond the front end of the scan."""
    x, y, z = np.moveaxis(grid_points(head_affine(), head_shape()), -1, 0)
    block = (np.abs(x) < 50) & (y > -90) & (y < 40) & (np.abs(z) < 50)
    nose = (np.abs(x) < 8) & (y > 0) & (y < FRONT_MM + nose_mm) & (np.abs(z) < 12)
    return 0.5 * (block | nose).astype(np.float32)


def scan(axes: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape of a scan of 2 mm whose view ends at `FRONT_MM`, stored along ``axes``."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-59, FRONT_MM - 2 * SHAPE[1] + 1, -59]
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    shape = np.empty(3, int)
    shape[turn[:, 0].astype(int)] = SHAPE
    return affine @ inv_ornt_aff(turn, SHAPE), tuple(shape)


def beyond(axes: str = "RAS", pitch: float = 0.0) -> np.ndarray:
    """How far each point of head space lies beyond that scan, in which the head is nodded by ``pitch`` degrees."""
    points = grid_points(head_affine(4), head_shape(4))
    cos, sin = np.cos(np.deg2rad(pitch)), np.sin(np.deg2rad(pitch))
    turned = apply_affine(np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]]), points)
    return before_the_end(CoordinateMap(head_affine(4), turned.astype(np.float32)), *scan(axes))


def reach(volume: np.ndarray) -> np.ndarray:
    """How far in front (mm) each column of a head has tissue, (x, z); no less than the block's own front."""
    tissue = volume > 0.25
    front = head_affine()[1, 3] + len(volume) - 1 - tissue[:, ::-1].argmax(1) + 0.5
    return np.where(tissue.any(1), front, -np.inf)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIR"])
def test_a_nose_too_long_ends_before_the_view_does(axes):
    long = head(6.0)
    found = reach(into_view(long, beyond(axes)))
    assert reach(long).max() >= FRONT_MM + 5
    assert FRONT_MM - CLEAR_MM - 2 <= found.max() <= FRONT_MM - CLEAR_MM + 2
    # it is a nose still, and what lies beside it or well behind it is where it was
    beside = np.abs(np.arange(256) - 127.5) > 40
    assert np.array_equal(found[beside], reach(long)[beside])
    assert (found > 45).sum() > 0.7 * (reach(long) > 45).sum()


def test_the_end_may_be_turned_against_the_head():
    long = head(5.0)
    place = beyond(pitch=15.0)
    out = into_view(long, place)
    fine = np.repeat(np.repeat(np.repeat(place, 4, 0), 4, 1), 4, 2)
    assert fine[long > 0.25].max() > 2 and fine[out > 0.25].max() < 1


@pytest.mark.parametrize("nose_mm", [-10.0, MOST_MM + 5])
def test_what_fits_and_what_never_will_is_left(nose_mm):
    volume = head(nose_mm)
    assert into_view(volume, beyond()) is volume


def test_all_is_in_view_where_nothing_is_known_of_it():
    volume = head(6.0)
    assert into_view(volume, None) is volume
    assert into_view(volume, beyond() - 200) is volume


@pytest.mark.parametrize("known", [True, False])
def test_the_scan_and_its_other_contrasts_show_the_same_nose(known):
    """What a T1w scan is composed of and what other contrasts are translated from end at the same place."""
    same = CoordinateMap(head_affine(4), grid_points(head_affine(4), head_shape(4)).astype(np.float32))
    empty = np.zeros(head_shape(), np.float32)
    frame = HeadFrame(empty, empty == 0, same, same, 1.0, beyond=beyond() if known else None)
    affine, shape = scan("RAS")
    source = SourceImage(nib.Nifti1Header(), affine, np.zeros(shape, np.int16))
    seen = resample_to_scan(frame, head(6.0), source, np.ones(shape, bool))
    assert (seen[:, -1].max() > 0.25) != known
    assert (reach(Anatomy.of(frame, head(6.0)).value).max() > FRONT_MM) != known
    assert stand_in(frame).beyond is frame.beyond
