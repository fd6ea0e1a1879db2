"""The non-brain decoder learns to draw what the masked autoencoder predicts, as well as what was encoded.

A predicted code vector is a mean over what could be, which no encoder ever yields; a decoder that has never seen one
draws lumps and the borders of cubes. Faces of the training heads are predicted as the app predicts them, and decoded
towards the true ones: values and edges where they can be known, and elsewhere as much fine detail as is really there,
of a kind that a critic, trained against the decoder, cannot tell from that of real heads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from bids_cpmae.model.cpmae import in_bfloat16, voxel_box
from bids_cpmae.model.mae import MaskedAutoencoder, ungroup
from bids_cpmae.model.regions import cells
from bids_cpmae.model.vqvae import STRIDE, VQVAE, pixel_unshuffle3d
from bids_cpmae.model.weights import shipped_anatomy
from bids_cpmae.training.faces import masked_codes
from bids_cpmae.training.loop import train
from bids_cpmae.training.mae import batch_of, predict, read_codes
from bids_cpmae.training.vqvae import EDGE, SQUARE, reconstruction_loss

# of a face's name: turned as it is, and not deformed
OWN_FACE = "_+1_0"
CROP = 8
HALO = 1
WIDTHS = (1, 2, 4)
WINDOW = 12
FAINT = 1e-4
DETAIL = 0.02
CRITIC, CRITIC_WARMUP, CRITIC_CHANNELS, CRITIC_NOISE = 0.8, 60, 32, 0.01
TISSUE = 0.1


class Critic(nn.Module):
    """Says of every 4 mm of volumes (B, 1, D, H, W) how real they look from some 30 mm around: (B, 1, D/4, H/4, W/4).

    Source: Isola et al. 2017 (arXiv 1611.07004), a classifier of patches; Miyato et al. 2018 (arXiv 1802.05957), its
    weights held to a norm of 1.
    """

    def __init__(self) -> None:
        super().__init__()
        width = CRITIC_CHANNELS
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv3d(8, width, 3, padding=1)), nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv3d(width, 2 * width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv3d(2 * width, 2 * width, 3, padding=1)), nn.LeakyReLU(0.2),
            nn.Conv3d(2 * width, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(pixel_unshuffle3d(x + CRITIC_NOISE * torch.randn_like(x)))


class Refiner(nn.Module):
    """The VQ-VAE whose decoder is refined, and the critic of what it draws: trained in one loop, against each other."""

    def __init__(self, skull: VQVAE) -> None:
        super().__init__()
        self.skull = skull
        self.critic = Critic()

    def judge(self, drawn: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of the critic, which leaves the decoder alone, and of the decoder, which leaves the critic alone.

        Places of plain air do not count.
        """
        tissue = F.max_pool3d(torch.maximum(drawn.detach(), wanted), 4).gt(TISSUE)

        def mean(losses: Tensor) -> Tensor:
            return (losses * tissue).sum() / tissue.sum().clamp_min(1)

        caught = mean(F.softplus(-self.critic(wanted))) + mean(F.softplus(self.critic(drawn.detach())))
        self.critic.requires_grad_(False)
        seen = mean(F.softplus(-self.critic(drawn)))
        self.critic.requires_grad_(True)
        return caught, seen

    def balance(self, value: Tensor, seen: Tensor) -> Tensor:
        """How much the critic weighs, so that it pulls at the last layer about as hard as the true values do.

        Source: Esser et al. 2021 (arXiv 2012.09841), equation 7.
        """
        last = self.skull.decoder.layers[-1].weight
        pulls = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (value, seen)]
        return (pulls[0] / (pulls[1] + 1e-6)).clamp_max(1.0)


@torch.no_grad()
def predicted_vectors(
    face: dict[str, Tensor], number: int, mae: MaskedAutoencoder, skull: VQVAE, brain: VQVAE
) -> tuple[np.ndarray, np.ndarray]:
    """Code vectors (32, 32, 32, dim), float16, of an encoded face: predicted as the app would, and true."""
    book = skull.codebook
    batch = batch_of([face], number)
    found, known = predict(mae, book, brain.codebook, batch)
    mixed, true = (book.lookup(face[name][None].long()) for name in ("mixed", "true"))
    at = batch["target_at"]
    mixed[:, at] = torch.where(known[..., None], mixed[:, at], found.float())
    return tuple(ungroup(vectors, mae.config.side)[0].cpu().numpy().astype(np.float16) for vectors in (mixed, true))


