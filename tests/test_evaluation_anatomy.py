"""Label maps as ground truth: where the parts of a face are, and what a mask does to them."""

import numpy as np
import pytest

from bids_cpmae.errors import InputError
from bids_cpmae.evaluation import anatomy
from bids_cpmae.evaluation.labelmaps import label_groups, outer_skin, read_labels, scan_of_labels, skin_of_face

EYES = ((-32, 68, 10), (32, 68, 10))
TIP = (0, 101, -30)
GROUPS = {"brain": np.array([3]), "csf": np.array([24])}


@pytest.fixture(scope="module")
def face():
    """An upright column of a head with brain, eyes, a nose and lips; 1 mm, RAS+."""
    low = np.array([-80, -70, -100])
    axes = [np.arange(a, b + 1.0) for a, b in ((-80, 80), (-70, 115), (-100, 100))]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    profile = (
        4 * np.exp(-(((z + 55) / 4) ** 2)) + 4 * np.exp(-(((z + 69) / 4) ** 2)) - 5 * np.exp(-(((z - 8) / 8) ** 2))
    )
    lips = profile * np.exp(-((x / 20) ** 2))
    head = ((x / 70) ** 2 + (np.where(y > 0, y - lips, y) / 85) ** 2 < 1) & (z < 90 - (x**2 + y**2) / 200)
    ridge = np.clip((8 - z) / 38, 0, 1) * 20
    nose = (np.abs(x) < 6 + ridge / 3) & (y < 82 + ridge - np.abs(x) / 2) & (y > 60) & (z < 8) & (z > -34)
    head |= nose
    labels = np.where(head, 507, 0).astype(np.int32)
    from scipy.ndimage import distance_transform_edt

    labels[head & (distance_transform_edt(head) <= 2)] = 511
    labels[((x / 55) ** 2 + (y / 60) ** 2 + ((z - 40) / 40) ** 2 < 1) & (labels == 507)] = 3
    for eye in EYES:
        labels[
            ((x - eye[0]) ** 2 + (y - eye[1] + 8) ** 2 + (z - eye[2]) ** 2 < 100) & (labels > 0) & (labels != 511)
        ] = 508
    affine = np.eye(4)
    affine[:3, 3] = low
    return labels, affine


def world(mask, affine):
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def test_parts_of_the_face_are_where_they_were_put(face):
    labels, affine = face
    parts = {name: world(mask, affine) for name, mask in skin_of_face(labels, affine).items()}
    assert all(len(points) > 300 for points in parts.values())
    assert np.linalg.norm(parts["nose"] - TIP, axis=1).min() < 4
    assert abs(parts["lips"][:, 2].mean() + 62) < 5 and abs(parts["lips"][:, 0].mean()) < 3
    assert abs(parts["eyelids"][:, 2].mean() - 10) < 4
    assert (parts["eyelids"][:, 0] < -15).any() and (parts["eyelids"][:, 0] > 15).any()
    for points in parts.values():
        assert points[:, 1].min() > 30


def test_parts_are_skin_and_do_not_overlap(face):
    labels, affine = face
    parts = skin_of_face(labels, affine)
    skin = outer_skin(labels, affine)
    assert sum(mask.astype(int) for mask in parts.values()).max() == 1
    assert all(skin[mask].all() for mask in parts.values())


def test_assess_counts_brain_and_shares(face):
    labels, affine = face
    none, everything = np.zeros(labels.shape, bool), np.ones(labels.shape, bool)
    assert anatomy.assess(labels, affine, none, GROUPS) == {
        "brain_voxels_masked": 0,
        "csf_voxels_masked": 0,
        "nose": 0,
        "lips": 0,
        "eyelids": 0,
    }
    found = anatomy.assess(labels, affine, everything, GROUPS)
    assert found["brain_voxels_masked"] == (labels == 3).sum() and found["lips"] == 1
    above = everything & (np.arange(labels.shape[2]) + affine[2, 3] > -46)
    found = anatomy.assess(labels, affine, above, GROUPS)
    assert found["nose"] == 1 and found["eyelids"] == 1 and found["lips"] < 0.05


def test_groups_of_labels_come_from_the_table(tmp_path):
    table = tmp_path / "labels.tsv"
    with pytest.raises(InputError, match="cannot be read"):
        label_groups(table)
    table.write_text("index\tname\tgroup\n3\tcortex\tbrain\n24\tCSF\tcsf\n4\tventricle\tbrain\n")
    found = label_groups(table)
    assert found["brain"].tolist() == [3, 4] and found["csf"].tolist() == [24]
    table.write_text("index\tname\n3\tcortex\n")
    with pytest.raises(InputError, match="columns"):
        label_groups(table)
    table.write_text("index\tname\tgroup\n3\tcortex\thead\n")
    with pytest.raises(InputError, match="no label is in the group"):
        label_groups(table)


def test_scan_of_labels_looks_like_a_scan(face):
    labels, affine = (face[0][:, :, 60:140], face[1])
    scan = scan_of_labels(labels, affine, np.random.default_rng(1))
    data = np.asarray(scan.dataobj)
    assert data.dtype == np.int16 and data.min() >= 0
    air = data[labels == 0]
    assert 0 < air.std() and air.mean() < 0.2 * data[labels == 3].mean()


def test_a_map_without_eyes_or_file_is_refused(face, tmp_path):
    labels, affine = face
    with pytest.raises(InputError, match="no eyes"):
        skin_of_face(np.where(labels == 508, 507, labels), affine)
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path / "head-01_dseg.nii.gz")
