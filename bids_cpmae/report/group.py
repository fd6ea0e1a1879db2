"""The dataset's page and table: a line a scan, what has to be looked at first, and how measures are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bids_cpmae.bids.atomic import write_json, write_text
from bids_cpmae.bids.tsv import MISSING, tsv_text
from bids_cpmae.bids.verdicts import dictionary, without_paths
from bids_cpmae.errors import OutputError
from bids_cpmae.report.measures import Dataset
from bids_cpmae.report.page import GROUP_PAGE, VERDICTS, citation, dataset_name, fill, link_to, made_with, page_name
from bids_cpmae.report.participant import anchor_of, refresh_measures
from bids_cpmae.report.plots import strip
from bids_cpmae.report.tables import (
    LEAST_SCANS,
    OUTLIER,
    Outlier,
    attention,
    extra_columns,
    number,
    outliers,
    robust_scores,
    suffix_of,
)

GROUP_TABLE = "group_qc"
COMPUTED = {
    "suffix": "Kind of scan",
    "outlier_score": "Largest distance from the median of scans of the same kind, over all measures, in robust "
    f"standard deviations; above {OUTLIER} a scan is unusual",
    "outlier_measure": "The measure with that distance",
}
LEADING = ("participant_id", "session_id", "suffix", "source", "verdict", "reason", "outlier_score", "outlier_measure")
# named in a drawing with a link; all of a dataset gone wrong would make the page no better
MOST_MARKS = 40


def write_group(output_dir: Path, *, refresh: bool = True) -> Path:
    """Write ``group.html``, ``group_qc.tsv`` and its data dictionary.

    Parameters
    ----------
    output_dir : Path
    refresh : bool
        Whether participants' pages get the new distributions, too. Not for one of many runs that go on side by side:
        each would write the pages of all.

    Raises
    ------
    OutputError
        When the tree has no verdict at all, or cannot be written to.
    """
    dataset = Dataset(output_dir)
    if not dataset.rows:
        raise OutputError(f"{output_dir}: no verdict in it; run the participant level first")
    found = outliers(dataset.rows, dataset.names)
    order = sorted(range(len(found)), key=lambda index: attention(dataset.rows[index], found[index]))
    rows = [_line(dataset.rows[index], found[index]) for index in order]
    columns = [*LEADING, *extra_columns(dataset.rows)]
    try:
        write_text(output_dir / f"{GROUP_TABLE}.tsv", tsv_text(columns, rows))
        write_json(output_dir / f"{GROUP_TABLE}.json", _dictionary(columns, dataset))
        path = write_text(output_dir / GROUP_PAGE, _page(output_dir, dataset, columns, rows))
        if refresh:
            refresh_measures(output_dir, dataset)
    except OSError as error:
        raise OutputError(f"{output_dir}: the group report cannot be written ({error.strerror})") from error
    return path


def _line(row: dict[str, str], outlier: Outlier | None) -> dict[str, str]:
    score, measure = (f"{outlier.score:.2f}", outlier.measure) if outlier else (MISSING, MISSING)
    return {**row, "reason": without_paths(row["reason"]), "suffix": suffix_of(row["source"]),
            "outlier_score": score, "outlier_measure": measure}  # fmt: skip


def _dictionary(columns: Sequence[str], dataset: Dataset) -> dict:
    known = {**dictionary(), **{name: {"Description": text} for name, text in COMPUTED.items()}}
    return {name: known.get(name) or {"Description": dataset.meaning.get(name, "")} for name in columns}


def _page(output_dir: Path, dataset: Dataset, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    labels = sorted({row["participant_id"] for row in rows})
    pages = {label for label in labels if (output_dir / page_name(label.removeprefix("sub-"))).is_file()}
    numeric = {"outlier_score", *dataset.names}
    meaning = {**dataset.meaning, **COMPUTED}
    return fill(
        "group.html.j2",
        title=dataset_name(output_dir),
        counts={verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS},
        scans=len(rows),
        participants=len(labels),
        outlier=OUTLIER,
        unusual=sum(number(row["outlier_score"]) > OUTLIER for row in rows),
        least=LEAST_SCANS,
        table={
            "columns": [
                {"name": name, "numeric": name in numeric, "about": meaning.get(name, "")}
                for name in columns
            ],
            "rows": [[row.get(name, MISSING) for name in columns] for row in rows],
            "links": [_place(row, pages) for row in rows],
            "outlier": OUTLIER,
        },
        kinds=[(kind, _distributions(dataset, kind, pages)) for kind in dataset.kinds()],
        software=made_with(output_dir),
        citation=citation(output_dir),
    )  # fmt: skip


def _distributions(dataset: Dataset, kind: str, pages: set[str]) -> list[dict]:
    """Every measure of a kind of scan, drawn, with its unusual scans marked and linked."""
    members = [row for row in dataset.rows if suffix_of(row["source"]) == kind]
    drawn = []
    for name in dataset.names:
        values = dataset.values(kind, name)
        scores = robust_scores(values)
        far = [index for index in np.argsort(-np.nan_to_num(scores))[:MOST_MARKS] if scores[index] > OUTLIER]
        marked = [(values[index], f"{members[index]['source']}: {values[index]:.4g}", _place(members[index], pages))
                  for index in far]  # fmt: skip
        drawing = strip(values, marked)
        if drawing:
            middle = np.nanmedian(values)
            drawn.append({"name": name, "about": dataset.meaning.get(name, ""), "median": middle, "strip": drawing})
    return drawn


def _place(row: dict[str, str], pages: set[str]) -> str:
    label = row["participant_id"]
    if label not in pages:
        return ""
    return f"{link_to(page_name(label.removeprefix('sub-')))}#{anchor_of(row['source'])}"
