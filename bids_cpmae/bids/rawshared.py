"""Files of a raw dataset as a whole: its description, changes, tables of participants, documents and stimuli.

What they hold follows from the participants that are there when they are written, so that calls for different
participants may write them one after the other, each under the lock; the last one has them all.
"""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path

from bids_cpmae import __version__
from bids_cpmae.bids import rawfiles
from bids_cpmae.bids.atomic import PARTIAL, write_json
from bids_cpmae.bids.dataset import DESCRIPTION, RAW, check_output
from bids_cpmae.bids.leaks import read_text
from bids_cpmae.bids.privacy.names import OF_PEOPLE, identifying
from bids_cpmae.bids.privacy.sidecars import DATASET, clean_json
from bids_cpmae.bids.privacy.tables import clean_table, role_of
from bids_cpmae.bids.rawfiles import NotShareable
from bids_cpmae.bids.rawplan import GRADIENTS, Raw, applies
from bids_cpmae.bids.rawreport import LEFT_OUT, Row
from bids_cpmae.bids.sidecar import NAME, dataset_description, raw_metadata, read_sidecar
from bids_cpmae.errors import ExitCode, InputError, OutputError

WHAT = "anatomical images with synthetic faces, metadata without what could identify somebody"
# of what belongs to nobody alone
FOLDERS = ("phenotype", "stimuli")
CHANGE = re.compile(rf"^(\S+ \d{{4}}-\d\d-\d\d)\n+  - De-identified with {NAME}", re.M)
VERSION = re.compile(r"^v?(\d+)\.(\d+)\.(\d+)\b", re.M)


def start_raw(bids_dir: Path, out: Path) -> None:
    """Refuse a folder that must not be written to; then write the dataset's description.

    Raises
    ------
    InputError
        When the input has no description.
    OutputError
        When ``out`` is, holds or lies in the input, or holds a dataset that this software has not written.
    """
    if not read_sidecar(bids_dir / DESCRIPTION):
        raise InputError(f"{bids_dir}: no dataset_description.json; give the root of a BIDS dataset", ExitCode.NO_INPUT)
    source, target = bids_dir.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise OutputError(f"{out}: is, holds or lies inside the input; give another folder")
    check_output(out, RAW)
    write_json(out / DESCRIPTION, raw_description(bids_dir))


def raw_description(bids_dir: Path) -> dict:
    """``dataset_description.json``: the input's, with what made this dataset and what it was made from.

    DOI and version are the input's own: they go to ``SourceDatasets``, and this dataset gets new ones when it is
    published.
    """
    raw = read_sidecar(bids_dir / DESCRIPTION)
    cleaned, _ = clean_json(raw, DATASET)
    kept = {name: value for name, value in cleaned.items() if name not in ("DatasetDOI", "DatasetVersion")}
    made = [one for one in _list(kept.get("GeneratedBy")) if one.get("Name") != NAME]
    return {
        **kept,
        "DatasetType": "raw",
        "GeneratedBy": [*made, {"Name": NAME, "Version": __version__, "Description": WHAT}],
        "SourceDatasets": [*_list(kept.get("SourceDatasets")), *dataset_description(bids_dir)["SourceDatasets"]],
    }


def _list(value: object) -> list[dict]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def changes(text: str, before: str = "") -> str:
    """``CHANGES`` with an entry on top, in the form that CPAN uses.

    Parameters
    ----------
    text : str
        The input's, or nothing.
    before : str
        What an earlier call wrote, whose entry keeps its day.
    """
    known = VERSION.search(text)
    version = f"{known[1]}.{known[2]}.{int(known[3]) + 1}" if known else "1.0.0"
    earlier = CHANGE.search(before)
    head = earlier[1] if earlier and earlier[1].startswith(f"{version} ") else f"{version} {date.today().isoformat()}"
    entry = f"{head}\n\n  - De-identified with {NAME} {__version__}: {WHAT}.\n"
    return f"{entry}\n{text.strip()}\n" if text.strip() else entry


