"""Dataset-level files of the output tree."""

from __future__ import annotations

from pathlib import Path

from bids_cpmae.bids.atomic import PARTIAL, write_json, write_text
from bids_cpmae.bids.sidecar import NAME, dataset_description, read_sidecar
from bids_cpmae.bids.tsv import MISSING
from bids_cpmae.bids.verdicts import (
    LOGS,
    NOT_REACHED,
    PASS,
    REVIEW,
    SKIPPED,
    TABLE,
    Verdict,
    merge,
    verdict_rows,
    write_participant,
)
from bids_cpmae.errors import OutputError

DESCRIPTION = "dataset_description.json"
RAW, DERIVATIVE = "raw", "derivative"
IGNORED = (f"{LOGS}/", "figures", f"{TABLE}.tsv", f"{TABLE}.json", "group_qc.tsv", "group_qc.json", "*.html")
PAGES = ("group.html", "group_qc.tsv", "group_qc.json")


def check_output(root: Path, kind: str) -> None:
    """Refuse a folder that holds somebody else's dataset, before anything is written to it.

    What a killed run has left is no reason, and neither are other runs that begin at the same moment: they write the
    description first.

    Parameters
    ----------
    root : Path
    kind : {"raw", "derivative"}
        What is to be written. A derivative may lie among files that are no dataset; a raw dataset may not, since all
        of it is to be shared.

    Raises
    ------
    OutputError
    """
    try:
        # looked at before the description, which another run may just have written
        there = {path.name for path in root.iterdir() if PARTIAL not in path.name} if root.is_dir() else set()
    except OSError as error:
        raise OutputError(f"{root}: cannot be looked into ({error.strerror}); give another folder") from error
    content = read_sidecar(root / DESCRIPTION)
    made = content.get("GeneratedBy")
    if isinstance(made, list) and any(isinstance(one, dict) and one.get("Name") == NAME for one in made):
        other = DERIVATIVE if content.get("DatasetType") == DERIVATIVE else RAW
        if other != kind:
            raise OutputError(f"{root}: was written with --layout {other}; give another folder, or --layout {other}")
    elif there - {"derivatives"} if kind == RAW else DESCRIPTION in there:
        raise OutputError(f"{root}: holds something that {NAME} has not written; give a new or empty folder")


def start_dataset(output_dir: Path, bids_dir: Path) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore``, where they do not say so already.

    All runs write the same, so they may overlap; a file that stays is not taken from under another run that reads it.
    """
    write_json(output_dir / DESCRIPTION, dataset_description(bids_dir))
    write_text(output_dir / ".bidsignore", "\n".join(IGNORED) + "\n")


def withdraw(output_dir: Path, source: str) -> None:
    """Take back what an earlier run has said of a scan, before what it has written goes; to be called under the lock.

    Parameters
    ----------
    output_dir : Path
    source : str
        The raw scan, as a path below its dataset.
    """
    participant = source.split("/")[0].removeprefix("sub-")
    row = verdict_rows(output_dir, participant).get(source)
    if row is None or row["verdict"] not in (PASS, REVIEW):
        return
    session = None if row["session_id"] == MISSING else row["session_id"].removeprefix("ses-")
    write_participant(output_dir, participant, [Verdict(source, participant, session, SKIPPED, NOT_REACHED)])
    merge(output_dir)
    drop_pages(output_dir, participant)


def drop_pages(output_dir: Path, participant: str) -> None:
    """Take away pages that show what goes; the end of a run makes them anew."""
    for name in (f"sub-{participant}.html", *PAGES):
        (output_dir / name).unlink(missing_ok=True)


def remove_outputs(output_dir: Path, outputs) -> None:
    """Take away what an earlier run wrote for a scan that does not pass now."""
    for relative in outputs:
        (output_dir / relative).unlink(missing_ok=True)
