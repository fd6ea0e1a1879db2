"""``cpmae evaluate privacy``: is a de-identified head still recognised among the originals?

(1) By its face: every original is drawn from several sides (the gallery), everybody who is measured is drawn again from
each version, in other poses and another light (the probes), and a face recogniser sorts the gallery by likeness. The
same people's originals as probes show how well it does when nothing was done to the face. Where no face is found, the
place where faces lie in such pictures is described all the same, as somebody bent on knowing would.
(2) By its skin: distance from the old to the new skin, and the gallery sorted by distance between surfaces.

Both are only as good as the attack: a low rate is no proof that nobody can be recognised.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import statistics as averages
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bids_cpmae.errors import ExitCode, InputError
from bids_cpmae.evaluation import recognition
from bids_cpmae.evaluation.album import Album, draw_all
from bids_cpmae.evaluation.datasets import Comparison, add_comparison_arguments, open_comparison
from bids_cpmae.evaluation.ranking import Outcome
from bids_cpmae.evaluation.statistics import auc_interval, wilson_interval
from bids_cpmae.evaluation.survey import SKIN_HEADER, skin_cells, skin_rows, survey
from bids_cpmae.evaluation.tables import print_table, versions, write_json, write_tsv
from bids_cpmae.imaging.rendering import View
from bids_cpmae.imaging.skin import REGIONS

LOG = logging.getLogger("bids_cpmae")
GALLERY_VIEWS = (View(), View(yaw=-14.0), View(yaw=14.0))
PROBE_VIEWS = (
    View(yaw=7.0, pitch=4.0, light=(-0.4, 0.3, 1.0)),
    View(yaw=-7.0, pitch=-4.0, light=(0.5, 0.3, 1.0)),
    View(pitch=6.0, light=(-0.3, 0.6, 0.8)),
)
HEADER = (
    "method", "people", "gallery", "faces_found", "rank_1", "rank_1_low", "rank_1_high", "rank_5", "median_rank",
    "auc", "auc_low", "auc_high",
)  # fmt: skip
PEOPLE_HEADER = (
    "method", "participant_id", "faces_found", "face_rank", "face_distance", "skin_rank", "skin_distance_mm", "face_mm",
    *(f"{name}_mm" for name in REGIONS),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate privacy``."""
    add_comparison_arguments(parser)


@dataclass(frozen=True)
class Faces:
    """Pictures of one head, described: ``found`` (pictures,) bool, ``vectors`` (pictures, 128)."""

    found: np.ndarray
    vectors: np.ndarray


