"""``cpmae leaks``: every thing in a dataset that could identify somebody, with its file and field. Reads only."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bids_cpmae.bids.atomic import write_json
from bids_cpmae.bids.privacy import values
from bids_cpmae.bids.privacy.findings import KINDS, Finding
from bids_cpmae.bids.privacy.names import date_in_name, telling_file
from bids_cpmae.bids.privacy.sidecars import Leak, clean_json, kind_of
from bids_cpmae.bids.privacy.tables import Table, clean_table, role_of
from bids_cpmae.bids.sidecar import raw_metadata, read_sidecar
from bids_cpmae.errors import ExitCode, InputError

HISTORY = (".git", ".datalad")
TEXT = frozenset((
    "", ".md", ".txt", ".rst", ".html", ".htm", ".svg", ".cff", ".yml", ".yaml", ".csv", ".log", ".cfg", ".toml",
    ".ini", ".m", ".py", ".sh", ".r", ".bib", ".graphml", ".dot",
))  # fmt: skip
GRADIENTS = (".bval", ".bvec")
PEOPLES_TEXT = (".csv", ".log")
HEAD_BYTES = 1 << 16
# the code of a page is not about anybody; its data is
SCRIPT = re.compile(r"<style\b.*?</style>|<script(?![^>]*\bjson)[^>]*>.*?</script>", re.I | re.S)
NUMBERS = re.compile(r"[\d\s.eE+,;-]*(?:\b(?i:nan|inf|infinity)\b[\d\s.eE+,;-]*)*")


@dataclass
class Survey:
    """What was looked at, and what was found."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    unseen: Counter = field(default_factory=Counter)

    def as_dict(self) -> dict:
        """For JSON; values are shortened."""
        return {
            "FilesLookedAt": self.files,
            "NotLookedInto": dict(sorted(self.unseen.items())),
            "Leaks": [finding.as_dict() for finding in self.findings],
        }


