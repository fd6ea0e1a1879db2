"""Which files of a raw dataset can be shared, by their names alone; and what is left out, with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from bids_validator import BIDSValidator

from bids_cpmae.bids.leaks import walk
from bids_cpmae.bids.privacy.names import telling_file

IMAGES = (".nii", ".nii.gz")
GRADIENTS = (".bval", ".bvec")
# not part of raw data, or written by tools for themselves
FOLDERS = {
    "sourcedata": "source data: scanner files and originals",
    "derivatives": "computed from originals, whose faces it may hold",
    "code": "not looked into: scripts are full of paths, names and dates",
    "docs": "not looked into",
    "logs": "not looked into",
}
# formats whose headers hold names, dates and head shapes that are not cleaned here
DATATYPES = {
    **dict.fromkeys(("eeg", "ieeg", "meg", "nirs", "emg"), "recordings whose files name people and dates; not cleaned"),
    "micr": "microscopy files are not cleaned",
    "mrs": "spectroscopy keeps its metadata in a header extension, which is not cleaned",
}
ORIGINAL_MASK = "drawn on the original face"
NOT_BIDS = "no part of BIDS"
PHOTO = "a photograph"
FORMAT = "a format that is not cleaned"
# folder names that say nothing of anybody
PLAIN = ("anat", "func", "dwi", "fmap", "perf", "pet", "beh", "motion", "phenotype", "stimuli")
SINGLE_FILES = ("README", "CHANGES", "LICENSE", "CITATION.cff", "genetic_info.json", "dataset_description.json")


@dataclass(frozen=True)
class Raw:
    """Files of a raw dataset.

    Attributes
    ----------
    root : Path
    kept : tuple of str
        POSIX paths of what can be shared once it is cleaned.
    left_out : dict of str to str
        Paths and reasons; a folder that is left out whole ends with ``/``.
    """

    root: Path
    kept: tuple[str, ...]
    left_out: dict[str, str]

    @cached_property
    def participants(self) -> tuple[str, ...]:
        """Labels without ``sub-``, of all folders."""
        found = (path.name for path in self.root.glob("sub-*") if path.is_dir())
        return tuple(sorted(name.removeprefix("sub-") for name in found))

    def of(self, participant: str) -> list[str]:
        """Files of one participant."""
        return [path for path in self.kept if path.startswith(f"sub-{participant}/")]

    @property
    def shared(self) -> list[str]:
        """Files of the dataset as a whole."""
        return [path for path in self.kept if not path.startswith("sub-")]


def plan(root: Path) -> Raw:
    """Sort the files of a dataset; nothing but names is looked at."""
    kept, left_out = [], {}
    for folder, folders, names in walk(root):
        here = PurePosixPath(folder.relative_to(root).as_posix())
        for name in list(folders):
            reason = _folder_reason(here, name)
            if reason:
                left_out[f"{here / name}/"] = reason
                folders.remove(name)
        for name in names:
            relative = str(here / name)
            reason = file_reason(relative)
            if reason:
                left_out[relative] = reason
            else:
                kept.append(relative)
    return Raw(root, tuple(kept), left_out)


def _folder_reason(here: PurePosixPath, name: str) -> str | None:
    if name.startswith("."):
        return "hidden"
    if not here.parts:
        if name in FOLDERS:
            return FOLDERS[name]
        return None if name.startswith("sub-") or name in ("stimuli", "phenotype") else NOT_BIDS
    return DATATYPES.get(name) if here.parts[0].startswith("sub-") else None


@lru_cache(maxsize=1)
def _validator() -> BIDSValidator:
    return BIDSValidator()


def file_reason(relative: str) -> str | None:
    """Why a file is left out, or None."""
    path = PurePosixPath(relative)
    if telling_file(path.name):
        return "scanner, system or crash file"
    if not _validator().is_bids(f"/{relative}"):
        return NOT_BIDS
    if path.parts[0] == "stimuli":
        return None
    if len(path.parts) == 1:
        single = path.name in SINGLE_FILES or path.stem in ("README", "CHANGES", "LICENSE")
        return None if single or path.suffix in (".tsv", ".json", *GRADIENTS) else FORMAT
    suffix = suffix_of(relative)
    if suffix == "photo":
        return PHOTO
    if suffix == "defacemask":
        return ORIGINAL_MASK
    return None if path.name.endswith((*IMAGES, ".tsv", ".tsv.gz", ".json", *GRADIENTS)) else FORMAT


def suffix_of(relative: str) -> str:
    """BIDS suffix, e.g. ``T1w``."""
    return PurePosixPath(relative).name.split(".")[0].split("_")[-1]


def is_image(relative: str) -> bool:
    """Whether a file is a NIfTI image."""
    return relative.endswith(IMAGES)


def is_anatomical(relative: str) -> bool:
    """Whether a file is an image in an ``anat`` folder."""
    return is_image(relative) and PurePosixPath(relative).parent.name == "anat"


def is_data(relative: str) -> bool:
    """Whether a file is one that sidecars describe: an image, a recording or a table of data."""
    described = is_image(relative) or relative.endswith((".tsv", ".tsv.gz"))
    return described and suffix_of(relative) not in ("scans", "sessions")


def applies(sidecar: str, data: str) -> bool:
    """BIDS' inheritance: a JSON, bval or bvec file holds for files below it with its suffix and all its entities."""
    above, below = PurePosixPath(sidecar), PurePosixPath(data)
    if above.parent != below.parent and above.parent not in below.parents:
        return False
    *entities, suffix = above.name.split(".")[0].split("_")
    *having, last = below.name.split(".")[0].split("_")
    return suffix == last and set(entities) <= set(having)


def sidecar_for(data: str, sidecars: list[str]) -> str:
    """The JSON file nearest to an image that may speak of it alone: beside it, else a new one beside it.

    A folder may hold one JSON file for several images; a second one for one of them would be against BIDS.
    """
    path = PurePosixPath(data)
    beside = [one for one in sidecars if PurePosixPath(one).parent == path.parent and applies(one, data)]
    own = str(path.parent / f"{path.name.split('.')[0]}.json")
    return own if own in beside or not beside else beside[0]


def summary(left_out: dict[str, str]) -> Counter:
    """Left-out files as patterns, since names that BIDS has not made may name people: ``sub-01/anat/*.pdf``."""
    counts: Counter = Counter()
    for relative, reason in left_out.items():
        path = PurePosixPath(relative)
        if relative.endswith("/"):
            known = path.name in FOLDERS or path.name in DATATYPES
            pattern = relative if known else f"{path.parent}/*/"
        else:
            known = _validator().is_bids(f"/{relative}")
            pattern = relative if known else f"{_safe(path.parent)}/*{path.suffix}"
        counts[(pattern.lstrip("./"), reason)] += 1
    return counts


def _safe(folder: PurePosixPath) -> str:
    good = [part for part in folder.parts if part.startswith(("sub-", "ses-")) or part in PLAIN]
    return "/".join(good) if len(good) == len(folder.parts) else "/".join([*good, "*"])
