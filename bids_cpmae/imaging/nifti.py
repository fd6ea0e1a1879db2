"""NIfTI files as they lie on disk: stored values, scaling and geometry untouched on the way in and out.

nibabel's images hide the stored values behind their scaling and work the scaling out anew when they are saved, so
headers and voxels are read and written here as bytes.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from bids_cpmae.errors import ScanError

# data_type is legacy free text of NIfTI-1, db_name is not in NIfTI-2, unused_str is not in NIfTI-1
TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name", "data_type", "unused_str")
EXTENSIONS = (".nii", ".nii.gz")
LEAST_SLICES = 8
LEAST_FINITE = 0.5
# what a file holds in place of its content when git-annex or Git LFS has not fetched it
POINTERS = {b"/annex/objects/": "datalad get", b"version https://git-lfs": "git lfs pull"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceImage:
    """A scan as stored.

    Attributes
    ----------
    header : Nifti1Header or Nifti2Header
        As read, every field untouched; its extensions go with it.
    affine : ndarray (4, 4), float64
        Voxel index to RAS+ mm.
    stored : ndarray
        Values as on disk, in the file's dtype and byte order, with all its axes: three, or more for a series of
        volumes such as echoes.
    slope, inter : float
        ``value = stored * slope + inter``; 1 and 0 where the file says nothing.
    path : Path or None
        Where it was read from.
    """

    header: nib.Nifti1Header
    affine: np.ndarray
    stored: np.ndarray
    slope: float = 1.0
    inter: float = 0.0
    path: Path | None = None

    @property
    def shape3(self) -> tuple[int, int, int]:
        """The three spatial axes."""
        return tuple(self.stored.shape[:3])

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size (3,) in mm, along the storage axes."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def volumes(self) -> int:
        """How many volumes lie in the file."""
        return int(np.prod(self.stored.shape[3:], dtype=int))

    @property
    def by_volume(self) -> np.ndarray:
        """The stored values as (X, Y, Z, volumes), whatever the file's own axes."""
        return self.stored.reshape(*self.shape3, self.volumes)

    def volume(self, number: int) -> SourceImage:
        """One volume of a series as a scan of its own, stored as (X, Y, Z)."""
        return replace(self, stored=np.ascontiguousarray(self.by_volume[..., number]))

    @cached_property
    def data(self) -> np.ndarray:
        """Scaled values (X, Y, Z), float32; of a series the mean. Values that are not finite read as 0."""
        if self.volumes > 1:
            return sum(self.volume(number).data for number in range(self.volumes)) / np.float32(self.volumes)
        values = self.to_values(self.stored.reshape(self.shape3))
        if self.stored.dtype.kind == "f":
            values = finite(values)
        return values

    def to_values(self, stored: np.ndarray) -> np.ndarray:
        """Stored values (...,) scaled, float32."""
        values = stored.astype(np.float32)
        if (self.slope, self.inter) != (1.0, 0.0):
            values = values * np.float32(self.slope) + np.float32(self.inter)
        return values

    def to_stored(self, values: np.ndarray) -> np.ndarray:
        """Values (...,) as this file would store them: unscaled, rounded and clipped for whole-number types."""
        raw = (np.asarray(values, np.float64) - self.inter) / self.slope
        kind = self.stored.dtype
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            raw = np.clip(np.rint(raw), limits.min, limits.max)
        return raw.astype(kind)


