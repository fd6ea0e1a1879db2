"""Where the template's face, brain and head come to lie in a scan, and what the scan holds there.

All is looked at on the scan's axis-aligned 2 mm grid; single voxels of the scan are read where it matters how they were
stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy.ndimage import gaussian_filter

from bids_cpmae.imaging.facemask import coarse_scan
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, corner_of, covering_grid, grid_points
from bids_cpmae.imaging.morphology import shrunk
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.registration import Grid
from bids_cpmae.imaging.resample import resample, sample_points
from bids_cpmae.imaging.template import BRAIN_BIT, EARS_BIT, FACE_BIT, HEAD_BIT, load_template

COVERAGE_MM, AROUND_MM = 6.0, 120.0
# template tissue, in units of its brain's 95th percentile: sinuses and airways stay out
TISSUE = 0.25
SIGNAL = 0.3
# cosine of the angle to the direction of sight up to which a side of the field of view is its front
FRONT = 0.7
LEAST_VOXELS = 200
ALL_BITS = BRAIN_BIT | FACE_BIT | EARS_BIT | HEAD_BIT
# every so many points of a grid tell roughly where the template lies in it
THIN = 4


@dataclass(frozen=True)
class Landmarks:
    """The template on a scan's own 2 mm grid.

    Attributes
    ----------
    scan : Grid
        The scan.
    box : tuple of slice
        The part of that grid which holds what is asked of the template; the other arrays cover it alone.
    template : ndarray (X, Y, Z), float32
        Its average head.
    brain, face, ears, head : ndarray (X, Y, Z), bool
        Its masks; face and ears reach into the air before the skin.
    in_view : ndarray (X, Y, Z), bool
        True in the scan's field of view.
    """

    scan: Grid
    box: tuple[slice, ...]
    template: np.ndarray
    brain: np.ndarray
    face: np.ndarray
    ears: np.ndarray
    head: np.ndarray
    in_view: np.ndarray

    @classmethod
    def of(
        cls, source: SourceImage, to_head: CoordinateMap, *, scan: Grid | None = None, bits: int = ALL_BITS
    ) -> Landmarks:
        """Carry the template to a scan.

        Parameters
        ----------
        source : SourceImage
        to_head : CoordinateMap
            From the scan's world to head space.
        scan : Grid, optional
            The source's `coarse_scan`, where the caller has it.
        bits : int
            Those masks of the template that are asked for.
        """
        scan = scan or coarse_scan(source.data, source.affine)
        shape = scan.data.shape
        box = _reach(to_head, scan.affine, shape, bits)
        corner = corner_of(scan.affine, box)
        size = tuple(part.stop - part.start for part in box)
        channels = resample(_channels(), load_template().grid.affine, corner, size, through=to_head)
        masks = [channel > 0.5 for channel in channels[1:]]
        return cls(scan, box, channels[0], *masks, in_view(source, scan.affine, shape)[box])

    @cached_property
    def flesh(self) -> np.ndarray:
        """Where the template has tissue all around (X, Y, Z), bool, as far as it is in view."""
        solid = (gaussian_filter(self.template, 1) > TISSUE) & self.in_view
        return solid & shrunk(self.head)

    @cached_property
    def face_flesh(self) -> np.ndarray:
        """`flesh` of the face, a voxel off its border."""
        return self.flesh & shrunk(self.face)

    @cached_property
    def brain_level(self) -> float:
        """Median of the scan where the template has its brain."""
        inside = self.scan.data[self.box][self.brain & self.in_view]
        return float(np.median(inside)) if inside.size else float("nan")

    def brain_signal(self) -> float:
        """Share of the template's brain in view that is as bright as tissue; NaN where there is none."""
        inside = self.scan.data[self.box][self.brain & self.in_view]
        return float((inside > SIGNAL * self.brain_level).mean()) if inside.size else float("nan")

    def cut(self, source: SourceImage) -> float:
        """Share of the face's flesh in which a voxel and its six neighbours are stored as the very same value.

        Tissue and air of a scanner have noise; what a tool has cut away has none.
        """
        index = self._voxels(source, self.face_flesh)
        if len(index) < LEAST_VOXELS:
            return float("nan")
        values = source.data
        middle, same = values[tuple(index.T)], np.ones(len(index), bool)
        for axis in range(3):
            for step in (-1, 1):
                beside = index.copy()
                beside[:, axis] += step
                same &= values[tuple(beside.T)] == middle
        return float(same.mean())

    def front_cut(self, source: SourceImage, to_head: CoordinateMap, mask: np.ndarray) -> float:
        """Area in cm2 in which the field of view's front cuts through tissue under a mask (X, Y, Z), True = counts."""
        area = 0.0
        for axis, spacing in enumerate(source.spacing):
            for outwards in (-1, 1):
                # the outermost voxels may be blank
                outer = slice(0, 2) if outwards < 0 else slice(-2, None)
                layer = tuple(outer if other == axis else slice(None) for other in range(3))
                tissue = (mask[layer] & (source.data[layer] > SIGNAL * self.brain_level)).any(axis)
                if not tissue.any():
                    continue
                index = np.insert(np.argwhere(tissue).mean(0), axis, 0 if outwards < 0 else source.shape3[axis] - 1)
                ends = np.stack([index, index + 5 / spacing * outwards * np.eye(3)[axis]])
                before, after = to_head(apply_affine(source.affine, ends)[None, None])[0, 0]
                if (after - before)[1] > FRONT * np.linalg.norm(after - before):
                    area += tissue.sum() * np.prod(source.spacing) / spacing / 100
        return float(area)

    def detail(self, source: SourceImage) -> float:
        """Noise and fine detail in the face's flesh over that in the flesh of the rest of the head, brain left out."""
        rest = self.flesh & ~self.brain & ~self.face & ~self.ears
        levels = [self._roughness(source, where) for where in (self.face_flesh, rest)]
        return levels[0] / levels[1] if levels[1] > 0 else float("nan")

    def _roughness(self, source: SourceImage, where: np.ndarray) -> float:
        """Median size of second differences along the two finest axes, relative to the value; NaN for too few."""
        index = self._voxels(source, where)
        values, found = source.data, []
        for axis in np.argsort(source.spacing)[:2]:
            step = np.eye(3, dtype=int)[axis]
            before, here, after = (values[tuple((index + shift).T)] for shift in (-step, 0 * step, step))
            bright = here > SIGNAL * self.brain_level
            found.append((np.abs(before - 2 * here + after) / np.maximum(here, 1e-9))[bright])
        found = np.concatenate(found)
        return float(np.median(found)) if found.size >= LEAST_VOXELS else float("nan")

    def _voxels(self, source: SourceImage, where: np.ndarray) -> np.ndarray:
        """Nearest voxels (N, 3) of the scan, none of them at the edge of its field of view."""
        world = apply_affine(self.scan.affine, np.argwhere(where) + [part.start for part in self.box])
        index = np.rint(apply_affine(np.linalg.inv(source.affine), world)).astype(int)
        return index[((index > 0) & (index < np.array(source.shape3) - 1)).all(1)]


