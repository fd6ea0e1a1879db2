"""What a scan's values mean: its typical tissue, and the model's scale, the brain's 95th percentile at one half."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bids_cpmae.imaging.template import Template

BRAIN_LEVEL = 0.5
# what noise without signal hardly reaches, in units of its darkest twentieth; but no more than this of the brightest
NOISE_TOP, MOST_NOISE = 11.0, 0.3
# how bright tissue around a brain is, from muscle to fat, and by which factors (their logarithms) it is not as the
# portrait's: of heads of six scanners, those of two differed by up to 0.13, the others by 0.5 to 1.2
TONES, TONE_DIFFERS, LEAST_TONES = (50, 75, 90, 95), (0.2, 0.35), 1000


def unit_scale(volume: np.ndarray, template: Template) -> float:
    """What brings the brain of a head-space volume to the model's level, if the volume is divided by it.

    Parameters
    ----------
    volume : ndarray (256, 256, 256)
        In head space, so that the template's brain lies on the scan's. Voxels of 0 do not count.
    template : Template

    Raises
    ------
    ValueError
        Nothing where the brain should be.
    """
    centre = template.mask(1)
    # every second voxel of the 1 mm grid stands in for the 2 mm mask: plenty for a percentile
    values = volume[::2, ::2, ::2][centre]
    values = values[values > 0]
    if values.size < 1000:
        raise ValueError("there is no signal where the brain should be")
    return float(np.percentile(values, 95)) / BRAIN_LEVEL


def tissue_level(values: np.ndarray) -> float:
    """Typical value of tissue: the median of what lies above a tenth of the 99th percentile, and above the noise."""
    if not values.size:
        return 0.0
    darkest, brightest = np.percentile(values, [5, 99])
    bright = values[values > max(0.1 * brightest, min(NOISE_TOP * darkest, MOST_NOISE * brightest))]
    return float(np.median(bright)) if bright.size else 0.0


@dataclass(frozen=True)
class Tone:
    """How bright a scan shows what lies around a brain, beside how bright the portrait does.

    Sequences differ most in fat: some show it darker than white matter, some three times as bright.

    Attributes
    ----------
    scan, model : ndarray (N,)
        Rising, 0 first: what shows the same tissue in the scan and in the portrait, the brain's level at one half.
        Between them, straight lines.
    """

    scan: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.0]))
    model: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.0]))

    @classmethod
    def seen(cls, volume: np.ndarray, portrait: np.ndarray, where: np.ndarray) -> Tone:
        """From the values of a scan and of the portrait in the same region.

        Their quantiles are compared, for the two need not lie on each other as exactly as values do. A scan that
        shows tissue much as the portrait does is left as it is.

        Parameters
        ----------
        volume, portrait : ndarray (X, Y, Z)
            The brain's level at one half.
        where : ndarray (X, Y, Z), bool
            Tissue around the brain that both show.
        """
        if where.sum() < LEAST_TONES:
            return cls()
        scan, model = (np.percentile(part[where], TONES) for part in (volume, portrait))
        if not (np.diff(scan, prepend=0) > 0).all():
            return cls()
        differs = np.log(model / scan)
        low, high = TONE_DIFFERS
        amount = np.clip((np.abs(differs).max() - low) / (high - low), 0, 1)
        if amount == 0:
            return cls()
        model = scan * np.exp(amount * differs)
        # brighter than all these, as between the last two
        steep = (scan[-1] - scan[-2]) / (model[-1] - model[-2])
        return cls(np.array([0, *scan, scan[-1] + steep * (1 - model[-1])]), np.array([0, *model, 1]))

    @property
    def plain(self) -> bool:
        """Whether it changes nothing."""
        return np.array_equal(self.scan, self.model)

    def to_model(self, values: np.ndarray) -> np.ndarray:
        """Values of the scan as the portrait would show them, 0 to 1, float32."""
        return np.interp(values, self.scan, self.model).astype(np.float32)

    def to_scan(self, values: np.ndarray) -> np.ndarray:
        """Values from 0 to 1 as the scan would show them, float32."""
        return np.interp(values, self.model, self.scan).astype(np.float32)
