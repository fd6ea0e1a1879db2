"""Registration by ANTs (antspyx), coarse and reproducible, between axis-aligned grids in RAS+.

ANTs itself works in LPS; volumes are handed over with the first two axes of the world flipped, and points come back.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from bids_cpmae.antspy import load_ants
from bids_cpmae.imaging.headspace import CoordinateMap, corner_of, covering_grid, grid_points
from bids_cpmae.imaging.intensity import tissue_level
from bids_cpmae.imaging.resample import downsample
from bids_cpmae.imaging.skin import otsu_threshold

if TYPE_CHECKING:
    from ants.core.ants_image import ANTsImage

LPS = np.array([-1.0, -1.0, 1.0])
REGISTRATION_MM = 4.0
# at 8 mm, where the affine step ends, too, and after 15 nothing changes any more, and at 4 mm: twice as many there,
# two seconds, bring brains nearer by half a hundredth of Dice, skins not at all; mean squares in place of mutual
# information, as fast, lose the brain where contrast is another
SYN_ITERATIONS, SYN_STEP = (15, 3), 0.25
# a head that has lost its face is laid on the template as well with one step at 4 mm
SYN_ITERATIONS_FACELESS = (15, 1)
START_PITCHES, FURTHER_PITCHES = (0.0, -20.0, 20.0), (-40.0, 40.0)
# a field of view that ends at the nose has its middle elsewhere, and another contrast does not forgive that
START_RISES, OTHER_START_RISES = (0.0,), (0.0, 30.0, -30.0)
GOOD_START = 0.6
GREY_LEVELS = 32
BRIGHTEST = 1.5
# what changes slowly is told from anatomy at this width; a noisy air must not be made as bright as tissue
EVEN_MM, AIR_BINS, AIR_SHARES, FAINT = 20.0, 64, (1.2, 2.5), 1e-3


@dataclass(frozen=True)
class Grid:
    """A volume on an axis-aligned RAS+ grid, as registration wants it: ``data`` (X, Y, Z), ``affine`` (4, 4)."""

    data: np.ndarray
    affine: np.ndarray

    def coarser(self, spacing: float = REGISTRATION_MM) -> Grid:
        """The same field of view at ``spacing`` mm."""
        affine, shape = covering_grid(self.affine, self.data.shape, spacing)
        return Grid(downsample(self.data, self.affine, affine, shape), affine)

    def darkened(self) -> Grid:
        """The same with nothing brighter than `BRIGHTEST` times its typical tissue."""
        seen = self.data[self.data > 0]
        return Grid(np.minimum(self.data, BRIGHTEST * tissue_level(seen)), self.affine) if seen.size else self

    def evened(self, counts: np.ndarray | None = None) -> Grid:
        """The same relative to how bright bright things are around: without what changes slowly, as a coil's reach.

        Parameters
        ----------
        counts : ndarray (X, Y, Z), bool, optional
            True = tells how bright things are; everything if not given.
        """
        dark, least = (share * _air_level(self.data) for share in AIR_SHARES)
        data = np.maximum(self.data - dark, 0)
        amount = data if counts is None else np.where(counts, data, 0)
        sigma = EVEN_MM / np.diag(self.affine)[:3]
        mean, square = (gaussian_filter(part, sigma, mode="constant") for part in (amount, amount * amount))
        # a mean in which everything counts as much as it is bright, so that air does not
        level = np.divide(square, mean, out=np.zeros_like(mean), where=mean > 0)
        level = np.maximum(level, max(least, FAINT * float(data.max()), np.finfo(np.float32).tiny))
        # what is 0 may be unknown, and stays apart from the air
        return Grid(np.where(self.data > 0, np.maximum(data / level, FAINT), 0).astype(np.float32), self.affine)

    def part(self, box: tuple[slice, ...]) -> Grid:
        """A box of its voxels."""
        return Grid(self.data[box], corner_of(self.affine, box))

    def to_ants(self):
        """The same volume as an ANTs image in LPS."""
        ants = load_ants()

        spacing = np.diag(self.affine)[:3]
        return ants.from_numpy(
            np.ascontiguousarray(self.data, np.float32),
            origin=list(self.affine[:3, 3] * LPS),
            spacing=list(spacing),
            direction=np.diag(LPS),
        )


@dataclass(frozen=True)
class Registration:
    """Transforms from a fixed to a moving image, as files that ANTs wrote in a folder of the caller's.

    Attributes
    ----------
    forward, inverse : list of str
        In ANTs' order; ``forward`` warps the moving image onto the fixed one.
    similarity : float
        Of the fixed and the warped moving image, both evened, inside the fixed mask (or everywhere): Pearson's
        correlation, or the root of the correlation ratio where contrasts differ.
    """

    forward: list[str]
    inverse: list[str]
    similarity: float

    def _map(self, files: list[str], invert: list[bool], affine: np.ndarray, shape) -> CoordinateMap:
        ants = load_ants()
        import pandas as pd

        points = grid_points(affine, shape)
        table = pd.DataFrame(points.reshape(-1, 3) * LPS, columns=["x", "y", "z"])
        moved = ants.apply_transforms_to_points(3, table, files, whichtoinvert=invert)
        moved = moved[["x", "y", "z"]].to_numpy() * LPS
        return CoordinateMap(affine=affine, points=moved.reshape(points.shape).astype(np.float32))

    def fixed_to_moving(self, affine: np.ndarray, shape: tuple[int, ...]) -> CoordinateMap:
        """Map sampled on a grid of the fixed space: where each of its points lies in the moving image's world."""
        return self._map(self.forward, [False] * len(self.forward), affine, shape)

    def moving_to_fixed(self, affine: np.ndarray, shape: tuple[int, ...]) -> CoordinateMap:
        """Map sampled on a grid of the moving image's world: where each point lies in the fixed space."""
        invert = [Path(name).suffix == ".mat" for name in self.inverse]
        return self._map(self.inverse, invert, affine, shape)


