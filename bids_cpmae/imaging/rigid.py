"""One scan of a person aligned rigidly to another of the same person, whatever the contrasts, by the brain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from bids_cpmae.imaging.facemask import COARSE_MM, coarse_scan
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.registration import LPS, Grid, scratch_folder, set_repeatable, write_starts
from bids_cpmae.imaging.resample import resample

# what the metric looks at: the brain, with enough around it that its border tells; less than the mask keeps off it
AROUND_BRAIN_MM = 6.0
BINS = 32
LEAST_BRAIN_VOXELS = 500


@dataclass(frozen=True)
class Alignment:
    """How a scan lies to its reference.

    Attributes
    ----------
    affine : ndarray (4, 4)
        Rigid, from the scan's world to the reference's, RAS+ mm.
    information : float
        Normalised mutual information of the two in and around the brain: 0 for unrelated ones, 1 for the same.
    """

    affine: np.ndarray
    information: float


def align_rigid(
    source: SourceImage,
    reference: SourceImage,
    brain: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    reference_mask: np.ndarray | None = None,
    seed: int = 0,
) -> Alignment:
    """Align a scan to a reference of the same person, from the headers' word and from several other starts.

    Parameters
    ----------
    source, reference : SourceImage
        Of any contrast, voxel size and orientation.
    brain : ndarray (X, Y, Z), bool
        True = brain, on the reference's grid; it and 6 mm around it are what is compared.
    mask, reference_mask : ndarray (X, Y, Z), bool, optional
        True = not to be read, on the grid of either. With both the result is a function of the other voxels alone.
    seed : int
        Of the metric's sampling.

    Returns
    -------
    Alignment
    """
    fixed, moving = (_seen(image, hidden) for image, hidden in ((reference, reference_mask), (source, mask)))
    near = resample(brain, reference.affine, fixed.affine, fixed.data.shape) > 0.5
    near = binary_dilation(near, iterations=int(AROUND_BRAIN_MM / COARSE_MM))
    if near.sum() < LEAST_BRAIN_VOXELS:
        near = fixed.data > 0
    with scratch_folder() as folder:
        found = _register(fixed, moving, near, Path(folder), seed)
    return Alignment(np.linalg.inv(found), information(fixed, moving, near, found))


def _seen(image: SourceImage, hidden: np.ndarray | None) -> Grid:
    data = image.data if hidden is None else np.where(hidden, np.float32(0), image.data)
    return coarse_scan(data, image.affine)


def _register(fixed: Grid, moving: Grid, near: np.ndarray, folder: Path, seed: int) -> np.ndarray:
    """The reference's world to the scan's (4, 4): the best of several coarse fits, refined."""
    import ants

    set_repeatable(seed)
    region = Grid(near.astype(np.float32), fixed.affine)
    coarse = fixed.coarser(), moving.coarser(), region.coarser()
    images = [part.to_ants() for part in (*coarse[:2], _binary(coarse[2]))]
    best = None
    for number, start in enumerate([_headers(folder), *write_starts(images[0], images[1], folder)]):
        made = ants.registration(
            images[0], images[1], "Rigid", initial_transform=start, outprefix=str(folder / f"coarse{number}_"),
            aff_iterations=(100, 50), aff_shrink_factors=(2, 1), aff_smoothing_sigmas=(1, 0.5), mask=images[2],
            mask_all_stages=True,
        )["fwdtransforms"]  # fmt: skip
        score = information(coarse[0], coarse[1], coarse[2].data > 0.5, _matrix(made[0]))
        if best is None or score > best[0]:
            best = (score, made)
    fine = [part.to_ants() for part in (fixed, moving, region)]
    made = ants.registration(
        fine[0], fine[1], "Rigid", initial_transform=best[1], outprefix=str(folder / "fine_"),
        aff_iterations=(60, 30), aff_shrink_factors=(2, 1), aff_smoothing_sigmas=(1, 0), mask=fine[2],
        mask_all_stages=True,
    )["fwdtransforms"]  # fmt: skip
    return _matrix(made[0])


def _binary(grid: Grid) -> Grid:
    return Grid((grid.data > 0.5).astype(np.float32), grid.affine)


def _headers(folder: Path) -> str:
    """The start that takes the headers at their word: within a session they are nearly right."""
    import ants

    name = str(folder / "headers.mat")
    ants.write_transform(ants.create_ants_transform("AffineTransform", precision="float", dimension=3), name)
    return name


def _matrix(file: str) -> np.ndarray:
    """A linear transform that ANTs wrote, as a matrix (4, 4) in RAS+."""
    import ants

    transform = ants.read_transform(file)
    numbers, centre = np.array(transform.parameters), np.array(transform.fixed_parameters)
    linear, shift = numbers[:9].reshape(3, 3), numbers[9:]
    out = np.eye(4)
    out[:3, :3] = linear * LPS[:, None] * LPS
    out[:3, 3] = (shift + centre - linear @ centre) * LPS
    return out


def information(fixed: Grid, moving: Grid, where: np.ndarray, affine: np.ndarray) -> float:
    """Normalised mutual information within ``where`` (True = counts, on the fixed grid); ``affine`` leads to moving.

    What lies beyond the moving image does not count, but an overlap of less than a tenth gives 0.
    """
    shape = fixed.data.shape
    moved = resample(moving.data, np.linalg.inv(affine) @ moving.affine, fixed.affine, shape)
    there = resample(np.ones(moving.data.shape, np.float32), np.linalg.inv(affine) @ moving.affine, fixed.affine, shape)
    both = where & (there > 0.99)
    if both.sum() < 0.1 * where.sum() or both.sum() < LEAST_BRAIN_VOXELS // 10:
        return 0.0
    ranks = [_ranks(values[both]) for values in (fixed.data, moved)]
    joint = np.bincount(ranks[0] * BINS + ranks[1], minlength=BINS * BINS).reshape(BINS, BINS) / len(ranks[0])
    entropies = [_entropy(part) for part in (joint.sum(0), joint.sum(1), joint)]
    total = entropies[0] + entropies[1]
    return float(2 * (total - entropies[2]) / total) if total > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.digitize(values, edges)


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())

