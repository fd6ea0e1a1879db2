"""One scan from file to file: whatever its orientation, type and voxel size, it comes back in its own."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_tiny_weights
from heads import as_image, average_head
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.ndimage import zoom

from bids_cpmae.api import reface
from bids_cpmae.imaging.certify import KEPT_FIELDS
from bids_cpmae.imaging.nifti import load_source


def reoriented(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(codes)))


def rotated(degrees: float, axis: int, dtype=np.int16) -> nib.Nifti1Image:
    """The head turned in space: voxels as they were, the header says otherwise."""
    values, affine = average_head()
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    i, j = [n for n in range(3) if n != axis]
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return as_image(values, matrix @ affine, dtype)


def oblique_and_scaled() -> nib.Nifti1Image:
    image = reoriented(rotated(17, 2), "PIR")
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    # values that are no whole numbers are scaled to those that are when they are written
    scaled = nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, header)
    scaled.set_sform(image.affine, 1)
    return scaled


def with_fourth_axis(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return as_image(np.asanyarray(image.dataobj)[..., None], image.affine, image.get_data_dtype())


def fine() -> nib.Nifti1Image:
    values, affine = average_head()
    factor = 2 / 0.7
    big = zoom(values[10:90, 20:], factor, order=1, grid_mode=True, mode="nearest")
    start = affine[:3, :3] @ (np.array([10, 20, 0]) - 0.5 + 0.5 / factor) + affine[:3, 3]
    affine = nib.affines.from_matvec(np.eye(3) * 0.7, start)
    return reoriented(as_image(np.clip(big / 4, 0, 255), affine, np.uint8), "LPS")


# each goes the whole way, so that one case stands for several things that can be odd
CASES = {
    "rotated by header, float32, 4-D with one volume": lambda: with_fourth_axis(rotated(90, 0, np.float32)),
    "permuted, oblique, big-endian, int16 with slope": oblique_and_scaled,
    "0.7 mm, flipped, uint8": fine,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Tiny networks: where the values go does not hang on who drew them."""
    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_a_scan_comes_back_in_its_own_geometry_and_type(name, weights, tmp_path):
    image = CASES[name]()
    path = tmp_path / "sub-01_T1w.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes(), 1))
    before = load_source(path)
    # a head that lies across its header is refused without it
    result = reface(path, weights=weights, force=name.startswith("rotated by header"))
    after = load_source(result.image)
    assert after.stored.dtype == before.stored.dtype
    assert after.stored.shape == before.stored.shape
    assert (after.slope, after.inter) == (before.slope, before.inter)
    for field in set(KEPT_FIELDS) - {"scl_slope", "scl_inter"}:
        assert np.array_equal(after.header[field], before.header[field], equal_nan=True), field
    mask = np.asanyarray(result.mask.dataobj) > 0
    changed = (after.stored != before.stored).reshape(before.shape3)
    assert not changed[~mask].any()
    assert changed[mask].mean() > 0.3
    assert result.certificate.brain_voxels_changed == 0
    voxel_ml = abs(np.linalg.det(before.affine[:3, :3])) / 1000
    assert 200 < mask.sum() * voxel_ml < 3000, "the mask is not the size of a face and the air before it"
    assert result.measures["registration_correlation"] > 0.8
