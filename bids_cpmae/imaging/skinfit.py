"""Where a new head's skin lies, and how it is moved so that it meets the scan's and leaves nothing bare.

Worked out on blocks of about 2 mm; the head itself is moved on its own grid.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from bids_cpmae.imaging.distance import closed, distance_across, distance_in
from bids_cpmae.imaging.fields import block_size, blocks, carry, enlarge
from bids_cpmae.imaging.filters import smooth_step
from bids_cpmae.imaging.headspace import Displacement, corner_of
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.skin import air_around

BLOCK_MM = 2.0
# share of the tissue that parts head from air
EDGE = 0.4
# where two skins lie apart at the border: seen in this ring outside it, within these distances of either skin
RING_MM, NEAR_MM, APART_MM = (1.0, 10.0), 2.5, 8.0
# how it is carried to the rest of the skin, how soon it fades there, and under and above it
SCALES, FADE, DEPTH_MM = {4.0: 1.0, 8.0: 0.3, 16.0: 0.1}, 0.3, 15.0
# so far from kept skin a thicker one begins, and is whole; and how soon that fades under it, so that it is flesh and no
# bone
THICKER_MM, FLESH_MM = (2.0, 18.0), 6.0
# head mode: skin and skull that cover everything kept, and how little the places count that they cover already
SCALP_MM, BESIDE_BARE = 4.0, 0.2
# what covers kept bone at least and how bright that is, so far from the brain and before its foremost part alone; how
# widely what moves out for that takes along what lies beside it; airways are twice as wide as this at most, and so few
# blocks are no forehead
BONE_MM, COVER, BRAIN_MM, FRONTAL_MM = 5.0, 1.0, 20.0, 30.0
ALONG_MM, ALONG_SIGMA_MM, PASSAGE_MM, LEAST_BARE = 4.0, 4.0, 5.0, 40
# bone goes on for so much of it, or the mask's border would be a step from bone to flesh
UNDER_MM = 2.5
STILL_MM = 0.05


def meet_skin(
    scan: np.ndarray,
    new: np.ndarray,
    inside: np.ndarray,
    level: float,
    spacing: np.ndarray,
    *,
    brain: np.ndarray | None = None,
) -> np.ndarray:
    """The new head moved along its skin's normal, so that the two skins meet where the mask ends.

    How far apart they lie is seen in a ring outside the mask and carried inside, where it fades within about 20 mm.

    Parameters
    ----------
    scan, new : ndarray (X, Y, Z), float32
        What stands in ``scan`` under the mask is not read.
    inside : ndarray (X, Y, Z), bool
        True = under the mask.
    level : float
        Typical value of tissue.
    spacing : ndarray (3,)
        In mm.
    brain : ndarray (X, Y, Z), bool, optional
        True = inside the head, whatever the values say.
    """
    block = block_size(BLOCK_MM, spacing)
    wide = spacing * block
    masked = blocks(inside.astype(np.float32), block) > 0
    known = blocks(np.where(inside, np.float32(0), scan), block)
    core = False if brain is None else blocks(brain.astype(np.float32), block) > 0.5
    solid = (blocks(new, block) > EDGE * level) | core
    height = _height(solid, wide)
    target = _height(np.where(masked, solid, (known > EDGE * level) | core), wide)
    off = distance_in(~masked, wide)
    low, high = RING_MM
    seen = (off > low) & (off < high) & (np.abs(target) < NEAR_MM) & (np.abs(height) < APART_MM)
    apart, weight = np.where(seen, height - target, np.float32(0)), seen.astype(np.float32)
    return _moved(new, block, height, _carried(apart, weight, height, wide), spacing)


def cover_bone(
    scan: np.ndarray, new: np.ndarray, inside: np.ndarray, level: float, spacing: np.ndarray, brain: np.ndarray
) -> np.ndarray:
    """The new head moved outwards where it would leave the kept skull of a forehead bare, or all but bare.

    The scan's own forehead may have stood out further than the new one does: what then shows under the mask's border is
    bone, or the sinus in it, as dark as air. `BONE_MM` of flesh are to lie over it, as on any forehead.

    Parameters
    ----------
    scan, new : ndarray (X, Y, Z; RAS+), float32
        What stands in ``scan`` under the mask is not read.
    inside, brain : ndarray (X, Y, Z), bool
        True = under the mask, and True = brain. What is dark near the foremost `FRONTAL_MM` of the brain and before it
        is a forehead's bone, and no airway.
    level : float
        Typical value of tissue.
    spacing : ndarray (3,)
        In mm.
    """
    block = block_size(BLOCK_MM, spacing)
    wide = spacing * block
    masked = blocks(inside.astype(np.float32), block) > 0
    core = blocks(brain.astype(np.float32), block) > 0.5
    tissue = (blocks(np.where(inside, np.float32(0), scan), block) > EDGE * level) | core
    border = ~masked & (distance_in(~masked, wide) < RING_MM[1])
    bone = border & ~tissue & (distance_in(~core, wide) < BRAIN_MM) & _before_frontal(core, wide)
    bone &= _height(masked | tissue, wide) < -BONE_MM
    solid, passage = blocks(new, block) > EDGE * level, PASSAGE_MM / wide.max()
    # what a nose opens to the air from within lies not bare
    bone &= _height(closed(np.where(masked, solid, tissue), passage), wide) > -BONE_MM
    if bone.sum() < LEAST_BARE:
        return new
    height = _height(closed(solid | core, passage), wide)
    # skin is to be where the bone ends and its cover with it, or further out
    off = distance_in(~bone, wide)
    apart = np.clip(height - off + BONE_MM, 0, APART_MM)
    if not apart.any():
        return new
    wider = maximum_filter(apart, tuple(2 * np.rint(ALONG_MM / wide).astype(int) + 1))
    further = gaussian_filter(wider, ALONG_SIGMA_MM / wide)
    new = _moved(new, block, height, further, spacing)
    # what comes to lie there, as far as the skin, need not be flesh
    bare = smooth_step(gaussian_filter((apart > 0).astype(np.float32), ALONG_SIGMA_MM / wide), 0.1, 0.4)
    flesh = smooth_step(off, UNDER_MM - 1, UNDER_MM + 1) * smooth_step(further - height, 0, 2)
    cover = COVER * level * enlarge(bare * flesh, block, new.shape)
    return np.where(inside, np.maximum(new, cover), new)


def _before_frontal(brain: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Where (X, Y, Z; RAS+), bool, one looks back on the foremost part of a brain and not on its sides."""
    forwards = np.arange(brain.shape[1])[:, None]
    foremost = np.where(brain, forwards, -1).max(1)
    frontal = (foremost >= 0) & (foremost > foremost.max() - FRONTAL_MM / spacing[1])
    return frontal[:, None] & (forwards > foremost[:, None])


