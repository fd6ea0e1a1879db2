"""What a scan looks like before anything is registered to it, and what is recognised in it.

Every ``find_...`` takes a `Look` and says in words what it found, or None.
"""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np
from scipy import ndimage

from bids_cpmae.imaging.fields import block_size, blocks
from bids_cpmae.imaging.morphology import filled
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.orientation import turned
from bids_cpmae.imaging.skin import otsu_threshold

# suffixes of BIDS for images of anatomy; the older ones too
ANATOMICAL = frozenset(
    "T1w T2w PDw T2starw FLAIR inplaneT1 inplaneT2 PDT2 angio T2star FLASH PD VFA IRT1 MP2RAGE MESE MEGRE MTR MTS MPM "
    "UNIT1 T1map T2map T2starmap R1map R2map R2starmap PDmap PDT2map MTRmap MTVmap MWFmap MTsat Chimap".split()
)
# in these, air is not dark: it holds noise of any height
NOISY_AIR = ("UNIT1", "map", "MTsat")
# words of DICOM's ImageType
DERIVED_WORDS = {
    "ADC", "TRACEW", "FA", "CBF", "CBV", "SEGMENTATION", "MIP", "MNIP", "PROJECTION IMAGE", "T_MAP", "ZMAP",
}  # fmt: skip
PART_WORDS = {"PHASE", "P", "PHASE MAP", "REAL", "IMAGINARY", "R", "I"}
OTHER_MODALITIES = {"CT", "PT", "NM", "US", "XA", "CR", "DX", "MG", "OT", "SEG"}
# how tools and people write that a face was taken away: in sidecars and in file names; DICOM's code 113102 says it, too
DEFACED = re.compile(r"(?<!inter)(de|re)-?fac(e|ed|er|ing)\b|(de|re)fac|quickshear|recognizable visual|cp-?mae|113102",
                     re.IGNORECASE)  # fmt: skip
STRIPPED = re.compile(r"(?:^|[-_])(?:brain|skullstripped|stripped|bet)(?:$|[-_.])", re.IGNORECASE)

VOXEL_MM = (0.1, 12.0)
LEAST_VIEW_MM, SLAB_MM, MOST_VIEW_MM = 100.0, 30.0, 650.0
MOST_SHEAR, MOST_MISFIT = 0.1, 1.5
LOOK_MM, FINE_MM = 4.0, 2.0
# real heads stand out 16 times from their air and more; noise reaches 1.5
HEAD_SHARE, LEAST_HEAD_ML, LEAST_CONTRAST = 0.6, 300.0, 3.0
# real scans have 170 grey values and more, and 5 to 13 % of neighbours alike; label maps 90 %
LEAST_GREYS, MOST_ALIKE = 16, 0.6
CT_AIR, CT_SHARE, CT_RANGE, MOST_NEGATIVE = -300.0, 0.05, (-1100.0, -850.0), 0.25
# a brain on its own has at most 2 litres, the smallest view of a head seen 2.9
BRAIN_ONLY_ML, BRAIN_BORDER = (300.0, 2300.0), 0.01


class Look:
    """A scan and what is known of it, with the measures that several checks share."""

    def __init__(self, source: SourceImage, suffix: str, metadata: dict) -> None:
        self.source, self.suffix, self.metadata = source, suffix, metadata
        self.name = source.path.name if source.path else "the image given"
        self.view = source.spacing * source.shape3

    @cached_property
    def entities(self) -> str:
        """The file's name without the labels of participant and session, which may be any word."""
        stem = self.name.removesuffix(".gz").removesuffix(".nii") if self.source.path else ""
        return "_".join(part for part in stem.split("_") if not part.startswith(("sub-", "ses-")))

    @cached_property
    def image_type(self) -> set[str]:
        """Words of DICOM's ImageType, in capitals."""
        words = self.metadata.get("ImageType") or ()
        return {str(word).upper().strip() for word in ([words] if isinstance(words, str) else words)}

    @cached_property
    def coarse(self) -> np.ndarray:
        """Values (X, Y, Z) averaged over blocks of about 4 mm."""
        return blocks(self.source.data, block_size(LOOK_MM, self.source.spacing))

    @cached_property
    def background(self) -> float:
        """The commonest value."""
        values, counts = np.unique(self.source.data[::3, ::3, ::3], return_counts=True)
        return float(values[counts.argmax()])

    @property
    def dark_air(self) -> bool:
        """Whether air is dark in scans of this kind."""
        return not self.suffix.endswith(NOISY_AIR)

    def ml(self, mm: float) -> float:
        """Volume in ml of a block of about ``mm``."""
        return float(np.prod(block_size(mm, self.source.spacing) * self.source.spacing)) / 1000


