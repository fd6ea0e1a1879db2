"""``cpmae train heads``: heads to learn from, brought into head space, each with its shape.

People come out of a BIDS dataset of T1w scans with faces, and, where there are any, whole-head label maps are drawn.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_cpmae.imaging.headspace import covering_grid
from bids_cpmae.imaging.registration import Grid
from bids_cpmae.imaging.resample import downsample

FULL_FACE_MAPS = ("02", "05", "06", "08", "10", "11", "12", "14", "15", "16", "17", "18", "19")


@dataclass(frozen=True)
class Head:
    """One person's scan: ``name`` (participant label) and ``path``."""

    name: str
    path: Path

    def read(self) -> Grid:
        """The scan in RAS+ axis order with its own affine."""
        image = nib.as_closest_canonical(nib.load(self.path))
        return Grid(np.asanyarray(image.dataobj).astype(np.float32), image.affine)


def people(dataset: Path, split: str | None) -> list[Head]:
    """The first T1w scan of everybody in a BIDS dataset, or of those with ``split`` in participants.tsv.

    Raises
    ------
    InputError
        When there are no scans, or nobody is in the split.
    """
    from bids_cpmae.evaluation.datasets import find_originals, people_of_split

    scans = find_originals(Path(dataset))
    chosen = people_of_split(Path(dataset), split) if split else list(scans)
    return [Head(name, scans[name]) for name in chosen if name in scans]


def label_maps(folder: Path, numbers: tuple[str, ...] = FULL_FACE_MAPS) -> list[Head]:
    """Whole-head label maps ``head-N_dseg.nii.gz``, those with a whole face unless told otherwise."""
    return [Head(f"head-{n}", Path(folder) / f"head-{n}_dseg.nii.gz") for n in numbers]


def coarse(scan: Grid, spacing: float = 2.0) -> Grid:
    """A scan on an axis-aligned grid for registration."""
    affine, shape = covering_grid(scan.affine, scan.data.shape, spacing)
    return Grid(downsample(scan.data, scan.affine, affine, shape), affine)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae train heads``."""
    parser.add_argument("dataset", type=Path, metavar="BIDS", help="dataset of T1w scans with faces")
    parser.add_argument("out", type=Path, help="folder for the heads (about 17 MB each, 50 MB a label map)")
    parser.add_argument("--split", help="only people with this value in the column `split` (default: everybody)")
    parser.add_argument("--label-maps", type=Path, metavar="DIR", help="folder with head-NN_dseg.nii.gz to draw from")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae train heads``."""
    from bids_cpmae.training import bank, portrait

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    maps = label_maps(args.label_maps) if args.label_maps else []
    made = bank.build(people(args.dataset, args.split), maps, args.out, workers=args.workers)
    portrait.build(made, workers=args.workers)
    print(f"{len(made.scans)} scans and {len(made.labels)} label maps in {args.out}")
    return 0
