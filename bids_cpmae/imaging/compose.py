"""The new face put into the scan: matched in gain, sharpness, noise and background, without a step at the border.

Nothing in here reads the source under the mask, so the result is a function of the other voxels, the mask and the
synthetic head alone.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.air import Background, find_air
from bids_cpmae.imaging.align import mask_box
from bids_cpmae.imaging.detail import large_voxels, match_detail, with_texture
from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.facemask import keeps_brain_alone
from bids_cpmae.imaging.fields import block_size, blocks, carry, enlarge, spread
from bids_cpmae.imaging.filters import gaussian, smooth_step
from bids_cpmae.imaging.intensity import tissue_level
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.noise import GRAIN_FROM, Grain, grained, neighbours, quiet_sigma
from bids_cpmae.imaging.skin import air_around
from bids_cpmae.imaging.skinfit import cover_kept, meet_skin
from bids_cpmae.imaging.threads import side_by_side

RING_MM = 20.0
GAIN_SCALES = {8.0: 1.0, 16.0: 0.1, 40.0: 0.01}
GAIN_BLOCK_MM = 4.0
GAIN_LIMITS = (0.4, 2.5)
# what is left at the border is carried inside by these neighbourhoods and halved after about 6 mm
MEMBRANE_SCALES = ({1.0: 1.0}, {2.0: 0.3, 4.0: 0.1})
MEMBRANE_BLOCK_MM = 2.0
MEMBRANE_FADE = 0.01
TISSUE, EDGE = 0.25, 0.1
# a drawn head fades into the air over several millimetres, where a scan has a skin: next to air, what is less than the
# first of these shares of the tissue nearby is air, what is more than the second is tissue
AIR, AIR_MM = 0.08, 6.0
SKIN, TISSUE_MM = (0.2, 0.8), 4.0
BLURS = (0.4, 0.55, 0.7, 0.85, 1.0)
SHARPER = 1.15
# grain stays at the noise of the scan's quietest tissue, which reads low, being the quietest tenth; what flesh still
# lacks is texture
GRAIN_MOST, GRAIN_MOST_LARGE = 2.2, 1.3


def compose_face(
    source: SourceImage, mask: np.ndarray, synthetic: np.ndarray, *, seed: int = 0, shaded: bool = False
) -> np.ndarray:  # fmt: skip
    """Put a synthetic head under the mask of a scan.

    Parameters
    ----------
    source : SourceImage
        Read outside the mask only.
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    synthetic : ndarray (X, Y, Z), float32
        The new head on the scan's grid in about the scan's units, valid under the mask and 20 mm around it: there it
        is a reconstruction of the real tissue, against which gain and step are measured.
    seed : int
        Of the noise.
    shaded : bool
        The synthetic head is in the scan's units, and in its light, already.

    Returns
    -------
    ndarray
        Values to store, of the source's type and shape; outside the mask the very same as the source's.

    Raises
    ------
    ScanError
        When nothing outside the mask tells what the scan looks like.
    """
    stored = source.stored.copy()
    if not mask.any():
        return stored
    spacing = source.spacing
    known = np.where(mask, np.float32(0), source.data)
    level = tissue_level(known[~mask])
    if level <= 0:
        raise ScanError("there is no tissue outside the face mask to match a new face to; is this the scan of a head?")
    box = mask_box(mask, source.affine, RING_MM)
    inside, scan = mask[box], known[box]
    # where only the brain and a shell around it are kept, the new head is no reconstruction of anything outside the
    # mask: there is one gain for all of it, and no skin or step that it could meet
    alone = keeps_brain_alone(mask)
    scan_tissue = ~inside & (scan > TISSUE * level)

    def surroundings():
        air, quiet = find_air(known, ~mask, level, spacing), quiet_sigma(scan, scan_tissue, spacing)
        return air[box], quiet, Background.of(known, air, box, spacing, fallback=quiet)

    def skin():
        new = clear_skin(synthetic[box], level, spacing)
        return cover_kept(new, inside, level, spacing) if alone else meet_skin(scan, new, inside, level, spacing)

    (air, quiet, background), new = side_by_side(surroundings, skin)
    new = match_gain(scan, new, scan_tissue & (new > TISSUE * level), spacing, drifts=not (alone or shaded))
    new = match_sharpness(scan, new, ~inside & (np.maximum(scan, new) > EDGE * level))

    # the mean of a magnitude image: the signal, and the noise floor where there is none
    floor = background.level
    new = np.sqrt(new * new + floor * floor)
    if not alone:
        # where flesh comes to lie on kept bone the two differ in what they show, and not in brightness
        bone = ~scan_tissue & (new > TISSUE * level) & ~air_around(inside | scan_tissue)
        hidden = inside | bone
        residual = np.where(hidden | (air & (new < 1.5 * floor)), 0, scan - new)
        new = new + membrane(residual, ~hidden, spacing)
    new = match_detail(scan, new, inside, level, spacing, noise=quiet, alone=alone)

    times = GRAIN_MOST_LARGE if large_voxels(spacing) else GRAIN_MOST
    most = times * quiet if background.seen else background.sigma
    grain = Grain.missing(
        scan, scan_tissue, new, inside & (new > TISSUE * level), spacing, level=level, noise=background.sigma,
        most=most,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    new = _with_noise(new, floor, background, grain, level, rng)
    # there is nothing but brain to compare with
    new = new if alone else with_texture(scan, new, inside, level, spacing, rng)

    flat = stored.reshape(source.shape3)
    flat[box][inside] = _as_stored(source, new[inside], flat[~mask], clip=not alone)
    return stored


def clear_skin(synthetic: np.ndarray, level: float, spacing: np.ndarray) -> np.ndarray:
    """The synthetic head with a skin, where a network leaves a slope of several millimetres between tissue and air.

    Parameters
    ----------
    synthetic : ndarray (X, Y, Z), float32
    level : float
        Typical value of tissue.
    spacing : ndarray (3,)
        In mm.
    """
    head = np.maximum(synthetic, 0)
    solid = (head > level / 2).astype(np.float32)
    width = TISSUE_MM / spacing
    total, share = (gaussian(part, width) for part in (head * solid, solid))
    nearby = np.maximum(total / np.maximum(share, 1e-3), level / 2)
    low, high = SKIN
    slope = (head < high * nearby) & (distance_in(head > AIR * level, spacing) < AIR_MM)
    return np.where(slope, high * nearby * smooth_step(head / nearby, low, high), synthetic)


def match_gain(
    scan: np.ndarray, new: np.ndarray, tissue: np.ndarray, spacing: np.ndarray, *, drifts: bool = True
) -> np.ndarray:  # fmt: skip
    """The new head times the smooth ratio of scan to new head, seen in ``tissue`` outside the mask.

    All arrays (X, Y, Z); ``spacing`` (3,) in mm; without ``drifts`` the ratio is one for all.
    """
    amount, weight = np.where(tissue, scan, 0), np.where(tissue, new, 0)
    total = float(weight.sum(dtype=float))
    if total == 0:
        return new
    overall = float(amount.sum(dtype=float)) / total
    if not drifts:
        return new * overall
    # where the two heads lie apart, skin meets air: such ratios say nothing about gain
    trusted = (amount > GAIN_LIMITS[0] * overall * weight) & (amount < GAIN_LIMITS[1] * overall * weight)
    prior_weight = 1e-3 * total / max(1, int(tissue.sum()))
    gain = carry(
        np.where(trusted, amount, 0), np.where(trusted, weight, 0), spacing, scales=GAIN_SCALES, block_mm=GAIN_BLOCK_MM,
        prior=overall, prior_weight=prior_weight,
    )  # fmt: skip
    return new * gain


def match_sharpness(scan: np.ndarray, new: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The new head blurred along each axis along which it is clearly sharper than the scan in ``where``.

    That has to hold skin and what is left of its blur, for it is at its edges that a head shows how sharp it is.
    """
    for axis in range(3):
        target = _roughness(scan, where, axis)
        if target == 0 or _roughness(new, where, axis) <= SHARPER * target:
            continue
        for width in BLURS:
            blurred = gaussian_filter1d(new, width, axis, truncate=3)
            if _roughness(blurred, where, axis) <= target:
                break
        new = blurred
    return new