def thicken(
    new: np.ndarray, inside: np.ndarray, level: float, spacing: np.ndarray, brain: np.ndarray, more: np.ndarray
) -> np.ndarray:
    """The new head with more flesh under its skin, but next to skin that is kept.

    Parameters
    ----------
    new : ndarray (X, Y, Z), float32
    inside, brain : ndarray (X, Y, Z), bool
        True = under the mask, and True = brain.
    level : float
        Typical value of tissue.
    spacing : ndarray (3,)
        In mm.
    more : ndarray (X, Y, Z), float32
        By how many mm the skin is to lie further out.
    """
    block = block_size(BLOCK_MM, spacing)
    wide = spacing * block
    masked, core = (blocks(part.astype(np.float32), block) for part in (inside, brain))
    height = _height((blocks(new, block) > EDGE * level) | (core > 0.5), wide)
    kept = (masked < 0.5) & (np.abs(height) < NEAR_MM)
    away = smooth_step(distance_in(~kept, wide), *THICKER_MM)
    return _moved(new, block, height, away * blocks(more, block) * _near_skin(np.minimum(height, 0), FLESH_MM), spacing)


def cover_kept(new: np.ndarray, inside: np.ndarray, level: float, spacing: np.ndarray) -> np.ndarray:
    """The new head moved outwards where its skin would leave bare what is kept: `SCALP_MM` of it cover everything.

    Parameters
    ----------
    new : ndarray (X, Y, Z), float32
    inside : ndarray (X, Y, Z), bool
        True = under the mask; what is kept is a brain and a shell around it.
    level : float
        Typical value of tissue.
    spacing : ndarray (3,)
        In mm.
    """
    block = block_size(BLOCK_MM, spacing)
    wide = spacing * block
    masked = blocks(inside.astype(np.float32), block) > 0.5
    height = _height(blocks(new, block) > EDGE * level, wide)
    border = masked & (distance_in(masked, wide) < 2 * wide.max())
    bare = np.where(border, np.clip(height + SCALP_MM, 0, APART_MM), np.float32(0))
    # the bare places are what counts, whatever lies deep enough beside them
    weight = np.where(border, np.where(bare > 0, 1.0, BESIDE_BARE), 0.0).astype(np.float32)
    return _moved(new, block, height, _carried(bare, weight, height, wide), spacing)


def _carried(apart: np.ndarray, weight: np.ndarray, height: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """How far the skin, at ``height`` 0, is to be moved, known where there is ``weight`` and carried to all of it.

    It fades deep inside the head and far off it. All are on one grid, (X, Y, Z), ``spacing`` in mm.
    """
    if not apart.any():
        return np.zeros_like(height)
    found = carry(weight * apart, weight, spacing, scales=SCALES, block_mm=BLOCK_MM, prior=0.0,
                  prior_weight=FADE * float(weight.mean()))  # fmt: skip
    return found * _near_skin(height, DEPTH_MM)


def _near_skin(height: np.ndarray, depth_mm: float) -> np.ndarray:
    """Share of the skin's movement with which what lies at ``height`` mm over it moves, little at ``depth_mm``."""
    return np.exp(-((height / depth_mm) ** 2))


def _moved(
    new: np.ndarray, block: np.ndarray, height: np.ndarray, apart: np.ndarray, spacing: np.ndarray
) -> np.ndarray:  # fmt: skip
    """The new head with its skin, at ``height`` 0, ``apart`` mm further out; both on blocks of ``block`` voxels."""
    if not apart.any():
        return new
    wide = spacing * block
    normal = np.stack(np.gradient(gaussian_filter(height, 2.0 / wide), *wide))
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 0.5)
    shift = apart * normal
    shift[:, np.all(np.abs(shift) <= STILL_MM, axis=0)] = 0
    if not shift.any():
        return new
    # beyond the blocks next to those that move nothing does
    box = tuple(slice(max(0, hit.min() - 1), hit.max() + 2) for hit in np.nonzero(shift.any(0)))
    voxels = tuple(slice(side.start * step, side.stop * step) for side, step in zip(box, block))
    grid, middles = np.diag([*spacing, 1.0]), np.diag([*wide, 1.0])
    middles[:3, 3] = (wide - spacing) / 2
    inwards = Displacement(corner_of(middles, box), np.moveaxis(-shift[(slice(None), *box)], 0, -1))
    out = new.copy()
    out[voxels] = resample(new, grid, corner_of(grid, voxels), out[voxels].shape, through=inwards, outside="edge")
    return out


def _height(solid: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance in mm to the skin: positive in the air around a head, negative inside it, skull and hollows included."""
    air = air_around(solid)
    away = distance_across(air, spacing)
    return np.where(air, away, -away)
