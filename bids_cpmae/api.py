"""One scan, without BIDS: the same steps, in the same order, as the workflow's."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_cpmae.bids.publish import publish_file
from bids_cpmae.bids.reference import ON_AVERAGE_HEAD, REFERENCE
from bids_cpmae.bids.verdicts import MEASURES, judged_with, refuse_failed
from bids_cpmae.errors import ExitCode, InputError, OutputError
from bids_cpmae.identity import identity_seed, noise_seed, participant_of, suffix_of
from bids_cpmae.imaging.align import align_blanked, resample_to_scan, stand_in
from bids_cpmae.imaging.certify import Certificate, certify
from bids_cpmae.imaging.contrast import Anatomy, Stage
from bids_cpmae.imaging.facemask import locate_face
from bids_cpmae.imaging.look import ANATOMICAL
from bids_cpmae.imaging.nifti import SourceImage, load_source, save_like, save_mask
from bids_cpmae.imaging.quality import measure_quality
from bids_cpmae.imaging.recolour import compose_series, recolour
from bids_cpmae.imaging.screening import screen, screen_located
from bids_cpmae.model.weights import load_cpmae


@dataclass(frozen=True)
class Judged:
    """What is said of a scan that was refaced.

    Attributes
    ----------
    certificate : Certificate
    measures : dict of str to float
        By the names of `bids_cpmae.bids.verdicts.MEASURES`.
    verdict : {"PASS", "REVIEW"}
        By these measures; a scan that fails is not refaced.
    reason : str
        What to look at, where it is not PASS.
    """

    certificate: Certificate
    measures: dict[str, float]
    verdict: str
    reason: str


@dataclass(frozen=True)
class Refaced:
    """A scan with another face.

    Attributes
    ----------
    image : Nifti1Image
        Type, scaling and geometry as the source's.
    mask : Nifti1Image
        uint8, 1 = replaced.
    certificate, measures, verdict, reason
        As in `Judged`.
    """

    image: nib.Nifti1Image
    mask: nib.Nifti1Image
    certificate: Certificate
    measures: dict[str, float]
    verdict: str
    reason: str


def replace_face(
    source: SourceImage,
    mask: np.ndarray,
    *,
    mode: str = "face",
    seed: int = 0,
    identity: int = 0,
    device: str = "cpu",
    weights: Path | None = None,
    suffix: str = REFERENCE,
) -> np.ndarray:
    """From a scan and the mask of its face to the values to store.

    What stands under the mask is never read: given the mask, the result is a function of the other voxels alone.

    Parameters
    ----------
    source : SourceImage
    mask : ndarray (X, Y, Z), bool
        True = replaced.
    mode : {"face", "head"}
    seed, identity : int
        Of noise and registration; of the new face.
    device : {"auto", "cpu", "cuda"}
    weights : Path, optional
        The shipped ones if not given.
    suffix : str
        BIDS suffix. Where it is not T1w, the face is drawn on an average head laid on the scan, and shown in the
        scan's own contrast.

    Returns
    -------
    ndarray
        Of the source's type and shape.
    """
    return _replace(source, mask, mode, seed, identity, device, weights, suffix)[0]


def _replace(source, mask, mode, seed, identity, device, weights, suffix) -> tuple[np.ndarray, dict[str, float]]:
    """`replace_face`, and measures of the new face's contrast where it is not that of a T1w scan."""
    foreign = suffix != REFERENCE
    frame = align_blanked(source, mask, alike=not foreign)
    if foreign:
        frame = stand_in(frame)
    model = load_cpmae(weights, resolve_device(device))
    head = model.remodel(frame.volume, frame.blank, mode=mode, identity_seed=identity, head_size=frame.head_size)
    if foreign:
        stage = Stage.of(source, mask, Anatomy.of(frame, head), frame.to_head)
        return recolour(source, mask, stage, seed=noise_seed(seed, identity))
    synthetic = resample_to_scan(frame, head, source, mask)
    return compose_series(source, mask, synthetic, seed=noise_seed(seed, identity)), {}


