"""Fine detail of a new face: as much of it, by spatial frequency, as the rest of the head has."""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter1d, maximum_filter, minimum_filter

from bids_cpmae.imaging.distance import distance_across, distance_in
from bids_cpmae.imaging.filters import gaussian, smooth_step
from bids_cpmae.imaging.morphology import shrunk
from bids_cpmae.imaging.noise import GRAIN_FROM
from bids_cpmae.imaging.seam import noise_level
from bids_cpmae.imaging.threads import side_by_side, threads

TISSUE, AIR = 0.25, 0.1
LARGE_VOXEL_MM = 1.5
# spectra in steps of so many cycles/mm, of what is so far from the mask's border and about so near to tissue
STEP, FEATHER_MM, NEAR_MM, LEAST_VOXELS = 0.025, 6.0, 3.0, 500
# what is coarser than the first of these, in cycles/mm, is the shape of the face, and left as it is, and so is what is
# finer than the second where voxels are clearly finer than 1 mm: of that a head of 1 mm holds nothing but the marks of
# having been interpolated
COARSE, FINEST, FINER, ROUNDS, GAIN = 0.05, 0.5, 1.05, 3, (0.85, 4.0)
# power that is asked for relative to what is around, by cycles/mm: more than a face has, for along the skin and next to
# air it is not all given
FREQUENCIES = (0.075, 0.125, 0.175, 0.225, 0.275, 0.325)
SHARES, SHARES_LARGE = (0.91, 1.23, 1.55, 1.5, 1.5, 1.21), (1.37, 1.43, 1.35, 1.73, 1.73, 1.73)
# heads relative to faces, where there is only brain around them
BESIDE_BRAIN = (0.75, 1.0, 1.5, 2.0, 2.0, 2.0)
# an edge made too steep is one of stairs: along the skin it is done by half
SKIN, SKIN_MM = 0.5, (2.0, 6.0)
# nothing goes beyond what is found within the reach but, deep enough under the skin, by a share of the tissue
REACH_MM, BEYOND, DEPTH_MM, FADE_MM = 2.5, 0.4, (2.0, 4.0), 4.0
# texture: where flesh is looked at, less of it on the skin, where it would be gravel; in large voxels faces have more
# than what is around them
FLESH, TEXTURE_SKIN, TEXTURE_MM, TEXTURE_MORE, TEXTURE_MORE_LARGE = 0.36, 0.5, (1.0, 4.0), 0.88, 1.17
TEXTURE_VOXELS = 0.65


def match_detail(
    scan: np.ndarray, new: np.ndarray, inside: np.ndarray, level: float, spacing: np.ndarray, *, noise: float,
    alone: bool = False,
) -> np.ndarray:  # fmt: skip
    """The new head with about as much detail of each fineness under the mask as the scan has around it.

    What is reconstructed is soft, and the softer the finer: at 0.2 cycles/mm an eighth of the power is left. Every
    frequency is strengthened by what it lacks. Near the skin nothing goes beyond the values of the neighbourhood, and
    air gets no brighter, so that no rim appears; towards the mask's border, where the new head is as sharp as it was
    reconstructed, it fades out.

    Parameters
    ----------
    scan, new : ndarray (X, Y, Z), float32
    inside : ndarray (X, Y, Z), bool
        True = under the mask.
    level : float
        Typical value of tissue.
    spacing : ndarray (3,)
        In mm.
    noise : float
        Standard deviation of the scan's noise, which is no detail.
    alone : bool
        Whether there is only brain around the mask, which has no edges as skin and muscle have: then nothing is
        softened.

    Returns
    -------
    ndarray (X, Y, Z), float32
        As ``new`` outside the mask.
    """
    window = [2 * int(REACH_MM / size) + 1 for size in spacing]
    solid = new > TISSUE * level
    from_skin, from_border = (distance_across(part, spacing) for part in (solid, inside))
    depth = np.where(solid, from_skin, np.float32(0))
    beyond = BEYOND * level * smooth_step(depth, *DEPTH_MM)
    lowest, highest = side_by_side(lambda: minimum_filter(new, window), lambda: maximum_filter(new, window))
    low, high = lowest - beyond, highest + beyond
    # what makes the skin steeper leaves a rim around it, which nothing in air has
    high = np.where(new < AIR * level, new, high)
    under, beside = (np.where(part, from_border, np.float32(0)) for part in (inside, ~inside))
    share = np.clip(under / FADE_MM, 0, 1)
    share *= SKIN + (1 - SKIN) * smooth_step(from_skin, *SKIN_MM)

    spectra = _Spectra(new.shape, spacing)
    around = _window(beside, scan > TISSUE * level, spacing)
    within = _window(under, solid, spacing)
    if min(part.sum() for part in (around, within)) < LEAST_VOXELS:
        return new
    wanted = np.maximum(spectra.power(scan, around) - noise**2, 0)
    wanted *= np.interp(spectra.at, FREQUENCIES, SHARES_LARGE if large_voxels(spacing) else SHARES)
    wanted *= np.interp(spectra.at, FREQUENCIES, BESIDE_BRAIN) if alone else 1
    for _ in range(ROUNDS):
        gain = _gain(wanted, spectra.power(new, within), spectra.at, 0.5 / min(spacing))
        gain = np.maximum(gain, 1) if alone else gain
        new = np.where(share > 0, np.clip(new + share * spectra.filtered(new, gain - 1), low, high), new)
    return new


