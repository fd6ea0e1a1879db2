"""The raw layout: all that may be shared and nothing that identifies, participant by participant."""

import gzip
import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_scan
from planted import (
    ANATOMICAL,
    IMAGES,
    MRN,
    NAME,
    PEOPLE,
    SITE,
    UID,
    cell,
    gzip_header,
    sidecar,
    write_clean,
    write_derivative,
    write_json,
    write_planted,
    write_table,
    write_verdicts,
)

from bids_cpmae.bids import rawfiles
from bids_cpmae.bids.leaks import find_leaks
from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.privacy.tables import Table, parse_date
from bids_cpmae.bids.rawlayout import assemble_raw, finish_raw, may_be_shared
from bids_cpmae.bids.validation import errors_of, find_validator
from bids_cpmae.bids.verdicts import FAIL, PASS, REVIEW, SKIPPED
from bids_cpmae.cli import build_parser, main, share
from bids_cpmae.errors import InputError, OutputError, UsageError
from bids_cpmae.request import settings_of

needs_validator = pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
SECRETS = (NAME, MRN, UID, SITE, "jane", "Smith", "Miller", "2019-03-14", "1931-02-03", "13:45:12", "Rex", "40764")
BAD = "sub-02/ses-b/anat/sub-02_ses-b_FLAIR.nii.gz"
SCANS = "sub-01/ses-a/sub-01_ses-a_scans.tsv"


def files_of(root, below=""):
    """Files of a raw dataset, without its derivatives."""
    found = (path.relative_to(root).as_posix() for path in (root / below).rglob("*") if path.is_file())
    return {name for name in found if not name.startswith("derivatives/")}


def derivative_of(out):
    return out / "derivatives/bids_cpmae"


