"""Headers and wrappings of images: voxels and geometry stay, all else that could tell something goes."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_scan
from phantoms import SECRET

from bids_cpmae.bids.privacy.nifti import clean_gzip, clean_nifti, gzip_leaks, nifti_leaks


def content_of(path):
    content = path.read_bytes()
    return gzip.decompress(content) if path.name.endswith(".gz") else content


def write_image(path, dtype, shape=(5, 6, 7)):
    rng = np.random.default_rng(0)
    voxels = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)
    image = nib.Nifti1Image(voxels, np.diag([2, 2, 2, 1]), dtype=np.dtype(dtype))
    image.header["descrip"] = SECRET
    nib.save(image, path)
    return path


def test_phantoms_of_every_kind(phantom):
    target = phantom.path.with_name(f"clean_{phantom.path.name}")
    assert {leak.kind for leak in nifti_leaks(phantom.path)} >= {"header-text", "extension"}
    clean_nifti(phantom.path, target)
    assert nifti_leaks(target) == []
    before, after = nib.load(phantom.path), nib.load(target)
    assert np.array_equal(before.dataobj.get_unscaled(), after.dataobj.get_unscaled())
    assert (before.dataobj.slope, before.dataobj.inter) == (after.dataobj.slope, after.dataobj.inter)
    assert before.header.endianness == after.header.endianness and type(before) is type(after)
    for field in set(before.header.keys()) - {"descrip", "aux_file", "vox_offset"}:
        assert before.header[field].tobytes() == after.header[field].tobytes(), field
    assert SECRET not in content_of(target) and after.header.extensions == []


@pytest.mark.parametrize(
    "dtype, shape",
    [
        (np.complex64, (5, 6, 7)),
        ([("R", "u1"), ("G", "u1"), ("B", "u1")], (5, 6, 7)),
        (np.int16, (5, 6, 7, 8)),
        (np.uint16, (5, 1, 1, 1, 3)),
    ],
)
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_any_type_and_number_of_axes(tmp_path, dtype, shape, extension):
    source = write_image(tmp_path / f"a{extension}", dtype, shape)
    clean_nifti(source, tmp_path / f"b{extension}")
    assert nifti_leaks(tmp_path / f"b{extension}") == []
    assert content_of(source)[352:] == content_of(tmp_path / f"b{extension}")[352:]


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_a_clean_image_is_clean(tmp_path, extension):
    source = write_scan(tmp_path / f"a{extension}")
    assert nifti_leaks(source) == []
    clean_nifti(source, tmp_path / f"b{extension}")
    assert content_of(source) == content_of(tmp_path / f"b{extension}")


@pytest.mark.parametrize("text, told", [("FSL5.0", False), ("6.0.3:b862cdd5", False), ("TE=2.3;Time=134512.120", True)])
def test_version_stamps_say_nothing(tmp_path, text, told):
    image = nib.load(write_scan(tmp_path / "a.nii"))
    image.header["descrip"] = text
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), tmp_path / "b.nii")
    assert bool(nifti_leaks(tmp_path / "b.nii")) is told


def test_gzip_in_several_parts_is_read_to_its_end(tmp_path):
    content = content_of(write_scan(tmp_path / "a.nii"))
    parts = [gzip.compress(part, mtime=0) for part in (content[:500], content[500:])]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(parts))
    assert nifti_leaks(tmp_path / "b.nii.gz") == []
    (tmp_path / "b.nii.gz").write_bytes(b"".join(parts) + SECRET)
    assert [leak.kind for leak in nifti_leaks(tmp_path / "b.nii.gz")] == ["trailing-bytes"]


def test_a_recording_is_packed_anew(tmp_path):
    with gzip.GzipFile("doe.tsv", "wb", fileobj=open(tmp_path / "a.tsv.gz", "wb"), mtime=9) as file:
        file.write(b"1\n2\n")
    assert {leak.kind for leak in gzip_leaks(tmp_path / "a.tsv.gz")} == {"gzip-name", "gzip-time"}
    clean_gzip(tmp_path / "a.tsv.gz", tmp_path / "b.tsv.gz")
    assert gzip_leaks(tmp_path / "b.tsv.gz") == [] and content_of(tmp_path / "b.tsv.gz") == b"1\n2\n"


@pytest.mark.parametrize("cut", [0, 5, 100, 360, 2000])
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_what_is_cut_short_is_refused(tmp_path, cut, extension):
    source = write_scan(tmp_path / f"a{extension}")
    source.write_bytes(source.read_bytes()[:cut])
    with pytest.raises(ValueError):
        nifti_leaks(source)
    with pytest.raises(ValueError):
        clean_nifti(source, tmp_path / f"b{extension}")
