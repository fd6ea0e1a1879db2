"""Whole-head label maps as ground truth: scans made of them, and where nose, lips and eyelids are."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_cpmae.errors import ExitCode, InputError
from bids_cpmae.training.contrasts import SKIN_LABEL, draw_contrast

EYE_LABEL = 508
SURFACE_MM = 3.0
NOSE_RADII_MM = (20.0, 9.0)
LIPS_HALF_MM = (25.0, 11.0)
LIDS_HALF_MM = (15.0, 10.0)
SCANNER_UNITS = 500.0


def read_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A label map in RAS+ axis order.

    Returns
    -------
    labels : ndarray (X, Y, Z), int
    affine : ndarray (4, 4)

    Raises
    ------
    InputError
        When the file cannot be read.
    """
    try:
        image = nib.as_closest_canonical(nib.load(path))
        return np.asarray(image.dataobj).astype(np.int32), image.affine
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path}: cannot be read as a label map ({error})", ExitCode.NO_INPUT) from error


def label_groups(path: Path) -> dict[str, np.ndarray]:
    """The labels of each group in a table with the columns ``index`` and ``group``.

    Returns
    -------
    dict of str to ndarray, int
        Among the groups are ``brain`` and ``csf``.

    Raises
    ------
    InputError
        When the table cannot be read or names no brain.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["group"], int(row["index"])) for row in csv.DictReader(file, delimiter="\t")]
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a table of labels ({error})", ExitCode.NO_INPUT) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: needs the columns `index` and `group` ({error})", ExitCode.DATA) from error
    groups = {name: np.array([index for group, index in rows if group == name]) for name, _ in rows}
    if "brain" not in groups:
        raise InputError(f"{path}: no label is in the group `brain`", ExitCode.DATA)
    return groups


def scan_of_labels(
    labels: np.ndarray,
    affine: np.ndarray,
    rng: np.random.Generator,
    *,
    noise: float = 0.03,
    bias: float = 0.15,
) -> nib.Nifti1Image:
    """A T1w-like scan of a label map, with a coil's smooth shading and Rician noise, as int16.

    Parameters
    ----------
    labels : ndarray (X, Y, Z), int
        About 1 mm voxels.
    affine : ndarray (4, 4)
    rng : numpy.random.Generator
    noise : float
        Standard deviation in each channel, of white matter's signal.
    bias : float
        Standard deviation of the shading's logarithm.

    Returns
    -------
    Nifti1Image
    """
    clean = draw_contrast(labels, rng)
    shading = ndimage.zoom(
        rng.standard_normal((4, 4, 4)), np.array(labels.shape) / 4, order=3, mode="nearest"
    )
    clean *= np.exp(bias * shading / shading.std()).astype(np.float32)
    real, imaginary = (noise * rng.standard_normal(labels.shape, dtype=np.float32) for _ in range(2))
    scan = SCANNER_UNITS * np.hypot(clean + real, imaginary)
    return nib.Nifti1Image(np.rint(scan).astype(np.int16), affine)


def outer_skin(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Skin no deeper than 3 mm below the open air, True inside."""
    air, _ = ndimage.label(np.pad(labels == 0, 1, constant_values=True))
    air = (air == air[0, 0, 0])[1:-1, 1:-1, 1:-1]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return (labels == SKIN_LABEL) & (ndimage.distance_transform_edt(~air, sampling=spacing) <= SURFACE_MM)


