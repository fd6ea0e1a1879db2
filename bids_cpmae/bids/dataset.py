"""Dataset-level files of the output tree."""

from __future__ import annotations

from pathlib import Path

from bids_cpmae.bids.sidecar import dataset_description, write_json, write_text
from bids_cpmae.bids.verdicts import LOGS, TABLE

IGNORED = (f"{LOGS}/", "figures", f"{TABLE}.tsv", f"{TABLE}.json", "group_qc.tsv", "group_qc.json", "*.html")


def start_dataset(output_dir: Path, bids_dir: Path) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore``; the same content every time, so runs may overlap."""
    write_json(output_dir / "dataset_description.json", dataset_description(bids_dir))
    write_text(output_dir / ".bidsignore", "\n".join(IGNORED) + "\n")


def remove_outputs(output_dir: Path, outputs) -> None:
    """Take away what an earlier run wrote for a scan that does not pass now."""
    for relative in outputs:
        (output_dir / relative).unlink(missing_ok=True)
