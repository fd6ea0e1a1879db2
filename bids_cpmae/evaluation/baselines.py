"""De-identified versions of a scan to compare with: nothing done, everything cut, and what is used today.

Each is written with the source's geometry and type, under the work folder, and kept for the next run as long as the
code and weights that made it are the same.
"""

from __future__ import annotations

import ast
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from bids_cpmae.data import PORTRAIT, WEIGHTS
from bids_cpmae.errors import CPMAEError, ExitCode, InputError, ScanError
from bids_cpmae.identity import identity_seed, noise_seed
from bids_cpmae.imaging.nifti import SourceImage, load_source, save_like
from bids_cpmae.processes import one_thread

LOG = logging.getLogger("bids_cpmae")
BLUR_MM = 8.0
SHEAR_BUFFER_MM = 10.0


@dataclass(frozen=True)
class Located:
    """Face and brain of an original: bool on its grid, True = replaced and True = brain."""

    mask: np.ndarray
    brain: np.ndarray


def located(original: Path, work: Path, *, mode: str = "face") -> Located:
    """Where the face of an original lies, remembered in ``work``.

    Raises
    ------
    InputError
        When no face lies in the field of view.
    """
    place = work / "located" / f"{_file_digest(original)}_{mode}_{_code_digest()}.npz"
    if place.is_file():
        with np.load(place) as stored:
            return Located(stored["mask"], stored["brain"])
    from bids_cpmae.imaging.facemask import locate_face

    try:
        found = locate_face(load_source(original), mode=mode)
    except ScanError as error:
        raise InputError(f"{original}: {error}", ExitCode.DATA) from error
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".part.npz")
    np.savez_compressed(partial, mask=found.mask, brain=found.brain)
    partial.replace(place)
    return Located(found.mask, found.brain)


@dataclass(frozen=True)
class Subject:
    """An original and what the methods share of it, worked out when first asked for.

    Attributes
    ----------
    person : str
        ``sub-X``.
    original, work : Path
        The scan, and what is remembered.
    seed : int
    weights : Path, optional
        Of the model that draws new faces; the shipped ones if None.
    """

    person: str
    original: Path
    work: Path
    seed: int
    weights: Path | None = None

    @cached_property
    def source(self) -> SourceImage:
        """The scan."""
        return load_source(self.original)

    @cached_property
    def located(self) -> Located:
        """Face and brain."""
        return located(self.original, self.work)

    @cached_property
    def frame(self):
        """The scan in head space, its face blanked."""
        from bids_cpmae.imaging.align import align_blanked

        return align_blanked(self.source, self.located.mask)

    @property
    def identity(self) -> int:
        """Seed of the new face."""
        return identity_seed(self.seed, self.person.removeprefix("sub-"))

    def kept(self, keep: np.ndarray) -> np.ndarray:
        """Stored values with what lies outside ``keep`` (X, Y, Z; bool) set to a value of 0."""
        stored = self.source.stored.copy()
        zero = -self.source.inter / self.source.slope
        stored.reshape(self.source.shape3)[~keep] = np.rint(zero) if stored.dtype.kind in "iu" else zero
        return stored


def brain_only(subject: Subject) -> np.ndarray:
    """Everything but the registered brain set to zero: what no attack on a face can do better against."""
    return subject.kept(subject.located.brain)


def removed(subject: Subject) -> np.ndarray:
    """The face mask set to zero, what tools like pydeface do."""
    return subject.kept(~subject.located.mask)


def blurred(subject: Subject) -> np.ndarray:
    """The face smoothed by a Gaussian of 8 mm full width at half maximum, inside the mask alone."""
    source, mask = subject.source, subject.located.mask
    soft = gaussian_filter(source.data, BLUR_MM / 2.355 / source.spacing)
    values = (soft[mask] - source.inter) / source.slope
    stored = source.stored.copy()
    stored.reshape(source.shape3)[mask] = np.rint(values) if stored.dtype.kind in "iu" else values
    return stored


def quickshear(subject: Subject) -> np.ndarray:
    """Sheared by the package quickshear (Schimke & Hale 2011), given the registered brain.

    Raises
    ------
    InputError
        When the package is not installed.
    """
    try:
        from quickshear import quickshear as shear
    except ModuleNotFoundError as error:
        raise InputError("quickshear is not installed; pip install 'bids_cpmae[evaluate]'") from error

    source = subject.source
    head = nib.Nifti1Image(np.ones(source.shape3, np.uint8), source.affine)
    brain = nib.Nifti1Image(subject.located.brain.astype(np.uint8), source.affine)
    # its buffer counts voxels along one axis
    kept = shear(head, brain, SHEAR_BUFFER_MM / source.spacing.mean())
    return subject.kept(np.asanyarray(kept.dataobj) > 0)


