"""Verdicts, their tables, and publication."""

import csv
import json
import os
from pathlib import Path

import pytest

from bids_cpmae.bids.dataset import remove_outputs, start_dataset
from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.publish import publish_file, publish_scan
from bids_cpmae.bids.thresholds import THRESHOLDS
from bids_cpmae.bids.verdict_page import page
from bids_cpmae.bids.verdicts import (
    COLUMNS,
    FAIL,
    MEASURES,
    PASS,
    REVIEW,
    SKIPPED,
    Verdict,
    judge,
    merge,
    refuse_failed,
    verdict_of,
    without_paths,
    write_participant,
)
from bids_cpmae.cli import main
from bids_cpmae.errors import OutputError, ScanError, SkippedError

RAW = "sub-01/anat/sub-01_T1w.nii.gz"


def verdict(source=RAW, result=PASS, **more):
    return Verdict(source, source[4:6], None, result, **more)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


GOOD = {
    "registration_correlation": 0.97, "brain_ml": 1400.0, "brain_signal": 0.97, "brain_not_finite": 0.0,
    "brain_overlap_ml": 0.0, "face_coverage": 1.0, "front_cut_cm2": 0.0, "face_cut": 0.0, "face_detail": 1.1,
    "mask_coverage": 0.89,
    "residual_face_mm": 2.5, **{f"residual_{name}_mm": 2.0 for name in
                                ("nose", "eyes", "lips", "chin", "cheeks", "forehead", "ears")},
    "face_match": 0.4, "face_filled": 0.97, "template_mm": 1.3, "nose_mm": 32.0, "skin_roughness": 0.22, "seam": 0.9,
    "noise_ratio": 0.8,
}  # fmt: skip


def test_good_measures_pass():
    assert judge(GOOD) == judge({}) == (PASS, "")
    assert set(GOOD) == {one.measure for one in THRESHOLDS} <= set(MEASURES)


@pytest.mark.parametrize("one", THRESHOLDS, ids=lambda one: one.measure)
@pytest.mark.parametrize("expected", [REVIEW, FAIL])
def test_every_limit_counts_and_says_what_to_do(one, expected):
    below, above = (one.review_below, one.review_above) if expected == REVIEW else (one.fail_below, one.fail_above)
    for limit, beyond in ((below, -1), (above, 1)):
        if limit is None:
            continue
        step = 1e-3 * max(1, abs(limit))
        verdict, reason = judge({**GOOD, one.measure: limit + beyond * step})
        assert verdict == expected
        assert one.measure in reason and one.means in reason and reason.endswith(one.way_out)
        assert judge({**GOOD, one.measure: limit - beyond * step})[0] != expected


def test_a_limit_for_failing_lies_beyond_that_for_a_look():
    for one in THRESHOLDS:
        assert one.fail_below is None or one.fail_below < one.review_below
        assert one.fail_above is None or one.fail_above > one.review_above


def test_failures_are_told_without_what_would_only_ask_for_a_look():
    verdict, reason = judge({**GOOD, "residual_face_mm": 0.0, "face_match": 1.0, "seam": 9.0})
    assert verdict == FAIL
    assert "residual_face_mm" in reason and "face_match" in reason and "seam" not in reason


def test_what_fails_is_stopped_before_it_is_published():
    refuse_failed({**GOOD, "seam": 9.0}, "sub-01_T1w.nii.gz")
    with pytest.raises(ScanError, match="sub-01_T1w.nii.gz: .*registration"):
        refuse_failed({"registration_correlation": 0.2}, "sub-01_T1w.nii.gz")


def test_errors_become_verdicts():
    assert verdict_of(SkippedError("left alone")) == SKIPPED
    assert verdict_of(ScanError("broken")) == verdict_of(ValueError("bug")) == FAIL


def test_the_page_of_verdicts_is_up_to_date():
    written = (Path(__file__).parents[1] / "docs" / "verdicts.md").read_text(encoding="utf-8")
    assert written == page(), "renew it: python -m bids_cpmae.bids.verdict_page > docs/verdicts.md"


def test_a_verdict_survives_its_file(tmp_path):
    made = verdict(result=FAIL, reason="why", measures={"brain_ml": 1.5})
    assert Verdict.load(made.save(tmp_path / "v.json")) == made


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/home/ann/raw/sub-01_T1w.nii.gz: truncated", "sub-01_T1w.nii.gz: truncated"),
        ("cannot open '/scratch/j 1/work/x.npz' (no)", "cannot open 'x.npz' (no)"),
        ("12 voxels/s, n/a, 3/4", "12 voxels/s, n/a, 3/4"),
        ("see https://example.org/a/b/c, file:///home/ann/x", "see https://example.org/a/b/c, file://x"),
        ("in ~/data/x.nii and /a/b/", "in x.nii and b"),
        ("/home/ann/study/out/x.nii: cannot be written", "x.nii: cannot be written"),
    ],
)
def test_no_path_of_the_machine_is_told(text, expected):
    assert without_paths(text, "/scratch/j 1/work", "/home/ann") == expected