def find_leaks(root: Path, below: str = "") -> Survey:
    """Look through a dataset, raw or derivative.

    Parameters
    ----------
    root : Path
        The dataset.
    below : str
        Only this folder of it, a POSIX path.

    Returns
    -------
    Survey

    Raises
    ------
    InputError
        When there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the root of a dataset", ExitCode.NO_INPUT)
    survey, derivative = Survey(), {}
    for folder, folders, names in walk(root / below):
        for name in [name for name in folders if name in HISTORY]:
            survey.unseen[f"{name}/ (earlier versions of files)"] += 1
            folders.remove(name)
        relative = PurePosixPath(folder.relative_to(root).as_posix())
        derivative[relative] = _is_derivative(folder, derivative.get(relative.parent, False))
        for name in folders:
            survey.findings += [Finding(str(relative / name), *leak) for leak in _outside(root / relative / name)]
        for name in names:
            survey.files += 1
            for leak in _look(root, relative / name, derivative[relative], survey):
                survey.findings.append(Finding(str(relative / name), *leak))
    survey.findings.sort(key=lambda finding: finding.file)
    return survey


def _is_derivative(folder: Path, above: bool) -> bool:
    path = folder / "dataset_description.json"
    return read_sidecar(path).get("DatasetType", "raw") == "derivative" if path.exists() else above


def walk(root: Path):
    """Folders, their folders and their files, sorted; links to folders are followed, but not in circles."""
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder)
        above = {here.resolve(), *here.resolve().parents}
        folders[:] = sorted(
            name for name in folders if not (here / name).is_symlink() or (here / name).resolve() not in above
        )
        yield here, folders, sorted(names)


def _outside(path: Path) -> list[Leak]:
    """What the name of a file or folder tells, and where it points to."""
    leaks = []
    if date := date_in_name(path.name):
        leaks.append(Leak("name", "date-in-name", date))
    if path.is_symlink() and os.path.isabs(os.readlink(path)):
        leaks.append(Leak("link", "link", os.readlink(path)))
    return leaks


def _look(root: Path, relative: PurePosixPath, derivative: bool, survey: Survey) -> list[Leak]:
    """Leaks of one file."""
    name, leaks = relative.name, _outside(root / relative)
    if kind := telling_file(name):
        return [*leaks, Leak("file", kind, name)]
    try:
        return leaks + _look_inside(root, relative, derivative, survey)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        # the system's own words would name the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return [*leaks, Leak(f"file ({reason})", "unreadable", "")]


def _look_inside(root: Path, relative: PurePosixPath, derivative: bool, survey: Survey) -> list[Leak]:
    path, name = root / relative, relative.name
    suffix = name[name.index(".", 1) :].lower() if "." in name[1:] else ""
    if name.endswith((".nii", ".nii.gz")):
        # brings numpy, which the help of the command line must not
        from bids_cpmae.bids.privacy.nifti import nifti_leaks

        return nifti_leaks(path)
    if suffix.endswith(".gz"):
        from bids_cpmae.bids.privacy.nifti import gzip_leaks

        return gzip_leaks(path) + (data_leaks(path) if suffix == ".tsv.gz" else [])
    if name.endswith(".json"):
        return json_leaks(path, kind_of(str(relative), derivative=derivative))
    if name.endswith(".tsv"):
        return table_leaks(root, str(relative))
    if name.endswith(GRADIENTS):
        text = read_text(path)
        return [] if NUMBERS.fullmatch(text) else _text_leaks(text, values.SIDECAR)
    if Path(name).suffix.lower() in TEXT or name.startswith("."):
        text = SCRIPT.sub("", read_text(path))
        return _text_leaks(text, values.PEOPLE if name.endswith(PEOPLES_TEXT) else values.DOCUMENT)
    survey.unseen[Path(name).suffix.lower()] += 1
    return []


def read_text(path: Path) -> str:
    """A text file; bytes that are no UTF-8 survive reading and writing."""
    return path.read_text(encoding="utf-8-sig", errors="surrogateescape")


def json_leaks(path: Path, kind: str) -> list[Leak]:
    """Leaks of a JSON file."""
    return clean_json(json.loads(read_text(path)), kind)[1]


def table_leaks(root: Path, relative: str) -> list[Leak]:
    """Leaks of a table with a header line."""
    role = role_of(relative)
    described = raw_metadata(root, relative) if role else {}
    return clean_table(Table.parse(read_text(root / relative)), role, described=described)[1]


def data_leaks(path: Path) -> list[Leak]:
    """Leaks at the start of a compressed table without a header line."""
    with gzip.open(path, "rb") as file:
        return _text_leaks(file.read(HEAD_BYTES).decode("utf-8", "surrogateescape"), values.DATA)


def _text_leaks(text: str, scope: tuple[str, ...]) -> list[Leak]:
    hits: dict[str, list[tuple[int, str]]] = {}
    for kind, start, stop in values.find(text, scope):
        hits.setdefault(kind, []).append((text.count("\n", 0, start) + 1, text[start:stop]))
    return [Leak(f"line {found[0][0]}", kind, found[0][1], len(found)) for kind, found in hits.items()]


def print_survey(survey: Survey) -> None:
    """A line a leak on standard output; what could not be looked into and the sum on standard error."""
    for finding in survey.findings:
        more = f" and {finding.count - 1} more" if finding.count > 1 else ""
        print(f"{finding.file}\t{finding.field}\t{finding.kind}\t{finding.shown}{more}")
    for what, count in sorted(survey.unseen.items()):
        print(f"not looked into: {count} x {what}", file=sys.stderr)
    kinds = Counter(finding.kind for finding in survey.findings)
    for kind, count in kinds.most_common():
        print(f"{count:6d} {kind}: {KINDS[kind]}", file=sys.stderr)
    print(f"{len(survey.findings)} leaks in {survey.files} files", file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae leaks``."""
    parser.add_argument("root", type=Path, metavar="DIR", help="root of a dataset, raw or derivative; only read")
    parser.add_argument("--json", type=Path, metavar="FILE", dest="json_file", help="write the list as JSON, too")


def run(root: Path, json_file: Path | None = None) -> int:
    """Look, tell, and return the exit code: 1 if there is any leak."""
    survey = find_leaks(root)
    print_survey(survey)
    if json_file:
        write_json(json_file, survey.as_dict())
    return int(ExitCode.SCAN_FAILED if survey.findings else ExitCode.OK)


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae leaks``."""
    return run(args.root, args.json_file)
