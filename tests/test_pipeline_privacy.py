"""Whatever stands under the mask, the written file is the same, byte for byte."""

import numpy as np
import pytest

from bids_cpmae.api import reface, replace_face
from bids_cpmae.identity import identity_seed
from bids_cpmae.imaging.facemask import FaceLocation, locate_face
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


@pytest.fixture(scope="module")
def located(head_image) -> FaceLocation:
    """The face of the synthetic head."""
    return locate_face(load_source(head_image))


@pytest.fixture(scope="module")
def replaced(head_image, located) -> np.ndarray:
    """The synthetic head's values with the face that seed 1 gives to participant 01."""
    return replace_face(load_source(head_image), located.mask, seed=1, identity=identity_seed(1, "01"))


def check(source: SourceImage, mask: np.ndarray, values: np.ndarray, kinds, folder) -> None:
    """That a head written with these values is the same with garbage of some kinds under its mask."""
    first = save_like(source, values, folder / "first.nii.gz").read_bytes()
    for kind in kinds:
        other = with_garbage(source, mask, kind)
        values = replace_face(other, mask, seed=1, identity=identity_seed(1, "01"))
        again = save_like(other, values, folder / "again.nii.gz").read_bytes()
        assert again == first, f"the output depends on what stood under the mask ({kind})"


def test_synthetic_head(head_image, located, replaced, tmp_path):
    check(load_source(head_image), located.mask, replaced, ("largest", "noise"), tmp_path)


def test_real_head(real_data, tmp_path):
    source = load_source(real_data / "ixi2mm/sub-IXI033/anat/sub-IXI033_T1w.nii.gz")
    mask = locate_face(source).mask
    values = replace_face(source, mask, seed=1, identity=identity_seed(1, "01"))
    check(source, mask, values, ("another place", "largest"), tmp_path)


def test_seed_and_participant_decide_the_face(head_image, located, replaced):
    """All over again and from the same seed and participant, it is the same; from another participant it is not."""
    again = np.asanyarray(reface(head_image, seed=1, participant="01").image.dataobj)
    other = replace_face(load_source(head_image), located.mask, seed=1, identity=identity_seed(1, "02"))
    assert np.array_equal(replaced, again)
    assert not np.array_equal(replaced, other)


@pytest.mark.parametrize("regions", [("face",), ("ears",)])
def test_regions_narrow_the_mask(head_image, located, regions):
    part, whole = locate_face(load_source(head_image), regions=regions).mask, located.mask
    assert part.sum() < whole.sum()
    assert not (part & ~whole).any()


def test_mask_keeps_off_the_brain(head_image, located):
    from scipy.ndimage import distance_transform_edt

    source = load_source(head_image)
    for found in (located, locate_face(source, mode="head")):
        distance = distance_transform_edt(~found.brain, sampling=np.diag(source.affine)[:3])
        assert distance[found.mask].min() >= 3


def test_in_head_mode_a_real_brain_gets_a_head_that_passes(real_data):
    """All that is left to register is the brain; laid on a whole head, as once, it lies 36 mm off."""
    result = reface(real_data / "ixi2mm/sub-IXI033/anat/sub-IXI033_T1w.nii.gz", mode="head", seed=1, participant="01")
    assert result.verdict == "PASS", result.reason
