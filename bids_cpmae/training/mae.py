"""``cpmae train mae``: train the masked autoencoder on the faces of the bank's heads."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bids_cpmae.model.cpmae import in_bfloat16
from bids_cpmae.model.mae import CODES_PER_GROUP, GROUP, MAEConfig, MaskedAutoencoder, group
from bids_cpmae.model.regions import Places, group_cells
from bids_cpmae.model.vqvae import VQVAE, ResidualCodebook, VQVAEConfig
from bids_cpmae.model.weights import shipped_anatomy
from bids_cpmae.training import faces, tokens
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.faces import masked_codes
from bids_cpmae.training.loop import train
from bids_cpmae.training.shapes import fit_identity

# of the masked codes: none shown, or some scattered over them, or all but a block
SHOWN, SHOWN_ODDS = ("none", "scattered", "around a block"), (0.65, 0.2, 0.15)
CONTEXT_MOST = 256
REFINE_STEPS = 400
VARIANTS, WORKERS = 2, 2


@dataclass
class TokenBank:
    """All encoded faces in memory; draws batches that share one mask."""

    folder: Path
    batch: int
    device: str = "cpu"
    faces: dict[int, list[dict]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in sorted(Path(self.folder).glob("*.npz")):
            number, codes = read_codes(path, self.device)
            self.faces.setdefault(number, []).append(codes)
        if not self.faces:
            raise FileNotFoundError(f"no encoded faces in {self.folder}; run the encoding first")

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Places and code groups of one training step; everything follows from ``step``."""
        rng = np.random.default_rng([7, step])
        number = rng.choice(sorted(self.faces), p=self._odds())
        some = self.faces[number]
        return batch_of([some[i] for i in rng.integers(len(some), size=self.batch)], number, rng)

    def _odds(self) -> np.ndarray:
        counts = np.array([len(self.faces[number]) for number in sorted(self.faces)])
        return counts / counts.sum()


def read_codes(path: Path, device: str | torch.device = "cpu") -> tuple[int, dict[str, Tensor]]:
    """An encoded face: its mask's number, and ``true``, ``mixed`` and ``brain`` codes in groups (4096, 8, levels)."""
    with np.load(path) as stored:
        codes = {name: torch.from_numpy(stored[name]) for name in ("true", "mixed", "brain")}
        return int(stored["mask"]), {name: group(part[None])[0].to(device) for name, part in codes.items()}


@cache
def places_of(number: int) -> Places:
    """The places that a mask hides and those around them, see `bids_cpmae.training.faces.mask`."""
    return Places.of(masked_codes(number)[1], shipped_anatomy())


def batch_of(
    some: list[dict[str, Tensor]], number: int, rng: np.random.Generator | None = None
) -> dict[str, Tensor]:  # fmt: skip
    """A batch of faces that share the mask ``number``; as the app sees them where no ``rng`` is given."""
    places = places_of(number)
    skull_at, brain_at = places.skull, places.brain
    shown = torch.zeros(len(some), *places.target_known.shape, dtype=torch.bool)
    if rng is not None:
        skull_at, brain_at = _some(skull_at, rng), _some(brain_at, rng)
        shown = _shown(len(some), places, rng)
    device = some[0]["true"].device
    skull_at, brain_at, target, known, shown = (
        torch.as_tensor(part).to(device) for part in (skull_at, brain_at, places.target, places.target_known, shown)
    )

    def groups(name: str, at: Tensor) -> Tensor:
        return torch.stack([face[name][at] for face in some]).long()

    return {
        "brain": groups("brain", brain_at), "brain_at": brain_at, "skull": groups("mixed", skull_at),
        "skull_at": skull_at, "true": groups("true", target), "mixed": groups("mixed", target), "target_at": target,
        "known": known, "shown": shown,
    }  # fmt: skip


