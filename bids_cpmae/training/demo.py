"""``cpmae train demo``: codes of the demo head, the average head with a drawn face."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from bids_cpmae.imaging.headspace import head_affine, head_shape
from bids_cpmae.imaging.intensity import unit_scale
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.template import load_template
from bids_cpmae.model.cpmae import CPMAE
from bids_cpmae.model.demo import DEMO
from bids_cpmae.model.weights import load_cpmae


@torch.no_grad()
def demo_codes(model: CPMAE, *, seed: int) -> dict[str, np.ndarray]:
    """``skull`` and ``brain`` codes (32, 32, 32, levels), int16, of a head that nobody has."""
    template = load_template()
    grid, shape = head_affine(), head_shape()
    average = resample(template.grid.data, template.grid.affine, grid, shape)
    volume = np.clip(average / unit_scale(average, template), 0, 1).astype(np.float32)
    blank = resample(template.replaced_with_air(), template.grid.affine, grid, shape, outside="edge") >= 0.5
    faced = np.where(blank, 0, volume)
    new = model.remodel(faced, blank & ~model.anatomy.brain, identity_seed=seed)
    whole = np.where(blank & ~model.anatomy.brain, new, volume).astype(np.float32)
    codes = {}
    inside = model.anatomy.brain
    for name, vqvae, known in (("skull", model.skull, ~inside), ("brain", model.brain, inside)):
        tensors = [torch.from_numpy(np.ascontiguousarray(part, np.float32))[None, None] for part in (whole, known)]
        codes[name] = vqvae.encode(*tensors)[0].numpy().astype(np.int16)
    return codes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae train demo``."""
    parser.add_argument("out", type=Path, help=f"folder for {DEMO}")
    parser.add_argument("--seed", type=int, default=1, help="of the face (default: %(default)s)")
    parser.add_argument("--model-weights", "--model_weights", type=Path, metavar="FILE", help="default: those shipped")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae train demo``."""
    target = args.out / DEMO
    np.savez_compressed(target, **demo_codes(load_cpmae(args.model_weights), seed=args.seed))
    print(target)
    return 0
