"""The dataset's page and table: order, scores, size with many participants."""

import csv
import html
import json
import re
import time

import numpy as np
import pytest
from bids_trees import write_dataset
from report_trees import add_scan, measures, words

from bids_cpmae.bids.atomic import write_text
from bids_cpmae.bids.dataset import start_dataset
from bids_cpmae.bids.validation import errors_of, find_validator
from bids_cpmae.bids.verdicts import FAIL, LOGS, PASS, REVIEW, SKIPPED, TABLE, Verdict, merge, write_participant
from bids_cpmae.errors import OutputError
from bids_cpmae.report.group import write_group
from bids_cpmae.report.participant import write_report
from bids_cpmae.report.plots import strip
from bids_cpmae.report.tables import Outlier, attention, measure_columns, outliers, robust_scores
from bids_cpmae.report.write import write_overview

HOSTILE = "</script><img src=x onerror=alert(1)>"
MANY = 2000


@pytest.fixture
def tree(tmp_path):
    """Ten scans that passed, one unusual; one that wants a look, one that failed, one not come to."""
    out = tmp_path / "out"
    start_dataset(out, write_dataset(tmp_path / "raw", "sub-01/anat/sub-01_T1w.nii.gz"))
    for number in range(10):
        add_scan(out, f"{number:02d}")
    add_scan(out, "far", brain_ml=2600.0)
    add_scan(out, "doubt", REVIEW, "doubtful registration")
    add_scan(out, "broken", FAIL, "truncated")
    add_scan(out, "late", SKIPPED, "not come to")
    merge(out)
    return out