def test_table_is_one_line_a_scan_whatever_the_reason(tmp_path):
    write_participant(tmp_path, "01", [verdict(result=FAIL, reason='tab\there\nand "there"')])
    path, _ = merge(tmp_path)
    (row,) = rows_of(path)
    assert row["reason"] == 'tab here and "there"'
    assert tuple(row) == COLUMNS
    assert row["session_id"] == row["brain_ml"] == "n/a"
    assert set(json.loads(path.with_suffix(".json").read_text())) == set(COLUMNS)


def test_runs_add_up_and_a_later_verdict_wins(tmp_path):
    other = "sub-01/anat/sub-01_run-2_T1w.nii.gz"
    write_participant(tmp_path, "01", [verdict(), verdict(other, FAIL)])
    write_participant(tmp_path, "02", [verdict("sub-02/anat/sub-02_T1w.nii.gz")])
    write_participant(tmp_path, "01", [verdict(other, PASS)])
    _, rows = merge(tmp_path)
    assert [(row["source"], row["verdict"]) for row in rows] == [
        (RAW, PASS), (other, PASS), ("sub-02/anat/sub-02_T1w.nii.gz", PASS),
    ]  # fmt: skip


def test_a_scan_not_come_to_keeps_its_earlier_line(tmp_path):
    write_participant(tmp_path, "01", [verdict()])
    write_participant(tmp_path, "01", [verdict(result=SKIPPED, reached=False)])
    assert merge(tmp_path)[1][0]["verdict"] == PASS
    write_participant(tmp_path, "02", [verdict("sub-02/anat/sub-02_T1w.nii.gz", SKIPPED, reached=False)])
    assert merge(tmp_path)[1][1]["verdict"] == SKIPPED


def test_a_scan_left_alone_on_purpose_gets_a_new_line(tmp_path):
    write_participant(tmp_path, "01", [verdict(measures={"brain_ml": 1400.0})])
    write_participant(tmp_path, "01", [verdict(result=SKIPPED, reason="already defaced; start from the original")])
    (row,) = merge(tmp_path)[1]
    assert (row["verdict"], row["reason"], row["brain_ml"]) == (
        SKIPPED, "already defaced; start from the original", "n/a",
    )  # fmt: skip


def test_a_verdict_of_an_earlier_version_loads(tmp_path):
    content = {"source": RAW, "participant": "01", "session": None, "verdict": PASS, "reason": "", "measures": {}}
    (tmp_path / "v.json").write_text(json.dumps(content))
    assert Verdict.load(tmp_path / "v.json") == verdict()


def test_lines_of_another_version_are_kept(tmp_path):
    path = write_participant(tmp_path, "01", [verdict(measures={"voxels_mask": 3})])
    path.write_text(path.read_text().replace("brain_voxels_changed", "renamed"))
    _, rows = merge(tmp_path)
    (row,) = rows_of(tmp_path / "desc-refacing_verdicts.tsv")
    assert tuple(row) == COLUMNS
    assert (row["voxels_mask"], row["brain_voxels_changed"]) == ("3", "n/a")


def test_group_level_merges(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    out = tmp_path / "out"
    write_participant(out, "01", [verdict()])
    write_participant(out, "02", [verdict("sub-02/anat/sub-02_T1w.nii.gz")])
    assert main([str(tmp_path / "raw"), str(out), "group"]) == 0
    assert len(rows_of(out / "desc-refacing_verdicts.tsv")) == 2
    write_participant(out, "02", [verdict("sub-02/anat/sub-02_T1w.nii.gz", FAIL)])
    assert main([str(tmp_path / "raw"), str(out), "group"]) == 1


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    written = tmp_path / "made.nii.gz"
    written.write_bytes(b"new")
    target = tmp_path / "out" / "sub-01_T1w.nii.gz"
    publish_file(written, target)
    assert target.read_bytes() == b"new"

    def broken(source, goal):
        raise OSError(28, "No space left on device")

    written.write_bytes(b"newer")
    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OutputError, match="No space"):
        publish_file(written, target)
    assert [path.read_bytes() for path in target.parent.iterdir()] == [b"new"]


def test_a_scan_is_published_and_taken_back(tmp_path):
    made = tmp_path / "made"
    made.write_bytes(b"x")
    start_dataset(tmp_path / "out", tmp_path)
    publish_scan(tmp_path / "out", RAW, image=made, mask=made, raw_sidecar={"EchoTime": 1}, settings={"RandomSeed": 0},
                 regions="face")  # fmt: skip
    outputs = [tmp_path / "out" / path for path in outputs_of(RAW)]
    assert all(path.exists() for path in outputs)
    assert json.loads(outputs[1].read_text())["EchoTime"] == 1
    remove_outputs(tmp_path / "out", outputs_of(RAW))
    assert not any(path.exists() for path in outputs)
    assert not list((tmp_path / "out").rglob("*.partial"))
