"""``cpmae evaluate utility``: does a de-identified scan still serve as the original would?

What a lab does next (`bids_cpmae.evaluation.pipelines`) is run whole on the original and on each version of it, brain
extraction included, and the results are held against each other. Brains are extracted as `bet -R` does, from the
brain's own centre; `plain_brain` is what is found from the centre of the whole head, which any change of a face moves.
"""

from __future__ import annotations

import argparse
import logging
import statistics as averages
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bids_cpmae.errors import ExitCode, InputError
from bids_cpmae.evaluation.datasets import ORIGINAL, Comparison, add_comparison_arguments, open_comparison
from bids_cpmae.evaluation.pipelines import MAP_MM, STEPS, TISSUES, Products, process
from bids_cpmae.evaluation.plots import points
from bids_cpmae.evaluation.statistics import bootstrap_interval
from bids_cpmae.evaluation.tables import print_table, versions, write_json, write_tsv
from bids_cpmae.imaging.headspace import apply_affine, covering_grid
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.registration import Grid
from bids_cpmae.imaging.resample import resample
from bids_cpmae.processes import one_thread

LOG = logging.getLogger("bids_cpmae")
QUALITY = ("snr_total", "cjv", "cnr", "efc", "fber", "wm2max")
VOLUMES = ("tiv_ml", *(f"{name}_ml" for name in TISSUES))
DICE = ("dice_brain", "dice_plain_brain", *(f"dice_{name}" for name in TISSUES), "dice_tissues")
MEASURES = (
    *DICE, *(f"{name}_percent" for name in VOLUMES), "affine_mm", "deformable_mm",
    *(f"{name}_percent" for name in QUALITY), "brain_changed",
)  # fmt: skip
SUMMARIES = ("dice_brain", "dice_plain_brain", "dice_tissues")
HEADER = (
    "method", "people", "failures",
    *(f"{name}_{end}" for name in SUMMARIES for end in ("median", "low", "high", "worst")),
    *(f"{name}_percent" for name in VOLUMES), "affine_mm", "deformable_mm", *(f"{name}_percent" for name in QUALITY),
    "brain_changed_most",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate utility``."""
    add_comparison_arguments(parser)
    parser.add_argument(
        "--reference", type=Path, metavar="FILE",
        help="template that heads are normalised to, e.g. MNI152NLin2009cAsym_T1w.nii.gz (default: this project's own)",
    )  # fmt: skip
    parser.add_argument(
        "--bet-iterations", "--bet_iterations", type=int, default=1000, metavar="N", help="default: %(default)s"
    )


def load_reference(path: Path | None) -> Grid:
    """The normalisation's target, on an axis-aligned RAS+ grid.

    Raises
    ------
    InputError
        When there is no such file.
    """
    if path is None:
        from bids_cpmae.imaging.template import load_template

        return load_template().grid
    if not path.is_file():
        raise InputError(f"{path}: no such file; --reference wants a T1w template", ExitCode.NO_INPUT)
    source = load_source(path)
    affine, shape = covering_grid(source.affine, source.shape3, 2.0)
    return Grid(resample(source.data, source.affine, affine, shape), affine)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks; 1 when both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def compare(original: Products, version: Products, inside: np.ndarray) -> dict[str, float]:
    """What of a version's products differs from the original's; measures of steps that failed in either are left out.

    Parameters
    ----------
    original, version : Products
        Of scans on one grid.
    inside : ndarray (X, Y, Z), bool
        On the 4 mm grid of the reference, True where the original has its brain.

    Returns
    -------
    dict of str to float
        Dice by `DICE`; differences of volumes and of image-quality measures in percent of the original's, with their
        sign; median distance in mm between both transforms inside the brain.
    """
    found: dict[str, float] = {}
    for name in ("brain", "plain_brain"):
        pair = [getattr(made, name) for made in (original, version)]
        if all(brain is not None for brain in pair):
            found[f"dice_{name}"] = dice(*pair)
    if original.tissues is not None and version.tissues is not None:
        for number, name in enumerate(TISSUES, 1):
            found[f"dice_{name}"] = dice(original.tissues == number, version.tissues == number)
        found["dice_tissues"] = float(np.mean([found[f"dice_{name}"] for name in TISSUES]))
    for name in (*VOLUMES, *QUALITY):
        if name in original.numbers and name in version.numbers:
            found[f"{name}_percent"] = 100 * (version.numbers[name] / original.numbers[name] - 1)
    for name in ("affine", "deformable"):
        pair = [getattr(made, f"{name}_points") for made in (original, version)]
        if all(points is not None for points in pair):
            found[f"{name}_mm"] = float(np.median(np.linalg.norm(pair[1] - pair[0], axis=-1)[inside]))
    return found


def brain_in_reference(points: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Which points of the reference's 4 mm grid lie in the brain of a scan; all of ``points`` where none does.

    Parameters
    ----------
    points : ndarray (X, Y, Z, 3)
        Where they lie in the scan, RAS+ mm.
    brain : ndarray (I, J, K), bool
        On the scan's grid.
    affine : ndarray (4, 4)
        Of that grid.
    """
    index = np.rint(apply_affine(np.linalg.inv(affine), points)).astype(int)
    within = ((index >= 0) & (index < brain.shape)).all(-1)
    inside = np.zeros(points.shape[:3], bool)
    inside[within] = brain[tuple(index[within].T)]
    return inside if inside.any() else np.ones_like(inside)


def _process_one(task: tuple) -> None:
    path, reference, folder, settings = task
    process(path, reference, folder=folder, **settings)


def measure(comparison: Comparison, reference: Grid, *, nprocs: int = 1, iterations: int = 1000) -> list[tuple]:
    """Run everything on everybody and compare.

    Returns
    -------
    list of (method, person, failures, measures)
        The originals first, with their failures alone.
    """
    folder = comparison.work / "utility"
    settings = {"seed": comparison.seed, "iterations": iterations}
    tasks = [
        (scans[person], reference, folder, settings)
        for person in comparison.people
        for scans in comparison.methods.values()
    ]
    with ProcessPoolExecutor(max(1, nprocs), mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        for number, _ in enumerate(pool.map(_process_one, tasks), 1):
            LOG.info("utility: %d of %d scans processed", number, len(tasks))
    results = []
    for person in comparison.people:
        path = comparison.methods[ORIGINAL][person]
        own, source = process(path, reference, folder=folder, **settings), load_source(path)
        brain, points = comparison.brain(person), own.deformable_points
        inside = None if points is None else brain_in_reference(points, brain, source.affine)
        for method, scans in comparison.methods.items():
            made = process(scans[person], reference, folder=folder, **settings)
            found = compare(own, made, inside) if method != ORIGINAL else {}
            if method != ORIGINAL:
                other = load_source(scans[person])
                if other.shape3 != source.shape3:
                    raise InputError(f"{scans[person]}: not on the grid of {path.name}", ExitCode.DATA)
                found["brain_changed"] = float((other.data != source.data)[brain].mean())
            results.append((method, person, made.failures, found))
    order = list(comparison.methods)
    return sorted(results, key=lambda result: order.index(result[0]))


def rows_of(results: list[tuple], seed: int) -> list[tuple]:
    """The lines of a table of `HEADER`, a version each.

    Failures are steps that failed, over all people and steps. Dice has its median with a 95 % interval by bootstrap
    over people, and its worst; differences are medians of absolute values.
    """
    rows = []
    for method in dict.fromkeys(result[0] for result in results):
        mine = [result for result in results if result[0] == method]
        failed = sum(len(failures) for _, _, failures, _ in mine)
        cells: list = []
        for name in SUMMARIES:
            values = [found[name] for *_, found in mine if name in found]
            cells += [None] * 4 if not values else [
                f"{averages.median(values):.4f}",
                *(f"{end:.4f}" for end in bootstrap_interval(values, statistic=np.median, seed=seed)),
                f"{min(values):.4f}",
            ]  # fmt: skip
        for name in HEADER[3 + len(cells) : -1]:
            values = [abs(found[name]) for *_, found in mine if name in found]
            cells.append(f"{averages.median(values):.3f}" if values else None)
        changed = [found["brain_changed"] for *_, found in mine if "brain_changed" in found]
        cells.append(f"{max(changed):.6f}" if changed else None)
        rows.append((method, len(mine), f"{failed}/{len(mine) * len(STEPS)}", *cells))
    return rows


def main(args: argparse.Namespace) -> int:
    """Measure, write utility.tsv, utility_people.tsv, utility.json and utility.html, and print."""
    from bids_cpmae.evaluation.page import Section, Table, write_page

    reference = load_reference(args.reference)
    comparison = open_comparison(args)
    results = measure(comparison, reference, nprocs=args.nprocs, iterations=args.bet_iterations)
    rows = rows_of(results, comparison.seed)
    header = ("method", "participant_id", *MEASURES, "failures")
    people_rows = [
        (method, person, *(f"{found[name]:.5f}" if name in found else None for name in MEASURES),
         "; ".join(f"{step}: {reason}" for step, reason in failures.items()) or None)
        for method, person, failures, found in results
    ]  # fmt: skip
    settings = {
        "originals": args.originals.name, "split": args.participants_split, "people": comparison.people,
        "methods": list(comparison.methods), "seed": comparison.seed, "bet_iterations": args.bet_iterations,
        "reference": args.reference.name if args.reference else "template of bids_cpmae", "map_mm": MAP_MM,
        "versions": versions("numpy", "scipy", "antspyx", "brainextractor", "quickshear"),
    }  # fmt: skip
    write_tsv(comparison.out / "utility.tsv", HEADER, rows)
    write_tsv(comparison.out / "utility_people.tsv", header, people_rows)
    write_json(comparison.out / "utility.json", settings)
    shown, figures = [row for row in rows if row[3] is not None], []
    for name, label in (("dice_brain", "Dice of the extracted brain, median over people"),
                        ("dice_tissues", "Dice of tissues, median")):  # fmt: skip
        at = HEADER.index(f"{name}_median")
        if shown and all(row[at] is not None for row in shown):
            values, *ends = ([float(row[at + n]) for row in shown] for n in range(3))
            figures.append(points([row[0] for row in shown], values, list(zip(*ends, strict=True)), xlabel=label))
    tables = [Table("By method", HEADER, rows)]
    section = Section("Held against the original", __doc__.partition("\n\n")[2], tables, figures)
    write_page(comparison.out / "utility.html", "Utility: does it still serve?", [section], settings=settings)
    print_table(HEADER, rows)
    return ExitCode.OK