def finite(values: np.ndarray) -> np.ndarray:
    """Floating values (...,) with 0 in place of those that are not finite; the very same array where all are."""
    return values if np.isfinite(values).all() else np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def load_source(image: str | os.PathLike | SpatialImage) -> SourceImage:
    """Read a scan and check that it can be worked on.

    Parameters
    ----------
    image : path or SpatialImage
        ``.nii`` or ``.nii.gz``, or an image in memory; the latter is read as the file it would be saved to.

    Returns
    -------
    SourceImage

    Raises
    ------
    ScanError
        When it is missing, unreadable or truncated, of another format, or no volume or series of volumes of real
        numbers with a usable geometry. The message names the file, the cause and the way out.
    """
    path = Path(image) if isinstance(image, (str, os.PathLike)) else None
    name = str(path) if path else "the image given"
    try:
        source = _parse(_read_bytes(path) if path else _as_bytes(image), name, path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError, MemoryError) as error:
        if isinstance(error, ScanError):
            raise
        reason = str(error) or type(error).__name__
        raise ScanError(f"{name}: cannot be read ({reason}); restore the file or export it again") from error
    _check_geometry(source, name)
    _check_values(source, name)
    return source


def _read_bytes(path: Path) -> bytes:
    """All of a file, unpacked: reading to the end lets gzip compare its checksum."""
    if path.is_symlink() and not path.exists():
        raise ScanError(f"{path}: a link to content that is not here; fetch it first: `datalad get {path.name}`")
    if not path.exists():
        raise ScanError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise ScanError(f"{path}: a folder or device, not a file; give one .nii or .nii.gz file")
    if not path.name.endswith(EXTENSIONS):
        raise ScanError(f"{path}: not a .nii or .nii.gz file; convert it first, e.g. with nib-convert or dcm2niix")
    content = path.read_bytes()
    if not content:
        raise ScanError(f"{path}: the file is empty; restore it or export it again")
    for start, command in POINTERS.items():
        if content.startswith(start):
            raise ScanError(f"{path}: a pointer to content that is not here; fetch it first: `{command} {path.name}`")
    return gzip.decompress(content) if path.name.endswith(".gz") else content


def _as_bytes(image: SpatialImage) -> bytes:
    """An image in memory as the bytes of its file."""
    if not isinstance(image, SpatialImage):
        raise ScanError(f"a {type(image).__name__} is no scan; give a path or a nibabel image")
    kind = nib.Nifti2Image if isinstance(image, nib.Nifti2Image) else nib.Nifti1Image
    of_file = isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)) and nib.is_proxy(image.dataobj)
    if of_file and image.dataobj.dtype == image.get_data_dtype():
        # loaded from a file and not touched since: keep the file's own stored values and scaling
        header = kind.header_class.from_header(image.header)
        header["scl_slope"], header["scl_inter"] = image.dataobj.slope, image.dataobj.inter
        return _pack(header, np.asarray(image.dataobj.get_unscaled()))
    return kind.from_image(image).to_bytes()


def _parse(content: bytes, name: str, path: Path | None) -> SourceImage:
    size = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    kind = nib.Nifti2Header if 540 in size else nib.Nifti1Header
    if not size & {348, 540}:
        raise ScanError(f"{name}: not a NIfTI file (its first bytes say so); convert it to .nii.gz first")
    file = io.BytesIO(content)
    header = kind.from_fileobj(file, check=False)
    if bytes(header["magic"].tobytes())[:3] != header.single_magic[:3]:
        raise ScanError(f"{name}: not a single-file NIfTI image (Analyze, or voxels apart); convert it first")
    # nibabel mends small faults (qfac 0, odd bitpix) in place; mend a copy, so that the header is written as it was
    mended = header.copy()
    mended.check_fix(logger=logging.getLogger("nibabel.quiet"), error_level=40)
    dtype, shape = mended.get_data_dtype(), mended.get_data_shape()
    if dtype.kind not in "iuf":
        raise ScanError(f"{name}: voxels of type {dtype} (RGB or complex); give a scan of real numbers")
    if len(shape) < 3 or 0 in shape:
        raise ScanError(f"{name}: shape {shape} is no volume or series of volumes; export the scan again")
    needed, there = int(np.prod(shape)) * dtype.itemsize, len(content) - mended.get_data_offset()
    if there < needed:
        raise ScanError(f"{name}: truncated, {there} of {needed} bytes of voxels; restore the file or export it again")
    # files are written first axis fastest; everything that follows is faster the other way round
    stored = np.ascontiguousarray(mended.raw_data_from_fileobj(file))
    slope, inter = mended.get_slope_inter()
    return SourceImage(
        header=header, affine=np.asarray(mended.get_best_affine(), np.float64), stored=stored,
        slope=1.0 if slope is None else float(slope), inter=0.0 if inter is None else float(inter), path=path,
    )  # fmt: skip


