"""Who is compared with whom: a wrong pairing, a missing derivative or an empty folder is an error, never a zero."""

from argparse import ArgumentParser

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset, write_scan

from bids_cpmae.errors import InputError, OutputError, WeightsError
from bids_cpmae.evaluation import baselines
from bids_cpmae.evaluation.datasets import add_comparison_arguments, open_comparison
from bids_cpmae.imaging.nifti import load_source

T1W = "{0}/anat/{0}_T1w.nii.gz"
REFACED = "{0}/anat/{0}_desc-refaced_T1w.nii.gz"


@pytest.fixture()
def raw(tmp_path):
    root = write_dataset(tmp_path / "raw", *(T1W.format(f"sub-{n}") for n in (1, 2, 3)))
    (root / "participants.tsv").write_text("participant_id\tsplit\nsub-1\tdev\nsub-2\tdev\nsub-3\ttrain\nsub-9\ttest\n")
    return root


@pytest.fixture()
def refaced(tmp_path):
    return write_dataset(tmp_path / "refaced", *(REFACED.format(f"sub-{n}") for n in (1, 2, 3)))


def compared(*words):
    parser = ArgumentParser()
    add_comparison_arguments(parser)
    return open_comparison(parser.parse_args([str(word) for word in words]))


def test_pairs_are_of_one_person(tmp_path, raw, refaced):
    found = compared(raw, tmp_path / "out", "--derivatives", f"a={refaced}", "-w", tmp_path / "work")
    assert list(found.methods) == ["original", "a"] and found.people == ["sub-1", "sub-2", "sub-3"]
    assert all(path.parent.parent.name == person for person, path in found.methods["a"].items())
    assert found.methods["original"] == found.originals


def test_a_split_and_a_number_of_people(tmp_path, raw, refaced):
    options = ("--derivatives", f"a={refaced}", "-w", tmp_path / "work", "--participants-split", "dev")
    found = compared(raw, tmp_path / "out", *options)
    assert found.people == ["sub-1", "sub-2"] and list(found.methods["a"]) == found.people
    assert list(found.originals) == ["sub-1", "sub-2", "sub-3"]
    assert len(compared(raw, tmp_path / "out", *options, "--people", 1).people) == 1


def test_other_tools_name_their_files_as_they_like(tmp_path, raw):
    names = [*(T1W.format(f"sub-{n}") for n in (1, 2)), "sub-3/sub-3_rec-defaced_T1w.nii.gz"]
    other = write_dataset(tmp_path / "other", *names)
    write_scan(other / "sub-3/sub-3_desc-x_mask.nii.gz")
    found = compared(raw, tmp_path / "out", "--derivatives", f"a={other}", "-w", tmp_path / "work")
    assert found.methods["a"]["sub-3"].name == "sub-3_rec-defaced_T1w.nii.gz"


def test_weights_that_are_none_are_an_error_before_anything_is_made(tmp_path, raw):
    (tmp_path / "weights.safetensors").write_bytes(b"none")
    options = ("-w", tmp_path / "work", "--methods", "cpmae-face", "--model-weights", tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="weights.safetensors"):
        compared(raw, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_whatever_does_not_pair_is_an_error(tmp_path, raw, refaced):
    half = write_dataset(tmp_path / "half", REFACED.format("sub-1"))
    stranger = write_dataset(tmp_path / "stranger", *(REFACED.format(f"sub-{n}") for n in (1, 2, 3, 4)))
    twice = write_dataset(tmp_path / "twice", *(p.format(f"sub-{n}") for n in (1, 2, 3) for p in (T1W, REFACED)))
    empty = tmp_path / "empty"
    empty.mkdir()

    def fails(*words):
        with pytest.raises(InputError) as caught:
            compared(raw, tmp_path / "out", "-w", tmp_path / "work", *words)
        return str(caught.value)

    assert "no such folder" in fails("--derivatives", f"a={tmp_path / 'nowhere'}")
    assert "sub-2" in fails("--derivatives", f"a={half}")
    assert "sub-4" in fails("--derivatives", f"a={stranger}")
    assert "both versions" in fails("--derivatives", f"a={twice}")
    assert "3 of 3 people" in fails("--derivatives", f"a={empty}")
    assert "nobody is in split 'nobody'" in fails("--participants-split", "nobody")
    assert "sub-9" in fails("--participants-split", "test")
    assert "there are 3" in fails("--people", "4")
    assert "named twice" in fails("--derivatives", f"a={refaced}", "--derivatives", f"a={refaced}")
    with pytest.raises(InputError, match="no anatomical scan"):
        compared(write_dataset(tmp_path / "none"), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "work").exists()


def test_the_name_original_is_taken(tmp_path, raw, capsys):
    with pytest.raises(SystemExit):
        compared(raw, tmp_path, "--derivatives", f"original={tmp_path}")
    assert "NAME=PATH" in capsys.readouterr().err


def test_faces_stay_out_of_the_results(tmp_path, raw):
    with pytest.raises(OutputError, match="holds faces"):
        compared(raw, tmp_path / "out", "-w", tmp_path / "out" / "work")
    with pytest.raises(OutputError, match="inside an input"):
        compared(raw, raw / "out", "-w", tmp_path / "work")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The average head de-identified in every way that needs no network."""
    pytest.importorskip("quickshear")
    from heads import as_image, average_head

    folder = tmp_path_factory.mktemp("made")
    values, affine = average_head()
    original = folder / "sub-1_T1w.nii.gz"
    nib.save(as_image(values, affine), original)
    names = ["brain-only", "removed", "blurred", "quickshear", "average-face"]
    files = baselines.make_all(names, {"sub-1": original}, folder / "work")
    return original, {name: files[name]["sub-1"] for name in names}, folder / "work"


def test_each_method_changes_what_it_should(made):
    original, files, work = made
    source, place = load_source(original), baselines.located(original, work)
    versions = {name: load_source(path) for name, path in files.items()}
    for name, version in versions.items():
        assert version.data.shape == source.data.shape and np.allclose(version.affine, source.affine), name
        # none of them may touch the brain
        np.testing.assert_array_equal(version.data[place.brain], source.data[place.brain], err_msg=name)
    for name in ("removed", "blurred", "average-face"):
        np.testing.assert_array_equal(versions[name].data[~place.mask], source.data[~place.mask], err_msg=name)
    assert not versions["brain-only"].data[~place.brain].any()
    assert not versions["removed"].data[place.mask].any()
    face = source.data[place.mask]
    assert 0.1 < np.abs(versions["blurred"].data[place.mask] - face).mean() / face.mean() < 1
    assert np.corrcoef(versions["average-face"].data[place.mask], face)[0, 1] > 0.9
    cut = (versions["quickshear"].data == 0) & (source.data > 100)
    assert cut.sum() > 1000 and cut[place.mask].sum() > 0.9 * cut.sum()


def test_what_was_made_is_kept(made):
    original, files, work = made
    before = {name: path.stat().st_mtime_ns for name, path in files.items()}
    again = baselines.make_all(list(files), {"sub-1": original}, work)
    assert {name: path["sub-1"].stat().st_mtime_ns for name, path in again.items()} == before


def test_a_scan_that_cannot_be_deidentified_is_named(tmp_path):
    scan = write_scan(tmp_path / "sub-1_T1w.nii.gz", shape=(40, 40, 40))
    # of noise alone: where a template comes to lie on that is chance, but cut off it is no scan at all
    scan.write_bytes(scan.read_bytes()[:1000])
    with pytest.raises(InputError, match="sub-1_T1w"):
        baselines.make_all(["removed"], {"sub-1": scan}, tmp_path / "work")
