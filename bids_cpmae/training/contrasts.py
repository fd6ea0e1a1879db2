"""T1w-like contrasts drawn on whole-head label maps (the tissues of ``labelmaps/labels.tsv``)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

WHITE, GREY, CSF, DEEP = 1.0, 0.70, 0.25, 0.85
MUSCLE, FAT, SKIN, EYE, MUCOSA, BONE, MARROW, AIR, SOFT = 0.50, 1.45, 0.80, 0.25, 0.75, 0.15, 0.95, 0.03, 0.60
SOFT_TISSUE = 507
SKIN_LABEL = 511
MEANS = {
    **dict.fromkeys((2, 41, 7, 46, 16, 28, 60, 85), WHITE),
    **dict.fromkeys((3, 42, 8, 47, 17, 53, 18, 54, 26, 58, 136, 137, 163, 164, 25, 57), GREY),
    **dict.fromkeys((4, 5, 14, 15, 24, 43, 44, 72, 30, 62), CSF),
    **dict.fromkeys((10, 49, 11, 50, 12, 51, 13, 52), DEEP),
    502: AIR, 506: SOFT, 508: EYE, 509: MUCOSA, SKIN_LABEL: SKIN, 512: SOFT, 514: WHITE, 515: BONE, 516: MARROW,
    530: SOFT,
}  # fmt: skip
BRAIN_LABELS = tuple(sorted(label for label in MEANS if 0 < label < 500))


def draw_contrast(labels: np.ndarray, rng: np.random.Generator, *, spread: float = 0.1) -> np.ndarray:
    """A T1w-like volume without noise, white matter near 1.

    Soft tissue, which the maps do not divide, becomes a smooth mosaic of muscle and fat with more fat under the skin.

    Parameters
    ----------
    labels : ndarray (X, Y, Z), int
        About 1 mm voxels.
    rng : numpy.random.Generator
        Tissue means, mosaic and sharpness are drawn from it.
    spread : float
        Relative standard deviation of the tissue means.

    Returns
    -------
    ndarray (X, Y, Z), float32
    """
    table = np.zeros(max(int(labels.max()), 530) + 1, np.float32)
    for label, mean in MEANS.items():
        table[label] = mean * max(0.2, 1 + spread * rng.standard_normal())
    volume = table[labels]
    soft = labels == SOFT_TISSUE
    if soft.any():
        depth = distance_transform_edt(labels != SKIN_LABEL) if (labels == SKIN_LABEL).any() else 20.0
        noise = gaussian_filter(rng.standard_normal(labels.shape).astype(np.float32), rng.uniform(1.5, 4))
        lean = noise / noise.std() + np.clip((np.asarray(depth) - rng.uniform(3, 7)) / 3, -1.5, 1.5)
        fat = FAT * (1 + 0.15 * rng.standard_normal())
        muscle = MUSCLE * (1 + 0.1 * rng.standard_normal())
        mixed = muscle + (fat - muscle) / (1 + np.exp(np.clip(6 * lean, -30, 30)))
        volume = np.where(soft, mixed.astype(np.float32), volume)
    return gaussian_filter(volume, rng.uniform(0.4, 0.8))
