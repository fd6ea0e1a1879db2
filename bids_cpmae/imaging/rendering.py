"""The skin of a head as a shaded picture, as one who wants to know a face again would draw it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.distance import closed
from bids_cpmae.imaging.filters import gaussian
from bids_cpmae.imaging.headspace import covering_grid
from bids_cpmae.imaging.morphology import shrunk
from bids_cpmae.imaging.nifti import finite
from bids_cpmae.imaging.resample import resample, sample_points
from bids_cpmae.imaging.skin import skin_level

GRID_MM = 1.0
LARGE_VOXEL_MM = 1.5
# turned by less than this, an axis leaves its row by no voxel in a thousand
STRAIGHT = 1e-6
# voxels of air around, beyond which a spline feels no edge
PAD = 8
LEAST_SHARE = 1e-8
SURFACE_SIGMA_MM = 1.0
CLOSING_MM = 4
FRAME_MM = 250.0
TOP_MARGIN_MM = 15.0
LEAST_HEAD_ML = 300.0
BLOCK = 4
# blocks around what a coarse look takes for tissue
MARGIN = 2
# where a ray passes through skin, a voxel of it lies within the diagonal of a voxel
SKIN_MM, TILE_MM = 2.0, 2.0
# samples along a ray that are looked at together
STRIDE = 8


@dataclass(frozen=True)
class View:
    """How a head is looked at.

    Attributes
    ----------
    yaw, pitch : float
        Degrees the head is turned to its left and nods upwards.
    light : tuple of float
        Direction from the head to the light: to the right of the picture, upwards, towards the viewer.
    ambient : float
        Share of light that comes from everywhere, 0 to 1.
    size : int
        Side of the square picture in pixels.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    light: tuple[float, float, float] = (0.2, 0.5, 1.0)
    ambient: float = 0.15
    size: int = 300

    def as_dict(self) -> dict:
        """The settings, fit for JSON."""
        return asdict(self)

    def rotation(self) -> np.ndarray:
        """The turn of the head, 3 x 3, world RAS+."""
        yaw, pitch = np.deg2rad([self.yaw, self.pitch])
        about_z = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
        about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
        return np.array(about_x) @ np.array(about_z)


@dataclass(frozen=True)
class Surface:
    """A head as a field that crosses 1 at its skin, above 1 inside.

    Attributes
    ----------
    field : ndarray (X, Y, Z), float32
        0 in the air, at most 2.
    affine : ndarray (4, 4)
        Axis-aligned RAS+ grid of 1 mm.
    """

    field: np.ndarray
    affine: np.ndarray

    @cached_property
    def cloud(self) -> np.ndarray:
        """Points (3, N) of the inside, RAS+ mm, `BLOCK` mm apart: enough to find the head's box."""
        inside = np.nonzero(self.field[::BLOCK, ::BLOCK, ::BLOCK] > 1)
        return carried(self.affine, BLOCK * np.stack(inside).astype(float))

    @cached_property
    def skin(self) -> np.ndarray:
        """Indices (3, N) of voxels inside that touch one outside."""
        inside = self.field >= 1
        skin = np.flatnonzero(inside & ~shrunk(inside))
        return np.stack(np.unravel_index(skin, inside.shape)).astype(np.float32)


