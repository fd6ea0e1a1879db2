"""Single files of a raw dataset brought to the copy that is shared: as they are where they are clean, else cleaned."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from bids_cpmae.bids.atomic import beside, write_json
from bids_cpmae.bids.leaks import NUMBERS, data_leaks, read_text
from bids_cpmae.bids.privacy import values
from bids_cpmae.bids.privacy.nifti import clean_gzip, clean_nifti, gzip_leaks, nifti_leaks
from bids_cpmae.bids.privacy.sidecars import clean_json, kind_of
from bids_cpmae.bids.privacy.tables import Table, clean_table, role_of
from bids_cpmae.bids.publish import publish_file
from bids_cpmae.errors import OutputError

COPY, HARD = "copy", "hard"
LINKS = (COPY, HARD)
COPIED, CLEANED = "copied", "cleaned"


class NotShareable(ValueError):
    """A file that cannot be shared; the message is the reason, without a path."""


def put_file(source: Path, target: Path, link: str = COPY) -> str:
    """Copy or hard-link a file, in one step; returns `COPIED`.

    Links of DataLad and files on other disks are copied whatever is asked for.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    if link == HARD and not source.is_symlink():
        partial = _partial(target)
        try:
            os.link(source, partial)
            os.replace(partial, target)
            return COPIED
        except OSError:
            pass  # another disk, or one that knows no hard links
        finally:
            # a rename onto the same file leaves both names
            partial.unlink(missing_ok=True)
    publish_file(source, target)
    return COPIED


def put_image(source: Path, target: Path, link: str = COPY) -> str:
    """An image with nothing in its header or wrapping but what describes the voxels.

    Raises
    ------
    NotShareable
        When it is no image that can be read.
    """
    return _put_binary(source, target, link, nifti_leaks, clean_nifti)


def put_recording(source: Path, target: Path, link: str = COPY) -> str:
    """A compressed table without a header line: numbers, looked into at its start."""
    if data_leaks(source):
        raise NotShareable("holds text that could identify somebody")
    return _put_binary(source, target, link, gzip_leaks, clean_gzip)


def _put_binary(source: Path, target: Path, link: str, look: Callable, clean: Callable) -> str:
    try:
        if not look(source):
            return put_file(source, target, link)
        partial = _partial(target)
        try:
            clean(source, partial)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except ValueError as error:
        raise NotShareable(f"cannot be read ({error})") from error
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise NotShareable(f"cannot be read ({error.strerror or 'damaged'})") from error
    return CLEANED


def _partial(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return beside(target)


def put_gradients(source: Path, target: Path, link: str = COPY) -> str:
    """A bval or bvec file, which holds numbers and nothing else."""
    if not NUMBERS.fullmatch(read_text(source)):
        raise NotShareable("holds more than numbers")
    return put_file(source, target, link)


def put_text(source: Path, target: Path, link: str = COPY) -> str:
    """A document for readers, without paths and log-ins."""
    text = read_text(source)
    cleaned = values.clean(text, values.DOCUMENT)
    return put_file(source, target, link) if cleaned == text else _write(target, cleaned)


def put_json(
    root: Path, relative: str, out: Path, link: str = COPY, *, change: Callable[[dict], dict] = dict
) -> str:  # fmt: skip
    """A JSON file with the fields that may be shared; ``change`` is applied to these.

    Raises
    ------
    NotShareable
        When it is no JSON object.
    """
    try:
        content = _read_json(root / relative)
    except ValueError as error:
        raise NotShareable("is no JSON file") from error
    if not isinstance(content, dict):
        raise NotShareable("is no JSON object")
    cleaned, leaks = clean_json(content, kind_of(relative))
    changed = change(cleaned)
    if not leaks and changed == content:
        return put_file(root / relative, out / relative, link)
    write_json(out / relative, changed)
    return CLEANED


def _read_json(path: Path) -> object:
    content = path.read_bytes()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        # JSON is UTF-8; what older tools wrote on Windows is mended on the way
        return json.loads(content.decode("latin-1"))


def put_table(
    root: Path, relative: str, out: Path, link: str = COPY, *, described: dict, shift: timedelta | None = None,
    change: Callable[[Table], Table] = lambda table: table,
) -> str:  # fmt: skip
    """A table; ``change`` is applied to what it was. A table that nothing is left of is not written.

    Raises
    ------
    NotShareable
        When no line is left.
    """
    table = Table.parse(read_text(root / relative))
    changed = change(table)
    cleaned, leaks = clean_table(changed, role_of(relative), described=described, shift=shift)
    if table.rows and not cleaned.rows:
        raise NotShareable("no line of it is about what is shared")
    if not leaks and changed == table:
        return put_file(root / relative, out / relative, link)
    return _write(out / relative, cleaned.text())


def _write(target: Path, text: str) -> str:
    """`write_text` for text that may hold bytes that are no UTF-8."""
    partial = _partial(target)
    try:
        with open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return CLEANED
