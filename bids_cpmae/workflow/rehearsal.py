"""What a worker does while it would be idle: a nose drawn on the average head, so that the first face comes faster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NOSE_MM = 32


def rehearse(device: str, weights: Path | None) -> None:
    """Work out, load and set up what a process needs once, from the second registration to the new head.

    In one thread, for another process needs the other cores.

    Parameters
    ----------
    device, weights
        As in `bids_cpmae.api.reface`.
    """
    from bids_cpmae.api import resolve_device
    from bids_cpmae.imaging.align import seen_tone
    from bids_cpmae.imaging.template import FACE_BIT, SPACING, fixed_template, load_portrait, load_template
    from bids_cpmae.imaging.threads import threads
    from bids_cpmae.model.weights import load_cpmae
    from bids_cpmae.processes import use_threads

    count = threads()
    use_threads(1)
    try:
        template, head = load_template(), load_portrait()
        fixed_template("faceless")
        middle = (SPACING * np.argwhere(template.mask(FACE_BIT)).mean(0)).astype(int)
        blank = np.zeros(head.shape, bool)
        blank[tuple(slice(at - NOSE_MM // 2, at + NOSE_MM // 2) for at in middle)] = True
        volume = np.where(blank, np.float32(0), head)
        seen_tone(volume, blank, template)
        load_cpmae(weights, resolve_device(device)).remodel(volume, blank)
    finally:
        use_threads(count)