def assemble(raw, out, **options):
    return assemble_raw(raw, derivative_of(out), out, **options)


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def rows_of(root, name):
    return Table.parse((root / name).read_text())


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    raw, out = write_planted(folder / "raw"), folder / "out"
    before = {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    write_derivative(raw, derivative_of(out))
    report = assemble(raw, out)
    assert {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()} == before
    return raw, out, report


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    raw = write_clean(folder / "raw")
    write_derivative(raw, derivative_of(folder / "out"))
    return folder


@pytest.fixture
def clean(stock, tmp_path):
    """A dataset with nothing to clean, and a folder that holds a run's derivative of it, every scan PASS."""
    shutil.copytree(stock / "raw", tmp_path / "raw")
    shutil.copytree(stock / "out", tmp_path / "out")
    return tmp_path / "raw", tmp_path / "out"


def test_no_leak_is_left(planted):
    raw, out, report = planted
    assert len(find_leaks(raw).findings) > 50
    assert find_leaks(out).findings == report.leaks == []
    assert report.complete and report.shared == PEOPLE


def test_no_secret_is_left_in_any_byte(planted):
    _, out, _ = planted
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            content += gzip.decompress(content) if path.name.endswith(".gz") else b""
            for secret in SECRETS:
                assert secret.encode() not in content, (path, secret)


@needs_validator
def test_result_is_valid(planted):
    _, out, _ = planted
    assert errors_of(out) == []
    assert errors_of(out / "derivatives/bids_cpmae") == []


def test_all_that_may_be_shared_is_kept(planted):
    raw, out, _ = planted
    left_out = {name for name in files_of(raw) if name.startswith(("sourcedata/", "code/")) or ".DS_Store" in name}
    # CHANGES is made, and so are sidecars for images whose own lie higher up
    added = {"CHANGES"} | {name.replace(".nii.gz", ".json") for name in ANATOMICAL}
    assert files_of(out) == (files_of(raw) - left_out) | added


def test_every_file_is_told_of(planted):
    raw, out, report = planted
    told = {row.file: row.status for row in report.rows}
    assert {name for name, status in told.items() if status == "refaced"} == set(ANATOMICAL)
    assert set(report.files("not defaced")) == set(IMAGES) - set(ANATOMICAL)
    assert {"sourcedata/", "code/"} <= set(report.files("left out"))
    assert files_of(out) <= set(told)
    table = rows_of(out, "derivatives/bids_cpmae/logs/desc-sharing_files.tsv")
    assert set(table.column("file")) == set(told)
    assert any(line.startswith("not defaced: ") for line in report.lines())


def test_images_are_those_of_the_derivative_or_the_input(planted):
    raw, out, _ = planted
    for name in IMAGES:
        made = voxels(out / name)
        if name in ANATOMICAL:
            assert (made == voxels(out / "derivatives/bids_cpmae" / outputs_of(name).image)).all()
            assert (made != voxels(raw / name)).any()
        else:
            assert (made == voxels(raw / name)).all()
            assert (nib.load(out / name).affine == nib.load(raw / name).affine).all()


def test_sidecars_say_what_was_done_and_keep_what_is_known(planted):
    _, out, _ = planted
    for name in ANATOMICAL:
        content = json.loads((out / name.replace(".nii.gz", ".json")).read_text())
        assert content["DeidentificationMethodCodeSequence"][0]["CodeValue"] == "113102"
        if "MEGRE" in name:
            assert content["EchoTime"] > 0
    assert json.loads((out / "T1w.json").read_text())["MagneticFieldStrength"] == 3
    bold = json.loads((out / "task-rest_bold.json").read_text())
    assert bold["Instructions"] == "Keep your eyes open." and bold["TaskDescription"] == "ask [e-mail removed]"


def test_dates_keep_their_intervals_and_tell_no_year(planted):
    raw, out, _ = planted
    before, after = (rows_of(root, SCANS).column("acq_time") for root in (raw, out))
    moved = [parse_date(cell) for cell in after]
    assert all(moment.year <= 1925 for moment in moved)
    # only the first was later than 1925; the others were shifted before and stay
    assert after[1:] == before[1:] and after[0] != before[0]


def test_tables_of_people(planted):
    _, out, _ = planted
    table = rows_of(out, "participants.tsv")
    assert table.columns == ("participant_id", "age", "sex", "score", "age_at_onset")
    assert table.rows == (("sub-01", "89", "F", "7", "89"), ("sub-02", "61", "M", "9", "n/a"))
    assert set(json.loads((out / "participants.json").read_text())) == {"age", "sex", "score", "age_at_onset"}
    events = rows_of(out, "sub-01/ses-a/func/sub-01_ses-a_task-rest_events.tsv")
    assert events.column("stim_file")[0] == "face1.png" and "experimenter_email" not in events.columns


def test_provenance(planted):
    _, out, _ = planted
    content = json.loads((out / "dataset_description.json").read_text())
    assert content["DatasetType"] == "raw" and content["Authors"] == ["A. Author"]
    assert [one["Name"] for one in content["GeneratedBy"]] == ["bids_cpmae"]
    assert content["SourceDatasets"] == [{"DOI": "doi:10.1/x"}] and "DatasetDOI" not in content
    assert "De-identified with bids_cpmae" in (out / "CHANGES").read_text()


def test_a_clean_dataset_is_copied_byte_by_byte(clean):
    raw, out = clean
    assemble(raw, out)
    changed = {"dataset_description.json", "CHANGES", *ANATOMICAL, *(n.replace(".nii.gz", ".json") for n in ANATOMICAL)}
    for name in files_of(raw) - changed:
        assert (out / name).read_bytes() == (raw / name).read_bytes(), name


def test_a_second_call_changes_nothing(clean):
    raw, out = clean
    cell("2019-03-14T13:45:12", 1)(raw, SCANS, "acq_time")
    cell("2019-03-15T08:00:00.250000", 2)(raw, SCANS, "acq_time")
    cell("2019-03-14", 1)(raw, "sub-01/sub-01_sessions.tsv", "acq_time")
    assemble(raw, out)
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    assemble(raw, out)
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before
    first, second = (parse_date(text) for text in rows_of(out, SCANS).column("acq_time")[:2])
    assert (second - first).total_seconds() == pytest.approx(18 * 3600 + 14 * 60 + 48.25, abs=1)


def test_shifts_differ_between_people(clean):
    raw, out = clean
    for participant in PEOPLE:
        for row in range(1, 9):
            cell(f"2019-03-14T13:45:{row:02d}", row)(raw, SCANS.replace("01", participant), "acq_time")
    assemble(raw, out)
    one, two = (rows_of(out, SCANS.replace("01", participant)).column("acq_time") for participant in PEOPLE)
    assert one != two


def test_dates_can_be_dropped(clean):
    raw, out = clean
    assemble(raw, out, dates="drop")
    assert rows_of(out, SCANS).columns == ("filename",)


@pytest.mark.parametrize("verdict", [FAIL, REVIEW, SKIPPED])
def test_one_bad_image_keeps_its_participant_out(clean, verdict):
    raw, out = clean
    write_verdicts(derivative_of(out), {BAD: (verdict, "why")})
    report = assemble(raw, out)
    assert report.shared == ("01",)
    assert report.left_out == {"02": (f"{BAD}: {verdict} (why)",)}
    assert not (out / "sub-02").exists()
    assert rows_of(out, "participants.tsv").column("participant_id") == ["sub-01"]
    # what may not be shared is not in the derivative inside the dataset either
    assert not (out / "derivatives/bids_cpmae" / outputs_of(BAD).image).exists()
    assert any("sub-02 is left out" in line and BAD in line for line in report.lines())
    if find_validator():
        assert errors_of(out) == []


def test_pages_do_not_show_who_is_left_out(clean):
    raw, out = clean
    write_verdicts(derivative_of(out), {BAD: (REVIEW, "why")})
    for name in ("sub-01.html", "sub-02.html", "group.html"):
        (derivative_of(out) / name).write_text('<img alt="a face"> <a href="sub-02.html">')
    assemble(raw, out)
    assert [path.name for path in derivative_of(out).glob("*.html")] == ["sub-01.html"]


def test_pages_are_made_anew_without_who_is_left_out(clean, tmp_path):
    raw, out = clean
    write_verdicts(derivative_of(out), {BAD: (REVIEW, "why")})
    (derivative_of(out) / "sub-02.html").write_text('<img alt="a face">')
    words = [raw, out, "participant", "--layout", "raw", "-w", tmp_path / "work", "--nprocs", 1]
    assert not share(settings_of(build_parser().parse_args([str(word) for word in words])))
    page = (derivative_of(out) / "sub-02.html").read_text()
    assert "a face" not in page and "not in the output tree any more" in page
    assert BAD in (derivative_of(out) / "group.html").read_text()


def test_a_review_can_be_accepted(clean):
    raw, out = clean
    write_verdicts(derivative_of(out), {BAD: (REVIEW, "why")})
    assert assemble(raw, out, accept_review=True).complete
    assert (out / BAD).exists()


@pytest.mark.parametrize(
    "verdict, reason, accept, expected",
    [
        (PASS, "n/a", False, True),
        (REVIEW, "look", False, False),
        (REVIEW, "look", True, True),
        (FAIL, "n/a", True, False),
        (SKIPPED, "the run stopped before this scan was done", True, False),
        (SKIPPED, "Nothing to replace: no head", True, False),
    ],
)
def test_who_may_be_shared(verdict, reason, accept, expected):
    assert may_be_shared({"verdict": verdict, "reason": reason}, accept) is expected
    assert not may_be_shared(None, accept)


def test_no_verdict_and_no_image_keep_out(clean):
    raw, out = clean
    (derivative_of(out) / outputs_of(BAD).image).unlink()
    new = write_scan(raw / "sub-01/ses-a/anat/sub-01_ses-a_PDw.nii.gz")
    report = assemble(raw, out)
    assert report.shared == () and not (out / "participants.tsv").exists()
    assert report.left_out["02"] == (f"{BAD}: the refaced image is missing",)
    assert report.left_out["01"] == (f"{new.relative_to(raw).as_posix()}: no verdict",)


def test_a_participant_who_passes_no_more_is_taken_away(clean):
    raw, out = clean
    assemble(raw, out)
    assert (out / BAD).exists()
    write_verdicts(derivative_of(out), {BAD: (FAIL, "moved")})
    assemble(raw, out)
    assert not (out / "sub-02").exists() and (out / "sub-01").exists()


def test_a_participant_who_cannot_be_taken_away_ends_the_run(clean, monkeypatch):
    raw, out = clean
    assemble(raw, out)
    write_verdicts(derivative_of(out), {BAD: (FAIL, "moved")})

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    # as for another user's files
    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(OutputError, match=f"{out / 'sub-02'}: may not be shared and cannot be removed"):
        assemble(raw, out)


def test_what_the_input_lost_is_taken_away(clean):
    raw, out = clean
    assemble(raw, out)
    shutil.rmtree(raw / "sub-01/ses-b")
    shutil.rmtree(raw / "sub-02")
    assemble(raw, out)
    assert not (out / "sub-02").exists() and not (out / "sub-01/ses-b").exists()
    assert rows_of(out, "sub-01/sub-01_sessions.tsv").column("session_id") == ["ses-a"]


def test_files_of_the_dataset_that_the_input_lost_are_taken_away(clean):
    raw, out = clean
    gone = ("README", "phenotype/diag.tsv", "phenotype/diag.json", "stimuli/more/face2.png", "task-rest_bold.json")
    write_table(raw / gone[1], [("participant_id", "diagnosis"), ("sub-01", "rare")])
    write_json(raw / gone[2], {"diagnosis": {"Description": "by ICD-10"}})
    (raw / "stimuli/more").mkdir()
    (raw / gone[3]).touch()
    assemble(raw, out)
    (out / ".bidsignore").touch()
    for name in gone:
        assert (out / name).exists()
        (raw / name).unlink()
    before = files_of(out)
    assemble(raw, out)
    assert files_of(out) == before - set(gone)
    assert not (out / "phenotype").exists() and not (out / "stimuli/more").exists()
    assert (derivative_of(out) / "dataset_description.json").exists()


def test_participants_one_by_one_make_the_same(clean, tmp_path):
    raw, out = clean
    other = tmp_path / "other"
    derivative = shutil.copytree(derivative_of(out), derivative_of(other))
    assemble(raw, out)
    for participant in reversed(PEOPLE):
        assemble_raw(raw, derivative, other, participants=(f"sub-{participant}",))
    report = finish_raw(raw, derivative, other)
    assert report.shared == PEOPLE
    assert {name: (other / name).read_bytes() for name in files_of(other)} == {
        name: (out / name).read_bytes() for name in files_of(out)
    }
    table = "derivatives/bids_cpmae/logs/desc-sharing_files.tsv"
    assert (other / table).read_text() == (out / table).read_text()


def test_hard_links_only_where_nothing_changes(clean):
    raw, out = clean
    planted = "sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz"
    image = nib.load(raw / planted)
    image.header["descrip"] = NAME.encode()
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), raw / planted)
    linked = "sub-02/ses-a/dwi/sub-02_ses-a_dwi.nii.gz"
    for _ in range(2):
        assemble(raw, out, link="hard")
        assert os.path.samefile(raw / linked, out / linked)
        assert not os.path.samefile(raw / planted, out / planted)
        assert not any(os.path.samefile(raw / name, out / name) for name in ANATOMICAL)
        assert not list(out.rglob("*.partial*"))
    assert NAME.encode() in gzip.decompress((raw / planted).read_bytes())
    assemble(raw, out)
    assert not [name for name in files_of(raw) & files_of(out) if os.path.samefile(raw / name, out / name)]
    assert (out / linked).read_bytes() == (raw / linked).read_bytes()


