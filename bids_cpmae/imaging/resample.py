"""Resampling on coordinate maps: trilinear, multi-threaded, in slabs so that memory stays small."""

from __future__ import annotations

import numpy as np

from bids_cpmae.imaging.headspace import CoordinateMap, Displacement

SLAB_POINTS = 2_000_000
LINE = 4096


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
    source = _side_by_side(volumes)
    flat = torch.from_numpy(np.ascontiguousarray(unit).reshape(-1, 3))
    lines = torch.nn.functional.pad(flat, (0, 0, 0, -len(flat) % LINE)).reshape(-1, 1, LINE, 3)
    out = _grid_sample(source, lines, outside).movedim(0, -1).reshape(-1, volumes.shape[0])
    return out[: len(flat)].numpy().reshape(*index.shape[:-1], -1)


def _side_by_side(channels: np.ndarray):
    """Channels (C, D, H, W) as a tensor in which those of a voxel lie side by side: they are sampled twice as fast."""
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(channels, np.float32))[None]
    return batch.contiguous(memory_format=torch.channels_last_3d)[0]


def _grid_sample(source, unit, outside: str):
    """Samples (C, X, Y, Z) of channels (C, D, H, W) at places (X, Y, Z, 3)."""
    from torch.nn.functional import grid_sample

    padding = "border" if outside == "edge" else "zeros"
    # threads share out what lies along the first axis of a batch: planes, each of which looks at the same channels
    batch, planes = source[None].expand(len(unit), *source.shape), unit[:, None]
    out = grid_sample(batch, planes, mode="bilinear", padding_mode=padding, align_corners=False)
    return out[:, :, 0].movedim(1, 0)


def _to_unit(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What takes a world point to `grid_sample`'s place in a volume, (3, 4), its axes from the last to the first."""
    size = np.array(shape, float)[:, None]
    to_index = np.linalg.inv(affine)[:3]
    unit = 2 * to_index / size
    unit[:, 3] += 1 / size[:, 0] - 1
    return unit[::-1].copy()


def _linear(matrix: np.ndarray, shape: tuple[int, ...]):
    """An affine (3, 4) of the voxel indices of a grid, as a tensor (X, Y, Z, 3), float32."""
    import torch

    axes = [
        torch.from_numpy(np.outer(np.arange(n), matrix[:, axis]).astype(np.float32)) for axis, n in enumerate(shape)
    ]
    axes[0] += torch.from_numpy(matrix[:, 3].astype(np.float32))
    return axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]


def _along_axes(matrix: np.ndarray) -> list[int] | None:
    """Which axis of one grid each axis of another runs along, from the 4 x 4 between their indices; None if oblique."""
    leads = np.abs(matrix[:3, :3]).argmax(0)
    rest = matrix[:3, :3].copy()
    rest[leads, range(3)] = 0
    return list(leads) if np.abs(rest).max() < 1e-6 * np.abs(matrix[:3, :3]).max() else None


def _shifts(shift: np.ndarray, affine: np.ndarray, target_affine: np.ndarray, target_shape: tuple[int, ...]):
    """A field of shifts (3, X, Y, Z) seen on another grid, trilinear and constant beyond its edge.

    Returns
    -------
    callable
        Of first plane and number of planes: the shifts there, a tensor (n, Y, Z, 3).
    """
    import torch

    between = np.linalg.inv(affine) @ target_affine
    axes = _along_axes(between)
    if axes is None:
        field, place = _side_by_side(shift), _to_unit(affine, shift.shape[1:])

        def look_up(start: int, n: int):
            slab = target_affine.copy()
            slab[:3, 3] += target_affine[:3, 0] * start
            return _grid_sample(field, _linear(_chained(place, slab), (n, *target_shape[1:])), "edge").movedim(0, -1)

        return look_up
    # one axis after the other, which is several times as fast as eight neighbours of every voxel
    field = torch.from_numpy(np.ascontiguousarray(shift.transpose(axes[0] + 1, 0, axes[1] + 1, axes[2] + 1)))
    along, across, up = (
        _between(between[axis, own] * np.arange(n) + between[axis, 3], shift.shape[axis + 1])
        for own, (axis, n) in enumerate(zip(axes, target_shape))
    )

    def interpolate(start: int, n: int):
        planes = (along[start : start + n] @ field.flatten(1)).reshape(n, *field.shape[1:])
        return (across @ planes @ up.T).movedim(1, -1)

    return interpolate


def _between(at: np.ndarray, count: int):
    """(N, count): what values (count,) along an axis are at its indices ``at`` (N,), linear, constant beyond the ends.

    As a matrix, for no way to pick neighbours from large fields is as fast as a product of which most is zero.
    """
    import torch

    at = np.clip(at, 0, count - 1)
    low = np.minimum(np.floor(at).astype(int), max(0, count - 2))
    weights = np.zeros((len(at), count), np.float32)
    rows = np.arange(len(at))
    weights[rows, low] = 1 - (at - low)
    weights[rows, np.minimum(low + 1, count - 1)] += at - low
    return torch.from_numpy(weights)


def resample(
    volume: np.ndarray,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: tuple[int, ...],
    *,
    through: CoordinateMap | Displacement | None = None,
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
    through : CoordinateMap or Displacement, optional
        From the target grid's space to the volume's; the identity if not given.
    outside : {"zeros", "edge"}
        What holds beyond the volume's field of view.

    Returns
    -------
    ndarray of ``target_shape``, float32; with C in front where there are several
    """
    channels = np.asarray(volume, np.float32)
    channels = _side_by_side(channels if channels.ndim == 4 else channels[None])
    place = _to_unit(affine, channels.shape[1:])
    if through is not None:
        # a map is the identity and a shift that varies slowly: only the shift is looked up, in units of the volume
        shift = through.shift() @ place[:, :3].T
        shift = np.ascontiguousarray(np.moveaxis(shift, -1, 0), np.float32)
        shifts = _shifts(shift, through.affine, target_affine, target_shape)
    out = np.empty((len(channels), *target_shape), np.float32)
    step = max(1, SLAB_POINTS // max(1, target_shape[1] * target_shape[2]))
    for start in range(0, target_shape[0], step):
        slab = target_affine.copy()
        slab[:3, 3] += target_affine[:3, 0] * start
        n = min(step, target_shape[0] - start)
        unit = _linear(_chained(place, slab), (n, *target_shape[1:]))
        if through is not None:
            unit += shifts(start, n)
        out[:, start : start + n] = _grid_sample(channels, unit, outside).numpy()
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