@dataclass(frozen=True)
class Fixed:
    """What images are registered to, as ANTs sees it, at 4 mm and evened: made once for as many as there are.

    Attributes
    ----------
    image, mask : ANTsImage
        A volume, and which of its voxels may speak; ``mask`` is None where all may.
    part, part_mask : ANTsImage
        The same in the box that SyN looks at.
    core : ANTsImage or None
        Voxels by which starts are judged where images look alike; those that may speak if None.
    """

    image: ANTsImage
    mask: ANTsImage | None
    part: ANTsImage
    part_mask: ANTsImage | None
    core: ANTsImage | None

    @classmethod
    def of(
        cls, grid: Grid, *, mask: np.ndarray | None = None, box: tuple[slice, ...] | None = None,
        core: np.ndarray | None = None,
    ) -> Fixed:  # fmt: skip
        """From a volume of any scale of intensities.

        Parameters
        ----------
        grid : Grid
        mask : ndarray of bool, optional
            True = may speak; everything if not given.
        box : tuple of slice, optional
            Voxels that SyN looks at, which spares it the air; all of them if not given.
        core : ndarray of bool, optional
            See above.
        """
        seen = None if mask is None else Grid(mask.astype(np.float32), grid.affine)
        whole = part = _target(grid, seen)
        if box is not None:
            part = _target(grid.part(box), seen and seen.part(box))
        judged = None if core is None else _coarse_mask(Grid(core.astype(np.float32), grid.affine))
        return cls(*whole, *part, judged)


def _air_level(data: np.ndarray) -> float:
    """The commonest value of what is dark, which is the mean of a noisy air; 0 where air is 0."""
    top = np.percentile(data, 98)
    dark = data[(data > FAINT * top) & (data < otsu_threshold(np.minimum(data, top)) / 2)]
    if not dark.size:
        return 0.0
    counts, edges = np.histogram(dark, AIR_BINS)
    most = int(counts.argmax())
    return float(edges[most : most + 2].mean())


def set_repeatable(seed: int) -> None:
    """Same input, same result: ANTs samples its metric at random."""
    load_ants().config.set_ants_deterministic(on=False, seed_value=int(seed) % 2**31 or 1)


def write_starts(
    fixed, moving, folder: Path, *, pitches: tuple[float, ...] = START_PITCHES, rises: tuple[float, ...] = START_RISES
):  # fmt: skip
    """Candidate rigid starts: centres of mass brought together, raised in mm, and the head nodded about its ears."""
    ants = load_ants()

    centre_fixed = np.array(ants.get_center_of_mass(fixed))
    centre_moving = np.array(ants.get_center_of_mass(moving))
    for rise, pitch in itertools.product(rises, pitches):
        angle = np.deg2rad(pitch)
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        transform = ants.create_ants_transform(
            transform_type="AffineTransform",
            precision="float",
            dimension=3,
            matrix=matrix,
            center=centre_fixed,
            translation=centre_moving - centre_fixed + [0, 0, rise],
        )
        name = str(folder / f"start{rise:+.0f}{pitch:+.0f}.mat")
        ants.write_transform(transform, name)
        yield name


def _similarity(fixed, warped, mask=None, *, alike: bool = True) -> float:
    a, b = fixed.numpy(), warped.numpy()
    keep = np.ones(a.shape, bool) if mask is None else mask.numpy() > 0
    # what is unknown of an image in another contrast is zero, and says nothing
    keep = keep if alike else keep & (b > 0)
    a, b = a[keep], b[keep]
    if a.size == 0 or a.std() == 0 or b.std() == 0:
        return 0.0
    if alike:
        return float(np.corrcoef(a, b)[0, 1])
    level = np.digitize(a, np.unique(np.quantile(a, np.linspace(0, 1, GREY_LEVELS + 1)[1:-1])))
    mean = np.bincount(level, b) / np.maximum(np.bincount(level), 1)
    return float(mean[level].std() / b.std())


