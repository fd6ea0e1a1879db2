"""Does a new face look like a scan, and are new faces different people?

For everybody and every method: how well the VQ-VAE gives the true face back, whether the new face has the detail of
the original, whether a border shows, and whether noise fits. For one person: how far several new faces lie apart, and
how near the nearest real person is.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from bids_cpmae.errors import ExitCode
from bids_cpmae.evaluation.baselines import Subject, located
from bids_cpmae.evaluation.datasets import ORIGINAL, Comparison, add_comparison_arguments, open_comparison
from bids_cpmae.evaluation.page import Section, Table, write_page
from bids_cpmae.evaluation.surface import depth_distance, depth_maps, face_pixels, rigid_on_brain
from bids_cpmae.evaluation.survey import Surveyor
from bids_cpmae.evaluation.tables import print_table, versions, write_json, write_tsv
from bids_cpmae.imaging.align import mask_box
from bids_cpmae.imaging.nifti import SourceImage, load_source
from bids_cpmae.imaging.rendering import head_surface
from bids_cpmae.imaging.seam import border_step, noise_level
from bids_cpmae.processes import one_thread

BANDS = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35)
FEATHER_MM = 8.0
TISSUE, AIR = 0.3, 0.1
HEADER = ("person", "method", "psnr_db", *(f"power_{low:.2f}_{high:.2f}" for low, high in zip(BANDS, BANDS[1:])),
          "seam", "noise_air", "noise_tissue")  # fmt: skip


def power_ratios(original: np.ndarray, version: np.ndarray, mask: np.ndarray, spacing: np.ndarray) -> list[float]:
    """Power of a version over that of the original inside a mask, by spatial frequency.

    Parameters
    ----------
    original, version : ndarray (X, Y, Z)
    mask : ndarray (X, Y, Z), bool
        True = looked at; faded out towards its border over 8 mm, so that the border has no spectrum of its own.
    spacing : ndarray (3,)
        In mm.

    Returns
    -------
    list of float
        One for each band between neighbours of `BANDS`, in cycles/mm; NaN beyond what the voxels hold.
    """
    depth = distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    window = np.sin(np.pi / 2 * np.clip(depth / FEATHER_MM, 0, 1)) ** 2
    powers = []
    for data in (original, version):
        mean = (data * window).sum() / window.sum()
        powers.append(np.abs(np.fft.rfftn((data - mean) * window)) ** 2)
    axes = [np.fft.fftfreq(n, d) for n, d in zip(mask.shape[:2], spacing)]
    axes.append(np.fft.rfftfreq(mask.shape[2], spacing[2]))
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")))
    bands = [(radius >= low) & (radius < high) for low, high in zip(BANDS, BANDS[1:])]
    limit = 0.5 / max(spacing)
    return [
        float(powers[1][band].sum() / powers[0][band].sum()) if low < limit else float("nan")
        for band, low in zip(bands, BANDS)
    ]


def likeness(original: SourceImage, version: np.ndarray, mask: np.ndarray) -> list[float]:
    """Power by band, border step and noise of a version relative to the original's, in the order of `HEADER`."""
    spacing, data = original.spacing, original.data
    box = mask_box(mask, original.affine)
    data, version, mask = data[box], version[box], mask[box]
    level = np.percentile(data, 90)
    tissue = (data > TISSUE * level) & (version > TISSUE * level)
    near = tissue | ~mask
    step = border_step(version, mask, spacing, within=tissue) / border_step(data, mask, spacing, within=tissue)
    inside = binary_erosion(mask, iterations=2)
    air = inside & binary_erosion((data < AIR * level) & (version < AIR * level), iterations=3)
    flesh = inside & binary_erosion(near, iterations=2)
    noise = [
        _ratio(noise_level(version, where, spacing, robust=robust), noise_level(data, where, spacing, robust=robust))
        for where, robust in ((air, False), (flesh, True))
    ]
    return [*power_ratios(data, version, mask, spacing), step, *noise]


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else (1.0 if a == 0 else float("inf"))


def reconstruction_psnr(subject: Subject) -> float:
    """Peak signal-to-noise ratio in dB (data range 1) of the non-brain VQ-VAE inside face and ears, at 1 mm.

    The one measure in which the face is read; it says what the codes can hold, not what the app does.
    """
    import torch

    from bids_cpmae.imaging.headspace import head_affine, head_shape
    from bids_cpmae.imaging.resample import resample
    from bids_cpmae.model.cpmae import DECODE_HALO, code_box, voxel_box
    from bids_cpmae.model.regions import cells
    from bids_cpmae.model.vqvae import STRIDE
    from bids_cpmae.model.weights import load_cpmae

    frame, source, model = subject.frame, subject.source, load_cpmae(subject.weights)
    whole = resample(source.data, source.affine, head_affine(), head_shape(), through=frame.to_scan)
    whole = frame.to_model(whole)
    wanted = frame.blank & model.anatomy.head & ~model.anatomy.brain
    box = voxel_box(code_box(cells(wanted, STRIDE), DECODE_HALO))
    volume, known = (
        torch.from_numpy(np.ascontiguousarray(part[box], np.float32))[None, None]
        for part in (whole, ~model.anatomy.brain)
    )
    with torch.no_grad():
        found = model.skull.decode(model.skull.encode(volume, known))[0, 0].numpy()
    error = (found - whole[box])[wanted[box]]
    return float(-10 * np.log10(np.mean(error**2)))


