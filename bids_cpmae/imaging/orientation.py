"""Whether a head lies as its header says: the template, turned in every way by right angles, is tried on the scan.

A deformable registration bends almost anything into a good correlation, a head that is back to front too; its face
would then be left in. So the turns are tried rigidly and coarsely, before any registration. A head and its mirror image
look alike, so left and right are not told apart.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter

from bids_cpmae.imaging.fields import block_size, blocks
from bids_cpmae.imaging.headspace import apply_affine, covering_grid
from bids_cpmae.imaging.landmarks import in_view
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.resample import downsample, resample
from bids_cpmae.imaging.template import SPACING, load_template

TURN_MM, BLOCK_MM, BOX = 10.0, 4.0, 27
PITCHES = (-20.0, 0.0, 20.0)
# where the template's box is centred, in head space
CENTRE_MM = (0.0, -10.0, -30.0)
DARK, BRIGHT_PERCENT = 0.1, 95
LEAST_VARIANCE = 0.05
# whole heads score 0.03 to 0.08 more as they lie than turned, and so much less once they are turned; views that hold
# half a head come within 0.02
CLEARLY_BETTER, CLEARLY_A_HEAD = 0.04, 0.85


def turned(source: SourceImage) -> str | None:
    """What the head seems to be turned to, as axis codes of where its right, front and top point to; None if upright.

    Only said where another turn fits clearly better, and fits well.
    """
    scores = turn_scores(source)
    best = max(scores, key=scores.get)
    if scores[best] < CLEARLY_A_HEAD or scores[best] - scores["RAS"] < CLEARLY_BETTER:
        return None
    return best


def turn_scores(source: SourceImage) -> dict[str, float]:
    """How well the template fits the scan for each of 24 turns: the best Pearson correlation over all shifts.

    Everything in the field of view counts, and nothing beyond it. Turns are named by where the head's right, front and
    top point to: ``RAS`` is upright.
    """
    affine, shape = covering_grid(source.affine, source.shape3, TURN_MM)
    seen = in_view(source, affine, shape).astype(np.float32)
    scan = _capped(downsample(*_thinned(source), affine, shape)) * seen
    size = [fft.next_fast_len(n + BOX - 1, real=True) for n in shape]
    count, total = float(seen.sum()), float(scan.sum())
    spread = float((scan * scan).sum()) - total**2 / count
    if not spread > 0:
        return {name: 0.0 for name in _turns()}
    # flipping the scan in place of the head finds the same, and all orders of the axes share the flipped scans
    flips = {flipped: [np.flip(volume, flipped) for volume in (scan, seen)] for _, flipped in _turns().values()}
    spectra = {flipped: [fft.rfftn(volume, size) for volume in volumes] for flipped, volumes in flips.items()}
    scores = {}
    for order in permutations(range(3)):
        names = {name: flipped for name, (own, flipped) in _turns().items() if own == order}
        found = {name: [] for name in names}
        for head in _heads():
            head = np.transpose(head, order)
            one, square = (np.conj(fft.rfftn(part, size)) for part in (head, head * head))
            # what the view alone decides is the same for all flips that it looks the same in
            of_view = {}
            for name, flipped in names.items():
                of_scan, of_seen = spectra[flipped]
                view = flips[flipped][1].tobytes()
                if view not in of_view:
                    mean, power = (fft.irfftn(of_seen * part, size) for part in (one, square))
                    variance = power - mean**2 / count
                    # where the template hardly reaches into view its variance is next to nothing
                    variance = np.maximum(variance, LEAST_VARIANCE * variance.max())
                    of_view[view] = total / count * mean, np.sqrt(spread * variance)
                expected, scale = of_view[view]
                both = fft.irfftn(of_scan * one, size)
                both -= expected
                both /= scale
                found[name].append(float(both.max()))
        scores.update({name: max(values) for name, values in found.items()})
    return scores


def _thinned(source: SourceImage) -> tuple[np.ndarray, np.ndarray]:
    """A scan averaged over blocks of about 4 mm, and its affine: much less to smooth."""
    block = block_size(BLOCK_MM, source.spacing)
    affine = source.affine @ np.diag([*block, 1.0])
    affine[:3, 3] = apply_affine(source.affine, (block - 1) / 2)
    return blocks(source.data, block), affine


@lru_cache(maxsize=1)
def _turns() -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The 24 rotations by right angles: transposition and flipped axes of a RAS volume, by name."""
    turns = {}
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                ends = [("RL", "AP", "SI")[axis][sign < 0] for axis, sign in enumerate(signs)]
                # volume axis k shows the head's axis order[k]: tell it the other way round
                name = "".join(ends[order.index(axis)] for axis in range(3))
                turns[name] = (order, tuple(axis for axis in range(3) if signs[axis] < 0))
    return turns


@lru_cache(maxsize=1)
def _heads() -> tuple[np.ndarray, ...]:
    """The template's head on a cube of 10 mm voxels, nodded forwards, upright and backwards."""
    grid = load_template().grid
    smooth = gaussian_filter(grid.data, 0.4 * TURN_MM / SPACING)
    box = np.diag([TURN_MM] * 3 + [1.0])
    box[:3, 3] = -TURN_MM * (BOX - 1) / 2
    heads = []
    for pitch in PITCHES:
        cos, sin = np.cos(np.deg2rad(pitch)), np.sin(np.deg2rad(pitch))
        nod = np.eye(4)
        nod[1:3, 1:3] = [[cos, -sin], [sin, cos]]
        nod[:3, 3] = CENTRE_MM
        heads.append(_capped(resample(smooth, grid.affine, nod @ box, (BOX,) * 3)))
    return tuple(heads)


def _capped(values: np.ndarray) -> np.ndarray:
    """Values without negative ones and without the brightest twentieth of tissue."""
    tissue = values[values > DARK * values.max()]
    return np.clip(values, 0, np.percentile(tissue, BRIGHT_PERCENT)) if tissue.size else np.zeros_like(values)
