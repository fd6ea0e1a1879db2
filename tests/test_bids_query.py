"""Scans found: which are, which are not, and how a dataset may be stored."""

import os
import stat

import pytest
from bids_trees import write_dataset, write_scan

from bids_cpmae.bids.query import find_scans, find_untouched, open_layout
from bids_cpmae.errors import ExitCode, InputError

NAMES = (
    "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-mprage_T1w.nii.gz",
    "sub-02/anat/sub-02_T1w.nii",
)


@pytest.fixture
def raw(tmp_path):
    root = write_dataset(tmp_path / "raw", *NAMES)
    write_scan(root / "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz")
    write_scan(root / "derivatives/other/sub-01/anat/sub-01_desc-x_T1w.nii.gz")
    write_scan(root / "sourcedata/sub-03/anat/sub-03_T1w.nii.gz")
    return root


def found(root, **options):
    return [scan.relative for scan in find_scans(open_layout(root), **options)]


def test_all_raw_t1w_scans_and_nothing_else(raw):
    assert found(raw) == sorted(NAMES)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"participants": ("sub-02",)}, [NAMES[2]]),
        ({"participants": ("01", "02"), "sessions": ("ses-b",)}, [NAMES[1]]),
        ({"filters": {"t1w": {"acquisition": "mprage"}}}, [NAMES[1]]),
        ({"filters": {"t1w": {"run": 1}}}, [NAMES[0]]),
        ({"filters": {"t1w": {"session": None}}}, [NAMES[2]]),
        ({"filters": {"t1w": {"session": "*"}}}, list(NAMES[:2])),
        ({"filters": {"t1w": {"session": ["a", "b"]}}}, list(NAMES[:2])),
    ],
)
def test_labels_and_filters(raw, options, expected):
    assert found(raw, **options) == expected


def test_a_label_without_a_scan_is_told(raw, caplog):
    write_scan(raw / "sub-04/func/sub-04_task-rest_bold.nii.gz")
    assert found(raw, participants=("02", "04")) == [NAMES[2]]
    assert "sub-04" in caplog.text


def test_the_same_scan_as_nii_and_nii_gz_is_refused(raw):
    write_scan(raw / "sub-02/anat/sub-02_T1w.nii.gz")
    with pytest.raises(InputError, match="twice") as error:
        found(raw)
    assert error.value.code == ExitCode.INVALID_BIDS


def test_linked_content_and_linked_root(raw, tmp_path):
    path = raw / NAMES[0]
    content = tmp_path / "annex" / "KEY"
    content.parent.mkdir()
    path.rename(content)
    path.symlink_to(content)
    (raw / NAMES[2]).unlink()
    (raw / NAMES[2]).symlink_to(tmp_path / "annex" / "not-fetched")
    (tmp_path / "link").symlink_to(raw)
    # a broken link is still a scan: its own verdict says that it has to be fetched
    assert found(tmp_path / "link") == sorted(NAMES)


def test_nothing_is_written_below_a_read_only_input(raw):
    paths = [raw, *raw.rglob("*")]
    before = {path: path.lstat().st_mtime_ns for path in paths}
    for path in paths:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert found(raw) == sorted(NAMES)
        assert {path: path.lstat().st_mtime_ns for path in [raw, *raw.rglob("*")]} == before
    finally:
        for path in paths:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_an_index_is_kept_and_used_again(raw, tmp_path):
    first = find_scans(open_layout(raw, tmp_path / "index"))
    assert os.listdir(tmp_path / "index")
    assert find_scans(open_layout(raw, tmp_path / "index")) == first


def test_files_elsewhere_or_without_their_participants_name_are_passed_over(raw):
    (raw / ".bidsignore").write_text("backup/\n")
    for name in ("backup/sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/T1w.nii.gz",
                 "sub-01_T1w.nii.gz", "backup/sub-01/func/sub-01_task-rest_bold.nii.gz"):  # fmt: skip
        write_scan(raw / name)
    layout = open_layout(raw)
    scans = find_scans(layout)
    assert [scan.relative for scan in scans] == sorted(NAMES)
    assert {scan.origin.relative for scan in scans} <= set(NAMES)
    assert [one.relative for one in find_untouched(layout, scans)] == [
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz"
    ]


def test_a_broken_sidecar_does_not_stop_the_others(raw):
    (raw / "sub-02/anat/sub-02_T1w.json").write_text("{ not json")
    assert found(raw) == sorted(NAMES)


def test_a_folder_that_is_no_dataset(tmp_path):
    with pytest.raises(InputError, match="dataset_description.json"):
        open_layout(tmp_path)
    (tmp_path / "dataset_description.json").write_text("{")
    with pytest.raises(InputError, match="not a JSON object"):
        open_layout(tmp_path)