def table(out):
    with open(out / "group_qc.tsv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def data(path):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    return json.loads(found[1])


def test_what_has_to_be_looked_at_comes_first(tree):
    path = write_group(tree)
    rows = table(tree)
    first = [row["participant_id"] for row in rows]
    assert first[0] == "sub-broken" and set(first[1:3]) == {"sub-far", "sub-doubt"} and first[-1] == "sub-late"
    usual = [float(row["outlier_score"]) for row in rows[3:-1]]
    assert usual == sorted(usual, reverse=True)
    far = next(row for row in rows if row["participant_id"] == "sub-far")
    assert far["outlier_measure"] == "brain_ml" and float(far["outlier_score"]) > 3.5 > max(usual)
    assert [row[0] for row in data(path)["rows"]] == first


def test_the_page_counts_links_and_draws(tree):
    (tree / "sub-far.html").write_text("its page")
    page = write_group(tree)
    text = words(page.read_text(encoding="utf-8"))
    assert "PASS 11" in text and "REVIEW 1" in text and "FAIL 1" in text and "SKIPPED 1" in text
    assert "14 scans of 14 participants" in text and "brain_ml" in text
    links = {row[0]: link for row, link in zip(data(page)["rows"], data(page)["links"])}
    assert links["sub-far"] == "./sub-far.html#sub-far_T1w" and links["sub-00"] == ""
    assert '<a href="./sub-far.html#sub-far_T1w"><circle' in page.read_text(encoding="utf-8")


def test_every_column_is_explained(tree):
    write_group(tree)
    meaning = json.loads((tree / "group_qc.json").read_text())
    assert list(meaning) == list(table(tree)[0])
    assert all(entry["Description"] for entry in meaning.values())


def test_columns_of_whoever_adds_them_are_measures_too(tree):
    path = tree / f"{TABLE}.tsv"
    lines = path.read_text().splitlines()
    for log in (tree / LOGS).glob("*.tsv"):
        log.unlink()
    added = ["skin_mm\tsite", *(f"{3 + 0.1 * number}\tsite {number}" for number in range(len(lines) - 1))]
    path.write_text("\n".join("\t".join(pair) for pair in zip(lines, added)) + "\n")
    page = write_group(tree).read_text(encoding="utf-8")
    assert table(tree)[0].keys() >= {"skin_mm", "site"}
    assert "skin_mm" in words(page) and measure_columns(table(tree))[-1] == "skin_mm"


@pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
def test_a_tree_with_reports_is_valid(tree):
    write_report(tree, "broken")
    write_group(tree)
    write_text(tree / LOGS / "CITATION.md", "text\n")
    assert (tree / "sub-broken.html").exists() and errors_of(tree) == []


def test_hostile_words_stay_words(tree):
    add_scan(tree, f"x{HOSTILE.replace('/', '')}", REVIEW, f"{HOSTILE} in /home/ann/x/scan.nii")
    path = write_group(tree)
    page = path.read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2 and "<img" not in page and "/home/ann" not in page
    assert html.escape("<img src=x") not in words(page)
    assert any(HOSTILE in str(row) for row in data(path)["rows"])


def test_no_verdict_no_report(tmp_path, caplog):
    with pytest.raises(OutputError, match="participant level first"):
        write_group(tmp_path)
    assert write_overview(tmp_path) is None and "no group report" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_two_thousand_participants(tmp_path):
    rng = np.random.default_rng(0)
    one = write_participant(tmp_path, "0", [Verdict("sub-0/anat/sub-0_T1w.nii.gz", "0", None, PASS, "", measures(0))])
    header, _ = one.read_text().splitlines()
    one.unlink()
    names = header.split("\t")[5:] + [f"more_{number}" for number in range(12)]
    lines = ["\t".join([*header.split("\t")[:5], *names])]
    for number in range(MANY):
        label = f"sub-{number:04d}"
        cells = [f"{value:.6f}" for value in rng.normal(10, 1, len(names))]
        lines.append("\t".join([label, "n/a", f"{label}/anat/{label}_T1w.nii.gz", PASS, "n/a", *cells]))
    (tmp_path / f"{TABLE}.tsv").write_text("\n".join(lines) + "\n")
    began = time.process_time()
    page = write_group(tmp_path)
    assert time.process_time() - began < 10
    assert page.stat().st_size < 2e6 and len(table(tmp_path)) == len(data(page)["rows"]) == MANY


def test_scores_are_robust():
    values = np.array([1.0, 2, 3, 4, 5, 100, np.nan])
    scores = robust_scores(values)
    assert np.isnan(scores[-1]) and scores[5] > 30 and scores[:5].max() < 2
    # most are alike: the median absolute deviation says nothing
    assert robust_scores(np.array([1.0] * 9 + [2]))[-1] > 3.5
    assert (robust_scores(np.ones(6)) == 0).all()
    assert np.isnan(robust_scores(np.arange(4.0))).all()


def test_a_scan_is_held_against_its_own_kind():
    rows = [{"source": f"sub-{n}_{kind}.nii", "m": str(n + far), "voxels_total": str(n**9)}
            for kind, far in (("T1w", 0), ("T2w", 1000)) for n in range(6)]  # fmt: skip
    found = outliers(rows, ["m", "voxels_total"])
    assert max(outlier.score for outlier in found) < 3.5 and {outlier.measure for outlier in found} == {"m"}


def test_attention_sorts():
    usual, unusual = Outlier(1.0, "m"), Outlier(9.0, "m")
    order = [(FAIL, None), (PASS, unusual), (REVIEW, usual), (PASS, usual), (PASS, None), (SKIPPED, None)]
    keys = [attention({"verdict": verdict}, outlier) for verdict, outlier in order]
    assert keys == sorted(keys)


def test_a_strip_marks_what_lies_beyond_its_edge():
    values = [*np.linspace(0, 1, 50), 1000.0]
    drawn = strip(values, [(1000.0, "far", ""), (0.5, "usual", ""), (float("nan"), "none", "")])
    assert drawn.high < 10 and [mark.beyond for mark in drawn.marks] == [True, False]
    assert drawn.marks[0].x > drawn.marks[1].x and not drawn.filled and drawn.count == 51
    assert strip(np.arange(100.0)).filled and strip([3.0, 3.0]).constant and strip([]) is None
