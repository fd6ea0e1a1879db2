"""The certificate: a written file, read back and held against its source voxel by voxel."""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bids_cpmae.errors import CertificateError, ScanError
from bids_cpmae.imaging.nifti import TEXT_FIELDS, SourceImage, load_source

KEPT_FIELDS = (
    "dim", "datatype", "bitpix", "pixdim", "scl_slope", "scl_inter", "qform_code", "sform_code", "quatern_b",
    "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
GZIP_NAME_FLAG = 0x08


@dataclass(frozen=True)
class Certificate:
    """What was seen to hold in a written file.

    Attributes
    ----------
    voxels, voxels_mask, voxels_changed : int
        All voxels, those under the mask, and those whose stored value differs from the source's.
    brain_voxels, brain_voxels_changed : int
        Of the registered brain; the second is 0 in every certificate.
    sha256_outside : str
        Of the stored values outside the mask, the same in source and result.
    """

    voxels: int
    voxels_mask: int
    voxels_changed: int
    brain_voxels: int
    brain_voxels_changed: int
    sha256_outside: str

    def as_dict(self) -> dict:
        """Plain values."""
        return asdict(self)


def _same(a: object, b: object) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")


def certify(source: SourceImage, written: str | os.PathLike, mask: np.ndarray, brain: np.ndarray) -> Certificate:
    """Read a written file back and compare it with its source.

    Parameters
    ----------
    source : SourceImage
    written : path
    mask : ndarray (X, Y, Z), bool
        True = was to be replaced.
    brain : ndarray (X, Y, Z), bool
        True = must be bit-identical whatever the mask says.

    Returns
    -------
    Certificate

    Raises
    ------
    CertificateError
        When geometry, type, scaling or any voxel outside the mask or in the brain differs, when nothing under the mask
        changed, or when the file carries free text.
    """
    written = Path(written)
    try:
        result = load_source(written)
    except ScanError as error:
        raise CertificateError(f"the written file cannot be read back: {error}") from error
    for field in KEPT_FIELDS:
        if not _same(source.header[field], result.header[field]):
            raise CertificateError(f"the written header differs in {field}")
    if any(bytes(np.asarray(result.header[field]).tobytes()).strip(b"\0") for field in TEXT_FIELDS):
        raise CertificateError("the written header carries free text")
    if result.header.extensions:
        raise CertificateError("the written header carries extensions")
    if result.stored.dtype != source.stored.dtype or result.stored.shape != source.stored.shape:
        raise CertificateError("the written voxels differ in type or shape")
    before, after = (image.stored.reshape(source.shape3) for image in (source, result))
    bits = f"u{before.dtype.itemsize}"
    changed = np.ascontiguousarray(before).view(bits) != np.ascontiguousarray(after).view(bits)
    outside = int((changed & ~mask).sum())
    if outside:
        raise CertificateError(f"{outside} voxels outside the mask differ from the source")
    in_brain = int((changed & brain).sum())
    if in_brain:
        raise CertificateError(f"{in_brain} brain voxels differ from the source")
    if not changed.any():
        raise CertificateError("no voxel under the mask differs from the source: the face is still there")
    if written.name.endswith(".gz"):
        _check_gzip(written)
    digest = hashlib.sha256(np.ascontiguousarray(after[~mask]).tobytes()).hexdigest()
    return Certificate(
        voxels=mask.size, voxels_mask=int(mask.sum()), voxels_changed=int(changed.sum()),
        brain_voxels=int(brain.sum()), brain_voxels_changed=in_brain, sha256_outside=digest,
    )  # fmt: skip


def _check_gzip(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(10)
    if head[3] & GZIP_NAME_FLAG or any(head[4:8]):
        raise CertificateError("the gzip header carries a file name or a time")
    with gzip.open(path) as file:
        file.read(1)