def detail_loss(found: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Difference of the logarithms of local energy in three bands of fine detail, wherever in a window it lies.

    Volumes (B, 1, D, H, W); where ``known`` is 0 nothing counts.
    """
    total = found.new_zeros(())
    blurred = [(volume, volume) for volume in (found * known, wanted * known)]
    share = F.avg_pool3d(known, WINDOW, WINDOW // 2).clamp_min(0)
    for width in WIDTHS:
        energies = []
        for number, (fine, _) in enumerate(blurred):
            coarse = F.avg_pool3d(F.pad(fine, (width,) * 6, mode="replicate"), 2 * width + 1, 1)
            energies.append(F.avg_pool3d((fine - coarse).square() * known, WINDOW, WINDOW // 2) / share.clamp_min(0.1))
            blurred[number] = (coarse, coarse)
        apart = ((energies[0] + FAINT).log() - (energies[1] + FAINT).log()).abs()
        total = total + (apart * share).sum() / share.sum().clamp_min(1) / len(WIDTHS)
    return total


def refine(
    faces: Path, codes: Path, out: Path, mae: MaskedAutoencoder, skull: VQVAE, brain: VQVAE, *, steps: int,
    batch: int = 2, rate: float = 2e-4, device: str = "cpu", workers: int = 0,
) -> VQVAE:  # fmt: skip
    """Train the decoder of ``skull`` further, on predicted and on true codes of people's own faces by turns."""
    outside, some = ~shipped_anatomy().brain, []
    for path in sorted(Path(codes).glob(f"*_T1w{OWN_FACE}.npz")):
        number, encoded = read_codes(path, device)
        pair = predicted_vectors(encoded, number, mae, skull, brain)
        with np.load(Path(faces) / path.name) as drawn:
            corner = drawn["corner"] // STRIDE
            box = tuple(slice(c, c + n // STRIDE) for c, n in zip(corner, drawn["true"].shape))
            near = np.argwhere(_near(masked_codes(number)[1])[box])
            some.append((*(vectors[box] for vectors in pair), drawn["true"], outside[voxel_box(box)], near))
    for part in (skull.encoder, skull.codebook):
        part.requires_grad_(False)

    def crop(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        predicted, true, wanted, known, centres = some[rng.integers(len(some))]
        most = np.array(predicted.shape[:3]) - CROP
        corner = np.clip(centres[rng.integers(len(centres))] - rng.integers(1, CROP - 1, 3), 0, most)
        box = tuple(slice(c, c + CROP) for c in corner)
        fine = voxel_box(box)
        return predicted[box], true[box], wanted[fine].astype(np.float32) / 255, known[fine]

    def crops(step: int) -> list[Tensor]:
        rng = np.random.default_rng([3, step])
        sides = zip(*(crop(rng) for _ in range(batch)))
        return [torch.from_numpy(np.stack(side).astype(np.float32)) for side in sides]

    def losses(step: int, batch: list[Tensor]) -> dict[str, Tensor]:
        torch.manual_seed(step)
        predicted, true, wanted, known = (part.to(device) for part in batch)
        wanted, known = wanted[:, None], known[:, None]
        inner = (slice(None), slice(None), *(slice(HALO * STRIDE, -HALO * STRIDE),) * 3)
        with in_bfloat16(torch.device(device)):
            drawn, decoded = skull.decode_vectors(torch.cat([predicted, true])).chunk(2)
        drawn, decoded, wanted, known = (part.float()[inner] for part in (drawn, decoded, wanted, known))
        value, edges = reconstruction_loss(drawn, wanted, known)
        detail = detail_loss(drawn, wanted, known)
        held, held_edges = reconstruction_loss(decoded, wanted, known)
        mse = (((decoded - wanted) * known) ** 2).sum() / known.sum().clamp_min(1)
        with in_bfloat16(torch.device(device)):
            caught, seen = refiner.judge(drawn * known, wanted * known)
        truth = value + EDGE * edges + DETAIL * detail
        share = CRITIC * min(1.0, max(0, step - CRITIC_WARMUP) / CRITIC_WARMUP) * refiner.balance(truth, seen)
        loss = truth + held + SQUARE * mse + EDGE * held_edges + share * seen
        psnr = -10 * mse.detach().log10()
        return {"loss": loss + caught, "value": value, "edges": edges, "detail": detail, "psnr": psnr,
                "critic": caught, "seen": seen, "share": share}  # fmt: skip

    refiner = Refiner(skull).to(device)
    skull = train(refiner, losses, batches=crops, out=out, steps=steps, peak_rate=rate, warmup=20, device=device,
                  average=0.98, workers=workers).skull  # fmt: skip
    torch.save({"config": skull.config.as_dict(), "state": skull.state_dict()}, out / "weights.pt")
    return skull.eval()


def _near(masked: np.ndarray) -> np.ndarray:
    """Masked codes (32, 32, 32) in and right next to the head."""
    from scipy.ndimage import binary_dilation

    return masked & binary_dilation(cells(shipped_anatomy().head, STRIDE))
