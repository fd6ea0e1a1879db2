"""JSON files: fields that may be shared stay, and their text is looked through."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

from bids_cpmae.bids.privacy import fields, values
from bids_cpmae.bids.privacy.names import OF_PEOPLE, identifying

# kinds of JSON files
SIDECAR, COLUMNS, DATA, DATASET, DERIVATIVE = "sidecar", "columns", "data columns", "dataset", "derivative"
PEOPLES = frozenset(("participants", "samples", "sessions", "scans"))
TABLES = frozenset((
    "participants", "samples", "sessions", "scans", "events", "physio", "stim", "channels", "electrodes", "optodes",
    "blood", "aslcontext", "motion", "beh", "timeseries", "physioevents", "verdicts", "files", "qc", "dseg",
))  # fmt: skip
UNKNOWN = "unknown-field"


class Leak(NamedTuple):
    """A finding before it is known which file it is in."""

    field: str
    kind: str
    value: str
    count: int = 1


def kind_of(relative: str, *, derivative: bool = False) -> str:
    """What a JSON file describes, by its path below the dataset."""
    path = PurePosixPath(relative)
    if path.name == "dataset_description.json":
        return DATASET
    suffix = path.stem.split("_")[-1]
    if path.parts[0] == "phenotype" or suffix in PEOPLES:
        return COLUMNS
    if suffix in TABLES:
        return DATA
    return DERIVATIVE if derivative else SIDECAR


def clean_json(content: dict, kind: str = SIDECAR) -> tuple[dict, list[Leak]]:
    """A JSON object without what could identify somebody, and what that was.

    Parameters
    ----------
    content : dict
    kind : str
        `SIDECAR`, `COLUMNS` (beside a table of people), `DATA` (beside any other table), `DATASET`
        (dataset_description.json) or `DERIVATIVE` (a sidecar of something computed, which may describe itself).

    Returns
    -------
    cleaned : dict
        The same object where there is nothing to clean.
    leaks : list of Leak
    """
    leaks: list[Leak] = []
    if not isinstance(content, dict):
        # no field names to go by
        return _walk(content, "", values.SIDECAR, leaks), leaks
    cleaned = {}
    for name, value in content.items():
        if name in fields.FIXED and kind != DATASET:
            if value != fields.FIXED[name]:
                leaks.append(Leak(name, "time", str(value)))
            cleaned[name] = fields.FIXED[name]
            continue
        reason = _refused(name, value, kind)
        if reason:
            leaks.append(Leak(name, reason, str(value)))
            continue
        if kind in (COLUMNS, DATA) and isinstance(value, dict) and name not in fields.SHAREABLE | fields.OWN:
            value = _column(value, name, leaks)
        kept = _walk(value, name, _scope(name, kind), leaks)
        if kept is not None or value is None:
            cleaned[name] = kept
    return cleaned, leaks


def shareable(sidecar: dict) -> dict:
    """Of a raw image's metadata, what a derivative of it may say."""
    cleaned, _ = clean_json(sidecar)
    return {name: value for name, value in cleaned.items() if name not in fields.REFERENCES}


def _refused(name: str, value: object, kind: str) -> str | None:
    """Why a field may not stay, or None."""
    if kind == DATASET:
        why = identifying(name)
        return why if why in OF_PEOPLE and name not in fields.DATASET else None
    allowed = fields.SHAREABLE | (fields.OWN | fields.DATASET if kind == DERIVATIVE else fields.OWN)
    if name in allowed:
        return None
    why = identifying(name) or UNKNOWN
    if kind == COLUMNS and isinstance(value, str):
        # beside other tables stand fields of the recording, too
        return None if why == UNKNOWN and name not in fields.WITHHELD else why
    described = isinstance(value, dict) and (not value or set(value) & fields.COLUMN)
    return None if kind in (COLUMNS, DATA) and described else why


def _column(entry: dict, name: str, leaks: list[Leak]) -> dict:
    """What is said of a column, in the fields that BIDS has for it; other software adds its own, such as Neurobagel."""
    leaks.extend(Leak(f"{name}.{key}", UNKNOWN, str(entry[key])) for key in entry if key not in fields.COLUMN)
    return {key: item for key, item in entry.items() if key in fields.COLUMN}


def _scope(name: str, kind: str) -> tuple[str, ...]:
    if kind == DATASET:
        return values.DOCUMENT
    if "Version" in name:
        return values.VERSION
    return values.PEOPLE if kind in (COLUMNS, DATA) or name in fields.DATASET else values.SIDECAR


def _walk(value, field: str, scope: tuple[str, ...], leaks: list[Leak]):
    """A value without identifiers; None where nothing of it is left."""
    if isinstance(value, str):
        hits = values.find(value, scope)
        leaks.extend(Leak(field, kind, value[start:stop]) for kind, start, stop in hits)
        if not hits:
            return value
        text = values.clean(value, scope)
        return None if values.nothing_left(text) else text
    if isinstance(value, list):
        kept = [_walk(item, f"{field}[{index}]", scope, leaks) for index, item in enumerate(value)]
        kept = [item for item, was in zip(kept, value) if item is not None or was is None]
        return kept if kept or not value else None
    if isinstance(value, dict):
        kept_dict = {}
        for name, item in value.items():
            why = identifying(name)
            # the levels of a column and the parts of a description are named freely: only what names a person counts
            if why and (scope is values.SIDECAR or why in OF_PEOPLE) and not isinstance(item, dict):
                leaks.append(Leak(f"{field}.{name}", why, str(item)))
                continue
            kept = _walk(item, f"{field}.{name}", _nested(name, scope), leaks)
            if kept is not None or item is None:
                kept_dict[name] = kept
        return kept_dict if kept_dict or not value else None
    return value


def _nested(name: str, scope: tuple[str, ...]) -> tuple[str, ...]:
    return values.VERSION if scope is values.SIDECAR and "Version" in name else scope
