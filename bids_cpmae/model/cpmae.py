"""CP-MAE joined up: blank, encode brain and non-brain apart, fill the masked codes in steps, decode.

Source: Van der Goten & Smith, MICCAI 2024 (arXiv 2310.15778), as described there; hyperparameters are this project's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bids_cpmae.model.mae import CODES_PER_GROUP, MaskedAutoencoder, group, ungroup
from bids_cpmae.model.regions import Anatomy, Places, cells
from bids_cpmae.model.vqvae import STRIDE, VQVAE

ENCODE_HALO, DECODE_HALO = 7, 4


@dataclass(frozen=True)
class SamplingConfig:
    """How masked codes are drawn.

    Attributes
    ----------
    steps : int
        Rounds of filling; in each the most certain codes are kept.
    temperature : float
        Of the draw of a code; 0 takes the likeliest.
    latent_scale : float
        Spread of the identity latent; 1 is that of the training heads.
    snap : float
        Share of the drawn code's vector in what is decoded, the rest being the predicted vector: 1 is crisp but
        ragged where neighbours disagree, 0 smooth.
    """

    steps: int = 1
    temperature: float = 0.0
    latent_scale: float = 1.0
    snap: float = 0.0


def code_box(codes: np.ndarray, halo: int) -> tuple[slice, ...]:
    """Smallest box of codes around the True ones of (32, 32, 32), grown by ``halo`` codes."""
    box = []
    for axis, size in enumerate(codes.shape):
        hit = np.flatnonzero(codes.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(max(0, hit[0] - halo), min(size, hit[-1] + 1 + halo)))
    return tuple(box)


def voxel_box(box: tuple[slice, ...]) -> tuple[slice, ...]:
    """The voxels that a box of codes stands for."""
    return tuple(slice(s.start * STRIDE, s.stop * STRIDE) for s in box)


class CPMAE(nn.Module):
    """The two VQ-VAEs and the masked autoencoder, with the anatomy of head space they were trained in.

    Attributes
    ----------
    skull, brain : VQVAE
    mae : MaskedAutoencoder
    anatomy : Anatomy
    """

    def __init__(self, skull: VQVAE, brain: VQVAE, mae: MaskedAutoencoder, anatomy: Anatomy) -> None:
        super().__init__()
        self.skull, self.brain, self.mae = skull, brain, mae
        self.anatomy = anatomy

    @torch.no_grad()
    def remodel(
        self,
        volume: np.ndarray,
        blank: np.ndarray,
        *,
        mode: str = "face",
        identity_seed: int = 0,
        sampling: SamplingConfig | None = None,
        latent: np.ndarray | None = None,
    ) -> np.ndarray:
        """Give a head another face.

        Parameters
        ----------
        volume : ndarray (256, 256, 256), float32
            Head space, 0 to 1; what lies under ``blank`` is not read.
        blank : ndarray (256, 256, 256), bool
            True = to be made anew.
        mode : {"face", "head"}
            ``head`` makes every non-brain code anew, whatever ``blank`` says.
        identity_seed : int
            Decides who the new face is; the same in every scan of a person.
        sampling : SamplingConfig, optional
        latent : ndarray (latent,), optional
            An identity to use in place of a drawn one.

        Returns
        -------
        ndarray (256, 256, 256), float32
            The whole new head, the given brain in its place; zero far from what was made anew.
        """
        sampling = sampling or SamplingConfig()
        blank = ~self.anatomy.brain if mode == "head" else blank & ~self.anatomy.brain
        masked = cells(blank, STRIDE)
        places = Places.of(masked, self.anatomy)
        skull = self._encode(self.skull, volume, ~blank & ~self.anatomy.brain, code_box(masked, ENCODE_HALO))
        # what is masked far off the head has no place in the transformer: it is air
        skull[:, torch.from_numpy(masked & ~places.reach)] = self._air()
        inner = cells(self.anatomy.brain, STRIDE)
        brain = self._encode(self.brain, volume, self.anatomy.brain, code_box(inner, 0))
        generator = torch.Generator().manual_seed(identity_seed)
        noise = torch.randn(1, self.mae.config.latent, generator=generator)
        z = self.mae.draw_latent(sampling.latent_scale * noise.to(self.device))
        if latent is not None:
            z = torch.as_tensor(latent, dtype=z.dtype, device=self.device)[None]
        vectors = self.fill(skull, brain, places, z, sampling, generator)
        box = code_box(masked, DECODE_HALO)
        out = np.zeros(volume.shape, np.float32)
        part = self.skull.decode_vectors(vectors[(slice(None), *box)])
        out[voxel_box(box)] = part[0, 0].float().clamp(0, 1).cpu().numpy()
        return np.where(self.anatomy.brain, volume, out)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mae.place.device

    def _air(self) -> Tensor:
        """The non-brain code of plain air."""
        air = torch.zeros(1, 1, *(5 * STRIDE,) * 3, device=self.device)
        return self.skull.encode(air, torch.ones_like(air))[0, 2, 2, 2]

    def _encode(self, vqvae: VQVAE, volume: np.ndarray, known: np.ndarray, box: tuple[slice, ...]) -> Tensor:
        """Codes (1, 32, 32, 32) of the known voxels in a box of codes; those outside it are code 0."""
        voxels = voxel_box(box)
        tensors = [
            torch.from_numpy(np.ascontiguousarray(part[voxels], np.float32))[None, None].to(self.device)
            for part in (volume, known)
        ]
        codes = torch.zeros((1, *(n // STRIDE for n in volume.shape)), dtype=torch.long, device=self.device)
        codes[(slice(None), *box)] = vqvae.encode(*tensors)
        return codes

    def fill(
        self,
        skull: Tensor,
        brain: Tensor,
        places: Places,
        latent: Tensor,
        sampling: SamplingConfig,
        generator: torch.Generator,
    ) -> Tensor:
        """Code vectors (1, 32, 32, 32, code_dim) with the masked ones drawn.

        Each round predicts every open code, draws one, and keeps the most certain; the share kept follows a cosine
        (Chang et al. 2022, arXiv 2202.04200).
        """
        device = self.device
        book = self.skull.codebook
        at = torch.from_numpy(places.target).to(device)
        groups = group(skull)
        context = self._context(groups, group(brain), places)
        codes = groups[:, at].clone()
        known = torch.from_numpy(places.target_known).to(device)[None].clone()
        start = int((~known).sum())
        smooth = book.lookup(codes)
        for step in range(sampling.steps):
            vectors = book.lookup(codes) * known[..., None]
            predicted = self.mae.forward_decoder(context, vectors.flatten(2), known.float(), at, latent)
            drawn, certainty = draw(self.mae.logits(predicted, book.vectors), sampling.temperature, generator)
            codes = torch.where(known, codes, drawn)
            smooth = torch.where(known[..., None], smooth, predicted)
            left = math.floor(start * math.cos(math.pi / 2 * (step + 1) / sampling.steps))
            order = certainty.masked_fill(known, math.inf).flatten(1).argsort(1)
            known = ~torch.zeros_like(known).flatten(1).scatter_(1, order[:, :left], True).view_as(known)
        result = torch.lerp(smooth, book.lookup(codes), sampling.snap)
        everything = book.lookup(groups)
        everything[:, at] = result
        return ungroup(everything, self.mae.config.side)

    def _context(self, skull: Tensor, brain: Tensor, places: Places) -> Tensor:
        device = self.device
        brain_at, skull_at = (torch.from_numpy(index).to(device) for index in (places.brain, places.skull))
        return self.mae.forward_encoder(
            self.brain.codebook.lookup(brain[:, brain_at]).flatten(2), brain_at,
            self.skull.codebook.lookup(skull[:, skull_at]).flatten(2),
            torch.ones(len(skull_at), CODES_PER_GROUP, device=device), skull_at,
        )  # fmt: skip


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw codes from logits (..., codes); returns them and the log-probability of each as its certainty.

    The draw is made on the CPU's generator, so that a seed means the same on every device.
    """
    probability = logits.log_softmax(-1)
    if temperature > 0:
        uniform = torch.rand(logits.shape, generator=generator).clamp_(1e-9, 1 - 1e-7).to(logits.device)
        drawn = (logits / temperature - (-uniform.log()).log()).argmax(-1)
    else:
        drawn = logits.argmax(-1)
    return drawn, probability.gather(-1, drawn[..., None])[..., 0]
