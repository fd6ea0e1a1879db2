"""What an evaluation compares: the originals of a BIDS dataset, and de-identified versions of each.

A version (a method) is a dataset that somebody's tool has written, given as ``NAME=PATH``, or one that
`bids_cpmae.evaluation.baselines` makes here. One T1w scan a person is measured, the first by name.
"""

from __future__ import annotations

import argparse
import csv
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_cpmae.bids.query import find_scans, open_layout
from bids_cpmae.errors import ExitCode, InputError, OutputError

if TYPE_CHECKING:
    from bids_cpmae.evaluation.baselines import Subject

LOG = logging.getLogger("bids_cpmae")
ORIGINAL = "original"
SUFFIX = "_T1w"


@dataclass(frozen=True)
class Comparison:
    """Who is measured, and the versions of them.

    Attributes
    ----------
    originals : dict of str to Path
        One T1w scan of everybody in the dataset, by ``sub-X``.
    people : list of str
        Who is measured.
    methods : dict of str to dict of str to Path
        By method, then by person; ``original`` comes first.
    out, work : Path
        For results, which show nobody's face, and for what is remembered between runs, which holds faces.
    seed : int
    weights : Path, optional
        Of the model that draws new faces; the shipped ones if None.
    """

    originals: dict[str, Path]
    people: list[str]
    methods: dict[str, dict[str, Path]]
    out: Path
    work: Path
    seed: int = 0
    weights: Path | None = None

    def subject(self, person: str) -> Subject:
        """A person's original, and what is worked out of it."""
        from bids_cpmae.evaluation.baselines import Subject

        return Subject(person, self.originals[person], self.work, self.seed, self.weights)

    def face(self, person: str) -> np.ndarray:
        """What face mode replaces in a person's original: bool on its grid, True = replaced."""
        from bids_cpmae.evaluation.baselines import located

        return located(self.originals[person], self.work).mask

    def brain(self, person: str) -> np.ndarray:
        """The registered brain in a person's original: bool on its grid, True = brain."""
        from bids_cpmae.evaluation.baselines import located

        return located(self.originals[person], self.work).brain


def add_comparison_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that all comparisons of de-identified datasets share."""
    from bids_cpmae.evaluation.baselines import METHODS

    add_folder_arguments(parser)
    parser.add_argument(
        "--derivatives", action="append", default=[], metavar="NAME=PATH", type=_named_path,
        help="a dataset of de-identified scans and what to call it; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--methods", nargs="+", default=[], choices=METHODS, metavar="METHOD",
        help=f"de-identify the originals here too: {' '.join(METHODS)}",
    )  # fmt: skip
    add_people_arguments(parser)


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say where originals, results and what is remembered lie, and which model draws new faces."""
    parser.add_argument("originals", type=Path, metavar="ORIGINALS_BIDS", help="BIDS dataset of the originals")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables, JSON and pages; no face in it")
    parser.add_argument(
        "-w", "--work-dir", "--work_dir", type=Path, default=Path("work"), metavar="DIR",
        help="what is remembered for the next run; it holds original faces, never share it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--model-weights", "--model_weights", type=Path, metavar="FILE",
        help="weights of the model that draws new faces (default: the shipped ones)",
    )  # fmt: skip


