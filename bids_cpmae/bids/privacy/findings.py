"""One thing that could identify somebody, and how much of it may be shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass

SHOWN = 3

KINDS = {
    "acquisition-date": "a date later than 1925, in a table of participants, sessions or scans",
    "age": "an age above 89",
    "birth": "date or place of birth",
    "comment": "free text written by people",
    "contact": "address, telephone, e-mail or web account of a person",
    "crash-file": "a crash or swap file: holds paths, user and machine names",
    "date": "a date later than 1925",
    "date-in-name": "a date in the name of a file or folder",
    "device": "serial number or name of a machine",
    "e-mail": "an e-mail address",
    "extension": "a NIfTI header extension, or bytes where one would be",
    "gzip-comment": "a comment in a gzip header",
    "gzip-extra": "an extra field in a gzip header",
    "gzip-name": "another file name in a gzip header",
    "gzip-time": "the time a gzip file was packed",
    "header-text": "free text in a NIfTI header",
    "identifier": "a number given to a person or visit",
    "link": "a link to an absolute path",
    "login": "user name or password in a web address",
    "path": "an absolute path",
    "person-name": "the name of a person",
    "phone": "a telephone number",
    "place": "hospital, department, town or address",
    "scanner-file": "a scanner's own format: holds names, dates and identifiers",
    "staff": "operator, physician or other staff",
    "system-file": "a file that an operating system left behind",
    "time": "a time of day",
    "trailing-bytes": "bytes after the voxels or after the end of a gzip stream",
    "uid": "a DICOM or other unique identifier",
    "undescribed-column": "a column that neither BIDS nor the JSON file beside the table describes",
    "unknown-field": "a field that is not on the list of what may be shared",
    "unreadable": "cannot be read, so nobody can say",
}


@dataclass(frozen=True)
class Finding:
    """A leak.

    Attributes
    ----------
    file : str
        POSIX path below the dataset.
    field : str
        Header field, JSON key (``a.b[2]``), column, or part of the file.
    kind : str
        One of `KINDS`.
    value : str
        As found; never to be printed whole, see `shown`.
    count : int
        How often it is there, for columns of tables.
    """

    file: str
    field: str
    kind: str
    value: str = ""
    count: int = 1

    @property
    def shown(self) -> str:
        """The first characters and the length."""
        return shorten(self.value)

    def as_dict(self) -> dict:
        """For JSON, the value shortened."""
        return {**asdict(self), "value": self.shown}


def shorten(value: object) -> str:
    """The first characters of a value, never all of it, and its length."""
    text = " ".join(str(value).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"{text[: min(SHOWN, len(text) // 2)]}… ({len(text)} characters)" if text else ""
