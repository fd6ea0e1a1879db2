"""What can go wrong, and the exit code each kind ends with."""

from __future__ import annotations

import errno
import os
import re
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes: those of the BIDS Application execution specification (0 to 73), and the shell's for signals."""

    OK = 0
    SCAN_FAILED = 1
    INVALID_BIDS = 16
    UNKNOWN_LEVEL = 17
    NOTHING_TO_DO = 18
    USAGE = 64
    DATA = 65
    NO_INPUT = 66
    SOFTWARE = 70
    NO_MEMORY = 71
    CANNOT_CREATE = 73
    INTERRUPTED = 130
    TERMINATED = 143


# what libraries say of it
OUT_OF_MEMORY = ("memoryerror", "allocate memory", "out of memory", "bad_alloc", "cannot map", "failed to map segment",
                 "can't start new thread", os.strerror(errno.ENOMEM).lower())  # fmt: skip
MEMORY_ADVICE = "not enough memory; give more, or work on fewer scans at a time (--nprocs)"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
# a line of a traceback that names an error, also as nipype indents it
ERROR = re.compile(r"\s*(\w+\.)*\w*(Error|Exception)\b")
# numpy's words where a disk is full
PARTLY_WRITTEN = re.compile(r"\d+ requested and \d+ written")


class CPMAEError(Exception):
    """Base of all errors that carry a message for the user: what, why, and the way out."""

    code = ExitCode.SOFTWARE


class ScanError(CPMAEError, ValueError):
    """One scan cannot be refaced; the others can go on."""

    code = ExitCode.DATA


class SkippedError(ScanError):
    """A scan that is left alone on purpose: there is no face in it to replace, or it is none to be refaced."""


class CertificateError(ScanError):
    """A written file differs from its source where it must not."""


class WeightsError(CPMAEError):
    """A weights file is missing, damaged, or of another version."""

    code = ExitCode.NO_INPUT


class UsageError(CPMAEError):
    """The command line asks for something that cannot be done."""

    code = ExitCode.USAGE


class InputError(CPMAEError):
    """The dataset cannot be used: no dataset, invalid, or nothing in it to work on."""

    def __init__(self, message: str, code: ExitCode = ExitCode.INVALID_BIDS) -> None:
        super().__init__(message)
        self.code = code


class OutputError(CPMAEError):
    """The output or work folder cannot be used."""

    code = ExitCode.CANNOT_CREATE


class LevelError(UsageError):
    """There is no such analysis level."""

    code = ExitCode.UNKNOWN_LEVEL


def short_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it came of, is want of memory, by whatever library."""
    while error is not None:
        says = isinstance(error, (MemoryError, RuntimeError, OSError, ImportError))
        if getattr(error, "errno", None) == errno.ENOMEM or says and reason_in(told(error)) == MEMORY_ADVICE:
            return True
        error = error.__cause__ or error.__context__
    return False


def told(error: BaseException) -> str:
    """An error as the last line of a traceback has it."""
    return f"{type(error).__name__}: {error}"


def reason_of(error: Exception) -> str:
    """What to tell of an error that stopped a scan; may hold paths of this machine."""
    return str(error) if isinstance(error, CPMAEError) else reason_in(told(error))


def reason_in(text: str) -> str:
    """What to tell of an error that nobody foresaw, by its traceback or the last line of that."""
    lines = [line.strip() for line in text.splitlines() if ERROR.match(line)] or [text]
    for line in lines:
        if any(words in line.lower() for words in OUT_OF_MEMORY):
            return MEMORY_ADVICE
        number = next((number for number in DISK_ERRORS if os.strerror(number) in line), None)
        if number or PARTLY_WRITTEN.search(line):
            return f"{os.strerror(number or errno.ENOSPC)}; see to the disk, then run again"
    return f"unexpected {lines[-1]}"
