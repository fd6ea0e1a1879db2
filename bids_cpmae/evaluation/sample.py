"""``cpmae sample``: several new faces for one scan, to look at."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae sample``."""
    parser.add_argument("source", type=Path, metavar="IN.nii.gz", help="T1w scan of a head")
    parser.add_argument(
        "out", type=Path, metavar="DIR", help="folder for seed-N.nii.gz, the new faces of `cpmae reface --seed N`"
    )
    parser.add_argument("--count", type=int, default=4, help="faces, seeds 0 to N - 1 (default: %(default)s)")
    parser.add_argument("--mode", choices=("face", "head"), default="face", help="default: %(default)s")
    parser.add_argument("--model-weights", "--model_weights", type=Path, metavar="FILE", help="default: those shipped")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae sample``: the scan is registered once, the face drawn ``--count`` times."""
    from bids_cpmae.identity import identity_seed, noise_seed, participant_of
    from bids_cpmae.imaging.align import align_blanked, resample_to_scan
    from bids_cpmae.imaging.facemask import locate_face
    from bids_cpmae.imaging.nifti import load_source, save_like
    from bids_cpmae.imaging.recolour import compose_series
    from bids_cpmae.model.weights import load_cpmae

    args.out.mkdir(parents=True, exist_ok=True)
    source = load_source(args.source)
    mask = locate_face(source, mode=args.mode).mask
    frame = align_blanked(source, mask)
    model = load_cpmae(args.model_weights)
    for seed in range(args.count):
        identity = identity_seed(seed, participant_of(args.source))
        head = model.remodel(
            frame.volume, frame.blank, mode=args.mode, identity_seed=identity, head_size=frame.head_size
        )
        synthetic = resample_to_scan(frame, head, source, mask)
        stored = compose_series(source, mask, synthetic, seed=noise_seed(seed, identity))
        print(save_like(source, stored, args.out / f"seed-{seed}.nii.gz"), flush=True)
    return 0
