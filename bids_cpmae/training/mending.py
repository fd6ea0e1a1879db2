"""What averaging spoils in a portrait, mended: lips that meet, ears that stand out."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, grey_closing, map_coordinates

from bids_cpmae.imaging.fields import spread
from bids_cpmae.imaging.template import EARS_BIT, load_template
from bids_cpmae.model.identity import portrait_voxels

# voxels of the lips in front of the teeth, how high a gap between them is closed, and what share of it
LIPS, LIP_GAP, LIP_SHARE = (slice(96, 160), slice(181, 202), slice(54, 72)), 7, 0.8
# ears: how many times as far they stand out, how much further back each mm of that from the third of these on lies, and
# how many times as tall they are; heads lie in a scanner with their ears pressed flat
EAR_OUT, EAR_BACK, EAR_BACK_FROM, EAR_TALL = 1.3, 0.4, 3.0, 1.15
# where tissue starts; what of the head beside an ear tells where it would have its skin without one, as in `spread`
EAR_SKIN, EAR_RIM, EAR_SCALES = 0.12, 3, {6.0: 1.0, 14.0: 0.02}
# voxels around an ear that a standing one may reach, and those from the head outwards over which it gets tall
EAR_REACH, EAR_ROOT = 25, 4.0


def with_closed_lips(portrait: np.ndarray) -> np.ndarray:
    """The portrait (256, 256, 256) with lips that touch: the line between them is a groove, no slit that shows teeth.

    Lips meet at another height in every head, so that the median of all is dark between them.
    """
    x, y, z = LIPS
    around = portrait[x, y, z.start - LIP_GAP : z.stop + LIP_GAP]
    closed = grey_closing(around, size=(1, 1, LIP_GAP))[:, :, LIP_GAP:-LIP_GAP]
    out = portrait.copy()
    out[LIPS] += LIP_SHARE * (closed - out[LIPS])
    return out


def with_standing_ears(portrait: np.ndarray) -> np.ndarray:
    """The portrait (256, 256, 256), alike left and right, with ears that stand out from the head again.

    Ears are thin and lie elsewhere in every head, so that the median of all keeps little more than their mould: it is
    pulled outwards, backwards and taller, the more so the further out it lies.
    """
    middle = len(portrait) // 2
    half, ears = portrait[middle:].copy(), load_template().fine(EARS_BIT)[middle:].any(0)
    near = binary_dilation(ears, iterations=EAR_RIM)
    tissue = half > EAR_SKIN
    skin = len(half) - 1 - tissue[::-1].argmax(0)
    beside = (tissue.any(0) & ~near).astype(np.float32)
    amount, weight = spread(skin * beside, beside, np.ones(2), EAR_SCALES)
    y, z = (slice(max(0, hit.min() - EAR_REACH), hit.max() + EAR_REACH + 1) for hit in np.nonzero(near))
    head = (amount / np.maximum(weight, 1e-6))[y, z]
    at = np.meshgrid(np.arange(len(half)), *(np.arange(side.start, side.stop) for side in (y, z)), indexing="ij")
    out = np.maximum(at[0] - head, 0)
    back = EAR_BACK * np.maximum(out - EAR_BACK_FROM, 0)
    share = np.clip(2 * gaussian_filter(near.astype(np.float32), EAR_RIM) - 0.6, 0, 1)
    share = map_coordinates(share, [at[1] + back, at[2]], order=1)
    tall = 1 + (EAR_TALL - 1) * share * np.clip(out / EAR_ROOT, 0, 1)
    centre = np.argwhere(ears)[:, 1].mean()
    places = [
        np.where(out > 0, head + out / (1 + (EAR_OUT - 1) * share), at[0]),
        at[1] + back * share, centre + (at[2] - centre) / tall,
    ]  # fmt: skip
    half[:, y, z] = np.where(share > 0, map_coordinates(half, places, order=1), half[:, y, z])
    return np.concatenate([half[::-1], half])


def finished(portrait: np.ndarray) -> np.ndarray:
    """What new faces are bent from: a portrait (256, 256, 256) mended where averaging has spoiled it, without brain."""
    return np.where(portrait_voxels(), with_standing_ears(with_closed_lips(portrait)), np.float32(0))
