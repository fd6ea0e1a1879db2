"""Which scan of a participant the new face is drawn from, and which scan every other one is aligned to."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

REFERENCE = "T1w"
ON_AVERAGE_HEAD = "no T1w scan could be used, so the face was drawn on an average head laid on this scan"
# without any T1w scan, these are tried first
NEXT = ("UNIT1", "T2w", "FLAIR", "PDw")
# files that differ in nothing but these entities come from one acquisition: one alignment, one mask, one face
SERIES = ("echo", "part", "inv")
NO_MAGNITUDE = ("phase", "real", "imag")


@dataclass(frozen=True)
class Scan:
    """One scan of a raw dataset.

    Attributes
    ----------
    path : Path
        The image, not resolved: a DataLad link stays a link.
    relative : str
        POSIX path below the dataset.
    participant, session : str, str or None
        Labels.
    suffix : str
        BIDS suffix.
    entities : dict of str to str
        As in the file's name, by their short keys.
    reference : Scan or None
        The scan this one is aligned to, which may have a reference of its own; None where the participant's new face
        is drawn from this one.
    lead : Scan or None
        The scan of the same series whose alignment holds for this one, too.
    """

    path: Path
    relative: str
    participant: str
    session: str | None
    suffix: str = REFERENCE
    entities: dict[str, str] = field(default_factory=dict)
    reference: Scan | None = None
    lead: Scan | None = None

    @property
    def stem(self) -> str:
        """File name without its extension."""
        return self.path.name.removesuffix(".gz").removesuffix(".nii")

    @property
    def origin(self) -> Scan:
        """The scan that the new face is drawn from; itself, where that is so."""
        return self.reference.origin if self.reference else self

    @property
    def series(self) -> tuple:
        """What files of one acquisition have in common."""
        kept = tuple(sorted((key, value) for key, value in self.entities.items() if key not in SERIES))
        return self.participant, self.session, self.suffix, kept


def entities_of(name: str) -> dict[str, str]:
    """Entities of a BIDS file name by their short keys, e.g. ``{"sub": "01", "echo": "2"}``."""
    parts = name.split(".")[0].split("_")[:-1]
    return {key: value for key, _, value in (part.partition("-") for part in parts) if value}


def shape_of(path: Path) -> tuple[int, ...]:
    """Stored shape of an image; (0,) where its header cannot be read."""
    import nibabel as nib

    try:
        return tuple(int(size) for size in nib.load(path).shape)
    except Exception:
        return (0,)


def extent(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Voxel size and field of view (3,) in mm along right-left, back-front and down-up, by the header alone."""
    import nibabel as nib

    try:
        image = nib.load(path)
        affine, shape = np.asarray(image.affine, float), np.array(image.shape[:3])
        axes = nib.orientations.io_orientation(affine)[:, 0].astype(int)
    except Exception:
        # whatever is wrong with it is told where the scan itself is read
        return None
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if len(shape) < 3 or sorted(axes) != [0, 1, 2]:
        return None
    order = np.argsort(axes)
    return sizes[order], (sizes * shape)[order]


def rank(scan: Scan) -> tuple:
    """Order in which scans are preferred as a reference; smaller is better, and no two are alike.

    T1w before others, magnitudes before other parts, before contrast agent rather than after it, then the smaller
    longest side of a voxel (to a tenth of a mm), then the smaller voxel, then the path.
    """
    others = NEXT.index(scan.suffix) if scan.suffix in NEXT else len(NEXT)
    seen = extent(scan.path)
    size = (np.inf, np.inf) if seen is None else (round(float(seen[0].max()), 1), round(float(seen[0].prod()), 1))
    return (
        scan.suffix != REFERENCE, 0 if scan.suffix == REFERENCE else others,
        scan.entities.get("part") in NO_MAGNITUDE, "ce" in scan.entities, *size, scan.relative,
    )  # fmt: skip


def assign_references(scans: Iterable[Scan], candidates: Iterable[Scan]) -> list[Scan]:
    """Give every scan its reference and its lead.

    A participant's face is drawn from the candidate that `rank` puts first. A session's first T1w scan is aligned to
    it, and all other scans of the session to that one; those of sessions without a T1w scan to the participant's.

    Parameters
    ----------
    scans : iterable of Scan
        Those to reface.
    candidates : iterable of Scan
        Those that may be references, of the same participants.

    Returns
    -------
    list of Scan
        In the order given.
    """
    scans, ranked = list(scans), sorted({scan.relative: scan for scan in candidates}.values(), key=rank)
    ranked = [replace(scan, reference=None, lead=None) for scan in ranked]
    origins: dict[str, Scan] = {}
    anchors: dict[tuple, Scan] = {}
    for scan in ranked:
        origin = origins.setdefault(scan.participant, scan)
        if scan.suffix == REFERENCE:
            anchors.setdefault((scan.participant, scan.session), _after(scan, origin))
    leads: dict[tuple, Scan] = {}
    for scan in sorted(scans, key=lambda one: (one.entities.get("part") in NO_MAGNITUDE, one.relative)):
        leads.setdefault(scan.series, scan)
    return [_placed(scan, leads[scan.series], origins, anchors) for scan in scans]


def _after(scan: Scan, reference: Scan) -> Scan:
    return replace(scan, reference=None if scan.relative == reference.relative else reference)


def _placed(scan: Scan, lead: Scan, origins: dict, anchors: dict) -> Scan:
    origin = origins.get(scan.participant)
    scan = replace(scan, reference=None, lead=None)
    if origin is None or scan.relative == origin.relative:
        return scan
    anchor = anchors.get((scan.participant, scan.session), origin)
    reference = origin if scan.relative == anchor.relative else anchor
    # the lead of a series may itself be what the others are aligned to, as in an echo of a multi-echo T1w
    led = lead.relative not in (scan.relative, reference.relative, origin.relative)
    return replace(scan, reference=reference, lead=_placed(lead, lead, origins, anchors) if led else None)


def needed(scans: Collection[Scan]) -> list[Scan]:
    """Scans, and all that they are aligned to or led by, each once, in the order of their paths."""
    found: dict[str, Scan] = {}
    queue = list(scans)
    while queue:
        scan = queue.pop()
        found.setdefault(scan.relative, scan)
        queue += [other for other in (scan.reference, scan.lead) if other and other.relative not in found]
    return [found[name] for name in sorted(found)]
