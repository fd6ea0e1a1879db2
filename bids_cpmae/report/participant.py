"""A page a participant: verdicts, the new face from all sides, the seam, measures. Made from the output tree alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bids_cpmae.bids.atomic import write_text
from bids_cpmae.bids.lock import locked
from bids_cpmae.bids.naming import Outputs, outputs_of
from bids_cpmae.bids.sidecar import read_sidecar
from bids_cpmae.bids.verdicts import LOGS, PASS, REVIEW, without_paths
from bids_cpmae.errors import OutputError
from bids_cpmae.report import viewer
from bids_cpmae.report.drawing import Drawing, draw, kept
from bids_cpmae.report.measures import Dataset
from bids_cpmae.report.page import VERDICTS, citation, dataset_name, fill, made_with, page_name
from bids_cpmae.report.pictures import read_volume
from bids_cpmae.report.tables import suffix_of

# of an image's sidecar: how it was made
MADE = ("SoftwareName", "SoftwareVersion", "WeightsVersion", "Mode", "RandomSeed", "DeidentificationMethod")
BLOCK = re.compile(r"<!-- measures of (?P<scan>[\w-]+) -->.*?<!-- end of measures -->", re.DOTALL)


@dataclass
class Scan:
    """A scan as the page shows it.

    Attributes
    ----------
    anchor, source, suffix, verdict, reason : str
    name : str
        File name of the image written; empty if there is none.
    note : str
        Why there is no picture, or not every one.
    drawing : Drawing
        Empty where nothing was written.
    made : dict of str to str
        How it was made, from its sidecar.
    image : Path or None
        The image written.
    """

    anchor: str
    source: str
    suffix: str
    verdict: str
    reason: str
    name: str = ""
    note: str = ""
    drawing: Drawing = field(default_factory=Drawing)
    made: dict[str, str] = field(default_factory=dict)
    image: Path | None = None


def write_report(
    output_dir: Path, participant: str, *, names: Callable[[str], Outputs] = outputs_of, drawings: Path | None = None
) -> Path:
    """Write a participant's page, ``sub-X.html``; what lies in the output tree is all that it shows.

    Parameters
    ----------
    output_dir : Path
    participant : str
        Label without ``sub-``.
    names : callable
        From a raw scan's path to those of what was written for it.
    drawings : Path, optional
        Folder of what has been drawn already, of files of the same content; see `bids_cpmae.report.drawing`.

    Raises
    ------
    OutputError
        When the tree has no verdict for the participant, or the page cannot be written.
    """
    dataset, path = Dataset(output_dir), output_dir / page_name(participant)
    if path.parent != output_dir:
        raise OutputError(f"sub-{participant}: no label that a file can be named after; no report written")
    rows = dataset.of(participant)
    if not rows:
        raise OutputError(f"{output_dir}: no verdict for sub-{participant}; run the participant level first")
    scans = [scan_of(output_dir, row, names, drawings) for row in rows]
    spacing, fitting, left_out = _choose_volumes(scans)
    text = fill(
        "participant.html.j2",
        title=f"sub-{participant}",
        dataset=dataset_name(output_dir),
        scans=scans,
        counts={verdict: sum(scan.verdict == verdict for scan in scans) for verdict in VERDICTS},
        measures={scan.anchor: measures_block(dataset, row) for scan, row in zip(scans, rows, strict=True)},
        software=made_with(output_dir),
        citation=citation(output_dir),
        niivue=viewer.niivue() if fitting else "",
        niivue_version=viewer.NIIVUE_VERSION,
        spacing=spacing,
        left_out=left_out,
    )
    # the group level draws measures anew in the pages that are there
    with locked(output_dir / LOGS):
        return write_text(path, text)


def anchor_of(source: str) -> str:
    """A scan's place in its page: its file name, other characters than letters, digits and ``-`` made ``_``."""
    return re.sub(r"[^A-Za-z0-9-]", "_", source.rsplit("/", 1)[-1].split(".")[0])


def scan_of(
    output_dir: Path, row: dict[str, str], names: Callable[[str], Outputs] = outputs_of, drawings: Path | None = None
) -> Scan:
    """A line of the table and what was written for it; the scan's own pictures only where it has been written."""
    source = row["source"]
    scan = Scan(
        anchor_of(source), source, suffix_of(source), row["verdict"],
        "" if row["reason"] == "n/a" else without_paths(row["reason"]),
    )  # fmt: skip
    outputs = names(source)
    image, mask = output_dir / outputs.image, output_dir / outputs.mask
    inside = image.resolve().is_relative_to(output_dir.resolve())
    if scan.verdict not in (PASS, REVIEW) or not inside or not image.is_file():
        scan.note = f"No picture: {scan.verdict}, nothing was written."
        if scan.verdict in (PASS, REVIEW):
            scan.note = "No picture: the image is not in the output tree any more."
        return scan
    scan.name, scan.image = image.name, image
    sidecar = read_sidecar(output_dir / outputs.image_sidecar)
    scan.made = {name: _plain(sidecar[name]) for name in MADE if name in sidecar}
    scan.drawing = (kept(drawings, image, mask) if drawings else None) or draw(image, mask)
    if scan.drawing.missing:
        scan.note = f"Not drawn: {without_paths(scan.drawing.missing, output_dir)}."
    return scan


def _plain(value: object) -> str:
    return without_paths(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _choose_volumes(scans: list[Scan]) -> tuple[float, int, int]:
    """Make the small copies of scans coarser where a page cannot carry them, and take away those that do not fit then.

    Returns
    -------
    float, int, int
        Voxel size in mm, and how many are there and were taken away.
    """
    drawn = [scan for scan in scans if scan.drawing.volume]
    finest, *coarser = viewer.SPACINGS_MM
    spacing, fitting = finest, viewer.fitting([scan.drawing.volume for scan in drawn])
    for spacing in coarser if fitting < len(drawn) else ():
        for scan in drawn:
            scan.drawing.volume = viewer.as_text(viewer.preview(*read_volume(scan.image), spacing))
        fitting = viewer.fitting([scan.drawing.volume for scan in drawn])
        if fitting == len(drawn):
            break
    for scan in drawn[fitting:]:
        scan.drawing.volume = ""
    return spacing, fitting, len(drawn) - fitting


def measures_block(dataset: Dataset, row: dict[str, str]) -> str:
    """A scan's measures as HTML, between two comments by which `refresh_measures` finds them."""
    return fill(
        "measures.html.j2", anchor=anchor_of(row["source"]), suffix=suffix_of(row["source"]),
        measures=dataset.measures(row),
    )  # fmt: skip


def refresh_measures(output_dir: Path, dataset: Dataset | None = None) -> list[Path]:
    """Draw measures anew in pages that are there: the dataset has grown since; pictures are not touched.

    Returns
    -------
    list of Path
        Pages that changed.
    """
    dataset, changed = dataset or Dataset(output_dir), []
    for label in sorted({row["participant_id"].removeprefix("sub-") for row in dataset.rows}):
        path = output_dir / page_name(label)
        if path.parent != output_dir or not path.is_file():
            continue
        blocks = {anchor_of(row["source"]): measures_block(dataset, row) for row in dataset.of(label)}
        before = path.read_text(encoding="utf-8")
        after = _with_blocks(before, blocks)
        if after != before:
            changed.append(write_text(path, after))
    return changed


def _with_blocks(page: str, blocks: dict[str, str]) -> str:
    return BLOCK.sub(lambda found: blocks.get(found["scan"], found[0]).strip(), page)