@dataclass
class Recogniser:
    """Describes heads by the faces in their pictures, and remembers what it found.

    Attributes
    ----------
    album : Album
    usual : tuple of int, optional
        The box in which faces lie when none is found; learned from the gallery.
    """

    album: Album
    usual: tuple[int, int, int, int] | None = None

    def learn_place(self, scans: dict[str, Path]) -> None:
        """Take the median of the boxes found in the gallery for the place where faces lie.

        Raises
        ------
        InputError
            When no face is found in any picture.
        """
        images = (image for path in scans.values() for image in self.album(path, GALLERY_VIEWS))
        boxes = [box for image in images if (box := self._box(image))]
        if not boxes:
            raise InputError("no face is found in any of the originals; are they whole heads?", ExitCode.DATA)
        self.usual = tuple(int(value) for value in np.median(boxes, axis=0))

    def __call__(self, path: Path, views: Sequence[View]) -> Faces:
        """Describe a scan."""
        images = self.album(path, views)
        boxes = [self._box(image) for image in images]
        vectors = [self._vector(image, box or self.usual) for image, box in zip(images, boxes, strict=True)]
        return Faces(np.array([box is not None for box in boxes]), np.stack(vectors))

    def _box(self, image: np.ndarray) -> tuple[int, int, int, int] | None:
        found = self._kept(image, "box", lambda: np.array(recognition.find_face(image) or (), int))
        return tuple(int(value) for value in found) if found.size else None

    def _vector(self, image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
        return self._kept(image, "_".join(map(str, box)), lambda: recognition.embed(image, box))

    def _kept(self, image: np.ndarray, what: str, make) -> np.ndarray:
        name = hashlib.sha256(image.tobytes() + what.encode() + _networks().encode()).hexdigest()[:32]
        place = self.album.work / "recognition" / f"{name}.npy"
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_suffix(".part.npy")
            np.save(partial, make())
            partial.replace(place)
        return np.load(place)


@lru_cache(maxsize=1)
def _networks() -> str:
    """Changes with the recogniser and its networks."""
    parts = [Path(recognition.__file__), *recognition.model_files()]
    return hashlib.sha256(b"".join(hashlib.sha256(part.read_bytes()).digest() for part in parts)).hexdigest()


def recognise(comparison: Comparison, recogniser) -> list[Outcome]:
    """Rank everybody measured, in every version, in the gallery of all originals.

    Parameters
    ----------
    comparison : Comparison
    recogniser : callable
        From path and views to `Faces`.

    Raises
    ------
    InputError
        When no face is found in the original of a person who is to be measured.
    """
    gallery = {person: recogniser(path, GALLERY_VIEWS) for person, path in comparison.originals.items()}
    faceless = [person for person in comparison.people if not gallery[person].found.any()]
    if faceless:
        raise InputError(
            f"no face is found in the original of {' '.join(faceless)}; leave them out of the split", ExitCode.DATA
        )
    outcomes = []
    for method, scans in comparison.methods.items():
        outcome = Outcome(method, len(gallery))
        for person, path in scans.items():
            probe = recogniser(path, PROBE_VIEWS)
            outcome.found[person] = float(probe.found.mean())
            outcome.distances[person] = {
                other: recognition.likeness(probe.vectors, faces.vectors) for other, faces in gallery.items()
            }
        LOG.info("recogniser: %s done", method)
        outcomes.append(outcome)
    return outcomes


def rows_of(outcomes: list[Outcome], seed: int) -> list[tuple]:
    """The lines of a table of `HEADER`, a version each; intervals are 95 %, Wilson's or by bootstrap over people."""
    rows = []
    for outcome in outcomes:
        ranks = list(outcome.ranks.values())
        first, n = sum(rank == 1 for rank in ranks), len(ranks)
        rows.append((
            outcome.method, n, outcome.gallery, f"{np.mean(list(outcome.found.values())):.3f}", f"{first}/{n}",
            *(f"{end:.3f}" for end in wilson_interval(first, n)),
            f"{sum(rank <= 5 for rank in ranks)}/{n}", f"{averages.median(ranks):g}",
            *(f"{value:.3f}" for value in auc_interval(outcome.verification(), seed=seed)),
        ))  # fmt: skip
    return rows


def main(args: argparse.Namespace) -> int:
    """Measure, write privacy.tsv, privacy_people.tsv, privacy.json and privacy.html, and print."""
    from bids_cpmae.evaluation.page import Section, Table, write_page
    from bids_cpmae.evaluation.plots import bars, match_curves, region_map

    recognition.model_files()  # complain of a missing package before an hour of drawing
    comparison = open_comparison(args)
    album = Album(comparison.work)
    draw_all(album, comparison.originals, GALLERY_VIEWS, nprocs=args.nprocs, what="gallery")
    for method, scans in comparison.methods.items():
        draw_all(album, scans, PROBE_VIEWS, nprocs=args.nprocs, what=method)
    recogniser = Recogniser(album)
    recogniser.learn_place(comparison.originals)
    outcomes = recognise(comparison, recogniser)
    rows = rows_of(outcomes, comparison.seed)
    by_skin, by_head, changes = survey(comparison, nprocs=args.nprocs)
    shape_rows = skin_rows(by_skin, by_head, changes, comparison.seed)
    people_rows = [
        (
            outcome.method, person, f"{outcome.found[person]:.3f}", rank, f"{outcome.distances[person][person]:.4f}",
            *skin_cells(by_skin, changes, outcome.method, person),
        )
        for outcome in outcomes
        for person, rank in outcome.ranks.items()
    ]  # fmt: skip
    settings = {
        "originals": args.originals.name, "split": args.participants_split, "people": comparison.people,
        "gallery_people": len(comparison.originals), "methods": list(comparison.methods), "seed": comparison.seed,
        "gallery_views": [view.as_dict() for view in GALLERY_VIEWS],
        "probe_views": [view.as_dict() for view in PROBE_VIEWS], "detector_upsample": recognition.UPSAMPLE,
        "usual_box": recogniser.usual, "versions": versions("numpy", "scipy", "dlib-bin"),
    }  # fmt: skip
    write_tsv(comparison.out / "privacy.tsv", HEADER, rows)
    write_tsv(comparison.out / "privacy_skin.tsv", SKIN_HEADER, shape_rows)
    write_tsv(comparison.out / "privacy_people.tsv", PEOPLE_HEADER, people_rows)
    write_json(comparison.out / "privacy.json", settings)
    names = [outcome.method for outcome in outcomes]
    areas = [[float(cell) for cell in row[-3:]] for row in rows]
    by_face = Section(
        "Face recognition", __doc__.partition("\n\n")[2], [Table("By method", HEADER, rows)],
        [
            match_curves({outcome.method: list(outcome.ranks.values()) for outcome in outcomes}, outcomes[0].gallery),
            bars(
                names, [area[0] for area in areas], [(area[1], area[2]) for area in areas], chance=0.5,
                xlabel="AUC of verification, own against other people",
            ),
        ],
    )  # fmt: skip
    by_shape = Section(
        "Skin",
        "Mean distance in mm between the original's skin and the version's where the face mask lies, and the gallery "
        "sorted by distance between surfaces that were aligned by the brain: of the skin that face mode replaces, and "
        "(head_) of all that is seen, most of which no method touches.",
        [Table("By method", SKIN_HEADER, shape_rows)],
        [
            bars(
                [row[0] for row in shape_rows], [float(row[10]) for row in shape_rows],
                [(float(row[11]), float(row[12])) for row in shape_rows],
                xlabel="mean distance from old to new skin, mm",
            ),
            region_map({row[0]: row[13:] for row in shape_rows}, REGIONS),
        ] if shape_rows else [],
    )  # fmt: skip
    write_page(
        comparison.out / "privacy.html", "Privacy: is anybody recognised?", [by_face, by_shape], settings=settings
    )
    print_table(HEADER, rows)
    print()
    print_table(SKIN_HEADER, shape_rows)
    return ExitCode.OK
