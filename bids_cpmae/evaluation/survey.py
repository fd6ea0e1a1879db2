"""Everybody's skin measured: how far it moved in each version, and whether its shape gives its owner away."""

from __future__ import annotations

import hashlib
import logging
import statistics as averages
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_cpmae.errors import ExitCode, InputError, ScanError
from bids_cpmae.evaluation.datasets import ORIGINAL, Comparison
from bids_cpmae.evaluation.ranking import Outcome
from bids_cpmae.evaluation.statistics import auc_interval, bootstrap_interval
from bids_cpmae.evaluation.surface import (
    by_region,
    depth_distance,
    depth_maps,
    face_pixels,
    rigid_on_brain,
    skin_distances,
)
from bids_cpmae.imaging.facemask import coarse_scan
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, covering_grid
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.registration import Fixed, register, scratch_folder
from bids_cpmae.imaging.rendering import Surface, head_surface
from bids_cpmae.imaging.skin import REGIONS, region_of
from bids_cpmae.imaging.template import load_template
from bids_cpmae.processes import one_thread

LOG = logging.getLogger("bids_cpmae")
MAP_MM = 8.0
VERSION = 2
Changes = dict[tuple[str, str], dict[str, float]]
SKIN_HEADER = (
    "method", "people", "gallery", "rank_1", "median_rank", "auc", "auc_low", "auc_high", "head_rank_1",
    "head_median_rank", "face_mm", "face_low", "face_high", *(f"{name}_mm" for name in REGIONS),
)  # fmt: skip


@dataclass(frozen=True)
class Surveyor:
    """Measures surfaces of scans and remembers what costs.

    Attributes
    ----------
    work : Path
        Its folder ``surface`` holds faces.
    """

    work: Path

    def change(self, original: Path, version: Path, mask: np.ndarray) -> dict[str, float]:
        """Mean distance in mm between an original's skin and a version's, by region, where ``mask`` lies.

        Parameters
        ----------
        mask : ndarray (X, Y, Z), bool
            On the original's grid, True = face.

        Raises
        ------
        InputError
            When the scans are not on one grid, or hold no head.
        """
        place = self._place("change", original, version, extra=np.packbits(mask).tobytes() + bytes([VERSION]))
        if place.is_file():
            with np.load(place) as stored:
                return {name: float(stored[name]) for name in stored.files}
        source, other = load_source(original), load_source(version)
        if other.shape3 != source.shape3 or not np.allclose(other.affine, source.affine, atol=1e-3):
            raise InputError(f"{version}: not on the grid of {original.name}", ExitCode.DATA)
        surfaces = [_surface(path) for path in (original, version)]
        grid = surfaces[0].affine
        to_mask = np.linalg.inv(source.affine) @ grid
        where = ndimage.affine_transform(
            ndimage.binary_dilation(mask).astype(np.float32), to_mask, output_shape=surfaces[0].field.shape, order=0
        )  # fmt: skip
        index, distances = skin_distances(*surfaces, where > 0.5)
        if not index.size:
            raise InputError(f"{original}: there is no skin where the face is", ExitCode.DATA)
        found = by_region(distances, region_of(self._to_head(original)(apply_affine(grid, index))))
        _keep(place, found)
        return found

    def _to_head(self, path: Path):
        """From an original's world to head space, by the registration that locates faces."""
        place = self._place("to_head", path)
        if not place.is_file():
            source = load_source(path)
            scan = coarse_scan(source.data, source.affine)
            with scratch_folder() as folder:
                found = register(Fixed.of(load_template().grid), scan, folder=Path(folder))
                made = found.moving_to_fixed(*covering_grid(scan.affine, scan.data.shape, MAP_MM, pad=MAP_MM))
            _keep(place, {"affine": made.affine, "points": made.points})
        with np.load(place) as stored:
            return CoordinateMap(stored["affine"], stored["points"])

    def depth(self, path: Path, *, scaled: bool = False) -> np.ndarray:
        """Depth of the skin seen from the right, the front and the left, the head brought to one frame by its brain.

        With ``scaled`` to one size as well, in mm of the template.

        Returns
        -------
        ndarray (3, U, V), float32
            In mm from the box's face; NaN where nothing is met.
        """
        place = self._place("scaled" if scaled else "depth", path)
        if not place.is_file():
            source = load_source(path)
            to_scan = rigid_on_brain(source.data, source.affine, scaled=scaled)
            _keep(place, {"depth": depth_maps(_surface(path), to_scan)})
        with np.load(place) as stored:
            return stored["depth"]

    def _place(self, kind: str, *paths: Path, extra: bytes = b"1") -> Path:
        said = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths) + extra
        return self.work / "surface" / f"{kind}_{hashlib.sha256(said).hexdigest()[:32]}.npz"