def write_shared(raw: Raw, out: Path, link: str) -> list[Row]:
    """Write the files that belong to nobody alone, for the participants that ``out`` holds now."""
    there = {path.name for path in out.glob("sub-*") if path.is_dir()}
    data = [path.relative_to(out).as_posix() for name in sorted(there) for path in _files(out / name)]
    rows = [Row(DESCRIPTION, "written")]
    tables = [name for name in raw.shared if name.endswith(".tsv") and not name.startswith("stimuli/")]
    columns: dict[str, set[str]] = {}
    others = [name for name in raw.shared if name not in tables and name.split(".")[0] not in
              ("dataset_description", "CHANGES")]  # fmt: skip
    for name in tables:
        _put(rows, out, name, lambda name=name: _put_people(raw.root, name, out, link, there, columns))
    for name in others:
        _put(rows, out, name, lambda name=name: _put_other(raw.root, name, out, link, data, columns))
    rows.append(_put_changes(raw, out))
    _remove_stale(out, {row.file for row in rows if row.status != LEFT_OUT})
    return rows


def _remove_stale(out: Path, current: set[str]) -> None:
    """Files that an earlier call has written where it found them in the input, and this one has not."""
    folders = [out / name for name in FOLDERS]
    for path in [*out.iterdir(), *(path for folder in folders for path in _files(folder))]:
        hidden = path.name.startswith(".")
        if path.is_file() and not hidden and path.relative_to(out).as_posix() not in current:
            path.unlink()
    for folder, _, _ in (found for top in folders for found in os.walk(top, topdown=False)):
        if not os.listdir(folder):
            os.rmdir(folder)


def _files(folder: Path) -> list[Path]:
    """All that is there; a folder that another run takes away meanwhile is passed over."""
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return sorted(path for path in found if PARTIAL not in path.name)


def _put(rows: list[Row], out: Path, name: str, action) -> None:
    try:
        rows.append(Row(name, action()))
    except NotShareable as error:
        (out / name).unlink(missing_ok=True)
        rows.append(Row(name, LEFT_OUT, str(error)))


def _put_people(root: Path, name: str, out: Path, link: str, there: set[str], columns: dict[str, set[str]]) -> str:
    """A table of participants, samples or a questionnaire: only lines and columns that may be shared."""
    described = raw_metadata(root, name)
    change = _people_of(there) if role_of(name) else (lambda table: table)
    done = rawfiles.put_table(root, name, out, link, described=described, change=change)
    # only for a table that was written: a JSON file beside no table would describe nothing
    table = rawfiles.read_table(root / name)
    gone = set(table.columns) - set(clean_table(change(table), role_of(name), described=described)[0].columns)
    columns[name.removesuffix(".tsv") + ".json"] = gone
    return done


def _people_of(there: set[str]):
    return lambda table: table.where("participant_id", there)


def _put_changes(raw: Raw, out: Path) -> Row:
    old = next((name for name in raw.shared if name.split(".")[0] == "CHANGES"), None)
    text = why = ""
    try:
        text = rawfiles.clean_text(raw.root / old)[1] if old else ""
    except NotShareable as error:
        why = f"the input's {error}"
    before = read_text(out / "CHANGES") if (out / "CHANGES").exists() else ""
    rawfiles.write_any_text(out / "CHANGES", changes(text, before))
    return Row("CHANGES", "written", why)


def _put_other(root: Path, name: str, out: Path, link: str, data: list[str], columns: dict[str, set[str]]) -> str:
    source, target = root / name, out / name
    if name.startswith("stimuli/"):
        return rawfiles.put_file(source, target, link)
    if name in columns:
        return rawfiles.put_json(root, name, out, link, change=_without(columns[name]))
    if name == "genetic_info.json":
        return rawfiles.put_json(root, name, out, link)
    if name.endswith((".json", *GRADIENTS)):
        if not any(applies(name, one) for one in data if not one.endswith((".json", *GRADIENTS))):
            raise NotShareable("describes nothing that is shared")
        if name.endswith(".json"):
            return rawfiles.put_json(root, name, out, link, change=_without_identifying)
        return rawfiles.put_gradients(source, target, link)
    return rawfiles.put_text(source, target, link)


def _without(gone: set[str]):
    return lambda content: {name: value for name, value in content.items() if name not in gone}


def _without_identifying(content: dict) -> dict:
    """Without descriptions of columns that name people."""
    return {
        name: value for name, value in content.items()
        if not (isinstance(value, dict) and identifying(name) in OF_PEOPLE)
    }  # fmt: skip
