"""Resampling on coordinate maps: trilinear, multi-threaded, in slabs so that memory stays small."""

from __future__ import annotations

import numpy as np

from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, grid_points

SLAB_POINTS = 2_000_000


def sample_points(volumes: np.ndarray, index: np.ndarray, *, outside: str = "zeros") -> np.ndarray:
    """Trilinear samples of channels ``(C, X, Y, Z)`` at voxel indices ``(..., 3)``; ``outside`` is 0 or the ``edge``.

    Returns
    -------
    ndarray (..., C), float32
    """
    import torch
    from torch.nn.functional import grid_sample

    size = np.array(volumes.shape[1:], np.float32)
    # grid_sample counts axes from the last to the first, and [-1, 1] from border to border of the voxels
    unit = ((2 * index + 1) / size - 1)[..., ::-1].astype(np.float32)
    source = torch.from_numpy(np.ascontiguousarray(volumes, np.float32))[None]
    flat = torch.from_numpy(np.ascontiguousarray(unit)).reshape(1, -1, 1, 1, 3)
    padding = "border" if outside == "edge" else "zeros"
    out = grid_sample(source, flat, mode="bilinear", padding_mode=padding, align_corners=False)
    return np.ascontiguousarray(out.reshape(volumes.shape[0], -1).T.numpy()).reshape(*index.shape[:-1], -1)


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
    to_index = np.linalg.inv(affine)
    channels = np.asarray(volume, np.float32)
    channels = channels if channels.ndim == 4 else channels[None]
    out = np.empty((len(channels), *target_shape), np.float32)
    step = max(1, SLAB_POINTS // max(1, target_shape[1] * target_shape[2]))
    for start in range(0, target_shape[0], step):
        slab = target_affine.copy()
        slab[:3, 3] += target_affine[:3, 0] * start
        n = min(step, target_shape[0] - start)
        points = grid_points(slab, (n, *target_shape[1:]))
        if through is not None:
            points = through(points)
        sampled = sample_points(channels, apply_affine(to_index, points), outside=outside)
        out[:, start : start + n] = np.moveaxis(sampled, -1, 0)
    return out if np.ndim(volume) == 4 else out[0]


def downsample(volume: np.ndarray, affine: np.ndarray, target_affine: np.ndarray, target_shape: tuple[int, ...]):
    """Like `resample`, after a Gaussian that keeps finer detail than the target grid from aliasing."""
    from scipy.ndimage import gaussian_filter

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    target = np.linalg.norm(target_affine[:3, :3], axis=0).mean()
    sigma = 0.5 * np.sqrt(np.maximum((target / spacing) ** 2 - 1, 0))
    if sigma.max() > 0.2:
        volume = gaussian_filter(np.asarray(volume, np.float32), sigma, truncate=3)
    return resample(volume, affine, target_affine, target_shape)
