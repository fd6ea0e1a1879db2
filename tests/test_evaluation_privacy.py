"""Recognition of people: ranks, the table, and what must not end in a silent zero."""

import json
import shutil
from argparse import ArgumentParser

import nibabel as nib
import numpy as np
import pytest

from bids_cpmae.errors import InputError
from bids_cpmae.evaluation import privacy
from bids_cpmae.evaluation.recognition import rank_of_own


def parse(*words):
    parser = ArgumentParser()
    privacy.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def dataset(root, people, name="{}_T1w.nii.gz", content=b"x"):
    for person in people:
        folder = root / person / "anat"
        folder.mkdir(parents=True)
        (folder / name.format(person)).write_bytes(content)
    return root


REFACED = "{}_desc-refaced_T1w.nii.gz"


def test_rank_counts_who_is_nearer():
    gallery = {"a": [np.array([0.0])], "b": [np.array([3.0]), np.array([9.0])], "c": []}
    assert rank_of_own(np.array([1.0]), gallery, "a") == 1
    assert rank_of_own(np.array([1.0]), gallery, "b") == 2
    assert rank_of_own(np.array([8.0]), gallery, "b") == 1
    assert rank_of_own(np.array([8.0]), gallery, "c") is None


def test_measure_tells_recognised_from_strangers(tmp_path):
    people = [f"sub-{n}" for n in range(6)]
    originals = {person: [tmp_path / f"o{n}"] for n, person in enumerate(people)}
    # each refaced head looks like the next person
    swapped = {person: [tmp_path / f"o{(n + 1) % 6}"] for n, person in enumerate(people)}
    faceless = {person: [tmp_path / "none"] for person in people}

    def embedder(path, view):
        return None if path.name == "none" else 10 * np.eye(6)[int(path.name[1:])]

    derivatives = {"swapped": swapped, "removed": faceless}
    outcomes, gallery = privacy.measure(originals, derivatives, people, embedder)
    original, other, removed = (dict(zip(privacy.HEADER, outcome.row(), strict=True)) for outcome in outcomes)
    assert original["rank_1"] == "6/6" and original["method"] == "original" and len(gallery) == 6
    assert other["rank_1"] == "0/6" and other["faces_found"] == "6/6"
    # nothing found is not nothing recognised
    assert removed["faces_found"] == "0/6" and removed["rank_1"] is None and removed["median_rank"] is None
    assert original["chance_rank_1"] == "0.1667"


def test_measure_refuses_people_without_a_face_in_the_gallery(tmp_path):
    with pytest.raises(InputError, match="sub-1"):
        privacy.measure({"sub-1": [tmp_path]}, {}, ["sub-1"], lambda path, view: None)


def test_missing_and_unpaired_people_are_errors(tmp_path):
    raw = dataset(tmp_path / "raw", ["sub-1", "sub-2"])
    (raw / "participants.tsv").write_text("participant_id\tsplit\nsub-1\tdev\nsub-9\ttest\n")
    half = dataset(tmp_path / "half", ["sub-1"], REFACED)
    stranger = dataset(tmp_path / "stranger", ["sub-1", "sub-2", "sub-3"], REFACED)

    def fails(derivative, *more):
        with pytest.raises(InputError) as caught:
            privacy.main(parse(raw, tmp_path / "out", "--derivatives", f"a={derivative}", *more))
        return str(caught.value)

    assert "no such folder" in fails(tmp_path / "nowhere")
    assert "sub-2" in fails(half)
    assert "sub-3" in fails(stranger)
    assert "nobody is in split 'train'" in fails(half, "--participants-split", "train")
    assert "sub-9" in fails(half, "--participants-split", "test")
    assert not (tmp_path / "out").exists()


def test_the_name_original_is_taken(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(tmp_path, tmp_path, "--derivatives", f"original={tmp_path}")
    assert "NAME=PATH" in capsys.readouterr().err


def test_the_template_is_recognised_as_itself(tmp_path, capsys):
    pytest.importorskip("dlib")
    pytest.importorskip("face_recognition_models")
    from bids_cpmae.imaging.template import load_template

    grid = load_template().grid
    scan = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image((200 * grid.data).clip(0, 255).astype(np.uint8), grid.affine), scan)
    raw = dataset(tmp_path / "raw", ["sub-1"], content=scan.read_bytes())
    refaced = dataset(tmp_path / "refaced", ["sub-1"], REFACED, content=scan.read_bytes())
    words = (raw, tmp_path / "out", "--derivatives", f"same={refaced}", "--cache", tmp_path / "cache")
    assert privacy.main(parse(*words)) == 0
    table = (tmp_path / "out" / "privacy.tsv").read_text().splitlines()
    assert table[2].split("\t")[:5] == ["same", "1", "1", "1/1", "1/1"]
    assert json.loads((tmp_path / "out" / "privacy.json").read_text())["ranks"]["same"] == {"sub-1": 1}
    # one for each view: the same file under another name is not drawn again
    assert len(list((tmp_path / "cache").iterdir())) == 2
    shutil.rmtree(tmp_path / "out")
    printed = capsys.readouterr().out
    assert privacy.main(parse(*words)) == 0
    assert capsys.readouterr().out == printed