def carried(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Many points (3, N) carried through a 4 x 4 affine, in their own precision.

    As a matrix product BLAS would wake all its threads for it, which costs more than it saves.
    """
    affine = affine.astype(points.dtype)
    return np.einsum("ij,jn->in", affine[:3, :3], points) + affine[:3, 3:]


def _seen_on(volume: np.ndarray, affine: np.ndarray, grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The volume on an axis-aligned RAS+ grid, 0 outside; large voxels by cubic splines, or they show."""
    large = np.linalg.norm(affine[:3, :3], axis=0).max() > LARGE_VOXEL_MM
    turn = nib.io_orientation(affine)
    ordered = nib.apply_orientation(volume, turn)
    to_index = np.linalg.inv(affine @ nib.orientations.inv_ornt_aff(turn, volume.shape)) @ grid
    matrix, offset = to_index[:3, :3], to_index[:3, 3]
    if np.abs(matrix - np.diag(np.diag(matrix))).max() < STRAIGHT:
        return _by_axes(ordered, np.diag(matrix), offset, shape, degree=3 if large else 1)
    if not large:
        return resample(volume, affine, grid, shape)
    return ndimage.affine_transform(
        ordered, matrix, offset, output_shape=shape, order=3, mode="grid-constant", output=np.float32
    )


def _by_axes(
    data: np.ndarray, step: np.ndarray, offset: np.ndarray, shape: tuple[int, ...], *, degree: int
) -> np.ndarray:
    """Splines along one axis after the other, where no axis is turned: many times as fast; 0 outside."""
    for axis, size in enumerate(shape):
        count = data.shape[0]
        # what each voxel of a row adds to each of the new one
        single = np.pad(np.eye(count), [(PAD, PAD), (0, 0)])
        spline = make_interp_spline(np.arange(-PAD, count + PAD), single, k=degree)
        shares = np.nan_to_num(spline(offset[axis] + step[axis] * np.arange(size), extrapolate=False))
        # a spline's shares get smaller and smaller, and a processor takes ten times as long over the very smallest
        shares[np.abs(shares) < LEAST_SHARE] = 0
        # the axis goes to the back, so that the next one comes to the front
        data = np.tensordot(data, shares.astype(np.float32), (0, 1))
    return data


def head_surface(volume: np.ndarray, affine: np.ndarray) -> Surface:
    """Find the skin of a head.

    Parameters
    ----------
    volume : ndarray (X, Y, Z)
        Any orientation and voxel size; bright tissue in dark air.
    affine : ndarray (4, 4)
        Voxel index to RAS+ mm.

    Returns
    -------
    Surface

    Raises
    ------
    ScanError
        When nothing as large as a head stands out from the air.
    """
    volume = finite(np.ascontiguousarray(volume, np.float32))
    grid, shape = covering_grid(affine, volume.shape, GRID_MM)
    # a coarse look is enough to find the head's box, and for the air around it
    coarse = _seen_on(volume, affine, grid @ np.diag([BLOCK, BLOCK, BLOCK, 1]), tuple(-(-n // BLOCK) for n in shape))
    low, high = _tissue_box(coarse)
    air = np.ones(coarse.shape, bool)
    air[tuple(map(slice, low, high))] = False
    low, high = low * BLOCK, np.minimum(high * BLOCK, shape)
    scan = _seen_on(volume, affine, grid @ nib.affines.from_matvec(np.eye(3), low), tuple(high - low))
    scan = gaussian(scan, SURFACE_SIGMA_MM / GRID_MM, truncate=4)
    # one voxel of eight tells the threshold as well as all
    threshold = skin_level(np.concatenate([scan[::2, ::2, ::2].ravel(), np.repeat(coarse[air], BLOCK**3 // 8)]))
    if not threshold > 0:
        raise ScanError("the image is constant; no head to draw")
    tissue = scan > threshold
    labels, _ = ndimage.label(tissue)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    head = labels == sizes.argmax()
    if head.sum() * GRID_MM**3 / 1000 < LEAST_HEAD_ML:
        raise ScanError(f"nothing as large as a head ({LEAST_HEAD_ML:.0f} ml) stands out from the air")
    # what touches the head may fade below the threshold beyond it; what floats in the air goes
    far = shrunk(~head, 2, beyond=True)
    scan /= threshold
    scan[far] = 0
    core = shrunk(_close(head), 3)
    filled = gaussian(core.astype(np.float32), 1.5)
    field = np.zeros(shape, np.float32)
    np.clip(scan, 2 * filled, 2, out=field[tuple(map(slice, low, high))])
    return Surface(field, grid)


def _tissue_box(coarse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and end (3,) of the voxels that may be tissue, with a margin; the whole where none stands out."""
    found = np.argwhere(coarse > skin_level(coarse) / 2)
    if not len(found):
        return np.zeros(3, int), np.array(coarse.shape)
    return np.maximum(found.min(0) - MARGIN, 0), np.minimum(found.max(0) + 1 + MARGIN, coarse.shape)


def _close(head: np.ndarray) -> np.ndarray:
    """Fill gaps of bone, eyes and sinuses up to 8 mm wide, so that no ray falls in; at 2 mm, for speed."""
    gaps, _ = ndimage.label(~closed(np.pad(head[::2, ::2, ::2], CLOSING_MM), CLOSING_MM / 2))
    filled = (gaps != gaps[0, 0, 0])[(slice(CLOSING_MM, -CLOSING_MM),) * 3]
    for axis in range(3):
        filled = np.repeat(filled, 2, axis=axis)
    return filled[tuple(slice(n) for n in head.shape)] | head


def _frame(surface: Surface, view: View):
    """Affine from picture grid (column, depth, row) to field index, and that grid's shape.

    Seen from the front: columns run to the subject's left, depth backwards, rows downwards.
    """
    across, forward, up = carried(nib.affines.from_matvec(view.rotation()), surface.cloud)
    top = up.max()
    skull = across[up > top - 130]
    middle = (skull.min() + skull.max()) / 2
    front = forward.max() + 2 * BLOCK
    pixel = FRAME_MM / view.size
    deep = int(np.ceil(front - forward.mean())) + 30
    grid = np.eye(4)
    grid[:3, :3] = np.diag([-pixel, -GRID_MM, -pixel])
    grid[:3, 3] = [middle + FRAME_MM / 2 - pixel / 2, front, top + TOP_MARGIN_MM - pixel / 2]
    back = np.eye(4)
    back[:3, :3] = view.rotation().T
    return np.linalg.inv(surface.affine) @ back @ grid, (view.size, deep, view.size)


def first_hit(field: np.ndarray) -> np.ndarray:
    """Depth along axis 1 at which each ray first crosses 1, to a part of a voxel.

    Returns
    -------
    ndarray (X, Z), float32
        In voxels; NaN where the ray meets nothing.
    """
    inside = field >= 1
    index = inside.argmax(axis=1)
    hit = inside.any(axis=1)
    behind = np.take_along_axis(field, index[:, None], axis=1)[:, 0]
    before = np.take_along_axis(field, np.maximum(index - 1, 0)[:, None], axis=1)[:, 0]
    part = np.where(index > 0, (behind - 1) / np.maximum(behind - before, 1e-6), 0)
    return np.where(hit, index - np.clip(part, 0, 1), np.nan).astype(np.float32)


def _depths(surface: Surface, to_field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`first_hit` of the field on a picture's grid, of which only what is near the skin is sampled."""
    size, deep, _ = shape
    column, depth, row = carried(np.linalg.inv(to_field), surface.skin)
    # between which depths skin lies in each tile of the picture and those beside it
    wide = int(np.ceil(TILE_MM * size / FRAME_MM))
    count = -(-size // wide) + 2
    across, down = (np.clip(np.floor(place / wide).astype(int) + 1, 0, count - 1) for place in (column, row))
    nearest, farthest = np.full(count * count, np.inf, np.float32), np.full(count * count, -np.inf, np.float32)
    np.minimum.at(nearest, across * count + down, depth)
    np.maximum.at(farthest, across * count + down, depth)
    own = np.ix_(*[np.arange(size) // wide + 1] * 2)
    start = np.maximum(ndimage.minimum_filter(nearest.reshape(count, count), 3)[own] - SKIN_MM, 0).ravel()
    stop = np.minimum(ndimage.maximum_filter(farthest.reshape(count, count), 3)[own] + SKIN_MM, deep - 1).ravel()

    found = np.full(size * size, np.nan, np.float32)
    ray = np.flatnonzero(start < stop)
    at = np.floor(start[ray]).astype(int)
    steps = np.arange(STRIDE)
    along = np.float32(to_field[:3, 1]) * steps[:, None]
    while ray.size:
        first = carried(to_field, np.stack([ray // size, at, ray % size]).astype(np.float32))
        field = sample_points(surface.field[None], first.T[:, None] + along)
        field[at[:, None] + steps >= deep] = 0
        hit = first_hit(field)[:, 0]
        found[ray] = at + hit
        # the last sample is the first of the next stretch: skin may lie between it and the one behind it
        at += STRIDE - 1
        on = np.isnan(hit) & (at < stop[ray])
        ray, at = ray[on], at[on]
    return found.reshape(size, size)


def render(surface: Surface, view: View | None = None) -> np.ndarray:
    """Draw a head from the front: parallel rays, Lambert shading.

    Parameters
    ----------
    surface : Surface
    view : View, optional
        Straight from the front if not given.

    Returns
    -------
    ndarray (size, size), uint8
        Rows downwards; the subject's left is on the right of the picture; air is black.
    """
    view = view or View()
    to_field, shape = _frame(surface, view)
    depth = _depths(surface, to_field, shape)
    hit = np.isfinite(depth)
    filled = ndimage.gaussian_filter(np.where(hit, depth, 0), 0.8) / np.maximum(
        ndimage.gaussian_filter(hit.astype(np.float32), 0.8), 1e-3
    )
    pixel = FRAME_MM / view.size
    slope = [np.gradient(filled * GRID_MM, pixel, axis=axis) for axis in (0, 1)]
    # depth grows away from the viewer, columns to the right, rows downwards
    normal = np.stack([slope[0], -slope[1], np.ones_like(filled)])
    normal /= np.linalg.norm(normal, axis=0)
    light = np.array(view.light) / np.linalg.norm(view.light)
    lambert = np.clip(np.tensordot(light, normal, 1), 0, 1)
    shade = np.where(hit, view.ambient + (1 - view.ambient) * lambert, 0)
    return np.ascontiguousarray(np.rint(255 * shade).T.astype(np.uint8))
