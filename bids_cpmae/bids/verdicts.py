"""A verdict for every scan, and the tables they are kept in."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bids_cpmae.bids.sidecar import write_json, write_text

PASS, REVIEW, FAIL, SKIPPED = "PASS", "REVIEW", "FAIL", "SKIPPED"
LOGS = "logs"
TABLE = "desc-refacing_verdicts"
MEASURES = {
    "registration_correlation": "Pearson correlation of the scan and what it was registered to: the template, or its "
    "reference seen in its contrast",
    "mask_share": "Share of the field of view that was replaced",
    "brain_ml": "Volume of the registered template brain in ml",
    "voxels_total": "Voxels of the scan",
    "voxels_mask": "Voxels under the mask",
    "voxels_changed": "Voxels whose stored value changed",
    "brain_voxels": "Voxels of the registered template brain",
    "brain_voxels_changed": "Of these, voxels whose stored value changed (0 in every certificate)",
}
COLUMNS = ("participant_id", "session_id", "source", "verdict", "reason", *MEASURES)
MISSING = "n/a"
NOT_REACHED = "the run stopped before this scan was done"
# below this a registration is doubtful; a first choice: `dev` heads seen so far reach 0.97, label-map heads 0.88
REVIEW_CORRELATION = 0.6
# two or more parts, so that "voxels/s" or "n/a" stay what they are
ABSOLUTE = re.compile(r"(?<![\w.~])~?(?:/[^\s/:'\"`,;)]+){2,}/?")


@dataclass(frozen=True)
class Verdict:
    """What became of one scan: ``source`` is its path below the dataset."""

    source: str
    participant: str
    session: str | None
    verdict: str
    reason: str = ""
    measures: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """The scan's line of the table."""
        session = f"ses-{self.session}" if self.session else MISSING
        fixed = {"participant_id": f"sub-{self.participant}", "session_id": session, "source": self.source,
                 "verdict": self.verdict, "reason": " ".join(self.reason.split()) or MISSING}  # fmt: skip
        return {**fixed, **{name: self.measures.get(name, MISSING) for name in MEASURES}}

    def save(self, path: Path) -> Path:
        """Write as JSON."""
        return write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Verdict:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def without_paths(text: str, *private: Path | str) -> str:
    """Text for the output tree: no path of this machine in it, only the last part of each.

    Parameters
    ----------
    text : str
    private : path
        Paths to look for by name first, since only these may hold spaces.
    """
    for path in sorted((str(path) for path in private if str(path) != "/"), key=len, reverse=True):
        text = text.replace(path, Path(path).name)
    return ABSOLUTE.sub(lambda found: found.group().rstrip("/").rsplit("/", 1)[-1], text)


def judge(measures: dict[str, float]) -> tuple[str, str]:
    """Verdict and reason for a certified scan."""
    correlation = measures.get("registration_correlation", 1.0)
    if correlation < REVIEW_CORRELATION:
        return REVIEW, f"doubtful registration (correlation {correlation:.2f} < {REVIEW_CORRELATION}); look at the mask"
    return PASS, ""


def _tsv(rows: list[dict]) -> str:
    text = io.StringIO()
    # lines of another version may have other columns
    writer = csv.DictWriter(text, COLUMNS, restval=MISSING, extrasaction="ignore", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def write_participant(output_dir: Path, participant: str, verdicts: list[Verdict]) -> Path:
    """A participant's table, ``logs/sub-X_desc-refacing_verdicts.tsv``.

    Scans of other runs keep their lines, and so do those that this run did not come to.
    """
    path = output_dir / LOGS / f"sub-{participant}_{TABLE}.tsv"
    rows = {row["source"]: row for row in (_read(path) if path.exists() else [])}
    for verdict in verdicts:
        if verdict.reason != NOT_REACHED or verdict.source not in rows:
            rows[verdict.source] = verdict.row()
    return write_text(path, _tsv([rows[name] for name in sorted(rows)]))


def merge(output_dir: Path) -> tuple[Path, list[dict]]:
    """All participants' tables as one, with its data dictionary; returns its path and rows."""
    rows = [row for path in sorted((output_dir / LOGS).glob(f"sub-*_{TABLE}.tsv")) for row in _read(path)]
    if not rows:
        return output_dir / f"{TABLE}.tsv", rows
    path = write_text(output_dir / f"{TABLE}.tsv", _tsv(rows))
    write_json(output_dir / f"{TABLE}.json", dictionary())
    return path, rows


def dictionary() -> dict:
    """What the columns of the table mean."""
    levels = {PASS: "certified", REVIEW: "certified, look at it before sharing",
              FAIL: "not written, see the reason", SKIPPED: "left alone or not come to, see the reason"}  # fmt: skip
    return {
        "participant_id": {"Description": "Participant"},
        "session_id": {"Description": "Session"},
        "source": {"Description": "Raw scan, as a path below the raw dataset"},
        "verdict": {"Description": "Verdict", "Levels": levels},
        "reason": {"Description": "Why it is not PASS"},
        **{name: {"Description": text} for name, text in MEASURES.items()},
    }
