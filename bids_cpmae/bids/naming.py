"""Names of what is written for a scan; every entity of the raw file is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

# entities that the schema orders before `mod`; the others follow it
BEFORE_MOD = ("sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain",
              "rec", "dir", "run")  # fmt: skip

# entities that BIDS grants anatomical images but not their defacemask; the mask of a derivative may have the first two,
# and says the others in its description
NOT_IN_DEFACEMASK = ("echo", "part")
NOT_IN_MASK = ("dir", "flip", "inv", "mt")


@dataclass(frozen=True)
class Outputs:
    """Paths below the output folder, POSIX."""

    image: PurePosixPath
    image_sidecar: PurePosixPath
    mask: PurePosixPath
    mask_sidecar: PurePosixPath

    def __iter__(self):
        return iter((self.image, self.image_sidecar, self.mask, self.mask_sidecar))


def outputs_of(relative: str) -> Outputs:
    """Names for a raw scan, e.g. ``sub-01/anat/sub-01_run-2_T1w.nii.gz``; an image keeps its extension."""
    source = PurePosixPath(relative)
    stem = source.name.removesuffix(".gz").removesuffix(".nii")
    extension = source.name[len(stem) :]
    *entities, suffix = stem.split("_")
    before = [part for part in entities if part.split("-")[0] in BEFORE_MOD]
    after = [part for part in entities if part.split("-")[0] not in BEFORE_MOD]
    image = "_".join([*entities, "desc-refaced", suffix])
    mask = "_".join([*before, f"mod-{suffix}", *after, "desc-face", "defacemask"])
    told = [part.replace("-", "") for part in entities if part.split("-")[0] in NOT_IN_MASK]
    if told or any(part.split("-")[0] in NOT_IN_DEFACEMASK for part in entities):
        kept = [part for part in entities if part.split("-")[0] not in NOT_IN_MASK]
        mask = "_".join([*kept, f"desc-face{suffix}{''.join(told)}", "mask"])
    folder = source.parent
    return Outputs(
        folder / f"{image}{extension}", folder / f"{image}.json", folder / f"{mask}.nii.gz", folder / f"{mask}.json"
    )
