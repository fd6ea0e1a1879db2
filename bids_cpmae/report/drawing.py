"""All that is drawn of a refaced scan: while it is measured, kept in the work folder until its page is written."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bids_cpmae import __version__
from bids_cpmae.bids.atomic import write_json
from bids_cpmae.errors import ScanError
from bids_cpmae.report import viewer
from bids_cpmae.report.pictures import Picture, face_pictures, read_volume, seam_pictures


@dataclass
class Drawing:
    """What a page shows of a scan.

    Attributes
    ----------
    faces, slices : list of Picture
    volume : str
        Small copy for the 3-D view, Base64; empty if there is none.
    missing : str
        Why not all is drawn; empty if it is.
    """

    faces: list[Picture] = field(default_factory=list)
    slices: list[Picture] = field(default_factory=list)
    volume: str = ""
    missing: str = ""


def draw(image: Path, mask: Path) -> Drawing:
    """Draw a refaced scan; without a mask file there are no outlines, without a whole head there are slices alone."""
    drawing = Drawing()
    try:
        volume, affine = read_volume(image)
        replaced, place = read_volume(mask) if mask.is_file() else (None, None)
        with ThreadPoolExecutor(1) as beside:
            faces = beside.submit(face_pictures, volume, affine)
            drawing.slices = seam_pictures(volume, affine, None if replaced is None else replaced > 0, place)
            drawing.volume = viewer.as_text(viewer.preview(volume, affine, viewer.SPACINGS_MM[0]))
        drawing.faces = faces.result()
    except ScanError as error:
        drawing.missing = str(error)
    return drawing


def keep(drawing: Drawing, folder: Path, image: Path, mask: Path) -> Path:
    """Keep what was drawn of exactly these two files.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return write_json(folder / _name(image, mask), asdict(drawing))


def kept(folder: Path, image: Path, mask: Path) -> Drawing | None:
    """What was drawn of files of this content by this version; None if there is nothing that can be read."""
    try:
        stored = json.loads((folder / _name(image, mask)).read_text(encoding="utf-8"))
        pictures = {name: [Picture(**picture) for picture in stored.pop(name)] for name in ("faces", "slices")}
        return Drawing(**pictures, **stored)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _name(image: Path, mask: Path) -> str:
    content = hashlib.sha256(__version__.encode())
    for path in (image, mask):
        content.update(_digest(path))
    return f"{content.hexdigest()}.json"


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.digest()
