"""NIfTI headers and gzip wrappings: what is hidden in them, and copies without it.

Only headers are read to look; a gzip file is unpacked to its end only where its own size field disagrees with the
header. Copies are streamed, so a long series needs no more memory than a short one.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_cpmae.bids.privacy.sidecars import Leak
from bids_cpmae.imaging.nifti import TEXT_FIELDS

CHUNK = 1 << 20
GZIP_TIME, GZIP_EXTRA, GZIP_NAME, GZIP_COMMENT, GZIP_CHECK = "time", 4, 8, 16, 2
# version stamps of software, and what files without a description are given
HARMLESS = re.compile(r"(?:FSL)?v?\d+(?:\.\d+)+(?::[0-9a-f]+)?|FSL\d[\d.]*|SPM compatible|none|\?TR:[\d.]+.*|dsr", re.I)
QUIET = logging.getLogger("nibabel.quiet")


@dataclass(frozen=True)
class GzipHeader:
    """What a gzip file says of itself (RFC 1952)."""

    time: int
    name: str
    comment: str
    extra: bytes

    @classmethod
    def read(cls, file) -> GzipHeader:
        """Read from the start of a file.

        Raises
        ------
        ValueError
            When it is no gzip file.
        """
        start = file.read(10)
        if len(start) < 10 or start[:3] != b"\x1f\x8b\x08":
            raise ValueError("not a gzip file")
        flags, (time,) = start[3], struct.unpack("<I", start[4:8])
        extra = file.read(struct.unpack("<H", file.read(2))[0]) if flags & GZIP_EXTRA else b""
        name = _text(file) if flags & GZIP_NAME else ""
        comment = _text(file) if flags & GZIP_COMMENT else ""
        return cls(time, name, comment, extra)


def _text(file) -> str:
    letters = bytearray()
    while (letter := file.read(1)) not in (b"\0", b""):
        letters += letter
    return letters.decode("latin-1")


def gzip_leaks(path: Path) -> list[Leak]:
    """What the header of a gzip file tells: name, time, comment, extra field.

    Its own present name tells nothing new; the extra field of block-wise gzip (BGZF) neither.
    """
    with open(path, "rb") as file:
        header = GzipHeader.read(file)
    leaks = []
    if header.time:
        leaks.append(Leak("gzip time", "gzip-time", str(header.time)))
    if header.name and header.name != path.name.removesuffix(".gz"):
        leaks.append(Leak("gzip name", "gzip-name", header.name))
    if header.comment:
        leaks.append(Leak("gzip comment", "gzip-comment", header.comment))
    if header.extra and not (header.extra[:2] == b"BC" and len(header.extra) == 6):
        leaks.append(Leak("gzip extra field", "gzip-extra", header.extra.decode("latin-1")))
    return leaks


def _open(path: Path):
    return gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")


def _header(file) -> nib.Nifti1Header:
    start = file.read(540)
    size = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    if not size & {348, 540}:
        raise ValueError("not a NIfTI file")
    kind = nib.Nifti2Header if 540 in size else nib.Nifti1Header
    length = kind.sizeof_hdr
    if len(start) < length:
        raise ValueError("truncated in its header")
    header = kind(start[:length], check=False)
    if header["magic"].tobytes()[:3] != header.single_magic[:3]:
        raise ValueError("not a single-file NIfTI image")
    return header


def _layout(header) -> tuple[int, int]:
    """Where the voxels begin, and how many bytes they are."""
    mended = header.copy()
    mended.check_fix(logger=QUIET, error_level=40)
    length = int(np.prod(mended.get_data_shape(), dtype=np.int64)) * mended.get_data_dtype().itemsize
    return max(int(mended.get_data_offset()), header.sizeof_hdr), length


def _packed_size(path: Path) -> int:
    """Size of the content by the last bytes of a gzip file, modulo 2^32."""
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return struct.unpack("<I", file.read(4))[0]


def _surplus(path: Path, expected: int) -> tuple[str, int] | None:
    """Bytes after the voxels, or after the end of the gzip stream: where, and how many.

    Raises
    ------
    ValueError
        When there are fewer than expected.
    """
    if not path.name.endswith(".gz"):
        there = path.stat().st_size
    else:
        if _packed_size(path) == expected % 2**32:
            return None
        there, after = _unpacked(path)
        if after:
            return "after the gzip stream", after
    if there < expected:
        raise ValueError(f"truncated, {there} of {expected} bytes")
    return ("after the voxels", there - expected) if there > expected else None


def _unpacked(path: Path) -> tuple[int, int]:
    """Bytes in a gzip file, unpacked to its end, and bytes that follow it."""
    total, after = 0, 0
    with open(path, "rb") as file:
        rest = file.read(CHUNK)
        while rest:
            if rest[:2] != b"\x1f\x8b":
                after = len(rest.rstrip(b"\0")) + sum(len(part) for part in iter(lambda: file.read(CHUNK), b""))
                break
            unpack = zlib.decompressobj(wbits=31)
            while not unpack.eof:
                total += len(unpack.decompress(rest))
                rest = unpack.unused_data if unpack.eof else file.read(CHUNK)
                if not rest and not unpack.eof:
                    raise ValueError("truncated gzip stream")
            rest = rest or file.read(CHUNK)
    return total, after


def nifti_leaks(path: Path) -> list[Leak]:
    """What the header and wrapping of an image tell.

    Raises
    ------
    ValueError
        When it cannot be read, with the reason.
    """
    leaks = gzip_leaks(path) if path.name.endswith(".gz") else []
    try:
        with _open(path) as file:
            header = _header(file)
            offset, length = _layout(header)
            file.seek(header.sizeof_hdr)
            between = file.read(offset - header.sizeof_hdr)
        leaks += _header_leaks(header, between)
        surplus = _surplus(path, offset + length)
    except (OSError, EOFError, zlib.error, struct.error, nib.spatialimages.HeaderDataError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if surplus:
        leaks.append(Leak(surplus[0], "trailing-bytes", f"{surplus[1]} bytes"))
    return leaks


def _header_leaks(header, between: bytes) -> list[Leak]:
    leaks = []
    for field in TEXT_FIELDS:
        if field in header.keys():
            text = header[field].tobytes().rstrip(b"\0 ").decode("latin-1").replace("\0", " ")
            if text and not HARMLESS.fullmatch(text):
                leaks.append(Leak(field, "header-text", text))
    if between.strip(b"\0"):
        leaks.append(Leak("header extension", "extension", between[12:].strip(b"\0").decode("latin-1") or "empty"))
    return leaks


def clean_nifti(source: Path, target: Path) -> None:
    """Write a copy of an image without free text, extensions, trailing bytes, and gzip name and time.

    Geometry, type, scaling, byte order and stored voxels stay as they are. What is written is packed if the source is,
    whatever ``target`` is called.

    Raises
    ------
    ValueError
        When the source is truncated or no NIfTI image.
    """
    try:
        with _open(source) as file, open(target, "wb") as raw:
            header = _header(file)
            offset, length = _layout(header)
            for field in TEXT_FIELDS:
                if field in header.keys():
                    header[field] = b""
            header["vox_offset"] = header.single_vox_offset
            file.seek(offset)
            if source.name.endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", compresslevel=5, fileobj=raw, mtime=0) as packed:
                    _stream(io.BytesIO(header.binaryblock + bytes(4)), packed, header.sizeof_hdr + 4)
                    _stream(file, packed, length)
            else:
                raw.write(header.binaryblock + bytes(4))
                _stream(file, raw, length)
            raw.flush()
            os.fsync(raw.fileno())
    except (OSError, EOFError, zlib.error, struct.error, nib.spatialimages.HeaderDataError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(str(error) or type(error).__name__) from error


def clean_gzip(source: Path, target: Path) -> None:
    """Write a copy of a gzip file with neither name, time nor comment.

    Raises
    ------
    ValueError
        When the source is damaged.
    """
    with gzip.open(source, "rb") as file, open(target, "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=5, fileobj=raw, mtime=0) as packed:
            for part in iter(lambda: _read(file, CHUNK), b""):
                packed.write(part)
        raw.flush()
        os.fsync(raw.fileno())


def _read(source, length: int) -> bytes:
    """Part of a source; its errors are told from those of the target, on whose disk there may be no room.

    Raises
    ------
    ValueError
    """
    try:
        return source.read(length)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error


def _stream(source, target, length: int) -> None:
    while length:
        part = _read(source, min(CHUNK, length))
        if not part:
            raise ValueError(f"truncated, {length} bytes of voxels are missing")
        target.write(part)
        length -= len(part)
