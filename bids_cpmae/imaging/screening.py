"""Knowing when not to: scans that cannot be refaced, that hold no face, or that are none to be refaced.

What keeps a file from being read at all is refused by `bids_cpmae.imaging.nifti.load_source`. Here a scan that can be
read is looked at before any registration (`screen`), and its face once it was found (`screen_located`). Each thing
recognised beforehand is one line of `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bids_cpmae.errors import ScanError, SkippedError
from bids_cpmae.imaging import look
from bids_cpmae.imaging.facemask import FaceLocation
from bids_cpmae.imaging.landmarks import Landmarks, face_coverage
from bids_cpmae.imaging.nifti import SourceImage

# intact faces reach 0.01 (a void of dental metal), one cut below the nose 0.18 to 0.30, by where its registration ends,
# those taken away whole 0.39 to 0.79; what quickshear leaves lies anywhere up to 0.56
ALREADY_DEFACED = 0.34
# intact faces: 0.77 to 1.26; blurred by a Gaussian of 4 mm: 0.11
ALREADY_BLURRED = 0.35
LEAST_FACE_SEEN = 0.02
MEND = "mend the header (pixdim, qform, sform), or convert the scan again"
AGAIN = "leave it out, or work it out again from refaced scans"
UNCHECKED = "start from the original scan; what another tool has left of the face is not checked here"


@dataclass(frozen=True)
class Check:
    """One thing recognised before registration.

    Attributes
    ----------
    what : str
        In words.
    find : callable
        From a `bids_cpmae.imaging.look.Look` to what was found, or None.
    way_out : str
        What to do about it.
    skips : bool
        SKIPPED if True, for there is nothing to reface; FAIL if False, for it cannot be done as it is.
    forced : bool
        Whether ``--force`` passes over it.
    """

    what: str
    find: Callable[[look.Look], str | None]
    way_out: str
    skips: bool = True
    forced: bool = True


CHECKS = (
    Check("Another modality or suffix", look.find_modality, "leave it out, or de-identify it by other means"),
    Check("Maps and segmentations by name or ImageType", look.find_derived, AGAIN),
    Check("Phase, real and imaginary parts", look.find_part, "leave it out: it may show the face"),
    Check("De-identified before, by sidecar or name", look.find_deidentified, UNCHECKED),
    Check("Skull-stripped, by sidecar or name", look.find_told_stripped, "see that it shows no face"),
    Check("Absurd voxel sizes", look.find_voxels, MEND, skips=False, forced=False),
    Check("Voxel sizes that contradict each other", look.find_pixdim, MEND, skips=False),
    Check("A sheared affine", look.find_shear, MEND, skips=False),
    Check("qform and sform that contradict each other", look.find_orientations, MEND, skips=False),
    Check("A field of view too small or too large for a head", look.find_view, MEND, skips=False),
    Check("CT", look.find_tomography, "leave it out, or deface it with a tool for CT"),
    Check("Negative values: no magnitude image", look.find_signed, "leave it out, or export the magnitude"),
    Check("Masks and label maps by their values", look.find_labels, AGAIN),
    Check("No head", look.find_no_head, "see whether the scan shows a head at all", skips=False),
    Check("A head that lies otherwise than its header says", look.find_turned, MEND, skips=False),
    Check("Skull-stripped, by its values", look.find_brain_only, "see that it shows no face"),
)


def screen(source: SourceImage, *, suffix: str = "T1w", metadata: dict | None = None, force: bool = False) -> None:
    """Look at a scan before anything is worked out of it.

    Parameters
    ----------
    source : SourceImage
    suffix : str
        Of its BIDS name.
    metadata : dict, optional
        Of its sidecars.
    force : bool
        Pass over what may be passed over.

    Raises
    ------
    SkippedError
        When there is no face in it to replace, or it is none to be refaced.
    ScanError
        When it cannot be refaced as it is. Both messages name the file, what was found and the way out.
    """
    seen = look.Look(source, suffix, metadata or {})
    for check in CHECKS:
        found = None if force and check.forced else check.find(seen)
        if found:
            _refuse(seen.name, found, check.way_out, skips=check.skips, forced=check.forced)


def screen_located(source: SourceImage, located: FaceLocation, *, force: bool = False) -> dict[str, float]:
    """Look at the face that was found, before it is replaced.

    Parameters
    ----------
    source : SourceImage
    located : FaceLocation
        With its ``to_head``.
    force : bool
        Pass over a face that is not there.

    Returns
    -------
    dict of str to float
        Measures for the verdict: ``face_coverage``, ``front_cut_cm2``, ``face_cut``, ``face_detail``, ``brain_signal``
        and ``brain_not_finite``, where they can be told.

    Raises
    ------
    SkippedError
        When the face was taken away before, or lies outside the field of view.
    """
    marks = Landmarks.of(source, located.to_head)
    measures = {
        "face_coverage": face_coverage(source, located.to_head),
        "front_cut_cm2": marks.front_cut(source, located.to_head, located.mask),
        "face_cut": marks.cut(source),
        "face_detail": marks.detail(source),
        "brain_signal": marks.brain_signal(),
        "brain_not_finite": _not_finite(source, located.brain),
    }
    measures = {name: round(value, 4) for name, value in measures.items() if np.isfinite(value)}
    name = source.path.name if source.path else "the image given"
    for found, way_out in [] if force else _pointless(measures):
        _refuse(name, found, way_out, forced=True)
    return measures


def _pointless(measures: dict[str, float]):
    """Why there is no face to replace, and what to do."""
    coverage, cut = measures.get("face_coverage", 1.0), measures.get("face_cut", 0.0)
    if coverage < LEAST_FACE_SEEN:
        yield f"a field of view that holds {coverage:.0%} of the face", "see that it shows no face"
    if cut > ALREADY_DEFACED:
        yield f"a face that was taken away before ({cut:.0%} of it is one constant value)", UNCHECKED
    if measures.get("face_detail", 1.0) < ALREADY_BLURRED:
        yield f"a face that was blurred before ({measures['face_detail']:.0%} of the detail around it)", UNCHECKED


def _refuse(name: str, found: str, way_out: str, *, skips: bool = True, forced: bool) -> None:
    advice = f"{way_out}; --force to go on all the same" if forced else way_out
    raise (SkippedError if skips else ScanError)(f"{name}: {found}; {advice}")


def _not_finite(source: SourceImage, brain: np.ndarray) -> float:
    if source.stored.dtype.kind != "f" or not brain.any():
        return 0.0
    return float((~np.isfinite(source.stored.reshape(source.shape3)[brain])).mean())
