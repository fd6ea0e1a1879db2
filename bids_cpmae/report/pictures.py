"""Pictures of a refaced scan for its report: the new face from three sides, and slices through the seam."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

# named here, or Pillow imports all formats that there are to find these two
from PIL import Image, PngImagePlugin, WebPImagePlugin  # noqa: F401
from scipy import ndimage

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.nifti import finite
from bids_cpmae.imaging.rendering import View, carried, head_surface, render

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
MARGIN_MM = 8.0
BRIGHTEST = 99.0
# where a head lies is told by voxels about this far apart, and no more of them than this
THIN_MM, MOST_POINTS = 2.0, 200_000
# of more voxels than this, one of eight tells a percentile as well as all
MANY = 2_000_000
# the axis that stands still, then axis and direction of rows and of columns; axes are x, y, z
PLANES = {
    "sagittal": (0, (2, -1), (1, 1)),
    "coronal": (1, (2, -1), (0, -1)),
    "axial": (2, (1, -1), (0, -1)),
}


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
    # files run along their first axis, arrays along their last
    data = np.ascontiguousarray(data.reshape(data.shape[:3]))
    return finite(data), affine


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


@dataclass(frozen=True)
class Frame:
    """Where slices pass and what they show: RAS+ mm.

    Attributes
    ----------
    through, middle : ndarray (3,)
        The point that all planes pass through; the middle of the head.
    side : float
        Of the square that is shown, in mm.
    """

    through: np.ndarray
    middle: np.ndarray
    side: float


def head_frame(volume: np.ndarray, affine: np.ndarray, mask: np.ndarray | None, mask_affine: np.ndarray | None):
    """The square around a head, and planes through the middle of the tissue that was replaced.

    Parameters are those of `seam_pictures`. Without a mask planes pass through the middle of the head.

    Returns
    -------
    Frame
    """
    volume, affine = thinned(volume, affine)
    if mask is not None:
        mask, mask_affine = thinned(mask, mask_affine)
    low, high = np.percentile(tissue_points(volume, affine), [0.2, 99.8], axis=0)
    middle = (low + high) / 2
    through = face_centre(volume, affine, mask, mask_affine)
    return Frame(middle if through is None else through, middle, float((high - low).max() + 2 * MARGIN_MM))


def seam_pictures(
    volume: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray | None,
    mask_affine: np.ndarray | None,
    *,
    frame: Frame | None = None,
) -> list[Picture]:
    """Sagittal, coronal and axial slices through the face, with the outline of what was replaced.

    Parameters
    ----------
    volume : ndarray (X, Y, Z)
    affine : ndarray (4, 4)
        Voxel index to RAS+ mm.
    mask : ndarray (X, Y, Z), bool or None
        True = replaced; without one there is no outline.
    mask_affine : ndarray (4, 4) or None
    frame : Frame, optional
        `head_frame` of the volume if not given.

    Returns
    -------
    list of Picture
        Square, all of one scale. The left of the coronal and axial ones is the subject's right, the right of the
        sagittal one the front.
    """
    frame = frame or head_frame(volume, affine, mask, mask_affine)
    lit = _sampled(volume)
    lit = lit[lit > 0]
    top = max(float(np.percentile(lit, BRIGHTEST)), 1e-6) if lit.size else 1.0
    pictures = []
    for name in PLANES:
        grey = _sample(volume, affine, plane(name, frame, PIXEL_MM), order=1)
        picture = np.clip(255 * grey / top, 0, 255).astype(np.uint8)
        outline = ""
        if mask is not None:
            fine = plane(name, frame, PIXEL_MM / OUTLINE_ZOOM)
            outline = as_outline(_sample(mask.view(np.uint8), mask_affine, fine, order=0) > 0)
        pictures.append(Picture(name, f"{name} slice through the seam", as_webp(picture), outline))
    return pictures


def thinned(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of a volume about `THIN_MM` apart, all of them where they are larger, and their affine."""
    steps = np.maximum(1, np.floor(THIN_MM / np.linalg.norm(affine[:3, :3], axis=0) + 1e-3)).astype(int)
    return volume[tuple(slice(None, None, step) for step in steps)], affine @ np.diag([*steps, 1.0])


def tissue_points(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Points (N, 3), RAS+ mm, of voxels that are brighter than air; every voxel's where none stands out."""
    bright = volume > tissue_level(volume)
    return _points(bright if bright.any() else np.ones(volume.shape, bool), affine)


def tissue_level(volume: np.ndarray) -> float:
    """What is brighter than this is not air."""
    return TISSUE_SHARE * float(np.percentile(_sampled(volume), 99))


def _sampled(volume: np.ndarray) -> np.ndarray:
    return volume[::2, ::2, ::2] if volume.size > MANY else volume


def _points(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Points (N, 3), RAS+ mm, of a mask's voxels: all of them, or every so many."""
    found = np.flatnonzero(mask)
    index = np.unravel_index(found[:: max(1, len(found) // MOST_POINTS)], mask.shape)
    return carried(affine, np.stack(index).astype(float)).T


def face_centre(volume, affine, mask, mask_affine) -> np.ndarray | None:
    """The point (3,), RAS+ mm, that the slices pass through: the middle of the tissue that was replaced.

    The air before the face is replaced, too, but nothing is to be seen there. None without a mask.
    """
    if mask is None or not mask.any():
        return None
    world = _points(mask, mask_affine)
    tissue = world[_sample(volume, affine, world, order=1) > tissue_level(volume)]
    return np.median(tissue if len(tissue) else world, axis=0)


def plane(name: str, frame: Frame, pixel: float) -> np.ndarray:
    """Points (rows, columns, 3), RAS+ mm, ``pixel`` mm apart, of a square in a plane.

    Rows run downwards or to the back, columns to the subject's left; to the front in the sagittal plane.
    """
    fixed, (row_axis, row_sign), (column_axis, column_sign) = PLANES[name]
    count = int(np.ceil(frame.side / pixel))
    steps = pixel * (np.arange(count) - (count - 1) / 2)
    points = np.empty((count, count, 3))
    points[..., fixed] = frame.through[fixed]
    points[..., row_axis] = (frame.middle[row_axis] + row_sign * steps)[:, None]
    points[..., column_axis] = (frame.middle[column_axis] + column_sign * steps)[None]
    return points


def _sample(volume: np.ndarray, affine: np.ndarray, points: np.ndarray, *, order: int) -> np.ndarray:
    index = carried(np.linalg.inv(affine), points.reshape(-1, 3).T)
    found = ndimage.map_coordinates(volume, index, order=order, mode="grid-constant", prefilter=False)
    return found.reshape(points.shape[:-1])


def as_webp(picture: np.ndarray) -> str:
    """A grey picture (rows, columns), uint8, as the ``data:`` address of a WebP."""
    return data_address(_encoded(Image.fromarray(picture), "WEBP", quality=QUALITY), "image/webp")


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
