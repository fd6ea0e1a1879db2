"""Resampling on coordinate maps: trilinear, multi-threaded, in slabs so that memory stays small."""

from __future__ import annotations

import numpy as np

from bids_cpmae.imaging.headspace import CoordinateMap, Displacement

SLAB_POINTS = 500_000
LINE = 4096


def sample_points(volumes: np.ndarray, index: np.ndarray, *, outside: str = "zeros") -> np.ndarray:
    """Trilinear samples of channels ``(C, X, Y, Z)`` at voxel indices ``(..., 3)``; ``outside`` is 0 or the ``edge``.

    Returns
    -------
    ndarray (..., C), float32
    """
    import torch
    from torch.nn.functional import grid_sample, pad

    size = np.array(volumes.shape[1:], np.float32)
    # grid_sample counts axes from the last to the first, and [-1, 1] from border to border of the voxels
    unit = ((2 * index + 1) / size - 1)[..., ::-1].astype(np.float32)
    flat = torch.from_numpy(np.ascontiguousarray(unit).reshape(-1, 3))
    # threads share out what lies along the first axis of a batch: lines, each of which looks at the same channels
    lines = pad(flat, (0, 0, 0, -len(flat) % LINE)).reshape(-1, 1, 1, LINE, 3)
    # those of a voxel side by side are sampled twice as fast
    batch = torch.from_numpy(np.ascontiguousarray(volumes, np.float32))[None]
    batch = batch.contiguous(memory_format=torch.channels_last_3d).expand(len(lines), *volumes.shape)
    padding = "border" if outside == "edge" else "zeros"
    out = grid_sample(batch, lines, padding_mode=padding, align_corners=False)
    return out.movedim(1, -1).reshape(-1, len(volumes))[: len(flat)].numpy().reshape(*index.shape[:-1], -1)


def _sampled(channels, index):
    """Trilinear samples (X, C, Y, Z) of channels (C, D, H, W) at voxel indices (X, 3, Y, Z), constant beyond the edge.

    Tensors; ``index`` is written over. `grid_sample` in two dimensions, which has vector instructions as that in three
    has not, on the planes of the first axis laid one below the other, once for the plane below an index and once for
    the one above: together in less than half the time. ``index`` should not reach over many planes, for the rows of
    all together are told apart in single precision.
    """
    import torch
    from torch.nn.functional import grid_sample

    planes, height, width = channels.shape[1:]
    plane = index[:, 0].clamp_(0, planes - 1)
    below = plane.floor().clamp_(max=max(0, planes - 2))
    share = (plane - below)[:, None]
    first = int(below.min())
    tall = channels[:, first : int(below.max()) + 2].flatten(1, 2)
    row = index[:, 1].clamp_(0, height - 1).add_(below.sub_(first), alpha=height)
    place = torch.empty(*row.shape, 2)
    for unit, at, size in ((place[..., 0], index[:, 2], width), (place[..., 1], row, tall.shape[1])):
        torch.mul(at, 2 / size, out=unit).add_(1 / size - 1)
    # threads share out what lies along the first axis of a batch
    batch = tall[None].expand(len(index), *tall.shape)
    lower = grid_sample(batch, place, padding_mode="border", align_corners=False)
    place[..., 1] += 2 * height / tall.shape[1]
    return torch.lerp(lower, grid_sample(batch, place, padding_mode="border", align_corners=False), share)


def _linear(matrix: np.ndarray, shape: tuple[int, ...]):
    """An affine (3, 4) of the voxel indices of a grid, as a tensor (X, 3, Y, Z), float32."""
    import torch

    along, across, up = (
        torch.from_numpy(np.outer(np.arange(n), matrix[:, axis]).astype(np.float32)) for axis, n in enumerate(shape)
    )
    along += torch.from_numpy(matrix[:, 3].astype(np.float32))
    return along[:, :, None, None] + across.T[None, :, :, None] + up.T[None, :, None, :]


def _along_axes(matrix: np.ndarray) -> list[int] | None:
    """Which axis of one grid each axis of another runs along, by the (3, 4) between their indices; None if oblique."""
    leads = np.abs(matrix[:3, :3]).argmax(0)
    rest = matrix[:3, :3].copy()
    rest[leads, range(3)] = 0
    return list(leads) if np.abs(rest).max() < 1e-6 * np.abs(matrix[:3, :3]).max() else None


