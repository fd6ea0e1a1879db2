"""A real person's original is not in a report: a face recogniser looks at every picture in it."""

import base64
import gzip
import re

import nibabel as nib
import numpy as np
import pytest
from report_trees import SETTINGS, pictures

from bids_cpmae.api import reface_file
from bids_cpmae.bids.dataset import start_dataset
from bids_cpmae.bids.publish import publish_scan
from bids_cpmae.bids.verdicts import PASS, Verdict, merge, write_participant
from bids_cpmae.imaging.rendering import View, head_surface, render
from bids_cpmae.report.participant import write_report
from bids_cpmae.report.pictures import FACE_VIEWS, read_volume

pytest.importorskip("dlib", reason="dlib is not installed (pip install 'bids_cpmae[evaluate]')")
PERSON, OTHERS = "IXI033", ("IXI095", "IXI296", "IXI441")
VIEWS = (FACE_VIEWS["front"], FACE_VIEWS["three quarters"], View(yaw=15, light=(-0.3, 0.3, 1), size=320),
         View(yaw=-20, size=320))  # fmt: skip


def faces(images) -> list[np.ndarray]:
    """Descriptions of the faces that are found in pictures."""
    from bids_cpmae.evaluation.recognition import embed, find_face

    found = ((image, find_face(image)) for image in images)
    return [embed(image, box) for image, box in found if box]


def renderings(volume, affine):
    surface = head_surface(volume, affine)
    return [render(surface, view) for view in VIEWS]


def nearest(face, gallery) -> float:
    return min(float(np.linalg.norm(face - other)) for other in gallery if other is not face)


def limit_of(gallery: dict[str, list[np.ndarray]]) -> float:
    """Half way between the farthest likeness of two pictures of a person and the nearest of two people."""
    same = [nearest(face, shown) for shown in gallery.values() for face in shown]
    apart = [nearest(face, gallery[other]) for one, shown in gallery.items() for face in shown
             for other in gallery if other != one]  # fmt: skip
    assert max(same) < min(apart), "the recogniser does not tell these people apart: nothing would be shown by it"
    return (max(same) + min(apart)) / 2


def test_no_picture_is_recognised_as_the_original(real_data, tmp_path):
    scans = {who: real_data / f"ixi2mm/sub-{who}/anat/sub-{who}_T1w.nii.gz" for who in (PERSON, *OTHERS)}
    gallery = {who: faces(renderings(*read_volume(path))) for who, path in scans.items()}
    limit = limit_of(gallery)
    source, out = f"sub-{PERSON}/anat/sub-{PERSON}_T1w.nii.gz", tmp_path / "out"
    image, mask = tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"
    reface_file(scans[PERSON], image, mask_out=mask, participant=PERSON)
    start_dataset(out, real_data / "ixi2mm")
    for name, shown in (("original", scans[PERSON]), ("refaced", image)):
        publish_scan(out, source, image=shown, mask=mask, raw_sidecar={}, settings=SETTINGS, regions="face and ears")
        write_participant(out, PERSON, [Verdict(source, PERSON, None, PASS)])
        merge(out)
        page = write_report(out, PERSON).read_text(encoding="utf-8")
        (volume,) = re.findall(r'<script type="application/gzip" id="volume-[^"]*">([^<]*)</script>', page)
        small = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume)))
        drawn = pictures(page) + renderings(small.get_fdata(dtype=np.float32), small.affine)
        found = faces(drawn)
        assert len(found) >= 4, f"hardly a face is found in the report of the {name} scan"
        likeness = [nearest(face, gallery[PERSON]) for face in found]
        # were the original in a report, this would tell
        assert (min(likeness) < limit) == (name == "original"), (name, likeness, limit)
