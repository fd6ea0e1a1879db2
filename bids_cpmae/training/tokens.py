"""Codes of every head for the masked autoencoder: whole, with the face blanked, and with the face deformed.

For each head (and its mirror image): ``full`` codes of the whole head, ``blank`` codes seen by the app (face and ears
blanked, by a mask that wavers as registration does), ``masked`` (which codes that mask touches) and ``brain`` codes.
Variants of a head share brain and context; only what lies under the mask is deformed, into a face nobody has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import zoom
from torch.nn.functional import interpolate

from bids_cpmae.imaging.facemask import signed_distance
from bids_cpmae.imaging.headspace import head_affine, head_shape
from bids_cpmae.imaging.intensity import BRAIN_LEVEL
from bids_cpmae.imaging.resample import resample, sample_points
from bids_cpmae.imaging.template import SPACING, load_template
from bids_cpmae.model.cpmae import code_box, voxel_box
from bids_cpmae.model.regions import cells
from bids_cpmae.model.vqvae import STRIDE, VQVAE
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.contrasts import WHITE, draw_contrast

WAVER_MM, TAPER_MM = 2.0, 12.0
SHAPE_AMPLITUDES = ((5, 5.0), (9, 2.5))


@dataclass(frozen=True)
class Encoders:
    """Both trained VQ-VAEs and the fixed masks of head space at 1 mm."""

    skull: VQVAE
    brain: VQVAE
    brain_mask: np.ndarray
    face_distance: np.ndarray

    @classmethod
    def load(cls, skull: VQVAE, brain: VQVAE) -> Encoders:
        """With the shipped template's masks."""
        template = load_template()
        distance = signed_distance(template.replaced_with_air(), SPACING)
        fine = resample(distance, template.grid.affine, head_affine(), head_shape(), outside="edge")
        return cls(skull.eval(), brain.eval(), template.brain_fine(), fine)

    @torch.no_grad()
    def codes(self, vqvae: VQVAE, volume: np.ndarray, known: np.ndarray, box=(slice(0, 32),) * 3) -> np.ndarray:
        """Codes (int16) of a box of the head."""
        voxels = voxel_box(box)
        pair = [torch.from_numpy(np.ascontiguousarray(a[voxels], np.float32))[None, None] for a in (volume, known)]
        with torch.autocast("cpu", torch.bfloat16):
            return vqvae.encode(*pair)[0].numpy().astype(np.int16)


def wavering_mask(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A face mask whose border strays smoothly by about ``WAVER_MM``, True inside."""
    noise = smooth_field(rng.standard_normal((8, 8, 8)), distance.shape)
    return distance + WAVER_MM * noise < 0


def smooth_field(nodes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values at a few nodes spread smoothly over a volume: a cubic spline to 32^3, then trilinear."""
    fine = zoom(nodes, [32 / n for n in nodes.shape], order=3, grid_mode=True, mode="nearest").astype(np.float32)
    spread = interpolate(torch.from_numpy(fine)[None, None], size=shape, mode="trilinear", align_corners=False)
    return spread[0, 0].numpy()


def deform_face(volume: np.ndarray, distance: np.ndarray, box: tuple[slice, ...], rng: np.random.Generator):
    """A box of a head whose face is smoothly bent, the more the deeper inside the mask; its border stays."""
    corner = [s.start for s in box]
    shape = tuple(s.stop - s.start for s in box)
    taper = np.clip(-distance[box] / TAPER_MM, 0, 1)
    shift = np.zeros((3, *shape), np.float32)
    for nodes, amplitude in SHAPE_AMPLITUDES:
        for axis in range(3):
            shift[axis] += smooth_field(amplitude * rng.standard_normal((nodes,) * 3), shape)
    index = np.moveaxis(np.indices(shape, dtype=np.float32) + shift * taper, 0, -1) + np.array(corner, np.float32)
    return sample_points(volume[None], index, outside="edge")[..., 0]


def encode_head(volume: np.ndarray, encoders: Encoders, rng: np.random.Generator, variants: int) -> dict:
    """Codes of one head: ``full`` (1 + variants, 32, 32, 32), ``blank``, ``brain`` and ``masked`` (32, 32, 32)."""
    mask = wavering_mask(encoders.face_distance, rng) & ~encoders.brain_mask
    outside = ~encoders.brain_mask
    masked = cells(mask, STRIDE)
    near, wide = code_box(masked, 3), code_box(masked, 5)
    full = encoders.codes(encoders.skull, volume, outside)
    blank = full.copy()
    known = outside & ~mask
    inner = tuple(slice(n.start - w.start, n.stop - w.start) for n, w in zip(near, wide))
    blank[near] = encoders.codes(encoders.skull, volume * known, known, wide)[inner]
    brain = np.zeros_like(full)
    brain_box = code_box(cells(encoders.brain_mask, STRIDE), 0)
    brain[brain_box] = encoders.codes(encoders.brain, volume, encoders.brain_mask, brain_box)
    every = [full]
    for _ in range(variants):
        bent = volume.copy()
        bent[voxel_box(near)] = deform_face(volume, encoders.face_distance, voxel_box(near), rng)
        other = full.copy()
        other[near] = encoders.codes(encoders.skull, bent, outside, wide)[inner]
        every.append(other)
    return {"full": np.stack(every), "blank": blank, "brain": brain, "masked": masked}


def build(bank: Bank, out: Path, encoders: Encoders, *, variants: int, contrasts: int) -> Path:
    """Encode every head of a bank and its mirror image; those already in ``out`` are kept."""
    out.mkdir(parents=True, exist_ok=True)
    tasks = [(path, 1) for path in bank.scans]
    tasks += [(path, side * (number + 1)) for number in range(contrasts) for path in bank.labels for side in (1, -1)]
    tasks += [(path, -1) for path in bank.scans]
    for count, (path, turn) in enumerate(tasks):
        target = out / f"{path.stem}_{turn:+d}.npz"
        if target.exists():
            continue
        rng = np.random.default_rng([abs(turn), turn > 0, *path.stem.encode()])
        volume = _volume(path, rng)
        codes = encode_head(np.ascontiguousarray(volume[::-1] if turn < 0 else volume), encoders, rng, variants)
        partial = target.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.savez(file, **codes)
        os.replace(partial, target)
        if count % 10 == 0:
            print(f"{count + 1}/{len(tasks)} heads encoded", flush=True)
    return out


def _volume(path: Path, rng: np.random.Generator) -> np.ndarray:
    stored = np.load(path)
    if stored.dtype == np.uint8:
        return stored.astype(np.float32) / 255
    volume = draw_contrast(stored, rng, spread=0.15) * BRAIN_LEVEL / WHITE * rng.uniform(0.9, 1.1)
    shading = 1 + smooth_field(0.1 * rng.standard_normal((4, 4, 4)), volume.shape)
    return np.clip(volume * shading, 0, 1).astype(np.float32)
