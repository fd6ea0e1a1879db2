"""How the heads of a bank differ in shape from the portrait; identities are drawn of that.

Every head is already in head space as the app puts it there, without a look at its face. What deformable registration
to the portrait adds, face included, is that person's shape; principal components of these shapes and their mirror
images are the space of identities (`bids_cpmae.model.identity`). The first portrait is the template; a better one is
made of all heads brought into its shape (`bids_cpmae.training.portrait`), and their shapes are found anew.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation

from bids_cpmae.antspy import load_ants
from bids_cpmae.imaging.headspace import grid_points, head_affine, head_shape
from bids_cpmae.imaging.registration import Grid, Registration, scratch_folder
from bids_cpmae.imaging.resample import downsample
from bids_cpmae.imaging.template import HEAD_BIT, SPACING, load_template
from bids_cpmae.model.identity import FIELD_MM, Identity
from bids_cpmae.model.regions import cells
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.mending import finished

LOG = logging.getLogger(__name__)
PULL_MM = 4
MARGIN_MM = 20
COMPONENTS = 48
FACE_WEIGHT = 4.0
NEAR_CELLS = 2


def volume_of(path: Path) -> np.ndarray:
    """A head of the bank, float32, the brain's level at one half; of a label map the contrast drawn on it."""
    path = path if path.stem.endswith("_T1w") else Bank.drawn(path)
    return np.load(path).astype(np.float32) / 255


def read_shape(head: Path) -> np.ndarray:
    """The shape of a head of the bank, (3, 32, 32, 32) float32, mm."""
    return np.moveaxis(np.load(Bank.shape(head)).astype(np.float32), -1, 0)


def mirrored(field: np.ndarray) -> np.ndarray:
    """Displacements (3, X, Y, Z) of the mirror image."""
    return field[:, ::-1] * np.array([-1, 1, 1], field.dtype)[:, None, None, None]


@dataclass(frozen=True)
class Fineness:
    """How finely shapes are found: voxels of ``spacing`` mm, and SyN's iterations from coarse to fine."""

    spacing: int = 2
    iterations: tuple[int, ...] = (40, 30, 10)


def head_box(spacing: int) -> tuple[slice, ...]:
    """Box of the template's head and a margin on the head-space grid at ``spacing`` mm."""
    template = load_template()
    wide = binary_dilation(template.mask(HEAD_BIT), iterations=MARGIN_MM // SPACING)
    box = []
    for axis in range(3):
        hit = np.flatnonzero(wide.any(axis=tuple(a for a in range(3) if a != axis))) * SPACING // spacing
        box.append(slice(hit[0], hit[-1] + 1))
    return tuple(box)


def shape_fields(volume: np.ndarray, portrait: Grid, fineness: Fineness) -> tuple[np.ndarray, np.ndarray]:
    """Where portrait and head have the same tissue.

    Parameters
    ----------
    volume : ndarray (256, 256, 256), float32
        Head space, the brain's level at one half.
    portrait : Grid
        Head space, the same scale.
    fineness : Fineness

    Returns
    -------
    shape : ndarray (32, 32, 32, 3)
        Displacements in mm, RAS+, every 8 mm: from places of the head to those of the portrait.
    pull : ndarray (64, 64, 64, 3)
        The same every 4 mm, from places of the portrait to those of the head.
    """
    ants = load_ants()

    spacing = fineness.spacing
    box, affine = head_box(spacing), head_affine(spacing)
    shape = head_shape(spacing)
    corner = affine.copy()
    corner[:3, 3] += [s.start * spacing for s in box]
    fixed, moving = (
        Grid(downsample(data, grid, affine, shape)[box], corner)
        for data, grid in ((portrait.data, portrait.affine), (volume, head_affine()))
    )
    ants.config.set_ants_deterministic(on=False, seed_value=1)
    with scratch_folder() as folder:
        result = ants.registration(
            fixed.to_ants(), moving.to_ants(), "SyNOnly", initial_transform="identity",
            outprefix=str(Path(folder) / "shape_"), reg_iterations=fineness.iterations, syn_metric="mattes",
            syn_sampling=32, flow_sigma=3, total_sigma=0,
        )  # fmt: skip
        found = Registration(list(result["fwdtransforms"]), list(result["invtransforms"]), 0.0)
        fields = []
        for spacing, along in ((FIELD_MM, found.moving_to_fixed), (PULL_MM, found.fixed_to_moving)):
            grid = head_affine(spacing), head_shape(spacing)
            fields.append(along(*grid).points - grid_points(*grid).astype(np.float32))
    return fields[0], fields[1]


def build(bank: Bank, portrait: Grid, fineness: Fineness, *, workers: int) -> None:
    """Find the shape of each head of a bank that has none yet, float16."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    missing = [head for head in bank.heads if not bank.shape(head).exists()]
    for folder in {bank.shape(head).parent for head in missing}:
        folder.mkdir(exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_start) as pool:
        work = partial(_write_shape, portrait=portrait, fineness=fineness)
        for number, _ in enumerate(pool.imap_unordered(work, missing), 1):
            LOG.info("%d of %d shapes", number, len(missing))


def _write_shape(head: Path, portrait: Grid, fineness: Fineness) -> None:
    shape, pull = shape_fields(volume_of(head), portrait, fineness)
    for target, field in ((Bank.pull(head), pull), (Bank.shape(head), shape)):
        unfinished = target.with_suffix(".partial")
        with open(unfinished, "wb") as file:
            np.save(file, field.astype(np.float16))
        os.replace(unfinished, target)


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
    identity.portrait = finished(bank.portrait())
    return identity