def test_a_copy_is_no_link_and_takes_no_time_along(clean):
    raw, out = clean
    name = "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz"
    os.utime(raw / name, (1_552_567_890, 1_552_567_890))
    assemble(raw, out)
    assert not os.path.samefile(raw / name, out / name)
    assert (out / name).stat().st_mtime > 1_600_000_000


def test_what_cannot_be_cleaned_is_left_out_and_said(clean):
    raw, out = clean
    stem = "sub-01/ses-a/{}/sub-01_ses-a_{}"
    eeg, mask, page = (
        stem.format("eeg", "task-rest_eeg.edf"),
        stem.format("anat", "mod-T1w_defacemask.nii.gz"),
        "Doe.pdf",
    )
    (raw / eeg).parent.mkdir()
    (raw / eeg).write_bytes(NAME.encode())
    write_scan(raw / mask)
    (raw / page).write_text(NAME)
    broken = stem.format("func", "task-rest_bold.nii.gz")
    (raw / broken).write_bytes((raw / broken).read_bytes()[:200])
    report = assemble(raw, out)
    told = {row.file: row.reason for row in report.rows if row.status == "left out"}
    assert told["sub-01/ses-a/eeg/"] and told[mask] and told["*.pdf"] == "no part of BIDS"
    assert told[broken].startswith("cannot be read")
    assert not {name for name in (mask, page, broken) if (out / name).exists()} and not (out / eeg).parent.exists()
    assert broken.split("ses-a/")[1] not in rows_of(out, SCANS).column("filename")


