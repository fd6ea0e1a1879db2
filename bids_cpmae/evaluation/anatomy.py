"""``cpmae evaluate anatomy``: does the mask spare the brain and cover the face, where both are known?

Scans are made of label maps, the face is located in each as in any scan, and the mask held against the labels.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from bids_cpmae.errors import ExitCode, InputError, OutputError
from bids_cpmae.evaluation.labelmaps import label_groups, read_labels, scan_of_labels, skin_of_face
from bids_cpmae.evaluation.tables import print_table, write_tsv

LOG = logging.getLogger("bids_cpmae")
MAPS = ("02", "05", "06", "08", "10", "12", "15", "17", "19")
LEAST_SHARE = 0.95
PARTS = ("nose", "lips", "eyelids")
HEADER = ("map", "brain_voxels_masked", "csf_voxels_masked", *PARTS, "mask_share", "correlation", "verdict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate anatomy``."""
    parser.add_argument(
        "labelmaps", type=Path, metavar="LABELMAPS_DIR", help="folder with head-NN_dseg.nii.gz and labels.tsv"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for anatomy.tsv")
    parser.add_argument(
        "--maps", nargs="+", default=MAPS, metavar="NN", help="maps to use (default: those with a face)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of contrast and noise (default: %(default)s)")


def assess(
    labels: np.ndarray, affine: np.ndarray, mask: np.ndarray, groups: dict[str, np.ndarray]
) -> dict[str, float]:
    """Hold a mask against the labels.

    Parameters
    ----------
    labels : ndarray (X, Y, Z), int
        In RAS+ axis order.
    affine : ndarray (4, 4)
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    groups : dict of str to ndarray, int
        Labels by group, see `label_groups`.

    Returns
    -------
    dict of str to float
        ``brain_voxels_masked``, which must be 0, ``csf_voxels_masked`` (fluid around the brain, for information), and
        for nose, lips and eyelids the share of skin inside the mask.
    """
    masked = labels[mask]
    found = {
        f"{group}_voxels_masked": int(np.isin(masked, groups.get(group, ())).sum()) for group in ("brain", "csf")
    }
    for name, skin in skin_of_face(labels, affine).items():
        found[name] = float(mask[skin].mean()) if skin.any() else 0.0
    return found


def main(args: argparse.Namespace) -> int:
    """Locate the face in every map's scan, write the table and print it; 1 when a map fails."""
    from bids_cpmae.imaging.facemask import locate_face
    from bids_cpmae.imaging.nifti import load_source

    paths = {number: args.labelmaps / f"head-{number}_dseg.nii.gz" for number in args.maps}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise InputError(
            f"no label map {missing[0]} ({len(missing)} of {len(paths)} missing)", ExitCode.NO_INPUT
        )
    groups = label_groups(args.labelmaps / "labels.tsv")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make a folder ({error})") from error
    rows = []
    for number, path in paths.items():
        labels, affine = read_labels(path)
        rng = np.random.default_rng([args.seed, *number.encode()])
        located = locate_face(load_source(scan_of_labels(labels, affine, rng)))
        found = assess(labels, affine, located.mask, groups)
        good = found["brain_voxels_masked"] == 0 and min(found[part] for part in PARTS) >= LEAST_SHARE
        rows.append((
            number, found["brain_voxels_masked"], found["csf_voxels_masked"], *(f"{found[part]:.4f}" for part in PARTS),
            located.measures["mask_share"], located.measures["registration_correlation"], "PASS" if good else "FAIL",
        ))  # fmt: skip
        LOG.info("map %s: %s (%d of %d)", number, rows[-1][-1], len(rows), len(paths))
        # after every map, so that a long run can be watched and leaves something when it is stopped
        write_tsv(args.out / "anatomy.tsv", HEADER, rows)
    print_table(HEADER, rows)
    return ExitCode.OK if all(row[-1] == "PASS" for row in rows) else ExitCode.SCAN_FAILED
