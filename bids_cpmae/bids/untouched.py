"""What a run leaves as it is: images of the participants that are not refaced, and whether a face could be in them.

Nothing but headers is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bids_cpmae.bids.atomic import write_json, write_text
from bids_cpmae.bids.lock import locked
from bids_cpmae.bids.reference import Scan, entities_of, extent
from bids_cpmae.bids.tsv import MISSING, read_tsv, tsv_text
from bids_cpmae.bids.verdicts import LOGS, verdict_rows

TABLE = "desc-untouched_scans"
# voxels no longer than this show a face where the field of view reaches beyond a brain: back to front, down to up
FACE_VOXEL_MM, BEYOND_BRAIN_MM = 3.0, (180.0, 140.0)
# of these no voxel shows anatomy
LABELS = ("defacemask", "dseg", "mask", "probseg")
COLUMNS = {
    "participant_id": "Participant",
    "source": "Image that was not refaced, as a path below the raw dataset",
    "datatype": "Its BIDS datatype",
    "suffix": "Its BIDS suffix",
    "why": "Why it was left as it is",
    "voxel_mm": "Longest side of a voxel in mm",
    "field_of_view_mm": "Field of view in mm: right to left, back to front, down to up",
    "may_show_face": "Whether resolution and field of view could show a face, by the header alone; n/a if unreadable",
}


@dataclass(frozen=True)
class Untouched:
    """One image that is left as it is."""

    path: Path
    relative: str
    participant: str
    datatype: str
    suffix: str
    why: str

    def row(self) -> dict[str, str]:
        """Its line of the table."""
        seen = extent(self.path)
        fixed = {"participant_id": f"sub-{self.participant}", "source": self.relative, "datatype": self.datatype,
                 "suffix": self.suffix, "why": self.why}  # fmt: skip
        if seen is None:
            return {**fixed, "voxel_mm": MISSING, "field_of_view_mm": MISSING, "may_show_face": MISSING}
        view = " x ".join(f"{size:.0f}" for size in seen[1])
        return {**fixed, "voxel_mm": f"{seen[0].max():.2f}", "field_of_view_mm": view,
                "may_show_face": "yes" if may_show_face(self.suffix, *seen) else "no"}  # fmt: skip


def may_show_face(suffix: str, voxel_mm, field_of_view_mm) -> bool:
    """Whether an image of this resolution and field of view, (3,) each, in mm, could show a face."""
    if suffix in LABELS:
        return False
    beyond = all(size >= least for size, least in zip(field_of_view_mm[1:], BEYOND_BRAIN_MM))
    return bool(max(voxel_mm) <= FACE_VOXEL_MM + 0.05 and beyond)


def why_untouched(datatype: str, suffix: str, chosen: tuple[str, ...]) -> str:
    """In words."""
    if suffix in LABELS:
        return "a mask or labels"
    if datatype != "anat":
        return f"{datatype} images are not refaced"
    return "not selected" if suffix in chosen else f"{suffix} is not among the suffixes to reface"


def untouched_of(images: list[Path], root: Path, scans: list[Scan], suffixes: tuple[str, ...]) -> list[Untouched]:
    """Images of a dataset that are none of the scans, in the order of their paths."""
    refaced, found = {scan.relative for scan in scans}, []
    for path in sorted(images):
        relative = path.relative_to(root).as_posix()
        entities = entities_of(path.name)
        if relative in refaced or "sub" not in entities:
            continue
        suffix = path.name.split(".")[0].split("_")[-1]
        datatype = path.parent.name
        why = why_untouched(datatype, suffix, suffixes)
        found.append(Untouched(path, relative, entities["sub"], datatype, suffix, why))
    return found


def write_untouched(output_dir: Path, untouched: list[Untouched], participants: set[str]) -> list[dict]:
    """A table a participant in ``logs/``, and all tables as one; returns the rows of these participants.

    What has a verdict is not untouched, even if it was another run that refaced it.
    """
    logs = output_dir / LOGS
    rows = [one.row() for one in untouched if one.participant in participants]
    with locked(logs) as free:
        judged = {source for participant in participants for source in verdict_rows(output_dir, participant)}
        rows = [row for row in rows if row["source"] not in judged]
        for participant in sorted(participants):
            own = [row for row in rows if row["participant_id"] == f"sub-{participant}"]
            path = logs / f"sub-{participant}_{TABLE}.tsv"
            if own:
                write_text(path, tsv_text(tuple(COLUMNS), own))
            else:
                path.unlink(missing_ok=True)
        if free:
            merge_untouched(output_dir)
    return rows


def merge_untouched(output_dir: Path) -> None:
    """All participants' tables as one, with its data dictionary."""
    logs = output_dir / LOGS
    everything = [row for path in sorted(logs.glob(f"sub-*_{TABLE}.tsv")) for row in read_tsv(path)]
    if everything:
        write_text(logs / f"{TABLE}.tsv", tsv_text(tuple(COLUMNS), everything))
        write_json(logs / f"{TABLE}.json", {name: {"Description": text} for name, text in COLUMNS.items()})