def register(
    fixed: Fixed,
    moving: Grid,
    *,
    folder: Path,
    moving_mask: np.ndarray | None = None,
    alike: bool = True,
    deformable: bool = True,
    steps: tuple[int, int] = SYN_ITERATIONS,
    seed: int = 0,
) -> Registration:
    """Affine with several starts, then a coarse SyN step.

    Parameters
    ----------
    fixed : Fixed
    moving : Grid
        Of any scale of intensities; seen at 4 mm and evened: finer detail and the light of coils play no part.
    folder : Path
        Where ANTs may write its transforms; they live as long as the folder does.
    moving_mask : ndarray of bool, optional
        Voxels of ``moving`` that may speak (True = used); everywhere if not given.
    alike : bool
        Tissues look alike in both. Else more starts are tried, and judged whatever the contrasts, by the correlation
        ratio (Roche et al. 1998) where both images are known.
    deformable : bool
        Follow the affine by SyN.
    steps : tuple of int
        Of SyN, at 8 and at 4 mm.
    seed : int
        Of the metric's sampling.

    Returns
    -------
    Registration
    """
    ants = load_ants()

    set_repeatable(seed)
    folder = Path(folder)
    target, mask = fixed.image, fixed.mask
    source = whole = moving.coarser().evened().to_ants()
    masks = {"mask_all_stages": True}
    if moving_mask is not None:
        masks["moving_mask"] = _coarse_mask(Grid(moving_mask.astype(np.float32), moving.affine))

    def rigid(start: str, name: str) -> dict:
        return ants.registration(
            target, source, "Rigid", initial_transform=start, outprefix=str(folder / f"{name}_rigid_"),
            aff_iterations=(100, 50), aff_shrink_factors=(3, 2), aff_smoothing_sigmas=(1.5, 1), mask=mask, **masks,
        )  # fmt: skip

    def affine(found: dict, name: str) -> dict:
        return ants.registration(
            target, source, "Affine", initial_transform=found["fwdtransforms"],
            outprefix=str(folder / f"{name}_affine_"), aff_iterations=(150,), aff_shrink_factors=(2,),
            aff_smoothing_sigmas=(1,), mask=mask, **masks,
        )  # fmt: skip

    judged = fixed.core if alike and fixed.core is not None else mask
    starts = list(write_starts(target, source, folder, rises=START_RISES if alike else OTHER_START_RISES))
    result = None
    for start in starts if alike else ():
        found = rigid(start, Path(start).stem)
        if _similarity(target, found["warpedmovout"], judged) > GOOD_START:
            result = affine(found, "best")
            break
    if result is None:
        # what is far brighter than a brain, as fat near a coil, leads astray; and rigid starts that are not good are as
        # bad as one another until the size fits
        if alike:
            source = moving.darkened().coarser().evened().to_ants()
            starts += write_starts(target, source, folder, pitches=FURTHER_PITCHES)
        fits = [affine(rigid(start, Path(start).stem), Path(start).stem) for start in starts]
        result = max(fits, key=lambda fit: _similarity(target, fit["warpedmovout"], judged, alike=False))
    if deformable:
        target, mask = fixed.part, fixed.part_mask
        result = ants.registration(
            target, source, "SyNOnly", initial_transform=result["fwdtransforms"],
            outprefix=str(folder / "syn_"), reg_iterations=steps, grad_step=SYN_STEP,
            syn_metric="mattes", syn_sampling=32, flow_sigma=3, total_sigma=0.5, mask=mask, **masks,
        )  # fmt: skip
    warped = ants.apply_transforms(target, whole, result["fwdtransforms"])
    similarity = _similarity(target, warped, mask, alike=alike)
    return Registration(list(result["fwdtransforms"]), list(result["invtransforms"]), similarity)


def _target(fixed: Grid, seen: Grid | None):
    """A fixed image and its mask, at 4 mm, as ANTs images."""
    coarse = fixed.coarser()
    if seen is None:
        return coarse.evened().to_ants(), None
    mask = _coarse_mask(seen)
    return coarse.evened(mask.numpy() > 0).to_ants(), mask


def _coarse_mask(seen: Grid):
    coarse = seen.coarser()
    return Grid((coarse.data > 0.5).astype(np.float32), coarse.affine).to_ants()


def scratch_folder():
    """A temporary folder for transforms; a context manager."""
    return tempfile.TemporaryDirectory(prefix="bids_cpmae_registration_")
