"""Which scans are found, what each is aligned to, and what is left as it is."""

import csv
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset, write_scan

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.query import face_suffixes, find_scans, find_untouched, open_layout
from bids_cpmae.bids.reference import assign_references, needed
from bids_cpmae.bids.untouched import write_untouched
from bids_cpmae.bids.validation import errors_of, find_validator
from bids_cpmae.errors import UsageError

A, B = "sub-01/ses-a/anat/sub-01_ses-a_", "sub-01/ses-b/anat/sub-01_ses-b_"
NAMES = [
    *(A + name for name in (
        "ce-gd_T1w", "T1w", "run-2_T1w", "T2w", "FLAIR", "PDw", "T2starw", "UNIT1", "T1map", "angio", "inplaneT2",
        "inv-1_part-mag_MP2RAGE", "inv-1_part-phase_MP2RAGE", "inv-2_part-mag_MP2RAGE", "echo-1_MEGRE", "echo-2_MEGRE",
        "echo-3_MEGRE", "dir-AP_echo-1_MESE", "flip-1_VFA", "flip-1_mt-on_MPM", "mt-off_MTR", "inv-1_IRT1",
    )),
    *(B + name for name in ("acq-x_T1w", "T2w")),
    "sub-01/ses-c/anat/sub-01_ses-c_FLAIR",
    "sub-02/anat/sub-02_FLAIR",
    "sub-02/anat/sub-02_T2w",
]  # fmt: skip
OTHERS = [
    A.replace("anat/", "func/") + "task-rest_bold", A.replace("anat/", "dwi/") + "dwi",
    A.replace("anat/", "perf/") + "asl", A.replace("anat/", "fmap/") + "magnitude1", A + "mod-T1w_defacemask",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("study") / "raw", *(f"{name}.nii.gz" for name in [*NAMES, *OTHERS]))


def found(root, **options):
    return {scan.relative.removesuffix(".nii.gz"): scan for scan in find_scans(open_layout(root), **options)}


def stem(scan):
    return scan and scan.relative.removesuffix(".nii.gz")


def test_every_anatomical_image_that_can_show_a_face_is_found(root):
    assert sorted(found(root)) == sorted(NAMES)
    assert {"T1w", "T2w", "FLAIR", "UNIT1", "MEGRE", "T1map", "PDT2"} <= set(face_suffixes())
    assert "defacemask" not in face_suffixes()


def test_suffixes_choose_and_wrong_ones_are_refused(root):
    assert {name.rpartition("_")[2] for name in found(root, suffixes=("flair", "T2w"))} == {"FLAIR", "T2w"}
    with pytest.raises(UsageError, match="bold"):
        found(root, suffixes=("bold",))


def test_everything_hangs_on_one_scan_of_the_participant(root):
    scans = found(root)
    assert {stem(scan.origin) for scan in scans.values() if scan.participant == "01"} == {A + "T1w"}
    assert scans[A + "T1w"].reference is None
    assert stem(scans[A + "ce-gd_T1w"].reference) == A + "T1w"
    assert stem(scans[B + "acq-x_T1w"].reference) == A + "T1w"
    # of the same session where that has a T1w scan, of another where it has none
    assert stem(scans[B + "T2w"].reference) == B + "acq-x_T1w"
    assert stem(scans["sub-01/ses-c/anat/sub-01_ses-c_FLAIR"].reference) == A + "T1w"


def test_without_a_t1w_the_next_best_takes_its_place(root):
    scans = found(root)
    assert scans["sub-02/anat/sub-02_T2w"].reference is None
    assert stem(scans["sub-02/anat/sub-02_FLAIR"].reference) == "sub-02/anat/sub-02_T2w"


def test_a_series_is_aligned_once(root):
    scans = found(root)
    assert scans[A + "echo-1_MEGRE"].lead is None
    assert {stem(scans[A + f"echo-{n}_MEGRE"].lead) for n in (2, 3)} == {A + "echo-1_MEGRE"}
    assert stem(scans[A + "inv-1_part-phase_MP2RAGE"].lead) == A + "inv-1_part-mag_MP2RAGE"
    assert scans[A + "flip-1_VFA"].lead is None


