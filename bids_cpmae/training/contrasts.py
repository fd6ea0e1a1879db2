"""T1w-like contrasts drawn on whole-head label maps (the tissues of ``labelmaps/labels.tsv``)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bids_cpmae.imaging.distance import distance_in

WHITE, GREY, CSF, DEEP = 1.0, 0.70, 0.25, 0.85
MUSCLE, FAT, SKIN, EYE, MUCOSA, BONE, MARROW, AIR, SOFT = 0.50, 1.45, 0.80, 0.25, 0.75, 0.15, 0.95, 0.03, 0.60
SOFT_TISSUE = 507
SKIN_LABEL = 511
# further in voxels from the skin than this soft tissue is alike
DEEPEST = 20.0
MEANS = {
    **dict.fromkeys((2, 41, 7, 46, 16, 28, 60, 85), WHITE),
    **dict.fromkeys((3, 42, 8, 47, 17, 53, 18, 54, 26, 58, 136, 137, 163, 164, 25, 57), GREY),
    **dict.fromkeys((4, 5, 14, 15, 24, 43, 44, 72, 30, 62), CSF),
    **dict.fromkeys((10, 49, 11, 50, 12, 51, 13, 52), DEEP),
    502: AIR, 506: SOFT, 508: EYE, 509: MUCOSA, SKIN_LABEL: SKIN, 512: SOFT, 514: WHITE, 515: BONE, 516: MARROW,
    530: SOFT,
}  # fmt: skip
BRAIN_LABELS = tuple(sorted(label for label in MEANS if 0 < label < 500))


def skin_depth(labels: np.ndarray) -> np.ndarray:
    """Distance in voxels from the skin of a label map (X, Y, Z), at most `DEEPEST`; float16."""
    skin = labels == SKIN_LABEL
    return np.minimum(distance_in(~skin), DEEPEST).astype(np.float16)


def draw_contrast(labels: np.ndarray, rng: np.random.Generator, *, spread: float = 0.1) -> np.ndarray:
    """A T1w-like volume without noise, white matter near 1, see `contrast`.

    Parameters
    ----------
    labels : ndarray (X, Y, Z), int
        About 1 mm voxels.
    rng : numpy.random.Generator
    spread : float

    Returns
    -------
    ndarray (X, Y, Z), float32
    """
    depth = torch.from_numpy(skin_depth(labels))
    return contrast(torch.from_numpy(np.ascontiguousarray(labels)), depth, rng, spread=spread).numpy()


def contrast(labels: Tensor, depth: Tensor, rng: np.random.Generator, *, spread: float = 0.1) -> Tensor:
    """A T1w-like volume without noise on the device of the labels, white matter near 1.

    Soft tissue, which the maps do not divide, becomes a smooth mosaic of muscle and fat with more fat under the skin.

    Parameters
    ----------
    labels, depth : Tensor (X, Y, Z)
        About 1 mm voxels; ``depth`` as of `skin_depth`.
    rng : numpy.random.Generator
        Tissue means, mosaic and sharpness are drawn from it.
    spread : float
        Relative standard deviation of the tissue means.

    Returns
    -------
    Tensor (X, Y, Z), float32
    """
    table = torch.zeros(max(int(labels.max()), 530) + 1)
    for label, mean in MEANS.items():
        table[label] = mean * max(0.2, 1 + spread * rng.standard_normal())
    volume = table.to(labels.device)[labels.int()]
    soft = labels == SOFT_TISSUE
    noise = torch.randn(labels.shape, device=labels.device, generator=_generator(labels.device, rng))
    noise = blurred(noise, rng.uniform(1.5, 4))
    lean = noise / noise.std() + ((depth.float() - rng.uniform(3, 7)) / 3).clamp(-1.5, 1.5)
    fat = FAT * (1 + 0.15 * rng.standard_normal())
    muscle = MUSCLE * (1 + 0.1 * rng.standard_normal())
    volume = torch.where(soft, fat + (muscle - fat) * torch.sigmoid(6 * lean), volume)
    return blurred(volume, rng.uniform(0.4, 0.8))


def _generator(device: torch.device, rng: np.random.Generator) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(rng.integers(2**62)))


def blurred(volume: Tensor, sigma: float) -> Tensor:
    """A volume (X, Y, Z) under a Gaussian of ``sigma`` voxels; what lies outside does not count."""
    for axis, size in enumerate(volume.shape):
        at = torch.arange(size, device=volume.device, dtype=torch.float32)
        kernel = torch.exp(-(((at[:, None] - at) / sigma) ** 2) / 2)
        volume = torch.tensordot(volume, kernel / kernel.sum(1, keepdim=True), ([axis], [1])).movedim(-1, axis)
    return volume
