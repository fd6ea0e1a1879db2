"""Tables as BIDS writes them: tab-separated, a header, ``n/a`` for what is not there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

MISSING = "n/a"


def tsv_text(columns: Sequence[str], rows: Iterable[dict]) -> str:
    """A table of these columns; a row may lack some of them, and may have others, as lines of another version do."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval=MISSING, extrasaction="ignore", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_tsv(path: Path) -> list[dict[str, str]]:
    """The rows of a table, by column."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))
