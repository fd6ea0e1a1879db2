"""``cpmae reface``: one file, without BIDS."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae reface``."""
    parser.add_argument("source", type=Path, metavar="IN.nii.gz", help="anatomical scan of a head, best a T1w one")
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
    parser.add_argument("--suffix", metavar="SUFFIX",
                        help="contrast by its BIDS suffix, e.g. T2w (default: that of the name, else T1w)")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="reface what would be left alone, e.g. a defaced scan")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--model-weights", "--model_weights", type=Path, metavar="FILE", help="default: those shipped")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae reface``; prints verdict and certificate."""
    from bids_cpmae.api import reface_file

    label = args.participant_label.removeprefix("sub-") if args.participant_label else None
    said = reface_file(
        args.source, args.target, mask_out=args.mask_out, seed=args.seed, participant=label, mode=args.mode,
        regions=tuple(args.regions), device=args.device, weights=args.model_weights, force=args.force,
        suffix=args.suffix,
    )  # fmt: skip
    if said.reason:
        print(f"{args.target}: {said.verdict}, {said.reason}", file=sys.stderr)
    print(json.dumps({"verdict": said.verdict, "reason": said.reason, **said.certificate.as_dict()}, indent=2))
    return 0
