"""Random crops of heads for the VQ-VAEs: real scans and freshly drawn contrasts, some with the face blanked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import binary_dilation, zoom

from bids_cpmae.imaging.intensity import BRAIN_LEVEL
from bids_cpmae.imaging.template import BRAIN_BIT, HEAD_BIT, load_template
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.contrasts import WHITE, draw_contrast

CROP = 64
HALO = 4
MASK_SPACING = 2


@dataclass
class CropSampler:
    """Draws batches; everything random follows from the step number.

    Attributes
    ----------
    bank : Bank
    part : str
        ``skull`` or ``brain``: which side of the brain mask a crop shows.
    label_share, face_share, blank_share : float
        Share of crops from label maps, centred on face or ears, and (skull only) with a part blanked.
    """

    bank: Bank
    part: str
    label_share: float = 0.45
    face_share: float = 0.7
    blank_share: float = 0.4
    batch: int = 4
    seed: int = 0
    _centres: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        template = load_template()
        brain, face = template.mask(BRAIN_BIT), template.replaced()
        self.brain = brain
        self.face = face
        near = binary_dilation(template.mask(HEAD_BIT), iterations=4)
        zones = {"brain": brain} if self.part == "brain" else {"face": face & near, "skull": near & ~brain}
        self._centres = {name: np.argwhere(zone) * MASK_SPACING for name, zone in zones.items()}
        self._scans = [np.load(path, mmap_mode="r") for path in self.bank.scans]
        self._labels = [np.load(path, mmap_mode="r") for path in self.bank.labels]

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Volumes and known-masks, each (batch, 1, 64, 64, 64) float32, for one step."""
        rng = np.random.default_rng([self.seed, step])
        pairs = [self._one(rng) for _ in range(self.batch)]
        volumes, known = (torch.from_numpy(np.stack(side)[:, None]) for side in zip(*pairs))
        return volumes, known

    def _corner(self, rng: np.random.Generator) -> np.ndarray:
        zone = "brain" if self.part == "brain" else ("face" if rng.random() < self.face_share else "skull")
        centres = self._centres[zone]
        corner = centres[rng.integers(len(centres))] - CROP // 2 + rng.integers(-8, 9, 3)
        # even corners keep crops in step with the 2 mm masks
        return np.clip(corner, HALO, 256 - CROP - HALO) // MASK_SPACING * MASK_SPACING

    def _one(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        corner = self._corner(rng)
        if self._labels and rng.random() < self.label_share:
            volume = self._drawn(self._labels[rng.integers(len(self._labels))], corner, rng)
        else:
            scan = self._scans[rng.integers(len(self._scans))]
            volume = scan[tuple(slice(c, c + CROP) for c in corner)].astype(np.float32) / 255
            volume = np.clip(volume * rng.uniform(0.85, 1.15), 0, 1) ** rng.uniform(0.85, 1.2)
        known = self._known(corner, rng)
        if rng.random() < 0.5:
            volume, known = volume[::-1], known[::-1]
        return np.ascontiguousarray(volume, np.float32), np.ascontiguousarray(known, np.float32)

    def _drawn(self, labels: np.ndarray, corner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        wide = tuple(slice(c - HALO, c + CROP + HALO) for c in corner)
        volume = draw_contrast(np.asarray(labels[wide]), rng, spread=0.15)
        volume = volume[(slice(HALO, -HALO),) * 3] * BRAIN_LEVEL / WHITE * rng.uniform(0.85, 1.15)
        shading = zoom(1 + 0.15 * rng.standard_normal((3, 3, 3)), CROP / 3, order=1, grid_mode=True, mode="nearest")
        return np.clip(volume * shading, 0, 1)

    def _known(self, corner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        cube = tuple(slice(c // MASK_SPACING, (c + CROP) // MASK_SPACING) for c in corner)
        known = self.brain[cube] if self.part == "brain" else ~self.brain[cube]
        if self.part == "skull" and rng.random() < self.blank_share:
            shift = rng.integers(-6, 7, 3)
            known = known & ~np.roll(self.face, shift, (0, 1, 2))[cube]
        return np.repeat(np.repeat(np.repeat(known, 2, 0), 2, 1), 2, 2)