def _check_geometry(source: SourceImage, name: str) -> None:
    if min(source.shape3) < LEAST_SLICES:
        raise ScanError(f"{name}: shape {source.shape3} has fewer than {LEAST_SLICES} slices; too few for a head")
    if not np.isfinite(source.affine).all() or abs(np.linalg.det(source.affine[:3, :3])) < 1e-6:
        raise ScanError(f"{name}: no usable geometry in its affine (qform and sform); repair the header first")
    if source.header["qform_code"] <= 0 and source.header["sform_code"] <= 0:
        raise ScanError(f"{name}: neither qform nor sform says how the head lies; repair the header first")


def _check_values(source: SourceImage, name: str) -> None:
    if source.stored.dtype.kind == "f":
        lost = int((~np.isfinite(source.stored)).sum())
        if lost > (1 - LEAST_FINITE) * source.stored.size:
            raise ScanError(f"{name}: most voxels are NaN or infinite; export the scan again")
        if lost:
            logger.warning("%s: %d voxels are NaN or infinite; they count as 0 and stay as they are", name, lost)
    if source.data.max() == source.data.min():
        raise ScanError(f"{name}: all voxels have the same value; the scan is empty, export it again")


def clean_header(source: SourceImage) -> nib.Nifti1Header:
    """The header to write: the source's, without free text and extensions."""
    header = source.header.copy()
    header.extensions.clear()
    for field in TEXT_FIELDS:
        if field in header.keys():
            header[field] = b""
    return header


def save_like(source: SourceImage, stored: np.ndarray, path: str | os.PathLike) -> Path:
    """Write stored values with the geometry, type, byte order and scaling of a source.

    Free text and extensions are left out, and gzip gets neither a name nor a time.

    Parameters
    ----------
    source : SourceImage
    stored : ndarray
        Of the source's dtype and shape.
    path : path
        ``.nii`` or ``.nii.gz``.

    Raises
    ------
    ValueError
        When the values are of another dtype or shape.
    """
    if stored.shape != source.stored.shape or stored.dtype != source.stored.dtype:
        expected = f"{source.stored.dtype} {source.stored.shape}"
        raise ValueError(f"stored values are {stored.dtype} {stored.shape}, not {expected}")
    return _write(_pack(clean_header(source), stored), Path(path))


def save_mask(source: SourceImage, mask: np.ndarray, path: str | os.PathLike) -> Path:
    """Write a mask (X, Y, Z) as uint8, 1 = True, on the grid of a source."""
    header = clean_header(source)
    header.set_data_shape(mask.shape)
    header.set_data_dtype(np.uint8)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"] = header["cal_min"] = 0
    return _write(_pack(header, mask.astype(np.uint8)), Path(path))


def _pack(header: nib.Nifti1Header, stored: np.ndarray) -> bytes:
    """A single-file NIfTI image: header, no extensions, voxels."""
    header = header.copy()
    header.extensions.clear()
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    # first axis fastest; plane by plane, which NumPy does five times as fast as all at once
    voxels = np.empty(stored.shape[::-1], stored.dtype)
    for number in range(stored.shape[1]):
        voxels[..., number, :] = stored[:, number].T
    return header.binaryblock + bytes(4) + voxels.tobytes()


def _write(content: bytes, path: Path) -> Path:
    with open(path, "wb") as raw:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=raw, mtime=0) as packed:
                packed.write(content)
        else:
            raw.write(content)
        raw.flush()
        os.fsync(raw.fileno())
    return path
