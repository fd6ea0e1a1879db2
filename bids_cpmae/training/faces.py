"""Heads as the app meets them, for the masked autoencoder to learn from: a true face, and a fitted sketch in its place.

For each head and its mirror image: the face is blanked by one of a few masks, which waver as registration does, and the
portrait in that head's own shape is fitted into the hole and lit, as `bids_cpmae.model.cpmae` does it with a drawn
identity. Variants of a head look as if another scanner had seen it, and in every second one what lies under the mask is
deformed into a face nobody has, and the sketch with it.
"""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import zoom
from torch.nn.functional import interpolate

from bids_cpmae.imaging.facemask import signed_distance
from bids_cpmae.imaging.headspace import grid_points, head_affine, head_shape
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.template import BRAIN_BIT, SPACING, load_template
from bids_cpmae.model.cpmae import SKETCH_HALO, code_box, fitted, voxel_box
from bids_cpmae.model.identity import FIELD_MM, bend, joined, shares
from bids_cpmae.model.regions import Places, cells
from bids_cpmae.model.vqvae import STRIDE
from bids_cpmae.model.weights import shipped_anatomy
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.shapes import mirrored, read_shape, volume_of

WAVER_MM = 2.0
# another scanner: gain, fat against brain, logarithm of light, dark below a height in mm, noise; the brain lies at 0.5
GAIN, BRIGHTNESS, LIGHT, NOISE = (0.85, 1.15), (-0.25, 0.25), 0.2, (0.0, 0.02)
DARK_ODDS, DARK, DARK_FROM_MM, DARK_OVER_MM = 0.5, (0.2, 0.8), (-90.0, -20.0), 70.0
BENDS = ((5, 5.0), (9, 2.5))
MASKS = 24
# what the masks blank: the app's default mostly
REGIONS = (("face", "ears"),) * 6 + (("face",), ("ears",))


def _regions(number: int) -> tuple[str, ...]:
    return REGIONS[number % len(REGIONS)]


@cache
def _distance(regions: tuple[str, ...]) -> np.ndarray:
    template = load_template()
    distance = signed_distance(template.replaced_with_air(regions), SPACING)
    return resample(distance, template.grid.affine, head_affine(), head_shape(), outside="edge")


@lru_cache(maxsize=1)
def mask(number: int) -> np.ndarray:
    """One of `MASKS` face masks (256, 256, 256), True inside; its border strays smoothly by about ``WAVER_MM``."""
    rng = np.random.default_rng([11, number])
    noise = smooth_field(rng.standard_normal((8, 8, 8)), head_shape())
    return (_distance(_regions(number)) + WAVER_MM * noise < 0) & ~load_template().fine(BRAIN_BIT)


