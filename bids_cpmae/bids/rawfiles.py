"""Single files of a raw dataset brought to the copy that is shared: as they are where they are clean, else cleaned."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def reading() -> Iterator[None]:
    """Where a file of the input is read: one that cannot be is left out, and the others are shared.

    Raises
    ------
    NotShareable
    """
    try:
        yield
    except NotShareable:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        # the system's own words would name the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NotShareable(f"cannot be read ({reason or 'damaged'})") from error


@contextmanager
def _writing(target: Path) -> Iterator[Path]:
    """Where to write what then gets the name ``target``; the opposite of `reading`: what fails here ends the run."""
    partial = beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        # also a rename onto the same file leaves both names
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_table(path: Path) -> Table:
    """A table of the input.

    Raises
    ------
    NotShareable
        When it cannot be read.
    """
    with reading():
        return Table.parse(read_text(path))


def put_file(source: Path, target: Path, link: str = COPY) -> str:
    """Copy or hard-link a file, in one step; returns `COPIED`.

    Links of DataLad and files on other disks are copied whatever is asked for.

    Raises
    ------
    NotShareable
        When it cannot be read.
    OutputError
        When it cannot be written.
    """
    with reading(), open(source, "rb"):
        pass
    if link == HARD and not source.is_symlink():
        # another disk, or one that knows no hard links, is no error
        with suppress(OutputError), _writing(target) as partial:
            os.link(source, partial)
            return COPIED
    try:
        if target.exists() and target.samefile(source):
            # linked by an earlier call
            target.unlink()
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
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
    with reading():
        if data_leaks(source):
            raise NotShareable("holds text that could identify somebody")
    return _put_binary(source, target, link, gzip_leaks, clean_gzip)


def _put_binary(source: Path, target: Path, link: str, look: Callable, clean: Callable) -> str:
    with reading():
        leaks = look(source)
    if not leaks:
        return put_file(source, target, link)
    with _writing(target) as partial:
        try:
            clean(source, partial)
        except ValueError as error:
            raise NotShareable(f"cannot be read ({error})") from error
    return CLEANED


def put_gradients(source: Path, target: Path, link: str = COPY) -> str:
    """A bval or bvec file, which holds numbers and nothing else."""
    with reading():
        if not NUMBERS.fullmatch(read_text(source)):
            raise NotShareable("holds more than numbers")
    return put_file(source, target, link)


def put_text(source: Path, target: Path, link: str = COPY) -> str:
    """A document for readers, without paths and log-ins."""
    text, cleaned = clean_text(source)
    return put_file(source, target, link) if cleaned == text else write_any_text(target, cleaned)


def clean_text(source: Path) -> tuple[str, str]:
    """A document for readers, and the same without paths and log-ins.

    Raises
    ------
    NotShareable
        When it cannot be read.
    """
    with reading():
        text = read_text(source)
    return text, values.clean(text, values.DOCUMENT)


def put_json(
    root: Path, relative: str, out: Path, link: str = COPY, *, change: Callable[[dict], dict] = dict
) -> str:  # fmt: skip
    """A JSON file with the fields that may be shared; ``change`` is applied to these.

    Raises
    ------
    NotShareable
        When it is no JSON object.
    """
    content = _read_json(root / relative)
    if not isinstance(content, dict):
        raise NotShareable("is no JSON object")
    cleaned, leaks = clean_json(content, kind_of(relative))
    changed = change(cleaned)
    if not leaks and changed == content:
        return put_file(root / relative, out / relative, link)
    write_json(out / relative, changed)
    return CLEANED


def _read_json(path: Path) -> object:
    with reading():
        content = path.read_bytes()
    try:
        # JSON is UTF-8; what older tools wrote on Windows is mended on the way
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    try:
        return json.loads(text)
    except ValueError as error:
        raise NotShareable("is no JSON file") from error


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
    table = read_table(root / relative)
    changed = change(table)
    cleaned, leaks = clean_table(changed, role_of(relative), described=described, shift=shift)
    if table.rows and not cleaned.rows:
        raise NotShareable("no line of it is about what is shared")
    if not leaks and changed == table:
        return put_file(root / relative, out / relative, link)
    return write_any_text(out / relative, cleaned.text())


def write_any_text(target: Path, text: str) -> str:
    """`write_text` for text that may hold bytes that are no UTF-8."""
    with _writing(target) as partial, open(partial, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    return CLEANED
