"""Recognition of people: ranks, the tables, and what must not end in a silent zero."""

import csv
import json
from argparse import ArgumentParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset
from heads import somebody

from bids_cpmae.errors import InputError
from bids_cpmae.evaluation import privacy
from bids_cpmae.evaluation.datasets import Comparison
from bids_cpmae.evaluation.privacy import Faces
from bids_cpmae.evaluation.ranking import Outcome

PEOPLE = [f"sub-{n}" for n in range(3)]


def comparison(methods, originals, people=None):
    return Comparison(originals, people or list(originals), methods, Path("out"), Path("work"))


def recogniser(path, views):
    """Each file name ends in the number of the face that it shows; -1 shows none."""
    number = int(path.name)
    vector = 10 * np.eye(8)[number] + (0.1 if len(views) == 3 and views is privacy.PROBE_VIEWS else 0)
    return Faces(np.array([number >= 0] * 3), np.stack([vector] * 3))


def test_rank_counts_who_is_nearer():
    outcome = Outcome("m", 3, {"a": {"a": 2.0, "b": 1.0, "c": 3.0}, "b": {"a": 5.0, "b": 4.0, "c": 4.0}})
    assert outcome.ranks == {"a": 2, "b": 1}
    own, others = outcome.verification()["a"]
    assert own == [-2.0] and sorted(others) == [-3.0, -1.0]


def test_recognised_people_are_told_from_strangers():
    originals = {f"sub-{n}": Path(str(n)) for n in range(6)}
    swapped = {f"sub-{n}": Path(str((n + 1) % 6)) for n in range(6)}
    faceless = {person: Path("-1") for person in originals}
    methods = {"original": originals, "swapped": swapped, "removed": faceless}
    outcomes = privacy.recognise(comparison(methods, originals), recogniser)
    same, other, none = (dict(zip(privacy.HEADER, row, strict=True)) for row in privacy.rows_of(outcomes, 0))
    assert same["rank_1"] == "6/6" and same["faces_found"] == "1.000" and same["auc"] == "1.000"
    assert other["rank_1"] == "0/6" and float(other["auc"]) < 0.6
    # that no face is found is said, and the place where it should be is compared all the same
    assert none["faces_found"] == "0.000" and none["people"] == 6


def test_people_without_a_face_in_the_gallery_are_an_error():
    originals = {"sub-1": Path("1"), "sub-2": Path("-1")}
    with pytest.raises(InputError, match="sub-2"):
        privacy.recognise(comparison({"original": originals}, originals), recogniser)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The whole command on synthetic people, a tool that does nothing and one that gives all the next one's head."""
    pytest.importorskip("dlib")
    pytest.importorskip("face_recognition_models")
    root = tmp_path_factory.mktemp("privacy")
    heads = [somebody(n) for n in range(len(PEOPLE))]
    for name, turn, pattern in (("raw", 0, "{0}_T1w"), ("lazy", 0, "{0}_desc-x_T1w"), ("swapped", 1, "{0}_desc-x_T1w")):
        write_dataset(root / name)
        for number, person in enumerate(PEOPLE):
            folder = root / name / person / "anat"
            folder.mkdir(parents=True)
            nib.save(heads[(number + turn) % len(PEOPLE)], folder / f"{pattern.format(person)}.nii.gz")
    parser = ArgumentParser()
    privacy.add_arguments(parser)
    words = [root / "raw", root / "out", "-w", root / "work"]
    words += ["--derivatives", f"lazy={root / 'lazy'}", "--derivatives", f"swapped={root / 'swapped'}"]
    assert privacy.main(parser.parse_args([str(word) for word in words])) == 0
    return root / "out"


def table(path):
    with path.open(newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_a_tool_that_does_nothing_is_found_out(told):
    by_face, by_skin = table(told / "privacy.tsv"), table(told / "privacy_skin.tsv")
    n = len(PEOPLE)
    assert by_face["original"]["rank_1"] == by_face["lazy"]["rank_1"] == f"{n}/{n}"
    assert by_face["swapped"]["rank_1"] == f"0/{n}" and by_face["swapped"]["faces_found"] == "1.000"
    assert by_skin["lazy"]["rank_1"] == f"{n}/{n}" and float(by_skin["lazy"]["face_mm"]) == 0
    assert by_skin["swapped"]["rank_1"] == f"0/{n}" and float(by_skin["swapped"]["face_mm"]) > 0.5


def test_the_results_stand_alone(told):
    assert {path.name for path in told.iterdir()} == {
        "privacy.tsv", "privacy_skin.tsv", "privacy_people.tsv", "privacy.json", "privacy.html"
    }  # fmt: skip
    with (told / "privacy_people.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 3 * len(PEOPLE)
    settings = json.loads((told / "privacy.json").read_text())
    assert settings["people"] == PEOPLE and settings["versions"]["dlib-bin"]
    page = (told / "privacy.html").read_text()
    assert "<script" not in page and "http" not in page and page.count("<img") == 4