def test_what_cannot_be_read_is_left_out_and_the_rest_is_shared(clean):
    raw, out = clean
    stem = "sub-01/ses-a/{0}/sub-01_ses-a_{1}"
    # as DataLad has a file that was not fetched
    unread = ["README", "phenotype/iq.tsv", "T2w.json", "stimuli/face1.png", SCANS, stem.format("dwi", "dwi.bval"),
              stem.format("func", "task-rest_events.tsv"), stem.format("func", "task-rest_bold.nii.gz")]  # fmt: skip
    for name in unread:
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).unlink(missing_ok=True)
        (raw / name).symlink_to("not-fetched")
    cut, damaged = (stem.replace("01", one).format("func", "task-rest_physio.tsv.gz") for one in PEOPLE)
    (raw / cut).write_bytes((raw / cut).read_bytes()[:-9])
    content = bytearray((raw / damaged).read_bytes())
    content[-11:-8] = b"\xff\xff\xff"
    (raw / damaged).write_bytes(content)
    report = assemble(raw, out)
    told = {row.file: row.reason for row in report.rows if row.reason.startswith("cannot be read")}
    assert sorted(told) == sorted([*unread, cut, damaged])
    assert report.shared == PEOPLE and not [name for name in told if os.path.lexists(out / name)]
    assert not any(str(raw) in reason for reason in told.values())