def add_people_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say who of a dataset is measured, by how many processes, and by which seed."""
    parser.add_argument(
        "--participants-split", "--participants_split", metavar="SPLIT",
        help="measure only people with this value in the column `split` of participants.tsv (default: everybody)",
    )  # fmt: skip
    parser.add_argument(
        "--people", type=int, metavar="N", help="measure only N of them, chosen by the seed (default: all)"
    )
    parser.add_argument("--nprocs", type=int, default=1, metavar="N", help="heads at a time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")


def _named_path(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not (name and sign and path) or name == ORIGINAL:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=PATH, with a name other than {ORIGINAL!r}")
    return name, Path(path)


def open_comparison(args: argparse.Namespace) -> Comparison:
    """Find everybody and every version, and make the versions that are asked for.

    Raises
    ------
    InputError
        When there are no originals, a split or a derivative lacks somebody, or a derivative holds a stranger.
    OutputError
        When a folder cannot be made, or is or lies inside the originals or a derivative.
    WeightsError
        When weights are given that are none.
    """
    if args.model_weights:
        from bids_cpmae.model.weightsfile import check_weights

        check_weights(args.model_weights)
    originals = find_originals(args.originals)
    people = chosen_people(args, originals)
    names = [*args.methods, *(name for name, _ in args.derivatives)]
    if len(set(names)) < len(names):
        raise InputError(f"a method is named twice ({' '.join(names)})", ExitCode.USAGE)
    derivatives = {name: find_derivative(name, path, people, originals) for name, path in args.derivatives}
    make_folders([args.out, args.work_dir], [args.originals, *(path for _, path in args.derivatives)])
    if args.work_dir.resolve().is_relative_to(args.out.resolve()):
        raise OutputError(f"{args.work_dir}: the work folder holds faces and may not lie in the output folder")
    from bids_cpmae.evaluation.baselines import make_all

    scans = {person: originals[person] for person in people}
    weights = args.model_weights
    made = make_all(args.methods, scans, args.work_dir, seed=args.seed, nprocs=args.nprocs, weights=weights)
    versions = {ORIGINAL: scans, **made, **derivatives}
    return Comparison(originals, people, versions, args.out, args.work_dir, args.seed, weights)


def chosen_people(args: argparse.Namespace, originals: dict[str, Path]) -> list[str]:
    """Who the options of `add_people_arguments` ask for, of those with an original.

    Raises
    ------
    InputError
        When somebody of the split has no original, or there are not as many people.
    """
    people = people_of_split(args.originals, args.participants_split) if args.participants_split else list(originals)
    unpaired = [person for person in people if person not in originals]
    if unpaired:
        raise InputError(f"{args.originals}: no original T1w of {' '.join(unpaired[:5])}", ExitCode.NO_INPUT)
    if args.people is not None:
        people = some_people(people, args.people, args.seed)
    return people


def make_folders(folders: list[Path], inputs: list[Path]) -> None:
    """Make folders to write to, none of them in an input dataset.

    Raises
    ------
    OutputError
        When one lies there or cannot be made.
    """
    for folder in folders:
        if any(folder.resolve().is_relative_to(path.resolve()) for path in inputs):
            raise OutputError(f"{folder}: lies inside an input dataset; choose a folder outside it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error})") from error


def find_originals(dataset: Path) -> dict[str, Path]:
    """The first T1w scan of everybody in a raw dataset, by ``sub-X``.

    Raises
    ------
    InputError
        When there are none.
    """
    found: dict[str, Path] = {}
    for scan in find_scans(open_layout(dataset), suffixes=("T1w",)):
        found.setdefault(f"sub-{scan.participant}", scan.path)
    return dict(sorted(found.items()))


def find_derivative(name: str, dataset: Path, people: list[str], originals: dict[str, Path]) -> dict[str, Path]:
    """De-identified scans of the people asked for, each the counterpart of that person's original.

    Raises
    ------
    InputError
        When the dataset is missing, lacks one of the people, or holds somebody who has no original.
    """
    if not dataset.is_dir():
        raise InputError(f"{name} ({dataset}): no such folder", ExitCode.NO_INPUT)
    folders = {folder.name for folder in dataset.glob("sub-*") if folder.is_dir()}
    strangers = sorted(folders - set(originals))
    if strangers:
        raise InputError(f"{name} ({dataset}): no original T1w of {' '.join(strangers[:5])}", ExitCode.DATA)
    found = {person: _counterpart(name, dataset / person, originals[person]) for person in people}
    missing = [person for person, path in found.items() if path is None]
    if missing:
        raise InputError(
            f"{name} ({dataset}): no de-identified T1w for {len(missing)} of {len(people)} people: "
            f"{' '.join(missing[:5])}; make them first or choose another split",
            ExitCode.NO_INPUT,
        )
    return found


def _counterpart(name: str, folder: Path, original: Path) -> Path | None:
    """The file whose name is the original's, but for entities that a tool has added (``desc-``, ``rec-`` ...)."""
    stem = original.name.removesuffix(".gz").removesuffix(".nii").removesuffix(SUFFIX)
    files = [path for ending in (".nii.gz", ".nii") for path in sorted(folder.rglob(f"{stem}*{SUFFIX}{ending}"))]
    fitting = [path for path in files if path.name.startswith((f"{stem}_desc-", f"{stem}_rec-", f"{stem}{SUFFIX}"))]
    if len(fitting) > 1:
        raise InputError(
            f"{name}: {fitting[0]} and {fitting[1].name} are both versions of {original.name}; keep one", ExitCode.DATA
        )
    return fitting[0] if fitting else None


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


def some_people(people: list[str], count: int, seed: int) -> list[str]:
    """``count`` people drawn at random, in their old order.

    Raises
    ------
    InputError
        When there are not as many.
    """
    if not 0 < count <= len(people):
        raise InputError(f"--people {count}: there are {len(people)}", ExitCode.USAGE)
    chosen = np.random.default_rng([seed, 11]).permutation(len(people))[:count]
    return [people[i] for i in sorted(chosen)]