@lru_cache(maxsize=2)
def _surface(path: Path) -> Surface:
    source = load_source(path)
    try:
        return head_surface(source.data, source.affine)
    except ScanError as error:
        raise InputError(f"{path}: {error}", ExitCode.DATA) from error


def _keep(place: Path, arrays: Mapping) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".part.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(place)


def _survey_person(task: tuple[Surveyor, Path, list[Path], np.ndarray]) -> list[dict[str, float]]:
    surveyor, original, scans, mask = task
    surveyor.depth(original)
    found = []
    for path in scans:
        found.append(surveyor.change(original, path, mask))
        surveyor.depth(path)
    return found


def _measure_depth(task: tuple[Surveyor, Path]) -> None:
    surveyor, path = task
    surveyor.depth(path)


def measure_depths(surveyor: Surveyor, scans: list[Path], *, nprocs: int = 1) -> None:
    """Measure the depth of many skins beforehand, several at a time."""
    with ProcessPoolExecutor(max(1, nprocs), mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        for number, _ in enumerate(pool.map(_measure_depth, [(surveyor, path) for path in scans]), 1):
            if number % 10 == 0 or number == len(scans):
                LOG.info("skin: depth of %d of %d heads measured", number, len(scans))


def survey(comparison: Comparison, *, nprocs: int = 1) -> tuple[list[Outcome], list[Outcome], Changes]:
    """Rank everybody in every version by the shape of the skin alone, and measure how far it moved.

    Returns
    -------
    by_face, by_head : list of Outcome
        Distances in mm between depth maps, of the skin that face mode replaces, and of all that is seen.
    changes : dict of (method, person) to dict of str to float
        Mean distance from the original's skin to the version's, in mm, of the ``face`` and by region.
    """
    surveyor = Surveyor(comparison.work)
    others = {method: scans for method, scans in comparison.methods.items() if method != ORIGINAL}
    tasks = [
        (surveyor, comparison.originals[person], [scans[person] for scans in others.values()], comparison.face(person))
        for person in comparison.people
    ]
    strangers = [path for person, path in comparison.originals.items() if person not in comparison.people]
    changes: Changes = {}
    with ProcessPoolExecutor(max(1, nprocs), mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        for person, found in zip(comparison.people, pool.map(_survey_person, tasks), strict=True):
            changes.update({(method, person): change for method, change in zip(others, found, strict=True)})
            LOG.info("skin: %s measured in %d versions", person, len(found))
    measure_depths(surveyor, strangers, nprocs=nprocs)
    gallery = {person: surveyor.depth(path) for person, path in comparison.originals.items()}
    ranked: list[list[Outcome]] = []
    for where in (face_pixels(), None):
        ranked.append([Outcome(method, len(gallery)) for method in others])
        for outcome in ranked[-1]:
            for person, path in others[outcome.method].items():
                probe = surveyor.depth(path)
                outcome.distances[person] = {
                    other: depth_distance(probe, depth, where) for other, depth in gallery.items()
                }
    return ranked[0], ranked[1], changes


def skin_rows(by_face: list[Outcome], by_head: list[Outcome], changes: Changes, seed: int) -> list[tuple]:
    """The lines of a table of `SKIN_HEADER`, a version each; the original itself would be found at distance 0."""
    rows = []
    for outcome, whole in zip(by_face, by_head, strict=True):
        ranks, mine = list(outcome.ranks.values()), [changes[outcome.method, person] for person in outcome.distances]
        seen = list(whole.ranks.values())
        face = [change["face"] for change in mine]
        regions = [[change[name] for change in mine if name in change] for name in REGIONS]
        rows.append((
            outcome.method, len(ranks), outcome.gallery, f"{sum(rank == 1 for rank in ranks)}/{len(ranks)}",
            f"{averages.median(ranks):g}", *(f"{v:.3f}" for v in auc_interval(outcome.verification(), seed=seed)),
            f"{sum(rank == 1 for rank in seen)}/{len(seen)}", f"{averages.median(seen):g}",
            f"{np.mean(face):.2f}", *(f"{end:.2f}" for end in bootstrap_interval(face, seed=seed)),
            *(f"{np.mean(values):.2f}" if values else None for values in regions),
        ))  # fmt: skip
    return rows


def skin_cells(by_skin: list[Outcome], changes: Changes, method: str, person: str) -> tuple:
    """Cells of a table of people; nothing for the original."""
    for outcome in by_skin:
        if outcome.method == method:
            moved = [changes[method, person].get(name) for name in ("face", *REGIONS)]
            own = outcome.distances[person][person]
            return (outcome.rank(person), f"{own:.3f}", *(None if mm is None else f"{mm:.3f}" for mm in moved))
    return (None,) * (3 + len(REGIONS))
