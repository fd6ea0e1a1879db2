"""Real heads and label maps to learn from, read from a data folder laid out as ``ixi2mm/`` and ``labelmaps/``."""

from __future__ import annotations

import csv
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


def people(data: Path, split: str) -> list[Head]:
    """T1w scans of one split (``train`` or ``dev``) of the people in ``data/ixi2mm``."""
    root = Path(data) / "ixi2mm"
    with open(root / "participants.tsv", newline="") as file:
        names = [row["participant_id"] for row in csv.DictReader(file, delimiter="\t") if row["split"] == split]
    return [Head(name, root / name / "anat" / f"{name}_T1w.nii.gz") for name in names]


def label_maps(data: Path, numbers: tuple[str, ...] = FULL_FACE_MAPS) -> list[Head]:
    """Whole-head label maps, those with a whole face unless told otherwise."""
    return [Head(f"head-{n}", Path(data) / "labelmaps" / f"head-{n}_dseg.nii.gz") for n in numbers]


def coarse(scan: Grid, spacing: float = 2.0) -> Grid:
    """A scan on an axis-aligned grid for registration."""
    affine, shape = covering_grid(scan.affine, scan.data.shape, spacing)
    return Grid(downsample(scan.data, scan.affine, affine, shape), affine)
