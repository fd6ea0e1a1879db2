"""Whatever stands under the mask, the written file is the same, byte for byte."""

import numpy as np
import pytest

from bids_cpmae.api import reface, replace_face
from bids_cpmae.imaging.facemask import locate_face
from bids_cpmae.imaging.nifti import SourceImage, load_source, save_like


def with_garbage(source: SourceImage, mask: np.ndarray, kind: str) -> SourceImage:
    stored = source.stored.copy()
    voxels = stored.reshape(source.shape3)
    rng = np.random.default_rng(5)
    limits = np.iinfo(stored.dtype)
    voxels[mask] = {
        "largest": lambda: limits.max,
        "noise": lambda: rng.integers(limits.min, limits.max, mask.sum()),
        "another place": lambda: np.roll(voxels, 31, 1)[mask],
    }[kind]()
    return SourceImage(source.header, source.affine, stored, source.slope, source.inter, source.path)


def check(source: SourceImage, folder) -> None:
    mask = locate_face(source).mask
    first = save_like(source, replace_face(source, mask, identity=4), folder / "first.nii.gz").read_bytes()
    for kind in ("largest", "noise", "another place"):
        other = with_garbage(source, mask, kind)
        again = save_like(other, replace_face(other, mask, identity=4), folder / "again.nii.gz").read_bytes()
        assert again == first, f"the output depends on what stood under the mask ({kind})"


def test_synthetic_head(head_image, tmp_path):
    check(load_source(head_image), tmp_path)


def test_real_head(real_data, tmp_path):
    check(load_source(real_data / "ixi2mm/sub-IXI033/anat/sub-IXI033_T1w.nii.gz"), tmp_path)


def test_seed_and_participant_decide_the_face(head_image):
    first = np.asanyarray(reface(head_image, seed=1, participant="01").image.dataobj)
    again = np.asanyarray(reface(head_image, seed=1, participant="01").image.dataobj)
    other = np.asanyarray(reface(head_image, seed=1, participant="02").image.dataobj)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("regions", [("face",), ("ears",)])
def test_regions_narrow_the_mask(head_image, regions):
    source = load_source(head_image)
    part, whole = locate_face(source, regions=regions).mask, locate_face(source).mask
    assert part.sum() < whole.sum()
    assert not (part & ~whole).any()


def test_mask_keeps_off_the_brain(head_image):
    from scipy.ndimage import distance_transform_edt

    source = load_source(head_image)
    for mode in ("face", "head"):
        located = locate_face(source, mode=mode)
        distance = distance_transform_edt(~located.brain, sampling=np.diag(source.affine)[:3])
        assert distance[located.mask].min() >= 3
