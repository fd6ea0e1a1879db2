"""What a laboratory does next with a T1w scan, on one scan: brain, tissues, registration, image quality.

Each step is a public tool with its usual settings, run on the whole head as it would be on any scan. It gets no mask
from this package and is not told what has been de-identified: whether it copes is what is measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_cpmae.errors import InputError, ScanError
from bids_cpmae.evaluation.rendering import otsu_threshold
from bids_cpmae.imaging import registration, resample
from bids_cpmae.imaging.facemask import coarse_scan
from bids_cpmae.imaging.headspace import CoordinateMap
from bids_cpmae.imaging.nifti import SourceImage, load_source
from bids_cpmae.imaging.registration import Grid, register, scratch_folder
from bids_cpmae.imaging.template import load_template

LOG = logging.getLogger("bids_cpmae")
BET_ITERATIONS = 1000
BET_PAD_VOXELS = 5
BRAIN_ML = (600.0, 2500.0)
N4_MM = 4.0
TISSUES = {"csf": 1, "gm": 2, "wm": 3}
HEAD_SIGMA_MM = 2.0
HEAD_SHARE = 0.5
# median absolute deviation over standard deviation, of a normal distribution
NORMAL_MAD = 0.6744897501960817
TOOLS = ("antspyx", "brainextractor", "numpy", "scipy")


@dataclass(frozen=True)
class Products:
    """What came out for one scan; None where a step failed, and `failures` says why.

    Attributes
    ----------
    affine : ndarray (4, 4) or None
        Of the scan's grid, voxel index to RAS+ mm; None when the scan cannot be read.
    shape : tuple of int or None
        Of the scan's grid.
    brain : ndarray (X, Y, Z), bool, or None
        By BET, True = brain.
    tissues : ndarray (X, Y, Z), uint8, or None
        By Atropos inside ``brain``: 0 none, 1 CSF, 2 grey matter, 3 white matter.
    affine_map, deformable_map : CoordinateMap or None
        From the reference's space to the scan's world, RAS+ mm, on the reference's 4 mm grid.
    measures : dict of str to float or None
        ``tiv_ml``, ``csf_ml``, ``gm_ml``, ``wm_ml``, and the image quality of `quality`.
    failures : dict of str to str
        Reason by step (``scan``, ``brain``, ``tissues``, ``registration``, ``quality``). What depends on a step that
        failed is not tried and not listed.
    seconds : dict of str to float
        By step.
    """

    affine: np.ndarray | None = None
    shape: tuple[int, ...] | None = None
    brain: np.ndarray | None = None
    tissues: np.ndarray | None = None
    affine_map: CoordinateMap | None = None
    deformable_map: CoordinateMap | None = None
    measures: dict[str, float | None] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> Path:
        """Write everything to one ``.npz``, whole or not at all."""
        arrays = {name: getattr(self, name) for name in ("affine", "brain", "tissues")}
        for name in ("affine_map", "deformable_map"):
            found = getattr(self, name)
            if found is not None:
                arrays |= {name: found.points, f"{name}_grid": found.affine}
        words = {name: getattr(self, name) for name in ("shape", "measures", "failures", "seconds")}
        partial = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
        there = {name: array for name, array in arrays.items() if array is not None}
        np.savez_compressed(partial, words=json.dumps(words), **there)
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: Path) -> Products:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            words = json.loads(str(stored["words"]))
            found = {name: stored[name] for name in ("affine", "brain", "tissues") if name in stored}
            for name in ("affine_map", "deformable_map"):
                if name in stored:
                    found[name] = CoordinateMap(stored[f"{name}_grid"], stored[name])
        shape = words.pop("shape")
        return cls(shape=tuple(shape) if shape else None, **words, **found)


def process(
    path: Path, folder: Path, *, reference: Path | None = None, seed: int = 0, bet_iterations: int = BET_ITERATIONS
) -> Products:
    """Run all steps on a scan, unless ``folder`` remembers them.

    Parameters
    ----------
    path : Path
        T1w scan of a whole head.
    folder : Path
        For results, a file a scan, named by the SHA-256 of the scan and of all that decides what comes out.
    reference : Path, optional
        Head to register to; the package's template if not given.
    seed : int
        Of registration and segmentation.
    bet_iterations : int
        Steps of BET's surface.

    Returns
    -------
    Products

    Raises
    ------
    InputError
        When brainextractor is not installed.
    ScanError
        When the reference cannot be read.
    """
    require_tools()
    content = hashlib.sha256(path.read_bytes() if path.is_file() else str(path).encode()).hexdigest()[:32]
    settings = json.dumps([_file_digest(reference), seed, bet_iterations, _code_digest()])
    place = folder / f"{content}_{hashlib.sha256(settings.encode()).hexdigest()[:16]}.npz"
    if not place.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        run_steps(path, reference_grid(reference), seed=seed, bet_iterations=bet_iterations).save(place)
    return Products.load(place)


def require_tools() -> None:
    """Say what to install when a tool is missing: that is no scan's failure.

    Raises
    ------
    InputError
    """
    try:
        import brainextractor  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError("brainextractor is not installed; pip install 'bids_cpmae[evaluate]'") from error


def tool_versions() -> dict[str, str]:
    """Versions of all that decides what comes out."""
    return {name: version(name) for name in TOOLS}


def _file_digest(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def _code_digest() -> str:
    parts = [Path(part).read_bytes() for part in (__file__, registration.__file__, resample.__file__)]
    template = Path(__file__).resolve().parents[1] / "data" / "template.npz"
    return hashlib.sha256(b"".join([*parts, template.read_bytes(), json.dumps(tool_versions()).encode()])).hexdigest()


def reference_grid(path: Path | None) -> Grid:
    """The head to register to, on an axis-aligned RAS+ grid of 2 mm."""
    if path is None:
        return load_template().grid
    source = load_source(path)
    return coarse_scan(source.data, source.affine)


@dataclass
class _Attempts:
    """Runs steps, and notes how long each took and why it failed."""

    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, step: str, make: Callable, *args, **kwargs):
        """What ``make`` returns, or None when it raises."""
        start = time.perf_counter()
        try:
            return make(*args, **kwargs)
        except (MemoryError, OSError):
            # the machine's trouble and not the scan's: to be tried again, never to be remembered
            raise
        except Exception as error:  # tools raise whatever they like
            self.failures[step] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return None
        finally:
            self.seconds[step] = round(time.perf_counter() - start, 1)


def run_steps(path: Path, reference: Grid, *, seed: int = 0, bet_iterations: int = BET_ITERATIONS) -> Products:
    """All steps on a scan, each on its own: one that fails takes along only those that need it."""
    attempt = _Attempts()
    source = attempt("scan", load_source, path)
    if source is None:
        return Products(failures=attempt.failures, seconds=attempt.seconds)
    brain = attempt("brain", extract_brain, source, iterations=bet_iterations)
    tissues, measures = None, {}
    if brain is not None:
        measures["tiv_ml"] = millilitres(brain, source.affine)
        segmented = attempt("tissues", segment_tissues, source, brain, seed=seed)
        if segmented is not None:
            tissues, even = segmented
            measures |= {f"{name}_ml": millilitres(tissues == label, source.affine) for name, label in TISSUES.items()}
            measures |= attempt("quality", quality, even, tissues, source.spacing) or {}
    maps = attempt("registration", map_to_scan, source, reference, seed=seed) or (None, None)
    return Products(
        source.affine, source.shape3, brain, tissues, *maps, measures, attempt.failures, attempt.seconds
    )  # fmt: skip


def millilitres(mask: np.ndarray, affine: np.ndarray) -> float:
    """Volume of a mask on a grid."""
    return float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)


def extract_brain(source: SourceImage, *, iterations: int = BET_ITERATIONS) -> np.ndarray:
    """The brain by BET (Smith 2002, doi:10.1002/hbm.10062) as in the package brainextractor, with its defaults.

    It wants cubic voxels, so it sees the scan at 2 mm.

    Returns
    -------
    ndarray (X, Y, Z), bool
        On the scan's grid, True = brain.

    Raises
    ------
    ScanError
        When the mask is not the size of an adult's brain (600 to 2500 ml).
    """
    from brainextractor import BrainExtractor

    grid = coarse_scan(source.data, source.affine)
    # it reads the voxels along its surface without a look at where the volume ends
    padded, affine = np.pad(grid.data, BET_PAD_VOXELS), grid.affine.copy()
    affine[:3, 3] -= BET_PAD_VOXELS * affine[:3, :3].sum(1)
    # it prints every step
    with contextlib.redirect_stdout(io.StringIO()):
        extractor = BrainExtractor(img=nib.Nifti1Image(padded, affine))
        extractor.run(iterations=iterations)
        found = extractor.compute_mask()
    brain = resample.resample(found, affine, source.affine, source.shape3) >= 0.5
    volume = millilitres(brain, source.affine)
    if not BRAIN_ML[0] <= volume <= BRAIN_ML[1]:
        raise ScanError(f"BET's mask has {volume:.0f} ml, not {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} as an adult's brain")
    return brain


def segment_tissues(source: SourceImage, brain: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shading taken out by N4 inside the brain mask, then three tissues by Atropos.

    N4: Tustison 2010, doi:10.1109/TMI.2010.2046908. Atropos: Avants 2011, doi:10.1007/s12021-011-9109-y, from
    k-means, with a Markov random field.

    Returns
    -------
    tissues : ndarray (X, Y, Z), uint8
        0 outside the mask, 1 CSF, 2 grey, 3 white matter: the classes by mean value.
    even : ndarray (X, Y, Z), float32
        The scan without its shading.

    Raises
    ------
    ScanError
        When a class is empty.
    """
    import ants

    ants.config.set_ants_deterministic(on=False, seed_value=int(seed) % 2**31 or 1)
    # neither step asks how the head lies
    spacing = [float(value) for value in source.spacing]
    image = ants.from_numpy(np.ascontiguousarray(source.data, np.float32), spacing=spacing)
    mask = ants.from_numpy(brain.astype(np.float32), spacing=spacing)
    shrink = max(1, round(N4_MM / float(source.spacing.mean())))
    even = ants.n4_bias_field_correction(image, mask=mask, shrink_factor=shrink)
    found = ants.atropos(a=even, x=mask, i="kmeans[3]", m="[0.1,1x1x1]", c="[5,0]")["segmentation"].numpy()
    classes, values = found.astype(np.uint8), even.numpy()
    missing = [number for number in TISSUES.values() if not (classes == number).any()]
    if missing:
        raise ScanError(f"Atropos leaves {len(missing)} of three tissues empty")
    order = np.argsort(ndimage.mean(values, classes, list(TISSUES.values())))
    rank = np.zeros(4, np.uint8)
    rank[order + 1] = list(TISSUES.values())
    return rank[classes], values


