"""The table of verdicts as reports need it: numbers, what is usual for a kind of scan, and what is far from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from bids_cpmae.bids.sidecar import read_sidecar
from bids_cpmae.bids.tsv import MISSING, read_tsv
from bids_cpmae.bids.verdicts import FAIL, LOGS, REVIEW, SKIPPED, TABLE, dictionary

FIXED = ("participant_id", "session_id", "source", "verdict", "reason")
# they count voxels, so that they tell of a scan's grid and not of how it was refaced
NOT_SCORED = ("voxels_total", "voxels_mask", "voxels_changed", "brain_voxels")
# with fewer scans of a kind nothing can be called unusual
LEAST_SCANS = 5
# Iglewicz & Hoaglin 1993, How to detect and handle outliers
OUTLIER = 3.5
MAD_TO_SIGMA, MEAN_DEVIATION_TO_SIGMA = 1.4826, 1.2533


@dataclass(frozen=True)
class Outlier:
    """How far a scan is from others of its kind, in robust standard deviations, and by which measure."""

    score: float
    measure: str


def read_rows(path: Path) -> list[dict[str, str]]:
    """Lines of a table; none where there is no table."""
    if not path.is_file():
        return []
    # a line that is longer or shorter than the header has no place, or no value
    return [{k: v if v is not None else MISSING for k, v in row.items() if k} for row in read_tsv(path)]


def dataset_rows(output_dir: Path) -> list[dict[str, str]]:
    """A line a scan of the whole dataset, as it is known to the output tree."""
    merged = read_rows(output_dir / f"{TABLE}.tsv")
    parts = (read_rows(path) for path in sorted((output_dir / LOGS).glob(f"sub-*_{TABLE}.tsv")))
    # a participant's own table is newer than the merged one
    rows = {row["source"]: row for table in (merged, *parts) for row in table if row.get("source")}
    return [{**dict.fromkeys(FIXED, MISSING), **rows[source]} for source in sorted(rows)]


def suffix_of(source: str) -> str:
    """The kind of a scan: ``T1w`` of ``sub-01/anat/sub-01_T1w.nii.gz``."""
    return PurePosixPath(source).name.split(".")[0].rsplit("_", 1)[-1]


def number(text: object) -> float:
    """A cell's value, NaN where it has none."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return math.nan
    return value if math.isfinite(value) else math.nan


def extra_columns(rows: Sequence[dict[str, str]]) -> list[str]:
    """Columns beyond the fixed ones, in the order of the table."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in FIXED))


def measure_columns(rows: Sequence[dict[str, str]]) -> list[str]:
    """Of these, the ones that hold numbers and nothing else, and at least one."""

    def is_measure(name: str) -> bool:
        cells = [row[name] for row in rows if row.get(name, MISSING) not in (MISSING, "")]
        return bool(cells) and not any(math.isnan(number(cell)) for cell in cells)

    return [name for name in extra_columns(rows) if is_measure(name)]


def descriptions(output_dir: Path) -> dict[str, str]:
    """What the columns mean, from the data dictionary beside the table."""
    known = {**dictionary(), **read_sidecar(output_dir / f"{TABLE}.json")}
    return {name: str(entry.get("Description", "")) for name, entry in known.items() if isinstance(entry, dict)}


def robust_sigma(values: np.ndarray) -> float:
    """Standard deviation (values without NaN) by the median absolute deviation; by the mean one where that is 0.

    The median one is 0 where more than half of the values are alike; both are where all are.
    """
    away = np.abs(values - np.median(values))
    return float(MAD_TO_SIGMA * np.median(away) or MEAN_DEVIATION_TO_SIGMA * away.mean())


def robust_scores(values: np.ndarray) -> np.ndarray:
    """Distance from the median in robust standard deviations; NaN where there are too few values.

    Parameters
    ----------
    values : ndarray (N,)
        NaN is missing.
    """
    scores = np.full(len(values), np.nan)
    known = np.isfinite(values)
    if known.sum() < LEAST_SCANS:
        return scores
    sigma = robust_sigma(values[known])
    scores[known] = np.abs(values[known] - np.median(values[known])) / sigma if sigma > 0 else 0.0
    return scores


def outliers(rows: Sequence[dict[str, str]], measures: Sequence[str]) -> list[Outlier | None]:
    """For every line its largest robust score among scans of its kind; None where nothing can be said."""
    found: list[Outlier | None] = [None] * len(rows)
    kinds = [suffix_of(row["source"]) for row in rows]
    for kind in set(kinds):
        members = [index for index, other in enumerate(kinds) if other == kind]
        for name in measures:
            if name in NOT_SCORED:
                continue
            scores = robust_scores(np.array([number(rows[index].get(name)) for index in members]))
            for index, score in zip(members, scores, strict=True):
                if np.isfinite(score) and (found[index] is None or score > found[index].score):
                    found[index] = Outlier(float(score), name)
    return found


def attention(row: dict[str, str], outlier: Outlier | None) -> tuple[int, float]:
    """Sorts what has to be looked at first to the front: failures, then REVIEW and outliers, most unusual first."""
    score = outlier.score if outlier else 0.0
    if row["verdict"] == FAIL:
        return 0, -score
    if row["verdict"] == SKIPPED:
        return 3, -score
    return (1 if row["verdict"] == REVIEW or score > OUTLIER else 2), -score
