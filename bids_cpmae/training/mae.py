"""``cpmae train mae``: train the masked autoencoder on codes of the bank's heads."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor
from torch.nn import functional as F

from bids_cpmae.model.cpmae import code_box
from bids_cpmae.model.mae import CODES_PER_GROUP, MAEConfig, MaskedAutoencoder, group
from bids_cpmae.model.regions import Anatomy, Places, cells
from bids_cpmae.model.vqvae import STRIDE, VQVAE, VQVAEConfig
from bids_cpmae.model.weights import shipped_anatomy
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.loop import train
from bids_cpmae.training.tokens import Encoders, build

SHAPES = ("face", "block", "head")
SHAPE_ODDS = (0.88, 0.07, 0.05)
CONTEXT_MOST = 256


@dataclass
class TokenBank:
    """All encoded heads in memory; draws batches that share one mask."""

    folder: Path
    anatomy: Anatomy
    batch: int
    heads: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in sorted(Path(self.folder).glob("*.npz")):
            with np.load(path) as stored:
                self.heads.append({name: stored[name] for name in stored.files})
        if not self.heads:
            raise FileNotFoundError(f"no encoded heads in {self.folder}; run the encoding first")

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Places and code groups of one training step; everything follows from ``step``."""
        rng = np.random.default_rng([7, step])
        shape = SHAPES[rng.choice(len(SHAPES), p=SHAPE_ODDS)]
        few = max(1, self.batch // 3) if shape == "head" else self.batch
        chosen = [self.heads[i] for i in rng.integers(len(self.heads), size=few)]
        masked = self._mask(chosen[0], shape, rng)
        places = Places.of(masked, self.anatomy)
        if not len(places.target):  # a block in plain air: nothing to learn from
            masked = self._mask(chosen[0], "head", rng)
            places = Places.of(masked, self.anatomy)
        full = torch.from_numpy(np.stack([head["full"][rng.integers(len(head["full"]))] for head in chosen])).long()
        # the app sees its context with the face blanked; other shapes have no blanked codes and do without the rim
        seen = torch.from_numpy(np.stack([head["blank"] for head in chosen])).long() if shape == "face" else full
        brain = torch.from_numpy(np.stack([head["brain"] for head in chosen])).long()
        skull_at = _some(places.skull, rng)
        if shape == "block":
            rim = group_rim(masked)
            skull_at = skull_at[~rim[skull_at]]
        brain_at = _some(places.brain, rng)
        target = torch.from_numpy(places.target)
        known = torch.from_numpy(places.target_known) & (shape == "face")
        return {
            "brain": group(brain)[:, brain_at], "brain_at": torch.from_numpy(brain_at),
            "skull": group(seen)[:, skull_at], "skull_at": torch.from_numpy(skull_at),
            "target": group(full)[:, target], "target_seen": group(seen)[:, target], "target_at": target,
            "target_known": known, "shown": self._shown(len(chosen), len(target), rng),
        }  # fmt: skip

    def _mask(self, head: dict, shape: str, rng: np.random.Generator) -> np.ndarray:
        if shape == "face":
            return np.logical_or.reduce([head["masked"], binary_dilation(head["masked"])]) if rng.random() < 0.2 else (
                head["masked"]
            )
        if shape == "head":
            return cells(~self.anatomy.brain, STRIDE)
        low = np.array([s.start for s in code_box(head["masked"], 0)])
        high = np.array([s.stop for s in code_box(head["masked"], 0)])
        size = rng.integers(4, 12, 3)
        corner = rng.integers(low - 2, np.maximum(high - size, low) + 2)
        mask = np.zeros_like(head["masked"])
        mask[tuple(slice(max(0, c), c + s) for c, s in zip(corner, size))] = True
        return mask & cells(~self.anatomy.brain, STRIDE)

    @staticmethod
    def _shown(batch: int, count: int, rng: np.random.Generator) -> Tensor:
        """Which masked codes a sample may see all the same, True = seen; none of them in half the cases."""
        ratio = 0.0 if rng.random() < 0.6 else rng.uniform(0, 0.9)
        return torch.from_numpy(rng.random((batch, count, CODES_PER_GROUP)) < ratio)


def group_rim(masked: np.ndarray) -> np.ndarray:
    """Groups (flattened) next to a masked code, whose codes would give away what lies under the mask."""
    return cells(binary_dilation(masked, np.ones((3, 3, 3), bool)), 2).ravel()


def _some(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(index) <= CONTEXT_MOST:
        return index
    return np.sort(rng.choice(index, CONTEXT_MOST, replace=False))


@dataclass(frozen=True)
class LossWeights:
    """Of the evidence bound: a code vector's error counts as Gaussian noise of ``noise`` times the codes' variance.

    ``kl`` weighs one latent's divergence against the sum over codes; it grows from 0 over ``ramp`` steps, because a
    latent that costs from the start is never taken up.
    """

    noise: float = 0.25
    kl: float = 1.0
    ramp: int = 200


def forward_loss(
    model: MaskedAutoencoder, skull_book: Tensor, brain_book: Tensor, batch: dict[str, Tensor], kl_weight: float,
    noise: float,
) -> dict[str, Tensor]:
    """Squared error of the masked codes' vectors and the latent's KL: the evidence bound of a Gaussian decoder.

    The odds of single codes are calibrated beside it (sharpness and prior), without a gradient into the transformer.
    """
    target = F.embedding(batch["target"], skull_book)
    mean, log_variance = model.identity(target.flatten(2), model.place[batch["target_at"]])
    latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    context = model.forward_encoder(
        F.embedding(batch["brain"], brain_book).flatten(2), batch["brain_at"],
        F.embedding(batch["skull"], skull_book).flatten(2),
        torch.ones(len(batch["skull_at"]), CODES_PER_GROUP), batch["skull_at"],
    )  # fmt: skip
    known = batch["target_known"][None] | batch["shown"]
    codes = torch.where(batch["shown"], batch["target"], batch["target_seen"])
    vectors = F.embedding(codes, skull_book) * known[..., None]
    predicted = model.forward_decoder(context, vectors.flatten(2), known.float(), batch["target_at"], latent)
    hidden = ~known
    found, wanted = predicted[hidden].float(), target[hidden]
    variance = skull_book.var(0).sum()
    vector = (found - wanted).square().sum(-1).mean() / variance
    entropy = F.cross_entropy(model.logits(found.detach(), skull_book), batch["target"][hidden])
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean()
    count = hidden.sum() / len(hidden)
    dim = skull_book.shape[1]
    loss = dim * vector / (2 * noise) + kl_weight * kl / count + 0.1 * entropy
    return {"loss": loss, "vector": vector, "entropy": entropy, "kl": kl}


def build_and_train(
    tokens: Path, out: Path, skull: VQVAE, brain: VQVAE, *, steps: int, batch: int, rate: float
) -> MaskedAutoencoder:
    """Train the masked autoencoder and fit the Gaussian its latents are drawn from; saved as ``out/weights.pt``."""
    torch.manual_seed(0)
    anatomy = shipped_anatomy()
    bank = TokenBank(tokens, anatomy, batch)
    model = MaskedAutoencoder(MAEConfig(code_dim=skull.config.code_dim, codes=skull.config.codes))
    set_average(model, skull.codebook.vectors, bank)
    weights = LossWeights()
    books = skull.codebook.vectors.detach(), brain.codebook.vectors.detach()

    def losses(step: int) -> dict[str, Tensor]:
        torch.manual_seed(step)
        with torch.autocast("cpu", torch.bfloat16):
            return forward_loss(
                model, *books, bank(step), weights.kl * min(1.0, step / weights.ramp), weights.noise
            )  # fmt: skip

    model = train(model, losses, out=out, steps=steps, peak_rate=rate, average=0.995)
    fit_latents(model, books[0], bank)
    torch.save({"config": model.config.as_dict(), "state": model.state_dict()}, out / "weights.pt")
    return model


@torch.no_grad()
def set_average(model: MaskedAutoencoder, skull_book: Tensor, bank: TokenBank) -> None:
    """The mean code vectors of all training heads at each place, which predictions start from."""
    total = torch.zeros_like(model.average)
    for head in bank.heads:
        vectors = F.embedding(group(torch.from_numpy(head["full"]).long()), skull_book)
        total += vectors.mean(0).flatten(1)
    model.average.copy_(total / len(bank.heads))


@torch.no_grad()
def fit_latents(model: MaskedAutoencoder, skull_book: Tensor, bank: TokenBank) -> None:
    """Mean and covariance factor of the latents of all training faces, so that a draw is like them but none of them."""
    means, variances = [], []
    for head in bank.heads:
        places = Places.of(head["masked"], bank.anatomy)
        at = torch.from_numpy(places.target)
        target = F.embedding(group(torch.from_numpy(head["full"]).long())[:, at], skull_book)
        mean, log_variance = model.identity(target.flatten(2), model.place[at])
        means.append(mean)
        variances.append(log_variance.exp())
    every = torch.cat(means)
    covariance = torch.cov(every.T) + torch.diag(torch.cat(variances).mean(0))
    model.latent_mean.copy_(every.mean(0))
    model.latent_factor.copy_(torch.linalg.cholesky(covariance))


def load_vqvae(path: Path) -> VQVAE:
    """A VQ-VAE from the ``weights.pt`` that ``cpmae train vqvae`` wrote."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["config"].items()}
    model = VQVAE(VQVAEConfig(**config))
    model.load_state_dict(stored["state"])
    return model.eval()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae train mae``."""
    parser.add_argument("bank", type=Path, help="folder written by `cpmae train bank`")
    parser.add_argument("skull", type=Path, help="folder of the non-brain VQ-VAE's training")
    parser.add_argument("brain", type=Path, help="folder of the brain VQ-VAE's training")
    parser.add_argument("out", type=Path, help="folder for codes, checkpoint, losses.csv and weights.pt")
    parser.add_argument("--steps", type=int, default=2500, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=6, help="heads a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=6e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--variants", type=int, default=2, help="deformed faces a head (default: %(default)s)")
    parser.add_argument("--contrasts", type=int, default=2, help="contrasts a label map (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="write the joined weights here (.safetensors)")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae train mae``."""
    from bids_cpmae.model.weights import save_weights

    skull, brain = load_vqvae(args.skull / "weights.pt"), load_vqvae(args.brain / "weights.pt")
    tokens = args.out / "codes"
    build(Bank.open(args.bank), tokens, Encoders.load(skull, brain), variants=args.variants, contrasts=args.contrasts)
    model = build_and_train(tokens, args.out, skull, brain, steps=args.steps, batch=args.batch, rate=args.rate)
    if args.weights:
        print(f"weights written to {save_weights(args.weights, skull, brain, model)}")
    return 0
