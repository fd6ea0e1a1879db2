"""The figures of a model card: read off the tables of the commands that measured them, and judged."""

import shutil
from argparse import ArgumentParser

import pytest
from bids_trees import write_dataset

from bids_cpmae.bids.tsv import read_tsv
from bids_cpmae.evaluation import card, privacy, realism, survey, utility
from bids_cpmae.evaluation.card import FACE, HEAD, Figure, privacy_figures, realism_figures, utility_figures
from bids_cpmae.evaluation.tables import write_tsv


def rows_of(tmp_path, header, *rows):
    """Rows as a command leaves them in a file; what is not given is 1."""
    table = [[row.get(name, "1") for name in header] for row in rows]
    return read_tsv(write_tsv(tmp_path / "table.tsv", header, table))


def judged(figures):
    return {figure.name: (figure.found, figure.met) for figure in figures}


def test_what_is_asked_is_met_at_the_limit_and_missed_beyond():
    assert Figure.least("a", 0.7, 0.7).met and not Figure.least("a", 0.6999, 0.7).met
    assert Figure.most("a", 0.6, 0.6).met and not Figure.most("a", 0.6001, 0.6).met
    assert Figure.near_one("a", [0.86, 1.14]).met and not Figure.near_one("a", [0.84, 1.0]).met
    assert Figure("a", "1").row == ("a", "1", None, None) and Figure.most("a", 2, 1).row == ("a", "2", "<= 1", "no")


def test_realism_by_its_worst_head(tmp_path):
    fine = {"power_0.25_0.30": "nan", "power_0.30_0.35": "nan", "psnr_db": "31.5"}
    other = {**fine, "seam": "1.3", "power_0.05_0.10": "0.8", "psnr_db": "27"}
    rows = rows_of(tmp_path, realism.HEADER, fine, other)
    found = judged(realism_figures(rows, {"variety": 0.72, "nearest_person_mm": 1.2}))
    assert found["reconstruction by the VQ-VAE, worst, dB"] == ("27", False)
    assert found["seam, worst"] == ("1.3", False)
    assert found["power 0.05 0.10 cycles/mm"] == ("1 of 2 (0.80 to 1.00)", False)
    assert found["power 0.10 0.15 cycles/mm"] == ("2 of 2 (1.00 to 1.00)", True)
    # voxels of 2 mm hold nothing as fine, and nothing is said of it
    assert not any("0.30" in name for name in found)
    assert found["variety of one person's new faces, of people's"] == ("0.72", True)
    assert found["nearest person to a new face, mm"] == ("1.2", False)
    assert not any("variety" in name for name in judged(realism_figures(rows, {})))


@pytest.mark.parametrize(("first", "met"), [("0/8", True), ("1/8", False)])
def test_privacy_over_all_seeds(tmp_path, first, met):
    usual = {"gallery": "145", "faces_found": "1.000", "auc": "0.550", "rank_1": first}
    faces = rows_of(tmp_path, privacy.HEADER, usual, {**usual, "auc": "0.610", "rank_1": "1/8", "faces_found": "0.900"})
    skins = rows_of(tmp_path, survey.SKIN_HEADER, {"rank_1": "2/8", "auc": "0.8"}, {"rank_1": "1/8", "auc": "0.9"})
    found = judged(privacy_figures(faces, skins, FACE))
    assert found["face mode: recognised first"] == (f"{1 + int(first[0])} of 16", met)
    assert found["face mode: AUC of verification, worst seed"] == ("0.61", False)
    assert found["face mode: faces found, worst seed"] == ("0.9", False)
    assert found["face mode: by skin in the same head space, first"] == ("3 of 16", None)
    # a whole new head need not be found from every side
    assert judged(privacy_figures(faces, [], HEAD))["head mode: faces found, worst seed"][1]


def test_utility_by_median_and_worst(tmp_path):
    row = {"failures": "0/24", "dice_brain_median": "0.996", "dice_brain_worst": "0.979",
           "dice_plain_brain_median": "0.99", "dice_plain_brain_worst": "0.985", "dice_tissues_median": "n/a",
           "dice_tissues_worst": "n/a", "brain_changed_most": "0.000000"}  # fmt: skip
    [read] = rows_of(tmp_path, utility.HEADER, row)
    found = judged(utility_figures(read, FACE))
    assert found["face mode: Dice of brain extraction, median"] == ("0.996", True)
    assert found["face mode: Dice of brain extraction, worst"] == ("0.979", False)
    assert found["face mode: Dice of brain extraction without recentring, median"] == ("0.99", False)
    assert found["face mode: Dice of brain extraction without recentring, worst"] == ("0.985", True)
    assert found["face mode: Dice of tissues, median"] == ("n/a", None)
    assert found["face mode: pipelines that failed"] == ("0/24", True)
    assert found["face mode: share of brain voxels that changed, worst"] == ("0", True)


def test_the_whole_command_on_real_heads(real_data, tmp_path):
    pytest.importorskip("dlib")
    pytest.importorskip("brainextractor")
    raw = write_dataset(tmp_path / "raw")
    for person in ("sub-IXI033", "sub-IXI211"):
        shutil.copytree(real_data / "ixi2mm" / person, raw / person)
    parser = ArgumentParser()
    card.add_arguments(parser)
    words = [raw, tmp_path / "out", "-w", tmp_path / "work", "--people", 1, "--seeds", 1, "--faces", 2]
    assert card.main(parser.parse_args([str(word) for word in words])) == 0
    found = {row["figure"]: row for row in read_tsv(tmp_path / "out/card.tsv")}
    assert float(found["seam, worst"]["found"]) < 1.2 and found["seam, worst"]["met"] == "yes"
    for mode in ("face", "head"):
        assert found[f"{mode} mode: faces found, worst seed"]["found"] == "1"
        assert found[f"{mode} mode: share of brain voxels that changed, worst"]["met"] == "yes"
        assert 0.95 < float(found[f"{mode} mode: Dice of brain extraction, worst"]["found"]) < 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "realism", "privacy-0", "utility", "card.tsv", "card.json", "card.html"
    }  # fmt: skip
