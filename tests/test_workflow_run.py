"""A whole run, by real registration and networks of the real kind that are small and untrained, on a head of nobody."""

import csv
import gzip
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset, write_head, write_scan, write_tiny_weights

from bids_cpmae.bids.validation import errors_of, find_validator
from bids_cpmae.bids.verdicts import MEASURES
from bids_cpmae.cli import main

GOOD = "sub-01/ses-a/anat/sub-01_ses-a_acq-m_run-1_T1w.nii.gz"
CUT = "sub-02/anat/sub-02_T1w.nii.gz"
UNFETCHED = "sub-03/anat/sub-03_T1w.nii.gz"
IMAGE = "sub-01/ses-a/anat/sub-01_ses-a_acq-m_run-1_desc-refaced_T1w"
MASK = "sub-01/ses-a/anat/sub-01_ses-a_acq-m_run-1_mod-T1w_desc-face_defacemask"


def content(folder):
    return {path.relative_to(folder).as_posix(): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def words_of(place, *more):
    words = [place / "raw", place / "out", "participant", "-w", place / "work", "--nprocs", 2,
             "--omp-nthreads", 1, "--device", "cpu", "--skip-bids-validation",
             "--model-weights", place / "tiny.safetensors", *more]  # fmt: skip
    return [str(word) for word in words]


def app(place, *more):
    return main(words_of(place, *more))


def fresh(*words):
    """Exit code of a process of its own: threads that other tests have set for theirs change the last bits."""
    return subprocess.run([sys.executable, *map(str, words)], env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataset with one good scan, one cut short and one that DataLad has not fetched, after a run."""
    place = tmp_path_factory.mktemp("private place")
    raw = write_dataset(place / "raw")
    head = write_head(place / "annex" / "KEY.nii.gz", spacing=4)
    image = nib.load(head)
    image.header["descrip"] = b"Ann Example 1970"
    nib.save(image, head)
    for name in (GOOD, CUT, UNFETCHED):
        (raw / name).parent.mkdir(parents=True)
    (raw / GOOD).symlink_to(head)
    (raw / UNFETCHED).symlink_to("../../.git/annex/objects/KEY")
    write_scan(raw / CUT).write_bytes(head.read_bytes()[:5000])
    (raw / "T1w.json").write_text(json.dumps({"EchoTime": 0.003, "InstitutionName": "Somewhere"}))
    write_tiny_weights(place / "tiny.safetensors")
    before = content(raw)
    (place / "code").write_text(str(fresh("-m", "bids_cpmae.cli", *words_of(place))))
    assert content(raw) == before, "the input was touched"
    return place


def verdicts(place):
    with open(place / "out" / "desc-refacing_verdicts.tsv", newline="", encoding="utf-8") as file:
        return {row["source"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_scans_that_cannot_be_read_do_not_stop_the_others(place):
    rows = verdicts(place)
    assert (place / "code").read_text() == "1"
    # untrained networks draw rubble, and that is seen
    assert {name: row["verdict"] for name, row in rows.items()} == {GOOD: "REVIEW", CUT: "FAIL", UNFETCHED: "FAIL"}
    assert "holes in the new face" in rows[GOOD]["reason"]
    assert "sub-02_T1w.nii.gz" in rows[CUT]["reason"]
    assert "datalad get" in rows[UNFETCHED]["reason"]


def test_tree_is_what_was_promised(place):
    files = sorted(path.relative_to(place / "out").as_posix() for path in (place / "out").rglob("*") if path.is_file())
    assert files == sorted([
        ".bidsignore", "dataset_description.json", "desc-refacing_verdicts.json", "desc-refacing_verdicts.tsv",
        "group.html", "group_qc.json", "group_qc.tsv", *(f"sub-0{n}.html" for n in (1, 2, 3)),
        "logs/.lock", "logs/CITATION.md", *(f"logs/sub-0{n}_desc-refacing_verdicts.tsv" for n in (1, 2, 3)),
        f"{IMAGE}.json", f"{IMAGE}.nii.gz", f"{MASK}.json", f"{MASK}.nii.gz",
    ])  # fmt: skip


@pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
def test_tree_is_valid(place):
    assert errors_of(place / "out") == []


def test_outside_the_mask_all_is_as_it_was(place):
    before, after = nib.load(place / "raw" / GOOD), nib.load(place / "out" / f"{IMAGE}.nii.gz")
    mask = np.asanyarray(nib.load(place / "out" / f"{MASK}.nii.gz").dataobj)
    old, new = np.asanyarray(before.dataobj), np.asanyarray(after.dataobj)
    assert set(np.unique(mask)) == {0, 1}
    assert new.dtype == old.dtype
    assert np.array_equal(old[mask == 0], new[mask == 0])
    assert (old[mask == 1] != new[mask == 1]).mean() > 0.3
    assert np.array_equal(before.affine, after.affine)
    row = verdicts(place)[GOOD]
    assert int(row["brain_voxels_changed"]) == 0 < int(row["brain_voxels"])
    assert int(row["voxels_mask"]) == mask.sum()
    assert int(row["voxels_total"]) == mask.size
    # rubble has no nose
    assert [name for name in MEASURES if row[name] == "n/a"] in ([], ["nose_mm"])


def test_nothing_private_is_in_the_tree(place):
    words = [b"private place", b"Ann Example", b"Somewhere", b"annex", str(place).encode(), b"Traceback"]
    for path in (place / "out").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.name.endswith(".gz"):
                assert not any(data[3:8]), "gzip header with a name or a time"
                data += gzip.decompress(data)
            assert not [word for word in words if word in data], path
    assert list((place / "work" / "crash").iterdir())


def test_sidecar_says_how_it_was_made(place):
    made = json.loads((place / "out" / f"{IMAGE}.json").read_text())
    assert made["EchoTime"] == 0.003 and made["SkullStripped"] is False
    assert made["Sources"] == [f"bids:raw:{GOOD}"]
    assert {"SoftwareVersion", "WeightsVersion", "RandomSeed", "DeidentificationMethod"} <= set(made)


PYTHON = """
import sys
import nibabel as nib
from bids_cpmae import reface
made = reface(sys.argv[1], weights=sys.argv[2])
nib.save(made.image, sys.argv[3])
assert made.certificate.outside_changed == 0
"""


def test_one_file_and_python_give_the_same_voxels(place, tmp_path):
    source, weights = place / "raw" / GOOD, place / "tiny.safetensors"
    words = ["reface", source, tmp_path / "o.nii.gz", "--mask-out", tmp_path / "m.nii.gz", "--device", "cpu"]
    assert fresh("-m", "bids_cpmae.workbench", *words, "--model-weights", weights) == 0
    assert (tmp_path / "o.nii.gz").read_bytes() == (place / "out" / f"{IMAGE}.nii.gz").read_bytes()
    assert (tmp_path / "m.nii.gz").read_bytes() == (place / "out" / f"{MASK}.nii.gz").read_bytes()
    assert fresh("-c", PYTHON, source, weights, tmp_path / "p.nii") == 0
    assert np.array_equal(nib.load(tmp_path / "p.nii").dataobj, nib.load(tmp_path / "o.nii.gz").dataobj)


def test_a_rerun_does_only_what_is_left(place):
    outputs = {path: path.read_bytes() for path in (place / "out").rglob("*.nii.gz")}
    results = {path: path.stat().st_mtime_ns for path in (place / "work").rglob("result_*.pklz")
               if "publish_scan" not in path.name}  # fmt: skip
    os.remove(next(iter(outputs)))
    assert app(place, "--participant-label", "01") == 0
    assert {path: path.read_bytes() for path in outputs} == outputs
    assert results and {path: path.stat().st_mtime_ns for path in results} == results
    assert verdicts(place)[CUT]["verdict"] == "FAIL"
