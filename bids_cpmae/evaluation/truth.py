"""``cpmae evaluate truth``: brain extraction and segmentation held against anatomy that is known.

Scans are drawn from label maps, de-identified in several ways, and processed as in `bids_cpmae.evaluation.utility`;
what comes out is compared with the labels, and not, as there, with what comes out for the original.
"""

from __future__ import annotations

import argparse
import logging
import statistics as averages
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_cpmae.errors import ExitCode, InputError, OutputError
from bids_cpmae.evaluation.baselines import METHODS, make_all
from bids_cpmae.evaluation.datasets import ORIGINAL
from bids_cpmae.evaluation.labelmaps import label_groups, read_labels, scan_of_labels
from bids_cpmae.evaluation.pipelines import TISSUES, Products, process
from bids_cpmae.evaluation.tables import print_table, versions, write_json, write_tsv
from bids_cpmae.evaluation.utility import dice
from bids_cpmae.imaging.headspace import apply_affine, covering_grid
from bids_cpmae.imaging.registration import Grid
from bids_cpmae.imaging.resample import downsample
from bids_cpmae.imaging.template import load_template
from bids_cpmae.processes import one_thread

LOG = logging.getLogger("bids_cpmae")
MAPS = ("02", "06", "08", "10", "12", "17")
SCAN_MM = 2.0
WHITE = (2, 7, 41, 46)
FLUID = (4, 5, 14, 15, 24, 43, 44, 72)
DICE = ("brain", *TISSUES)
HEADER = (
    "method", "maps", "failures", *(f"dice_{name}_{end}" for name in DICE for end in ("median", "worst"))
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate truth``."""
    parser.add_argument(
        "labelmaps", type=Path, metavar="LABELMAPS_DIR", help="folder with head-NN_dseg.nii.gz and labels.tsv"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for truth.tsv, truth_maps.tsv and truth.json")
    parser.add_argument("--maps", nargs="+", default=MAPS, metavar="NN", help=f"default: {' '.join(MAPS)}")
    parser.add_argument(
        "--methods", nargs="+", default=["removed", "quickshear", "cpmae-face"], choices=METHODS, metavar="METHOD",
        help=f"of {' '.join(METHODS)} (default: removed quickshear cpmae-face)",
    )  # fmt: skip
    parser.add_argument("-w", "--work-dir", "--work_dir", type=Path, default=Path("work"), metavar="DIR")
    parser.add_argument("--nprocs", type=int, default=1, metavar="N", help="heads at a time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of contrasts, noise and faces (default: %(default)s)")


def tissue_labels(labels: np.ndarray, groups: dict[str, np.ndarray]) -> np.ndarray:
    """Labels as tissues: 0 none, 1 CSF, 2 grey matter, 3 white matter (uint8)."""
    tissues = np.where(np.isin(labels, groups["brain"]), 2, 0).astype(np.uint8)
    tissues[np.isin(labels, WHITE)] = 3
    tissues[np.isin(labels, FLUID)] = 1
    return tissues


def draw_scan(labels: np.ndarray, affine: np.ndarray, rng: np.random.Generator, path: Path) -> Path:
    """A scan of a label map at 2 mm, written to ``path`` unless it is there."""
    if not path.is_file():
        fine = scan_of_labels(labels, affine, rng)
        grid, shape = covering_grid(affine, labels.shape, SCAN_MM)
        values = np.rint(downsample(fine.get_fdata(dtype=np.float32), affine, grid, shape)).astype(np.int16)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"part_{path.name}")
        nib.save(nib.Nifti1Image(values, grid), partial)
        partial.replace(path)
    return path


def hold_against(made: Products, tissues: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Dice of the extracted brain and of each tissue with the truth; what failed is left out.

    Parameters
    ----------
    made : Products
    tissues : ndarray (X, Y, Z), uint8
        As `tissue_labels` gives them; the truth's brain is all of them together.
    affine : ndarray (4, 4)
        Of ``tissues``.
    """
    found: dict[str, float] = {}
    for name, result in (("brain", made.brain), ("tissues", made.tissues)):
        if result is None:
            continue
        points = apply_affine(made.affine, np.moveaxis(np.indices(result.shape), 0, -1))
        index = np.rint(apply_affine(np.linalg.inv(affine), points)).astype(int)
        index = np.clip(index, 0, np.array(tissues.shape) - 1)
        truth = tissues[tuple(np.moveaxis(index, -1, 0))]
        if name == "brain":
            found["brain"] = dice(result, truth > 0)
        else:
            found.update({tissue: dice(result == n, truth == n) for n, tissue in enumerate(TISSUES, 1)})
    return found


def _process_one(task: tuple[Path, Grid, Path, int]) -> Products:
    path, reference, folder, seed = task
    return process(path, reference, folder=folder, seed=seed)


def main(args: argparse.Namespace) -> int:
    """Draw, de-identify, process, compare; write the tables and print."""
    paths = {number: args.labelmaps / f"head-{number}_dseg.nii.gz" for number in args.maps}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise InputError(f"no label map {missing[0]} ({len(missing)} of {len(paths)} missing)", ExitCode.NO_INPUT)
    groups = label_groups(args.labelmaps / "labels.tsv")
    try:
        for folder in (args.out, args.work_dir):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"a folder cannot be made ({error})") from error
    truths, scans = {}, {}
    for number, path in paths.items():
        labels, affine = read_labels(path)
        person = f"sub-{number}"
        truths[person] = tissue_labels(labels, groups), affine
        rng = np.random.default_rng([args.seed, *number.encode()])
        place = args.work_dir / "truth" / f"seed-{args.seed}" / f"{person}_T1w.nii.gz"
        scans[person] = draw_scan(labels, affine, rng, place)
    made = make_all(args.methods, scans, args.work_dir, seed=args.seed, nprocs=args.nprocs)
    everything = [
        (method, person, path) for method, files in {ORIGINAL: scans, **made}.items() for person, path in files.items()
    ]
    tasks = [(path, load_template().grid, args.work_dir / "utility", args.seed) for *_, path in everything]
    results = []
    with ProcessPoolExecutor(max(1, args.nprocs), mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        for (method, person, _), products in zip(everything, pool.map(_process_one, tasks), strict=True):
            results.append((method, person, products.failures, hold_against(products, *truths[person])))
            LOG.info("truth: %d of %d scans processed", len(results), len(tasks))
    rows = rows_of(results)
    write_tsv(args.out / "truth.tsv", HEADER, rows)
    write_tsv(
        args.out / "truth_maps.tsv", ("method", "map", *(f"dice_{name}" for name in DICE), "failures"),
        [(method, person, *(f"{found[name]:.4f}" if name in found else None for name in DICE),
          "; ".join(failures) or None) for method, person, failures, found in results],
    )  # fmt: skip
    write_json(args.out / "truth.json", {
        "maps": list(args.maps), "methods": args.methods, "seed": args.seed, "scan_mm": SCAN_MM,
        "versions": versions("numpy", "scipy", "antspyx", "brainextractor", "quickshear"),
    })  # fmt: skip
    print_table(HEADER, rows)
    return ExitCode.OK


def rows_of(results: list[tuple]) -> list[tuple]:
    """The lines of a table of `HEADER`, a method each; failures are steps of all maps."""
    rows = []
    for method in dict.fromkeys(result[0] for result in results):
        mine = [result for result in results if result[0] == method]
        cells: list = []
        for name in DICE:
            values = [found[name] for *_, found in mine if name in found]
            cells += [f"{averages.median(values):.4f}", f"{min(values):.4f}"] if values else [None, None]
        rows.append((method, len(mine), sum(len(failures) for _, _, failures, _ in mine), *cells))
    return rows
