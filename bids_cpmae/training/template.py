"""``cpmae template``: an unbiased, symmetric average head in head space, built from the training heads.

Stages: (0) every head affinely to MNI152, which gives axes and the anterior commissure; the average affine stretch is
taken out, so that the template has the size of the average head; (1..n) affine and deformable registration of every
head to the current average, whose shape is then moved by the mean deformation and mirrored onto itself.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.linalg import expm, logm, polar

from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, grid_points, head_affine, head_shape
from bids_cpmae.imaging.registration import Fixed, Grid, register, scratch_folder
from bids_cpmae.imaging.resample import resample
from bids_cpmae.training.heads import Head, coarse, people

LOG = logging.getLogger(__name__)
SPACING = 2
FIELD_SPACING = 4
MNI_AC = np.array([0.0, 3.0, -4.0])
BRAIN_CENTRE, BRAIN_RADIUS = np.array([0.0, -15.0, 15.0]), 45.0


def brain_sphere() -> np.ndarray:
    """A ball well inside every brain, on the template grid (True inside): enough to scale intensities by."""
    points = grid_points(head_affine(SPACING), head_shape(SPACING))
    return np.linalg.norm(points - BRAIN_CENTRE, axis=-1) < BRAIN_RADIUS


def _affine_of(points: np.ndarray, mapped: np.ndarray) -> np.ndarray:
    """Least-squares 3 x 4 affine that carries ``points`` (N, 3) to ``mapped`` (N, 3)."""
    design = np.c_[points, np.ones(len(points))]
    return np.linalg.lstsq(design, mapped, rcond=None)[0].T


def _to_mni(task: tuple[Head, Path]) -> np.ndarray:
    head, mni = task
    image = nib.as_closest_canonical(nib.load(mni))
    fixed = coarse(Grid(np.asanyarray(image.dataobj).astype(np.float32), image.affine))
    with scratch_folder() as folder:
        found = register(Fixed.of(fixed), coarse(head.read()), folder=Path(folder), deformable=False)
        field = found.fixed_to_moving(np.diag([20.0, 20.0, 20.0, 1.0]), (4, 4, 4))
    points = grid_points(field.affine, (4, 4, 4)).reshape(-1, 3)
    LOG.info("%s to MNI152: correlation %.3f", head.name, found.similarity)
    return _affine_of(points, field.points.reshape(-1, 3).astype(float))


def _to_template(task: tuple[Head, Path]) -> tuple[np.ndarray, np.ndarray]:
    head, template = task
    image = nib.load(template)
    fixed = Grid(image.get_fdata(dtype=np.float32), image.affine)
    with scratch_folder() as folder:
        found = register(Fixed.of(fixed), coarse(head.read()), folder=Path(folder))
        field = found.fixed_to_moving(head_affine(FIELD_SPACING), head_shape(FIELD_SPACING))
    LOG.info("%s to template: correlation %.3f", head.name, found.similarity)
    return field.points, warped(head, field)


def warped(head: Head, field: CoordinateMap) -> np.ndarray:
    """A head on the template grid, its brain's 95th percentile at 1."""
    scan = head.read()
    volume = resample(scan.data, scan.affine, head_affine(SPACING), head_shape(SPACING), through=field)
    return volume / np.percentile(volume[brain_sphere()], 95)


def average_stretch(affines: list[np.ndarray]) -> np.ndarray:
    """The mean of the symmetric parts of affines (3 x 4), in the log domain, without any left-right skew."""
    stretch = np.mean([logm(polar(a[:, :3])[1]).real for a in affines], axis=0)
    stretch[0, 1:] = stretch[1:, 0] = 0
    return expm(stretch)


def symmetric(volume: np.ndarray) -> np.ndarray:
    """A volume averaged with its mirror image."""
    return (volume + volume[::-1]) / 2


def shape_update(fields: list[np.ndarray]) -> np.ndarray:
    """Mean displacement (X, Y, Z, 3) in mm of the heads' shapes from the template, each head's affine taken out."""
    points = grid_points(head_affine(FIELD_SPACING), head_shape(FIELD_SPACING))
    some = (slice(12, 52, 4),) * 3
    total = np.zeros_like(points)
    for field in fields:
        affine = _affine_of(points[some].reshape(-1, 3), field[some].reshape(-1, 3).astype(float))
        inverse = np.linalg.inv(np.vstack([affine, [0, 0, 0, 1]]))
        total += apply_affine(inverse, field.astype(float)) - points
    mean = total / len(fields)
    mirror = mean[::-1] * [-1, 1, 1]
    return (mean + mirror) / 2


def build(data: Path, out: Path, *, count: int, rounds: int, workers: int) -> Path:
    """Build the template from ``count`` training heads and write ``template.nii.gz`` into ``out``.

    Returns
    -------
    Path
        float32, 2 mm, head space.
    """
    out.mkdir(parents=True, exist_ok=True)
    every = people(data / "ixi2mm", "train")
    heads = [every[i] for i in np.linspace(0, len(every) - 1, count).round().astype(int)]
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    current = out / "template.nii.gz"
    grid, shape = head_affine(SPACING), head_shape(SPACING)
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_one_thread) as pool:
        mni = data / "template" / "mni152nlin2009_T1w.nii.gz"
        affines = pool.map(_to_mni, [(head, mni) for head in heads], chunksize=1)
        shrink = np.linalg.inv(average_stretch(affines))
        points = grid_points(head_affine(FIELD_SPACING), head_shape(FIELD_SPACING)) @ shrink.T + MNI_AC
        total = np.zeros(shape, np.float32)
        for head, affine in zip(heads, affines):
            field = (points @ affine[:, :3].T + affine[:, 3]).astype(np.float32)
            total += warped(head, CoordinateMap(head_affine(FIELD_SPACING), field))
        nib.save(nib.Nifti1Image(symmetric(total / count), grid), current)
        for number in range(rounds):
            LOG.info("round %d of %d", number + 1, rounds)
            results = pool.map(_to_template, [(head, current) for head in heads], chunksize=1)
            mean = np.mean([volume for _, volume in results], axis=0)
            update = shape_update([field for field, _ in results])
            coarse_points = grid_points(head_affine(FIELD_SPACING), head_shape(FIELD_SPACING))
            pull = CoordinateMap(head_affine(FIELD_SPACING), (coarse_points - update).astype(np.float32))
            shaped = resample(mean, grid, grid, shape, through=pull)
            nib.save(nib.Nifti1Image(symmetric(shaped), grid), current)
    return current


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae template``."""
    parser.add_argument("data", type=Path, help="folder with ixi2mm/, labelmaps/ and template/")
    parser.add_argument("out", type=Path, help="folder to write template.nii.gz and the masks into")
    parser.add_argument("--count", type=int, default=40, help="training heads to average (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="deformable rounds (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae template``."""
    from bids_cpmae.training.masks import draw_masks

    path = build(args.data, args.out, count=args.count, rounds=args.rounds, workers=args.workers)
    draw_masks(path, args.data, args.out, workers=args.workers)
    return 0
