"""The search for leftovers finds what is planted, however it is packed, and nothing where there is nothing."""

import base64
import gzip
import io
import json

import bad_inputs as bad
import nibabel as nib
import numpy as np
import pytest
from heads import somebody
from leftovers import Original, leftovers
from PIL import Image


@pytest.fixture(scope="module")
def stored():
    return np.asarray(bad.head().dataobj)


@pytest.fixture(scope="module")
def original(stored):
    return Original(stored, bad.face_voxels(stored, bad.head().affine))


def picture(stored, index=50, turns=0, size=(300, 240)):
    plane = np.clip(np.rot90(stored[index], turns) / 4, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(plane).resize(size).save(file, "PNG")
    return file.getvalue()


def packed(write) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


PLANTS = {
    "image.nii.gz": lambda v: nib.Nifti1Image(v, np.eye(4)).to_bytes(),
    "scaled.nii": lambda v: nib.Nifti1Image((2.5 * v + 3).astype(np.float32), np.eye(4)).to_bytes(),
    "packed.nii.gz": lambda v: gzip.compress(nib.Nifti2Image(v, np.eye(4)).to_bytes(), 1),
    "frame.npz": lambda v: packed(lambda file: np.savez_compressed(file, head=v)),
    "head.npy": lambda v: packed(lambda file: np.save(file, v)),
    "face.bin": lambda v: v[30:70, 60:, 20:60].tobytes(order="F"),
    **{f"slice-{turns}.png": lambda v, turns=turns: picture(v, turns=turns) for turns in range(4)},
    "mirrored.png": lambda v: picture(v[:, ::-1], turns=1),
    "report.html": lambda v: b"<img src='data:image/png;base64," + base64.b64encode(picture(v)) + b"'>",
    "view.html": lambda v: b"<script>load('" + base64.b64encode(
        gzip.compress(nib.Nifti1Image(v, np.eye(4)).to_bytes(), 1)) + b"')</script>",
    "profile.json": lambda v: json.dumps({"rows": v[50].tolist()}, indent=1).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTS)
def test_finds_what_is_planted(name, stored, original, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / name).write_bytes(PLANTS[name](stored))
    assert any(line.startswith(f"deep/{name}") for line in leftovers(tmp_path, original))


def test_finds_nothing_in_what_is_somebody_else(stored, original, tmp_path):
    other = np.roll(np.asarray(somebody(5).dataobj), 4, axis=1)
    face = bad.face_voxels(stored, bad.head().affine)
    nib.save(nib.Nifti1Image(np.where(face, other, stored).astype(stored.dtype), np.eye(4)), tmp_path / "new.nii.gz")
    nib.save(nib.Nifti1Image(face.astype(np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    (tmp_path / "report.html").write_text("<p>PASS</p>" * 100)
    (tmp_path / "table.json").write_text(json.dumps(list(range(500))))
    assert leftovers(tmp_path, original) == []