def skin_of_face(labels: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Skin of the parts of a face by which people are known, found by anatomy.

    The eyes are labelled; the nose's tip is the foremost skin near the midline below them; the mouth is the notch in
    the profile below the nose.

    Parameters
    ----------
    labels : ndarray (X, Y, Z), int
        In RAS+ axis order, with skin (511) and eyes (508).
    affine : ndarray (4, 4)
        Voxel index to RAS+ mm.

    Returns
    -------
    dict of str to ndarray (X, Y, Z), bool
        ``nose``, ``lips`` and ``eyelids``, True inside.

    Raises
    ------
    InputError
        When eyes or skin are not labelled.
    """
    eyes = np.argwhere(labels == EYE_LABEL)
    skin = outer_skin(labels, affine)
    if not len(eyes) or not skin.any():
        raise InputError("the label map has no eyes (508) or no skin (511)", ExitCode.DATA)
    index = np.argwhere(skin)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    globes = eyes @ affine[:3, :3].T + affine[:3, 3]
    nasion, tip, mouth = _profile_landmarks(points, globes)

    along = np.clip((points - tip) @ (nasion - tip) / np.sum((nasion - tip) ** 2), 0, 1)[:, None]
    from_ridge = np.linalg.norm(points - (tip + along * (nasion - tip)), axis=1)
    wide, narrow = NOSE_RADII_MM
    nose = from_ridge <= wide + (narrow - wide) * along[:, 0]
    # the tip's sphere must not take in the upper lip
    nose &= points[:, 2] > (2 * tip[2] + mouth[2]) / 3

    across = (points[:, 0] - mouth[0]) / LIPS_HALF_MM[0]
    upright = (points[:, 2] - mouth[2]) / LIPS_HALF_MM[1]
    lips = (across**2 + upright**2 <= 1) & (points[:, 1] > mouth[1] - 20) & ~nose

    eyelids = np.zeros(len(points), bool)
    for side in (globes[globes[:, 0] < tip[0]], globes[globes[:, 0] >= tip[0]]):
        if len(side):
            # the label holds what surrounds the globe, with gaps; its middle is the globe's
            middle = (side.min(axis=0) + side.max(axis=0)) / 2
            off = (points - middle) / [LIDS_HALF_MM[0], 1, LIDS_HALF_MM[1]]
            eyelids |= (off[:, 0] ** 2 + off[:, 2] ** 2 <= 1) & (off[:, 1] > 0)
    eyelids &= ~nose
    out = {}
    for name, chosen in (("nose", nose), ("lips", lips), ("eyelids", eyelids)):
        out[name] = np.zeros(labels.shape, bool)
        out[name][tuple(index[chosen].T)] = True
    return out


def _profile_landmarks(points: np.ndarray, globes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nasion, tip of the nose and parting of the lips, world mm."""
    middle = (globes[:, 0].min() + globes[:, 0].max()) / 2
    level = globes[:, 2].mean()
    near = points[np.abs(points[:, 0] - middle) < 12]
    below = near[(near[:, 2] < level - 12) & (near[:, 2] > level - 60)]
    if not len(below):
        raise InputError("the label map has no nose below its eyes", ExitCode.DATA)
    tip = below[below[:, 1] >= below[:, 1].max() - 1].mean(axis=0)
    heights = np.arange(round(tip[2]) - 60, round(level) + 25)
    front = np.full(len(heights), -np.inf)
    ridge = near[np.abs(near[:, 0] - tip[0]) < 3]
    place = np.rint(ridge[:, 2]).astype(int) - heights[0]
    held = (place >= 0) & (place < len(heights))
    np.maximum.at(front, place[held], ridge[held, 1])

    def notch(low: float, high: float) -> np.ndarray:
        # the deepest place against the straight line between the ends
        span = np.flatnonzero((heights >= low) & (heights <= high) & np.isfinite(front))
        if len(span) < 3:
            raise InputError("the label map ends before the face does", ExitCode.DATA)
        smooth = ndimage.gaussian_filter1d(front[span], 1.0, mode="nearest")
        line = np.interp(heights[span], heights[span[[0, -1]]], smooth[[0, -1]])
        deepest = span[np.argmax(line - smooth)]
        return np.array([tip[0], front[deepest], heights[deepest]])

    return notch(level - 10, level + 20), tip, notch(tip[2] - 40, tip[2] - 20)
