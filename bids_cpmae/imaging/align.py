"""A scan brought to head space for the model, without a look under the face mask, and the new head brought back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bids_cpmae.errors import ScanError
from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.facemask import FIELD_MM, coarse_scan, keeps_brain_alone, map_grid
from bids_cpmae.imaging.headspace import CoordinateMap, corner_of, head_affine, head_shape
from bids_cpmae.imaging.intensity import BRAIN_LEVEL, Tone, unit_scale
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.registration import SYN_ITERATIONS_FACELESS, register, scratch_folder
from bids_cpmae.imaging.resample import framed, resample
from bids_cpmae.imaging.template import (
    BRAIN_BIT,
    SPACING,
    Template,
    fixed_template,
    load_portrait,
    load_template,
)
from bids_cpmae.imaging.view import before_the_end, into_view

RING_MM = 24.0
FRAME_MARGIN_MM = 16
KNOWN = 0.9
# where a scan's tissues are compared with the portrait's: near the mask and the skin, where that shows tissue
TONE_RING_MM, TONE_DEPTH_MM, TONE_TISSUE = 25.0, 12.0, 0.1


@dataclass(frozen=True)
class HeadFrame:
    """A scan in head space, as the model may see it.

    Attributes
    ----------
    volume : ndarray (256, 256, 256), float32
        Intensities 0 to 1, zero under the mask.
    blank : ndarray (256, 256, 256), bool
        True where the mask lies.
    to_scan, to_head : CoordinateMap
        Between head space and the scan's world, RAS+ mm.
    scale : float
        Scan units per unit of ``volume``.
    tone : Tone
        By which ``volume`` was drawn as the portrait is, but for the brain.
    beyond : ndarray (64, 64, 64), float32, or None
        How far in mm each point of ``to_scan`` lies beyond the front end of the field of view; None where that is not
        known, and all counts as in view.
    """

    volume: np.ndarray
    blank: np.ndarray
    to_scan: CoordinateMap
    to_head: CoordinateMap
    scale: float
    tone: Tone = field(default_factory=Tone)
    beyond: np.ndarray | None = None

    @property
    def head_size(self) -> float:
        """How many times as large as the average head the scan's is, by what is not under the mask."""
        return self.to_scan.stretch

    def to_model(self, volume: np.ndarray) -> np.ndarray:
        """Values of the scan (256, 256, 256), in head space, as the model may see them: float32, 0 to 1."""
        unit = volume / np.float32(self.scale)
        if not self.tone.plain:
            unit = np.where(load_template().fine(BRAIN_BIT), unit, self.tone.to_model(unit))
        return np.clip(unit, 0, 1)

    def from_model(self, head: np.ndarray) -> np.ndarray:
        """A head (256, 256, 256), float32, 0 to 1, as the scan shows it; ``scale`` is still to be multiplied."""
        return head if self.tone.plain else np.where(load_template().fine(BRAIN_BIT), head, self.tone.to_scan(head))

    def save(self, path: Path) -> Path:
        """Write everything to one ``.npz``."""
        np.savez(
            path, volume=self.volume, blank=self.blank, scale=self.scale, tone=[self.tone.scan, self.tone.model],
            to_scan=self.to_scan.points, to_scan_affine=self.to_scan.affine,
            to_head=self.to_head.points, to_head_affine=self.to_head.affine,
            **({} if self.beyond is None else {"beyond": self.beyond}),
        )  # fmt: skip
        return Path(path)

    @classmethod
    def load(cls, path: Path) -> HeadFrame:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(
                stored["volume"], stored["blank"],
                CoordinateMap(stored["to_scan_affine"], stored["to_scan"]),
                CoordinateMap(stored["to_head_affine"], stored["to_head"]), float(stored["scale"]),
                Tone(*stored["tone"]), stored["beyond"] if "beyond" in stored else None,
            )  # fmt: skip


def align_blanked(source: SourceImage, mask: np.ndarray, *, alike: bool = True, seed: int = 0) -> HeadFrame:
    """Blank the mask, then register and resample: the result is a function of the other voxels alone.

    Parameters
    ----------
    source : SourceImage
    mask : ndarray (X, Y, Z), bool
        True = to be replaced, never read.
    alike : bool
        The scan shows tissues as a T1w scan does.
    seed : int
        Of the registration.

    Returns
    -------
    HeadFrame

    Raises
    ------
    ScanError
        When no signal lies where the registered template has its brain.
    """
    template = load_template()
    blanked = np.where(mask, 0, source.data).astype(np.float32)
    scan = coarse_scan(blanked, source.affine)
    # what is blank looks like air; tissues that look alike bear that, others are led astray by it
    known = None if alike else coarse_scan((~mask).astype(np.float32), source.affine).data > KNOWN
    # a brain alone must not be laid on a whole head
    alone = keeps_brain_alone(mask)
    fixed = fixed_template("core" if alone else "faceless")
    with scratch_folder() as folder:
        found = register(
            fixed, scan, folder=Path(folder), moving_mask=known, alike=alike, steps=SYN_ITERATIONS_FACELESS, seed=seed
        )
        to_scan = found.fixed_to_moving(head_affine(int(FIELD_MM)), head_shape(int(FIELD_MM)))
        to_head = found.moving_to_fixed(*map_grid(source))
    # far off the head there is air whatever the scan shows there
    box = template.head_box(FRAME_MARGIN_MM, spacing=1)
    grid, shape = corner_of(head_affine(), box), tuple(side.stop - side.start for side in box)
    # beyond the field of view the mask goes on and the scan is zero: a frame of one voxel says so
    goes_on, affine = framed(mask.astype(np.float32), source.affine, mode="edge")
    ends, _ = framed(blanked, source.affine)
    share, volume = resample(np.stack([goes_on, ends]), affine, grid, shape, through=to_scan, outside="edge")
    # a voxel at the mask's border keeps what its known neighbours say, undiluted by the blank ones
    whole, blank = np.zeros(head_shape(), np.float32), np.zeros(head_shape(), bool)
    blank[box] = share >= 0.5
    np.divide(np.maximum(volume, 0, out=volume), np.subtract(1, share, out=share), out=whole[box], where=~blank[box])
    try:
        scale = unit_scale(whole, template)
    except ValueError as error:
        raise ScanError(f"registration to the template failed: {error}") from error
    # nor does it tell how bright the rest would be
    tone = Tone() if alone else seen_tone(whole / np.float32(scale), blank, template)
    beyond = before_the_end(to_scan, source.affine, source.shape3)
    frame = HeadFrame(whole, blank, to_scan, to_head, scale, tone, beyond)
    return replace(frame, volume=frame.to_model(whole))


