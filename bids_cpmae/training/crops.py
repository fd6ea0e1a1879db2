"""Random crops of heads for the VQ-VAEs: real scans and freshly drawn contrasts, some with the face blanked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor
from torch.nn.functional import interpolate

from bids_cpmae.imaging.intensity import BRAIN_LEVEL
from bids_cpmae.imaging.template import BRAIN_BIT, HEAD_BIT, load_template
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.contrasts import WHITE, contrast, skin_depth

CROP = 64
HALO = 4
MASK_SPACING = 2


@dataclass
class CropSampler:
    """Draws batches on the device that trains; everything random follows from the step number.

    Attributes
    ----------
    bank : Bank
        The device holds all its heads, 17 MB a scan and 67 MB a label map.
    part : str
        ``skull`` or ``brain``: which side of the brain mask a crop shows.
    label_share, face_share, blank_share : float
        Share of crops from label maps, centred on face or ears, and (skull only) with a part blanked.
    device : str
        What is random on it differs from what it is on another kind.
    """

    bank: Bank
    part: str
    label_share: float = 0.45
    face_share: float = 0.7
    blank_share: float = 0.4
    batch: int = 4
    seed: int = 0
    device: str = "cpu"
    _centres: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        template = load_template()
        brain, face = template.mask(BRAIN_BIT), template.replaced()
        self._brain, self._face = (torch.from_numpy(mask).to(self.device) for mask in (brain, face))
        near = binary_dilation(template.mask(HEAD_BIT), iterations=4)
        zones = {"brain": brain} if self.part == "brain" else {"face": face & near, "skull": near & ~brain}
        self._centres = {name: np.argwhere(zone) * MASK_SPACING for name, zone in zones.items()}
        self._scans = [self._held(path) for path in self.bank.scans]
        self._labels = [self._held(path) for path in self.bank.labels]
        self._depths = [torch.from_numpy(skin_depth(labels.cpu().numpy())).to(self.device) for labels in self._labels]

    def _held(self, path: Path) -> Tensor:
        return torch.from_numpy(np.load(path, mmap_mode="c")).to(self.device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Volumes and known-masks, each (batch, 1, 64, 64, 64) float32, for one step."""
        rng = np.random.default_rng([self.seed, step])
        volumes, known = zip(*(self._one(rng) for _ in range(self.batch)))
        return torch.stack(volumes)[:, None], torch.stack(known)[:, None].float()

    def _corner(self, rng: np.random.Generator) -> np.ndarray:
        zone = "brain" if self.part == "brain" else ("face" if rng.random() < self.face_share else "skull")
        centres = self._centres[zone]
        corner = centres[rng.integers(len(centres))] - CROP // 2 + rng.integers(-8, 9, 3)
        # even corners keep crops in step with the 2 mm masks
        return np.clip(corner, HALO, 256 - CROP - HALO) // MASK_SPACING * MASK_SPACING

    def _one(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        corner = self._corner(rng)
        if self._labels and rng.random() < self.label_share:
            volume = self._drawn(rng.integers(len(self._labels)), corner, rng)
        else:
            scan = self._scans[rng.integers(len(self._scans))]
            volume = scan[tuple(slice(c, c + CROP) for c in corner)].float() / 255
            volume = (volume * rng.uniform(0.85, 1.15)).clamp(0, 1) ** rng.uniform(0.85, 1.2)
        known = self._known(corner, rng)
        if rng.random() < 0.5:
            volume, known = volume.flip(0), known.flip(0)
        return volume, known

    def _drawn(self, number: int, corner: np.ndarray, rng: np.random.Generator) -> Tensor:
        wide = tuple(slice(c - HALO, c + CROP + HALO) for c in corner)
        volume = contrast(self._labels[number][wide], self._depths[number][wide], rng, spread=0.15)
        volume = volume[(slice(HALO, -HALO),) * 3] * (BRAIN_LEVEL / WHITE * rng.uniform(0.85, 1.15))
        nodes = torch.from_numpy(1 + 0.15 * rng.standard_normal((1, 1, 3, 3, 3))).float().to(self.device)
        return (volume * interpolate(nodes, size=(CROP,) * 3, mode="trilinear")[0, 0]).clamp(0, 1)

    def _known(self, corner: np.ndarray, rng: np.random.Generator) -> Tensor:
        cube = tuple(slice(c // MASK_SPACING, (c + CROP) // MASK_SPACING) for c in corner)
        known = self._brain[cube] if self.part == "brain" else ~self._brain[cube]
        if self.part == "skull" and rng.random() < self.blank_share:
            shift = [int(n) for n in rng.integers(-6, 7, 3)]
            known = known & ~self._face.roll(shift, (0, 1, 2))[cube]
        for axis in range(3):
            known = known.repeat_interleave(MASK_SPACING, axis)
        return known
