"""Intervals, tables and pages, and the truth that label maps hold."""

import json

import numpy as np
import pytest

from bids_cpmae.evaluation.page import Section, Table, write_page
from bids_cpmae.evaluation.pipelines import Products
from bids_cpmae.evaluation.plots import bars, match_curves, points, region_map
from bids_cpmae.evaluation.statistics import auc, auc_interval, bootstrap_interval, wilson_interval
from bids_cpmae.evaluation.tables import versions, write_json, write_tsv
from bids_cpmae.evaluation.truth import hold_against, tissue_labels


def test_bootstrap_covers_the_mean_and_repeats():
    values = np.random.default_rng(0).normal(3, 1, 200)
    low, high = bootstrap_interval(values)
    assert low < 3 < high and 0.15 < high - low < 0.4
    assert bootstrap_interval(values) == (low, high) and bootstrap_interval(values, seed=1) != (low, high)
    assert bootstrap_interval([2.0]) == (2.0, 2.0)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([1.0, np.nan])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([])


def test_rates_and_areas():
    # textbook: 0 of 10 goes up to 0.278 by Wilson
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-3)
    assert auc([3, 4], [1, 2]) == 1 and auc([1, 1], [1, 1]) == 0.5 and auc([1, 3], [2, 4]) == 0.25
    scores = {str(n): ([2.0 + (n % 2)], [1.0, 2.5]) for n in range(8)}
    area, low, high = auc_interval(scores)
    assert area == 0.75 and low < area < high


def test_page_stands_alone(tmp_path):
    table = Table("A <b>caption</b>", ("method", "value"), [("<script>alert(1)</script>", None), ("b", 0.5)])
    figures = [
        bars(["a", "b"], [0.5, 0.7], [(0.4, 0.6), (0.7, 0.7)], xlabel="AUC", chance=0.5),
        match_curves({"a": [1, 2, 3], "b": [9, 9, 1]}, 10),
        points(["a", "b"], [0.98, 0.99], [(0.97, 0.99), (0.985, 0.995)], xlabel="Dice"),
        region_map({"a": ["1.0", None], "b": ["2", "0.1"]}, ("x", "y")),
    ]  # fmt: skip
    section = Section("One", "first\n\nsecond", [table], figures)
    path = write_page(tmp_path / "page.html", "A & B", [section], settings={"seed": 1})
    text = path.read_text()
    assert "<script" not in text and "http" not in text and "&lt;script&gt;" in text and "A &amp; B" in text
    assert text.count("data:image/png;base64,") == 4 and "n/a" in text and "&#34;seed&#34;: 1" in text
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_tables_and_json(tmp_path):
    assert write_tsv(tmp_path / "t.tsv", ("a", "b"), [(1, None)]).read_text() == "a\tb\n1\tn/a\n"
    found = json.loads(write_json(tmp_path / "t.json", versions("numpy", "no-such-package")).read_text())
    assert found["numpy"] == np.__version__ and found["no-such-package"] is None


def test_truth_is_compared_on_the_grid_of_what_came_out():
    labels = np.zeros((20, 20, 20), int)
    labels[4:16, 4:16, 4:16] = 3
    labels[6:10, 6:14, 6:14] = 2
    labels[10:14, 6:14, 6:14] = 4
    tissues = tissue_labels(labels, {"brain": np.array([2, 3, 4])})
    assert sorted(np.unique(tissues)) == [0, 1, 2, 3] and (tissues[4:6, 4:16, 4:16] == 2).all()
    fine, coarse = np.eye(4), np.diag([2.0, 2, 2, 1])
    coarse[:3, 3] = 0.4
    sampled = tissues[::2, ::2, ::2]
    right = hold_against(Products(coarse, brain=sampled > 0, tissues=sampled), tissues, fine)
    assert right == {"brain": 1.0, "csf": 1.0, "gm": 1.0, "wm": 1.0}
    wrong = hold_against(Products(coarse, brain=np.roll(sampled > 0, 2, 0), tissues=None), tissues, fine)
    assert wrong == {"brain": pytest.approx(4 / 6)}
