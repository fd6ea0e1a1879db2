"""Finished files moved to the output tree: written beside, flushed, renamed, so that none is ever half there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.sidecar import image_sidecar, mask_sidecar, write_json


def publish_file(written: Path, target: Path) -> Path:
    """Copy a finished file to where it is wanted; it appears there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(written, "rb") as source, open(partial, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def publish_scan(
    output_dir: Path, relative: str, *, image: Path, mask: Path, raw_sidecar: dict, settings: dict, regions: str
) -> None:
    """Publish a certified scan: sidecars and mask first, the image last, so that an image is never without them."""
    outputs = outputs_of(relative)
    (output_dir / outputs.image).parent.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / outputs.image_sidecar, image_sidecar(relative, raw_sidecar, settings=settings))
    write_json(output_dir / outputs.mask_sidecar, mask_sidecar(relative, regions))
    publish_file(mask, output_dir / outputs.mask)
    publish_file(image, output_dir / outputs.image)
