"""``cpmae evaluate privacy``: is a refaced head still recognised among the originals?

Every original is drawn once from the front (the gallery). Every person of a split is then drawn again from a
derivative, in another pose and another light (the probe), and the gallery is sorted by likeness to it. The same
people's originals as probes show how well this recognition does when nothing was done to the face. The measure is
only as good as the recogniser: a low rate is no proof that nobody can be recognised.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import logging
import statistics
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from bids_cpmae import __version__
from bids_cpmae.errors import ExitCode, InputError, OutputError, ScanError
from bids_cpmae.evaluation import recognition, rendering
from bids_cpmae.evaluation.rendering import View
from bids_cpmae.evaluation.tables import print_table, write_tsv

LOG = logging.getLogger("bids_cpmae")
GALLERY_VIEW = View()
PROBE_VIEW = View(yaw=12.0, pitch=4.0, light=(-0.4, 0.3, 1.0))
ORIGINAL = "original"
HEADER = (
    "method", "people", "gallery", "faces_found", "rank_1", "rank_5", "median_rank", "chance_rank_1", "chance_rank_5",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate privacy``."""
    parser.add_argument(
        "originals", type=Path, metavar="ORIGINALS_BIDS", help="BIDS dataset of the originals"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for privacy.tsv and privacy.json")
    parser.add_argument(
        "--derivatives", action="append", required=True, metavar="NAME=PATH", type=_named_path,
        help="a dataset of refaced scans and what to call it; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--participants-split", metavar="SPLIT",
        help="probe only people with this value in the column `split` of participants.tsv (default: everybody)",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep embeddings here for the next time")


def _named_path(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not (name and sign and path) or name == ORIGINAL:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=PATH, with a name other than {ORIGINAL!r}")
    return name, Path(path)


def find_originals(dataset: Path) -> dict[str, list[Path]]:
    """T1w scans of a raw dataset by participant (``sub-X``).

    Raises
    ------
    InputError
        When there are none.
    """
    found = _by_person(dataset, "_T1w.nii*")
    if not found:
        raise InputError(f"{dataset}: no T1w scans of originals in it", ExitCode.NO_INPUT)
    return found


def find_refaced(name: str, dataset: Path, people: list[str], known: set[str]) -> dict[str, list[Path]]:
    """Refaced T1w scans of exactly the people asked for, out of those ``known`` to have an original.

    Raises
    ------
    InputError
        When the dataset is missing, lacks one of the people, or holds somebody who has no original.
    """
    found = _by_person(dataset, "_desc-refaced_T1w.nii*")
    strangers = sorted(set(found) - known)
    if strangers:
        raise InputError(f"{name} ({dataset}): no original T1w of {' '.join(strangers[:5])}", ExitCode.DATA)
    missing = [person for person in people if person not in found]
    if missing:
        raise InputError(
            f"{name} ({dataset}): no *_desc-refaced_T1w.nii.gz for {len(missing)} of {len(people)} people: "
            f"{' '.join(missing[:5])}; reface them first or choose another split",
            ExitCode.NO_INPUT,
        )
    return {person: found[person] for person in people}


def _by_person(dataset: Path, ending: str) -> dict[str, list[Path]]:
    if not dataset.is_dir():
        raise InputError(f"{dataset}: no such folder", ExitCode.NO_INPUT)
    found = {}
    for folder in sorted(dataset.glob("sub-*")):
        files = [
            p for p in sorted(folder.rglob(f"{folder.name}*{ending}")) if p.name.endswith((".nii", ".nii.gz"))
        ]
        if files:
            found[folder.name] = files
    return found


def people_of_split(dataset: Path, split: str) -> list[str]:
    """Participants whose column ``split`` has a value.

    Raises
    ------
    InputError
        When there is no such table or column, or nobody in the split.
    """
    table = dataset / "participants.tsv"
    if not table.is_file():
        raise InputError(f"{table}: no such file; --participants-split needs it", ExitCode.NO_INPUT)
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or "split" not in rows[0]:
        raise InputError(f"{table}: no column `split`", ExitCode.DATA)
    people = sorted(row["participant_id"] for row in rows if row["split"] == split)
    if not people:
        known = ", ".join(sorted({row["split"] for row in rows}))
        raise InputError(f"{table}: nobody is in split {split!r}; there are {known}", ExitCode.DATA)
    return people


@lru_cache(maxsize=1)
def _method_digest() -> str:
    """Changes with the code that draws and recognises, and with the networks, so that no stale cache is read."""
    parts = [Path(module.__file__) for module in (rendering, recognition)] + list(recognition.model_files())
    return hashlib.sha256(b"".join(hashlib.sha256(part.read_bytes()).digest() for part in parts)).hexdigest()


@dataclass(frozen=True)
class Embedder:
    """Embeds scans and remembers them.

    Attributes
    ----------
    cache : Path, optional
        Folder of ``.npz`` files named by the SHA-256 of the scan and of the settings.
    """

    cache: Path | None = None

    def __call__(self, path: Path, view: View) -> np.ndarray | None:
        """The embedding (128,) of a scan drawn in a view, or None when no face is found in it."""
        stored = self._place(path, view)
        if stored and stored.is_file():
            found = np.load(stored)["embedding"]
            return found if found.size else None
        from bids_cpmae.imaging.nifti import load_source

        try:
            source = load_source(path)
            found = recognition.embed(
                rendering.render(rendering.head_surface(source.data, source.affine), view)
            )
        except ScanError as error:
            raise InputError(f"{path}: {error}", ExitCode.DATA) from error
        if stored:
            partial = stored.with_name(stored.name + ".part.npz")
            np.savez(partial, embedding=np.zeros(0) if found is None else found)
            partial.replace(stored)
        return found

    def _place(self, path: Path, view: View) -> Path | None:
        if self.cache is None:
            return None
        settings = hashlib.sha256(json.dumps([view.as_dict(), _method_digest()]).encode()).hexdigest()
        return self.cache / f"{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}_{settings[:16]}.npz"


@dataclass
class Outcome:
    """What recognition made of one method's probes.

    Attributes
    ----------
    ranks : dict of str to int or None
        Each person's best rank over all their scans; None where no face was found.
    """

    method: str
    gallery: int
    ranks: dict[str, int | None] = field(default_factory=dict)

    def row(self) -> tuple:
        """The line of the table; rates count the people in whose probe a face was found."""
        ranks = [rank for rank in self.ranks.values() if rank is not None]
        n = len(ranks)
        return (
            self.method, len(self.ranks), self.gallery, f"{n}/{len(self.ranks)}",
            f"{sum(r <= 1 for r in ranks)}/{n}" if n else None, f"{sum(r <= 5 for r in ranks)}/{n}" if n else None,
            f"{statistics.median(ranks):g}" if n else None,
            f"{1 / self.gallery:.4f}", f"{min(1, 5 / self.gallery):.4f}",
        )  # fmt: skip


def _embed_all(embedder, scans: dict[str, list[Path]], view: View, what: str) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for number, (person, paths) in enumerate(scans.items(), 1):
        found[person] = [one for path in paths if (one := embedder(path, view)) is not None]
        LOG.info(
            "%s: %d of %d people, %s",
            what,
            number,
            len(scans),
            "face found" if found[person] else "no face found",
        )
    return found


def measure(originals, derivatives, people, embedder) -> tuple[list[Outcome], dict[str, list[np.ndarray]]]:
    """Rank every probe in the gallery of all originals.

    Parameters
    ----------
    originals : dict of str to list of Path
    derivatives : dict of str to dict of str to list of Path
        By method, then by person.
    people : list of str
        Who is probed.
    embedder : callable
        From path and `View` to an embedding or None.

    Raises
    ------
    InputError
        When a person to be probed has no face in the gallery: no rank could be given.
    """
    gallery = _embed_all(embedder, originals, GALLERY_VIEW, "gallery")
    faceless = [person for person in people if not gallery[person]]
    if faceless:
        raise InputError(
            f"no face is found in the original of {' '.join(faceless)}; leave them out of the split",
            ExitCode.DATA,
        )
    size = sum(bool(many) for many in gallery.values())
    outcomes = []
    for name, scans in {ORIGINAL: {person: originals[person] for person in people}, **derivatives}.items():
        outcome = Outcome(name, size)
        for person, probes in _embed_all(embedder, scans, PROBE_VIEW, name).items():
            ranks = [recognition.rank_of_own(probe, gallery, person) for probe in probes]
            outcome.ranks[person] = min(ranks, default=None)
        outcomes.append(outcome)
    return outcomes, gallery


def main(args: argparse.Namespace) -> int:
    """Measure, write and print."""
    originals = find_originals(args.originals)
    people = (
        people_of_split(args.originals, args.participants_split)
        if args.participants_split
        else list(originals)
    )
    unpaired = [person for person in people if person not in originals]
    if unpaired:
        raise InputError(f"{args.originals}: no original T1w of {' '.join(unpaired[:5])}", ExitCode.NO_INPUT)
    names = [name for name, _ in args.derivatives]
    if len(set(names)) < len(names):
        raise InputError(f"--derivatives: a name is given twice ({' '.join(names)})", ExitCode.USAGE)
    derivatives = {name: find_refaced(name, path, people, set(originals)) for name, path in args.derivatives}
    try:
        for folder in filter(None, (args.out, args.cache)):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make a folder ({error})") from error
    outcomes, gallery = measure(originals, derivatives, people, Embedder(args.cache))
    rows = [outcome.row() for outcome in outcomes]
    write_tsv(args.out / "privacy.tsv", HEADER, rows)
    import dlib
    import scipy

    described = {
        "split": args.participants_split, "people": len(people), "gallery_people": len(gallery),
        "gallery_faces_found": outcomes[0].gallery, "gallery_view": GALLERY_VIEW.as_dict(),
        "probe_view": PROBE_VIEW.as_dict(), "detector_upsample": recognition.UPSAMPLE,
        "method_sha256": _method_digest(),
        "versions": {
            "bids_cpmae": __version__, "dlib": dlib.__version__, "numpy": np.__version__, "scipy": scipy.__version__,
        },
        "ranks": {outcome.method: outcome.ranks for outcome in outcomes},
    }  # fmt: skip
    (args.out / "privacy.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    print_table(HEADER, rows)
    return 0
