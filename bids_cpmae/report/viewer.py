"""What a page needs to turn a head in three dimensions: a small copy of the refaced scan, and NiiVue."""

from __future__ import annotations

import base64
import gzip
from functools import lru_cache
from importlib.resources import files

import nibabel as nib
import numpy as np

from bids_cpmae.imaging.headspace import covering_grid
from bids_cpmae.imaging.resample import downsample
from bids_cpmae.imaging.skin import THRESHOLD_SHARE, otsu_threshold

NIIVUE_VERSION = "0.69.0"
SPACINGS_MM = (2.0, 3.0)
# all volumes of a page together, as text; with NiiVue and the pictures a page stays below 6 MB
BUDGET = 3_500_000
# shades: fewer compress better, and no eye tells more apart in a shaded volume
LEVELS = 64
MARGIN = 1


def preview(volume: np.ndarray, affine: np.ndarray, spacing: float) -> bytes:
    """A small copy of a scan, ``.nii.gz``: uint8, axis-aligned RAS+, cropped to the head, noise of the air set to 0.

    Parameters
    ----------
    volume : ndarray (X, Y, Z)
    affine : ndarray (4, 4)
        Voxel index to RAS+ mm.
    spacing : float
        Voxel size in mm.
    """
    grid, shape = covering_grid(affine, volume.shape, spacing)
    small = downsample(volume, affine, grid, shape)
    top = max(float(np.percentile(small, 99.8)), 1e-6)
    # half of where skin begins for a rendering; taken off and not cut off, so that the skin has no steps
    floor = np.nan_to_num(THRESHOLD_SHARE / 2 * otsu_threshold(np.clip(small, 0, np.percentile(small, 98))))
    share = np.clip((small - floor) / max(top - floor, 1e-6), 0, 1)
    shades = np.rint(np.rint(share * (LEVELS - 1)) * (255 / (LEVELS - 1))).astype(np.uint8)
    filled = np.argwhere(shades)
    if len(filled):
        low = np.maximum(filled.min(0) - MARGIN, 0)
        high = filled.max(0) + 1 + MARGIN
        shades = shades[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        grid = grid @ nib.affines.from_matvec(np.eye(3), low)
    image = nib.Nifti1Image(shades, grid)
    image.header.set_xyzt_units("mm")
    # level 9 takes three times as long, for less than a hundredth
    return gzip.compress(image.to_bytes(), 6, mtime=0)


def fitting(volumes: list[str]) -> int:
    """How many of these volumes as text, from the first on, a page can carry."""
    return int((np.cumsum([len(text) for text in volumes]) <= BUDGET).sum())


def as_text(content: bytes) -> str:
    """Bytes as Base64."""
    return base64.b64encode(content).decode()


@lru_cache(maxsize=1)
def niivue() -> str:
    """NiiVue's program, gzip and Base64: a third of its size."""
    program = files("bids_cpmae.report").joinpath("vendor", "niivue.umd.js").read_bytes()
    return as_text(gzip.compress(program, 9, mtime=0))