def _roughness(values: np.ndarray, where: np.ndarray, axis: int) -> float:
    """Root mean square difference of neighbours along an axis, within ``where``."""
    pairs = np.logical_and(*neighbours(where, axis))
    if not pairs.any():
        return 0.0
    return float(np.sqrt(np.mean(np.subtract(*neighbours(values, axis))[pairs] ** 2)))


def membrane(residual: np.ndarray, outside: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """What is left at the border carried inside: whole at the border, halved some 6 mm further in.

    Parameters
    ----------
    residual : ndarray (X, Y, Z), float32
        Scan minus matched new head, 0 under the mask.
    outside : ndarray (X, Y, Z), bool
        True = not under the mask.
    spacing : ndarray (3,)
        In mm.
    """
    weight = outside.astype(np.float32)
    block = block_size(MEMBRANE_BLOCK_MM, spacing)
    total, near = spread(residual, weight, spacing, MEMBRANE_SCALES[0])
    coarse = spread(blocks(residual, block), blocks(weight, block), spacing * block, MEMBRANE_SCALES[1])
    total += enlarge(coarse[0], block, residual.shape)
    near += enlarge(coarse[1], block, residual.shape)
    return total / (near + MEMBRANE_FADE)


def _with_noise(
    new: np.ndarray, floor: np.ndarray, background: Background, grain: Grain, level: float, rng: np.random.Generator
) -> np.ndarray:
    """Noise of the scan's own kind on a new head: its air where there is air, grain where there is tissue."""
    white = rng.standard_normal(new.shape, dtype=np.float32)
    in_air, in_tissue = side_by_side(
        lambda: background.deviate(grained(white, background.correlation)),
        lambda: grain.scaled(new) * grained(white, grain.correlation),
    )
    low, high = (np.maximum(floor, share * level) for share in GRAIN_FROM)
    share = smooth_step(new, low, np.maximum(high, low + 0.1 * level))
    # reflected at zero, as a magnitude is
    return np.abs(new + in_air + share * (in_tissue - in_air))


def _as_stored(source: SourceImage, values: np.ndarray, kept: np.ndarray, *, clip: bool) -> np.ndarray:
    """Values as the source would store them, like those ``kept`` outside the mask in range and in being whole.

    ``clip`` is off where only the brain is kept: skin and fat may well be brighter.
    """
    stored = source.to_stored(values)
    finite = kept[np.isfinite(kept)]
    if stored.dtype.kind == "f" and np.array_equal(finite, np.rint(finite)):
        stored = np.rint(stored)
    return np.clip(stored, finite.min(), finite.max()) if clip else stored
