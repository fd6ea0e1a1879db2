"""``cpmae demo``: a small BIDS dataset with a synthetic head, to try the app on."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bids_cpmae.bids.atomic import write_json, write_text
from bids_cpmae.errors import OutputError

NOISE, UNITS = 0.012, 1000


def write_demo(root: Path, *, weights: Path | None = None) -> Path:
    """Write the dataset into ``root``; returns the scan's path."""
    import nibabel as nib

    from bids_cpmae.imaging.headspace import head_affine
    from bids_cpmae.model.demo import demo_head
    from bids_cpmae.model.weights import load_cpmae

    head = demo_head(load_cpmae(weights))
    rng = np.random.default_rng(0)
    real, imaginary = (NOISE * rng.standard_normal(head.shape, dtype=np.float32) for _ in range(2))
    noisy = np.hypot(head + real, imaginary)
    # a scanner's field of view, with some air around the head
    corner = (28, 4, 8)
    voxels = np.rint(UNITS * noisy[28:228, 4:, 8:]).astype(np.int16)
    image = nib.Nifti1Image(voxels, head_affine() @ nib.affines.from_matvec(np.eye(3), corner))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    folder = root / "sub-demo" / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sub-demo_T1w.nii.gz"
    nib.save(image, path)
    write_json(path.with_name("sub-demo_T1w.json"), {"Modality": "MR"})
    write_json(root / "dataset_description.json", {
        "Name": "bids_cpmae demo: a synthetic head", "BIDSVersion": "1.10.0", "DatasetType": "raw",
        "License": "CC BY-SA 3.0", "Authors": ["bids_cpmae"],
    })  # fmt: skip
    write_text(root / "README", "A synthetic head, decoded from codes that ship with bids_cpmae. No person is in it.\n")
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae demo``."""
    parser.add_argument("root", type=Path, metavar="DIR", help="folder for the BIDS dataset")
    parser.add_argument("--model-weights", "--model_weights", type=Path, metavar="FILE", help="default: those shipped")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae demo``."""
    if args.root.exists() and any(args.root.iterdir()) and not (args.root / "sub-demo").is_dir():
        raise OutputError(f"{args.root}: holds something else; give an empty or new folder")
    print(write_demo(args.root, weights=args.model_weights))
    return 0
