"""Who a new face is: a portrait bent by a random mix of the shapes that heads differ by.

All chance of a face sits in one vector of scores, so that it hangs together; the vector is drawn, never read off the
scan that is being de-identified. What the masked autoencoder gets of it is a sketch: the portrait in that shape. The
portrait is what all training heads have in common once they have one shape, see `bids_cpmae.training.portrait`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import zoom
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.facemask import signed_distance
from bids_cpmae.imaging.fields import blocks
from bids_cpmae.imaging.filters import smooth_step
from bids_cpmae.imaging.headspace import Displacement, grid_points, head_affine, head_shape
from bids_cpmae.imaging.resample import resample, sample_points
from bids_cpmae.imaging.template import BRAIN_BIT, HEAD_BIT, SPACING, load_template

FIELD_MM = 8
RAMP_MM = {"face": 16.0, "head": 10.0}
PORTRAIT_MARGIN_MM, EARS_MARGIN_MM = 4.0, 20.0
WHOLE = (slice(None),) * 3
# a face grows and nods about this point of head space, in the middle of the brain's length; how much smaller and larger
# than its head would have it it is at most, for one far too small sinks into its head; and how soon a pose holds: from
# the border of what is replaced inwards, so slowly that hardly anything is folded, and from the brow, which meets kept
# skin, downwards
PIVOT, SIZE_BOUNDS = (0.0, -18.0, 0.0), (0.95, 1.07)
POSE_RAMP_MM, POSE_DOWN_MM = 40.0, (-40.0, -6.0)


@dataclass(frozen=True)
class Pose:
    """How a face sits in its head, against how the average one does.

    Attributes
    ----------
    size : float
        Of the face, 1 for that of the average head.
    pitch : float
        In degrees, upwards.
    forwards, upwards : float
        In mm of head space, and so more in the scan of a large head.
    """

    size: float = 1.0
    pitch: float = 0.0
    forwards: float = 0.0
    upwards: float = 0.0

    def displacement(self, head_size: float = 1.0) -> np.ndarray:
        """Where, from a place of the new head, the average face's tissue for it is to be found.

        Parameters
        ----------
        head_size : float
            How many times as large as the average head the one is that the face is for. Shapes alone would give large
            heads large faces, and so tell whose they are; within `SIZE_BOUNDS` the face is as large as it is.

        Returns
        -------
        ndarray (3, 32, 32, 32), float32
            In mm, RAS+, at places of head space every 8 mm; 0 outside of what face mode replaces and above the brow.
        """
        ratio = np.clip(self.size / head_size, *SIZE_BOUNDS)
        cos, sin = np.cos(np.deg2rad(self.pitch)), np.sin(np.deg2rad(self.pitch))
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        places = grid_points(head_affine(FIELD_MM), head_shape(FIELD_MM)) - PIVOT
        shift = (places - (0, self.forwards, self.upwards)) @ turn / ratio - places
        return np.moveaxis(shift * _pose_share()[..., None], -1, 0).astype(np.float32)


@lru_cache(maxsize=1)
def _pose_share() -> np.ndarray:
    """How much of a pose holds at each place of the 8 mm grid (32, 32, 32), 0 to 1."""
    height = grid_points(head_affine(FIELD_MM), head_shape(FIELD_MM))[..., 2]
    within = blocks(smooth_step(-_border("face"), 0, POSE_RAMP_MM), np.full(3, FIELD_MM // SPACING))
    return within * (1 - smooth_step(height, *POSE_DOWN_MM))


def joined(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Displacements (3, 32, 32, 32) in mm that lead through ``first`` and, from where that leads, through ``then``."""
    index = np.moveaxis(np.indices(first.shape[1:], dtype=np.float32) + first / FIELD_MM, 0, -1)
    return first + np.moveaxis(sample_points(then, index, outside="edge"), -1, 0)


@lru_cache(maxsize=1)
def portrait_voxels() -> np.ndarray:
    """Which voxels of head space a portrait holds: head and a rim of air, no brain. (256, 256, 256), True = held.

    The rim is wider beside the ears, which stand out further in a portrait than in the template.
    """
    template = load_template()
    away = distance_in(~template.mask(HEAD_BIT), SPACING)
    near = (away <= PORTRAIT_MARGIN_MM) | (template.replaced_with_air(("ears",)) & (away <= EARS_MARGIN_MM))
    for axis in range(3):
        near = np.repeat(near, SPACING, axis)
    return near & ~template.fine(BRAIN_BIT)


