"""How the heads of a bank differ in shape from the template; identities are drawn of that.

Every head is already in head space as the app puts it there, without a look at its face. What deformable registration
to the template adds, face included, is that person's shape; principal components of these shapes and their mirror
images are the space of identities (`bids_cpmae.model.identity`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation

from bids_cpmae.imaging.headspace import grid_points, head_affine, head_shape
from bids_cpmae.imaging.intensity import BRAIN_LEVEL
from bids_cpmae.imaging.registration import Grid, Registration, scratch_folder
from bids_cpmae.imaging.resample import downsample
from bids_cpmae.imaging.template import HEAD_BIT, SPACING, load_template
from bids_cpmae.model.identity import FIELD_MM, Identity
from bids_cpmae.model.regions import cells
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.contrasts import WHITE, draw_contrast

LOG = logging.getLogger(__name__)
REGISTRATION_MM = 3
ITERATIONS = (40, 12)
MARGIN_MM = 20
COMPONENTS = 48
FACE_WEIGHT = 4.0
NEAR_CELLS = 2


def volume_of(path: Path, rng: np.random.Generator | None = None) -> np.ndarray:
    """A head of the bank, float32, the brain's level at one half; label maps are drawn with a contrast of ``rng``."""
    stored = np.load(path)
    if stored.dtype == np.uint8:
        return stored.astype(np.float32) / 255
    rng = rng or np.random.default_rng(0)
    return np.clip(draw_contrast(stored, rng) * BRAIN_LEVEL / WHITE, 0, 1).astype(np.float32)


def read_shape(head: Path) -> np.ndarray:
    """The shape of a head of the bank, (3, 32, 32, 32) float32, mm."""
    return np.moveaxis(np.load(Bank.shape(head)).astype(np.float32), -1, 0)


def mirrored(field: np.ndarray) -> np.ndarray:
    """Displacements (3, X, Y, Z) of the mirror image."""
    return field[:, ::-1] * np.array([-1, 1, 1], field.dtype)[:, None, None, None]


def head_box() -> tuple[slice, ...]:
    """Box of the template's head and a margin on the grid of the registration."""
    template = load_template()
    wide = binary_dilation(template.mask(HEAD_BIT), iterations=MARGIN_MM // 2)
    box = []
    for axis in range(3):
        hit = np.flatnonzero(wide.any(axis=tuple(a for a in range(3) if a != axis))) * 2 // REGISTRATION_MM
        box.append(slice(hit[0], hit[-1] + 1))
    return tuple(box)


def shape_field(volume: np.ndarray) -> np.ndarray:
    """Where the template has what a head has at each place: displacements (32, 32, 32, 3) in mm, RAS+, every 8 mm.

    Parameters
    ----------
    volume : ndarray (256, 256, 256), float32
        Head space, the brain's level at one half.
    """
    import ants

    template, box = load_template(), head_box()
    affine = head_affine(REGISTRATION_MM)
    shape = (256 // REGISTRATION_MM,) * 3
    corner = affine.copy()
    corner[:3, 3] += [s.start * REGISTRATION_MM for s in box]
    fixed, moving = (
        Grid(downsample(data, grid, affine, shape)[box], corner)
        for data, grid in ((template.grid.data * BRAIN_LEVEL, template.grid.affine), (volume, head_affine()))
    )
    ants.config.set_ants_deterministic(on=False, seed_value=1)
    with scratch_folder() as folder:
        result = ants.registration(
            fixed.to_ants(), moving.to_ants(), "SyNOnly", initial_transform="identity",
            outprefix=str(Path(folder) / "shape_"), reg_iterations=ITERATIONS, syn_metric="mattes", syn_sampling=32,
            flow_sigma=3, total_sigma=0,
        )  # fmt: skip
        found = Registration(list(result["fwdtransforms"]), list(result["invtransforms"]), 0.0)
        places = found.moving_to_fixed(head_affine(FIELD_MM), head_shape(FIELD_MM)).points
    return places - grid_points(head_affine(FIELD_MM), head_shape(FIELD_MM)).astype(np.float32)


def build(bank: Bank, *, workers: int) -> None:
    """Find the shape of each head of a bank that has none yet, float16."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    missing = [head for head in bank.heads if not bank.shape(head).exists()]
    for folder in {bank.shape(head).parent for head in missing}:
        folder.mkdir(exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_start) as pool:
        for number, _ in enumerate(pool.imap_unordered(_write_shape, missing), 1):
            LOG.info("%d of %d shapes", number, len(missing))


def _write_shape(head: Path) -> None:
    target = Bank.shape(head)
    partial = target.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.save(file, shape_field(volume_of(head)).astype(np.float16))
    os.replace(partial, target)


def _start() -> None:
    torch.set_num_threads(1)


def fit_identity(bank: Bank, *, components: int = COMPONENTS) -> Identity:
    """Principal components of the shapes of a bank's heads and their mirror images.

    The head's surface and the face speak for themselves, air far off does not.
    """
    fields = np.stack([read_shape(head) for head in bank.heads])
    fields = np.concatenate([fields, np.stack([mirrored(field) for field in fields])])
    template = load_template()
    face, head = (cells(mask, FIELD_MM // SPACING) for mask in (template.replaced(), template.mask(HEAD_BIT)))
    weight = np.where(face, FACE_WEIGHT, 1.0) * head
    mean = fields.mean(0)
    flat = (fields - mean).reshape(len(fields), -1)
    weighted = flat * np.sqrt(np.broadcast_to(weight, mean.shape)).ravel()
    values, vectors = np.linalg.eigh(weighted @ weighted.T)
    scores = np.sqrt(len(fields)) * vectors[:, ::-1][:, :components]
    kept = np.clip(values[::-1], 0, None)
    LOG.info("%d components hold %.1f %% of the variance", components, 100 * kept[:components].sum() / kept.sum())
    near = binary_dilation(head, iterations=NEAR_CELLS)
    identity = Identity(components, torch.from_numpy(near))
    identity.mean.copy_(torch.from_numpy(mean[:, near]))
    modes = (scores.T @ flat / len(fields)).reshape(components, *mean.shape)
    identity.components.copy_(torch.from_numpy(modes[:, :, near]))
    return identity