def _shifts(shift: np.ndarray, affine: np.ndarray, target_affine: np.ndarray, target_shape: tuple[int, ...]):
    """A field of shifts (3, X, Y, Z) seen on another grid, trilinear and constant beyond its edge.

    Returns
    -------
    callable
        Of first plane and number of planes: the shifts there, a tensor (n, 3, Y, Z).
    """
    import torch

    between = np.linalg.inv(affine)[:3] @ target_affine
    axes = _along_axes(between)
    if axes is None:
        field = torch.from_numpy(shift)
        return lambda start, n: _sampled(field, _linear(_slab(between, start), (n, *target_shape[1:])))
    # one axis after the other, which is several times as fast as eight neighbours of every voxel
    field = torch.from_numpy(np.ascontiguousarray(shift.transpose(axes[0] + 1, 0, axes[1] + 1, axes[2] + 1)))
    along, across, up = (
        _between(between[axis, own] * np.arange(n) + between[axis, 3], shift.shape[axis + 1])
        for own, (axis, n) in enumerate(zip(axes, target_shape))
    )

    def interpolate(start: int, n: int):
        planes = (along[start : start + n] @ field.flatten(1)).reshape(n, *field.shape[1:])
        return across @ planes @ up.T

    return interpolate


def _slab(affine: np.ndarray, start: int) -> np.ndarray:
    """An affine (3, 4) of voxel indices, for a grid that begins with plane ``start``."""
    moved = affine.copy()
    moved[:, 3] += affine[:3, 0] * start
    return moved


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
    import torch

    channels = np.asarray(volume, np.float32)
    channels = channels if channels.ndim == 4 else channels[None]
    if outside == "zeros":
        channels, affine = framed(channels, affine)
    to_index = np.linalg.inv(affine)[:3]
    # the axis along which the target's planes follow each other comes first: each looks at few planes of the volume
    first = int(np.abs(to_index[:, :3] @ target_affine[:3, 0]).argmax())
    to_index = to_index[[first, *(axis for axis in range(3) if axis != first)]]
    channels = torch.from_numpy(np.ascontiguousarray(channels)).movedim(first + 1, 1).contiguous()
    index_of = to_index @ target_affine
    if through is not None:
        # a map is the identity and a shift that varies slowly: only the shift is looked up, in voxels of the volume
        shift = through.shift() @ to_index[:, :3].T
        shift = np.ascontiguousarray(np.moveaxis(shift, -1, 0), np.float32)
        shifts = _shifts(shift, through.affine, target_affine, target_shape)
    out = np.empty((len(channels), *target_shape), np.float32)
    step = max(1, SLAB_POINTS // max(1, target_shape[1] * target_shape[2]))
    for start in range(0, target_shape[0], step):
        n = min(step, target_shape[0] - start)
        index = _linear(_slab(index_of, start), (n, *target_shape[1:]))
        if through is not None:
            index += shifts(start, n)
        out[:, start : start + n] = _sampled(channels, index).movedim(0, 1).numpy()
    return out if np.ndim(volume) == 4 else out[0]


def framed(volume: np.ndarray, affine: np.ndarray, *, mode: str = "constant") -> tuple[np.ndarray, np.ndarray]:
    """A volume (..., X, Y, Z) with one voxel more at each side, 0 or what `numpy.pad` fills it with, and its affine."""
    wider = affine.copy()
    wider[:3, 3] -= affine[:3, :3].sum(1)
    return np.pad(volume, [(0, 0)] * (volume.ndim - 3) + [(1, 1)] * 3, mode=mode), wider


def downsample(volume: np.ndarray, affine: np.ndarray, target_affine: np.ndarray, target_shape: tuple[int, ...]):
    """Like `resample`, after a Gaussian that keeps finer detail than the target grid from aliasing."""
    from bids_cpmae.imaging.filters import gaussian

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    target = np.linalg.norm(target_affine[:3, :3], axis=0).mean()
    sigma = 0.5 * np.sqrt(np.maximum((target / spacing) ** 2 - 1, 0))
    if sigma.max() > 0.2:
        volume = gaussian(np.asarray(volume, np.float32), sigma)
    return resample(volume, affine, target_affine, target_shape)
