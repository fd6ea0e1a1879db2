"""The light of a scan: how bright its coils show tissue from place to place, followed to where the scan is not read."""

from __future__ import annotations

import numpy as np

from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.fields import blocks, carry, enlarge

# a coil's light is seen in tissue near the mask and carried under it by these neighbourhoods; sketch and scan differ in
# anatomy as well, and what differs by more than this is no light
TISSUE, LIGHT_LIMITS, LIGHT_BLOCK, LIGHT_MM, LEAST_LIT = 0.2, (0.3, 2.0), 4, 25.0, 100
LIGHT_ROUNDS, LIGHT_MISFIT = 6, 0.2
# a chin that is hardly seen is no face
DIMMEST = 0.45
LIGHT_SCALES = {10.0: 1.0, 20.0: 0.1, 40.0: 0.02}


def lit(drawn: np.ndarray, volume: np.ndarray, blank: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """A sketch in the light of a scan: as bright and dark as coils make the scan's tissue around it.

    How sketch and scan compare near the blank is followed by a quadratic in space, for light goes on falling towards a
    chin, and what that leaves over is carried in from the border.

    Parameters
    ----------
    drawn, volume : ndarray (X, Y, Z), float32
        Sketch and scan at 1 mm, 0 to 1; the scan is read outside ``blank`` and ``brain`` only.
    blank, brain : ndarray (X, Y, Z), bool
        True = to be made anew, and True = brain. Where no tissue is known, the sketch comes back as it is.
    """
    low, high = LIGHT_LIMITS
    tissue = ~blank & ~brain & (drawn > TISSUE) & (volume > low * drawn) & (volume < high * drawn)
    amount, weight = (np.where(tissue, part, np.float32(0)) for part in (volume, drawn))
    block = np.full(3, LIGHT_BLOCK)
    seen, drew, hidden = (blocks(part, block) for part in (amount, weight, blank.astype(np.float32)))
    near = (drew > 0) & (distance_in(hidden == 0, LIGHT_BLOCK) < LIGHT_MM)
    if near.sum() < LEAST_LIT:
        return drawn
    trend = np.clip(_trend(seen, drew, near), low, high)
    left = carry(
        seen, drew * trend, np.full(3, float(LIGHT_BLOCK)), scales=LIGHT_SCALES, block_mm=LIGHT_BLOCK, prior=1.0,
        prior_weight=1e-4,
    )  # fmt: skip
    return drawn * enlarge(np.maximum(trend * left, DIMMEST), block, drawn.shape)


def _trend(amount: np.ndarray, weight: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The quadratic in space (X, Y, Z) that the logarithm of ``amount`` over ``weight`` follows where ``near``.

    Left and right are taken to be alike; blocks that fit badly count less.
    """
    x, y, z = (grid / 25 - n / 50 for grid, n in zip(np.indices(near.shape, dtype=np.float32), near.shape))
    terms = np.stack([np.ones_like(x), x * x, y, z, y * y, z * z, y * z], axis=-1)
    found, rows, base = np.log(amount[near] / weight[near]), terms[near], weight[near]
    trust = base
    for _ in range(LIGHT_ROUNDS):
        factors = np.linalg.lstsq(rows * trust[:, None], found * trust, rcond=None)[0]
        trust = base * np.sqrt(np.minimum(1, LIGHT_MISFIT / np.maximum(np.abs(found - rows @ factors), 1e-3)))
    return np.exp(terms @ factors)
