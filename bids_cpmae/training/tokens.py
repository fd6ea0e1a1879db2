"""Codes of every head for the masked autoencoder: whole, with the face blanked, its sketch, and the face deformed.

For each head (and its mirror image): ``full`` codes of the whole head, ``sketch`` codes of the template in its shape,
``blank`` codes seen by the app (face and ears blanked, by a mask that wavers as registration does), ``masked`` (which
codes that mask touches) and ``brain`` codes. Variants of a head share brain and context; only what lies under the mask
is deformed, into a face nobody has, and the sketch with it. ``sketch_head`` is the sketch for head mode.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation, zoom
from torch.nn.functional import interpolate

from bids_cpmae.imaging.facemask import signed_distance
from bids_cpmae.imaging.headspace import head_affine, head_shape
from bids_cpmae.imaging.intensity import BRAIN_LEVEL
from bids_cpmae.imaging.resample import resample, sample_points
from bids_cpmae.imaging.template import BRAIN_BIT, HEAD_BIT, SPACING, load_template
from bids_cpmae.model.cpmae import code_box, voxel_box
from bids_cpmae.model.identity import FIELD_MM, bend, shares
from bids_cpmae.model.regions import cells
from bids_cpmae.model.vqvae import STRIDE, VQVAE
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.contrasts import WHITE, draw_contrast
from bids_cpmae.training.shapes import mirrored, read_shape

WAVER_MM = 2.0
BENDS = ((5, 5.0), (9, 2.5))


@dataclass(frozen=True)
class Encoders:
    """Both trained VQ-VAEs, portrait and masks of head space at 1 mm, and which codes (32,)*3 are near the head."""

    skull: VQVAE
    brain: VQVAE
    portrait: np.ndarray
    brain_mask: np.ndarray
    face_distance: np.ndarray
    reach: np.ndarray

    @classmethod
    def load(cls, skull: VQVAE, brain: VQVAE, portrait: np.ndarray) -> Encoders:
        """With a portrait (256, 256, 256) and the shipped template's masks."""
        template = load_template()
        distance = signed_distance(template.replaced_with_air(), SPACING)
        fine = resample(distance, template.grid.affine, head_affine(), head_shape(), outside="edge")
        reach = binary_dilation(cells(template.mask(HEAD_BIT), STRIDE // SPACING), iterations=2)
        return cls(skull.eval(), brain.eval(), portrait, template.fine(BRAIN_BIT), fine, reach)

    @torch.no_grad()
    def codes(self, vqvae: VQVAE, volume: np.ndarray, known: np.ndarray, box=(slice(0, 32),) * 3) -> np.ndarray:
        """Codes (int16), levels last, of a box of the head."""
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


def random_bend(rng: np.random.Generator) -> np.ndarray:
    """Smooth random displacements (3, 32, 32, 32) in mm on the grid of identities."""
    shape = head_shape(FIELD_MM)
    return np.stack([
        sum(smooth_field(amplitude * rng.standard_normal((nodes,) * 3), shape) for nodes, amplitude in BENDS)
        for _ in range(3)
    ])  # fmt: skip


def bend_face(volume: np.ndarray, bend: np.ndarray, share: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """A box of voxels of a head pulled through displacements (3, 32, 32, 32) in mm, as far as ``share`` allows.

    ``volume`` (256, 256, 256); ``share`` (128, 128, 128), 0 = stays.
    """
    corner = np.array([s.start for s in box])
    shape = tuple(s.stop - s.start for s in box)
    index = np.moveaxis(np.indices(shape, dtype=np.float32), 0, -1) + corner.astype(np.float32)
    shift = sample_points(bend, (index + 0.5) / FIELD_MM - 0.5, outside="edge")
    shift *= sample_points(share[None], (index + 0.5) / SPACING - 0.5, outside="edge")
    return sample_points(volume[None], index + shift, outside="edge")[..., 0]


def encode_head(
    volume: np.ndarray, field: np.ndarray, encoders: Encoders, rng: np.random.Generator, variants: int
) -> dict:
    """Codes of one head, 32 x 32 x 32 each, levels last; ``full`` and ``sketch`` have 1 + ``variants`` of them.

    ``field`` (3, 32, 32, 32) holds the head's shape, see `bids_cpmae.training.shapes.shape_field`.
    """
    mask = wavering_mask(encoders.face_distance, rng) & ~encoders.brain_mask
    outside = ~encoders.brain_mask
    masked = cells(mask, STRIDE)
    near, wide = (code_box(masked & encoders.reach, halo) for halo in (2, 5))
    inner = tuple(slice(n.start - w.start, n.stop - w.start) for n, w in zip(near, wide))

    def again(before: np.ndarray, changed: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes ``before``, but for those near the mask, which are those of a changed volume."""
        codes = before.copy()
        codes[near] = encoders.codes(encoders.skull, changed, known, wide)[inner]
        return codes

    full = encoders.codes(encoders.skull, volume, outside)
    known = outside & ~mask
    blank = again(full, volume * known, known)
    sketch_head = encoders.codes(encoders.skull, bend(encoders.portrait, field, shares("head")), outside)
    brain = np.zeros((*full.shape[:3], encoders.brain.config.levels), full.dtype)
    brain_box = code_box(cells(encoders.brain_mask, STRIDE), 0)
    brain[brain_box] = encoders.codes(encoders.brain, volume, encoders.brain_mask, brain_box)
    every, sketches = [full], [again(sketch_head, bend(encoders.portrait, field, shares("face")), outside)]
    for _ in range(variants):
        randomly = random_bend(rng)
        bent = volume.copy()
        bent[voxel_box(near)] = bend_face(volume, randomly, shares("face"), voxel_box(near))
        every.append(again(full, bent, outside))
        sketches.append(again(sketch_head, bend(encoders.portrait, joined(randomly, field), shares("face")), outside))
    return {"full": np.stack(every), "sketch": np.stack(sketches), "sketch_head": sketch_head, "blank": blank,
            "brain": brain, "masked": masked}  # fmt: skip


def joined(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Displacements (3, 32, 32, 32) in mm that lead through ``first`` and, from where that leads, through ``then``."""
    index = np.moveaxis(np.indices(first.shape[1:], dtype=np.float32) + first / FIELD_MM, 0, -1)
    return first + np.moveaxis(sample_points(then, index, outside="edge"), -1, 0)


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
        volume, field = _volume(path, rng), read_shape(path)
        if turn < 0:
            volume, field = np.ascontiguousarray(volume[::-1]), mirrored(field)
        codes = encode_head(volume, field, encoders, rng, variants)
        partial = target.with_suffix(f".{os.getpid()}.partial")
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
