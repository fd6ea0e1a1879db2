"""Codes of every drawn face for the masked autoencoder: ``true`` and ``mixed`` (with the sketch), and the brain's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bids_cpmae.imaging.template import BRAIN_BIT, load_template
from bids_cpmae.model.cpmae import code_box, encode_box
from bids_cpmae.model.regions import cells
from bids_cpmae.model.vqvae import STRIDE, VQVAE
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.faces import Face, faces_of, masked_codes

# in codes: the encoder sees four to each side, so far a changed face changes them, and from twice as far they follow
NEAR, WIDE = 4, 8
WHOLE = (slice(0, 32),) * 3


@dataclass(frozen=True)
class Encoders:
    """Both trained VQ-VAEs on one device, and the brain in head space at 1 mm, True inside."""

    skull: VQVAE
    brain: VQVAE
    inside: np.ndarray

    @classmethod
    def load(cls, skull: VQVAE, brain: VQVAE, device: str = "cpu") -> Encoders:
        """With the shipped template's brain."""
        return cls(skull.to(device).eval(), brain.to(device).eval(), load_template().fine(BRAIN_BIT))

    @torch.no_grad()
    def codes(self, vqvae: VQVAE, volume: np.ndarray, known: np.ndarray, box: tuple[slice, ...] = WHOLE) -> np.ndarray:
        """Codes (int16), levels last, of a box of the head."""
        return encode_box(vqvae, volume, known, box)[0].cpu().numpy().astype(np.int16)

    def whole_head(self, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Non-brain and brain codes of a head."""
        brain = np.zeros((*(s.stop for s in WHOLE), self.brain.config.levels), np.int16)
        box = code_box(cells(self.inside, STRIDE), 0)
        brain[box] = self.codes(self.brain, volume, self.inside, box)
        return self.codes(self.skull, volume, ~self.inside), brain

    def face(self, face: Face, drawn: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Codes of a drawn face, see `bids_cpmae.training.faces`, and of the head it belongs to."""
        volume, _ = face.head()
        full, brain = self.whole_head(volume)
        touched, _ = masked_codes(int(drawn["mask"]))
        near, wide = (code_box(touched, halo) for halo in (NEAR, WIDE))
        inner = tuple(slice(n.start - w.start, n.stop - w.start) for n, w in zip(near, wide))
        around = tuple(slice(c, c + n) for c, n in zip(drawn["corner"], drawn["true"].shape))
        codes = {"mask": drawn["mask"], "brain": brain, "true": full}
        for name in ("true", "mixed") if face.deformed else ("mixed",):
            changed = volume.copy()
            changed[around] = drawn[name].astype(np.float32) / 255
            codes[name] = full.copy()
            codes[name][near] = self.codes(self.skull, changed, ~self.inside, wide)[inner]
        return codes


def build(bank: Bank, faces: Path, out: Path, encoders: Encoders, *, variants: int) -> Path:
    """Encode the drawn faces of a bank that are in a folder; those already in ``out`` are kept."""
    out.mkdir(parents=True, exist_ok=True)
    waiting = [
        face for face in faces_of(bank, variants)
        if (faces / f"{face.name}.npz").exists() and not (out / f"{face.name}.npz").exists()
    ]  # fmt: skip
    for count, face in enumerate(waiting, 1):
        with np.load(faces / f"{face.name}.npz") as stored:
            codes = encoders.face(face, {name: stored[name] for name in stored.files})
        partial = out / f"{face.name}.{os.getpid()}.partial"
        with open(partial, "wb") as file:
            np.savez(file, **codes)
        os.replace(partial, out / f"{face.name}.npz")
        if count % 10 == 0:
            print(f"{count}/{len(waiting)} faces encoded", flush=True)
    return out