def _shown(batch: int, places: Places, rng: np.random.Generator) -> Tensor:
    """Which masked codes (batch, targets, 8) a face may show all the same, True = shown; never all of them."""
    count = len(places.target)
    how = SHOWN[rng.choice(len(SHOWN), p=SHOWN_ODDS)]
    if how == "around a block":
        side = places.reach.shape[0] // GROUP
        group_at = np.array(np.unravel_index(rng.choice(places.target), (side,) * 3))
        block = np.zeros_like(places.reach)
        block[tuple(slice(max(0, GROUP * at - n // 2), GROUP * (at + 1) + n // 2)
                    for at, n in zip(group_at, rng.integers(4, 12, 3)))] = True  # fmt: skip
        return torch.from_numpy(group_cells(~block)[places.target]).expand(batch, -1, -1)
    ratio = rng.uniform(0, 0.9) if how == "scattered" else 0.0
    return torch.from_numpy(rng.random((batch, count, CODES_PER_GROUP)) < ratio)


def _some(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(index) <= CONTEXT_MOST:
        return index
    return np.sort(rng.choice(index, CONTEXT_MOST, replace=False))


def predict(
    model: MaskedAutoencoder, skull: ResidualCodebook, brain: ResidualCodebook, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Vectors (B, targets, 8, code_dim) found for the groups of a batch, and which are known (B, targets, 8)."""
    known = batch["known"][None] | batch["shown"]
    with torch.no_grad():
        context = brain.lookup(batch["brain"]).flatten(2), skull.lookup(batch["skull"]).flatten(2)
        mixed = skull.lookup(batch["mixed"])
        # codes that the mask covers in part are those of head and sketch together, whatever else is shown
        given = torch.where((batch["shown"] & ~batch["known"])[..., None], skull.lookup(batch["true"]), mixed)
    encoded = model.forward_encoder(
        context[0], batch["brain_at"], context[1],
        torch.ones(len(batch["skull_at"]), CODES_PER_GROUP, device=mixed.device), batch["skull_at"],
    )  # fmt: skip
    given = (given * known[..., None]).flatten(2)
    return model.forward_decoder(encoded, given, known.float(), mixed.flatten(2), batch["target_at"]), known


def forward_loss(
    model: MaskedAutoencoder, skull: ResidualCodebook, brain: ResidualCodebook, batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Squared error of the masked codes' vectors in units of their variance; also the sketch's and the average's."""
    predicted, known = predict(model, skull, brain, batch)
    true = skull.lookup(batch["true"])
    hidden = ~known
    variance = true[hidden].var(0).sum()
    average = model.average[batch["target_at"]].unflatten(-1, (CODES_PER_GROUP, -1)).expand_as(true)

    def error(found: Tensor) -> Tensor:
        return (found[hidden].float() - true[hidden]).square().sum(-1).mean() / variance

    return {"loss": error(predicted), "of_sketch": error(skull.lookup(batch["mixed"])), "of_average": error(average)}


@torch.no_grad()
def held_out_losses(
    model: MaskedAutoencoder, skull: ResidualCodebook, brain: ResidualCodebook, bank: TokenBank
) -> dict[str, float]:
    """Mean losses of `forward_loss` over faces that were not learned from, as the app sees them."""
    every = [
        forward_loss(model, skull, brain, batch_of([face], number))
        for number, some in sorted(bank.faces.items()) for face in some
    ]  # fmt: skip
    return {name: float(torch.stack([losses[name] for losses in every]).mean()) for name in every[0]}


def build_and_train(
    codes: Path, out: Path, skull: VQVAE, brain: VQVAE, *, steps: int, batch: int, rate: float, device: str = "cpu",
    held_out: Path | None = None,
) -> MaskedAutoencoder:  # fmt: skip
    """Train the masked autoencoder; saved as ``out/weights.pt``. ``held_out`` are codes to be found, not learned."""
    torch.manual_seed(0)
    bank = TokenBank(codes, batch, device)
    others = TokenBank(held_out, 1, device) if held_out else None
    model = MaskedAutoencoder(MAEConfig(code_dim=skull.config.code_dim, brain_dim=brain.config.code_dim)).to(device)
    skull, brain = skull.to(device), brain.to(device)
    set_averages(model, skull.codebook, bank)

    def losses(step: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with in_bfloat16(torch.device(device)):
            return forward_loss(model, skull.codebook, brain.codebook, batch)

    def check(averaged: MaskedAutoencoder) -> dict[str, float]:
        return held_out_losses(averaged, skull.codebook, brain.codebook, others)

    model = train(model, losses, batches=bank, out=out, steps=steps, peak_rate=rate, device=device, average=0.998,
                  check=check if others else None)  # fmt: skip
    torch.save({"config": model.config.as_dict(), "state": model.state_dict()}, out / "weights.pt")
    return model


@torch.no_grad()
def set_averages(model: MaskedAutoencoder, book: ResidualCodebook, bank: TokenBank) -> None:
    """The mean code vectors of all faces, true and mixed, at each place: predictions start there."""
    everyone = [face for some in bank.faces.values() for face in some]
    for average, name in ((model.average, "true"), (model.average_sketch, "mixed")):
        total = torch.zeros_like(average)
        for face in everyone:
            total += book.lookup(face[name].long()).flatten(1)
        average.copy_(total / len(everyone))


def load_vqvae(path: Path) -> VQVAE:
    """A VQ-VAE from the ``weights.pt`` that ``cpmae train vqvae`` wrote."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["config"].items()}
    model = VQVAE(VQVAEConfig(**config))
    model.load_state_dict(stored["state"])
    return model.eval()


def from_heads(
    bank: Bank, out: Path, skull: VQVAE, brain: VQVAE, *, steps: int, refine_steps: int, weights: Path,
    variants: int = VARIANTS, batch: int = 6, rate: float = 4e-4, device: str = "cpu", workers: int = WORKERS,
    held_out: Bank | None = None,
) -> Path:  # fmt: skip
    """Fit identities, draw and encode faces, train the masked autoencoder, refine the decoder, join the weights."""
    from bids_cpmae.model.weights import save_weights
    from bids_cpmae.training.refine import refine

    identity = fit_identity(bank)
    encoders = tokens.Encoders.load(skull, brain, device)

    def encoded(bank: Bank, folder: Path, variants: int) -> tuple[Path, Path]:
        drawn = faces.build(bank, folder / "faces", identity.portrait, variants=variants, workers=workers)
        return drawn, tokens.build(bank, drawn, folder / "codes", encoders, variants=variants)

    drawn, codes = encoded(bank, out, variants)
    others = encoded(held_out, out / "held-out", 0)[1] if held_out else None
    model = build_and_train(codes, out, skull, brain, steps=steps, batch=batch, rate=rate, device=device,
                            held_out=others)  # fmt: skip
    skull = refine(drawn, codes, out / "decoder", model.eval(), skull, brain, steps=refine_steps, device=device,
                   workers=workers if device != "cpu" else 0)  # fmt: skip
    return save_weights(weights, skull, brain, model, identity)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae train mae``."""
    parser.add_argument("bank", type=Path, help="folder written by `cpmae train heads`")
    parser.add_argument("skull", type=Path, help="folder of the non-brain VQ-VAE's training")
    parser.add_argument("brain", type=Path, help="folder of the brain VQ-VAE's training")
    parser.add_argument("out", type=Path, help="folder for faces, codes, losses.csv and weights.safetensors")
    parser.add_argument("--steps", type=int, default=1500, help="default: %(default)s")
    parser.add_argument("--refine-steps", type=int, default=REFINE_STEPS, help="of the decoder (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=6, help="faces a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=4e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--variants", type=int, default=VARIANTS, help="more faces a head (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--held-out", type=Path, metavar="BANK",
                        help="heads not to be learned from; how well their codes are found is printed meanwhile")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes that draw (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae train mae``."""
    skull, brain = load_vqvae(args.skull / "weights.pt"), load_vqvae(args.brain / "weights.pt")
    path = from_heads(
        Bank.open(args.bank), args.out, skull, brain, steps=args.steps, refine_steps=args.refine_steps,
        weights=args.out / "weights.safetensors", variants=args.variants, batch=args.batch, rate=args.rate,
        device=args.device, workers=args.workers, held_out=Bank.open(args.held_out) if args.held_out else None,
    )  # fmt: skip
    print(f"weights written to {path}")
    return 0
