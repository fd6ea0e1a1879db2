"""The portrait: what heads look like once they all have one shape, as sharp as a single one; nobody's.

The template averages heads that were aligned as far as its masks need it, and is soft. Here every head is brought into
the portrait's shape by its own fine registration, the median over all of them and their mirror images is the next
portrait, and what averaging has taken from its fine detail is given back, band by band.
"""

from __future__ import annotations

import logging
import multiprocessing
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from bids_cpmae.data import PORTRAIT as SHIPPED
from bids_cpmae.imaging.headspace import CoordinateMap, grid_points, head_affine, head_shape
from bids_cpmae.imaging.intensity import BRAIN_LEVEL
from bids_cpmae.imaging.registration import Grid
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.template import HEAD_BIT, SPACING, load_template, save_portrait
from bids_cpmae.training import shapes
from bids_cpmae.training.bank import PORTRAIT, Bank
from bids_cpmae.training.mending import finished

LOG = logging.getLogger(__name__)
ROUNDS = (shapes.Fineness(3, (40, 12)), shapes.Fineness(2, (40, 30, 10)))
SLAB = 16
BANDS = np.arange(0.0, 0.2501, 0.025)
GAIN_MOST = 2.5
WINDOW_MM = 12.0
SAMPLES = 12


def first_portrait() -> Grid:
    """The template on the scale of the bank's heads."""
    template = load_template()
    return Grid(np.clip(template.grid.data * BRAIN_LEVEL, 0, 1), template.grid.affine)


def shaped(head: Path) -> np.ndarray:
    """A head of the bank in the shape of the portrait that its shape was found for: (256, 256, 256), uint8."""
    pull = np.load(Bank.pull(head)).astype(np.float32)
    affine = head_affine(shapes.PULL_MM)
    places = grid_points(affine, head_shape(shapes.PULL_MM)).astype(np.float32) + pull
    volume = resample(shapes.volume_of(head), head_affine(), head_affine(), head_shape(),
                      through=CoordinateMap(affine, places))  # fmt: skip
    return np.rint(255 * np.clip(volume, 0, 1)).astype(np.uint8)


def _write_shaped(head: Path, folder: Path) -> Path:
    target = folder / head.name
    np.save(target, shaped(head))
    return target


def average(bank: Bank, folder: Path, *, workers: int) -> np.ndarray:
    """The sharpened median of a bank's heads and their mirror images in one shape: (256, 256, 256), float32, 0 to 1."""
    folder.mkdir(exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(workers, initializer=shapes._start) as pool:
        paths = pool.map(partial(_write_shaped, folder=folder), bank.scans, chunksize=1)
    volumes = [np.load(path, mmap_mode="r") for path in paths]
    median = np.empty(head_shape(), np.float32)
    for start in range(0, len(median), SLAB):
        median[start : start + SLAB] = np.median([volume[start : start + SLAB] for volume in volumes], axis=0) / 255
    portrait = (median + median[::-1]) / 2
    portrait = sharpened(portrait, [volumes[i] for i in range(0, len(volumes), -(-len(volumes) // SAMPLES))])
    for path in paths:
        path.unlink()
    return portrait


def sharpened(portrait: np.ndarray, heads: list[np.ndarray]) -> np.ndarray:
    """The portrait with the power of single heads in face and ears, as far as 2 mm voxels hold detail.

    ``heads`` are uint8 volumes (256, 256, 256) in the portrait's shape.
    """
    template = load_template()
    face = template.replaced() & template.mask(HEAD_BIT)
    where = np.repeat(np.repeat(np.repeat(face, SPACING, 0), SPACING, 1), SPACING, 2)
    window = np.clip(distance_transform_edt(where) / WINDOW_MM, 0, 1)
    box = tuple(slice(hit.min(), hit.max() + 1) for hit in np.nonzero(where))
    window = window[box]
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in window.shape), indexing="ij", sparse=True)
    band = np.digitize(np.sqrt(sum(np.square(axis) for axis in axes)), BANDS) - 1

    def power(volume: np.ndarray) -> np.ndarray:
        spectrum = np.abs(np.fft.fftn((volume - (volume * window).sum() / window.sum()) * window)) ** 2
        return np.bincount(band.ravel(), spectrum.ravel(), len(BANDS))

    wanted = np.mean([power(head[box].astype(np.float32) / 255) for head in heads], axis=0)
    gain = np.clip(np.sqrt(wanted / power(portrait[box])), 1.0, GAIN_MOST)
    gain[0], gain[-1] = 1.0, 1.0
    LOG.info("gain by band: %s", " ".join(f"{value:.2f}" for value in gain))
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in portrait.shape[:2]), np.fft.rfftfreq(portrait.shape[2]),
                       indexing="ij", sparse=True)  # fmt: skip
    radius = np.sqrt(sum(np.square(axis) for axis in axes))
    smooth = np.interp(radius, BANDS + 0.0125, gain)
    found = np.fft.irfftn(np.fft.rfftn(portrait) * smooth, portrait.shape)
    return np.clip(found, 0, 1).astype(np.float32)


def build(bank: Bank, *, workers: int) -> Path:
    """Portrait and shapes of a bank, each round finer than the one before; what is done is kept.

    Returns
    -------
    Path
        The portrait as the package ships it, beside the one that the bank's heads are bent from.
    """
    folder = bank.heads[0].parent
    portrait = first_portrait()
    for number, fineness in enumerate(ROUNDS, 1):
        last = number == len(ROUNDS)
        kept = folder / (PORTRAIT if last else f"portrait-{number}.npy")
        if not kept.exists():
            shapes.build(bank, portrait, fineness, workers=workers)
            np.save(kept, np.rint(255 * average(bank, folder / "shaped", workers=workers)).astype(np.uint8))
            if not last:
                for head in bank.heads:
                    bank.shape(head).unlink()
        portrait = Grid(np.load(kept).astype(np.float32) / 255, head_affine())
    return save_portrait(finished(portrait.data), folder / SHIPPED)
