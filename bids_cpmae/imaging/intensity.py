"""What a scan's values mean: its typical tissue, and the model's scale, the brain's 95th percentile at one half."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bids_cpmae.imaging.template import Template

BRAIN_LEVEL = 0.5


def scale_to_unit(volume: np.ndarray, template: Template) -> tuple[np.ndarray, float]:
    """Scale a head-space volume by its brain.

    Parameters
    ----------
    volume : ndarray (256, 256, 256)
        In head space, so that the template's brain lies on the scan's. Voxels of 0 do not count.
    template : Template

    Returns
    -------
    unit : ndarray (256, 256, 256), float32
        Clipped to 0 to 1.
    scale : float
        What the volume was divided by.

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
    scale = float(np.percentile(values, 95)) / BRAIN_LEVEL
    return np.clip(volume / scale, 0, 1).astype(np.float32), scale


def tissue_level(values: np.ndarray) -> float:
    """Typical value of tissue: the median of what lies above a tenth of the 99th percentile."""
    bright = values[values > 0.1 * np.percentile(values, 99)] if values.size else values
    return float(np.median(bright)) if bright.size else 0.0