class _Spectra:
    """Power by frequency, and filters that are functions of it, for volumes of one grid.

    Attributes
    ----------
    at : ndarray (N,)
        Middles of the steps, in cycles/mm.
    """

    def __init__(self, shape: tuple[int, ...], spacing: np.ndarray) -> None:
        self._shape = shape
        self._padded = [fft.next_fast_len(n, real=True) for n in shape]
        axes = [fft.fftfreq(n, size) for n, size in zip(self._padded[:2], spacing)]
        axes.append(fft.rfftfreq(self._padded[2], spacing[2]))
        squares = np.meshgrid(*(np.square(axis).astype(np.float32) for axis in axes), indexing="ij", sparse=True)
        self._radius = np.sqrt(sum(squares))
        self._step = (self._radius / STEP).astype(np.int32).ravel()
        self._count = np.bincount(self._step)
        self.at = (np.arange(self._count.size) + 0.5) * STEP

    def power(self, values: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Power (N,) in a window; noise of standard deviation s has a power of s squared everywhere."""
        mean = float((values * window).sum(dtype=float) / window.sum(dtype=float))
        found = np.abs(self._transformed((values - np.float32(mean)) * window)).ravel() ** 2
        energy = float(np.square(window).sum(dtype=float))
        return np.bincount(self._step, found) / np.maximum(self._count, 1) / energy

    def filtered(self, values: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """The values times ``gain`` (N,), which counts as 0 for their mean."""
        factor = np.interp(self._radius, self.at, gain).astype(np.float32)
        factor[0, 0, 0] = 0
        found = fft.irfftn(self._transformed(values) * factor, self._padded, workers=threads())
        return found[tuple(slice(n) for n in self._shape)]

    def _transformed(self, values: np.ndarray) -> np.ndarray:
        return fft.rfftn(values.astype(np.float32, copy=False), self._padded, workers=threads())


def _gain(wanted: np.ndarray, found: np.ndarray, at: np.ndarray, limit: float) -> np.ndarray:
    """What detail is multiplied by, for powers (N,) at frequencies ``at`` (N,); one for all beyond ``limit``."""
    ratio = np.clip(wanted / np.maximum(found, 1e-12), 1e-6, 1e6)
    known = max(1, int((at <= limit).sum()))
    ratio[known:] = ratio[known - 1]
    ratio[(at < COARSE) | ((at > FINEST) & (limit > FINER * FINEST))] = 1
    return np.clip(np.exp(gaussian_filter1d(np.log(ratio) / 2, 1.0, mode="nearest")), *GAIN)


def _window(from_border: np.ndarray, tissue: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """1 in tissue well away from a region's border, in mm, fading out towards it and into the air."""
    inner = np.sin(np.pi / 2 * np.clip(from_border / FEATHER_MM, 0, 1)) ** 2
    return inner * np.clip(2 * gaussian(tissue.astype(np.float32), NEAR_MM / spacing), 0, 1)


def large_voxels(spacing: np.ndarray) -> bool:
    """Whether voxels (3,), in mm, are too large for the texture of flesh to be seen as such."""
    return _mean_side(spacing) > LARGE_VOXEL_MM


def _mean_side(spacing: np.ndarray) -> float:
    """Side in mm of a cube as large as a voxel."""
    return np.prod(spacing) ** (1 / 3)


def with_texture(
    scan: np.ndarray, new: np.ndarray, inside: np.ndarray, level: float, spacing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:  # fmt: skip
    """The new head with as much fine texture in its flesh as the scan's flesh has, less of it on the skin.

    Parameters
    ----------
    scan, new : ndarray (X, Y, Z), float32
        With all their noise.
    inside : ndarray (X, Y, Z), bool
        True = under the mask.
    level : float
        Typical value of tissue.
    spacing : ndarray (3,)
        In mm.
    rng : numpy.random.Generator
    """
    flesh = shrunk(inside, 2) & shrunk(new > FLESH * level, 2)
    around = ~inside & shrunk(scan > FLESH * level, 2)
    more = TEXTURE_MORE_LARGE if large_voxels(spacing) else TEXTURE_MORE
    wanted, found = side_by_side(
        lambda: more * noise_level(scan, around, spacing, robust=True),
        lambda: noise_level(new, flesh, spacing, robust=True),
    )
    if not wanted > found:
        return new
    white = rng.standard_normal(new.shape, dtype=np.float32)
    texture = white - gaussian(white, TEXTURE_VOXELS * _mean_side(spacing) / spacing)
    texture *= smooth_step(new, *(share * level for share in GRAIN_FROM))
    depth = smooth_step(distance_in(new > TISSUE * level, spacing), *TEXTURE_MM)
    texture *= TEXTURE_SKIN + (1 - TEXTURE_SKIN) * depth
    lacks = np.sqrt(wanted**2 - found**2)
    amount = lacks / noise_level(texture, flesh, spacing, robust=True)
    # medians of what is no Gaussian do not add up in squares: a second look
    got = noise_level(new + amount * texture, flesh, spacing, robust=True)
    if got > found:
        amount *= lacks / np.sqrt(got**2 - found**2)
    return np.abs(new + amount * texture)
