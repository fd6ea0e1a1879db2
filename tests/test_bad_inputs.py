"""Every kind of bad input through the real command line: its verdict, its message, its exit code, and nothing left.

One participant a kind, all in one run; files that no dataset would list are read directly.
"""

import csv
import json
import re
import shutil

import bad_inputs as bad
import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset, write_tiny_weights
from leftovers import Original, leftovers

from bids_cpmae.bids.verdicts import FAIL, REVIEW, SKIPPED, judge
from bids_cpmae.cli import main
from bids_cpmae.errors import ScanError, SkippedError
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.screening import screen, screen_located

# kind: verdict, words of the reason
FILES = {
    bad.truncated: (FAIL, "restore the file"), bad.corrupted: (FAIL, "restore the file"),
    bad.short_of_voxels: (FAIL, "truncated"), bad.empty_file: (FAIL, "file is empty"),
    bad.not_nifti: (FAIL, "convert it"), bad.not_fetched: (FAIL, "datalad get"),
    bad.dangling_link: (FAIL, "datalad get"), bad.no_orientation: (FAIL, "repair the header"),
    bad.singular_affine: (FAIL, "repair the header"),
}  # fmt: skip
IMAGES = {
    bad.colours: (FAIL, "RGB"), bad.complex_values: (FAIL, "complex"),
    bad.few_slices: (FAIL, "too few"), bad.all_nan: (FAIL, "NaN"), bad.constant: (FAIL, "same value"),
    bad.in_metres: (FAIL, "repair the header"), bad.of_a_fly: (FAIL, "voxels of"),
    bad.of_a_mouse: (FAIL, "too small for a head"), bad.of_a_giant: (FAIL, "too large for a head"),
    bad.pixdim_contradicts: (FAIL, "pixdim"), bad.sheared: (FAIL, "right angles"),
    bad.forms_contradict: (FAIL, "qform and sform"), bad.back_to_front: (FAIL, "point to L, P, S"),
    bad.upside_down: (FAIL, "point to L, A, I"), bad.lying_on_its_side: (FAIL, "point to"),
    bad.noise_alone: (FAIL, "no head"), bad.a_phantom_bottle: (FAIL, "as large as a head"),
    bad.brain_alone: (SKIPPED, "brain without its head"), bad.mask_image: (SKIPPED, "label map"),
    bad.label_map: (SKIPPED, "label map"), bad.hounsfield: (SKIPPED, "CT"), bad.phase: (SKIPPED, "magnitude"),
    bad.defaced: (SKIPPED, "taken away before"), bad.blurred: (SKIPPED, "blurred before"),
}  # fmt: skip
SIDECARS = {
    "Modality": ("CT", SKIPPED, "Modality CT"),
    "ImageType": (["DERIVED", "PRIMARY", "ADC"], SKIPPED, "map"),
    "SkullStripped": (True, SKIPPED, "brain without its head"),
    "DeidentificationMethod": (["pydeface 2.0"], SKIPPED, "original scan"),
    "SoftwareName": ("bids_cpmae", SKIPPED, "original scan"),
}
NAMES = {
    "part-phase": (SKIPPED, "phase"), "rec-defaced": (SKIPPED, "taken away before"), "acq-brain": (SKIPPED, "brain"),
}  # fmt: skip
KINDS = {
    **{kind.__name__: found for kind, found in {**FILES, **IMAGES}.items()},
    **{f"sidecar {key}": found for key, (_, *found) in SIDECARS.items()},
    **{f"name {words}": found for words, found in NAMES.items()},
}


def label(kind: str) -> str:
    """A participant's label for a kind."""
    return re.sub("[^A-Za-z0-9]", "", kind)


def scan_path(root, kind):
    words = f"_{kind.removeprefix('name ')}" if kind.startswith("name ") else ""
    return root / f"sub-{label(kind)}" / "anat" / f"sub-{label(kind)}{words}_T1w.nii.gz"


