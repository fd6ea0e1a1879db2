"""One scan of a person aligned rigidly to another of the same person, whatever the contrasts, by the brain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from bids_cpmae.antspy import load_ants
from bids_cpmae.imaging.facemask import COARSE_MM, coarse_scan
from bids_cpmae.imaging.headspace import apply_affine
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.registration import LPS, Grid, scratch_folder, set_repeatable, write_starts
from bids_cpmae.imaging.resample import resample

# what the metric looks at: with nothing but the brain in view it slides out of the head
AROUND_BRAIN_MM = 20.0
# what an alignment is judged by
BESIDE_BRAIN_MM = 6.0
# two starts that end as near to each other as this need no third
AGREE_MM = 4.0
SAMPLED = 0.25
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
        True = brain, on the reference's grid; it and what is near it are compared.
    mask, reference_mask : ndarray (X, Y, Z), bool, optional
        True = not to be read, on the grid of either. With both the result is a function of the other voxels alone.
    seed : int
        Of the metric's sampling.

    Returns
    -------
    Alignment
    """
    fixed, moving = (_seen(image, hidden) for image, hidden in ((reference, reference_mask), (source, mask)))
    inner = resample(brain, reference.affine, fixed.affine, fixed.data.shape) > 0.5
    if inner.sum() < LEAST_BRAIN_VOXELS:
        inner = fixed.data > 0
    judged, near = (
        binary_dilation(inner, iterations=int(mm / COARSE_MM)) for mm in (BESIDE_BRAIN_MM, AROUND_BRAIN_MM)
    )
    if reference_mask is not None:
        near &= resample(reference_mask, reference.affine, fixed.affine, fixed.data.shape, outside="edge") < 0.01
    with scratch_folder() as folder:
        found = _register(fixed, moving, near, judged, Path(folder), seed)
    return Alignment(np.linalg.inv(found), information(fixed, moving, judged, found))


def _seen(image: SourceImage, hidden: np.ndarray | None) -> Grid:
    data = image.data if hidden is None else np.where(hidden, np.float32(0), image.data)
    return coarse_scan(data, image.affine)


def _register(
    fixed: Grid, moving: Grid, near: np.ndarray, judged: np.ndarray, folder: Path, seed: int
) -> np.ndarray:
    """The reference's world to the scan's (4, 4): the best of several coarse fits, refined."""
    ants = load_ants()

    set_repeatable(seed)
    region = Grid(near.astype(np.float32), fixed.affine)
    coarse = [part.to_ants() for part in (fixed.coarser(), moving.coarser(), _binary(region.coarser()))]
    corners = apply_affine(fixed.affine, np.argwhere(judged)[:: max(1, int(judged.sum()) // 1000)])
    tried = []
    for number, start in enumerate([_headers(folder), *write_starts(coarse[0], coarse[1], folder)]):
        made = ants.registration(
            coarse[0], coarse[1], "Rigid", initial_transform=start, outprefix=str(folder / f"coarse{number}_"),
            aff_iterations=(100, 50), aff_shrink_factors=(2, 1), aff_smoothing_sigmas=(1, 0.5), mask=coarse[2],
            mask_all_stages=True,
        )["fwdtransforms"]  # fmt: skip
        matrix = _matrix(made[0])
        apart = [np.abs(apply_affine(matrix, corners) - apply_affine(other, corners)).max() for _, other, _ in tried]
        tried.append((information(fixed, moving, judged, matrix), matrix, made))
        if min(apart, default=np.inf) < AGREE_MM and tried[-1][0] >= 0.9 * max(score for score, *_ in tried):
            break
    best = max(tried, key=lambda one: one[0])
    fine = [part.to_ants() for part in (fixed, moving, region)]
    made = ants.registration(
        fine[0], fine[1], "Rigid", initial_transform=best[2], outprefix=str(folder / "fine_"),
        aff_iterations=(60, 40), aff_shrink_factors=(2, 1), aff_smoothing_sigmas=(1, 0.5), mask=fine[2],
        mask_all_stages=True, aff_random_sampling_rate=SAMPLED,
    )["fwdtransforms"]  # fmt: skip
    refined = _matrix(made[0])
    return refined if information(fixed, moving, judged, refined) >= best[0] else best[1]


def _binary(grid: Grid) -> Grid:
    return Grid((grid.data > 0.5).astype(np.float32), grid.affine)


def _headers(folder: Path) -> str:
    """The start that takes the headers at their word: within a session they are nearly right."""
    ants = load_ants()

    name = str(folder / "headers.mat")
    ants.write_transform(ants.create_ants_transform("AffineTransform", precision="float", dimension=3), name)
    return name


def _matrix(file: str) -> np.ndarray:
    """A linear transform that ANTs wrote, as a matrix (4, 4) in RAS+."""
    ants = load_ants()

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

