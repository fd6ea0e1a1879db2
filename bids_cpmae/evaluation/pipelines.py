"""What a lab does next with a T1w scan: brain extraction, bias correction, segmentation, normalisation, quality.

Each step is a well-known tool, run on the whole scan. A step that breaks or finds something that cannot be a brain is a
failure with a reason, never a number.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_cpmae.antspy import load_ants
from bids_cpmae.errors import InputError
from bids_cpmae.imaging.headspace import covering_grid
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.registration import Fixed, Grid, Registration, register, scratch_folder
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.skin import otsu_threshold

BRAIN_ML = (600.0, 2500.0)
LEAST_TISSUE_ML = 20.0
TISSUES = ("csf", "gm", "wm")
MAP_MM = 4.0
FIELD_OF_VIEW_MM, PAD_MM = 170.0, 10.0
RECENTRINGS = 2
WINSOR_PERCENT = (1.0, 97.0)
STEPS = ("brain extraction", "segmentation", "normalisation")
VERSION = 6


@dataclass
class Products:
    """What the steps made of one scan.

    Attributes
    ----------
    affine : ndarray (4, 4)
        Of the isotropic RAS+ grid that all steps work on.
    brain : ndarray (X, Y, Z), bool or None
        BET's mask, True inside, started twice more from the centre of what was found, as ``bet -R`` does.
    plain_brain : ndarray (X, Y, Z), bool or None
        BET's mask started from the centre of the whole head, face included, alone; None where that is no brain.
    tissues : ndarray (X, Y, Z), uint8 or None
        0 outside, 1 CSF, 2 grey matter, 3 white matter.
    affine_points, deformable_points : ndarray (X, Y, Z, 3), float32, or None
        Where each point of a 4 mm grid of the reference lies in the scan, RAS+ mm.
    numbers : dict of str to float
        Volumes in ml and image-quality measures.
    failures : dict of str to str
        Reason by step.
    """

    affine: np.ndarray
    brain: np.ndarray | None = None
    plain_brain: np.ndarray | None = None
    tissues: np.ndarray | None = None
    affine_points: np.ndarray | None = None
    deformable_points: np.ndarray | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write everything to one ``.npz``, whole or not at all."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        partial = path.with_suffix(".part.npz")
        np.savez_compressed(partial, said=json.dumps([self.numbers, self.failures]), **arrays)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Products:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            numbers, failures = json.loads(str(stored["said"]))
            arrays = {name: stored[name] for name in stored.files if name != "said"}
        return cls(**arrays, numbers=numbers, failures=failures)


def process(
    path: Path, reference: Grid, *, folder: Path | None = None, seed: int = 0, iterations: int = 1000
) -> Products:
    """Run all steps on a scan.

    Parameters
    ----------
    path : Path
    reference : Grid
        What heads are normalised to.
    folder : Path, optional
        Where products are kept for the next time, by the scan's content and the settings.
    seed : int
        Of the registration.
    iterations : int
        Of BET.
    """
    said = hashlib.sha256(path.read_bytes() + reference.data.tobytes() + str((seed, iterations, VERSION)).encode())
    place = folder / f"{said.hexdigest()[:32]}.npz" if folder else None
    if place and place.is_file():
        return Products.load(place)
    source = load_source(path)
    spacing = max(1.0, float(source.spacing.mean()))
    affine, shape = covering_grid(source.affine, source.shape3, spacing)
    scan = Grid(resample(source.data, source.affine, affine, shape), affine)
    made = Products(affine)
    _attempt(made, STEPS[0], lambda: _extract(made, scan, iterations))
    if made.brain is not None:
        _attempt(made, STEPS[1], lambda: _segment(made, scan))
    else:
        made.failures[STEPS[1]] = "no brain was extracted"
    _attempt(made, STEPS[2], lambda: _normalise(made, scan, reference, seed))
    if place:
        place.parent.mkdir(parents=True, exist_ok=True)
        made.save(place)
    return made


def _attempt(made: Products, step: str, run: Callable[[], None]) -> None:
    try:
        run()
    except (InputError, MemoryError, OSError):
        raise  # the machine's trouble, not the scan's
    except Exception as error:  # whatever a tool throws at a scan is its failure on that scan
        made.failures[step] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _extract(made: Products, scan: Grid, iterations: int) -> None:
    """BET (Smith 2002, doi:10.1002/hbm.10062) by brainextractor, and again from the centre of what it found."""
    import nibabel as nib

    try:
        from brainextractor import BrainExtractor
        from brainextractor.helpers import sphere
    except ModuleNotFoundError as error:
        raise InputError("brainextractor is not installed; pip install 'bids_cpmae[evaluate]'") from error
    # necks mislead it, and it looks beyond the volume: cut as FSL's robustfov does, and padded
    spacing = float(np.diag(scan.affine)[:3].mean())
    top = np.flatnonzero(head_mask(scan.data).any((0, 1)))[-1]
    low, pad = max(0, round(top - FIELD_OF_VIEW_MM / spacing)), int(np.ceil(PAD_MM / spacing))
    padded, brain = np.pad(scan.data[:, :, low:], pad), np.zeros(scan.data.shape, bool)

    with contextlib.redirect_stdout(io.StringIO()):
        tool = BrainExtractor(img=nib.Nifti1Image(padded, scan.affine))
        start, head_centre = tool.vertices.copy(), tool.c
        for again in range(1 + RECENTRINGS):
            if again:
                tool.vertices = start + (tool.c - head_centre)
                tool.update_surface_attributes()
                tool.tm = np.median(tool.data[sphere(tool.shape, 2 * tool.r, tool.c)])
            tool.run(iterations)
            found = np.asarray(tool.compute_mask()) > 0
            weight = np.where(found, np.clip(padded, tool.t2, tool.t98), 0)
            tool.c = np.array(ndimage.center_of_mass(weight)) if weight.any() else tool.c
            brain[:, :, low:] = found[pad:-pad, pad:-pad, pad:-pad]
            volume = float(brain.sum() * _voxel_ml(scan))
            plausible = BRAIN_ML[0] <= volume <= BRAIN_ML[1]
            if plausible and not again:
                made.plain_brain = brain.copy()
    if not plausible:
        raise ValueError(f"{volume:.0f} ml are no brain")
    made.brain = brain
    made.numbers["tiv_ml"] = volume


def _segment(made: Products, scan: Grid) -> None:
    """N4 (Tustison 2010), then Atropos (Avants 2011) started from k-means, by antspyx; measures of quality."""
    ants = load_ants()

    mask = Grid(made.brain.astype(np.float32), scan.affine).to_ants()
    flat = ants.n4_bias_field_correction(
        scan.to_ants(), mask=mask, shrink_factor=4, convergence={"iters": [50, 50, 50], "tol": 1e-4}
    )
    data = flat.numpy()
    # fat and vessels that brain extraction leaves would else take a class of their own
    low, high = np.percentile(data[made.brain], WINSOR_PERCENT)
    clipped = Grid(np.clip(data, low, high), scan.affine).to_ants()
    found = ants.atropos(a=clipped, x=mask, i="kmeans[3]", m="[0.1,1x1x1]", c="[5,0]", r=0)
    found = found["segmentation"].numpy()
    order = np.argsort([data[found == label].mean() for label in (1, 2, 3)])
    tissues = np.zeros(found.shape, np.uint8)
    for number, label in enumerate(order, 1):
        tissues[found == label + 1] = number
    volumes = {name: float((tissues == n).sum() * _voxel_ml(scan)) for n, name in enumerate(TISSUES, 1)}
    small = [name for name, volume in volumes.items() if volume < LEAST_TISSUE_ML]
    if small:
        raise ValueError(f"hardly any {small[0]}")
    made.tissues = tissues
    made.numbers.update({f"{name}_ml": volume for name, volume in volumes.items()})
    made.numbers.update(image_quality(data, tissues, head_mask(scan.data)))


def _normalise(made: Products, scan: Grid, reference: Grid, seed: int) -> None:
    """Affine, then SyN (Avants 2008) to the reference, by antspyx."""
    affine, shape = covering_grid(reference.affine, reference.data.shape, MAP_MM)
    with scratch_folder() as folder:
        found = register(Fixed.of(reference), scan, folder=Path(folder), seed=seed)
        made.deformable_points = found.fixed_to_moving(affine, shape).points
        # ANTs lists the warp first, the affine last
        linear = Registration(found.forward[-1:], found.inverse[:1], found.similarity)
        made.affine_points = linear.fixed_to_moving(affine, shape).points
    made.numbers["registration_correlation"] = found.similarity


def _voxel_ml(scan: Grid) -> float:
    return abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000


def head_mask(data: np.ndarray) -> np.ndarray:
    """The head (X, Y, Z), bool: the largest thing brighter than the air, its holes filled."""
    labels, _ = ndimage.label(data > 0.4 * otsu_threshold(data))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(labels == sizes.argmax())


def image_quality(data: np.ndarray, tissues: np.ndarray, head: np.ndarray) -> dict[str, float]:
    """Image-quality measures as MRIQC defines them (Esteban 2017, doi:10.1371/journal.pone.0184661).

    Parameters
    ----------
    data : ndarray (X, Y, Z)
        Bias-corrected intensities.
    tissues : ndarray (X, Y, Z), uint8
        1 CSF, 2 grey matter, 3 white matter.
    head : ndarray (X, Y, Z), bool

    Returns
    -------
    dict of str to float
        ``snr_csf``, ``snr_gm``, ``snr_wm``, ``snr_total``, ``cjv``, ``cnr``, ``efc``, ``fber`` and ``wm2max``. FBER is
        left out when the air holds nothing, as after zeroing.
    """
    means, spreads = {}, {}
    found: dict[str, float] = {}
    for number, name in enumerate(TISSUES, 1):
        values = data[tissues == number].astype(float)
        means[name], spreads[name] = values.mean(), values.std()
        found[f"snr_{name}"] = means[name] / (spreads[name] * np.sqrt(values.size / (values.size - 1)))
    found["snr_total"] = float(np.mean([found[f"snr_{name}"] for name in TISSUES]))
    air = ~ndimage.binary_dilation(head, iterations=2)
    contrast = abs(means["wm"] - means["gm"])
    found["cjv"] = (spreads["wm"] + spreads["gm"]) / contrast
    noise = data[air].astype(float) if air.any() else np.zeros(1)
    found["cnr"] = contrast / np.sqrt(noise.var() + spreads["gm"] ** 2 + spreads["wm"] ** 2)
    found["efc"] = entropy_focus(data)
    energy = float((noise**2).mean())
    if energy > 0:
        found["fber"] = float((data[head].astype(float) ** 2).mean()) / energy
    found["wm2max"] = means["wm"] / np.percentile(data, 99.95)
    return {name: float(value) for name, value in found.items()}


def entropy_focus(data: np.ndarray) -> float:
    """Entropy of the voxels' energy over its largest possible value; 0 for one bright voxel, 1 for an even image.

    Atkinson 1997, doi:10.1109/42.650886, normalised as MRIQC does.
    """
    values = np.abs(data.astype(float).ravel())
    total = np.sqrt((values**2).sum())
    if total == 0:
        return 0.0
    shares = values[values > 0] / total
    most = np.sqrt(values.size) * np.log(np.sqrt(values.size))
    return float(-(shares * np.log(shares)).sum() / most)
