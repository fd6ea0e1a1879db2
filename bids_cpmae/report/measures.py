"""A scan's measures against those of all scans of its kind in the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_cpmae.report.plots import Strip, strip
from bids_cpmae.report.tables import (
    LEAST_SCANS,
    NOT_SCORED,
    OUTLIER,
    dataset_rows,
    descriptions,
    measure_columns,
    number,
    robust_scores,
    suffix_of,
)


@dataclass(frozen=True)
class Measure:
    """One number of one scan.

    Attributes
    ----------
    name, description : str
    value : float
    score : float
        Robust standard deviations from the median of scans of its kind; NaN where nothing can be said.
    strip : Strip
        The distribution, with the scan marked.
    """

    name: str
    description: str
    value: float
    score: float
    strip: Strip

    @property
    def unusual(self) -> bool:
        """Whether it is far from what is usual."""
        return self.score > OUTLIER


class Dataset:
    """All scans of an output tree, and how their measures are distributed.

    Parameters
    ----------
    output_dir : Path
    """

    def __init__(self, output_dir: Path) -> None:
        self.rows = dataset_rows(output_dir)
        self.names = measure_columns(self.rows)
        self.meaning = descriptions(output_dir)
        self._values: dict[tuple[str, str], np.ndarray] = {}
        kinds = np.array([suffix_of(row["source"]) for row in self.rows])
        for kind in set(kinds.tolist()):
            members = [self.rows[index] for index in np.flatnonzero(kinds == kind)]
            for name in self.names:
                self._values[kind, name] = np.array([number(row.get(name)) for row in members])

    def of(self, participant: str) -> list[dict[str, str]]:
        """Lines of a participant."""
        return [row for row in self.rows if row["participant_id"] == f"sub-{participant}"]

    def kinds(self) -> list[str]:
        """Suffixes, the most frequent first."""
        kinds = [suffix_of(row["source"]) for row in self.rows]
        return sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))

    def values(self, kind: str, name: str) -> np.ndarray:
        """A measure of all scans of a kind; NaN is missing."""
        return self._values[kind, name]

    def measures(self, row: dict[str, str]) -> list[Measure]:
        """A scan's measures, those that it has."""
        found = []
        for name in self.names:
            value, all_values = number(row.get(name)), self.values(suffix_of(row["source"]), name)
            drawing = strip(all_values, [(value, "", "")])
            if np.isfinite(value) and drawing:
                found.append(Measure(name, self.meaning.get(name, ""), value, _score(name, value, all_values), drawing))
        return found


def _score(name: str, value: float, values: Sequence[float]) -> float:
    values = np.asarray(values)
    if name in NOT_SCORED or np.isfinite(values).sum() < LEAST_SCANS:
        return float("nan")
    return float(robust_scores(values)[np.flatnonzero(values == value)[0]])
