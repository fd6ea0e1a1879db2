"""Looks through a folder for anything of an original face: volumes, arrays, pictures, numbers as text, raw bytes.

What it knows: NIfTI and NumPy files, zip and gzip around anything, PNG and other pictures, base64 in text, and numbers
written as text. A volume counts when much of the face is stored with the original's values at the same places; bytes
and text when a row of voxels of the face stands there; a picture when it shows a slice through the face, at any size,
flipped or turned.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import re
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, UnidentifiedImageError

MOST_ALIKE, MOST_CORRELATED = 0.3, 0.9
ROW, ROWS = 12, 40
BASE64 = re.compile(rb"[A-Za-z0-9+/]{200,}={0,2}")


class Original:
    """An original scan's stored values (X, Y, Z) and its face (X, Y, Z), bool."""

    def __init__(self, stored: np.ndarray, face: np.ndarray) -> None:
        self.stored = stored
        # where values repeat, in air, being the same tells nothing
        bright = stored > np.percentile(stored[face], 50)
        self.face = face & bright
        self.rows = list(self._rows())
        self.slices = [self._slice(axis) for axis in range(3)]

    def _rows(self):
        for axis in range(3):
            lines = np.moveaxis(self.stored, axis, -1).reshape(-1, self.stored.shape[axis])
            where = np.moveaxis(self.face, axis, -1).reshape(-1, self.stored.shape[axis])
            found = [line[hit][:ROW] for line, hit in zip(lines, where, strict=True)
                     if (run := np.flatnonzero(hit)).size >= ROW and run[ROW - 1] - run[0] == ROW - 1]  # fmt: skip
            varied = [row for row in found if np.unique(row).size >= ROW // 2]
            yield from varied[:: max(1, len(varied) // ROWS)]

    def _slice(self, axis: int) -> tuple[np.ndarray, np.ndarray]:
        index = int(np.argmax(self.face.sum(tuple(a for a in range(3) if a != axis))))
        return np.take(self.stored, index, axis).astype(float), np.take(self.face, index, axis)


def leftovers(folder: Path, original: Original) -> list[str]:
    """What of a face is left in any file below a folder, a line for each file and kind."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found += [f"{name}: {kind}" for kind in sorted(set(_kinds(path.read_bytes(), original)))]
    return found


def _kinds(content: bytes, original: Original, depth: int = 0):
    """Kinds of leftovers in some bytes and in what is packed in them."""
    if depth > 4:
        return
    if content[:2] == b"\x1f\x8b":
        try:
            yield from _kinds(gzip.decompress(content), original, depth + 1)
        except (OSError, EOFError, zlib.error):
            pass
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield from _kinds(archive.read(name), original, depth + 1)
    for volume in (_nifti(content), _array(content)):
        if volume is not None and _same_volume(volume, original):
            yield "volume"
    picture = _picture(content)
    if picture is not None and _shows_slice(picture, original):
        yield "picture"
    kinds = {original.stored.dtype.newbyteorder(order) for order in "<>"} | {np.dtype("<f4"), np.dtype("<f8")}
    if any(row.astype(kind).tobytes() in content for row in original.rows for kind in kinds):
        yield "bytes"
    for block in BASE64.findall(content):
        try:
            yield from _kinds(base64.b64decode(block + b"=" * (-len(block) % 4)), original, depth + 1)
        except (binascii.Error, ValueError):
            continue
    text = re.sub(rb"[\s,;]+", b" ", content)
    if any(b" ".join(str(value).encode() for value in row.tolist()) in text for row in original.rows):
        yield "text"


def _nifti(content: bytes) -> np.ndarray | None:
    try:
        return np.squeeze(np.asarray(nib.Nifti1Image.from_bytes(content).dataobj))
    except Exception:  # noqa: BLE001, not NIfTI: nibabel raises whatever its parts do
        return None


def _array(content: bytes) -> np.ndarray | None:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False) if content[:6] == b"\x93NUMPY" else None
    except ValueError:
        return None


def _same_volume(volume: np.ndarray, original: Original) -> bool:
    if volume.shape != original.stored.shape:
        return False
    a, b = volume[original.face].astype(float), original.stored[original.face].astype(float)
    if (a == b).mean() > MOST_ALIKE:
        return True
    return a.std() > 0 and abs(np.corrcoef(a, b)[0, 1]) > MOST_CORRELATED


def _picture(content: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("L"), float)
    except (UnidentifiedImageError, OSError, ValueError):
        return None


def _shows_slice(picture: np.ndarray, original: Original) -> bool:
    for values, face in original.slices:
        for turned in range(8):
            value, where = (np.rot90(part.T if turned > 3 else part, turned % 4) for part in (values, face))
            shape = value.shape[::-1]
            seen = np.asarray(Image.fromarray(picture.astype(np.float32)).resize(shape, Image.Resampling.BOX), float)
            a, b = seen[where], value[where]
            if a.std() > 0 and b.std() > 0 and abs(np.corrcoef(a, b)[0, 1]) > MOST_CORRELATED:
                return True
    return False
