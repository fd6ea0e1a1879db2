"""Tables of the evaluation: to a file as TSV, to the terminal in columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_tsv(path: Path, header: Sequence[str], rows: Sequence[Sequence]) -> Path:
    """Write a table with tabs, missing values as ``n/a`` as BIDS has it."""
    lines = ["\t".join("n/a" if cell is None else str(cell) for cell in row) for row in [header, *rows]]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def print_table(header: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Print a table in aligned columns on standard output."""
    text = [["n/a" if cell is None else str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    for row in text:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
