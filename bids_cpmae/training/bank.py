"""The training heads in head space at 1 mm, aligned as the app aligns a scan, ready for crops."""

from __future__ import annotations

import logging
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from bids_cpmae.imaging.headspace import apply_affine, grid_points, head_affine, head_shape
from bids_cpmae.imaging.intensity import BRAIN_LEVEL, unit_scale
from bids_cpmae.imaging.registration import Fixed, Grid, register, scratch_folder
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.template import load_template
from bids_cpmae.training.contrasts import WHITE, draw_contrast
from bids_cpmae.training.heads import Head, coarse

LOG = logging.getLogger(__name__)
PORTRAIT = "portrait.npy"
# larger voxels than this are halved before they are sampled at 1 mm
COARSE_MM = 1.5


@dataclass(frozen=True)
class Bank:
    """Heads on disk, all 256^3 in head space.

    Attributes
    ----------
    scans, labels : list of Path
        uint8 volumes (255 = 1) and int16 label maps.
    """

    scans: list[Path]
    labels: list[Path]

    @property
    def heads(self) -> list[Path]:
        """All of them."""
        return [*self.labels, *self.scans]

    @staticmethod
    def drawn(labels: Path) -> Path:
        """Where the contrast drawn on a label map is kept, uint8 (255 = 1)."""
        return labels.with_name(f"{labels.stem.removesuffix('_dseg')}_drawn.npy")

    @staticmethod
    def shape(head: Path) -> Path:
        """Where the shape of a head is kept, see `bids_cpmae.training.shapes`."""
        return head.parent / "shapes" / head.name

    @staticmethod
    def pull(head: Path) -> Path:
        """Where the way from the portrait to a head is kept, likewise."""
        return head.parent / "shapes" / f"{head.stem}_pull.npy"

    def portrait(self) -> np.ndarray:
        """The portrait (256, 256, 256), float32, 0 to 1, that `bids_cpmae.training.portrait` has left beside the heads.

        Raises
        ------
        FileNotFoundError
            When it was not made yet.
        """
        return np.load(self.heads[0].parent / PORTRAIT).astype(np.float32) / 255

    @classmethod
    def open(cls, folder: Path) -> Bank:
        """What `build` has written into ``folder`` so far."""
        return cls(sorted(Path(folder).glob("*_T1w.npy")), sorted(Path(folder).glob("*_dseg.npy")))


def _field(scan: Grid):
    template = load_template()
    with scratch_folder() as folder:
        fixed = Fixed.of(template.grid, mask=template.alignment_region())
        found = register(fixed, coarse(scan), folder=Path(folder))
        return found.fixed_to_moving(head_affine(4), head_shape(4)), found.similarity


def _bank_scan(task: tuple[Head, Path]) -> None:
    head, out = task
    target = out / f"{head.name}_T1w.npy"
    if target.exists():
        return
    scan = head.read()
    field, similarity = _field(scan)
    # a cubic spline first: trilinear from 2 mm straight to 1 mm would blur what little detail there is
    finer = np.where(np.linalg.norm(scan.affine[:3, :3], axis=0) > COARSE_MM, 2, 1)
    fine = zoom(scan.data, finer, order=3, grid_mode=True, mode="nearest")
    affine = scan.affine @ np.diag([*(1 / finer), 1.0])
    affine[:3, 3] = apply_affine(scan.affine, 0.5 / finer - 0.5)
    volume = resample(np.maximum(fine, 0), affine, head_affine(), head_shape(), through=field)
    unit = np.clip(volume / unit_scale(volume, load_template()), 0, 1).astype(np.float32)
    _save(target, np.rint(255 * unit).astype(np.uint8))
    LOG.info("%s: correlation %.3f", head.name, similarity)


def _bank_labels(task: tuple[Head, Path]) -> None:
    head, out = task
    target = out / f"{head.name}_dseg.npy"
    if target.exists() and Bank.drawn(target).exists():
        return
    scan = head.read()
    labels = scan.data.astype(np.int16)
    thin = Grid(draw_contrast(labels[::2, ::2, ::2], np.random.default_rng(0)), scan.affine @ np.diag([2, 2, 2, 1.0]))
    field, similarity = _field(thin)
    carried = np.zeros(head_shape(), np.int16)
    for start in range(0, 256, 32):
        slab = head_affine()
        slab[0, 3] += start
        world = field(grid_points(slab, (32, 256, 256)))
        index = np.rint(apply_affine(np.linalg.inv(scan.affine), world)).astype(np.int32)
        inside = ((index >= 0) & (index < labels.shape)).all(-1)
        index[~inside] = 0
        carried[start : start + 32] = np.where(inside, labels[tuple(np.moveaxis(index, -1, 0))], 0)
    rng = np.random.default_rng([*head.name.encode()])
    volume = draw_contrast(carried, rng, spread=0.15) * BRAIN_LEVEL / WHITE * rng.uniform(0.9, 1.1)
    _save(Bank.drawn(target), np.rint(255 * np.clip(volume, 0, 1)).astype(np.uint8))
    _save(target, carried)
    LOG.info("%s: correlation %.3f", head.name, similarity)


def _save(target: Path, volume: np.ndarray) -> None:
    partial = target.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.save(file, volume)
    os.replace(partial, target)


def _start() -> None:
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def build(people: list[Head], maps: list[Head], out: Path, *, workers: int) -> Bank:
    """Bring people's scans and label maps into head space; heads already there are kept."""
    out.mkdir(parents=True, exist_ok=True)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_start) as pool:
        pool.map(_bank_labels, [(head, out) for head in maps], chunksize=1)
        pool.map(_bank_scan, [(head, out) for head in people], chunksize=1)
    return Bank.open(out)
