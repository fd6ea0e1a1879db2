"""Finished files moved to the output tree, so that what is there at any moment is whole and belongs together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bids_cpmae.bids.atomic import json_text, put_files, rename_all
from bids_cpmae.bids.dataset import withdraw
from bids_cpmae.bids.lock import locked
from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.sidecar import image_sidecar, mask_sidecar
from bids_cpmae.bids.verdicts import LOGS
from bids_cpmae.errors import OutputError


def publish_file(written: Path, target: Path) -> Path:
    """Copy a finished file to where it is wanted; it appears there whole, compared with the original, or not at all.

    Raises
    ------
    OutputError
        When it cannot be written, or reads back as something else.
    """
    put_files({target: written})
    return target


def publish_scan(
    output_dir: Path, relative: str, *, image: Path, mask: Path, raw_sidecar: dict, settings: dict, regions: str
) -> None:
    """Publish a certified scan: mask and sidecars first, the image last, so that an image is never without them.

    What another run has written of the scan stays where it is the same. Where it is not, what was said of it is
    withdrawn before it goes, so that no table vouches for an image that is not there, or has another's mask.

    Raises
    ------
    OutputError
    """
    outputs = outputs_of(relative)
    files = {
        output_dir / outputs.mask: mask,
        output_dir / outputs.mask_sidecar: json_text(mask_sidecar(relative, regions)).encode(),
        output_dir / outputs.image_sidecar: json_text(
            image_sidecar(relative, raw_sidecar, settings=settings, regions=regions)
        ).encode(),
        output_dir / outputs.image: image,
    }

    def change(partials: Mapping[Path, Path]) -> None:
        # by one run at a time: image and mask of two would be no pair
        with locked(output_dir / LOGS) as free:
            if not free:
                raise OutputError(f"{output_dir}: other runs hold its tables for too long; run again")
            withdraw(output_dir, relative)
            if output_dir / outputs.image in partials:
                (output_dir / outputs.image).unlink(missing_ok=True)
            rename_all(partials)

    put_files(files, change=change)
