"""Reading scans as stored and writing them back in their own geometry, type and scaling."""

import gzip
import logging

import nibabel as nib
import numpy as np
import pytest
from phantoms import CASES, SECRET, make_phantom

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.nifti import load_source, save_like, save_mask


def content_of(path):
    return gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()


def test_reads_values_and_geometry_as_nibabel_does(phantom):
    source, expected = load_source(phantom.path), nib.load(phantom.path)
    np.testing.assert_allclose(source.data, expected.get_fdata().reshape(source.shape3), rtol=1e-6, atol=1e-3)
    np.testing.assert_array_equal(source.affine, expected.affine)
    np.testing.assert_allclose(source.spacing, expected.header.get_zooms()[:3], rtol=1e-5)
    assert source.stored.dtype == expected.get_data_dtype()
    assert source.stored.shape == expected.shape


def test_round_trip_keeps_every_field_but_free_text(phantom, tmp_path):
    source = load_source(phantom.path)
    written = save_like(source, source.stored, tmp_path / f"out{''.join(phantom.path.suffixes[-2:])}")
    before, after = (load_source(path).header for path in (phantom.path, written))
    assert type(before) is type(after)
    assert before.endianness == after.endianness
    for field in before.keys():
        if field not in ("descrip", "aux_file", "vox_offset"):
            assert before[field].tobytes() == after[field].tobytes(), field
    assert SECRET in content_of(phantom.path)
    assert SECRET not in content_of(written)
    image, original = nib.load(written), nib.load(phantom.path)
    np.testing.assert_array_equal(image.get_fdata(), original.get_fdata())
    assert (image.dataobj.slope, image.dataobj.inter) == (original.dataobj.slope, original.dataobj.inter)
    assert not image.header.extensions


def test_stored_values_come_back_from_scaled_ones(phantom):
    source = load_source(phantom.path)
    back = source.to_stored(source.data)
    assert back.dtype == source.stored.dtype
    np.testing.assert_allclose(
        back.astype(float), source.stored.reshape(source.shape3).astype(float), rtol=1e-5, atol=1e-3
    )


def test_to_stored_clips_to_the_type(tmp_path):
    source = load_source(make_phantom(tmp_path, CASES["uint8"]).path)
    assert source.to_stored(np.array([-5.0, 1e6])).tolist() == [0, 255]


def test_gzip_tells_neither_name_nor_time_and_is_reproducible(plain_phantom, tmp_path):
    source = load_source(plain_phantom.path)
    one, two = (save_like(source, source.stored, tmp_path / f"{name}.nii.gz").read_bytes() for name in "ab")
    assert one == two
    assert one[3:8] == bytes(5)


def test_loaded_image_reads_as_its_file(phantom):
    from_file, from_image = load_source(phantom.path), load_source(nib.load(phantom.path))
    assert from_image.stored.dtype == from_file.stored.dtype
    np.testing.assert_array_equal(from_image.stored, from_file.stored)
    np.testing.assert_array_equal(from_image.affine, from_file.affine)
    assert (from_image.slope, from_image.inter) == (from_file.slope, from_file.inter)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Spm99AnalyzeImage, nib.MGHImage])
def test_image_in_memory(plain_phantom, kind):
    image = kind(plain_phantom.values.astype(np.float32), plain_phantom.affine)
    source = load_source(nib.Nifti1Image.from_image(image) if kind is nib.Spm99AnalyzeImage else image)
    np.testing.assert_allclose(source.data, plain_phantom.values, rtol=1e-6)
    assert source.path is None


def test_mask_lies_on_the_same_grid(phantom, tmp_path):
    source = load_source(phantom.path)
    image = nib.load(save_mask(source, phantom.face, tmp_path / "mask.nii.gz"))
    np.testing.assert_array_equal(image.affine, source.affine)
    np.testing.assert_array_equal(np.asarray(image.dataobj), phantom.face)
    assert image.get_data_dtype() == np.uint8
    assert SECRET not in content_of(tmp_path / "mask.nii.gz")


