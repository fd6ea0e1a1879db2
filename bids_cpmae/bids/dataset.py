"""Dataset-level files of the output tree."""

from __future__ import annotations

from pathlib import Path

from bids_cpmae.bids.sidecar import dataset_description, read_sidecar, write_json, write_text
from bids_cpmae.bids.verdicts import LOGS, TABLE

IGNORED = (f"{LOGS}/", "figures", f"{TABLE}.tsv", f"{TABLE}.json", "group_qc.tsv", "group_qc.json", "*.html")


def start_dataset(output_dir: Path, bids_dir: Path) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore``, where they do not say so already.

    All runs write the same, so they may overlap; a file that stays is not taken from under another run that reads it.
    """
    description = dataset_description(bids_dir)
    if read_sidecar(output_dir / "dataset_description.json") != description:
        write_json(output_dir / "dataset_description.json", description)
    ignored, path = "\n".join(IGNORED) + "\n", output_dir / ".bidsignore"
    if not path.exists() or path.read_text(encoding="utf-8") != ignored:
        write_text(path, ignored)


def remove_outputs(output_dir: Path, outputs) -> None:
    """Take away what an earlier run wrote for a scan that does not pass now."""
    for relative in outputs:
        (output_dir / relative).unlink(missing_ok=True)
