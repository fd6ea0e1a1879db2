"""What became of every file of a raw dataset, and who was left out: returned, and written as tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bids_cpmae.bids.atomic import write_json, write_text
from bids_cpmae.bids.privacy.findings import Finding
from bids_cpmae.bids.verdicts import LOGS

TABLE = "desc-sharing_files"
MISSING = "n/a"
COLUMNS = ("participant_id", "file", "status", "count", "reason")
REFACED, KEPT_FACE, LEFT_OUT, WITHDRAWN = "refaced", "not defaced", "left out", "participant left out"
LEVELS = {
    REFACED: "the de-identified image, at the original's name",
    KEPT_FACE: "an image that is not anatomical, copied with a clean header; look whether a face can be seen in it",
    "copied": "as it is in the input",
    "cleaned": "without what could identify somebody",
    "written": "made for this dataset",
    LEFT_OUT: "not in this dataset, see the reason",
    WITHDRAWN: "no file of the participant is in this dataset, see the reason",
}


@dataclass(frozen=True)
class Row:
    """One file, or ``count`` files of one pattern."""

    file: str
    status: str
    reason: str = ""
    participant: str | None = None
    count: int = 1

    def cells(self) -> tuple[str, ...]:
        """The line of the table."""
        participant = f"sub-{self.participant}" if self.participant else MISSING
        reason = " ".join(self.reason.split()).replace('"', "'") or MISSING
        return participant, self.file, self.status, str(self.count), reason


@dataclass
class RawReport:
    """What `assemble_raw` did.

    Attributes
    ----------
    rows : list of Row
        Every file of the participants asked for and of the dataset as a whole.
    shared : tuple of str
        Labels of the participants that the dataset holds, those of other jobs too.
    left_out : dict of str to tuple of str
        Participants of this call that were left out, and why.
    leaks : list of Finding
        What is left in the result, e.g. dates in names, which cannot be cleaned. Empty if all is well.
    """

    rows: list[Row] = field(default_factory=list)
    shared: tuple[str, ...] = ()
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaks: list[Finding] = field(default_factory=list)

    def files(self, status: str) -> list[str]:
        """Files of a status."""
        return [row.file for row in self.rows if row.status == status]

    @property
    def complete(self) -> bool:
        """Whether nobody was left out and nothing is left to clean."""
        return not self.left_out and not self.leaks

    def lines(self) -> list[str]:
        """The report in words, for the end of a run."""
        counts = {status: sum(row.count for row in self.rows if row.status == status) for status in LEVELS}
        told = [", ".join(f"{count} {status}" for status, count in counts.items() if count)]
        for label, reasons in sorted(self.left_out.items()):
            told.append(f"sub-{label} is left out: {'; '.join(reasons)}")
        told += [f"left out: {row.file} ({row.reason})" for row in self.rows if row.status == LEFT_OUT]
        told += [f"not defaced: {file}" for file in self.files(KEPT_FACE)]
        told += [f"still there: {leak.file} {leak.field}: {leak.kind}" for leak in self.leaks]
        return told


def write_rows(derivative_dir: Path, name: str, rows: list[Row]) -> None:
    """A part of the table: ``name`` is ``sub-X`` or ``dataset``."""
    lines = [COLUMNS, *(row.cells() for row in rows)]
    write_text(derivative_dir / LOGS / f"{name}_{TABLE}.tsv", "".join("\t".join(line) + "\n" for line in lines))


def merge_rows(derivative_dir: Path) -> Path:
    """All parts as one table, with its data dictionary."""
    logs = derivative_dir / LOGS
    lines: list[str] = []
    for path in (logs / f"dataset_{TABLE}.tsv", *sorted(logs.glob(f"sub-*_{TABLE}.tsv"))):
        lines += path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
    write_json(logs / f"{TABLE}.json", {
        "participant_id": {"Description": "Participant; n/a for the dataset as a whole"},
        "file": {"Description": "File of the raw dataset, or a pattern where its own name could name somebody"},
        "status": {"Description": "What became of it", "Levels": LEVELS},
        "count": {"Description": "How many files the line is about"},
        "reason": {"Description": "Why"},
    })  # fmt: skip
    return write_text(logs / f"{TABLE}.tsv", "".join(line + "\n" for line in ("\t".join(COLUMNS), *lines)))