def app(place, *more):
    words = [place / "raw", place / "out", "participant", "-w", place / "work", "--nprocs", 2, "--omp-nthreads", 1,
             "--device", "cpu", "--skip-bids-validation", "--model-weights", place / "tiny.safetensors"]  # fmt: skip
    return main([str(word) for word in [*words, *more]])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataset with every kind of bad input, after a run."""
    place = tmp_path_factory.mktemp("bad inputs")
    raw = write_dataset(place / "raw")
    nib.save(bad.head(), place / "head.nii.gz")
    for kind in KINDS:
        scan_path(raw, kind).parent.mkdir(parents=True)
    for kind in IMAGES:
        nib.save(kind(), scan_path(raw, kind.__name__))
    for kind in FILES:
        shutil.copy(place / "head.nii.gz", scan_path(raw, kind.__name__))
        kind(scan_path(raw, kind.__name__))
    for words in NAMES:
        shutil.copy(place / "head.nii.gz", scan_path(raw, f"name {words}"))
    for key, (value, *_) in SIDECARS.items():
        path = scan_path(raw, f"sidecar {key}")
        shutil.copy(place / "head.nii.gz", path)
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({key: value}))
    write_tiny_weights(place / "tiny.safetensors")
    (place / "code").write_text(str(app(place)))
    return place


@pytest.fixture(scope="module")
def rows(place):
    with open(place / "out" / "desc-refacing_verdicts.tsv", newline="", encoding="utf-8") as file:
        return {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_there_are_enough_kinds(place, rows):
    assert len(KINDS) + len(LOCATED) + len(UNLISTED) >= 50
    assert set(rows) == {f"sub-{label(kind)}" for kind in KINDS}
    assert (place / "code").read_text() == "1"


@pytest.mark.parametrize("kind", KINDS)
def test_verdict_message_exit_code_and_nothing_written(place, rows, kind, tmp_path):
    verdict, words = KINDS[kind]
    row = rows[f"sub-{label(kind)}"]
    assert (row["verdict"], words in row["reason"]) == (verdict, True), row["reason"]
    assert scan_path(place, kind).name in row["reason"], "the message does not name the file"
    assert ";" in row["reason"] and str(place) not in row["reason"]
    assert not (place / "out" / f"sub-{label(kind)}").exists()
    table = f"sub-{label(kind)}_desc-refacing_verdicts.tsv"
    (tmp_path / "logs").mkdir()
    shutil.copy(place / "out" / "logs" / table, tmp_path / "logs")
    assert main([str(place / "raw"), str(tmp_path), "group"]) == (1 if verdict == FAIL else 0)


def test_skipped_alone_is_no_failure_and_replaces_what_was_there(place):
    stale = place / "out" / "sub-brainalone" / "anat" / "sub-brainalone_desc-refaced_T1w.nii.gz"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier run")
    assert app(place, "--participant-label", "brainalone") == 0
    assert not stale.exists()


def test_nothing_of_the_face_is_left_in_the_tree(place):
    image = bad.head()
    stored = np.asarray(image.dataobj)
    assert leftovers(place / "out", Original(stored, bad.face_voxels(stored, image.affine))) == []


# kind: verdict, words, what is told beside the image
LOCATED = {
    bad.top_of_the_head: (SKIPPED, "holds 0% of the face"), bad.filled_with_a_constant: (SKIPPED, "taken away before"),
    bad.lower_face_cut: (REVIEW, "face_cut"), bad.nose_out_of_view: (REVIEW, "face_coverage"),
    bad.nan_in_the_brain: (REVIEW, "brain_not_finite"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOCATED, ids=[kind.__name__ for kind in LOCATED])
def test_faces_that_are_not_whole(kind, tmp_path):
    verdict, words = LOCATED[kind]
    nib.save(kind(), tmp_path / "sub-01_T1w.nii.gz")
    source = load_source(tmp_path / "sub-01_T1w.nii.gz")
    screen(source)
    located = bad.located_by_hand(source)
    if verdict == SKIPPED:
        with pytest.raises(SkippedError, match=words) as caught:
            screen_located(source, located)
        assert "sub-01_T1w.nii.gz" in str(caught.value)
    else:
        found, reason = judge({**located.measures, **screen_located(source, located)})
        assert (found, words in reason) == (verdict, True), reason


UNLISTED = {
    "missing": "check the path", "folder": "a folder", "pair": "single-file", "other format": "convert it first",
    "suffix": "no anatomical MRI",
}  # fmt: skip


@pytest.mark.parametrize("kind", UNLISTED)
def test_files_that_no_dataset_lists(kind, tmp_path):
    path, suffix = tmp_path / "sub-01_T1w.nii.gz", "T1w"
    nib.save(bad.head(), path)
    if kind in ("missing", "folder"):
        getattr(bad, kind)(path)
    elif kind == "pair":
        nib.save(nib.Nifti1Pair(np.zeros((9, 9, 9), np.int16), np.eye(4)), tmp_path / "pair.hdr")
        path = (tmp_path / "pair.hdr").rename(tmp_path / "sub-01_T1w.nii")
    elif kind == "other format":
        path = tmp_path / "sub-01_T1w.mgz"
        nib.save(nib.MGHImage(np.zeros((9, 9, 9), np.float32), np.eye(4)), path)
    else:
        suffix = "bold"
    with pytest.raises(ScanError, match=UNLISTED[kind]) as caught:
        screen(load_source(path), suffix=suffix)
    assert path.name in str(caught.value)
