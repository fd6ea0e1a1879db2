"""``cpmae reface``: one file, without BIDS."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae reface``."""
    parser.add_argument("source", type=Path, metavar="IN.nii.gz", help="T1w scan of a head")
    parser.add_argument("target", type=Path, metavar="OUT.nii.gz", help="the refaced scan")
    parser.add_argument(
        "--mask-out", "--mask_out", type=Path, metavar="M.nii.gz", help="write the mask too, 1 = replaced"
    )
    parser.add_argument("--seed", type=int, default=0, help="as --random-seed of bids-cpmae (default: %(default)s)")
    parser.add_argument("--participant-label", "--participant_label", metavar="LABEL",
                        help="with the seed decides who the new face is (default: sub- of the name)")  # fmt: skip
    parser.add_argument("--mode", choices=("face", "head"), default="face", help="default: %(default)s")
    parser.add_argument(
        "--regions", nargs="+", choices=("face", "ears"), default=["face", "ears"], help="default: face ears"
    )
    parser.add_argument("--force", action="store_true", help="reface what would be left alone, e.g. a defaced scan")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--model-weights", "--model_weights", type=Path, metavar="FILE", help="default: those shipped")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae reface``; prints the certificate."""
    from bids_cpmae.api import reface_file

    label = args.participant_label.removeprefix("sub-") if args.participant_label else None
    certificate = reface_file(
        args.source, args.target, mask_out=args.mask_out, seed=args.seed, participant=label, mode=args.mode,
        regions=tuple(args.regions), device=args.device, weights=args.model_weights, force=args.force,
    )  # fmt: skip
    print(json.dumps(certificate.as_dict(), indent=2))
    return 0
