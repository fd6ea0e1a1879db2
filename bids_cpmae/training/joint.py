"""``cpmae train weights``: from heads to a weights file, all networks one after the other.

Each step resumes where it was stopped; `cpmae train vqvae` and `cpmae train mae` are the same steps one by one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bids_cpmae.data import WEIGHTS
from bids_cpmae.training import mae, vqvae
from bids_cpmae.training.bank import Bank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae train weights``."""
    parser.add_argument("bank", type=Path, help="folder written by `cpmae train heads`")
    parser.add_argument("out", type=Path, help=f"folder for checkpoints, losses and {WEIGHTS}")
    parser.add_argument("--skull-steps", type=int, default=3600, help="non-brain VQ-VAE (default: %(default)s)")
    parser.add_argument("--brain-steps", type=int, default=900, help="brain VQ-VAE (default: %(default)s)")
    parser.add_argument("--mae-steps", type=int, default=1500, help="masked autoencoder (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=mae.WORKERS, help="processes that draw (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae train weights``."""
    parts = {}
    for part, steps in (("skull", args.skull_steps), ("brain", args.brain_steps)):
        if not (args.out / part / "weights.pt").exists():
            vqvae.build_and_train(
                args.bank, args.out / part, part=part, steps=steps, batch=4, rate=4e-4, device=args.device
            )
        parts[part] = mae.load_vqvae(args.out / part / "weights.pt")
    path = mae.from_heads(Bank.open(args.bank), args.out / "mae", *parts.values(), steps=args.mae_steps,
                          refine_steps=mae.REFINE_STEPS, weights=args.out / WEIGHTS, device=args.device,
                          workers=args.workers)  # fmt: skip
    print(f"weights written to {path}")
    return 0