def seen_tone(volume: np.ndarray, blank: np.ndarray, template: Template) -> Tone:
    """How bright a scan in head space, the brain's level at one half, shows the tissue near what is ``blank``."""
    # every second voxel of the 1 mm grid lies on the template's 2 mm one
    scan, drawn, hidden = (part[::SPACING, ::SPACING, ::SPACING] for part in (volume, load_portrait(), blank))
    near = distance_in(~hidden, SPACING)
    around = (near > SPACING) & (near < TONE_RING_MM) & (template.depth < TONE_DEPTH_MM)
    around &= (scan > 0) & (drawn > TONE_TISSUE) & ~template.mask(BRAIN_BIT)
    return Tone.seen(scan, drawn, around)


def stand_in(frame: HeadFrame) -> HeadFrame:
    """The frame of a scan that is no T1w scan, for a model that knows no other: the average head shows its anatomy.

    The frame's map lays the average head on the scan, so that it tells, T1w-like, which tissue lies where.
    """
    template = load_template()
    fine = resample(template.grid.data, template.grid.affine, head_affine(), head_shape())
    unit = np.clip(BRAIN_LEVEL * fine, 0, 1).astype(np.float32)
    return replace(frame, volume=np.where(frame.blank, np.float32(0), unit), scale=1.0, tone=Tone())


def mask_box(mask: np.ndarray, affine: np.ndarray, ring_mm: float = RING_MM) -> tuple[slice, ...]:
    """The smallest box of voxels that holds a mask and a ring of ``ring_mm`` around it."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    box = []
    for axis, size in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        pad = int(np.ceil(ring_mm / spacing[axis]))
        box.append(slice(max(0, hit[0] - pad), min(size, hit[-1] + 1 + pad)))
    return tuple(box)


def resample_to_scan(frame: HeadFrame, head: np.ndarray, source: SourceImage, mask: np.ndarray) -> np.ndarray:
    """The new head on the scan's own grid, in the scan's units.

    Voxels larger than 1 mm are averaged from several points, as a scanner would.

    Parameters
    ----------
    frame : HeadFrame
    head : ndarray (256, 256, 256), float32
        Intensities 0 to 1.
    source : SourceImage
    mask : ndarray (X, Y, Z), bool
        True = replaced.

    Returns
    -------
    ndarray (X, Y, Z), float32
        Zero further than 24 mm from the mask.
    """
    box = mask_box(mask, source.affine)
    grid, shape = corner_of(source.affine, box), tuple(s.stop - s.start for s in box)
    out = np.zeros(mask.shape, np.float32)
    head = frame.from_model(into_view(head, frame.beyond))
    out[box] = frame.scale * average_onto(head, head_affine(), grid, shape, through=frame.to_head)
    return out


def average_onto(
    volume: np.ndarray, affine: np.ndarray, grid: np.ndarray, shape: tuple[int, ...], *, through: CoordinateMap
) -> np.ndarray:
    """A volume of 1 mm seen on another grid; voxels larger than 1 mm are averaged from several points.

    Parameters
    ----------
    volume, affine
        What is seen, (X, Y, Z), and voxel index to RAS+ mm (4, 4).
    grid, shape
        Where: affine (4, 4) and shape.
    through : CoordinateMap
        From the grid's world to the volume's.

    Returns
    -------
    ndarray of ``shape``, float32
    """
    counts = np.clip(np.rint(np.linalg.norm(grid[:3, :3], axis=0)).astype(int), 1, 8)
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    total = np.zeros(shape, np.float32)
    # beyond the volume there is nothing: one frame of that, and not one for every offset
    volume, affine = framed(volume, affine)
    for shift in np.array(np.meshgrid(*offsets, indexing="ij")).reshape(3, -1).T:
        moved = grid.copy()
        moved[:3, 3] = grid[:3, :3] @ shift + grid[:3, 3]
        total += resample(volume, affine, moved, shape, through=through, outside="edge")
    return total / np.float32(counts.prod())
