"""Finished files moved to the output tree: written beside, flushed, renamed, so that none is ever half there."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.sidecar import beside, image_sidecar, mask_sidecar, write_json
from bids_cpmae.errors import OutputError


def publish_file(written: Path, target: Path) -> Path:
    """Copy a finished file to where it is wanted; it appears there whole, compared with the original, or not at all.

    Raises
    ------
    OutputError
        When it cannot be written, or reads back as something else.
    """
    partial = beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(written, "rb") as source, open(partial, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        if not filecmp.cmp(written, partial, shallow=False):
            raise OutputError(f"{target}: reads back as something else than was written; is the disk sound?")
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def publish_scan(
    output_dir: Path, relative: str, *, image: Path, mask: Path, raw_sidecar: dict, settings: dict, regions: str
) -> None:
    """Publish a certified scan: sidecars and mask first, the image last, so that an image is never without them."""
    outputs = outputs_of(relative)
    (output_dir / outputs.image).parent.mkdir(parents=True, exist_ok=True)
    write_json(
        output_dir / outputs.image_sidecar, image_sidecar(relative, raw_sidecar, settings=settings, regions=regions)
    )
    write_json(output_dir / outputs.mask_sidecar, mask_sidecar(relative, regions))
    publish_file(mask, output_dir / outputs.mask)
    publish_file(image, output_dir / outputs.image)