def test_a_reference_need_not_be_selected(root):
    scans = find_scans(open_layout(root), sessions=("b",), suffixes=("T2w",))
    assert [stem(scan) for scan in scans] == [B + "T2w"]
    assert [stem(scan) for scan in needed(scans)] == [A + "T1w", B + "T2w", B + "acq-x_T1w"]


def test_filters_hold_for_references_too(root):
    scans = find_scans(open_layout(root), suffixes=("T2w",), participants=("01",), filters={"t1w": {"session": "b"}})
    assert {stem(scan.origin) for scan in scans} == {B + "acq-x_T1w"}


def test_the_finest_t1w_without_contrast_agent_is_the_reference(tmp_path):
    root = write_dataset(tmp_path / "raw")
    for name, sides in (("run-1", (1, 1, 5)), ("run-2", (1, 1, 1.2)), ("ce-gd", (0.5, 0.5, 0.5))):
        path = write_scan(root / f"sub-01/anat/sub-01_{name}_T1w.nii.gz")
        nib.save(nib.Nifti1Image(nib.load(path).get_fdata(), np.diag([*sides, 1])), path)
    scans = find_scans(open_layout(root))
    assert {stem(scan.origin) for scan in scans} == {"sub-01/anat/sub-01_run-2_T1w"}


def test_scans_whose_reference_is_gone_get_another_or_go_on_their_own(root):
    scans = list(found(root, participants=("01",)).values())
    left = [scan for scan in needed(scans) if scan.suffix != "T1w"]
    again = assign_references(left, left)
    assert {stem(scan.origin) for scan in again} == {A + "UNIT1"}
    alone = replace(left[0], reference=None, lead=None)
    assert assign_references([alone], [alone]) == [alone]


def test_what_is_left_untouched_is_listed_and_may_show_a_face(root, tmp_path):
    whole = np.zeros((80, 90, 80), np.int16)
    nib.save(nib.Nifti1Image(whole, np.diag([2.4, 2.4, 2.4, 1])), root / f"{OTHERS[0]}.nii.gz")
    layout = open_layout(root)
    scans = find_scans(layout, suffixes=("T1w", "T2w"))
    untouched = find_untouched(layout, scans, suffixes=("T1w", "T2w"))
    assert {one.relative for one in untouched} == {f"{name}.nii.gz" for name in [*NAMES, *OTHERS]} - {
        scan.relative for scan in scans
    }
    write_untouched(tmp_path, untouched, {"01", "02"})
    with open(tmp_path / "logs/desc-untouched_scans.tsv", newline="") as file:
        rows = {row["source"].removesuffix(".nii.gz"): row for row in csv.DictReader(file, delimiter="\t")}
    assert rows[OTHERS[0]]["may_show_face"] == "yes" and rows[OTHERS[1]]["may_show_face"] == "no"
    assert "labels" in rows[OTHERS[4]]["why"] and "func" in rows[OTHERS[0]]["why"]
    assert "FLAIR" in rows[A + "FLAIR"]["why"]
    write_untouched(tmp_path, [], {"01", "02"})
    assert not list((tmp_path / "logs").glob("sub-*"))


@pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
def test_names_of_outputs_of_every_suffix_are_valid(tmp_path):
    derivative = write_dataset(tmp_path / "out", description={
        "DatasetType": "derivative", "GeneratedBy": [{"Name": "x"}]})  # fmt: skip
    for name in NAMES:
        outputs = outputs_of(f"{name}.nii.gz")
        write_scan(derivative / outputs.image)
        write_scan(derivative / outputs.mask)
    wrong = [line for line in errors_of(derivative) if "SIDECAR" not in line and "JSON_KEY" not in line]
    assert wrong == []