def map_to_scan(source: SourceImage, reference: Grid, *, seed: int = 0) -> tuple[CoordinateMap, CoordinateMap]:
    """Affine and deformable (SyN) registration of the whole head, see `bids_cpmae.imaging.registration.register`.

    Returns
    -------
    affine, deformable : CoordinateMap
        From the reference's space to the scan's world, on the reference's 4 mm grid.

    Raises
    ------
    ScanError
        When the map is not finite.
    """
    grid = reference.coarser()
    with scratch_folder() as folder:
        found = register(reference, coarse_scan(source.data, source.affine), folder=Path(folder), seed=seed)
        linear = replace(found, forward=[name for name in found.forward if name.endswith(".mat")])
        maps = tuple(each.fixed_to_moving(grid.affine, grid.data.shape) for each in (linear, found))
    if not all(np.isfinite(each.points).all() for each in maps):
        raise ScanError("registration gives no finite map")
    return maps


def head_mask(values: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The largest thing that stands out from the air, without holes; True inside.

    Parameters
    ----------
    values : ndarray (X, Y, Z)
    spacing : ndarray (3,)
        In mm.
    """
    smooth = ndimage.gaussian_filter(np.asarray(values, np.float32), HEAD_SIGMA_MM / np.asarray(spacing))
    smooth = np.clip(smooth, 0, np.percentile(smooth, 98))
    pieces, _ = ndimage.label(smooth > HEAD_SHARE * otsu_threshold(smooth))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    if not sizes.any():
        raise ScanError("nothing stands out from the air")
    return ndimage.binary_fill_holes(pieces == sizes.argmax())


def quality(values: np.ndarray, tissues: np.ndarray, spacing: np.ndarray) -> dict[str, float | None]:
    """Image quality as MRIQC defines it (Esteban 2017, doi:10.1371/journal.pone.0184661).

    As there, on the scan without its shading; other than there, tissues are Atropos' hard classes and not eroded (at
    2 mm little CSF would be left), and the head is `head_mask`'s.

    Parameters
    ----------
    values : ndarray (X, Y, Z)
    tissues : ndarray (X, Y, Z), int
        As in `Products`.
    spacing : ndarray (3,)
        In mm.

    Returns
    -------
    dict of str to float or None
        ``snr_csf``, ``snr_gm``, ``snr_wm``, ``snr_total``, ``cjv``, ``cnr``, ``efc``, ``fber``, ``wm2max``. None where
        a measure is not defined: ``fber`` when most of the air is exactly zero.
    """
    head = head_mask(values, spacing)
    csf, grey, white = (values[tissues == label] for label in TISSUES.values())
    ratios = {"snr_csf": snr(csf), "snr_gm": snr(grey), "snr_wm": snr(white)}
    found = {
        **ratios, "snr_total": float(np.mean(list(ratios.values()))), "cjv": cjv(white, grey),
        "cnr": cnr(white, grey, values[~head]), "efc": efc(values), "fber": fber(values[head], values[~head]),
        "wm2max": wm2max(values, white),
    }  # fmt: skip
    return {name: value if value is not None and np.isfinite(value) else None for name, value in found.items()}


def snr(tissue: np.ndarray) -> float:
    """Signal-to-noise ratio inside a tissue: median over (standard deviation times sqrt(n / (n - 1)))."""
    n = tissue.size
    return float(np.median(tissue) / (np.std(tissue, dtype=np.float64) * np.sqrt(n / (n - 1))))


def cjv(white: np.ndarray, grey: np.ndarray) -> float:
    """Coefficient of joint variation (Ganzetti 2016, doi:10.3389/fninf.2016.00010), by medians and scaled MADs.

    (spread of white + spread of grey) / |white - grey|; lower is better.
    """
    spreads = [np.median(np.abs(part - np.median(part))) / NORMAL_MAD for part in (white, grey)]
    return float(sum(spreads) / abs(np.median(white) - np.median(grey)))


def cnr(white: np.ndarray, grey: np.ndarray, air: np.ndarray) -> float:
    """Contrast-to-noise ratio (Magnotta 2006, doi:10.1007/s10278-006-0264-x).

    |white - grey| / sqrt(variance of air + of white + of grey), by medians; an empty air has no variance.
    """
    noise = sum(np.var(part, dtype=np.float64) for part in (white, grey, air) if part.size)
    return float(abs(np.median(white) - np.median(grey)) / np.sqrt(noise))


def efc(values: np.ndarray) -> float:
    """Entropy focus criterion (Atkinson 1997, doi:10.1109/42.650886): 0 = all in one voxel, 1 = the same everywhere.

    E = -sum (x / m) ln(x / m) with m = sqrt(sum x^2), over its maximum sqrt(N) ln sqrt(N). Negative values count as 0.
    """
    x = np.clip(np.asarray(values, np.float64), 0, None).ravel()
    x = x[x > 0] / np.sqrt(np.sum(x**2))
    root = np.sqrt(values.size)
    return float(-np.sum(x * np.log(x)) / (root * np.log(root)))


def fber(head: np.ndarray, air: np.ndarray) -> float | None:
    """Foreground-background energy ratio (Shehzad 2015): median square in the head over that in the air.

    None without energy in the air, where MRIQC gives -1.
    """
    background = np.median(air.astype(np.float64) ** 2) if air.size else 0.0
    return float(np.median(head.astype(np.float64) ** 2) / background) if background > 0 else None


def wm2max(values: np.ndarray, white: np.ndarray) -> float:
    """Median of white matter over the 99.95th percentile of the whole image."""
    return float(np.median(white) / np.percentile(values, 99.95))
