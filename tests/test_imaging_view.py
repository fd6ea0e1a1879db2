"""A new face that would not fit into the scan's field of view is set back, whatever the scan's orientation."""

import nibabel as nib
import numpy as np
import pytest
from heads import as_image

from bids_cpmae.imaging.headspace import CoordinateMap, covering_grid, grid_points, head_affine, head_shape
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.view import CLEAR_MM, MOST_MM, into_view

FRONT_MM = 60.0
SHAPE = (60, 80, 60)


def head(nose_mm: float) -> np.ndarray:
    """A block with its front at 40 mm and a nose that ends ``nose_mm`` beyond the end of the scans below."""
    x, y, z = np.moveaxis(grid_points(head_affine(), head_shape()), -1, 0)
    block = (np.abs(x) < 50) & (y > -90) & (y < 40) & (np.abs(z) < 50)
    nose = (np.abs(x) < 8) & (y > 0) & (y < FRONT_MM + nose_mm) & (np.abs(z) < 12)
    return 0.5 * (block | nose).astype(np.float32)


def scan(folder, axes: str):
    """A scan of 2 mm whose view ends at `FRONT_MM`, stored along ``axes``; all of its front half is replaced."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-59, FRONT_MM - 2 * SHAPE[1] + 1, -59]
    data = np.zeros(SHAPE, np.float32)
    data[:, SHAPE[1] // 2 :] = 1
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes))
    image = as_image(data, affine).as_reoriented(turn)
    nib.save(image, folder / "a.nii.gz")
    source = load_source(folder / "a.nii.gz")
    return source, source.data > 0


def identity(source) -> CoordinateMap:
    grid, shape = covering_grid(source.affine, source.shape3, 4.0, pad=4.0)
    return CoordinateMap(grid, grid_points(grid, shape).astype(np.float32))


def reach(volume: np.ndarray, source, to_head) -> np.ndarray:
    """How far in front (mm) each column of a head seen through a map has tissue, in (x, z) of an RAS+ grid of 2 mm."""
    grid, shape = covering_grid(source.affine, source.shape3, 2.0)
    seen = resample(volume, head_affine(), grid, shape, through=to_head) > 0.25
    front = grid[1, 3] + 2 * (shape[1] - 1 - seen[:, ::-1].argmax(1)) + 1
    return np.where(seen.any(1), front, -np.inf)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIR"])
def test_a_nose_too_long_ends_before_the_view_does(axes, tmp_path):
    source, mask = scan(tmp_path, axes)
    plain = identity(source)
    long = head(6.0)
    assert reach(long, source, plain).max() == FRONT_MM
    found = reach(long, source, into_view(long, plain, source, mask))
    assert FRONT_MM - CLEAR_MM - 3 <= found.max() <= FRONT_MM - CLEAR_MM + 1
    # it is a nose still, and what lies well behind it is where it was
    assert found.max() > 45
    beside = np.abs(np.arange(len(found)) - len(found) // 2) > 20
    assert np.array_equal(found[beside], reach(long, source, plain)[beside])


@pytest.mark.parametrize("nose_mm", [-10.0, MOST_MM + 5])
def test_what_fits_and_what_never_will_is_left(nose_mm, tmp_path):
    source, mask = scan(tmp_path, "RAS")
    plain = identity(source)
    assert into_view(head(nose_mm), plain, source, mask) is plain


def test_where_nothing_is_replaced_at_the_front_nothing_moves(tmp_path):
    source, mask = scan(tmp_path, "RAS")
    plain = identity(source)
    mask[:, -1] = False
    assert into_view(head(6.0), plain, source, mask) is plain
