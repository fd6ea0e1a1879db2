"""Identifiers inside text: dates, addresses, paths, DICOM identifiers, telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import NamedTuple

# BIDS wants shifted dates in 1925 or earlier, so these say nothing
LAST_SHIFTED_YEAR = 1925
SHIFTED = re.compile(r"(?<!\d)(?:1[0-8]\d\d|19[01]\d|192[0-5])-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?)?(?!\d)")
MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
# folders that machines keep people's files in
ROOTS = (
    r"(?:home|Users|users|root|mnt|media|Volumes|scratch|export|nfs|afs|gpfs|lustre|cluster|storage|"
    r"projects?|private|autofs|srv|archive|rds|groups?|labs?)\d*"
)
# a path may hold spaces: it ends with the line, at a quotation mark or at a bracket
REST = r"[^\n\t\"'<>|,;`()\[\]{}]"


class Pattern(NamedTuple):
    """What to look for, the kind it is, and what a hit must be to count."""

    kind: str
    regex: re.Pattern
    accept: Callable[[re.Match], bool] = lambda found: True


def _valid(year: str, month: str, day: str) -> bool:
    try:
        return LAST_SHIFTED_YEAR < date(int(year), int(month), int(day)).year < 2100
    except ValueError:
        return False


def _either_order(found: re.Match) -> bool:
    day, month, year = found.groups()
    return _valid(year, month, day) or _valid(year, day, month)


def _re(text: str, flags: int = 0) -> re.Pattern:
    return re.compile(text, flags)


# the first that fits has the text: a path may hold dates, a UID looks like one
PATTERNS = {
    "login": Pattern("login", _re(r"[a-z][a-z0-9+.-]*://[^\s/@:]+(?::[^\s/@]*)?@[^\s\"'<>]+", re.I)),
    "file-url": Pattern("path", _re(rf"file:/{{1,3}}{REST}+", re.I)),
    "windows": Pattern("path", _re(rf"(?<![A-Za-z0-9])[A-Za-z]:(?:\\+|/(?!/)){REST}+")),
    "windows-deep": Pattern("path", _re(rf"(?<![A-Za-z0-9])[A-Z]:\\+[\w .$-]+\\+{REST}+")),
    "unc": Pattern("path", _re(rf"(?<![\\\w])\\\\[\w.$-]+\\+[\w.$ -]{REST}*")),
    "home": Pattern("path", _re(rf"(?<![\w.~:/<-])(?:~\w*|/{ROOTS})/(?=[^\s/]){REST}+")),
    "posix": Pattern("path", _re(rf"(?<![\w.~:/<-])/(?:[^/\s:'\"`,;)<>]+/)+[^/\s:]{REST}*")),
    "e-mail": Pattern("e-mail", _re(r"[\w.+-]+@[A-Za-z][\w-]*(?:\.[\w-]+)+")),
    "uid": Pattern("uid", _re(r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d*)){6,}(?![\d.])")),
    "uuid": Pattern("uid", _re(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.I)),
    "mac": Pattern("device", _re(r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b", re.I)),
    "person": Pattern("person-name", _re(r"\b[A-Za-z][A-Za-z'-]+\^[A-Za-z][A-Za-z'^ -]*")),
    "year-first": Pattern("date", _re(r"(?<![\d.])(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d)"),
                          lambda found: _valid(found[1], found[3], found[4])),
    "year-last": Pattern("date", _re(r"(?<![\d.])(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})(?!\d)"), _either_order),
    "month-name": Pattern("date", _re(rf"\b(?:\d{{1,2}}\W{{1,2}}{MONTH}|{MONTH}\W{{1,2}}\d{{1,2}})\W{{1,3}}(\d{{4}})\b",
                                      re.I), lambda found: LAST_SHIFTED_YEAR < int(found[1]) < 2100),
    "compact": Pattern("date", _re(r"(?<![\d.])(\d{4})(\d{2})(\d{2})(?:\d{6}(?:\.\d+)?)?(?![\d])"),
                       lambda found: _valid(*found.groups())),
    "clock": Pattern("time", _re(r"(?<![\d:])(?:[01]?\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?![\d:])")),
    "dicom-time": Pattern("time", _re(r"\btime\s*=\s*\d{6}(?:\.\d+)?", re.I)),
    "ssn": Pattern("identifier", _re(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")),
    "phone": Pattern("phone", _re(r"(?<![\w.])(?:\+\d{1,3}[ .()/-]*(?:\d[ .()/-]{0,2}){7,12}(?!\d)"
                                  r"|\(\d{3}\) ?\d{3}-\d{4}\b|\d{3}-\d{3}-\d{4}\b)")),
}  # fmt: skip

_LOGIN = ("login", "file-url", "unc", "home")
# strings of sidecars: everything
SIDECAR = tuple(name for name in PATTERNS if name != "windows-deep")
# tables that describe people
PEOPLE = tuple(name for name in SIDECAR if name != "posix")
# tables of data: numbers that look like dates are numbers there, and a clock may be part of the task
DATA = (*_LOGIN, "windows", "e-mail", "uid", "uuid", "person", "year-first")
# documents for readers: their authors and dates are public
DOCUMENT = (*_LOGIN, "windows-deep")
# versions are full of numbers and dates
VERSION = tuple(name for name in SIDECAR if name not in ("year-first", "year-last", "compact", "month-name", "uid"))


def find(text: str, names: tuple[str, ...] = SIDECAR) -> list[tuple[str, int, int]]:
    """Identifiers in a text.

    Parameters
    ----------
    text : str
    names : tuple of str
        Which of `PATTERNS` to look for.

    Returns
    -------
    list of (kind, start, stop)
        In the order of the text, none overlapping.
    """
    text = SHIFTED.sub(lambda found: " " * len(found.group()), text)
    hits: list[tuple[str, int, int]] = []
    for name in names:
        kind, regex, accept = PATTERNS[name]
        for found in regex.finditer(text):
            start, stop = found.span()
            if accept(found) and all(stop <= begin or start >= end for _, begin, end in hits):
                hits.append((kind, start, stop))
    return sorted(hits, key=lambda hit: hit[1])


def clean(text: str, names: tuple[str, ...] = SIDECAR) -> str:
    """The text with every identifier replaced by a word for what it was."""
    for kind, start, stop in reversed(find(text, names)):
        text = f"{text[:start]}[{kind} removed]{text[stop:]}"
    return text


def nothing_left(text: str) -> bool:
    """Whether cleaning has left only its own words."""
    return not re.sub(r"\[[\w-]+ removed\]|\W", "", text)
