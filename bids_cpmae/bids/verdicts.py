"""A verdict for every scan, and the tables they are kept in."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bids_cpmae.bids.atomic import write_json, write_text
from bids_cpmae.bids.thresholds import broken
from bids_cpmae.bids.tsv import MISSING, read_tsv, tsv_text
from bids_cpmae.errors import ScanError, SkippedError

PASS, REVIEW, FAIL, SKIPPED = "PASS", "REVIEW", "FAIL", "SKIPPED"
LOGS = "logs"
TABLE = "desc-refacing_verdicts"
MEASURES = {
    "registration_correlation": "Pearson correlation of the scan and what it was registered to: the template, slow "
    "changes of brightness evened out in both, or its reference (without a T1w scan, an average head) seen in its "
    "contrast",
    "mask_share": "Share of the field of view that was replaced",
    "brain_ml": "Volume of the registered template brain in ml",
    "brain_signal": "Share of the registered brain that is as bright as tissue",
    "brain_not_finite": "Share of the registered brain whose values are NaN or infinite",
    "brain_overlap_ml": "Volume of the mask in ml on bright tissue deeper in the upper head than skin and skull reach",
    "face_coverage": "Share of the face, as registered, that lies in the field of view",
    "front_cut_cm2": "Area in cm2 of the face's tissue at the front border of the field of view, which cuts it off",
    "face_cut": "Share of the original face's tissue that is stored as one constant value",
    "face_detail": "Fine detail in the original face over that of the rest of the head",
    "mask_coverage": "Share of the face in view that was replaced; the rest is too near the brain",
    "residual_face_mm": "Mean distance in mm between original and new skin of the face, 15 mm counting most",
    **{f"residual_{name}_mm": f"The same for {name}" for name in
       ("nose", "eyes", "lips", "chin", "cheeks", "forehead", "ears")},
    "face_match": "Correlation of fine structure of the original and the new face",
    "face_filled": "Share of the new face that is tissue where the template has tissue",
    "template_mm": "Mean distance in mm between foremost new skin of the face and the template's, laid on each other",
    "nose_mm": "How far in mm the new nose stands out from the cheeks",
    "skin_roughness": "Voxels per voxel of new skin that smoothing by 3 mm takes away or adds",
    "seam": "Step at the border of the mask over the original's at the same place",
    "noise_ratio": "Noise in tissue of the new face over that of the original at the same place",
    "voxels_total": "Voxels of the scan",
    "voxels_mask": "Voxels under the mask",
    "voxels_changed": "Voxels whose stored value changed",
    "brain_voxels": "Voxels of the registered template brain",
    "brain_voxels_changed": "Of these, voxels whose stored value changed (0 in every certificate)",
}  # fmt: skip
COLUMNS = ("participant_id", "session_id", "source", "verdict", "reason", *MEASURES)
NOT_REACHED = "the run stopped before this scan was done"
# two or more parts, so that "voxels/s" or "n/a" stay what they are; or an address of the web, which tells nothing
ABSOLUTE = re.compile(r"https?://\S+|(?<![\w.~])~?(?:/[^\s/:'\"`,;)]+){2,}/?")
BELOW = r"(?:/[^\s/:'\"`,;)]+)*/?"


@dataclass(frozen=True)
class Verdict:
    """What became of one scan.

    Attributes
    ----------
    source : str
        Its path below the dataset.
    participant, session : str, str or None
        Labels.
    verdict : {"PASS", "REVIEW", "FAIL", "SKIPPED"}
    reason : str
        Why it is not PASS, and what to do.
    measures : dict of str to float
        By the names of `MEASURES`.
    reached : bool
        False for a scan that the run did not come to; a scan left alone on purpose is SKIPPED and reached.
    """

    source: str
    participant: str
    session: str | None
    verdict: str
    reason: str = ""
    measures: dict[str, float] = field(default_factory=dict)
    reached: bool = True

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
        # with what lies below it, of which the first part may be somebody's name
        text = re.sub(re.escape(path) + BELOW, lambda found: found.group().rstrip("/").rsplit("/", 1)[-1], text)
    return ABSOLUTE.sub(lambda found: found[0] if "://" in found[0] else found[0].rstrip("/").rsplit("/", 1)[-1], text)


def judge(measures: dict[str, float]) -> tuple[str, str]:
    """Verdict and reason by `bids_cpmae.bids.thresholds.THRESHOLDS`; what was not measured says nothing."""
    for verdict, fail in ((FAIL, True), (REVIEW, False)):
        reasons = broken(measures, fail=fail)
        if reasons:
            return verdict, "; ".join(reasons)
    return PASS, ""


def judged_with(review: str, measures: dict[str, float]) -> tuple[str, str]:
    """`judge`, and REVIEW at best where there is a reason to look at a scan whatever its measures say."""
    verdict, reason = judge(measures)
    if review and verdict in (PASS, REVIEW):
        return REVIEW, "; ".join(filter(None, (review, "look at it", reason)))
    return verdict, reason


def refuse_failed(measures: dict[str, float], name: str) -> None:
    """Stop before anything is published, or before the dear steps, where the measures so far say FAIL.

    Raises
    ------
    ScanError
        With the scan's ``name``, what is wrong and the way out.
    """
    verdict, reason = judge(measures)
    if verdict == FAIL:
        raise ScanError(f"{name}: {reason}")


def verdict_of(error: Exception) -> str:
    """SKIPPED for a scan left alone on purpose, FAIL for anything else that stopped it."""
    return SKIPPED if isinstance(error, SkippedError) else FAIL


def write_participant(output_dir: Path, participant: str, verdicts: list[Verdict]) -> Path:
    """A participant's table, ``logs/sub-X_desc-refacing_verdicts.tsv``.

    Scans of other runs keep their lines, and so do those that this run did not come to. A scan left alone on purpose
    gets a new line: what an earlier run said of it no longer holds.
    """
    rows = verdict_rows(output_dir, participant)
    for verdict in verdicts:
        if verdict.reached or verdict.source not in rows:
            rows[verdict.source] = verdict.row()
    return write_text(_table_of(output_dir, participant), tsv_text(COLUMNS, [rows[name] for name in sorted(rows)]))


def verdict_rows(output_dir: Path, participant: str) -> dict[str, dict[str, str]]:
    """A participant's lines by the path of the raw scan."""
    path = _table_of(output_dir, participant)
    return {row["source"]: row for row in read_tsv(path)} if path.exists() else {}


