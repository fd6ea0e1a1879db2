"""Who a new face is: the template bent by a random mix of the shapes that heads differ by.

All chance of a face sits in one vector of scores, so that it hangs together; the vector is drawn, never read off the
scan that is being de-identified. What the masked autoencoder gets of it is a sketch: the template in that shape.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import zoom
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bids_cpmae.imaging.facemask import signed_distance
from bids_cpmae.imaging.headspace import CoordinateMap, grid_points, head_affine, head_shape
from bids_cpmae.imaging.intensity import BRAIN_LEVEL
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.template import BRAIN_BIT, SPACING, load_template

FIELD_MM = 8
RAMP_MM = {"face": 16.0, "head": 10.0}


class Identity(nn.Module):
    """Mean and principal components of shapes, as displacements in mm on the 8 mm head-space grid (32^3).

    A displacement says where, from a place of the new head, the template's tissue for it is to be found. Only those in
    and near the head are held, ``N`` of them: ``where`` (32, 32, 32) is True there, ``mean`` has shape (3, N) and
    ``components`` (components, 3, N).
    """

    def __init__(self, components: int, where: Tensor | None = None) -> None:
        super().__init__()
        where = torch.ones(head_shape(FIELD_MM), dtype=torch.bool) if where is None else where
        self.register_buffer("where", where)
        self.register_buffer("mean", torch.zeros(3, int(where.sum())))
        self.register_buffer("components", torch.zeros(components, 3, int(where.sum())))

    @property
    def length(self) -> int:
        """Scores that make an identity."""
        return len(self.components)

    def displacement(self, scores: Tensor) -> Tensor:
        """Displacements (3, 32, 32, 32) of scores (components,) in standard deviations; 0 far off the head."""
        out = torch.zeros(3, *self.where.shape, device=self.mean.device)
        out[:, self.where] = self.mean + torch.tensordot(scores, self.components, 1)
        return out

    def sketch(self, scores: Tensor, share: np.ndarray) -> np.ndarray:
        """The template in the shape of an identity.

        Parameters
        ----------
        scores : Tensor (components,)
            In standard deviations.
        share : ndarray (128, 128, 128), float32
            How much of the displacement holds at each place of the 2 mm head-space grid, 0 to 1.

        Returns
        -------
        ndarray (256, 256, 256), float32
            Head space, the brain's level at one half.
        """
        return bend_template(self.displacement(scores).cpu().numpy(), share)


def bend_template(displacement: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The template pulled through displacements (3, 32, 32, 32) in mm; see `Identity.sketch`."""
    template = load_template()
    affine, shape = head_affine(SPACING), head_shape(SPACING)
    smooth = np.stack([zoom(axis, 2, order=3, grid_mode=True, mode="nearest") for axis in displacement])
    shift = _enlarged(smooth, shape) * share
    points = grid_points(affine, shape) + np.moveaxis(shift, 0, -1)
    bent = resample(template.grid.data, template.grid.affine, affine, shape,
                    through=CoordinateMap(affine, points.astype(np.float32)))  # fmt: skip
    return np.clip(_enlarged(bent[None], head_shape())[0] * BRAIN_LEVEL, 0, 1)


def _enlarged(channels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Channels (C, X, Y, Z) on a finer grid of the same box, trilinear."""
    tensor = torch.from_numpy(np.ascontiguousarray(channels, np.float32))[None]
    return interpolate(tensor, size=shape, mode="trilinear", align_corners=False)[0].numpy()


def share_of(distance: np.ndarray, ramp_mm: float) -> np.ndarray:
    """0 where ``distance`` to a region's border (negative inside) is not below 0, 1 from ``ramp_mm`` inside on."""
    return np.clip(-distance / ramp_mm, 0, 1).astype(np.float32)


@lru_cache(maxsize=2)
def shares(mode: str) -> np.ndarray:
    """Where a sketch may depart from the template, in ``face`` or in ``head`` mode: see `Identity.sketch`."""
    template = load_template()
    region = template.replaced_with_air() if mode == "face" else ~template.mask(BRAIN_BIT)
    return share_of(signed_distance(region, SPACING), RAMP_MM[mode])
