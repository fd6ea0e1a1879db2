"""Which weights a run uses, and whether they are any; told without PyTorch, which is slow to import."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from bids_cpmae.data import PORTRAIT, WEIGHTS
from bids_cpmae.errors import WeightsError

FORMAT = "bids_cpmae-2"


def shipped_weights() -> Path:
    """Where the package keeps its weights."""
    return Path(str(files("bids_cpmae.data").joinpath(WEIGHTS)))


@lru_cache(maxsize=4)
def weights_version(path: Path | None = None) -> str:
    """First twelve digits of the SHA-256 of a weights file, or of the shipped one and the portrait beside it."""
    files = [Path(path)] if path else [shipped_weights(), shipped_weights().with_name(PORTRAIT)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def check_weights(path: Path | None = None) -> None:
    """See that a weights file is there and of this version, without loading it into memory.

    Raises
    ------
    WeightsError
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path) if path else shipped_weights()
    try:
        with safe_open(path, "np") as file:
            found = (file.metadata() or {}).get("format")
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: cannot be read as model weights ({error}); give a file of `cpmae train mae`"
        ) from error
    if found != FORMAT:
        raise WeightsError(f"{path}: not weights of this version (format {found!r}, wanted {FORMAT!r})")
