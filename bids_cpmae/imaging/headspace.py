"""Head space: the fixed 1 mm RAS+ grid in which the model sees every head, and coordinate maps into it.

Head space has its origin at the anterior commissure and the size of the average training head. Its grid is
256^3 voxels of 1 mm; the anterior commissure lies at voxel ``AC_VOXEL``, half a voxel off in x so that mirroring
the first axis mirrors the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

AC_VOXEL = (127.5, 124.0, 160.0)
HEAD_SIZE_MM = 256
# every so many points of a map tell its linear part
THIN = 4


def head_affine(spacing: int = 1) -> np.ndarray:
    """Affine of the head-space grid at ``spacing`` mm: voxel index to RAS+ mm, the box the same at every spacing."""
    affine = np.diag([float(spacing)] * 3 + [1.0])
    affine[:3, 3] = (spacing - 1) / 2 - np.asarray(AC_VOXEL)
    return affine


def head_shape(spacing: int = 1) -> tuple[int, int, int]:
    """Shape of the head-space grid at ``spacing`` mm."""
    return (HEAD_SIZE_MM // spacing,) * 3


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points ``(..., 3)`` carried through a 4 x 4 affine."""
    return points @ affine[:3, :3].T + affine[:3, 3]


def corner_of(affine: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """Affine (4, 4) of a box of voxels of a grid."""
    moved = affine.copy()
    moved[:3, 3] = apply_affine(affine, np.array([side.start for side in box], float))
    return moved


def grid_points(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """World coordinates of every voxel of a grid, ``(X, Y, Z, 3)`` float64, in mm."""
    first, second, third = (np.outer(np.arange(n), affine[:3, axis]) for axis, n in enumerate(shape))
    return (first + affine[:3, 3])[:, None, None] + second[None, :, None] + third[None, None, :]


def covering_grid(affine: np.ndarray, shape: tuple[int, ...], spacing: float, *, pad: float = 0.0):
    """The axis-aligned RAS+ grid of ``spacing`` mm that covers another grid's field of view.

    Parameters
    ----------
    affine, shape
        The grid to cover, of any orientation or obliqueness.
    spacing : float
        Voxel size in mm.
    pad : float
        Margin in mm added on every side.

    Returns
    -------
    affine : ndarray (4, 4)
    shape : tuple of int
    """
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape[:3]], indexing="ij")).reshape(3, -1).T
    world = apply_affine(affine, corners)
    low, high = world.min(0) - pad, world.max(0) + pad
    cover = np.diag([spacing] * 3 + [1.0])
    cover[:3, 3] = low + spacing / 2
    return cover, tuple(int(n) for n in np.maximum(np.ceil((high - low) / spacing - 1e-6), 1))


@dataclass(frozen=True)
class CoordinateMap:
    """Where each point of one space lies in another, sampled on a coarse axis-aligned grid.

    Attributes
    ----------
    affine : ndarray (4, 4)
        Of the coarse grid, in the space mapped from.
    points : ndarray (X, Y, Z, 3), float32
        Coordinates in the space mapped to, RAS+ mm, at each coarse grid point.
    """

    affine: np.ndarray
    points: np.ndarray

    def __call__(self, world: np.ndarray) -> np.ndarray:
        """Map points ``(..., 3)`` in mm; beyond the coarse grid the map goes on as its linear part does."""
        from bids_cpmae.imaging.resample import sample_points

        index = apply_affine(np.linalg.inv(self.affine), world).astype(np.float32)
        inside = np.clip(index, 0, np.array(self.points.shape[:3], np.float32) - 1)
        mapped = sample_points(np.moveaxis(self.points, -1, 0), inside)
        return mapped + (index - inside) @ self._linear

    @cached_property
    def _linear(self) -> np.ndarray:
        """How far a step along each axis of the grid leads, (3, 3): the best line through all points."""
        steps = [1 if n < 2 * THIN else THIN for n in self.points.shape[:3]]
        thin = tuple(slice(None, None, step) for step in steps)
        index = np.moveaxis(np.indices(self.points.shape[:3], dtype=float), 0, -1)[thin].reshape(-1, 3)
        own = np.diag(np.diag(self.affine)[:3])
        # along an axis that is but one point long nothing is known, and a map is nearly the identity
        shift = self.points[thin].reshape(-1, 3) - index @ own
        rows = np.column_stack([index - index.mean(0), np.ones(len(index))])
        return (own + np.linalg.lstsq(rows, shift, rcond=None)[0][:3]).astype(np.float32)

    @property
    def stretch(self) -> float:
        """How many times as long things are in the space mapped to, all in all."""
        return float(np.cbrt(abs(np.linalg.det(self._linear)) / np.prod(np.diag(self.affine)[:3])))

    def shift(self) -> np.ndarray:
        """How far each point of the coarse grid is moved, (X, Y, Z, 3), in mm."""
        return self.points - grid_points(self.affine, self.points.shape[:3])

    def after(self, rigid: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> CoordinateMap:
        """This map behind a rigid one (4, 4), sampled on a coarse axis-aligned grid of the space that leads from."""
        return CoordinateMap(affine, self(apply_affine(rigid, grid_points(affine, shape))).astype(np.float32))

    def save(self, path: Path) -> Path:
        """Write to one ``.npz``."""
        np.savez(path, affine=self.affine, points=self.points)
        return Path(path)

    @classmethod
    def load(cls, path: Path) -> CoordinateMap:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(stored["affine"], stored["points"])


@dataclass(frozen=True)
class Displacement:
    """What `resample` takes for a `CoordinateMap` of which it is known how far it moves each point.

    Attributes
    ----------
    affine : ndarray (4, 4)
        Of an axis-aligned grid.
    moved : ndarray (X, Y, Z, 3)
        In mm, RAS+.
    """

    affine: np.ndarray
    moved: np.ndarray

    def shift(self) -> np.ndarray:
        """As of `CoordinateMap.shift`."""
        return self.moved
