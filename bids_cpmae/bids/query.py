"""T1w scans of a dataset, found with pybids; nothing is ever written under the dataset."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from bids_cpmae.bids.sidecar import read_sidecar
from bids_cpmae.errors import ExitCode, InputError

LOG = logging.getLogger("bids_cpmae")
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
    if not read_sidecar(bids_dir / "dataset_description.json"):
        raise InputError(f"{bids_dir}: dataset_description.json is not a JSON object that says something; mend it")
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
        When a label is not in the dataset, a filter is no entity, or nothing is left to reface.
    """
    root = Path(layout.root)
    everything = layout.get(**QUERY)
    if not everything:
        raise InputError(f"{root}: no T1w scan in the dataset (sub-*/[ses-*/]anat/*_T1w.nii.gz)", ExitCode.NO_INPUT)
    wanted = {}
    for entity, labels, prefix in (("subject", participants, "sub-"), ("session", sessions, "ses-")):
        labels = [str(label).removeprefix(prefix) for label in labels]
        known = [str(label) for label in getattr(layout, f"get_{entity}s")()]
        missing = sorted(set(labels) - set(known))
        if missing:
            raise InputError(
                f"{root}: no {entity} {', '.join(missing)}; it has {', '.join(known) or 'none'}", ExitCode.NOTHING_TO_DO
            )
        if labels:
            wanted[entity] = labels
    found = _get(layout, {**QUERY, **wanted, **_for_pybids(filters or {})})
    scans = [_scan(file, root) for file in found]
    if not scans:
        raise InputError(f"{root}: no T1w scan fits; look at the labels and the filter file", ExitCode.NOTHING_TO_DO)
    for label in sorted(set(wanted.get("subject", ())) - {scan.participant for scan in scans}):
        LOG.warning("sub-%s: no T1w scan fits, nothing to do", label)
    _check_names(scans)
    return sorted(scans, key=lambda scan: scan.relative)


def _scan(file, root: Path) -> Scan:
    path, entities = Path(file.path), file.get_entities()
    session = str(entities["session"]) if "session" in entities else None
    return Scan(path, path.relative_to(root).as_posix(), str(entities["subject"]), session)


def _get(layout, query: dict) -> list:
    try:
        return layout.get(**query)
    except (ValueError, TypeError) as error:
        # pybids' own words name the entity and what it may be
        raise InputError(f"the filters cannot be used: {' '.join(str(error).split())}", ExitCode.DATA) from error


def _check_names(scans: list[Scan]) -> None:
    """An image as .nii and as .nii.gz would be one scan twice."""
    seen: dict[Path, str] = {}
    for scan in scans:
        other = seen.setdefault(scan.path.with_name(scan.stem), scan.relative)
        if other != scan.relative:
            raise InputError(f"{other} and {scan.path.name} are the same scan twice; keep one of them")


def _for_pybids(filters: dict) -> dict:
    from bids.layout import Query

    words = {"*": Query.ANY, None: Query.NONE}
    return {key: words.get(value, value) if not isinstance(value, (list, dict)) else value
            for key, value in filters.items()}  # fmt: skip
