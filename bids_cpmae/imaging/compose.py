"""The new face put into the scan: matched in gain, noise and background, without a step at the mask's border.

Nothing in here reads the source under the mask, so the result is a function of the other voxels, the mask and the
synthetic head alone.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from bids_cpmae.imaging.align import RING_MM, mask_box
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.noise import Background, correlated_noise, fine_detail, robust_sigma

GAIN_MM, GAIN_FAR_MM, GAIN_GRID_MM = 10.0, 30.0, 4.0
GAIN_LIMIT = np.log(2.5)
MEMBRANE_MM, MEMBRANE_DEPTH_MM = 2.0, 5.0
AIR_LOW, AIR_HIGH = 0.08, 0.2
AIR_DISTANCE_MM = 6.0


def tissue_level(values: np.ndarray) -> float:
    """Typical value of tissue: the median of what lies above a tenth of the 99th percentile."""
    top = np.percentile(values, 99)
    bright = values[values > 0.1 * top]
    return float(np.median(bright)) if bright.size else 0.0


def normalised_blur(values: np.ndarray, weights: np.ndarray, sigma: np.ndarray, floor: float = 1e-4) -> np.ndarray:
    """Gaussian average of ``values`` over ``weights``; 0 where no weight is near."""
    total = gaussian_filter(values * weights, sigma, truncate=3)
    weight = gaussian_filter(weights, sigma, truncate=3)
    return total / np.maximum(weight, floor)


def gain_field(source: np.ndarray, synthetic: np.ndarray, ring: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Smooth ratio source / synthetic, estimated on ``ring`` (True = tissue outside the mask), carried everywhere.

    Arrays (X, Y, Z); ``spacing`` (3,) in mm. Worked out on a grid of about 4 mm.
    """
    step = np.maximum(1, np.rint(GAIN_GRID_MM / spacing)).astype(int)
    weights = ring.astype(np.float32)
    ratio = np.log(np.maximum(source, 1e-6) / np.maximum(synthetic, 1e-6))
    ratio = np.clip(np.where(ring, ratio, 0), -GAIN_LIMIT, GAIN_LIMIT).astype(np.float32)
    small_weights, small_ratio = _block_mean(weights, step), _block_mean(ratio * weights, step)
    small_ratio = small_ratio / np.maximum(small_weights, 1e-6)
    grid = spacing * step
    near_weight = gaussian_filter(small_weights, GAIN_MM / grid)
    near = normalised_blur(small_ratio, small_weights, GAIN_MM / grid, 1e-6)
    far = normalised_blur(small_ratio, small_weights, GAIN_FAR_MM / grid, 1e-9)
    trust = near_weight / (near_weight + 0.02)
    field = np.exp(trust * near + (1 - trust) * far)
    return _enlarge(field, step, source.shape)


def _block_mean(volume: np.ndarray, step: np.ndarray) -> np.ndarray:
    pad = [(0, int(-n % s)) for n, s in zip(volume.shape, step)]
    volume = np.pad(volume, pad)
    x, y, z = (n // s for n, s in zip(volume.shape, step))
    return volume.reshape(x, step[0], y, step[1], z, step[2]).mean((1, 3, 5))


def _enlarge(volume: np.ndarray, step: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    big = zoom(volume, step, order=1, grid_mode=True, mode="nearest")
    return big[tuple(slice(0, n) for n in shape)].astype(np.float32)


def membrane(residual: np.ndarray, outside: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """What is left at the border, carried inside: full at the border, gone some millimetres further in.

    Parameters
    ----------
    residual : ndarray (X, Y, Z)
        Source minus matched synthetic head; read where ``outside`` only.
    outside : ndarray (X, Y, Z), bool
        True = not under the mask.
    spacing : ndarray (3,)
        In mm.
    """
    weights = outside.astype(np.float32)
    carried = normalised_blur(np.where(outside, residual, 0), weights, MEMBRANE_MM / spacing)
    depth = distance_transform_edt(~outside, sampling=spacing)
    return np.where(outside, 0, carried * np.exp(-((depth / MEMBRANE_DEPTH_MM) ** 2))).astype(np.float32)


def compose_face(source: SourceImage, mask: np.ndarray, synthetic: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Put a synthetic head under the mask of a scan.

    Parameters
    ----------
    source : SourceImage
        Read outside the mask only.
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    synthetic : ndarray (X, Y, Z), float32
        The new head on the scan's grid in about the scan's units, valid under the mask and in a ring around it.
    seed : int
        Of the noise.

    Returns
    -------
    ndarray
        Values to store, of the source's type and shape; outside the mask the very same as the source's.
    """
    rng = np.random.default_rng(seed)
    spacing = np.linalg.norm(source.affine[:3, :3], axis=0)
    known = np.where(mask, 0, source.data)
    level = tissue_level(known[~mask])
    air = _surely_air(known, mask, level, spacing)
    background = Background.of(known, air, rng)

    box = mask_box(mask, source.affine, RING_MM)
    inside, data, new = mask[box], known[box], synthetic[box]
    outside = ~inside
    near = outside & (distance_transform_edt(outside, sampling=spacing) <= RING_MM)
    tissue = near & (data > 0.25 * level) & (new > 0.25 * level)
    matched = new * gain_field(data, new, tissue, spacing)
    matched = matched + membrane(data - matched, outside, spacing)

    detail, own = fine_detail(data), fine_detail(matched)
    smooth = tissue & ~_touches(inside)
    missing = max(0.0, robust_sigma(detail[smooth]) ** 2 - robust_sigma(own[smooth]) ** 2)
    grain = correlated_noise(inside.shape, _grain(background), rng)
    gritty = matched + np.sqrt(missing) / max(fine_detail(grain).std(), 1e-6) * grain

    share = np.clip((matched / max(level, 1e-6) - AIR_LOW) / (AIR_HIGH - AIR_LOW), 0, 1)
    share = share * share * (3 - 2 * share)
    blend = share * gritty + (1 - share) * background.draw(inside.shape, rng)
    blend = np.clip(blend, known[~mask].min(), known[~mask].max())

    stored = source.stored.copy()
    flat = stored.reshape(source.shape3)
    flat[box][inside] = source.to_stored(blend[inside])
    return flat.reshape(source.stored.shape)


def _surely_air(known: np.ndarray, mask: np.ndarray, level: float, spacing: np.ndarray) -> np.ndarray:
    far = distance_transform_edt((known <= AIR_HIGH * level) | mask, sampling=spacing) > AIR_DISTANCE_MM
    return far & ~mask & (known < AIR_HIGH * level)


def _grain(background: Background) -> float:
    """Neighbour correlation of the noise: the background's where it has noise, else that of a plain scan."""
    return background.correlation if background.values[-1] > background.values[0] else 0.1


def _touches(inside: np.ndarray) -> np.ndarray:
    return gaussian_filter(inside.astype(np.float32), 1.0, truncate=3) > 1e-4
