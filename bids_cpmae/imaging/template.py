"""The shipped template: an average head in head space with brain, face and ears masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from bids_cpmae.data import PORTRAIT
from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.headspace import corner_of, head_affine, head_shape
from bids_cpmae.imaging.registration import Fixed, Grid
from bids_cpmae.imaging.resample import resample

SPACING = 2
BRAIN_BIT, FACE_BIT, EARS_BIT, HEAD_BIT = 1, 2, 4, 8
ALIGNMENT_MARGIN_MM = 20
REGISTRATION_MARGIN_MM = 24
CORE_MARGIN_MM = 10
EARS_RIM_MM = 4
FAINT = 0.03


@dataclass(frozen=True)
class Template:
    """Average head and masks on the 2 mm head-space grid (128^3).

    Attributes
    ----------
    grid : Grid
        float32, the brain's 95th percentile at 1.
    masks : ndarray (128, 128, 128), uint8
        Bit mask: 1 brain, 2 face, 4 ears, 8 head.
    """

    grid: Grid
    masks: np.ndarray
    _fine: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def mask(self, bit: int) -> np.ndarray:
        """One mask, True inside."""
        return (self.masks & bit) > 0

    @cached_property
    def depth(self) -> np.ndarray:
        """How deep in mm each place lies in the head, (128, 128, 128), float32."""
        return distance_in(self.mask(HEAD_BIT), SPACING)

    def replaced(self, regions: tuple[str, ...] = ("face", "ears")) -> np.ndarray:
        """Face and/or ears, True inside, without the air beyond them."""
        parts = {"face": self.mask(FACE_BIT), "ears": self._ears_and_rim}
        return np.logical_or.reduce([parts[name] for name in regions])

    @cached_property
    def _ears_and_rim(self) -> np.ndarray:
        """Ears as drawn on the template, and what lies around them seen from the side, where others have their rims."""
        from scipy.ndimage import binary_dilation, generate_binary_structure

        beside = generate_binary_structure(3, 1)
        beside[[0, 2]] = False
        return binary_dilation(self.mask(EARS_BIT), beside, iterations=EARS_RIM_MM // SPACING)

    def replaced_with_air(self, regions: tuple[str, ...] = ("face", "ears")) -> np.ndarray:
        """`replaced`, and all that lies in front of the face or beside the ears, to the edge of head space."""
        out = np.zeros(self.masks.shape, bool)
        if "face" in regions:
            out |= np.maximum.accumulate(self.mask(FACE_BIT), axis=1)
        if "ears" in regions:
            ears, middle = self._ears_and_rim, self.masks.shape[0] // 2
            out[middle:] |= np.maximum.accumulate(ears[middle:], axis=0)
            out[:middle] |= np.maximum.accumulate(ears[:middle][::-1], axis=0)[::-1]
        return out

    def alignment_region(self) -> np.ndarray:
        """Where the metric may look when the face is blanked: the head and a margin of air, without face and ears."""
        from scipy.ndimage import binary_dilation

        near = binary_dilation(self.mask(HEAD_BIT), iterations=ALIGNMENT_MARGIN_MM // SPACING)
        return near & ~self.replaced()

    def core_region(self) -> np.ndarray:
        """The brain and the skull around it, which tell a registration that went wrong from one that did not."""
        from scipy.ndimage import binary_dilation

        return binary_dilation(self.mask(BRAIN_BIT), iterations=CORE_MARGIN_MM // SPACING)

    def head_box(self, margin_mm: float, spacing: int = SPACING) -> tuple[slice, ...]:
        """The box around the head, grown by a margin, in voxels of the head-space grid at 1 or 2 mm."""
        return tuple(
            slice(max(0, (SPACING * hit.min() - int(margin_mm)) // 8 * 8 // spacing),
                  min(n // spacing, -(-(SPACING * (hit.max() + 1) + int(margin_mm)) // 8) * 8 // spacing))
            for hit, n in zip(np.nonzero(self.mask(HEAD_BIT)), head_shape())
        )  # fmt: skip

    def fine(self, bit: int) -> np.ndarray:
        """One mask on the 1 mm head-space grid (256^3), True inside; read only."""
        if bit not in self._fine:
            self._fine[bit] = self._finer(self.mask(bit))
        return self._fine[bit]

    def _finer(self, mask: np.ndarray) -> np.ndarray:
        out = np.zeros(head_shape(), bool)
        box = tuple(
            slice(max(0, SPACING * (hit.min() - 1)), min(n, SPACING * (hit.max() + 2)))
            for hit, n in zip(np.nonzero(mask), out.shape)
        )
        out[box] = resample(mask, self.grid.affine, corner_of(head_affine(), box), out[box].shape) >= 0.5
        out.flags.writeable = False
        return out


@lru_cache(maxsize=1)
def load_template() -> Template:
    """The template that ships with the package."""
    with files("bids_cpmae.data").joinpath("template.npz").open("rb") as file:
        stored = np.load(file)
        image = stored["head"].astype(np.float32) * float(stored["scale"])
        return Template(Grid(image, head_affine(SPACING)), stored["masks"])


@lru_cache(maxsize=3)
def fixed_template(speaks: str = "all") -> Fixed:
    """The template to register scans to; ``all`` of it speaks, the ``faceless`` head alone, or the ``core``."""
    template = load_template()
    core, box = template.core_region(), template.head_box(REGISTRATION_MARGIN_MM)
    mask = template.alignment_region() if speaks == "faceless" else {"all": None, "core": core}[speaks]
    return Fixed.of(template.grid, mask=mask, box=box, core=core)


def save_portrait(portrait: np.ndarray, path: Path) -> Path:
    """Write a portrait (256, 256, 256), 0 to 1, head alone, as `load_portrait` reads it."""
    values = np.rint(255 * np.where(portrait > FAINT, portrait, 0)).astype(np.uint8)
    box = tuple(slice(hit.min(), hit.max() + 1) for hit in np.nonzero(values))
    np.savez_compressed(path, head=values[box], corner=[s.start for s in box])
    return path


@lru_cache(maxsize=1)
def load_portrait() -> np.ndarray:
    """The portrait that ships with the package: a sharp average head in head space, which new faces are bent from.

    Returns
    -------
    ndarray (256, 256, 256), float32
        1 mm, the brain's level at one half.
    """
    out = np.zeros(head_shape(), np.float32)
    with files("bids_cpmae.data").joinpath(PORTRAIT).open("rb") as file:
        stored = np.load(file)
        box = tuple(slice(start, start + size) for start, size in zip(stored["corner"], stored["head"].shape))
        out[box] = stored["head"].astype(np.float32) / 255
    return out
