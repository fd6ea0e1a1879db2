"""The certificate passes a faithful file and names what differs in any other."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from bids_cpmae.errors import CertificateError
from bids_cpmae.imaging.certify import certify
from bids_cpmae.imaging.nifti import load_source, save_like


def refaced(source, face):
    stored = source.stored.copy()
    stored.reshape(source.shape3)[face] += np.array(1, stored.dtype)
    return stored


def test_passes_what_changed_under_the_mask_alone(phantom, tmp_path):
    source = load_source(phantom.path)
    written = save_like(source, refaced(source, phantom.face), tmp_path / "out.nii.gz")
    found = certify(source, written, phantom.face, phantom.brain).as_dict()
    assert found.pop("header_equal") is True
    assert len(found.pop("sha256_outside")) == 64
    assert found == {
        "voxels_total": phantom.face.size, "voxels_mask": phantom.face.sum(), "voxels_changed": phantom.face.sum(),
        "outside_changed": 0, "brain_voxels": phantom.brain.sum(), "brain_voxels_changed": 0,
    }  # fmt: skip


def test_digest_tells_scans_apart_and_ignores_the_face(plain_phantom, tmp_path):
    source = load_source(plain_phantom.path)
    face, brain = plain_phantom.face, plain_phantom.brain
    one = save_like(source, refaced(source, face), tmp_path / "one.nii.gz")
    first = certify(source, one, face, brain)
    stored = refaced(source, face)
    stored[face] += 5
    two = save_like(source, stored, tmp_path / "two.nii.gz")
    assert certify(source, two, face, brain).sha256_outside == first.sha256_outside
    source.stored[np.unravel_index(np.flatnonzero(~face)[0], face.shape)] += 1
    three = save_like(source, refaced(source, face), tmp_path / "three.nii.gz")
    assert certify(source, three, face, brain).sha256_outside != first.sha256_outside


def test_one_voxel_outside_fails(phantom, tmp_path):
    source = load_source(phantom.path)
    stored = refaced(source, phantom.face)
    outside = np.unravel_index(np.flatnonzero(~phantom.face & ~phantom.brain)[-1], source.shape3)
    stored.reshape(source.shape3)[outside] += np.array(1, stored.dtype)
    written = save_like(source, stored, tmp_path / "out.nii.gz")
    with pytest.raises(CertificateError, match="1 voxels outside the mask"):
        certify(source, written, phantom.face, phantom.brain)


def test_a_mask_over_the_brain_fails(plain_phantom, tmp_path):
    source = load_source(plain_phantom.path)
    mask = plain_phantom.face | plain_phantom.brain
    written = save_like(source, refaced(source, mask), tmp_path / "out.nii.gz")
    with pytest.raises(CertificateError, match="brain voxels"):
        certify(source, written, mask, plain_phantom.brain)


def test_an_unchanged_face_fails(plain_phantom, tmp_path):
    source = load_source(plain_phantom.path)
    written = save_like(source, source.stored, tmp_path / "out.nii.gz")
    with pytest.raises(CertificateError, match="still there"):
        certify(source, written, plain_phantom.face, plain_phantom.brain)


def with_field(field, value):
    def change(content):
        header = nib.Nifti1Header(content[:348])
        header[field] = value
        return header.binaryblock + content[348:]

    return change


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("qform_code", 3), ("sform_code", 1), ("srow_x", [1, 2, 3, 4]), ("quatern_b", 0.5), ("scl_slope", 2.0),
        ("xyzt_units", 3), ("cal_max", 1.0), ("descrip", b"Jane Doe"), ("db_name", b"Jane Doe"),
    ],
)  # fmt: skip
def test_a_header_that_differs_fails(plain_phantom, tmp_path, field, value):
    source = load_source(plain_phantom.path)
    written = save_like(source, refaced(source, plain_phantom.face), tmp_path / "out.nii")
    if field == "scl_slope":
        written.write_bytes(with_field("scl_inter", 0.0)(written.read_bytes()))
    written.write_bytes(with_field(field, value)(written.read_bytes()))
    with pytest.raises(CertificateError, match="text" if value == b"Jane Doe" else field[:4]):
        certify(source, written, plain_phantom.face, plain_phantom.brain)


def test_another_byte_order_fails(plain_phantom, tmp_path):
    source = load_source(plain_phantom.path)
    stored = refaced(source, plain_phantom.face)
    image = nib.Nifti1Image(stored, source.affine, source.header.as_byteswapped())
    nib.save(image, tmp_path / "out.nii")
    with pytest.raises(CertificateError):
        certify(source, tmp_path / "out.nii", plain_phantom.face, plain_phantom.brain)


def test_damage_and_gzip_names_fail(plain_phantom, tmp_path):
    source = load_source(plain_phantom.path)
    written = save_like(source, refaced(source, plain_phantom.face), tmp_path / "out.nii.gz")
    content = written.read_bytes()
    written.write_bytes(content[:-100])
    with pytest.raises(CertificateError, match="cannot be read back"):
        certify(source, written, plain_phantom.face, plain_phantom.brain)
    with gzip.open(written, "wb") as file:
        file.write(gzip.decompress(content))
    with pytest.raises(CertificateError, match="gzip header"):
        certify(source, written, plain_phantom.face, plain_phantom.brain)


def test_masks_of_another_grid_or_type_fail(plain_phantom, tmp_path):
    source = load_source(plain_phantom.path)
    written = save_like(source, refaced(source, plain_phantom.face), tmp_path / "out.nii.gz")
    with pytest.raises(CertificateError, match="the mask is"):
        certify(source, written, plain_phantom.face[1:], plain_phantom.brain)
    with pytest.raises(CertificateError, match="the brain is"):
        certify(source, written, plain_phantom.face, plain_phantom.brain.astype(np.uint8))