def new_faces(subject: Subject, count: int) -> np.ndarray:
    """Depth maps (count, 3, U, V), see `depth_maps`, of one person with the faces of seeds 0 to ``count`` - 1."""
    from bids_cpmae.imaging.align import resample_to_scan
    from bids_cpmae.imaging.compose import compose_face
    from bids_cpmae.model.weights import load_cpmae

    source, mask, frame = subject.source, subject.located.mask, subject.frame
    to_scan = rigid_on_brain(source.data, source.affine, scaled=True)
    found = []
    for seed in range(count):
        head = load_cpmae(subject.weights).remodel(
            frame.volume, frame.blank, identity_seed=seed, head_size=frame.head_size
        )  # fmt: skip
        stored = compose_face(source, mask, resample_to_scan(frame, head, source, mask), seed=seed)
        data = stored.reshape(source.shape3).astype(np.float32) * source.slope + source.inter
        found.append(depth_maps(head_surface(data, source.affine), to_scan))
    return np.stack(found)


def variety(comparison: Comparison, count: int, *, nprocs: int = 1) -> dict[str, float]:
    """How far ``count`` new faces of the first person lie apart, real people likewise, and from the nearest of them.

    Mean distance in mm of the skin that face mode replaces, heads aligned by the brain and brought to its size: the
    new faces of one person all have that person's size of head, real people do not.
    """
    person = comparison.people[0]
    pixels, surveyor = face_pixels(), Surveyor(comparison.work)
    with ProcessPoolExecutor(nprocs, mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        real = list(pool.map(partial(surveyor.depth, scaled=True), comparison.originals.values()))
    new = new_faces(comparison.subject(person), count)
    apart = [depth_distance(a, b, pixels) for a, b in combinations(new, 2)]
    people = [depth_distance(a, b, pixels) for a, b in combinations(real[:: max(1, len(real) // 24)], 2)]
    nearest = [min(depth_distance(face, other, pixels) for other in real) for face in new]
    return {
        "new_faces_mm": float(np.mean(apart)), "real_people_mm": float(np.mean(people)),
        "variety": float(np.mean(apart) / np.mean(people)), "nearest_person_mm": float(np.min(nearest)),
    }  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate realism``."""
    add_comparison_arguments(parser)
    parser.set_defaults(methods=["cpmae-face"])
    parser.add_argument(
        "--faces", type=int, default=10, metavar="N",
        help="new faces of the first person to compare, 0 for none (default: %(default)s)",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae evaluate realism``."""
    comparison = open_comparison(args)
    rows = []
    for person, path in comparison.originals.items():
        if person not in comparison.people:
            continue
        source, mask = load_source(path), located(path, comparison.work).mask
        psnr = reconstruction_psnr(comparison.subject(person))
        for method, scans in comparison.methods.items():
            if method != ORIGINAL:
                values = likeness(source, load_source(Path(scans[person])).data, mask)
                rows.append((person, method, f"{psnr:.2f}", *(f"{value:.3f}" for value in values)))
    figures = variety(comparison, args.faces, nprocs=args.nprocs) if args.faces > 1 else {}
    settings = {"originals": args.originals.name, "people": comparison.people, "seed": comparison.seed,
                "faces": args.faces, "variety": figures, "versions": versions("numpy", "scipy", "torch")}  # fmt: skip
    write_tsv(comparison.out / "realism.tsv", HEADER, rows)
    write_json(comparison.out / "realism.json", settings)
    tables = [Table("By person; all but psnr_db relative to the original's", HEADER, rows)]
    print_table(HEADER, rows)
    if figures:
        table = [[f"{value:.2f}" for value in figures.values()]]
        tables.append(Table(f"{args.faces} new faces of {comparison.people[0]}", list(figures), table))
        print()
        print_table(list(figures), table)
    write_page(
        comparison.out / "realism.html", "Realism: does the new face fit the scan?",
        [Section("Faces", __doc__.partition("\n\n")[2], tables)], settings=settings,
    )  # fmt: skip
    return ExitCode.OK
