"""Names, sidecars, tables: what is written beside the voxels."""

import json

import pytest
from heads import write_dataset

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.query import find_scans, open_layout
from bids_cpmae.bids.sidecar import dataset_description, image_sidecar
from bids_cpmae.bids.verdicts import FAIL, PASS, REVIEW, Verdict, judge, merge, write_participant
from bids_cpmae.errors import ExitCode, InputError
from bids_cpmae.identity import identity_seed, participant_of


def skeleton(root, *relatives):
    write_dataset(root, {})
    for relative in relatives:
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_every_entity_is_kept():
    out = outputs_of("sub-01/ses-b/anat/sub-01_ses-b_acq-x_ce-gd_rec-n_run-02_echo-1_part-mag_T1w.nii.gz")
    assert out.image.name == "sub-01_ses-b_acq-x_ce-gd_rec-n_run-02_echo-1_part-mag_desc-refaced_T1w.nii.gz"
    assert out.mask.name == (
        "sub-01_ses-b_acq-x_ce-gd_rec-n_run-02_mod-T1w_echo-1_part-mag_desc-face_defacemask.nii.gz"
    )
    assert str(out.image.parent) == "sub-01/ses-b/anat"


def test_uncompressed_scans_stay_uncompressed():
    assert outputs_of("sub-01/anat/sub-01_T1w.nii").image.name == "sub-01_desc-refaced_T1w.nii"


def test_scans_are_found_by_label_session_and_filter(tmp_path):
    root = skeleton(
        tmp_path / "raw", "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_acq-hi_T1w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii.gz",
        "sub-02/ses-a/func/sub-02_ses-a_task-x_bold.nii.gz",
    )  # fmt: skip
    layout = open_layout(root)
    names = [scan.relative for scan in find_scans(layout)]
    assert names == sorted(names) and len(names) == 3
    assert [s.relative for s in find_scans(layout, participants=("sub-02",))] == [names[2]]
    assert [s.session for s in find_scans(layout, participants=("01",), sessions=("ses-b",))] == ["b"]
    assert [s.participant for s in find_scans(layout, filters={"acquisition": "hi"})] == ["02"]


def test_links_of_datalad_are_found_though_their_content_is_away(tmp_path):
    root = skeleton(tmp_path / "raw")
    path = root / "sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.symlink_to("../../.git/annex/objects/nowhere")
    assert [scan.path.is_symlink() for scan in find_scans(open_layout(root))] == [True]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [({"participants": ("99",)}, ExitCode.NOTHING_TO_DO), ({"sessions": ("z",)}, ExitCode.NOTHING_TO_DO)],
)
def test_unknown_labels_are_named(tmp_path, wanted, code):
    root = skeleton(tmp_path / "raw", "sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(InputError) as caught:
        find_scans(open_layout(root), **wanted)
    assert caught.value.code == code
    assert next(iter(wanted.values()))[0] in str(caught.value)


def test_no_t1w_is_said(tmp_path):
    root = skeleton(tmp_path / "raw", "sub-01/anat/sub-01_T2w.nii.gz")
    with pytest.raises(InputError, match="no T1w"):
        find_scans(open_layout(root))


def test_sidecar_keeps_physics_and_drops_people():
    raw = {"EchoTime": 0.003, "PatientName": "Jane", "DeviceSerialNumber": "1", "AcquisitionTime": "1", "FlipAngle": 9,
           "InstitutionName": "x", "SeriesInstanceUID": "1.2"}  # fmt: skip
    written = image_sidecar("sub-01/anat/sub-01_T1w.nii.gz", raw, settings={"RandomSeed": 0})
    assert written["EchoTime"] == 0.003 and written["FlipAngle"] == 9
    assert not {"PatientName", "DeviceSerialNumber", "AcquisitionTime", "InstitutionName", "SeriesInstanceUID"} & set(written)
    assert written["SkullStripped"] is False
    assert written["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert written["DeidentificationMethodCodeSequence"][0]["CodeValue"] == "113102"


def test_description_names_no_path_of_the_machine(tmp_path):
    root = skeleton(tmp_path / "private-folder")
    assert "private-folder" not in json.dumps(dataset_description(root))


def test_tables_of_participants_are_merged_and_lines_of_other_runs_kept(tmp_path):
    write_participant(tmp_path, "01", [Verdict("a", "01", None, PASS), Verdict("b", "01", None, FAIL, "why\nso")])
    write_participant(tmp_path, "01", [Verdict("b", "01", None, PASS)])
    write_participant(tmp_path, "02", [Verdict("c", "02", "x", FAIL, "torn")])
    path, rows = merge(tmp_path)
    assert [(row["source"], row["verdict"], row["session_id"]) for row in rows] == [
        ("a", PASS, "n/a"), ("b", PASS, "n/a"), ("c", FAIL, "ses-x")]  # fmt: skip
    assert len(path.read_text().splitlines()) == 4


def test_a_doubtful_registration_wants_a_look():
    assert judge({"registration_correlation": 0.95})[0] == PASS
    verdict, reason = judge({"registration_correlation": 0.2})
    assert verdict == REVIEW and "0.20" in reason


def test_identity_depends_on_seed_and_label_alone():
    assert identity_seed(0, "01") == identity_seed(0, "01")
    assert len({identity_seed(0, "01"), identity_seed(0, "02"), identity_seed(1, "01")}) == 3
    assert identity_seed(7, None) == 7
    assert participant_of("/x/sub-A1_ses-2_T1w.nii.gz") == "A1"
    assert participant_of("scan.nii.gz") is None
