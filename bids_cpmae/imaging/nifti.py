"""NIfTI files as they lie on disk: stored values, scaling and geometry untouched on the way in and out."""

from __future__ import annotations

import gzip
import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage

from bids_cpmae.errors import ScanError

TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name")
EXTENSIONS = (".nii", ".nii.gz")


@dataclass(frozen=True)
class SourceImage:
    """A scan as stored.

    Attributes
    ----------
    header : Nifti1Header or Nifti2Header
        As read, with scaling.
    affine : ndarray (4, 4), float64
        Voxel index to RAS+ mm.
    stored : ndarray
        Values as on disk, in the file's dtype and byte order, with all its axes.
    slope, inter : float
        ``value = stored * slope + inter``; 1 and 0 where the file says nothing.
    path : Path or None
        Where it was read from.
    """

    header: nib.Nifti1Header
    affine: np.ndarray
    stored: np.ndarray
    slope: float
    inter: float
    path: Path | None = None

    @property
    def shape3(self) -> tuple[int, int, int]:
        """The three spatial axes."""
        return tuple(self.stored.shape[:3])

    @cached_property
    def data(self) -> np.ndarray:
        """Scaled values (X, Y, Z), float32; values that are not finite read as 0."""
        values = self.stored.reshape(self.shape3).astype(np.float32) * np.float32(self.slope) + np.float32(self.inter)
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)

    def to_stored(self, values: np.ndarray) -> np.ndarray:
        """Values (...,) as this file would store them: unscaled, rounded and clipped for whole-number types."""
        raw = (np.asarray(values, np.float64) - self.inter) / self.slope
        kind = self.stored.dtype
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            raw = np.clip(np.rint(raw), limits.min, limits.max)
        return raw.astype(kind)


def _name(image: object) -> str:
    return str(image) if isinstance(image, (str, os.PathLike)) else "the image given"


def load_source(image: str | os.PathLike | SpatialImage) -> SourceImage:
    """Read a scan and check that it can be worked on.

    Parameters
    ----------
    image : path or SpatialImage
        ``.nii`` or ``.nii.gz``, or an image in memory.

    Returns
    -------
    SourceImage

    Raises
    ------
    ScanError
        When it is missing, unreadable or truncated, of another format, or no three-dimensional scan of real numbers
        with a usable geometry. The message names the file, the cause and the way out.
    """
    name = _name(image)
    path = None
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        _check_path(path)
    try:
        if path is not None:
            loaded = nib.load(path)
        else:
            # through bytes, so that an image in memory is scaled and typed as its file would be
            kind = nib.Nifti2Image if isinstance(image, nib.Nifti2Image) else nib.Nifti1Image
            loaded = kind.from_bytes(kind.from_image(image).to_bytes())
        if not isinstance(loaded, (nib.Nifti1Image, nib.Nifti2Image)) or isinstance(loaded, nib.Nifti1Pair) and not (
            loaded.header.is_single
        ):
            raise ScanError(f"{name}: not a single-file NIfTI image; convert it to .nii.gz first")
        stored = np.asanyarray(loaded.dataobj.get_unscaled())
        if stored.dtype != loaded.header.get_data_dtype():
            stored = stored.astype(loaded.header.get_data_dtype())
    except ScanError:
        raise
    except (ImageFileError, OSError, EOFError, ValueError, nib.spatialimages.HeaderDataError) as error:
        raise ScanError(f"{name}: cannot be read ({error}); the file is damaged or incomplete, restore or re-export it") from error
    slope, inter = (1.0 if loaded.dataobj.slope is None else float(loaded.dataobj.slope)), float(loaded.dataobj.inter or 0)
    source = SourceImage(loaded.header, np.asarray(loaded.affine, np.float64), np.array(stored), slope, inter, path)
    _check_content(source, name)
    return source


def _check_path(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise ScanError(f"{path}: a link to content that is not here; fetch it first, e.g. `datalad get {path.name}`")
    if not path.exists():
        raise ScanError(f"{path}: no such file")
    if not path.is_file():
        raise ScanError(f"{path}: not a file")
    if not path.name.endswith(EXTENSIONS):
        raise ScanError(f"{path}: not a NIfTI file (.nii or .nii.gz); convert it first")
    if path.stat().st_size == 0:
        raise ScanError(f"{path}: the file is empty; restore or re-export it")


def _check_content(source: SourceImage, name: str) -> None:
    stored = source.stored
    if stored.dtype.kind not in "iuf":
        raise ScanError(f"{name}: voxels of type {stored.dtype} (RGB or complex); give a scan of real numbers")
    if stored.ndim < 3 or any(n != 1 for n in stored.shape[3:]):
        raise ScanError(f"{name}: shape {stored.shape} is not one three-dimensional volume; split it into volumes first")
    if min(stored.shape[:3]) < 8:
        raise ScanError(f"{name}: shape {stored.shape} has fewer than 8 slices along one axis; too few for a head")
    if not np.isfinite(source.affine).all() or abs(np.linalg.det(source.affine[:3, :3])) < 1e-6:
        raise ScanError(f"{name}: its affine has no usable geometry (qform and sform); repair the header first")
    if source.header["qform_code"] == 0 and source.header["sform_code"] == 0:
        raise ScanError(f"{name}: neither qform nor sform says how the head is oriented; repair the header first")
    data = source.data
    if stored.dtype.kind == "f" and np.isfinite(stored).mean() < 0.5:
        raise ScanError(f"{name}: most voxels are NaN or infinite; re-export the scan")
    if data.max() == data.min():
        raise ScanError(f"{name}: all voxels have the same value; the scan is empty")


def clean_header(source: SourceImage) -> nib.Nifti1Header:
    """The header to write: the source's, without free text and extensions, for a single file."""
    header = source.header.copy()
    header.extensions.clear()
    for field in TEXT_FIELDS:
        header[field] = b""
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
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
    """
    path = Path(path)
    if stored.shape != source.stored.shape or stored.dtype != source.stored.dtype:
        raise ValueError(f"stored values are {stored.dtype} {stored.shape}, not {source.stored.dtype} {source.stored.shape}")
    _write(clean_header(source), stored, path)
    return path


def save_mask(source: SourceImage, mask: np.ndarray, path: str | os.PathLike) -> Path:
    """Write a mask (X, Y, Z) as uint8, 1 = True, on the grid of a source."""
    header = clean_header(source)
    header.set_data_shape(mask.shape)
    header.set_data_dtype(np.uint8)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"] = header["cal_min"] = 0
    path = Path(path)
    _write(header, mask.astype(np.uint8), path)
    return path


def _write(header: nib.Nifti1Header, stored: np.ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    header.write_to(buffer)
    buffer.write(b"\0" * (int(header["vox_offset"]) - buffer.tell()))
    with open(path, "wb") as raw:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                packed.write(buffer.getvalue())
                packed.write(stored.tobytes(order="F"))
        else:
            raw.write(buffer.getvalue())
            raw.write(stored.tobytes(order="F"))
        raw.flush()
        os.fsync(raw.fileno())
