"""One file alone, of whatever contrast, is registered, given a face of its own contrast, and judged."""

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_tiny_weights

from bids_cpmae.api import reface
from bids_cpmae.bids.reference import ON_AVERAGE_HEAD
from bids_cpmae.identity import suffix_of
from bids_cpmae.imaging.registration import Grid, _similarity


@pytest.mark.parametrize(
    "name, suffix",
    [
        ("a/sub-01_T2w.nii.gz", "T2w"), ("sub-01_ses-2_acq-x_FLAIR.nii", "FLAIR"), ("sub-01_T1w.nii.gz", "T1w"),
        ("sub-01_mprage.nii", "mprage"), ("head_T2w.nii.gz", None), ("sub-01_T2w.json", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_a_bids_name_tells_the_contrast(name, suffix):
    assert suffix_of(name) == suffix


def test_likeness_in_another_contrast_is_seen_where_both_are_known():
    rng = np.random.default_rng(0)
    head = rng.random((12, 12, 12), dtype=np.float32)
    other = 2 + np.cos(6 * head)
    shown = [Grid(data, np.diag([4.0, 4, 4, 1])).to_ants() for data in (head, other, rng.permuted(other))]
    assert abs(_similarity(shown[0], shown[1])) < 0.5
    assert _similarity(shown[0], shown[1], alike=False) > 0.95 > 0.5 > _similarity(shown[0], shown[2], alike=False)
    other[:6] = 0
    assert _similarity(shown[0], Grid(other, np.diag([4.0, 4, 4, 1])).to_ants(), alike=False) > 0.95


@pytest.mark.parametrize("scan", ["sub-adult/anat/sub-adult_T2w", "sub-thickslice/anat/sub-thickslice_FLAIR"])
def test_a_real_scan_without_a_t1w_scan_gets_a_face_for_review(real_data, scan):
    made = reface(real_data / f"heads/{scan}.nii.gz")
    assert made.verdict == "REVIEW" and made.reason.startswith(ON_AVERAGE_HEAD)
    assert made.certificate.outside_changed == made.certificate.brain_voxels_changed == 0
    # a head laid wrongly on the scan is hardly like it: 0.2 to 0.4 was seen
    assert made.measures["registration_correlation"] > 0.55
    assert made.measures["face_filled"] > 0.5


def test_a_series_in_one_file_is_refaced_as_a_whole(head_image, tmp_path):
    volumes = np.stack([np.asanyarray(head_image.dataobj)] * 2, -1)
    path = tmp_path / "sub-01_T1w.nii.gz"
    nib.save(nib.Nifti1Image(volumes, head_image.affine), path)
    made = reface(path, weights=write_tiny_weights(tmp_path / "tiny.safetensors"))
    values = np.asanyarray(made.image.dataobj)
    changed = (values != volumes).any((0, 1, 2))
    assert values.shape == volumes.shape and changed.all() and made.verdict in ("PASS", "REVIEW")