def average_face(subject: Subject) -> np.ndarray:
    """The template's face warped in, the idea of mri_reface."""
    from bids_cpmae.imaging.headspace import head_affine, head_shape
    from bids_cpmae.imaging.resample import resample
    from bids_cpmae.imaging.template import load_template

    grid = load_template().grid
    return _composed(subject, resample(grid.data, grid.affine, head_affine(), head_shape()))


def cpmae_face(subject: Subject) -> np.ndarray:
    """This project's face mode."""
    from bids_cpmae.model.weights import load_cpmae

    frame, model = subject.frame, load_cpmae(subject.weights)
    head = model.remodel(frame.volume, frame.blank, identity_seed=subject.identity, head_size=frame.head_size)
    return _composed(subject, head)


def _composed(subject: Subject, head: np.ndarray) -> np.ndarray:
    from bids_cpmae.imaging.align import resample_to_scan
    from bids_cpmae.imaging.compose import compose_face

    mask = subject.located.mask
    synthetic = resample_to_scan(subject.frame, head, subject.source, mask)
    return compose_face(subject.source, mask, synthetic, seed=noise_seed(subject.seed, subject.identity))


def cpmae_head(subject: Subject) -> np.ndarray:
    """This project's head mode, the paper's setting: everything but the brain made anew."""
    from bids_cpmae.api import replace_face

    mask = located(subject.original, subject.work, mode="head").mask
    return replace_face(
        subject.source, mask, mode="head", seed=subject.seed, identity=subject.identity, weights=subject.weights
    )


METHODS: dict[str, Callable[[Subject], np.ndarray]] = {
    "brain-only": brain_only,
    "removed": removed,
    "blurred": blurred,
    "quickshear": quickshear,
    "average-face": average_face,
    "cpmae-face": cpmae_face,
    "cpmae-head": cpmae_head,
}


def make_all(
    methods: list[str], originals: dict[str, Path], work: Path, *, seed: int = 0, nprocs: int = 1,
    weights: Path | None = None,
) -> dict[str, dict[str, Path]]:  # fmt: skip
    """Scans by method and person, made unless they are there.

    Parameters
    ----------
    methods : list of str
        Of `METHODS`.
    originals : dict of str to Path
        By ``sub-X``.
    work : Path
    seed : int
    nprocs : int
        People at a time, each in a process of its own.
    weights : Path, optional
        Of the model that draws new faces; the shipped ones if not given.

    Raises
    ------
    InputError
        When a scan cannot be de-identified, named with the reason.
    """
    found = {name: {} for name in methods}
    if not methods:
        return found
    # one at a time: what a subject has worked out is large
    tasks = ((Subject(person, path, work, seed, weights), tuple(methods)) for person, path in originals.items())
    if nprocs == 1:
        results = map(_make_person, tasks)
        return _gather(results, found, len(originals))
    with ProcessPoolExecutor(nprocs, mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        return _gather(pool.map(_make_person, tasks), found, len(originals))


def _gather(results, found: dict, count: int) -> dict:
    for number, (person, files) in enumerate(results, 1):
        for name, path in files.items():
            found[name][person] = path
        LOG.info("%s de-identified in %d ways (%d of %d)", person, len(files), number, count)
    return found


def _make_person(task: tuple) -> tuple[str, dict[str, Path]]:
    subject, methods = task
    original = subject.original
    suffix = ".nii.gz" if original.name.endswith(".gz") else ".nii"
    stem = original.name.removesuffix(suffix).removesuffix("_T1w")
    files = {}
    for name in methods:
        digest = _code_digest(name.startswith("cpmae"), subject.weights)
        folder = subject.work / "methods" / f"{name}_{digest}_seed-{subject.seed}" / subject.person / "anat"
        files[name] = folder / f"{stem}_desc-{name.replace('-', '')}_T1w{suffix}"
        if files[name].is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        try:
            partial = save_like(subject.source, METHODS[name](subject), folder / f"part{suffix}")
        except CPMAEError as error:
            raise InputError(f"{original}: cannot be de-identified by {name}: {error}", ExitCode.DATA) from error
        partial.replace(files[name])
    return subject.person, files


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@lru_cache(maxsize=3)
def _code_digest(model: bool = False, weights: Path | None = None) -> str:
    """Changes with whatever decides how a scan is de-identified: code and template; with ``model`` also the weights
    given, or the shipped ones and the portrait."""
    root = Path(__file__).resolve().parents[1]
    code = [Path(__file__), root / "api.py", root / "identity.py", *sorted((root / "imaging").glob("*.py"))]
    data = [root / "data" / "template.npz"]
    if model:
        code += sorted((root / "model").glob("*.py"))
        data += [weights] if weights else [root / "data" / name for name in (WEIGHTS, PORTRAIT)]
    # comments and layout decide nothing
    parts = [ast.dump(ast.parse(path.read_text(encoding="utf-8"))).encode() for path in code]
    parts += [path.read_bytes() for path in data]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:10]