def find_voxels(look: Look) -> str | None:
    """Voxels no head scan has."""
    sizes = look.source.spacing
    if sizes.min() < VOXEL_MM[0] or sizes.max() > VOXEL_MM[1]:
        return f"voxels of {_by(sizes)} mm"
    return None


def find_pixdim(look: Look) -> str | None:
    """An affine and pixdim that do not fit."""
    told = np.abs(np.asarray(look.source.header["pixdim"][1:4], float))
    misfit = np.abs(np.log(np.maximum(told, 1e-6) / look.source.spacing)).max()
    if misfit > np.log(MOST_MISFIT):
        return f"voxels of {_by(look.source.spacing)} mm by the affine, but {_by(told)} mm by pixdim"
    return None


def find_shear(look: Look) -> str | None:
    """Axes that are not at right angles."""
    axes = look.source.affine[:3, :3] / look.source.spacing
    cosines = np.abs(axes.T @ axes - np.eye(3)).max()
    return f"an affine whose axes are not at right angles (cosine {cosines:.2f})" if cosines > MOST_SHEAR else None


def find_orientations(look: Look) -> str | None:
    """qform and sform a quarter turn or a mirror apart."""
    header = look.source.header
    if header["qform_code"] <= 0 or header["sform_code"] <= 0:
        return None
    linear = [affine[:3, :3] for affine in (header.get_qform(), header.get_sform())]
    rotations = [part / np.maximum(np.linalg.norm(part, axis=0), 1e-9) for part in linear]
    # each axis of storage within 45 degrees of the other's
    if np.diag(rotations[0].T @ rotations[1]).min() < np.sqrt(0.5):
        return "qform and sform that turn the head differently"
    return None


def find_view(look: Look) -> str | None:
    """A field of view that holds no head, or a whole body."""
    if look.view.max() < LEAST_VIEW_MM or look.view.min() < SLAB_MM:
        return f"a field of view of {_by(look.view)} mm, too small for a head"
    if look.view.max() > MOST_VIEW_MM:
        return f"a field of view of {_by(look.view)} mm, too large for a head"
    return None


def find_modality(look: Look) -> str | None:
    """A sidecar or suffix of something else than anatomical MRI."""
    modality = str(look.metadata.get("Modality", "")).upper()
    if modality in OTHER_MODALITIES:
        return f"Modality {modality} in its sidecar"
    return f"suffix {look.suffix}, no anatomical MRI" if look.suffix not in ANATOMICAL else None


def find_derived(look: Look) -> str | None:
    """Maps and segmentations, by name or ImageType."""
    found = sorted(look.image_type & DERIVED_WORDS)
    if found:
        return f"a map worked out of other images (ImageType {', '.join(found)})"
    return "a segmentation by its name" if re.search(r"(^|_)(label|seg|atlas)-", look.entities) else None


def find_part(look: Look) -> str | None:
    """One part of complex values."""
    found = sorted(look.image_type & PART_WORDS)
    if found and "M" not in look.image_type:
        return f"a phase, real or imaginary part (ImageType {', '.join(found)})"
    named = re.search(r"part-(phase|real|imag)", look.entities)
    return "a phase, real or imaginary part by its name" if named else None


def find_deidentified(look: Look) -> str | None:
    """Word of an earlier de-identification."""
    parts = [look.metadata.get(key) or "" for key in ("DeidentificationMethod", "DeidentificationMethodCodeSequence")]
    if DEFACED.search(str(parts)) or str(look.metadata.get("SoftwareName", "")) == "bids_cpmae":
        return "a face taken away before, says its sidecar (DeidentificationMethod)"
    return "a face taken away before, says its name" if DEFACED.search(look.entities) else None


