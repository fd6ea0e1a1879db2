"""Scans made for the tests: head-like phantoms in every orientation, type and scaling that files come in."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np

DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
SECRET = b"Jane Doe"


@dataclass(frozen=True)
class Case:
    """How a phantom is laid out and stored."""

    axes: str = "RAS"
    spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)
    shape: tuple[int, ...] = (48, 56, 52)
    oblique: bool = False
    dtype: str = "<i2"
    slope: float = float("nan")
    inter: float = float("nan")
    suffix: str = ".nii.gz"
    version: int = 1


CASES = {
    "RAS": Case(),
    "LAS": Case(axes="LAS"),
    "LPS": Case(axes="LPS"),
    "permuted": Case(axes="PIR"),
    "oblique": Case(axes="LPS", oblique=True),
    "scaled": Case(slope=0.25, inter=-12.5),
    "uint8": Case(dtype="|u1", slope=3.1, inter=0.0),
    "float32": Case(dtype="<f4"),
    "float64": Case(dtype="<f8"),
    "big-endian": Case(dtype=">i2"),
    "one-volume": Case(shape=(48, 56, 52, 1)),
    "0.7mm": Case(spacing=(0.7, 0.7, 0.7)),
    "thick-slices": Case(spacing=(3.0, 3.0, 6.0), shape=(64, 72, 34)),
    "NIfTI-2": Case(version=2),
    "plain": Case(suffix=".nii"),
}


@dataclass(frozen=True)
class Phantom:
    """A phantom: stored file, its values, and its face (True = to be replaced) and brain on its own grid."""

    path: Path
    values: np.ndarray
    face: np.ndarray
    brain: np.ndarray
    affine: np.ndarray


def grid_affine(case: Case) -> np.ndarray:
    """Affine of a case, its field of view centred on the world's origin."""
    affine = np.eye(4)
    turn = nib.eulerangles.euler2mat(0.15, 0.1, 0.3) if case.oblique else np.eye(3)
    affine[:3, :3] = turn @ np.transpose([DIRECTIONS[code] for code in case.axes]) * case.spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(case.shape[:3]) - 1) / 2
    return affine


@lru_cache(maxsize=4)
def draw_head(case: Case):
    """A head that fills its field of view: scalp, skull, mottled brain and a nose, seen better from behind.

    Returns
    -------
    clean : ndarray (X, Y, Z)
        Noise-free values, 0 in air.
    face, brain : ndarray (X, Y, Z), bool
    """
    affine, shape = grid_affine(case), case.shape[:3]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    x, y, z = np.moveaxis(world / (np.ptp(world, axis=(0, 1, 2)) / 2), -1, 0)
    radius = np.sqrt((x / 0.72) ** 2 + ((y + 0.05) / 0.75) ** 2 + (z / 0.8) ** 2)
    nose = np.sqrt((x / 0.12) ** 2 + ((y - 0.68) / 0.16) ** 2 + ((z + 0.2) / 0.2) ** 2) < 1
    inner = np.sqrt((x / 0.72) ** 2 + ((y + 0.1) / 0.75) ** 2 + ((z - 0.12) / 0.72) ** 2)
    brain = inner < 0.72
    clean = np.where((radius < 1) | nose, 300.0, 0.0)
    clean = np.where(((radius > 0.9) & (radius < 1)) | nose, 520.0, clean)
    clean = np.where((inner < 0.82) & ~brain, 60.0, clean)
    clean = np.where(brain, 420.0 + 60 * np.sin(9 * x) * np.sin(9 * y) * np.sin(9 * z), clean)
    face = (y > 0.3) & (z < 0.15) & (inner > 0.85)
    return clean * (1 - 0.15 * y), face, brain


def write_nifti(path: Path, stored: np.ndarray, affine: np.ndarray, case: Case) -> Path:
    """Stored values as they are, with scaling, free text and an extension in the header; written byte by byte."""
    kind = nib.Nifti2Header if case.version == 2 else nib.Nifti1Header
    big = stored.dtype.byteorder == ">"
    header = kind(endianness=">" if big else "<")
    header.set_data_shape(stored.shape)
    header.set_data_dtype(stored.dtype)
    header.set_qform(affine, 1)
    header.set_sform(affine, 2)
    header.set_xyzt_units("mm", "sec")
    header["scl_slope"], header["scl_inter"] = case.slope, case.inter
    header["descrip"] = header["aux_file"] = SECRET
    header["cal_max"] = 900
    note = nib.nifti1.Nifti1Extension("comment", SECRET)
    header.extensions.append(note)
    header["vox_offset"] = header.single_vox_offset + note.get_sizeondisk()
    with open(path, "wb") as file:
        file.write(header.binaryblock + bytes([1, 0, 0, 0]))
        header.extensions.write_to(file, big)
        file.write(stored.tobytes(order="F"))
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    return path


def make_phantom(folder: Path, case: Case = CASES["RAS"], *, noise: float = 8.0) -> Phantom:
    """A phantom with Rician noise, written to ``folder``."""
    clean, face, brain = draw_head(case)
    parts = np.random.default_rng(0).standard_normal((2, *clean.shape)) * noise
    values = np.hypot(clean + parts[0], parts[1])
    slope, inter = np.nan_to_num(case.slope, nan=1.0), np.nan_to_num(case.inter, nan=0.0)
    dtype = np.dtype(case.dtype)
    raw = (values - inter) / slope
    stored = (np.rint(raw) if dtype.kind in "iu" else raw).astype(dtype)
    affine = grid_affine(case)
    path = write_nifti(folder / f"sub-01_T1w{case.suffix}", stored.reshape(case.shape), affine, case)
    return Phantom(path, stored * slope + inter, face, brain, affine)
