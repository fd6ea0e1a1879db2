"""Anatomical scans of a dataset, found with pybids; nothing is ever written under the dataset."""

from __future__ import annotations

import logging
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from bids_cpmae.bids.lock import locked
from bids_cpmae.bids.reference import REFERENCE, Scan, assign_references, entities_of
from bids_cpmae.bids.sidecar import read_sidecar
from bids_cpmae.bids.untouched import LABELS, Untouched, untouched_of
from bids_cpmae.errors import ExitCode, InputError, UsageError

LOG = logging.getLogger("bids_cpmae")
EXTENSIONS = [".nii", ".nii.gz"]
# as pybids calls it
INDEX = "layout_index.sqlite"


@lru_cache(maxsize=1)
def face_suffixes() -> tuple[str, ...]:
    """Suffixes of anatomical images that can show a face: all that the BIDS schema has, but masks."""
    from bidsschematools.schema import load_schema

    rules = load_schema().rules.files.raw.anat
    return tuple(sorted({name for rule in rules.values() for name in rule.get("suffixes", ())} - set(LABELS)))


def open_layout(bids_dir: Path, database_dir: Path | None = None):
    """Index a dataset, or open the index kept in ``database_dir``, which is made if it is not there.

    An index is there whole or not at all, and is only read once it is, so that many runs may share it.

    Raises
    ------
    InputError
        When the folder is not there or is no BIDS dataset, or the index is that of another dataset.
    """
    if not bids_dir.is_dir():
        raise InputError(f"{bids_dir}: no such folder; give the root of a BIDS dataset", ExitCode.NO_INPUT)
    if not (bids_dir / "dataset_description.json").exists():
        raise InputError(f"{bids_dir}: no dataset_description.json; give the root of a BIDS dataset")
    if not read_sidecar(bids_dir / "dataset_description.json"):
        raise InputError(f"{bids_dir}: dataset_description.json is not a JSON object that says something; mend it")
    if database_dir and not has_index(database_dir):
        with locked(database_dir):
            if not has_index(database_dir):
                _write_index(bids_dir, database_dir)
    layout = _layout(bids_dir, database_dir)
    if Path(layout.root).resolve() != bids_dir.resolve():
        raise InputError(
            f"{database_dir}: holds the index of {layout.root}; give --bids-database-dir another folder", ExitCode.DATA
        )
    return layout


def has_index(database_dir: Path) -> bool:
    """Whether an index is kept in a folder."""
    return (database_dir / INDEX).exists()


def _layout(bids_dir: Path, database_dir: Path | None):
    from bids import BIDSLayout, BIDSLayoutIndexer

    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
    try:
        return BIDSLayout(bids_dir, validate=False, database_path=database_dir, indexer=indexer)
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"{bids_dir}: cannot be read as a BIDS dataset ({error})") from error


def _write_index(bids_dir: Path, database_dir: Path) -> None:
    """An index beside where it belongs, renamed when it is whole: pybids takes one for whole as soon as it is there."""
    with tempfile.TemporaryDirectory(dir=database_dir, prefix=".index_") as folder:
        _layout(bids_dir, Path(folder)).connection_manager.session.close()
        os.replace(Path(folder, INDEX), database_dir / INDEX)


def find_scans(
    layout,
    *,
    participants: tuple[str, ...] = (),
    sessions: tuple[str, ...] = (),
    suffixes: tuple[str, ...] = (),
    filters: dict[str, dict] | None = None,
) -> list[Scan]:
    """Scans to reface, each with its reference, in the order of their paths.

    Parameters
    ----------
    layout : bids.BIDSLayout
    participants, sessions : tuple of str
        Labels with or without ``sub-`` / ``ses-``; all if empty. A reference may lie in another session.
    suffixes : tuple of str
        Which images; all anatomical ones that can show a face if empty.
    filters : dict of str to dict, optional
        As in a filter file: for a suffix in lower case, entities and values for pybids. They hold for references, too.

    Raises
    ------
    UsageError
        When a suffix is none of an anatomical image.
    InputError
        When a label is not in the dataset, a filter is no entity, or nothing is left to reface.
    """
    root = Path(layout.root)
    chosen = chosen_suffixes(suffixes)
    if not layout.get(datatype="anat", suffix=list(face_suffixes()), extension=EXTENSIONS):
        raise InputError(
            f"{root}: no anatomical scan in the dataset (sub-*/[ses-*/]anat/*_T1w.nii.gz)", ExitCode.NO_INPUT
        )
    wanted = _labels(layout, participants, sessions)
    within = {key: value for key, value in wanted.items() if key == "subject"}
    candidates = _scans(layout, sorted({*chosen, REFERENCE}), within, filters or {})
    scans = [scan for scan in _scans(layout, chosen, wanted, filters or {})]
    which = "no scan" if len(chosen) > 3 else f"no {', '.join(chosen)} scan"
    if not scans:
        raise InputError(f"{root}: {which} fits; look at the labels and the filter file", ExitCode.NOTHING_TO_DO)
    for label in sorted(set(wanted.get("subject", ())) - {scan.participant for scan in scans}):
        LOG.warning("sub-%s: %s fits, nothing to do", label, which)
    _check_names(scans)
    return sorted(assign_references(scans, candidates), key=lambda scan: scan.relative)


