"""Tables: dates shifted or dropped, ages pooled, columns that nobody described or that name people left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import PurePosixPath
from random import SystemRandom

from bids_cpmae.bids.privacy import values
from bids_cpmae.bids.privacy.names import OF_PEOPLE, identifying, is_age
from bids_cpmae.bids.privacy.sidecars import COLUMNS, Leak, clean_json
from bids_cpmae.bids.privacy.values import LAST_SHIFTED_YEAR

MISSING = "n/a"
OLDEST = 89
PER_YEAR = {"month": 12, "week": 365.25 / 7, "day": 365.25}
# columns that BIDS itself describes, by the table
KNOWN = {
    "participants": "participant_id species age sex handedness strain strain_rrid HED",
    "samples": "sample_id participant_id sample_type pathology derived_from",
    "sessions": "session_id acq_time pathology HED",
    "scans": "filename acq_time HED",
    "phenotype": "participant_id session_id",
}
AGE = re.compile(r"\D{0,2}(\d+(?:\.\d+)?)\s*(?:-|to|–)?\s*(\d+(?:\.\d+)?)?\s*(?:\+|y|yrs?|years?|Y)?")
INSTANT = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?")
# a shifted date lies in the 45 years up to 1925
LAST_DAY, SPAN_DAYS = date(LAST_SHIFTED_YEAR, 1, 1), 45 * 365


@dataclass(frozen=True)
class Table:
    """A table as BIDS writes them: a header line, cells between tabulators, no quotation marks."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Table:
        """Read a table; short lines are filled up."""
        lines = [line for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")) if line.strip()]
        columns = tuple(lines[0].split("\t")) if lines else ()
        rows = (line.split("\t") for line in lines[1:])
        width = len(columns)
        return cls(columns, tuple(tuple((row + [MISSING] * width)[:width]) for row in rows))

    def text(self) -> str:
        """The table as a file."""
        return "".join("\t".join(line) + "\n" for line in (self.columns, *self.rows))

    def column(self, name: str) -> list[str]:
        """Cells of a column; none where there is no such column."""
        return [row[self.columns.index(name)] for row in self.rows] if name in self.columns else []

    def without(self, name: str) -> Table:
        """The table without a column."""
        at = [index for index, column in enumerate(self.columns) if column != name]
        return Table(tuple(self.columns[i] for i in at), tuple(tuple(row[i] for i in at) for row in self.rows))

    def where(self, name: str, allowed) -> Table:
        """Only the lines whose cell is among those allowed."""
        if name not in self.columns:
            return self
        index = self.columns.index(name)
        return Table(self.columns, tuple(row for row in self.rows if row[index] in allowed))


def role_of(relative: str) -> str | None:
    """Which table of people a file is: a key of `KNOWN`; None for tables of data."""
    path = PurePosixPath(relative)
    if path.parts[0] == "phenotype":
        return "phenotype"
    suffix = path.name.split(".")[0].split("_")[-1]
    return suffix if suffix in KNOWN else None


def clean_table(
    table: Table, role: str | None = None, *, described: dict | None = None, shift: timedelta | None = None
) -> tuple[Table, list[Leak]]:
    """A table without what could identify somebody, and what that was.

    Parameters
    ----------
    table : Table
    role : str, optional
        A key of `KNOWN` for a table of people. Others are data: dates without dashes are numbers there.
    described : dict, optional
        What the JSON file beside the table says of its columns.
    shift : timedelta, optional
        Added to dates. Without it, they become ``n/a``.

    Returns
    -------
    cleaned : Table
        Equal to the table given where there is nothing to clean.
    leaks : list of Leak
        One a column and kind; ``value`` is the first of them.
    """
    leaks: list[Leak] = []
    # what is left of it, so that no column stays whose description goes
    described = clean_json(described, COLUMNS)[0] if described else {}
    kept: list[tuple[str, list[str]]] = []
    # by place, since a table without a header line may have the same first cell twice
    for index, name in enumerate(table.columns):
        cells = [row[index] for row in table.rows]
        why = _refused(name, role, described)
        if why:
            told = [cell for cell in cells if cell not in (MISSING, "")]
            if told:
                leaks.append(Leak(name, why, told[0], len(told)))
            continue
        cleaned = _clean_column(name, cells, role, described.get(name), shift, leaks)
        if cleaned != cells and set(cleaned) <= {MISSING, ""} and name not in KNOWN.get(role or "", "").split()[:1]:
            continue
        kept.append((name, cleaned))
    return Table(tuple(name for name, _ in kept), tuple(zip(*(cells for _, cells in kept)))), leaks


def _refused(name: str, role: str | None, described: dict) -> str | None:
    """Why a column may not stay, or None."""
    if role and name in KNOWN[role].split():
        return None
    why = identifying(name)
    if role is None:
        return why if why in OF_PEOPLE else None
    if why in ("date", "time"):
        # its cells are looked at one by one
        why = None
    if role and not why and not is_described(described.get(name)):
        return "undescribed-column"
    return why or ("person-name" if name.lower() == "name" else None)


def is_described(entry: object) -> bool:
    """Whether the JSON file beside a table says anything of a column."""
    return any(entry.values()) if isinstance(entry, dict) else bool(entry)


def _clean_column(name, cells, role, entry, shift, leaks) -> list[str]:
    scope = values.PEOPLE if role else values.DATA
    hits: dict[str, list[str]] = {}
    units = str(entry.get("Units", "")) if isinstance(entry, dict) else ""
    cleaned = [_clean_cell(name, cell, role, scope, units, shift, hits) for cell in cells]
    leaks.extend(Leak(name, kind, found[0], len(found)) for kind, found in hits.items())
    return cleaned


def _clean_cell(name, cell, role, scope, units, shift, hits) -> str:
    if not cell or cell == MISSING:
        return cell
    if role and is_age(name):
        pooled = pool_age(cell, units)
        if pooled != cell:
            hits.setdefault("age", []).append(cell)
        return pooled
    found = values.find(cell, scope) if role or not _is_number(cell) else []
    if not found:
        return cell
    kind = "acquisition-date" if role and found[0][0] == "date" else found[0][0]
    hits.setdefault(kind, []).append(cell)
    if kind == "acquisition-date" and shift is not None and INSTANT.fullmatch(cell):
        return shift_date(cell, shift)
    if kind == "path" and name == "stim_file":
        return re.split(r"[\\/]", cell)[-1]
    return MISSING


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def pool_age(cell: str, units: str = "") -> str:
    """An age, with all above 89 years as 89, the cap that BIDS recommends.

    HIPAA's safe harbour wants all ages above 89 to be one category. Here that category is joined with 89 itself, so
    that the column stays numbers.
    """
    found = AGE.fullmatch(cell.strip())
    if not found:
        return cell
    factor = next((times for unit, times in PER_YEAR.items() if units.lower().startswith(unit)), 1)
    low, high = (float(part) if part else None for part in found.groups())
    if (high or low) <= OLDEST * factor:
        return cell
    return f"{OLDEST * factor:g}" if high is None or low > OLDEST * factor else MISSING


def parse_date(cell: str) -> datetime | None:
    """A date with or without a time of day, as BIDS writes them; the time zone is passed over."""
    if not INSTANT.fullmatch(cell):
        return None
    text = re.sub(r"(?:Z|[+-]\d\d:\d\d)$", "", cell) if len(cell) > 10 else cell
    whole, _, fraction = text.partition(".")
    try:
        return datetime.fromisoformat(whole) + timedelta(microseconds=int(f"{fraction:0<6}"))
    except ValueError:
        return None


def shift_date(cell: str, shift: timedelta) -> str:
    """A date moved, in the form it had; dates that are no dates, or in 1925 or earlier already, stay."""
    moment = parse_date(cell)
    if moment is None or moment.year <= LAST_SHIFTED_YEAR:
        return cell
    if len(cell) == 10:
        return (moment + timedelta(days=shift.days)).date().isoformat()
    moved = (moment + shift).isoformat(timespec="microseconds" if "." in cell else "seconds")
    return moved + ("Z" if cell.endswith("Z") else "")


def dates_in(table: Table) -> list[datetime]:
    """All dates later than 1925."""
    moments = (parse_date(cell) for row in table.rows for cell in row)
    return [moment for moment in moments if moment and moment.year > LAST_SHIFTED_YEAR]


def draw_shift(moments: list[datetime]) -> timedelta | None:
    """One shift for all dates of a participant, which lays the last of them in the 45 years up to 1925.

    Days and times of day are drawn by the operating system's generator and kept nowhere, so that nobody can undo it.
    Intervals between a participant's dates stay as they are.
    """
    if not moments:
        return None
    chance = SystemRandom()
    target = datetime.combine(LAST_DAY, datetime.min.time()) - timedelta(
        days=chance.randrange(SPAN_DAYS), microseconds=chance.randrange(86_400_000_000)
    )
    return target - max(moments)


def dates_before_and_after(before: Table, after: Table, key: str) -> list[tuple[str, str]]:
    """``acq_time`` of the same lines of a table and of its shifted copy; ``key`` is the column that names the lines."""
    if not {key, "acq_time"} <= set(before.columns) & set(after.columns):
        return []
    written = dict(zip(after.column(key), after.column("acq_time")))
    pairs = ((cell, written.get(name, "")) for name, cell in zip(before.column(key), before.column("acq_time")))
    return [(cell, moved) for cell, moved in pairs if cell != moved and parse_date(cell) and parse_date(moved)]


def earlier_shift(pairs: list[tuple[str, str]]) -> timedelta | None:
    """The shift that an earlier run used, read off its result, so that a second run gives the same dates.

    The finer a date is written, the more of the shift it tells: a day alone tells only the days.
    """
    if not pairs:
        return None
    was, now = max(pairs, key=lambda pair: len(pair[0]))
    return parse_date(now) - parse_date(was)
