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
import hashlib
import io
import re
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.ndimage import gaussian_filter

MOST_ALIKE, MOST_CORRELATED = 0.3, 0.75
ROW, ROWS = 12, 100
FINE, LEAST_SEEN = 1.5, 100
BASE64 = re.compile(rb"[A-Za-z0-9+/]{200,}={0,2}")


class Original:
    """An original scan's stored values (X, Y, Z) and its face (X, Y, Z), bool.

    A slice counts with so much of the face in it as no stranger's is like by chance, ``least_seen`` voxels.
    """

    def __init__(self, stored: np.ndarray, face: np.ndarray, least_seen: int = LEAST_SEEN) -> None:
        self.stored = stored
        # where values repeat, in air, being the same tells nothing
        self.face = face & (stored > np.percentile(stored[face], 50))
        self.fine = fine(stored)
        self.least_seen = least_seen
        kinds = {stored.dtype.newbyteorder(order) for order in "<>"} | {np.dtype("<f4"), np.dtype("<f8")}
        rows = list(self._rows())
        self.raw = Needles(row.astype(kind).tobytes() for row in rows for kind in kinds)
        self.text = Needles(b" ".join(str(value).encode() for value in row.tolist()) for row in rows)
        self.planes = [list(self._planes(axis)) for axis in range(3)]
        self._known: dict[bytes, list[str]] = {}

    def kinds_in(self, content: bytes) -> list[str]:
        """Kinds of leftovers in a file's bytes; the same bytes are looked through once."""
        key = hashlib.sha256(content).digest()
        if key not in self._known:
            self._known[key] = sorted(set(_kinds(content, self)))
        return self._known[key]

    def _rows(self):
        """Stretches of varied face voxels along each axis."""
        for axis in range(3):
            lines = np.moveaxis(self.stored, axis, -1)
            where = np.moveaxis(self.face, axis, -1)
            found = []
            for start in range(0, lines.shape[-1] - ROW + 1, ROW // 2):
                part = slice(start, start + ROW)
                found += list(lines[..., part][where[..., part].all(-1)])
            varied = [row for row in found if np.unique(row).size >= ROW // 2]
            yield from varied[:: max(1, len(varied) // ROWS)]

    def _planes(self, axis: int):
        """Evened fine structure and places of the face in every other plane across an axis that shows enough of it."""
        for value, where in list(zip(np.moveaxis(self.stored, axis, 0), np.moveaxis(self.face, axis, 0)))[::2]:
            if where.sum() >= self.least_seen:
                yield even(fine(value)[where]), np.flatnonzero(where)


class Needles:
    """Strings of 8 bytes and more, searched for all at once by how they begin."""

    def __init__(self, needles) -> None:
        self.by_start: dict[int, list[bytes]] = {}
        for needle in set(needles):
            self.by_start.setdefault(int.from_bytes(needle[:8], "little"), []).append(needle)
        self.starts = np.array(sorted(self.by_start), "<u8")

    def are_in(self, content: bytes) -> bool:
        """Whether any of them is."""
        found = set()
        for offset in range(min(8, len(content)) if self.starts.size else 0):
            there = np.frombuffer(content, "<u8", (len(content) - offset) // 8, offset)
            at = np.searchsorted(self.starts, there).clip(max=self.starts.size - 1)
            found |= set(there[self.starts[at] == there].tolist())
        return any(needle in content for start in found for needle in self.by_start[start])


def fine(values: np.ndarray) -> np.ndarray:
    """What is left of a volume or picture without its coarse shape, which all heads share."""
    values = np.asarray(values, float)
    return values - gaussian_filter(values, FINE)


def even(values: np.ndarray) -> np.ndarray:
    """A sample about its mean and of length one; of none where all values are the same."""
    values = values - values.mean()
    return values / (np.linalg.norm(values) or 1)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two samples, sign aside."""
    return abs(float(even(a) @ even(b))) if a.size else 0.0


def leftovers(folder: Path, original: Original) -> list[str]:
    """What of a face is left in any file below a folder, a line for each file and kind."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found += [f"{name}: {kind}" for kind in original.kinds_in(path.read_bytes())]
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
    if original.raw.are_in(content):
        yield "bytes"
    for block in BASE64.findall(content):
        try:
            yield from _kinds(base64.b64decode(block + b"=" * (-len(block) % 4)), original, depth + 1)
        except (binascii.Error, ValueError):
            continue
    text = b"" if b"\0" in content[:2000] else re.sub(rb"[\s,;]+", b" ", content)
    if original.text.are_in(text):
        yield "text"


def _nifti(content: bytes) -> np.ndarray | None:
    if content[:4] not in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        return None
    kind = nib.Nifti2Image if b"\x1c" in content[:4] else nib.Nifti1Image
    try:
        return np.squeeze(np.asarray(kind.from_bytes(content).dataobj))
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
    where = original.face
    same = (volume[where] == original.stored[where]).mean()
    return same > MOST_ALIKE or alike(fine(volume)[where], original.fine[where]) > MOST_CORRELATED


def _picture(content: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("L"), float)
    except (UnidentifiedImageError, OSError, ValueError):
        return None


def _shows_slice(picture: np.ndarray, original: Original) -> bool:
    drawn = Image.fromarray(picture.astype(np.float32))
    for axis, planes in enumerate(original.planes):
        size = tuple(np.delete(original.stored.shape, axis).tolist())
        for turn in range(8):
            # as drawn: rows by columns, before it is turned back to how planes are stored
            shape = size if (turn % 2 == 0) == (turn < 4) else size[::-1]
            seen = np.asarray(drawn.resize(shape[::-1], Image.Resampling.BOX), float)
            seen = np.rot90(seen, turn % 4)
            seen = fine(seen.T if turn > 3 else seen)
            if any(abs(even(seen.ravel()[where]) @ values) > MOST_CORRELATED for values, where in planes):
                return True
    return False
