"""One scan, without BIDS: the same steps, in the same order, as the workflow's."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_cpmae.bids.publish import publish_file
from bids_cpmae.errors import ExitCode, InputError, OutputError
from bids_cpmae.identity import identity_seed, noise_seed, participant_of
from bids_cpmae.imaging.align import align_blanked, resample_to_scan
from bids_cpmae.imaging.certify import Certificate, certify
from bids_cpmae.imaging.compose import compose_face
from bids_cpmae.imaging.facemask import locate_face
from bids_cpmae.imaging.nifti import SourceImage, load_source, save_like, save_mask
from bids_cpmae.imaging.screening import screen, screen_located
from bids_cpmae.model.weights import load_cpmae


@dataclass(frozen=True)
class Refaced:
    """A scan with another face.

    Attributes
    ----------
    image : Nifti1Image
        Type, scaling and geometry as the source's.
    mask : Nifti1Image
        uint8, 1 = replaced.
    certificate : Certificate
    measures : dict of str to float
        Of registration and mask.
    """

    image: nib.Nifti1Image
    mask: nib.Nifti1Image
    certificate: Certificate
    measures: dict[str, float]


def replace_face(
    source: SourceImage,
    mask: np.ndarray,
    *,
    mode: str = "face",
    seed: int = 0,
    identity: int = 0,
    device: str = "cpu",
    weights: Path | None = None,
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

    Returns
    -------
    ndarray
        Of the source's type and shape.
    """
    frame = align_blanked(source, mask)
    model = load_cpmae(weights, resolve_device(device))
    head = model.remodel(frame.volume, frame.blank, mode=mode, identity_seed=identity)
    synthetic = resample_to_scan(frame, head, source, mask)
    return compose_face(source, mask, synthetic, seed=noise_seed(seed, identity))


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
) -> Refaced:
    """Give the head in one scan another face.

    Parameters
    ----------
    image : path or SpatialImage
        A T1w scan of a head.
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

    Returns
    -------
    Refaced

    Raises
    ------
    ScanError
        When the scan cannot be refaced, or the result does not pass its certificate.
    """
    with tempfile.TemporaryDirectory(prefix="bids_cpmae_") as folder:
        made = _reface_into(
            Path(folder), image, "image.nii", "mask.nii", seed=seed, participant=participant, mode=mode,
            regions=regions, device=device, weights=weights, force=force,
        )  # fmt: skip
        images = [made.kind.from_bytes(path.read_bytes()) for path in (made.image, made.mask)]
    return Refaced(images[0], images[1], made.certificate, made.measures)


@dataclass(frozen=True)
class _Made:
    """Certified files in a scratch folder."""

    image: Path
    mask: Path
    certificate: Certificate
    measures: dict[str, float]
    kind: type[nib.Nifti1Image]


def _reface_into(folder, image, name, mask_name, *, seed, participant, mode, regions, device, weights, force) -> _Made:
    source = load_source(image)
    origin = source.path or (image.get_filename() if hasattr(image, "get_filename") else None)
    identity = identity_seed(seed, participant or participant_of(origin))
    screen(source, force=force)
    located = locate_face(source, mode=mode, regions=tuple(regions))
    measures = {**located.measures, **screen_located(source, located, force=force)}
    stored = replace_face(
        source, located.mask, mode=mode, seed=seed, identity=identity, device=device, weights=weights
    )  # fmt: skip
    written = save_like(source, stored, folder / name)
    mask = save_mask(source, located.mask, folder / mask_name)
    certificate = certify(source, written, located.mask, located.brain)
    kind = nib.Nifti2Image if isinstance(source.header, nib.Nifti2Header) else nib.Nifti1Image
    return _Made(written, mask, certificate, measures, kind)


def reface_file(source: Path, target: Path, *, mask_out: Path | None = None, **options) -> Certificate:
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
    options = {**defaults, "weights": None, "force": False, **options}
    with tempfile.TemporaryDirectory(prefix=".bids_cpmae_", dir=target.absolute().parent) as folder:
        names = (f"image_{target.name}", f"mask_{mask_out.name}" if mask_out else "mask.nii")
        made = _reface_into(Path(folder), source, *names, **options)
        if mask_out:
            publish_file(made.mask, mask_out)
        publish_file(made.image, target)
    return made.certificate


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