def face_coverage(source: SourceImage, to_head: CoordinateMap) -> float:
    """Share of the template's face, its tissue, that lies in a scan's field of view.

    ``to_head`` leads from the scan's world to head space; it is continued linearly beyond the field of view.
    """
    inside = _face_in_view(source, to_head)[1]
    return float(inside.mean()) if inside.size else 0.0


def mask_coverage(source: SourceImage, to_head: CoordinateMap, mask: np.ndarray) -> float:
    """Share of the template's face in a scan's field of view that a mask (X, Y, Z), True inside, covers; NaN if none.

    ``to_head`` leads from the scan's world to head space.
    """
    index, inside = _face_in_view(source, to_head)
    return float(mask[tuple(np.rint(index[inside]).astype(int).T)].mean()) if inside.any() else float("nan")


def _face_in_view(source: SourceImage, to_head: CoordinateMap) -> tuple[np.ndarray, np.ndarray]:
    """Voxel indices (N, 3) of points spread over the face's tissue, and which of them lie in the field of view."""
    affine, shape = covering_grid(source.affine, source.shape3, COVERAGE_MM, pad=AROUND_MM)
    box = _reach(to_head, affine, shape, FACE_BIT)
    # not by `resample`, for which a map ends where its grid ends
    points = to_head(grid_points(affine, shape)[box])
    index = apply_affine(np.linalg.inv(load_template().grid.affine), points)
    template, _, face, _, head = np.moveaxis(sample_points(_channels(), index), -1, 0)
    where = (face > 0.5) & (head > 0.5) & (template > TISSUE)
    world = apply_affine(affine, np.argwhere(where) + [part.start for part in box])
    index = apply_affine(np.linalg.inv(source.affine), world)
    return index, ((index > -0.5) & (index < np.array(source.shape3) - 0.5)).all(1)


def in_view(source: SourceImage, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which voxels of an axis-aligned grid lie in a scan's field of view, bool."""
    world = [affine[axis, axis] * np.arange(n) + affine[axis, 3] for axis, n in enumerate(shape)]
    seen = np.ones(shape, bool)
    for row, size in zip(np.linalg.inv(source.affine), source.shape3):
        first, second, third = (row[axis] * at for axis, at in enumerate(world))
        index = first[:, None, None] + second[:, None] + third + row[3]
        seen &= (index > -0.5) & (index < size - 0.5)
    return seen


def _reach(to_head: CoordinateMap, affine: np.ndarray, shape: tuple[int, ...], bits: int) -> tuple[slice, ...]:
    """The box of a grid's voxels in which some masks of the template can lie."""
    # every few points tell: a map is smooth, and no cell between them is stretched by half
    thin = affine @ np.diag([THIN, THIN, THIN, 1.0])
    margin = 1.5 * THIN * affine[0, 0]
    low, high = _extent(bits)
    points = to_head(grid_points(thin, tuple(-(-n // THIN) + 1 for n in shape)))
    near = np.argwhere(((points > low - margin) & (points < high + margin)).all(-1))
    if not len(near):
        return (slice(0, 1),) * 3
    first, last = THIN * near.min(0) - THIN // 2, THIN * near.max(0) + THIN // 2
    return tuple(slice(min(max(0, a), n - 1), min(b + 1, n)) for a, b, n in zip(first, last, shape))


@cache
def _extent(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest head-space coordinates (3,) of some masks of the template."""
    template = load_template()
    index = np.argwhere(template.mask(bits))
    return tuple(apply_affine(template.grid.affine, end) for end in (index.min(0), index.max(0)))


def _channels() -> np.ndarray:
    """The template's head and masks (5, X, Y, Z), float32."""
    template = load_template()
    masks = [template.mask(bit).astype(np.float32) for bit in (BRAIN_BIT, FACE_BIT, EARS_BIT, HEAD_BIT)]
    return np.stack([template.grid.data, *masks])
