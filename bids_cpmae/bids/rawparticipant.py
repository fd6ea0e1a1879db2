"""One participant's files of a raw dataset: images first, then the tables and sidecars that describe them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePosixPath

from bids_cpmae.bids import rawfiles
from bids_cpmae.bids.atomic import write_json
from bids_cpmae.bids.leaks import read_text
from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.privacy.tables import (
    LAST_SHIFTED_YEAR,
    Table,
    dates_before_and_after,
    dates_in,
    draw_shift,
    earlier_shift,
)
from bids_cpmae.bids.rawfiles import NotShareable
from bids_cpmae.bids.rawplan import GRADIENTS, applies, is_anatomical, is_data, is_image, sidecar_for, suffix_of
from bids_cpmae.bids.rawreport import KEPT_FACE, LEFT_OUT, REFACED, Row
from bids_cpmae.bids.sidecar import raw_metadata, read_sidecar

SHIFT, DROP = "shift", "drop"
DEIDENTIFICATION = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
NOTHING_DESCRIBED = "describes nothing that is shared"


@dataclass(frozen=True)
class Participant:
    """A participant who may be shared.

    Attributes
    ----------
    root, derivative, out : Path
        Input, this run's derivative, and the dataset to write.
    label : str
        Without ``sub-``.
    files : list of str
        POSIX paths below ``root``.
    verdicts : dict of str to dict
        Line of the verdict table by the path of the image.
    link, dates : str
        As in `assemble_raw`.
    """

    root: Path
    derivative: Path
    out: Path
    label: str
    files: list[str]
    verdicts: dict[str, dict]
    link: str
    dates: str

    def row(self, file: str, action: Callable[[], str], status: str = "", reason: str = "") -> Row:
        """Do what brings a file there, and tell what became of it."""
        try:
            done = action()
        except NotShareable as error:
            (self.out / file).unlink(missing_ok=True)
            return Row(file, LEFT_OUT, str(error), self.label)
        return Row(file, status or done, reason or (done if status else ""), self.label)


def write_participant(one: Participant) -> list[Row]:
    """All files of a participant; those of an earlier call that are not part of this one go."""
    rows = [one.row(name, *_data(one, name)) for name in one.files if is_data(name)]
    shared = _there(rows)
    rows += _times(one, shared)
    described = _there(rows)
    for name in one.files:
        if name.endswith(GRADIENTS) and _describes(name, described):
            rows.append(one.row(name, partial(rawfiles.put_gradients, one.root / name, one.out / name, one.link)))
    rows += _sidecars(one, described)
    done = {row.file for row in rows}
    rows += [Row(name, LEFT_OUT, NOTHING_DESCRIBED, one.label) for name in one.files if name not in done]
    _remove_stale(one, set(_there(rows)))
    return sorted(rows, key=lambda row: row.file)


def _there(rows: list[Row]) -> list[str]:
    return [row.file for row in rows if row.status != LEFT_OUT]


def _describes(sidecar: str, described: list[str]) -> bool:
    return any(applies(sidecar, name) for name in described)


def _data(one: Participant, name: str) -> tuple:
    """How a file of data is written, the status it gets, and a reason."""
    source, target = one.root / name, one.out / name
    if is_anatomical(name):
        refaced = one.derivative / outputs_of(name).image
        return partial(rawfiles.put_image, refaced, target, one.link), REFACED, one.verdicts[name]["verdict"]
    if is_image(name):
        told = one.verdicts.get(name, {}).get("reason", "")
        return partial(rawfiles.put_image, source, target, one.link), KEPT_FACE, told
    if name.endswith(".tsv.gz"):
        return (partial(rawfiles.put_recording, source, target, one.link),)
    described = raw_metadata(one.root, name)
    return (partial(rawfiles.put_table, one.root, name, one.out, one.link, described=described),)


def _times(one: Participant, shared: list[str]) -> list[Row]:
    """``scans.tsv`` and ``sessions.tsv``, all with one shift."""
    tables = [name for name in one.files if name.endswith(".tsv") and not is_data(name)]
    shift = _shift(one, tables)
    rows = []
    for name in tables:
        put = partial(rawfiles.put_table, one.root, name, one.out, one.link, described=raw_metadata(one.root, name))
        rows.append(one.row(name, partial(put, shift=shift, change=_only_lines(one, name, shared))))
    return rows


def _only_lines(one: Participant, name: str, shared: list[str]) -> Callable[[Table], Table]:
    """Only the lines of what is shared; without times if these are dropped."""
    folder = PurePosixPath(name).parent
    inside = {str(PurePosixPath(path).relative_to(folder)) for path in shared if folder in PurePosixPath(path).parents}

    def change(table: Table) -> Table:
        if suffix_of(name) == "scans":
            table = table.where("filename", inside)
        else:
            table = table.where("session_id", {path.split("/")[0] for path in inside})
        return table.without("acq_time") if one.dates == DROP else table

    return change


def _shift(one: Participant, tables: list[str]) -> timedelta | None:
    """The shift of an earlier call, read off its tables, or a new one."""
    if one.dates == DROP:
        return None
    moments, pairs = [], []
    for name in tables:
        try:
            table = rawfiles.read_table(one.root / name)
        except NotShareable:
            continue
        moments += dates_in(table)
        if (one.out / name).exists():
            key = "filename" if suffix_of(name) == "scans" else "session_id"
            pairs += dates_before_and_after(table, Table.parse(read_text(one.out / name)), key)
    earlier = earlier_shift(pairs)
    if earlier is not None and moments and (max(moments) + earlier).year <= LAST_SHIFTED_YEAR:
        return earlier
    return draw_shift(moments)


def _sidecars(one: Participant, described: list[str]) -> list[Row]:
    """JSON files that describe what is shared; those of refaced images say what was done to them."""
    sidecars = [name for name in one.files if name.endswith(".json") and _describes(name, described)]
    told: dict[str, dict] = {}
    for image in filter(is_anatomical, described):
        made = read_sidecar(one.derivative / outputs_of(image).image_sidecar)
        method = {name: made[name] for name in DEIDENTIFICATION if name in made}
        if method:
            told[sidecar_for(image, sidecars)] = method
    rows = []
    for name in sidecars:
        change = partial(_tell, told=told.get(name, {}), described=described, label=one.label)
        rows.append(one.row(name, partial(rawfiles.put_json, one.root, name, one.out, one.link, change=change)))
    for name in sorted(set(told) - set(sidecars)):
        write_json(one.out / name, told[name])
        rows.append(Row(name, "written", "says how the image was de-identified", one.label))
    return rows


def _tell(content: dict, *, told: dict, described: list[str], label: str) -> dict:
    """A sidecar without references to what is not shared, and with what was done to the image."""
    content = {**content, **told}
    if "IntendedFor" in content:
        named = content.pop("IntendedFor")
        listed = named if isinstance(named, list) else [named]
        there = [name for name in listed if not isinstance(name, str) or _target(name, label) in described]
        if there:
            content["IntendedFor"] = there if isinstance(named, list) else there[0]
    return content


def _target(reference: str, label: str) -> str:
    """A BIDS URI, or the older path below the participant, as a path below the dataset."""
    return reference.removeprefix("bids::") if reference.startswith("bids:") else f"sub-{label}/{reference}"


def _remove_stale(one: Participant, current: set[str]) -> None:
    for path in sorted((one.out / f"sub-{one.label}").rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(one.out).as_posix() not in current:
            path.unlink()
