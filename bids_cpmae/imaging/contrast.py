"""The new head in another contrast: how a scan shows each kind of tissue, learned outside the mask and applied inside.

The reference's T1w-like values alone do not tell what a tissue looks like elsewhere: muscle and grey matter, skin and
white matter are as bright in a T1w scan. So the brightness of a place in another contrast is learned given its T1w-like
value, the mean of its surroundings and its depth under the skin, in the brain and outside it apart. Fluid in the eyes
has nothing like it outside the mask but the fluid in the brain, and takes its value.

Nothing in here reads the scan or the reference under the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import (
    binary_closing,
    binary_dilation,
    binary_fill_holes,
    binary_opening,
    gaussian_filter,
    gaussian_filter1d,
    label,
    map_coordinates,
)

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.align import HeadFrame, average_onto, mask_box
from bids_cpmae.imaging.facemask import signed_distance
from bids_cpmae.imaging.fields import block_size, blocks, carry, enlarge
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, corner_of, grid_points, head_affine, head_shape
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.seam import box_around
from bids_cpmae.imaging.template import BRAIN_BIT, SPACING, load_template
from bids_cpmae.imaging.view import into_view

# T1w-like values: the brain's 95th percentile is 0.5
TISSUE = 0.1
FLUID = (0.16, 0.24)
# where the eyes are in head space, how far from there fluid is looked for, and how smooth its border is
EYES, EYE_MM, EYE_SMOOTH_MM = ((-32.0, 58.0, -28.0), (32.0, 58.0, -28.0)), 20.0, 1.6
NEAR_MM = 4.0
LEARN_MM = 1.0
# lattice of conditions: T1w-like value, mean nearby, depth in mm (finer under the skin)
VALUES, NEARBY, DEPTHS = 33, 13, 11
MOST_VALUE, MOST_NEARBY, MOST_DEPTH = 0.96, 0.72, 25.0
# widths in cells of what counts as alike, from wide to narrow; the narrower counts once it holds some pairs
ALIKE, SOME_PAIRS = (4.0, 1.5, 0.7), 20.0
# fluid in the brain: this deep in it nothing else is as dark in a T1w scan
DEEP_MM, LEAST_FLUID = 15.0, 50
GAIN_SCALES = {20.0: 1.0, 60.0: 0.01}
GAIN_BLOCK_MM = 6.0
ROUNDS = 3
OUTLIER = 3.0
LEAST_PAIRS = 2000
LEAST_DEPTH = 1.0


@dataclass(frozen=True)
class Anatomy:
    """The new head as the reference shows it, in head space, with what tells its tissues apart.

    Attributes
    ----------
    value : ndarray (256, 256, 256), float32
        T1w-like, 0 to 1: the reference outside its mask, the synthetic head under it.
    known : ndarray (256, 256, 256), bool
        True = not under the reference's mask.
    fluid : ndarray (256, 256, 256), float32
        1 in the fluid of the eyes.
    nearby, depth, brain : ndarray (128, 128, 128), float32
        At 2 mm: mean within some 4 mm; depth under the skin in mm, negative outside; signed distance to the brain,
        negative inside.
    """

    value: np.ndarray
    known: np.ndarray
    fluid: np.ndarray
    nearby: np.ndarray
    depth: np.ndarray
    brain: np.ndarray

    @classmethod
    def of(cls, frame: HeadFrame, head: np.ndarray) -> Anatomy:
        """From the reference in head space and the head that was made of it."""
        value = np.where(frame.blank, into_view(head, frame.beyond), frame.volume).astype(np.float32)
        coarse = gaussian_filter(value, 0.8)
        coarse = sum(coarse[i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)) / 8
        brain = signed_distance(load_template().mask(BRAIN_BIT), SPACING)
        depth = -signed_distance(solid_head(coarse > TISSUE), SPACING)
        nearby = gaussian_filter(coarse, NEAR_MM / SPACING)
        return cls(value, ~frame.blank, _eye_fluid(coarse, depth), nearby, depth, brain)

    def seen(self, grid: np.ndarray, shape: tuple[int, ...], to_head: CoordinateMap, *, known: bool = True) -> Anatomy:
        """The same on a scan's grid (affine and shape), every field of that shape; ``known`` all False if not asked."""
        fine, coarse = head_affine(), head_affine(SPACING)
        value = average_onto(self.value, fine, grid, shape, through=to_head)
        seen = resample(self.known, fine, grid, shape, through=to_head) > 0.99 if known else np.zeros(shape, bool)
        fluid = resample(self.fluid, fine, grid, shape, through=to_head)
        rest = np.stack([self.nearby, self.depth, self.brain])
        return Anatomy(value, seen, fluid, *resample(rest, coarse, grid, shape, through=to_head, outside="edge"))


