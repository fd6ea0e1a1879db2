"""``cpmae train mae``: train the masked autoencoder on codes of the bank's heads."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor

from bids_cpmae.model.cpmae import code_box
from bids_cpmae.model.mae import CODES_PER_GROUP, MAEConfig, MaskedAutoencoder, group
from bids_cpmae.model.regions import Anatomy, Places, cells
from bids_cpmae.model.vqvae import STRIDE, VQVAE, ResidualCodebook, VQVAEConfig
from bids_cpmae.model.weights import shipped_anatomy
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.loop import train
from bids_cpmae.training.shapes import fit_identity
from bids_cpmae.training.tokens import Encoders, build

SHAPES = ("face", "block", "head")
SHAPE_ODDS = (0.82, 0.06, 0.12)
CONTEXT_MOST = 256
REFINE_STEPS = 400


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
        variants = [rng.integers(len(head["full"])) if shape != "head" else 0 for head in chosen]
        full = _stack(head["full"][variant] for head, variant in zip(chosen, variants))
        sketch = _stack(
            head["sketch_head"] if shape == "head" else head["sketch"][variant]
            for head, variant in zip(chosen, variants)
        )
        # the app sees its context with the face blanked; other shapes have no blanked codes and do without the rim
        seen = _stack(head["blank"] for head in chosen) if shape == "face" else full
        brain = _stack(head["brain"] for head in chosen)
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
            "sketch": group(sketch)[:, target], "target_known": known,
            "shown": self._shown(len(chosen), len(target), rng),
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


def _stack(codes) -> Tensor:
    return torch.from_numpy(np.stack(list(codes))).long()


def _some(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(index) <= CONTEXT_MOST:
        return index
    return np.sort(rng.choice(index, CONTEXT_MOST, replace=False))


def forward_loss(
    model: MaskedAutoencoder, skull: ResidualCodebook, brain: ResidualCodebook, batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Squared error of the masked codes' vectors in units of the variance of all codes; also that of the average."""
    with torch.no_grad():
        target = skull.lookup(batch["target"])
        context = brain.lookup(batch["brain"]).flatten(2), skull.lookup(batch["skull"]).flatten(2)
        shown = batch["shown"][..., None]
        given = torch.where(shown, target, skull.lookup(batch["target_seen"]))
        sketch = skull.lookup(batch["sketch"]).flatten(2)
    known = batch["target_known"][None] | batch["shown"]
    encoded = model.forward_encoder(
        context[0], batch["brain_at"], context[1], torch.ones(len(batch["skull_at"]), CODES_PER_GROUP),
        batch["skull_at"],
    )  # fmt: skip
    given = (given * known[..., None]).flatten(2)
    predicted = model.forward_decoder(encoded, given, known.float(), sketch, batch["target_at"])
    hidden = ~known
    wanted = target[hidden]
    variance = wanted.var(0).sum()
    error = (predicted[hidden].float() - wanted).square().sum(-1).mean() / variance
    average = model.average[batch["target_at"]].unflatten(-1, (CODES_PER_GROUP, -1)).expand_as(target)
    return {"loss": error, "of_average": (average[hidden] - wanted).square().sum(-1).mean() / variance}


def build_and_train(
    tokens: Path, out: Path, skull: VQVAE, brain: VQVAE, *, steps: int, batch: int, rate: float
) -> MaskedAutoencoder:
    """Train the masked autoencoder; saved as ``out/weights.pt``."""
    torch.manual_seed(0)
    bank = TokenBank(tokens, shipped_anatomy(), batch)
    model = MaskedAutoencoder(MAEConfig(code_dim=skull.config.code_dim, brain_dim=brain.config.code_dim))
    set_averages(model, skull.codebook, bank)

    def losses(step: int) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return forward_loss(model, skull.codebook, brain.codebook, bank(step))

    model = train(model, losses, out=out, steps=steps, peak_rate=rate, average=0.995)
    torch.save({"config": model.config.as_dict(), "state": model.state_dict()}, out / "weights.pt")
    return model


@torch.no_grad()
def set_averages(model: MaskedAutoencoder, book: ResidualCodebook, bank: TokenBank) -> None:
    """The mean code vectors of all training heads, and of their sketches, at each place: predictions start there."""
    for average, name in ((model.average, "full"), (model.average_sketch, "sketch")):
        total = torch.zeros_like(average)
        for head in bank.heads:
            total += book.lookup(group(torch.from_numpy(head[name]).long())).mean(0).flatten(1)
        average.copy_(total / len(bank.heads))


def load_vqvae(path: Path) -> VQVAE:
    """A VQ-VAE from the ``weights.pt`` that ``cpmae train vqvae`` wrote."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["config"].items()}
    model = VQVAE(VQVAEConfig(**config))
    model.load_state_dict(stored["state"])
    return model.eval()


def from_heads(
    bank: Bank, out: Path, skull: VQVAE, brain: VQVAE, *, steps: int, refine_steps: int, weights: Path,
    variants: int = 1, contrasts: int = 1, batch: int = 6, rate: float = 6e-4,
) -> Path:
    """Fit identities, encode all heads, train the masked autoencoder, refine the decoder, and join the weights."""
    from bids_cpmae.model.weights import save_weights
    from bids_cpmae.training.refine import refine

    identity = fit_identity(bank)
    encoders = Encoders.load(skull, brain, identity.portrait)
    tokens = build(bank, out / "codes", encoders, variants=variants, contrasts=contrasts)
    model = build_and_train(tokens, out, skull, brain, steps=steps, batch=batch, rate=rate)
    skull = refine(bank, tokens, out / "decoder", model.eval(), skull, brain, steps=refine_steps)
    return save_weights(weights, skull, brain, model, identity)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae train mae``."""
    parser.add_argument("bank", type=Path, help="folder written by `cpmae train heads`")
    parser.add_argument("skull", type=Path, help="folder of the non-brain VQ-VAE's training")
    parser.add_argument("brain", type=Path, help="folder of the brain VQ-VAE's training")
    parser.add_argument("out", type=Path, help="folder for codes, checkpoint, losses.csv and weights.safetensors")
    parser.add_argument("--steps", type=int, default=1500, help="default: %(default)s")
    parser.add_argument("--refine-steps", type=int, default=REFINE_STEPS, help="of the decoder (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=6, help="heads a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=6e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--variants", type=int, default=1, help="deformed faces a head (default: %(default)s)")
    parser.add_argument("--contrasts", type=int, default=1, help="contrasts a label map (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae train mae``."""
    skull, brain = load_vqvae(args.skull / "weights.pt"), load_vqvae(args.brain / "weights.pt")
    path = from_heads(
        Bank.open(args.bank), args.out, skull, brain, steps=args.steps, refine_steps=args.refine_steps,
        weights=args.out / "weights.safetensors", variants=args.variants, contrasts=args.contrasts,
        batch=args.batch, rate=args.rate,
    )  # fmt: skip
    print(f"weights written to {path}")
    return 0
