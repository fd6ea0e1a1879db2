"""Heads to test on: the template's average head, which is nobody's, in whatever file form a test asks for."""

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from bids_cpmae.imaging.headspace import head_affine
from bids_cpmae.imaging.template import SPACING, load_template

UNITS = 600


def average_head(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values (float32, about 0 to 1000) and affine of the average head at 2 mm, with Rician noise and some shading."""
    rng = np.random.default_rng(seed)
    head = load_template().grid.data * UNITS
    x = np.linspace(-1, 1, head.shape[0])[:, None, None]
    real, imaginary = (8 * rng.standard_normal((2, *head.shape))).astype(np.float32)
    noisy = np.hypot(head * (1 + 0.1 * x) + real, imaginary)
    corner = (14, 4, 6)
    cut = noisy[14:114, 4:126, 6:126].astype(np.float32)
    return cut, head_affine(2) @ nib.affines.from_matvec(np.eye(3), corner)


def as_image(values: np.ndarray, affine: np.ndarray, dtype=np.int16, **header) -> nib.Nifti1Image:
    """An image with both orientations set and the text fields filled, as scanners leave them."""
    image = nib.Nifti1Image(values.astype(dtype), affine, dtype=dtype)
    image.header["descrip"] = b"Jane Doe 1970-01-01"
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    for name, value in header.items():
        image.header[name] = value
    return image


def somebody(number: int) -> nib.Nifti1Image:
    """The average head bent smoothly into somebody nobody knows, another for each number, 2 mm."""
    values, affine = average_head(number)
    rng = np.random.default_rng([number, 3])
    bend = [gaussian_filter(rng.standard_normal(values.shape), 6) for _ in range(3)]
    shift = [6 / SPACING * part / np.abs(part).max() for part in bend]
    index = np.indices(values.shape) + np.array(shift)
    return as_image(map_coordinates(values, index, order=1), affine)


def moved(turn=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    """A rigid transform (4, 4) from Euler angles in radians and a shift in mm."""
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(*turn), shift)


def t2_like(t1: np.ndarray) -> np.ndarray:
    """A contrast that turns the T1w one about: dark tissue and fluid bright, bright tissue dark, air and bone dark."""
    value = np.clip(t1, 0, 2)
    return np.interp(value, [0, 0.08, 0.2, 0.35, 0.6, 1.0, 1.6], [0, 30, 1000, 800, 450, 250, 700])
