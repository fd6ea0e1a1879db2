"""Output trees to report on, made with the project's own functions: small phantom heads in place of refaced ones."""

import base64
import io
import re
from html import unescape
from pathlib import Path

import numpy as np
from bids_trees import write_dataset
from phantoms import Case, make_phantom
from PIL import Image

from bids_cpmae.bids.atomic import write_text
from bids_cpmae.bids.dataset import start_dataset
from bids_cpmae.bids.publish import publish_scan
from bids_cpmae.bids.verdicts import FAIL, LOGS, PASS, Verdict, merge, write_participant
from bids_cpmae.imaging.nifti import load_source, save_like, save_mask

SMALL = Case(shape=(34, 38, 36))
SETTINGS = {"RandomSeed": 7, "IdentitySeed": 5, "Mode": "face", "WeightsVersion": "f00dcafe"}
METHODS = "The face of every scan was replaced by bids_cpmae (Van der Goten & Smith 2024)."


def publish_phantom(out: Path, scratch: Path, source: str, case: Case = SMALL) -> None:
    """Write a phantom and its mask as what was made of a raw scan."""
    folder = scratch / source.replace("/", "_")
    folder.mkdir(parents=True)
    phantom = make_phantom(folder, case)
    scan = load_source(phantom.path)
    image, mask = folder / "image.nii.gz", folder / "mask.nii.gz"
    save_like(scan, scan.stored, image)
    save_mask(scan, phantom.face, mask)
    publish_scan(out, source, image=image, mask=mask, raw_sidecar={}, settings=SETTINGS, regions="face and ears")


def measures(number: int) -> dict[str, float]:
    """Ordinary ones, a little different for each number."""
    rng = np.random.default_rng(number)
    return {"registration_correlation": float(rng.normal(0.95, 0.01)), "mask_share": float(rng.normal(0.13, 0.01)),
            "brain_ml": float(rng.normal(1450, 100)), "voxels_total": 46512, "brain_voxels_changed": 0}  # fmt: skip


def add_scan(out: Path, participant: str, verdict: str = PASS, reason: str = "", suffix: str = "T1w", **more) -> str:
    """A line in a participant's table; returns the scan's name."""
    source = f"sub-{participant}/anat/sub-{participant}_{suffix}.nii.gz"
    values = {} if verdict == FAIL else {**measures(sum(map(ord, source))), **more}
    write_participant(out, participant, [Verdict(source, participant, None, verdict, reason, values)])
    return source


def write_tree(root: Path) -> Path:
    """sub-01 with a T1w that passed and a T2w that failed, and nine more known by their lines alone."""
    out = root / "out"
    start_dataset(out, write_dataset(root / "raw", "sub-01/anat/sub-01_T1w.nii.gz"))
    publish_phantom(out, root / "made", "sub-01/anat/sub-01_T1w.nii.gz")
    add_scan(out, "01")
    add_scan(out, "01", FAIL, "truncated; restore the file", "T2w")
    for number in range(2, 11):
        add_scan(out, f"{number:02d}")
    merge(out)
    write_text(out / LOGS / "CITATION.md", f"# Methods, in words\n\n{METHODS}\n")
    return out


def addresses(page: str, kind: str) -> list[bytes]:
    """Contents of the ``data:`` addresses of a kind in a page."""
    return [base64.b64decode(text) for text in re.findall(rf"data:{kind};base64,([A-Za-z0-9+/=]+)", page)]


def pictures(page: str) -> list[np.ndarray]:
    """Grey pictures in a page (rows, columns), uint8, in their order."""
    return [np.asarray(Image.open(io.BytesIO(content)).convert("L")) for content in addresses(page, "image/webp")]


def outlines(page: str) -> list[np.ndarray]:
    """Outlines in a page (rows, columns), bool."""
    return [np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))[..., 3] > 0
            for content in addresses(page, "image/png")]  # fmt: skip


def words(page: str) -> str:
    """What a reader reads: no tags, styles or scripts."""
    bare = re.sub(r"<(style|script).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())
