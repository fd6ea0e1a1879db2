"""De-identify head MRI by giving the person another face."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("bids_cpmae")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "reface"]


def __getattr__(name: str):
    # torch and ANTs take seconds to import: only those who reface pay for them
    if name == "reface":
        from bids_cpmae.api import reface

        return reface
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
