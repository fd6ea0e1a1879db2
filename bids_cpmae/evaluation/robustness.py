"""Is the face found wherever a head lies and however it is lit?

Every scan is disturbed in known ways, its face is located anew, and what is then taken for face and brain is held
against what was before. What goes wrong and gets REVIEW or FAIL was noticed; what goes wrong and would PASS counts.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from bids_cpmae.bids.verdicts import PASS, judge, verdict_of
from bids_cpmae.errors import CPMAEError, ExitCode
from bids_cpmae.evaluation.datasets import add_people_arguments, chosen_people, find_originals, make_folders
from bids_cpmae.evaluation.tables import print_table, write_tsv
from bids_cpmae.imaging.facemask import FaceLocation, locate_face
from bids_cpmae.imaging.fields import blocks
from bids_cpmae.imaging.headspace import apply_affine
from bids_cpmae.imaging.nifti import SourceImage, load_source
from bids_cpmae.processes import one_thread

LOG = logging.getLogger("bids_cpmae")
# light falls or rises along an axis by this factor from one end of the field of view to the other
LIGHT = 11.0
# a coil at the neck: so many times as bright there, falling off within this share of half the field of view
NEAR_COIL, COIL_REACH = 9.0, 0.3
# standard deviation in each channel, of the 95th percentile
NOISE = 0.2
SLICE_MM, CROWN_MM, FRONT_MM = 5.0, 25.0, 20.0
# of the face's tissue what must be masked, and how far in mm the brain may lie elsewhere in head space, on average
LEAST_COVERED, FARTHEST_MM = 0.95, 5.0
TISSUE = 0.2
MOST_POINTS = 20_000
HOLDS, NOTICED, UNNOTICED = "holds", "noticed", "UNNOTICED"
HEADER = ("person", "disturbance", "covered", "brain_mm", "brain_farthest_mm", "brain_masked_ml", "correlation",
          "verdict", "outcome")  # fmt: skip


@dataclass(frozen=True)
class Disturbed:
    """A scan as another scanner or another technician might have taken it.

    Attributes
    ----------
    data : ndarray (X, Y, Z), float32
    affine : ndarray (4, 4)
        Voxel index to RAS+ mm.
    moved : ndarray (4, 4)
        Where in its world, RAS+ mm, a point of the undisturbed scan's has come to lie.
    """

    data: np.ndarray
    affine: np.ndarray
    moved: np.ndarray


def _turned(scan: SourceImage, brain: np.ndarray, rng: np.random.Generator, *, degrees: tuple[float, ...]) -> Disturbed:
    """The head turned about its brain's middle: nodding backwards, tilted to its left and turned to its left."""
    middle = apply_affine(scan.affine, np.argwhere(brain).mean(0))
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    moved[:3, 3] = middle - moved[:3, :3] @ middle
    return Disturbed(scan.data, moved @ scan.affine, moved)


def _along(scan: SourceImage, axis: int) -> np.ndarray:
    """-1 to 1 from one end of the field of view to the other, along a RAS+ axis."""
    ends = np.linspace(-1, 1, scan.shape3[axis], dtype=np.float32)
    return ends.reshape([-1 if axis == other else 1 for other in range(3)])


def _lit(scan: SourceImage, brain: np.ndarray, rng: np.random.Generator, *, axis: int, towards: int) -> Disturbed:
    """Brighter and brighter along an axis."""
    light = np.exp(np.log(LIGHT) / 2 * towards * _along(scan, axis))
    return Disturbed(scan.data * light, scan.affine, np.eye(4))


def _neck_coil(scan: SourceImage, brain: np.ndarray, rng: np.random.Generator) -> Disturbed:
    """Very bright at the lower end."""
    light = 1 + (NEAR_COIL - 1) * np.exp(-(1 + _along(scan, 2)) / COIL_REACH)
    return Disturbed(scan.data * light, scan.affine, np.eye(4))


def _noisy(scan: SourceImage, brain: np.ndarray, rng: np.random.Generator) -> Disturbed:
    """Rician noise."""
    amount = NOISE * np.percentile(scan.data, 95)
    real, imaginary = (amount * rng.standard_normal(scan.shape3, dtype=np.float32) for _ in range(2))
    return Disturbed(np.hypot(scan.data + real, imaginary), scan.affine, np.eye(4))


