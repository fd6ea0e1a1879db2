"""Files written in one step: beside their place, flushed, compared and renamed, so that none is ever half there."""

from __future__ import annotations

import filecmp
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from bids_cpmae.errors import OutputError

# the end of the name of a file that is being written: no program takes it for an image or a table
PARTIAL = ".partial"
# a run that begins takes away what killed ones have left; what another was just writing is then written once more
ATTEMPTS = 10
# a participant's first image may come with its own folder, the session's and the participant's, in the derivative's
NEW_FOLDERS = 4


def beside(target: Path) -> Path:
    """Where a file is written before it is renamed to its own name: hidden, of no known kind, nobody else's.

    A process number would not do: processes on other nodes and in other containers have the same.
    """
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}{PARTIAL}")


def rename_all(partials: Mapping[Path, Path]) -> None:
    """Give files their names, in their order."""
    for target, partial in partials.items():
        os.replace(partial, target)


def put_files(
    files: Mapping[Path, Path | bytes], *, change: Callable[[Mapping[Path, Path]], None] = rename_all
) -> bool:
    """Bring contents to their places: all are written beside first, so that they then change at nearly one moment.

    What a place holds already stays as it is.

    Parameters
    ----------
    files : mapping of Path to Path or bytes
        By its place, a finished file or what to write.
    change : callable
        Given what was written, by its place, brings it there.

    Returns
    -------
    bool
        Whether anything changed.

    Raises
    ------
    OutputError
        When something cannot be written, or reads back as something else.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _written(files) as partials:
                if partials:
                    change(partials)
                    _settle(partials)
                return bool(partials)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or attempt == ATTEMPTS:
                place = error.filename2 or error.filename or next(iter(files))
                raise OutputError(f"{place}: cannot be written ({error.strerror or error})") from error
    raise AssertionError("unreachable")


def _settle(targets: Iterable[Path]) -> None:
    """Have new names, and those of the folders above that may be new, on the disk before anything else is written."""
    for folder in sorted({above for target in targets for above in target.parents[:NEW_FOLDERS]}, reverse=True):
        # some file systems know no such thing, and nothing can be done about it
        with suppress(OSError):
            number = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)


@contextmanager
def _written(files: Mapping[Path, Path | bytes]) -> Iterator[dict[Path, Path]]:
    """What differs from what is there, written beside; gone at the end unless it was renamed."""
    partials: dict[Path, Path] = {}
    try:
        for target, content in files.items():
            if not (target.is_file() and _holds(target, content)):
                partials[target] = beside(target)
                _write(partials[target], content, target)
        yield partials
    finally:
        for partial in partials.values():
            with suppress(OSError):
                partial.unlink()


def _write(partial: Path, content: Path | bytes, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with open(content, "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        same = _holds(partial, content)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    if not same:
        raise OutputError(f"{target}: reads back as something else than was written; is the disk sound?")


def _holds(path: Path, content: Path | bytes) -> bool:
    if isinstance(content, bytes):
        return path.stat().st_size == len(content) and path.read_bytes() == content
    return filecmp.cmp(content, path, shallow=False)


def write_text(path: Path, text: str) -> Path:
    """Write a small file in one step: it is there whole or not at all.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    put_files({path: text.encode("utf-8")})
    return path


def json_text(content: object) -> str:
    """A JSON document as it is written."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, content: object) -> Path:
    """`write_text` of a JSON document."""
    return write_text(path, json_text(content))


def sweep(root: Path, *below: str) -> None:
    """Take away what writers that were killed have left in a folder, and anywhere below some folders in it."""
    with suppress(OSError):
        for path in [*root.glob(f".*{PARTIAL}"), *(it for part in below for it in (root / part).rglob(f".*{PARTIAL}"))]:
            with suppress(OSError):
                path.unlink()
