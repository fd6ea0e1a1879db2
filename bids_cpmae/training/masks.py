"""Masks of the template: brain, face and ears, drawn through label maps registered to it."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_cpmae.imaging.headspace import apply_affine, grid_points, head_affine, head_shape
from bids_cpmae.imaging.registration import Fixed, Grid, register, scratch_folder
from bids_cpmae.imaging.template import BRAIN_BIT, EARS_BIT, FACE_BIT, HEAD_BIT
from bids_cpmae.training.contrasts import BRAIN_LABELS, draw_contrast
from bids_cpmae.training.heads import FULL_FACE_MAPS, Head, label_maps

LOG = logging.getLogger(__name__)
SPACING = 2
DISTORTED = ("14", "16")
FACE_DEPTH_MM = 30.0
FACE_TOP = 4.0
FACE_BACK = ((-140.0, 8.0), (-75.0, 12.0), (-40.0, 34.0), (5.0, 44.0))
FACE_AIR_MM = 16.0
NECK_Z = -136.0
EAR_BALL_MM = 14
EAR_Y, EAR_Z = -22.0, -38.0
EAR_MARGIN_MM = 6.0


def labels_on_template(task: tuple[Head, Path]) -> np.ndarray:
    """One label map carried to the template grid, nearest neighbour, int16."""
    head, template = task
    image = nib.load(template)
    fixed = Grid(image.get_fdata(dtype=np.float32), image.affine)
    scan = head.read()
    labels = scan.data.astype(np.int16)
    thin = scan.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    moving = Grid(draw_contrast(labels[::2, ::2, ::2], np.random.default_rng(0)), thin)
    with scratch_folder() as folder:
        found = register(Fixed.of(fixed), moving, folder=Path(folder))
        field = found.fixed_to_moving(head_affine(4), head_shape(4))
    LOG.info("%s to template: correlation %.3f", head.name, found.similarity)
    world = field(grid_points(head_affine(SPACING), head_shape(SPACING)))
    index = np.rint(apply_affine(np.linalg.inv(scan.affine), world)).astype(int)
    inside = ((index >= 0) & (index < labels.shape)).all(-1)
    index[~inside] = 0
    return np.where(inside, labels[tuple(np.moveaxis(index, -1, 0))], 0).astype(np.int16)


def anatomy(template: Path, data: Path, workers: int) -> dict[str, np.ndarray]:
    """Share of label maps that hold ``head`` and ``brain`` at each template voxel, mirrored onto itself."""
    maps = label_maps(data / "labelmaps", tuple(n for n in FULL_FACE_MAPS if n not in DISTORTED))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        every = pool.map(labels_on_template, [(head, template) for head in maps], chunksize=1)
    brain = np.mean([np.isin(labels, BRAIN_LABELS) for labels in every], axis=0)
    shares = {
        "head": np.mean([labels > 0 for labels in every], axis=0),
        "brain": brain,
    }
    return {name: ((share + share[::-1]) / 2).astype(np.float32) for name, share in shares.items()}


def exterior(head: np.ndarray) -> np.ndarray:
    """Air around the head, True outside, nostrils and mouth closed, and none where the average neck fades out."""
    closed = ndimage.binary_closing(np.pad(head, 8), iterations=4)[(slice(8, -8),) * 3]
    parts, _ = ndimage.label(~closed)
    outside = parts == parts[0, -1, -1]
    z = grid_points(head_affine(SPACING), head_shape(SPACING))[..., 2]
    return outside & (z > NECK_Z)


def draw_face(head: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Forehead's foot to chin, cheek to cheek, ``FACE_DEPTH_MM`` deep; without the air in front."""
    x, y, z = np.moveaxis(grid_points(head_affine(SPACING), head_shape(SPACING)), -1, 0)
    depth = ndimage.distance_transform_edt(~exterior(head)) * SPACING
    back = np.interp(z, *zip(*FACE_BACK))
    face = (y > back) & (z < FACE_TOP) & (depth <= FACE_DEPTH_MM)
    near = ndimage.distance_transform_edt(~head) * SPACING <= FACE_AIR_MM
    parts, _ = ndimage.label(face & near & ~brain)
    return parts == 1 + np.bincount(parts.ravel())[1:].argmax()


def draw_ears(head: np.ndarray) -> np.ndarray:
    """What an opening with a ball takes off the sides of the head around the ear canals, and a margin."""
    x, y, z = np.moveaxis(grid_points(head_affine(SPACING), head_shape(SPACING)), -1, 0)
    radius = EAR_BALL_MM // SPACING
    ball = np.linalg.norm(np.indices((2 * radius + 1,) * 3) - radius, axis=0) <= radius
    pinna = head & ~ndimage.binary_opening(head, ball)
    pinna &= (np.abs(x) > 58) & (np.abs(y - EAR_Y) < 34) & (np.abs(z - EAR_Z) < 45)
    return ndimage.distance_transform_edt(~largest_per_side(pinna)) * SPACING <= EAR_MARGIN_MM


def largest_per_side(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of either half of the head."""
    middle = mask.shape[0] // 2
    out = np.zeros_like(mask)
    for half in (slice(0, middle), slice(middle, None)):
        parts, count = ndimage.label(mask[half])
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            out[half] = parts == 1 + sizes.argmax()
    return out


def draw_masks(template: Path, data: Path, out: Path, *, workers: int) -> Path:
    """Draw the masks of a template and write both as ``template.npz``, the file that ships.

    Parameters
    ----------
    template : Path
        ``template.nii.gz`` of `bids_cpmae.training.template.build`.
    data : Path
        Folder with ``labelmaps/``.
    out : Path
        Folder for ``template.npz``: ``head`` (uint8, times ``scale``) and ``masks`` (uint8 bits, see
        `bids_cpmae.imaging.template`).
    """
    image = nib.load(template).get_fdata(dtype=np.float32)
    shares = anatomy(template, data, workers)
    head, brain = (ndimage.binary_fill_holes(shares[name] > 0.5) for name in ("head", "brain"))
    face, ears = draw_face(head, brain), draw_ears(head) & ~brain
    masks = brain * BRAIN_BIT + face * FACE_BIT + (ears & ~face) * EARS_BIT + head * HEAD_BIT
    scale = float(image.max()) / 255
    target = out / "template.npz"
    np.savez_compressed(
        target, head=np.rint(image / scale).astype(np.uint8), scale=np.float32(scale), masks=masks.astype(np.uint8)
    )
    return target