def _thick(scan: SourceImage, brain: np.ndarray, rng: np.random.Generator) -> Disturbed:
    """Axial slices of about `SLICE_MM`."""
    count = max(1, int(SLICE_MM / scan.spacing[2]))
    whole = scan.data[..., : scan.shape3[2] // count * count]
    affine = scan.affine @ np.diag([1, 1, count, 1])
    affine[:3, 3] += (count - 1) / 2 * scan.affine[:3, 2]
    return Disturbed(blocks(whole, np.array([1, 1, count])), affine, np.eye(4))


def _without_crown(scan: SourceImage, brain: np.ndarray, rng: np.random.Generator) -> Disturbed:
    """The field of view ends `CROWN_MM` below the brain's top."""
    top = np.flatnonzero(brain.any((0, 1)))[-1] - int(CROWN_MM / scan.spacing[2])
    return Disturbed(scan.data[..., :top], scan.affine, np.eye(4))


def _without_front(scan: SourceImage, brain: np.ndarray, rng: np.random.Generator) -> Disturbed:
    """The field of view ends `FRONT_MM` before the brain: no tip of a nose."""
    front = np.flatnonzero(brain.any((0, 2)))[-1] + int(FRONT_MM / scan.spacing[1])
    return Disturbed(scan.data[:, :front], scan.affine, np.eye(4))


# each of a scan in RAS+ axis order, its brain and a generator
DISTURBANCES: dict[str, Callable[..., Disturbed]] = {
    "nod-back": partial(_turned, degrees=(30, 0, 0)),
    "nod-forward": partial(_turned, degrees=(-30, 0, 0)),
    "turned": partial(_turned, degrees=(0, 0, 40)),
    "askew": partial(_turned, degrees=(-25, 15, 25)),
    "light-above": partial(_lit, axis=2, towards=1),
    "light-below": partial(_lit, axis=2, towards=-1),
    "light-before": partial(_lit, axis=1, towards=1),
    "light-beside": partial(_lit, axis=0, towards=1),
    "neck-coil": _neck_coil,
    "noisy": _noisy,
    "thick-slices": _thick,
    "no-crown": _without_crown,
    "no-front": _without_front,
}


def compare(scan: SourceImage, before: FaceLocation, disturbed: Disturbed, after: FaceLocation) -> dict[str, float]:
    """Where face and brain of a scan came to lie when it was disturbed.

    Parameters
    ----------
    scan, before
        The undisturbed scan and its face.
    disturbed, after
        The disturbed scan and its face as found anew.

    Returns
    -------
    dict of str to float
        ``covered``, the share of the face's tissue that is masked again, of what is still in the field of view;
        ``brain_mm`` and ``brain_farthest_mm``, how far points of the brain lie in head space from where they lay, on
        average and at most; ``brain_masked_ml``, how much of the brain is masked now.
    """
    ml = float(np.prod(scan.spacing)) / 1000
    bright = scan.data > TISSUE * np.percentile(scan.data, 95)
    face, brain = (_some(np.argwhere(part)) for part in (before.mask & bright, before.brain))
    places = (apply_affine(disturbed.moved @ scan.affine, part) for part in (face, brain))
    masked = [_at(after.mask, disturbed.affine, points) for points in places]
    there = apply_affine(scan.affine, brain)
    away = np.linalg.norm(after.to_head(apply_affine(disturbed.moved, there)) - before.to_head(there), axis=1)
    return {
        "covered": float(np.mean(masked[0])) if masked[0].size else float("nan"),
        "brain_mm": float(away.mean()), "brain_farthest_mm": float(away.max()),
        "brain_masked_ml": ml * float(before.brain.sum()) * float(masked[1].sum()) / max(1, len(brain)),
    }  # fmt: skip


def _some(index: np.ndarray) -> np.ndarray:
    return index[:: max(1, len(index) // MOST_POINTS)]


def _at(mask: np.ndarray, affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of a mask at those points (N, 3), RAS+ mm, that lie on its grid."""
    index = np.rint(apply_affine(np.linalg.inv(affine), points)).astype(int)
    return mask[tuple(index[((index >= 0) & (index < mask.shape)).all(1)].T)]


def outcome_of(found: dict[str, float], verdict: str) -> str:
    """Whether a face was found again, and where not, whether anybody would be told."""
    if found["covered"] >= LEAST_COVERED and found["brain_mm"] <= FARTHEST_MM:
        return HOLDS
    return UNNOTICED if verdict == PASS else NOTICED


def examine(person: str, path: Path, names: list[str], seed: int) -> list[tuple]:
    """Rows, as `HEADER` has them, of one person's scan in every disturbance named."""
    scan = load_source(nib.as_closest_canonical(nib.load(path)))
    before = locate_face(scan, seed=seed)
    rows = []
    for name in names:
        rng = np.random.default_rng([seed, *name.encode()])
        disturbed = DISTURBANCES[name](scan, before.brain, rng)
        try:
            image = nib.Nifti1Image(disturbed.data.astype(np.float32), disturbed.affine)
            after = locate_face(load_source(image), seed=seed)
        except CPMAEError as error:
            rows.append((person, name, *[None] * 5, verdict_of(error), NOTICED))
            continue
        found, verdict = compare(scan, before, disturbed, after), judge(after.measures)[0]
        rows.append((
            person, name, f"{found['covered']:.3f}", f"{found['brain_mm']:.1f}", f"{found['brain_farthest_mm']:.1f}",
            f"{found['brain_masked_ml']:.2f}", after.measures["registration_correlation"], verdict,
            outcome_of(found, verdict),
        ))  # fmt: skip
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate robustness``."""
    parser.add_argument("originals", type=Path, metavar="ORIGINALS_BIDS", help="BIDS dataset of scans with faces")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for robustness.tsv; no face in it")
    parser.add_argument(
        "--disturbances", nargs="+", default=list(DISTURBANCES), choices=DISTURBANCES, metavar="NAME",
        help=f"what is done to scans (default: all of {' '.join(DISTURBANCES)})",
    )  # fmt: skip
    add_people_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae evaluate robustness``; 1 where something goes wrong unnoticed."""
    originals = find_originals(args.originals)
    people = chosen_people(args, originals)
    make_folders([args.out], [args.originals])
    rows: list[tuple] = []
    with ProcessPoolExecutor(args.nprocs, mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        jobs = [pool.submit(examine, person, originals[person], args.disturbances, args.seed) for person in people]
        for number, (person, job) in enumerate(zip(people, jobs, strict=True), 1):
            rows += job.result()
            LOG.info("%s: %d of %d", person, number, len(people))
            # after everybody, so that a long run can be watched and leaves something when it is stopped
            write_tsv(args.out / "robustness.tsv", HEADER, rows)
    print_table(HEADER, rows)
    print()
    outcomes = (HOLDS, NOTICED, UNNOTICED)
    print_table(("disturbance", *outcomes), [
        (name, *(sum(row[1] == name and row[-1] == outcome for row in rows) for outcome in outcomes))
        for name in args.disturbances
    ])  # fmt: skip
    return ExitCode.SCAN_FAILED if any(row[-1] == UNNOTICED for row in rows) else ExitCode.OK