def test_save_like_refuses_another_type(plain_phantom, tmp_path):
    source = load_source(plain_phantom.path)
    with pytest.raises(ValueError, match="float32"):
        save_like(source, source.stored.astype(np.float32), tmp_path / "out.nii")


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def corrupted(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def short_of_voxels(path):
    path.write_bytes(gzip.compress(content_of(path)[:-100]))


def emptied(path):
    path.write_bytes(b"")


def not_nifti(path):
    path.write_bytes(gzip.compress(b"a photograph, perhaps" * 100))


def not_gzip(path):
    path.write_bytes(b"plain text")


def unfetched(path):
    path.write_bytes(b"/annex/objects/MD5E-s100--0123.nii.gz\n")


def dangling(path):
    path.unlink()
    path.symlink_to("../.git/annex/objects/nowhere")


def missing(path):
    path.unlink()


def folder(path):
    path.unlink()
    path.mkdir()


def rewritten(change):
    def apply(path):
        image = nib.load(path)
        nib.save(change(np.asarray(image.dataobj), image.affine), path)

    apply.__name__ = change.__name__
    return apply


def one_slice(data, affine):
    return nib.Nifti1Image(data[:, :, :1], affine)


def constant(data, affine):
    return nib.Nifti1Image(np.full_like(data, 7), affine)


def all_nan(data, affine):
    return nib.Nifti1Image(np.full(data.shape, np.nan, np.float32), affine)


def complex_values(data, affine):
    return nib.Nifti1Image(data.astype(np.complex64), affine)


def colours(data, affine):
    return nib.Nifti1Image(np.zeros(data.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]), affine)


def no_orientation(path):
    content = bytearray(content_of(path))
    content[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(gzip.compress(content))


DAMAGE = {
    truncated: "restore", corrupted: "restore", short_of_voxels: "truncated", emptied: "empty",
    not_nifti: "not a NIfTI", not_gzip: "restore", unfetched: "datalad get", dangling: "datalad get",
    missing: "no such file", folder: "folder",
    rewritten(one_slice): "too few", rewritten(constant): "same value",
    rewritten(all_nan): "NaN", rewritten(complex_values): "complex", rewritten(colours): "RGB",
    no_orientation: "repair",
}  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), DAMAGE.items(), ids=[damage.__name__ for damage in DAMAGE])
def test_refuses_with_name_cause_and_way_out(plain_phantom, damage, words):
    damage(plain_phantom.path)
    with pytest.raises(ScanError, match=words) as caught:
        load_source(plain_phantom.path)
    assert plain_phantom.path.name in str(caught.value)


def test_refuses_other_formats(tmp_path):
    path = tmp_path / "scan.mgz"
    nib.save(nib.MGHImage(np.zeros((9, 9, 9), np.float32), np.eye(4)), path)
    with pytest.raises(ScanError, match="convert"):
        load_source(path)
    pair = nib.Nifti1Pair(np.arange(1000, dtype=np.int16).reshape(10, 10, 10), np.eye(4))
    nib.save(pair, tmp_path / "pair.hdr")
    (tmp_path / "pair.hdr").rename(tmp_path / "pair.nii")
    with pytest.raises(ScanError, match="single-file"):
        load_source(tmp_path / "pair.nii")


def test_a_few_nans_are_said_and_kept(tmp_path, caplog):
    phantom = make_phantom(tmp_path, CASES["float32"])
    source = load_source(phantom.path)
    source.stored[1, 2, 3] = np.nan
    path = save_like(source, source.stored, tmp_path / "nan.nii.gz")
    with caplog.at_level(logging.WARNING):
        again = load_source(path)
    assert "1 voxels" in caplog.text
    assert np.isnan(again.stored[1, 2, 3])
    assert again.data[1, 2, 3] == 0


def test_a_series_is_read_volume_by_volume_and_written_back_bit_for_bit(plain_phantom, tmp_path):
    image = nib.load(plain_phantom.path)
    echoes = np.stack([np.asanyarray(image.dataobj) // (n + 1) for n in range(3)], -1).astype(np.int16)
    path = tmp_path / "sub-01_MEGRE.nii.gz"
    nib.save(nib.Nifti1Image(echoes, image.affine), path)
    source = load_source(path)
    assert source.volumes == 3 and source.shape3 == echoes.shape[:3]
    assert np.array_equal(source.volume(2).data, echoes[..., 2])
    assert np.allclose(source.data, echoes.mean(-1), rtol=1e-5)
    assert np.array_equal(load_source(save_like(source, source.stored, tmp_path / "again.nii.gz")).stored, echoes)
