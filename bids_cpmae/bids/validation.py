"""The official BIDS validator, where it is installed."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

from bids_cpmae.errors import InputError

LOG = logging.getLogger("bids_cpmae")
PROGRAM = "bids-validator-deno"
TIMEOUT_S = 600
SHOWN = 5


def find_validator() -> str | None:
    """Path of the validator: beside this interpreter, or on the PATH."""
    beside = Path(sys.executable).with_name(PROGRAM)
    return str(beside) if beside.exists() else shutil.which(PROGRAM)


def errors_of(dataset: Path) -> list[str]:
    """Errors that the validator finds, a line each.

    Raises
    ------
    FileNotFoundError
        When the validator is not installed.
    """
    program = find_validator()
    if program is None:
        raise FileNotFoundError(PROGRAM)
    done = subprocess.run(
        [program, "--format", "json", "--ignoreWarnings", str(dataset)], capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    issues = report["issues"]["issues"]
    return [
        f"{issue['code']} {issue.get('subCode', '')} {issue.get('location', '')}".replace("  ", " ").strip()
        for issue in issues
        if issue.get("severity", "error") == "error"
    ]


def validate(bids_dir: Path) -> None:
    """Stop at an invalid input.

    Raises
    ------
    InputError
        With the first errors and the way past them.
    """
    try:
        errors = errors_of(bids_dir)
    except FileNotFoundError:
        LOG.warning("input not validated: %s is not installed (pip install bids-validator-deno)", PROGRAM)
        return
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        LOG.warning("input not validated: %s gave no report (%s)", PROGRAM, type(error).__name__)
        return
    if errors:
        more = f" and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        raise InputError(
            f"{bids_dir}: not valid BIDS: {'; '.join(errors[:SHOWN])}{more}. "
            "Mend it, or go on with --skip-bids-validation"
        )