@cache
def masked_codes(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (32, 32, 32) that a mask touches near the head, and those that it covers whole."""
    blank = mask(number)
    whole = cells(blank, STRIDE, how="all")
    return cells(blank, STRIDE) & Places.of(whole, shipped_anatomy()).reach, whole


def smooth_field(nodes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values at a few nodes spread smoothly over a volume: a cubic spline to 32^3, then trilinear."""
    fine = zoom(nodes, [32 / n for n in nodes.shape], order=3, grid_mode=True, mode="nearest").astype(np.float32)
    spread = interpolate(torch.from_numpy(fine)[None, None], size=shape, mode="trilinear", align_corners=False)
    return spread[0, 0].numpy()


def random_bend(rng: np.random.Generator) -> np.ndarray:
    """Smooth random displacements (3, 32, 32, 32) in mm on the grid of identities."""
    shape = head_shape(FIELD_MM)
    return np.stack([
        sum(smooth_field(amplitude * rng.standard_normal((nodes,) * 3), shape) for nodes, amplitude in BENDS)
        for _ in range(3)
    ])  # fmt: skip


def head(path: Path, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """A head of the bank (256, 256, 256), 0 to 1, and its shape (3, 32, 32, 32); its mirror image for ``turn`` -1."""
    volume, shape = volume_of(path), read_shape(path)
    return (volume, shape) if turn > 0 else (np.ascontiguousarray(volume[::-1]), mirrored(shape))


def scanned_elsewhere(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A head (256, 256, 256), 0 to 1, as another scanner might show it.

    Its gain, its fat against its brain, the light of its coils, which may leave chin and neck in the dark, its noise.
    """
    bright = 1 + rng.uniform(*BRIGHTNESS) * np.clip(2 * volume - 1, 0, 1)
    light = smooth_field(LIGHT * rng.standard_normal((4, 4, 4)), volume.shape)
    height = grid_points(head_affine(), (1, 1, volume.shape[2]))[..., 2].astype(np.float32)
    depth = np.clip((rng.uniform(*DARK_FROM_MM) - height) / DARK_OVER_MM, 0, 1)
    dark = 1 - (rng.random() < DARK_ODDS) * rng.uniform(*DARK) * depth**2 * (3 - 2 * depth)
    volume = volume * bright * np.exp(light) * dark * rng.uniform(*GAIN)
    sigma = rng.uniform(*NOISE)
    noise = (sigma * rng.standard_normal(volume.shape, np.float32) for _ in range(2))
    seen = np.clip(np.hypot(volume + next(noise), next(noise)), 0, 1)
    return np.rint(255 * seen).astype(np.float32) / 255  # as heads are stored


@dataclass(frozen=True)
class Face:
    """One head with a mask: ``path``, ``turn`` (1, or -1 for the mirror image) and ``variant``, deformed if odd."""

    path: Path
    turn: int
    variant: int

    @property
    def deformed(self) -> bool:
        """Whether the face is one that nobody has."""
        return self.variant % 2 == 1

    def head(self) -> tuple[np.ndarray, np.ndarray]:
        """The head that the face belongs to, (256, 256, 256), 0 to 1, and its shape, see `head`."""
        volume, shape = head(self.path, self.turn)
        return (scanned_elsewhere(volume, self._rng("scanner")) if self.variant else volume), shape

    def _rng(self, what: str) -> np.random.Generator:
        return np.random.default_rng([self.variant, self.turn > 0, *self.path.stem.encode(), *what.encode()])

    @property
    def name(self) -> str:
        """File name without its ending."""
        return f"{self.path.stem}_{self.turn:+d}_{self.variant}"

    def draw(self, portrait: np.ndarray) -> dict[str, np.ndarray]:
        """``mask`` (its number), ``corner`` (3,), and boxes of voxels there, uint8.

        ``true`` is the head itself, ``mixed`` has the sketch where the mask is.
        """
        rng = self._rng("")
        volume, shape = self.head()
        # a deformed face is deformed all over, and its mask covers all of that
        fit = [number for number in range(MASKS) if not self.deformed or len(_regions(number)) == 2]
        number = int(rng.choice(fit))
        blank, brain = mask(number), shipped_anatomy().brain
        around = voxel_box(code_box(masked_codes(number)[0], SKETCH_HALO))
        true = volume[around]
        if self.deformed:
            randomly = random_bend(rng)
            true, shape = bend(volume, randomly, shares("face"), around)[around], joined(randomly, shape)
        drawn = bend(portrait, shape, shares("face"), around)[around]
        drawn = fitted(drawn, volume[around], blank[around], brain[around])
        mixed = np.where(blank[around], drawn, volume[around])
        return {"mask": np.int16(number), "corner": np.array([s.start for s in around]),
                **{name: np.rint(255 * np.clip(part, 0, 1)).astype(np.uint8)
                   for name, part in (("true", true), ("mixed", mixed))}}  # fmt: skip


def faces_of(bank: Bank, variants: int) -> list[Face]:
    """All faces to draw, every head once before any is drawn again."""
    return [Face(path, turn, variant) for variant in range(1 + variants) for turn in (1, -1) for path in bank.heads]


def _write(task: tuple[Face, Path]) -> None:
    face, out = task
    target = out / f"{face.name}.npz"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}.partial")
        with open(partial, "wb") as file:
            np.savez(file, **face.draw(_portrait))
        os.replace(partial, target)


def _start(portrait: np.ndarray) -> None:
    global _portrait
    _portrait = portrait
    torch.set_num_threads(1)


def build(bank: Bank, out: Path, portrait: np.ndarray, *, variants: int, workers: int) -> Path:
    """Draw the faces of a bank into a folder, those already there are kept; ``portrait`` (256, 256, 256)."""
    out.mkdir(parents=True, exist_ok=True)
    tasks = [(face, out) for face in faces_of(bank, variants)]
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_start, initargs=(portrait,)) as pool:
        for number, _ in enumerate(pool.imap(_write, tasks), 1):
            if number % 50 == 0:
                print(f"{number}/{len(tasks)} faces drawn", flush=True)
    return out