def find_told_stripped(look: Look) -> str | None:
    """Word of skull-stripping."""
    if look.metadata.get("SkullStripped") is True:
        return "a brain without its head, says its sidecar (SkullStripped)"
    return "a brain without its head, says its name" if STRIPPED.search(look.entities) else None


def find_tomography(look: Look) -> str | None:
    """Air at -1000 Hounsfield units."""
    thin = look.source.data[::2, ::2, ::2]
    low = thin[thin < CT_AIR]
    share, of_air = low.size / thin.size, float(((low > CT_RANGE[0]) & (low < CT_RANGE[1])).mean()) if low.size else 0.0
    # what lies outside the gantry's circle is filled with one value
    filled = float((low == look.background).mean()) if low.size else 0.0
    return f"{share:.0%} of voxels below {CT_AIR:.0f}, as in CT" if share > CT_SHARE and of_air + filled > 0.5 else None


def find_signed(look: Look) -> str | None:
    """Values on both sides of zero."""
    share = float((look.source.data[::2, ::2, ::2] < 0).mean())
    return f"{share:.0%} of voxels negative, no magnitude image" if look.dark_air and share > MOST_NEGATIVE else None


def find_labels(look: Look) -> str | None:
    """Few values, or large patches of the same."""
    values = look.source.data
    # of a scan a few voxels already hold enough
    for step in (8, 2):
        thin = values[::step, ::step, ::step]
        greys = np.unique(thin[thin != look.background]).size
        if greys >= LEAST_GREYS:
            break
    else:
        return f"only {greys} values besides the background, as in a mask or a label map"
    alike = min(_alike(np.moveaxis(values, axis, 0), look.background) for axis in range(3))
    return f"{alike:.0%} of neighbouring voxels alike, as in a label map" if alike > MOST_ALIKE else None


def _alike(values: np.ndarray, background: float) -> float:
    """Share of neighbours along the first axis with the same value, of those not both background; every fourth pair."""
    first, second = values[:-1:4], values[1::4]
    first = first[: len(second)]
    pairs = (first != background) | (second != background)
    return float((first == second)[pairs].mean()) if pairs.any() else 1.0


def find_no_head(look: Look) -> str | None:
    """Nothing as large as a head, or as bright against its air."""
    if not look.dark_air:
        return None
    coarse = np.clip(look.coarse, None, np.percentile(look.coarse, 98))
    head = _largest(coarse > HEAD_SHARE * otsu_threshold(coarse))
    size = float(head.sum()) * look.ml(LOOK_MM)
    if size < LEAST_HEAD_ML:
        return f"nothing as large as a head: the largest thing in view has {size:.0f} ml"
    air = look.coarse[~head]
    contrast = float(look.coarse[head].mean() / max(air.mean(), 1e-9)) if air.size else 1.0
    return f"no head that stands out from air (contrast {contrast:.1f})" if contrast < LEAST_CONTRAST else None


def find_turned(look: Look) -> str | None:
    """A head that lies otherwise than its header says."""
    name = turned(look.source) if look.dark_air else None
    return f"a head whose right, front and top point to {', '.join(name)} instead of R, A, S" if name else None


def find_brain_only(look: Look) -> str | None:
    """A part of a brain's size, and nothing around it."""
    if not look.dark_air:
        return None
    share = blocks((look.source.data != look.background).astype(np.float32), block_size(FINE_MM, look.source.spacing))
    part = filled(_largest(share >= 0.5))
    size = float(part.sum()) * look.ml(FINE_MM)
    border = sum(int(np.take(part, end, axis).sum()) for axis in range(3) for end in (0, -1)) / max(1, part.sum())
    if BRAIN_ONLY_ML[0] < size < BRAIN_ONLY_ML[1] and border < BRAIN_BORDER:
        return f"{size:.0f} ml surrounded by one constant value: a brain without its head"
    return None


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _by(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