def resolve_device(device: str) -> str:
    """``auto`` to ``cuda`` where there is one, else ``cpu``."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def reface(
    image: str | os.PathLike | nib.spatialimages.SpatialImage,
    *,
    seed: int = 0,
    participant: str | None = None,
    mode: str = "face",
    regions: tuple[str, ...] = ("face", "ears"),
    device: str = "cpu",
    weights: Path | None = None,
    force: bool = False,
    suffix: str | None = None,
) -> Refaced:
    """Give the head in one scan another face.

    Parameters
    ----------
    image : path or SpatialImage
        An anatomical scan of a head, best a T1w one.
    seed : int
        The same scan, seed and participant give the same voxels, here and in a BIDS run.
    participant : str, optional
        Label that decides, with the seed, who the new face is; read from a BIDS file name if not given.
    mode : {"face", "head"}
        Replace the face, or all that is not brain.
    regions : tuple of {"face", "ears"}
        What ``face`` mode replaces.
    device : {"auto", "cpu", "cuda"}
    weights : Path, optional
        The shipped ones if not given.
    force : bool
        Reface what screening would leave alone.
    suffix : str, optional
        BIDS suffix, which names the contrast; read from a BIDS file name if not given, T1w where that names none. The
        face of another contrast is drawn without a T1w scan, which a BIDS run would use: the verdict is REVIEW.

    Returns
    -------
    Refaced

    Raises
    ------
    ScanError
        When the scan cannot be refaced, or the result does not pass its certificate or fails by its measures.
    """
    with tempfile.TemporaryDirectory(prefix="bids_cpmae_") as folder:
        made = _reface_into(
            Path(folder), image, "image.nii", "mask.nii", seed=seed, participant=participant, mode=mode,
            regions=regions, device=device, weights=weights, force=force, suffix=suffix,
        )  # fmt: skip
        images = [made.kind.from_bytes(path.read_bytes()) for path in (made.image, made.mask)]
    said = made.judged
    return Refaced(*images, said.certificate, said.measures, said.verdict, said.reason)


@dataclass(frozen=True)
class _Made:
    """Certified files in a scratch folder."""

    image: Path
    mask: Path
    judged: Judged
    kind: type[nib.Nifti1Image]


def _reface_into(
    folder, image, name, mask_name, *, seed, participant, mode, regions, device, weights, force, suffix
) -> _Made:
    source = load_source(image)
    origin = source.path or (image.get_filename() if hasattr(image, "get_filename") else None)
    identity = identity_seed(seed, participant or participant_of(origin))
    told = suffix_of(origin)
    suffix = suffix or (told if told in ANATOMICAL else REFERENCE)
    screen(source, suffix=suffix, force=force)
    located = locate_face(source, mode=mode, regions=tuple(regions), alike=suffix == REFERENCE)
    measures = {**located.measures, **screen_located(source, located, force=force)}
    named = source.path.name if source.path else "the image given"
    refuse_failed(measures, named)
    stored, composed = _replace(source, located.mask, mode, seed, identity, device, weights, suffix)
    written = save_like(source, stored, folder / name)
    mask = save_mask(source, located.mask, folder / mask_name)
    certificate = certify(source, written, located.mask, located.brain)
    found = measure_quality(source, stored, located.mask, to_head=located.to_head, regions=tuple(regions))
    measures = {**measures, **composed, **certificate.as_dict(), **found}
    measures = {name: measures[name] for name in MEASURES if name in measures}
    refuse_failed(measures, named)
    verdict, reason = judged_with("" if suffix == REFERENCE else ON_AVERAGE_HEAD, measures)
    kind = nib.Nifti2Image if isinstance(source.header, nib.Nifti2Header) else nib.Nifti1Image
    return _Made(written, mask, Judged(certificate, measures, verdict, reason), kind)


def reface_file(source: Path, target: Path, *, mask_out: Path | None = None, **options) -> Judged:
    """Reface one file into another, atomically; ``options`` are those of `reface`.

    Raises
    ------
    OutputError
        When the target is the source, is no NIfTI name, or cannot be written.
    InputError
        When there is no source.
    ScanError
        As `reface`.
    """
    source, target = Path(source), Path(target)
    mask_out = Path(mask_out) if mask_out else None
    if not (source.exists() or source.is_symlink()):
        raise InputError(f"{source}: no such file; check the path", ExitCode.NO_INPUT)
    for path in filter(None, (target, mask_out)):
        _check_target(path, source)
    if mask_out and mask_out.resolve() == target.resolve():
        raise OutputError(f"{target}: image and mask would be the same file; choose another name for one")
    defaults = {"seed": 0, "participant": None, "mode": "face", "regions": ("face", "ears"), "device": "cpu"}
    options = {**defaults, "weights": None, "force": False, "suffix": None, **options}
    with tempfile.TemporaryDirectory(prefix=".bids_cpmae_", dir=target.absolute().parent) as folder:
        names = (f"image_{target.name}", f"mask_{mask_out.name}" if mask_out else "mask.nii")
        made = _reface_into(Path(folder), source, *names, **options)
        if mask_out:
            publish_file(made.mask, mask_out)
        publish_file(made.image, target)
    return made.judged


def _check_target(path: Path, source: Path) -> None:
    if not path.name.endswith((".nii", ".nii.gz")):
        raise OutputError(f"{path}: name the output .nii or .nii.gz")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{path}: its folder does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: its folder cannot be written to; choose another")
    if path.resolve() == source.resolve():
        raise OutputError(f"{path}: the output would overwrite the input; choose another name")