class Identity(nn.Module):
    """The portrait, and mean and principal components of shapes as displacements in mm on the 8 mm grid (32^3).

    A displacement says where, from a place of the new head, the portrait's tissue for it is to be found. Only those in
    and near the head are held, ``N`` of them: ``where`` (32, 32, 32) is True there, ``mean`` has shape (3, N) and
    ``components`` (components, 3, N).

    Attributes
    ----------
    portrait : ndarray (256, 256, 256), float32
        In head space, 0 to 1, the brain's level at one half; 0 beyond `portrait_voxels`.
    """

    def __init__(self, components: int, where: Tensor | None = None) -> None:
        super().__init__()
        where = torch.ones(head_shape(FIELD_MM), dtype=torch.bool) if where is None else where
        self.register_buffer("where", where)
        self.register_buffer("mean", torch.zeros(3, int(where.sum())))
        self.register_buffer("components", torch.zeros(components, 3, int(where.sum())))
        self.portrait = np.zeros(head_shape(), np.float32)

    @property
    def length(self) -> int:
        """Scores that make an identity."""
        return len(self.components)

    def pack_portrait(self) -> Tensor:
        """The portrait's voxels in the order of `portrait_voxels`, uint8, 255 = 1, as a weights file holds them."""
        return torch.from_numpy(np.rint(255 * np.clip(self.portrait[portrait_voxels()], 0, 1)).astype(np.uint8))

    def unpack_portrait(self, packed: Tensor) -> None:
        """Take a portrait that `pack_portrait` packed; ValueError for one that was packed by other voxels."""
        if len(packed) != portrait_voxels().sum():
            raise ValueError("holds a portrait of an earlier version")
        self.portrait = np.zeros(head_shape(), np.float32)
        self.portrait[portrait_voxels()] = packed.numpy().astype(np.float32) / 255

    def displacement(self, scores: Tensor) -> Tensor:
        """Displacements (3, 32, 32, 32) of scores (components,) in standard deviations; 0 far off the head."""
        out = torch.zeros(3, *self.where.shape, device=self.mean.device)
        out[:, self.where] = self.mean + torch.tensordot(scores, self.components, 1)
        return out

    def sketch(
        self, scores: Tensor, share: np.ndarray, box: tuple[slice, ...] = WHOLE, *, pose: np.ndarray | None = None
    ) -> np.ndarray:  # fmt: skip
        """The portrait in the shape of an identity.

        Parameters
        ----------
        scores : Tensor (components,)
            In standard deviations.
        share : ndarray (128, 128, 128), float32
            How much of the displacement holds at each place of the 2 mm head-space grid, 0 to 1.
        box : tuple of slice
            Voxels that are wanted, the others stay 0.
        pose : ndarray (3, 32, 32, 32), float32, optional
            The `Pose.displacement` of a face that is larger than its head would have it, or sits otherwise.

        Returns
        -------
        ndarray (256, 256, 256), float32
            Head space, the brain's level at one half.
        """
        shift = self.displacement(scores).cpu().numpy()
        return bend(self.portrait, shift if pose is None else joined(pose, shift), share, box)


def bend(
    portrait: np.ndarray, displacement: np.ndarray, share: np.ndarray, box: tuple[slice, ...] = WHOLE
) -> np.ndarray:
    """A portrait (256, 256, 256) pulled through displacements (3, 32, 32, 32) in mm; see `Identity.sketch`."""
    affine, shape = head_affine(SPACING), head_shape(SPACING)
    shift = _enlarged(_doubled(displacement), shape) * share
    moved = Displacement(affine, np.moveaxis(shift, 0, -1))
    out = np.zeros(portrait.shape, np.float32)
    out[box] = portrait[box]
    # where nothing is displaced the portrait is as it was, and out of its tissue's reach there is none
    if not (portrait.any() and share.any()):
        return np.clip(out, 0, 1)
    corner, bent = head_affine(), []
    for axis, wanted in enumerate(box):
        others = tuple(other for other in range(3) if other != axis)
        reach = int(np.ceil(np.abs(shift[axis]).max())) + 1
        low, high = np.flatnonzero(share.any(axis=others))[[0, -1]]
        first, last = np.flatnonzero(portrait.any(axis=others))[[0, -1]]
        start, stop, _ = wanted.indices(portrait.shape[axis])
        start = max(start, SPACING * (low - 1), first - reach)
        stop = min(stop, SPACING * (high + 2), last + 1 + reach)
        bent.append(slice(start, max(start, stop)))
        corner[axis, 3] += start
    sides = tuple(side.stop - side.start for side in bent)
    if all(sides):
        out[tuple(bent)] = resample(portrait, head_affine(), corner, sides, through=moved)
    return np.clip(out, 0, 1)


def _doubled(channels: np.ndarray) -> np.ndarray:
    """Channels (C, X, Y, Z) on a grid of half the spacing, by cubic splines; axis by axis, as one matrix each."""
    for axis in range(1, 4):
        spline = zoom(np.eye(channels.shape[axis]), (2, 1), order=3, grid_mode=True, mode="nearest")
        channels = np.moveaxis(np.tensordot(spline, channels, (1, axis)), 0, axis)
    return channels


def _enlarged(channels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Channels (C, X, Y, Z) on a finer grid of the same box, trilinear."""
    tensor = torch.from_numpy(np.ascontiguousarray(channels, np.float32))[None]
    return interpolate(tensor, size=shape, mode="trilinear", align_corners=False)[0].numpy()


def share_of(distance: np.ndarray, ramp_mm: float) -> np.ndarray:
    """0 where ``distance`` to a region's border (negative inside) is not below 0, 1 from ``ramp_mm`` inside on."""
    return np.clip(-distance / ramp_mm, 0, 1).astype(np.float32)


@lru_cache(maxsize=2)
def shares(mode: str) -> np.ndarray:
    """Where a sketch may depart from the template, in ``face`` or in ``head`` mode: see `Identity.sketch`."""
    return share_of(_border(mode), RAMP_MM[mode])


@lru_cache(maxsize=2)
def _border(mode: str) -> np.ndarray:
    """Distance in mm to the border of what a mode replaces, negative inside, on the 2 mm grid (128, 128, 128)."""
    template = load_template()
    return signed_distance(template.replaced_with_air() if mode == "face" else ~template.mask(BRAIN_BIT), SPACING)
