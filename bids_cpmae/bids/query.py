"""T1w scans of a dataset, found with pybids; nothing is ever written under the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bids_cpmae.errors import ExitCode, InputError

QUERY = {"suffix": "T1w", "datatype": "anat", "extension": [".nii", ".nii.gz"]}


@dataclass(frozen=True)
class Scan:
    """One scan of a raw dataset.

    Attributes
    ----------
    path : Path
        The image, not resolved: a DataLad link stays a link.
    relative : str
        POSIX path below the dataset.
    participant, session : str, str or None
        Labels.
    """

    path: Path
    relative: str
    participant: str
    session: str | None

    @property
    def stem(self) -> str:
        """File name without its extension."""
        return self.path.name.removesuffix(".gz").removesuffix(".nii")


def open_layout(bids_dir: Path, database_dir: Path | None = None):
    """Index a dataset, or open the index kept in ``database_dir``.

    Raises
    ------
    InputError
        When the folder is not there or is no BIDS dataset.
    """
    if not bids_dir.is_dir():
        raise InputError(f"{bids_dir}: no such folder; give the root of a BIDS dataset", ExitCode.NO_INPUT)
    if not (bids_dir / "dataset_description.json").exists():
        raise InputError(f"{bids_dir}: no dataset_description.json; give the root of a BIDS dataset")
    from bids import BIDSLayout, BIDSLayoutIndexer

    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
    try:
        return BIDSLayout(bids_dir, validate=False, database_path=database_dir, indexer=indexer)
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"{bids_dir}: cannot be read as a BIDS dataset ({error})") from error


def find_scans(
    layout,
    *,
    participants: tuple[str, ...] = (),
    sessions: tuple[str, ...] = (),
    filters: dict | None = None,
) -> list[Scan]:
    """Scans to reface, in the order of their paths.

    Parameters
    ----------
    layout : bids.BIDSLayout
    participants, sessions : tuple of str
        Labels with or without ``sub-`` / ``ses-``; all if empty.
    filters : dict, optional
        The ``t1w`` entry of a filter file: entities and values for pybids.

    Raises
    ------
    InputError
        When a label is not in the dataset, or nothing is left to reface.
    """
    root = Path(layout.root)
    wanted = {}
    for entity, labels in (("subject", participants), ("session", sessions)):
        labels = [str(label).removeprefix("sub-").removeprefix("ses-") for label in labels]
        known = getattr(layout, f"get_{entity}s")()
        missing = sorted(set(labels) - set(known))
        if missing:
            raise InputError(
                f"{root}: no {entity} {', '.join(missing)}; it has {', '.join(map(str, known)) or 'none'}",
                ExitCode.NOTHING_TO_DO,
            )
        if labels:
            wanted[entity] = labels
    found = layout.get(**{**QUERY, **wanted, **_for_pybids(filters or {})})
    scans = []
    for file in found:
        path = Path(file.path)
        entities = file.get_entities()
        scans.append(Scan(path, path.relative_to(root).as_posix(), entities["subject"], entities.get("session")))
    if not scans:
        raise InputError(f"{root}: no T1w scan fits; look at the labels and the filter file", ExitCode.NOTHING_TO_DO)
    return sorted(scans, key=lambda scan: scan.relative)


def _for_pybids(filters: dict) -> dict:
    from bids.layout import Query

    words = {"*": Query.ANY, None: Query.NONE}
    return {key: words.get(value, value) if not isinstance(value, (list, dict)) else value
            for key, value in filters.items()}  # fmt: skip