def solid_head(tissue: np.ndarray) -> np.ndarray:
    """The head, True inside, without holes: its largest piece of tissue, bone and sinuses filled in."""
    pieces, count = label(binary_opening(tissue))
    if count == 0:
        return tissue
    largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    closed = binary_closing(np.pad(largest, 4, mode="edge"), iterations=3)[4:-4, 4:-4, 4:-4]
    for axis in range(3):
        # slice by slice as well, since the neck opens the head to below
        closed = np.stack([binary_fill_holes(part) for part in np.moveaxis(closed, axis, 0)])
        closed = np.moveaxis(closed, 0, axis)
    return closed


def _eye_fluid(coarse: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Share of fluid (256, 256, 256), 0 to 1, in the globes of a head at 2 mm: dark, round and where eyes are."""
    low, high = FLUID
    dark = np.clip((high - coarse) / (high - low), 0, 1) * (depth > LEAST_DEPTH)
    points = grid_points(head_affine(SPACING), coarse.shape)
    out = np.zeros_like(dark)
    for centre in EYES:
        near = ((points - np.array(centre)) ** 2).sum(-1) < EYE_MM**2
        # lids, sinuses and the slits about the globe are thin or open to the air
        pieces, count = label(binary_opening(near & (dark > 0.5) & (coarse > low / 3), iterations=2))
        if count:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            globe = binary_dilation(pieces == sizes.argmax(), iterations=2)
            out[globe] = dark[globe]
    return _without_steps(out)


def _without_steps(fluid: np.ndarray) -> np.ndarray:
    """A share in few places of the 2 mm grid, at 1 mm and smooth, so that finer voxels do not show steps of 2 mm."""
    fine = np.zeros(head_shape(), np.float32)
    if fluid.any():
        box = box_around(fluid > 0, 4 * EYE_SMOOTH_MM, SPACING)
        into = tuple(slice(SPACING * part.start, SPACING * part.stop) for part in box)
        smooth = enlarge(fluid[box], np.full(3, SPACING), fine[into].shape)
        fine[into] = gaussian_filter(smooth, EYE_SMOOTH_MM)
    return fine


@dataclass(frozen=True)
class Contrast:
    """What a scan shows where the reference shows what.

    Attributes
    ----------
    outside, inside : ndarray (VALUES, NEARBY, DEPTHS), float32
        Expected value of the scan on the lattice, outside the brain and inside it.
    fluid : float
        What the scan shows of fluid.
    """

    outside: np.ndarray
    inside: np.ndarray
    fluid: float

    def __call__(self, anatomy: Anatomy) -> np.ndarray:
        """The scan as it would show an anatomy seen on its grid; 0 in the air around the head."""
        at = _cells(anatomy)
        in_brain = np.clip(0.5 - anatomy.brain / 2, 0, 1)
        shown = [map_coordinates(part, at, order=1, mode="nearest") for part in (self.outside, self.inside)]
        new = shown[0] + in_brain * (shown[1] - shown[0])
        new += np.clip(anatomy.fluid, 0, 1) * (self.fluid - new)
        return (new * np.clip(anatomy.depth + 1, 0, 1)).astype(np.float32)


def _cells(anatomy: Anatomy) -> np.ndarray:
    """Where on the lattice each voxel lies, (3, ...), float32."""
    depth = np.sqrt(np.clip(anatomy.depth, 0.5, MOST_DEPTH) / MOST_DEPTH)
    parts = (anatomy.value / MOST_VALUE, anatomy.nearby / MOST_NEARBY, depth)
    sizes = (VALUES, NEARBY, DEPTHS)
    return np.stack([np.clip(part, 0, 1) * np.float32(n - 1) for part, n in zip(parts, sizes)]).astype(np.float32)


def learn_contrast(
    data: np.ndarray, anatomy: Anatomy, where: np.ndarray, spacing: np.ndarray
) -> tuple[Contrast, np.ndarray, float]:
    """Learn what a scan shows where the reference shows what, and the shading that is the scan's own.

    Parameters
    ----------
    data : ndarray (X, Y, Z), float32
        The scan, read in ``where`` only.
    anatomy : Anatomy
        Seen on the same grid.
    where : ndarray (X, Y, Z), bool
        True = in the head, not under the mask of either scan.
    spacing : ndarray (3,)
        In mm.

    Returns
    -------
    contrast : Contrast
    gain : ndarray (X, Y, Z), float32
        Smooth; the scan is about ``gain * contrast(anatomy)``.
    correlation : float
        Pearson correlation of the two in ``where``.

    Raises
    ------
    ScanError
        When there is too little in common to learn from.
    """
    if where.sum() < LEAST_PAIRS:
        raise ScanError(
            "too little of the head outside the face mask is seen in this scan to learn its contrast; "
            "does it show the head of the participant whose T1w scan it belongs to?"
        )
    cells = np.rint(_cells(anatomy)[:, where]).astype(int)
    flat = np.ravel_multi_index(tuple(cells), (VALUES, NEARBY, DEPTHS))
    in_brain = (anatomy.brain < 0)[where]
    watery = (anatomy.brain[where] < -DEEP_MM) & (anatomy.value[where] < np.mean(FLUID))
    seen = data[where].astype(np.float64)
    # in head mode nothing but the brain and its rim is known
    everything = np.ones_like(in_brain)
    parts = [part if part.sum() > LEAST_PAIRS // 4 else everything for part in (~in_brain, in_brain)]
    weight, gain = np.ones(seen.size), np.ones(data.shape, np.float32)
    for _ in range(ROUNDS):
        even = seen / gain[where]
        lattices = [_conditional_mean(flat[part], even[part], weight[part]) for part in parts]
        # among so many voxels of brain, these are outliers and their weight says nothing
        wet = even[watery]
        fluid = float(np.median(wet) if wet.size > LEAST_FLUID else lattices[1][VALUES // 8, NEARBY // 3, -1])
        contrast = Contrast(*lattices, fluid)
        shown = np.where(in_brain, lattices[1].ravel()[flat], lattices[0].ravel()[flat])
        away = np.abs(even - shown)
        weight = (away < OUTLIER * 1.4826 * np.median(away)).astype(float)
        amount, share = np.zeros(data.shape, np.float32), np.zeros(data.shape, np.float32)
        usable = weight * (shown > 0.2 * np.median(shown))
        amount[where], share[where] = usable * np.maximum(seen, 0), usable * np.maximum(shown, 0)
        gain = carry(amount, share, spacing, scales=GAIN_SCALES, block_mm=GAIN_BLOCK_MM, prior=1.0)
        gain = np.clip(gain, 0.25, 4)
    told = shown * gain[where]
    steady = told.std() > 0 and seen.std() > 0
    return contrast, gain, float(np.corrcoef(seen, told)[0, 1]) if steady else 0.0


def _conditional_mean(flat: np.ndarray, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean of values in each cell of the lattice and those like it; where these are few, in wider neighbourhoods."""
    shape = (VALUES, NEARBY, DEPTHS)
    total, count = (
        np.bincount(flat, part, VALUES * NEARBY * DEPTHS).reshape(shape).astype(np.float32)
        for part in (weight * values, weight)
    )
    overall = float(total.sum(dtype=float) / max(count.sum(dtype=float), 1e-9))
    # the broadest guess hangs on the T1w-like value alone
    sums = [gaussian_filter1d(part.sum((1, 2)), 1.0) for part in (total, count)]
    mean = ((sums[0] + SOME_PAIRS * overall) / (sums[1] + SOME_PAIRS))[:, None, None]
    for width in ALIKE:
        peak = (2 * np.pi * width**2) ** 1.5
        near = [peak * gaussian_filter(part, width, mode="constant", truncate=3) for part in (total, count)]
        mean = (near[0] + SOME_PAIRS * mean) / (near[1] + SOME_PAIRS)
    return np.broadcast_to(mean, shape).astype(np.float32)


@dataclass(frozen=True)
class Stage:
    """A scan's grid with the new head's anatomy on it, so that each volume of a series can be translated to.

    Attributes
    ----------
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    box : tuple of slice
        The mask and 24 mm around it, where the new head is wanted.
    wanted : Anatomy
        Seen in the box.
    block : ndarray (3,)
        Voxels to a cell of the grid on which the contrast is learned.
    learned : Anatomy
        Seen on that grid, about 1 mm.
    where : ndarray (X', Y', Z'), bool
        Cells of it that show the head and lie under no mask.
    """

    mask: np.ndarray
    box: tuple[slice, ...]
    wanted: Anatomy
    block: np.ndarray
    learned: Anatomy
    where: np.ndarray

    @classmethod
    def of(cls, source: SourceImage, mask: np.ndarray, anatomy: Anatomy, to_head: CoordinateMap) -> Stage:
        """From a scan, its mask, an anatomy in head space and the map from the scan's world to head space."""
        block = block_size(LEARN_MM, source.spacing)
        # cells that reach beyond the field of view are left out
        shape = tuple(int(n) for n in np.array(source.shape3) // block)
        hidden = blocks(mask.astype(np.float32), block)[tuple(slice(n) for n in shape)] > 0
        grid = source.affine.copy()
        grid[:3, :3] = source.affine[:3, :3] * block
        grid[:3, 3] = apply_affine(source.affine, (block - 1) / 2)
        learned = anatomy.seen(grid, shape, to_head)
        where = ~hidden & learned.known & (learned.depth > LEAST_DEPTH) & (learned.value > 0)
        box = mask_box(mask, source.affine)
        shape = tuple(part.stop - part.start for part in box)
        wanted = anatomy.seen(corner_of(source.affine, box), shape, to_head, known=False)
        return cls(mask, box, wanted, block, learned, where)

    def translate(self, volume: SourceImage) -> tuple[np.ndarray, float]:
        """The new head in the contrast of a volume on the scan's grid, which is read outside the mask only.

        Returns
        -------
        synthetic : ndarray (X, Y, Z), float32
            In the volume's units; 0 further than 24 mm from the mask.
        correlation : float
            Pearson correlation of scan and translated reference, outside both masks.

        Raises
        ------
        ScanError
            When there is too little outside the masks to learn from.
        """
        inner = tuple(slice(n) for n in self.where.shape)
        data = blocks(np.where(self.mask, np.float32(0), volume.data), self.block)[inner]
        contrast, gain, correlation = learn_contrast(data, self.learned, self.where, volume.spacing * self.block)
        shading = enlarge(gain, self.block, volume.shape3)[self.box]
        out = np.zeros(volume.shape3, np.float32)
        out[self.box] = contrast(self.wanted) * shading
        return out, correlation
