"""JSON sidecars and dataset descriptions of what is written."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from bids_cpmae import __version__
from bids_cpmae.bids.privacy.sidecars import DATASET, clean_json, shareable

NAME = "bids_cpmae"
METHOD = "Replaced by synthetic voxels (CP-MAE): {regions}. Brain kept bit-identical."
# DICOM PS3.16 CID 7050: the option this software applies to what can be seen in the voxels
METHOD_CODE = {
    "CodeValue": "113102",
    "CodingSchemeDesignator": "DCM",
    "CodeMeaning": "Clean Recognizable Visual Features Option",
}
RAW = "raw"


def read_sidecar(path: Path) -> dict:
    """A JSON object, or nothing where there is none or it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def raw_metadata(root: Path, relative: str) -> dict:
    """Metadata of a raw image by BIDS' inheritance: sidecars from the dataset's root down, the nearest wins.

    A sidecar holds for an image whose name has its suffix and all its entities. Files that cannot be read are passed
    over, so that one broken file stops no run.
    """
    source = PurePosixPath(relative)
    *entities, suffix = source.name.split(".")[0].split("_")
    folders = [PurePosixPath(*source.parts[:depth]) for depth in range(len(source.parts))]
    metadata: dict = {}
    for folder in folders:
        fits = []
        for path in (root / folder).glob(f"*{suffix}.json"):
            *named, last = path.name.removesuffix(".json").split("_")
            if last == suffix and set(named) <= set(entities):
                fits.append((len(named), path))
        for _, path in sorted(fits):
            metadata.update(read_sidecar(path))
    return metadata


def image_sidecar(relative: str, raw: dict, *, settings: dict, regions: str) -> dict:
    """Sidecar of a refaced scan; ``settings`` says how it was made, ``regions`` what was replaced."""
    return {
        **shareable(raw),
        "SkullStripped": False,
        "Sources": [f"bids:{RAW}:{relative}"],
        **deidentification(regions),
        "SoftwareName": NAME,
        "SoftwareVersion": __version__,
        **settings,
    }


def deidentification(regions: str) -> dict:
    """The fields that say what was done to the face."""
    return {
        "DeidentificationMethod": [METHOD.format(regions=regions)],
        "DeidentificationMethodCodeSequence": [METHOD_CODE],
    }


def mask_sidecar(relative: str, regions: str) -> dict:
    """Sidecar of a mask."""
    return {
        "Type": "Face",
        "Description": f"Voxels replaced ({regions}): 1 = replaced by synthetic ones, 0 = identical to the source.",
        "SkullStripped": False,
        "Sources": [f"bids:{RAW}:{relative}"],
    }


def dataset_description(bids_dir: Path) -> dict:
    """``dataset_description.json`` of the derivative; names its source without a path of this machine."""
    raw, _ = clean_json(read_sidecar(bids_dir / "dataset_description.json"), DATASET)
    name = raw.get("Name") or "raw dataset"
    doi = str(raw.get("DatasetDOI") or "")
    if doi and not doi.startswith(("doi:", "http")):
        doi = f"doi:{doi}"
    link = doi or f"urn:bids:{quote(str(name), safe='')}"
    source = {key: value for key, value in (("DOI", doi), ("Version", raw.get("DatasetVersion"))) if value}
    description = {
        "Name": f"{name}, refaced",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": __version__}],
        "SourceDatasets": [source or {"URL": link}],
        "DatasetLinks": {RAW: link},
    }
    if raw.get("License"):
        description["License"] = raw["License"]
    return description