def _table_of(output_dir: Path, participant: str) -> Path:
    return output_dir / LOGS / f"sub-{participant}_{TABLE}.tsv"


def merge(output_dir: Path) -> tuple[Path, list[dict]]:
    """All participants' tables as one, with its data dictionary; returns its path and rows."""
    rows = [row for path in sorted((output_dir / LOGS).glob(f"sub-*_{TABLE}.tsv")) for row in read_tsv(path)]
    if not rows:
        return output_dir / f"{TABLE}.tsv", rows
    path = write_text(output_dir / f"{TABLE}.tsv", tsv_text(COLUMNS, rows))
    write_json(output_dir / f"{TABLE}.json", dictionary())
    return path, rows


def dictionary() -> dict:
    """What the columns of the table mean."""
    levels = {PASS: "certified", REVIEW: "certified, look at it before sharing",
              FAIL: "not written, see the reason",
              SKIPPED: "left alone on purpose or not come to, see the reason"}  # fmt: skip
    return {
        "participant_id": {"Description": "Participant"},
        "session_id": {"Description": "Session"},
        "source": {"Description": "Raw scan, as a path below the raw dataset"},
        "verdict": {"Description": "Verdict", "Levels": levels},
        "reason": {"Description": "Why it is not PASS"},
        **{name: {"Description": text} for name, text in MEASURES.items()},
    }
