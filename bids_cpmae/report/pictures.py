"""Pictures of a refaced scan for its report: the new face from three sides, and slices through the seam."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.headspace import apply_affine, covering_grid
from bids_cpmae.imaging.rendering import View, head_surface, render

FACE_VIEWS = {
    "front": View(size=320),
    "three quarters": View(yaw=40, size=320),
    "side": View(yaw=90, size=320),
}
PIXEL_MM = 0.8
# the outline is drawn finer than the slice, so that a line is thinner than a voxel
OUTLINE_ZOOM = 2
OUTLINE_COLOUR = (255, 152, 0)
QUALITY = 84
TISSUE_SHARE = 0.15


@dataclass(frozen=True)
class Picture:
    """A picture as a page shows it.

    Attributes
    ----------
    name, alt : str
        Short name; what is to be seen, for those who cannot.
    source : str
        ``data:`` address of the picture.
    outline : str
        ``data:`` address of the mask's outline, to be laid over it; empty if there is none.
    """

    name: str
    alt: str
    source: str
    outline: str = ""


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first volume of an image, float32 and finite, and its affine (voxel index to RAS+ mm).

    Raises
    ------
    ScanError
        When the file cannot be read.
    """
    try:
        image = nib.load(path)
        first = image.slicer[..., :1] if image.ndim == 4 else image
        data = np.asarray(first.dataobj, np.float32)
        affine = np.asarray(image.affine, np.float64)
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise ScanError(f"{path.name}: cannot be read for the report ({type(error).__name__})") from error
    return np.nan_to_num(data.reshape(data.shape[:3]), nan=0, posinf=0, neginf=0), affine


def face_pictures(volume: np.ndarray, affine: np.ndarray, what: str = "the new face") -> list[Picture]:
    """Renderings of a head's skin from the front, three quarters and the side.

    Parameters
    ----------
    volume : ndarray (X, Y, Z)
    affine : ndarray (4, 4)
        Voxel index to RAS+ mm.
    what : str
        What is shown, for the alternative text.

    Raises
    ------
    ScanError
        When no head stands out from the air.
    """
    surface = head_surface(volume, affine)
    return [
        Picture(name, f"{what}, rendered: {name}", as_webp(render(surface, view)))
        for name, view in FACE_VIEWS.items()
    ]  # fmt: skip


def seam_pictures(volume: np.ndarray, affine: np.ndarray, mask: np.ndarray | None, mask_affine: np.ndarray | None):
    """Sagittal, coronal and axial slices through the face, with the outline of what was replaced.

    Parameters
    ----------
    volume : ndarray (X, Y, Z)
    affine : ndarray (4, 4)
        Voxel index to RAS+ mm.
    mask : ndarray (X, Y, Z), bool or None
        True = replaced; without one, slices pass through the middle of the field of view and carry no outline.
    mask_affine : ndarray (4, 4) or None

    Returns
    -------
    list of Picture
        The left of the coronal and axial ones is the subject's right, the right of the sagittal one the front.
    """
    centre = face_centre(volume, affine, mask, mask_affine)
    top = max(float(np.percentile(volume, 99.5)), 1e-6)
    pictures = []
    for name, points in planes(volume.shape, affine, centre, PIXEL_MM):
        grey = _sample(volume, affine, points, order=1)
        picture = np.clip(255 * grey / top, 0, 255).astype(np.uint8)
        outline = ""
        if mask is not None:
            (_, fine), = planes(volume.shape, affine, centre, PIXEL_MM / OUTLINE_ZOOM, only=name)
            outline = as_outline(_sample(mask.astype(np.float32), mask_affine, fine, order=0) > 0)
        pictures.append(Picture(name, f"{name} slice through the seam", as_webp(picture), outline))
    return pictures


def face_centre(volume, affine, mask, mask_affine) -> np.ndarray:
    """The point (3,), RAS+ mm, that the slices pass through: the middle of the tissue that was replaced.

    The air before the face is replaced, too, but nothing is to be seen there.
    """
    if mask is None or not mask.any():
        return apply_affine(affine, (np.array(volume.shape) - 1) / 2)
    index = np.argwhere(mask)
    index = index[:: max(1, len(index) // 200_000)]
    world = apply_affine(mask_affine, index)
    values = _sample(volume, affine, world, order=1)
    tissue = world[values > TISSUE_SHARE * np.percentile(volume, 99)]
    return np.median(tissue if len(tissue) else world, axis=0)


def planes(
    shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray, pixel: float, *, only: str | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """The three planes through a point, as points (rows, columns, 3), RAS+ mm, that cover a field of view.

    Rows run downwards, columns to the subject's left; to the front in the sagittal plane.
    """
    grid, size = covering_grid(affine, shape, pixel)
    right, front, up = (grid[axis, 3] + pixel * np.arange(size[axis]) for axis in range(3))
    axes = {
        "sagittal": (up[::-1, None], front[None], 0),
        "coronal": (up[::-1, None], right[None, ::-1], 1),
        "axial": (front[::-1, None], right[None, ::-1], 2),
    }
    for name, (rows, columns, fixed) in axes.items():
        if only in (None, name):
            points = np.empty((rows.size, columns.size, 3))
            row_axis, column_axis = {0: (2, 1), 1: (2, 0), 2: (1, 0)}[fixed]
            points[..., row_axis], points[..., column_axis], points[..., fixed] = rows, columns, centre[fixed]
            yield name, points


def _sample(volume: np.ndarray, affine: np.ndarray, points: np.ndarray, *, order: int) -> np.ndarray:
    index = np.moveaxis(apply_affine(np.linalg.inv(affine), points), -1, 0)
    return ndimage.map_coordinates(volume, index, order=order, mode="grid-constant", prefilter=False)


def as_webp(picture: np.ndarray) -> str:
    """A grey picture (rows, columns), uint8, as the ``data:`` address of a WebP."""
    return data_address(_encoded(Image.fromarray(picture), "WEBP", quality=QUALITY, method=6), "image/webp")


def as_outline(mask: np.ndarray) -> str:
    """The inner edge of a mask (rows, columns), bool, as a PNG that is transparent elsewhere."""
    edge = mask & ~ndimage.binary_erosion(mask, border_value=1)
    image = Image.frombytes("P", edge.shape[::-1], edge.astype(np.uint8).tobytes())
    image.putpalette([0, 0, 0, *OUTLINE_COLOUR])
    return data_address(_encoded(image, "PNG", optimize=True, transparency=0, bits=1), "image/png")


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def data_address(content: bytes, kind: str) -> str:
    """Bytes as an address that needs no file: ``data:KIND;base64,...``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