def chosen_suffixes(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Suffixes asked for, spelled as BIDS has them; all if none is named.

    Raises
    ------
    UsageError
        When one is none of an anatomical image.
    """
    known = {name.lower(): name for name in face_suffixes()}
    wrong = [name for name in suffixes if name.lower() not in known]
    if wrong:
        raise UsageError(f"--suffixes {' '.join(wrong)}: not anatomical; there are {', '.join(known.values())}")
    return tuple(sorted({known[name.lower()] for name in suffixes})) or face_suffixes()


def find_untouched(
    layout, scans: list[Scan], *, participants: tuple[str, ...] = (), suffixes: tuple[str, ...] = ()
) -> list[Untouched]:
    """Images of the participants that are none of the scans: of other kinds, or not selected."""
    wanted = _labels(layout, participants, ())
    root = Path(layout.root)
    images = [Path(file.path) for file in layout.get(extension=EXTENSIONS, **wanted) if _in_its_folder(file, root)]
    return untouched_of(images, root, scans, chosen_suffixes(suffixes))


def _labels(layout, participants: tuple[str, ...], sessions: tuple[str, ...]) -> dict[str, list[str]]:
    """Labels as pybids wants them, seen to be in the dataset."""
    wanted = {}
    for entity, labels, prefix in (("subject", participants, "sub-"), ("session", sessions, "ses-")):
        labels = [str(label).removeprefix(prefix) for label in labels]
        known = [str(label) for label in getattr(layout, f"get_{entity}s")()]
        missing = sorted(set(labels) - set(known))
        if missing:
            raise InputError(
                f"{layout.root}: no {entity} {', '.join(missing)}; it has {', '.join(known) or 'none'}",
                ExitCode.NOTHING_TO_DO,
            )
        if labels:
            wanted[entity] = labels
    return wanted


def _scans(layout, suffixes, wanted: dict, filters: dict[str, dict]) -> list[Scan]:
    """Scans of some suffixes that fit labels and filters; a filter's session, say, goes before the label's."""
    named = {key.lower(): value for key, value in filters.items()}
    plain = [name for name in suffixes if not named.get(name.lower())]
    asked = [(plain, {})] if plain else []
    asked += [([name], _for_pybids(named[name.lower()])) for name in suffixes if named.get(name.lower())]
    base = {"datatype": "anat", "extension": EXTENSIONS, **wanted}
    files = [file for names, more in asked for file in _get(layout, {**base, "suffix": names, **more})]
    root = Path(layout.root)
    return [_scan(file, root) for file in files if _in_its_folder(file, root)]


def _in_its_folder(file, root: Path) -> bool:
    """Whether a file is named after a participant and lies in the folder of one: no copy that is kept elsewhere.

    Whether the two are the same participant is for the validator to say.
    """
    folders = Path(file.path).relative_to(root).parts[:-1]
    return bool(folders) and folders[0].startswith("sub-") and "sub" in entities_of(file.filename)


def _scan(file, root: Path) -> Scan:
    path, entities = Path(file.path), entities_of(file.filename)
    suffix = path.name.split(".")[0].split("_")[-1]
    return Scan(
        path, path.relative_to(root).as_posix(), entities["sub"], entities.get("ses"), suffix, entities
    )  # fmt: skip


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
