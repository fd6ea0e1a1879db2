"""A scan of any contrast given the new head that its reference was given: every volume in its own contrast."""

from __future__ import annotations

import numpy as np

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.compose import compose_face, membrane
from bids_cpmae.imaging.contrast import Stage
from bids_cpmae.imaging.intensity import tissue_level
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.noise import quiet_sigma

# parts of a complex image that show no anatomy of their own, or a wrapped one
WITHOUT_CONTRAST = ("phase", "real", "imag")
AIR_MM, LEAST_AIR = 5.0, 200
# maps whose air is as bright as this share of tissue are no magnitudes: their air is noise over the whole range
NOISY_AIR = 0.5


def compose_series(source: SourceImage, mask: np.ndarray, synthetic: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """`compose_face` for every volume of a file, with one synthetic head for all."""
    if source.volumes == 1:
        return compose_face(source, mask, synthetic, seed=seed)
    volumes = [
        compose_face(source.volume(number), mask, synthetic, seed=seed + number) for number in range(source.volumes)
    ]
    return np.stack(volumes, -1).reshape(source.stored.shape)


def recolour(
    source: SourceImage, mask: np.ndarray, stage: Stage, *, part: str | None = None, seed: int = 0
) -> tuple[np.ndarray, dict[str, float]]:
    """Put the new head under the mask of every volume of a scan, in the volume's own contrast.

    Parameters
    ----------
    source : SourceImage
        Read outside the mask only.
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    stage : Stage
        The new head on the scan's grid.
    part : str, optional
        BIDS' ``part``. Of ``phase``, ``real`` and ``imag`` images nothing is translated: what stands in their air
        outside the mask is drawn under it, or zero where the scan has no air.
    seed : int
        Of the noise.

    Returns
    -------
    stored : ndarray
        Of the source's type and shape; outside the mask the very same as the source's.
    measures : dict of str to float
        ``registration_correlation``: of the scan and the translated reference outside both masks, the best volume's;
        nothing for parts without contrast.

    Raises
    ------
    ScanError
        When nothing outside the mask tells what the scan looks like.
    """
    made, correlations = [], []
    for number in range(source.volumes):
        volume, noise = source.volume(number), np.random.default_rng([seed, number])
        if part in WITHOUT_CONTRAST:
            made.append(_with_air(volume, mask, _air_values(volume, mask, stage), noise))
            continue
        try:
            synthetic, correlation = stage.translate(volume)
            correlations.append(correlation)
            made.append(_composed(volume, mask, stage, synthetic, seed + number, noise))
        except ScanError:
            if source.volumes == 1 or np.ptp(volume.data[~mask]) > 0:
                raise
            # an empty volume of a series stays empty
            made.append(volume.stored.copy())
    measures = {"registration_correlation": round(max(correlations), 4)} if correlations else {}
    return np.stack(made, -1).reshape(source.stored.shape), measures


def _composed(volume, mask, stage, synthetic, seed, noise) -> np.ndarray:
    air = np.abs(volume.to_values(_air_values(volume, mask, stage)))
    level = tissue_level(np.abs(volume.data[~mask]))
    signed = volume.data[~mask].min() < 0
    if signed or (air.size >= LEAST_AIR and np.quantile(air, 0.9) > NOISY_AIR * level):
        return compose_map(volume, mask, stage, synthetic, noise)
    return compose_face(volume, mask, synthetic, seed=seed, shaded=True)


def compose_map(
    source: SourceImage, mask: np.ndarray, stage: Stage, synthetic: np.ndarray, noise: np.random.Generator
) -> np.ndarray:
    """Put a synthetic head into a map: values may be negative, and the air may hold noise of any kind.

    Parameters
    ----------
    source : SourceImage
        One volume, read outside the mask only.
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    stage : Stage
    synthetic : ndarray (X, Y, Z), float32
        In the source's units, valid in the stage's box.
    noise : numpy.random.Generator

    Returns
    -------
    ndarray
        Values to store, of the source's type and shape.
    """
    box, spacing = stage.box, source.spacing
    inside, depth = mask[box], stage.wanted.depth
    scan = np.where(inside, np.float32(0), source.data[box])
    tissue = ~inside & (depth > 1)
    new = synthetic[box] + membrane(np.where(tissue, scan - synthetic[box], 0), tissue, spacing)
    new += quiet_sigma(scan, tissue, spacing) * noise.standard_normal(new.shape, dtype=np.float32)
    stored = _with_air(source, mask, _air_values(source, mask, stage), noise)
    in_head = inside & (depth + noise.random(depth.shape) > 0.5)
    kept = source.stored[~mask]
    kept = kept[np.isfinite(kept)]
    stored[box][in_head] = np.clip(source.to_stored(new[in_head]), kept.min(), kept.max())
    return stored


def _air_values(source: SourceImage, mask: np.ndarray, stage: Stage) -> np.ndarray:
    """Stored values (N,) of one volume well outside the head and not under the mask, on a coarse sample."""
    step, shape = stage.block, stage.where.shape
    thin = tuple(slice(None, n * b, b) for n, b in zip(shape, step))
    values, hidden = source.stored.reshape(source.shape3)[thin], mask[thin]
    found = values[~hidden & (stage.learned.depth < -AIR_MM)]
    return found[np.isfinite(found)]


def _with_air(source: SourceImage, mask: np.ndarray, air: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """One volume's stored values with air drawn under the mask; zeros where none is known."""
    stored = source.stored.copy()
    count = int(mask.sum())
    drawn = air[noise.integers(0, air.size, count)] if air.size >= LEAST_AIR else source.to_stored(np.zeros(count))
    stored[mask] = drawn
    return stored
