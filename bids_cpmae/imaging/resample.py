"""Resampling on coordinate maps: trilinear, multi-threaded, in slabs so that memory stays small."""

from __future__ import annotations

import numpy as np

from bids_cpmae.imaging.headspace import CoordinateMap, grid_points

SLAB_POINTS = 2_000_000


def sample_points(volumes: np.ndarray, index: np.ndarray, *, outside: str = "zeros") -> np.ndarray:
    """Trilinear samples of channels ``(C, X, Y, Z)`` at voxel indices ``(..., 3)``; ``outside`` is 0 or the ``edge``.

    Returns
    -------
    ndarray (..., C), float32
    """
    import torch

    size = np.array(volumes.shape[1:], np.float32)
    # grid_sample counts axes from the last to the first, and [-1, 1] from border to border of the voxels
    unit = ((2 * index + 1) / size - 1)[..., ::-1].astype(np.float32)
    source = torch.from_numpy(np.ascontiguousarray(volumes, np.float32))[None]
    flat = torch.from_numpy(np.ascontiguousarray(unit)).reshape(1, -1, 1, 1, 3)
    out = _grid_sample(source, flat, outside)
    return np.ascontiguousarray(out.reshape(volumes.shape[0], -1).T.numpy()).reshape(*index.shape[:-1], -1)


def _grid_sample(source, unit, outside: str):
    from torch.nn.functional import grid_sample

    padding = "border" if outside == "edge" else "zeros"
    return grid_sample(source, unit, mode="bilinear", padding_mode=padding, align_corners=False)


def _to_unit(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What takes a world point to `grid_sample`'s place in a volume, (3, 4), its axes from the last to the first."""
    size = np.array(shape, float)[:, None]
    to_index = np.linalg.inv(affine)[:3]
    unit = 2 * to_index / size
    unit[:, 3] += 1 / size[:, 0] - 1
    return unit[::-1].copy()


def _linear(matrix: np.ndarray, shape: tuple[int, ...]):
    """An affine (3, 4) of the voxel indices of a grid, as a tensor (1, X, Y, Z, 3), float32."""
    import torch

    axes = [
        torch.from_numpy(np.outer(np.arange(n), matrix[:, axis]).astype(np.float32)) for axis, n in enumerate(shape)
    ]
    axes[0] += torch.from_numpy(matrix[:, 3].astype(np.float32))
    return (axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :])[None]


def resample(
    volume: np.ndarray,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: tuple[int, ...],
    *,
    through: CoordinateMap | None = None,
    outside: str = "zeros",
) -> np.ndarray:
    """A volume seen on another grid, trilinear.

    Parameters
    ----------
    volume : ndarray (X, Y, Z) or (C, X, Y, Z)
        One volume, or several on one grid.
    affine : ndarray (4, 4)
        Voxel index of ``volume`` to RAS+ mm.
    target_affine, target_shape
        The grid to sample on.
    through : CoordinateMap, optional
        From the target grid's space to the volume's; the identity if not given.
    outside : {"zeros", "edge"}
        What holds beyond the volume's field of view.

    Returns
    -------
    ndarray of ``target_shape``, float32; with C in front where there are several
    """
    import torch

    channels = np.asarray(volume, np.float32)
    channels = torch.from_numpy(np.ascontiguousarray(channels if channels.ndim == 4 else channels[None]))[None]
    place = _to_unit(affine, channels.shape[2:])
    if through is not None:
        # a map is the identity and a shift that varies slowly: only the shift is looked up, in units of the volume
        shift = (through.points - grid_points(through.affine, through.points.shape[:3])) @ place[:, :3].T
        shift = torch.from_numpy(np.ascontiguousarray(np.moveaxis(shift, -1, 0), np.float32))[None]
        to_map = _to_unit(through.affine, shift.shape[2:])
    out = np.empty((channels.shape[1], *target_shape), np.float32)
    step = max(1, SLAB_POINTS // max(1, target_shape[1] * target_shape[2]))
    for start in range(0, target_shape[0], step):
        slab = target_affine.copy()
        slab[:3, 3] += target_affine[:3, 0] * start
        n = min(step, target_shape[0] - start)
        unit = _linear(_chained(place, slab), (n, *target_shape[1:]))
        if through is not None:
            moved = _grid_sample(shift, _linear(_chained(to_map, slab), (n, *target_shape[1:])), "edge")
            unit += moved.movedim(1, -1)
        out[:, start : start + n] = _grid_sample(channels, unit, outside)[0].numpy()
    return out if np.ndim(volume) == 4 else out[0]


def _chained(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """(3, 4) after (4, 4)."""
    return np.vstack([first, [0, 0, 0, 1]])[:3] @ then


def downsample(volume: np.ndarray, affine: np.ndarray, target_affine: np.ndarray, target_shape: tuple[int, ...]):
    """Like `resample`, after a Gaussian that keeps finer detail than the target grid from aliasing."""
    from bids_cpmae.imaging.filters import gaussian

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    target = np.linalg.norm(target_affine[:3, :3], axis=0).mean()
    sigma = 0.5 * np.sqrt(np.maximum((target / spacing) ** 2 - 1, 0))
    if sigma.max() > 0.2:
        volume = gaussian(np.asarray(volume, np.float32), sigma)
    return resample(volume, affine, target_affine, target_shape)
