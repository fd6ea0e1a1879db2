"""Which codes and groups of codes a mask touches, and which of the others are worth showing to the transformer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from bids_cpmae.model.mae import CODES_PER_GROUP, GROUP
from bids_cpmae.model.vqvae import STRIDE

CONTEXT_GROUPS = 3


def cells(volume: np.ndarray, size: int, *, how: str = "any") -> np.ndarray:
    """Reduce a boolean volume to cubes of ``size`` voxels: ``any`` or ``all`` of a cube's voxels True."""
    x, y, z = (n // size for n in volume.shape)
    cubes = volume.reshape(x, size, y, size, z, size)
    return cubes.any((1, 3, 5)) if how == "any" else cubes.all((1, 3, 5))


def group_cells(codes: np.ndarray) -> np.ndarray:
    """Values of codes (D, H, W) as groups (D/2 * H/2 * W/2, 8), in the order of `bids_cpmae.model.mae.group`."""
    d, h, w = codes.shape
    codes = codes.reshape(d // 2, 2, h // 2, 2, w // 2, 2).transpose(0, 2, 4, 1, 3, 5)
    return codes.reshape(-1, CODES_PER_GROUP)


@dataclass(frozen=True)
class Anatomy:
    """Where head space has brain and head, True inside, on the 1 mm grid (256^3)."""

    brain: np.ndarray
    head: np.ndarray


@dataclass(frozen=True)
class Places:
    """Groups that take part in one filling, as indices into the flattened cube of groups.

    Attributes
    ----------
    target : ndarray (T,)
        Groups with a masked code.
    target_known : ndarray (T, 8), bool
        Codes of these that are known all the same.
    skull, brain : ndarray (S,), (B,)
        Groups without a masked code, as context.
    reach : ndarray (32, 32, 32), bool
        Codes near enough to the head to have a place at all.
    """

    target: np.ndarray
    target_known: np.ndarray
    skull: np.ndarray
    brain: np.ndarray
    reach: np.ndarray

    @classmethod
    def of(cls, masked: np.ndarray, anatomy: Anatomy) -> Places:
        """From masked codes (32, 32, 32), True = to be filled.

        Codes of plain air far off the head are not worth a token: they count as neither target nor context.
        """
        head = binary_dilation(cells(anatomy.head, STRIDE * GROUP))
        hidden = group_cells(masked)
        target = hidden.any(1).reshape(head.shape) & head
        near = binary_dilation(target, np.ones((3, 3, 3), bool), iterations=CONTEXT_GROUPS)
        brain = cells(anatomy.brain, STRIDE * GROUP)
        deep = cells(anatomy.brain, STRIDE * GROUP, how="all")
        skull = head & near & ~hidden.any(1).reshape(head.shape) & ~deep
        at = np.flatnonzero(target)
        reach = head.repeat(GROUP, 0).repeat(GROUP, 1).repeat(GROUP, 2)
        return cls(at, ~hidden[at], np.flatnonzero(skull), np.flatnonzero(brain), reach)
