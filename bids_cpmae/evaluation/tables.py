"""Results of the evaluation: to files as TSV and JSON, to the terminal in columns."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bids_cpmae import __version__


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


def write_json(path: Path, content: dict) -> Path:
    """Write settings or figures, indented."""
    Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return Path(path)


def versions(*packages: str) -> dict[str, str | None]:
    """Versions of Python, this software and installed packages; None for one that is not there."""
    found: dict[str, str | None] = {"python": platform.python_version(), "bids_cpmae": __version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
