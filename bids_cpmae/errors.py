"""What can go wrong, and the exit code each kind ends with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes: those of the BIDS Application execution specification (0 to 73), and the shell's for an interrupt."""

    OK = 0
    SCAN_FAILED = 1
    INVALID_BIDS = 16
    UNKNOWN_LEVEL = 17
    NOTHING_TO_DO = 18
    USAGE = 64
    DATA = 65
    NO_INPUT = 66
    SOFTWARE = 70
    CANNOT_CREATE = 73
    INTERRUPTED = 130


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