@pytest.mark.parametrize("kind", ["image", "recording", "text", "table"])
def test_a_full_disk_ends_the_run_and_leaves_nothing_out(clean, tmp_path, monkeypatch, kind):
    raw, out = clean
    name = {"image": "sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz", "text": "README", "table": SCANS,
            "recording": "sub-01/ses-a/func/sub-01_ses-a_task-rest_physio.tsv.gz"}[kind]  # fmt: skip
    if kind in ("image", "recording"):
        gzip_header(raw, name, "gzip time")
    if kind == "table":
        cell("2019-03-14T13:45:12", 1)(raw, name, "acq_time")
    if kind == "text":
        (raw / name).write_text("made in /home/jane/study")

    def full(target):
        path = target.with_name(".full.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to("/dev/full")
        return path

    monkeypatch.setattr(rawfiles, "beside", full)
    with pytest.raises(OutputError, match=f"{name}: cannot be written .No space"):
        assemble(raw, out)


def test_references_to_what_is_not_shared_go(clean):
    raw, out = clean
    bold, gone = "ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz", "ses-a/eeg/sub-01_ses-a_task-rest_eeg.edf"
    stem = "sub-01/ses-a/fmap/sub-01_ses-a_dir-AP_epi"
    write_scan(raw / f"{stem}.nii.gz")
    write_json(raw / f"{stem}.json", {"PhaseEncodingDirection": "j", "TotalReadoutTime": 0.05,
                                      "IntendedFor": [f"bids::sub-01/{bold}", bold, gone]})  # fmt: skip
    assemble(raw, out)
    assert json.loads((out / f"{stem}.json").read_text())["IntendedFor"] == [f"bids::sub-01/{bold}", bold]


def test_a_sidecar_for_several_images_stays_the_only_one(clean):
    raw, out = clean
    shared = "sub-01/ses-a/anat/sub-01_ses-a_MEGRE.json"
    for name in (name for name in ANATOMICAL if "sub-01_ses-a_echo" in name):
        (raw / name.replace(".nii.gz", ".json")).unlink()
    sidecar(0.004)(raw, shared, "FlipAngle")
    assemble(raw, out)
    assert "DeidentificationMethod" in json.loads((out / shared).read_text())
    assert not list((out / shared).parent.glob("*echo*.json"))


def test_odd_encodings(clean):
    raw, out = clean
    (raw / "T1w.json").write_bytes('{"ReceiveCoilName": "K\u00f6rper", "StationName": "x"}'.encode("latin-1"))
    (raw / "participants.tsv").write_bytes(b"participant_id\tscore\tnotes\nsub-01\tK\xf6\tx\nsub-02\t1\ty\n")
    assemble(raw, out)
    assert json.loads((out / "T1w.json").read_text()) == {"ReceiveCoilName": "K\u00f6rper"}
    assert (out / "participants.tsv").read_bytes() == b"participant_id\tscore\nsub-01\tK\xf6\nsub-02\t1\n"


def test_descriptions_that_other_software_adds_to_leave_no_leak(clean):
    raw, out = clean
    cell("a", 1)(raw, "participants.tsv", "group")
    cell("99", 1)(raw, "participants.tsv", "iq")
    content = json.loads((raw / "participants.json").read_text())
    content["group"] = {"Description": "arm", "Annotations": {"IsAbout": "nb:Diagnosis"}}
    content["iq"] = "points"
    (raw / "participants.json").write_text(json.dumps(content), encoding="utf-8-sig")
    assert assemble(raw, out).complete
    assert {"group", "iq"} <= set(rows_of(out, "participants.tsv").columns)
    del content["group"]["Annotations"]
    assert json.loads((out / "participants.json").read_text()) == content


def test_changes_are_cleaned_whatever_their_encoding(clean):
    raw, out = clean
    told = b"1.2.0 2019-03-14\n\n  - K\xf6rper mended, see %s\n"
    (raw / "CHANGES").write_bytes(told % b"/home/jane/study")
    for _ in range(2):
        report = assemble(raw, out)
        made = (out / "CHANGES").read_bytes()
        assert made.startswith(b"1.2.1 ") and made.endswith(told % b"[path removed]")
        assert report.leaks == []
    (raw / "CHANGES").unlink()
    (raw / "CHANGES").symlink_to("not-fetched")
    row = next(row for row in assemble(raw, out).rows if row.file == "CHANGES")
    assert row.reason.startswith("the input's cannot be read")


def test_the_group_level_tells_of_leaks(clean, tmp_path):
    raw, out = clean
    assemble(raw, out)
    words = [str(word) for word in (raw, out, "group", "--layout", "raw", "-w", tmp_path / "work")]
    assert main(words) == 0
    write_scan(out / "sub-01/ses-a/func/sub-01_ses-a_task-day20190314_bold.nii.gz")
    assert main(words) == 1


def test_dates_without_times_are_shifted_by_days_and_stay_so(clean):
    raw, out = clean
    name = "sub-01/sub-01_sessions.tsv"
    cell("2019-03-14", 1)(raw, name, "acq_time")
    cell("2019-04-14", 2)(raw, name, "acq_time")
    assemble(raw, out)
    first = rows_of(out, name).column("acq_time")
    assert (parse_date(first[1]) - parse_date(first[0])).days == 31
    assemble(raw, out)
    assert rows_of(out, name).column("acq_time") == first


def test_folders_that_are_refused(clean, tmp_path):
    raw, out = clean
    derivative = derivative_of(out)
    for target in (raw, raw / "derivatives/shared", raw.parent):
        with pytest.raises(OutputError, match="input"):
            assemble_raw(raw, derivative, target)
    other = shutil.copytree(raw, tmp_path / "other")
    with pytest.raises(OutputError, match="has not written"):
        assemble_raw(raw, derivative, other)
    with pytest.raises(UsageError):
        assemble_raw(raw, derivative, out, link="soft")
    with pytest.raises(InputError, match="no participant 99"):
        assemble_raw(raw, derivative, out, participants=("99",))
    with pytest.raises(InputError):
        assemble_raw(tmp_path / "none", derivative, out)
