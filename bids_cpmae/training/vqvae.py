"""``cpmae train vqvae``: train the brain's or the non-brain's VQ-VAE on crops of the bank."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from bids_cpmae.model.cpmae import in_bfloat16
from bids_cpmae.model.vqvae import VQVAE, brain_preset, skull_preset
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.crops import CropSampler
from bids_cpmae.training.loop import train

PLAIN_SHARE = 0.2
START_BATCHES = 24
COMMITMENT, EDGE, SQUARE = 0.25, 0.5, 10.0
# features without a bound and codes that follow them run away together
SMALL = 0.001
# while there are no codes yet, noise in their place: it keeps the features from hiding detail in their last digits
STAND_IN = 0.05


def reconstruction_loss(found: torch.Tensor, wanted: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Mean absolute error of values, and of differences of neighbours along the three axes, where known."""
    error = (found - wanted) * known
    value = error.abs().sum() / known.sum().clamp_min(1)
    edges = 0.0
    for axis in (2, 3, 4):
        both = known.narrow(axis, 1, known.shape[axis] - 1) * known.narrow(axis, 0, known.shape[axis] - 1)
        edges = edges + (error.diff(dim=axis).abs() * both).sum() / both.sum().clamp_min(1) / 3
    return value, edges


def build_and_train(bank: Path, out: Path, *, part: str, steps: int, batch: int, rate: float, device: str) -> VQVAE:
    """Train one VQ-VAE; resumes from ``out``. Returns it with averaged weights, also saved as ``out/weights.pt``."""
    torch.manual_seed(0)
    model = VQVAE(skull_preset() if part == "skull" else brain_preset())
    model = model.to(device, memory_format=torch.channels_last_3d)
    sampler = CropSampler(Bank.open(bank), part, batch=batch, device=device)
    if not (out / "checkpoint.pt").exists():
        model.start_linear(torch.cat([torch.mul(*sampler(10**6 + number)) for number in range(START_BATCHES)]))

    plain = int(PLAIN_SHARE * steps)

    def losses(step: int, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        torch.manual_seed(step)
        volume, known = (tensor.contiguous(memory_format=torch.channels_last_3d) for tensor in batch)
        model.train()
        if step == plain:
            _start_codebook(model, sampler)
        with in_bfloat16(torch.device(device)):
            if step < plain:
                # an autoencoder first: a codebook started on features that say nothing yet would collapse
                vectors = model.features(volume, known).movedim(1, -1)
                noise = STAND_IN * vectors.detach().std() * torch.randn_like(vectors)
                found, commitment, used = model.decode_vectors(vectors + noise), torch.zeros((), device=device), 0.0
            else:
                found, commitment, codes, vectors = model(volume, known)
                used = float(len(codes[..., 0].unique())) / model.config.codes
        value, edges = reconstruction_loss(found.float(), volume, known)
        mse = (((found.float() - volume) * known) ** 2).sum() / known.sum()
        loss = value + SQUARE * mse + EDGE * edges + COMMITMENT * commitment + SMALL * vectors.square().mean()
        return {"loss": loss, "value": value, "edges": edges, "commit": commitment, "psnr": -10 * mse.detach().log10(),
                "spread": vectors.std(), "codes_in_batch": torch.tensor(used)}  # fmt: skip

    model = train(model, losses, batches=sampler, out=out, steps=steps, peak_rate=rate, device=device, average=0.995)
    torch.save({"config": model.config.as_dict(), "state": model.state_dict()}, out / "weights.pt")
    return model


@torch.no_grad()
def _start_codebook(model: VQVAE, sampler: CropSampler) -> None:
    features = []
    for number in range(START_BATCHES):
        volume, known = sampler(10**6 + number)
        features.append(model.features(volume, known).float().movedim(1, -1).reshape(-1, model.config.code_dim))
    model.codebook.initialise(torch.cat(features))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae train vqvae``."""
    parser.add_argument("bank", type=Path, help="folder written by `cpmae train heads`")
    parser.add_argument("out", type=Path, help="folder for the checkpoint, losses.csv and weights.pt")
    parser.add_argument("--part", choices=("skull", "brain"), default="skull", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=4, help="crops of 64^3 a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=8e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae train vqvae``."""
    build_and_train(args.bank, args.out, part=args.part, steps=args.steps, batch=args.batch, rate=args.rate,
                    device=args.device)  # fmt: skip
    return 0
