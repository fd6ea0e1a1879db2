"""All scans of a participant in one run: one face, drawn once; and what becomes of them when a reference is no good."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset, write_head, write_scan, write_tiny_weights
from heads import moved, t2_like

from bids_cpmae.bids.query import find_scans, open_layout
from bids_cpmae.bids.verdicts import FAIL, PASS, SKIPPED, Verdict
from bids_cpmae.cli import main
from bids_cpmae.errors import SkippedError
from bids_cpmae.imaging.resample import resample
from bids_cpmae.imaging.template import load_template
from bids_cpmae.workflow.interfaces import LocateFace
from bids_cpmae.workflow.participant import init_participant_wf, verdict_path
from bids_cpmae.workflow.run import orphaned

T1W, T2W = "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz"
ECHOES = [f"sub-01/anat/sub-01_echo-{n}_MEGRE.nii.gz" for n in (1, 2)]
BROKEN, ALONE = "sub-02/anat/sub-02_T1w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz"
BOLD = "sub-01/func/sub-01_task-rest_bold.nii.gz"
SESSIONS = [f"sub-03/ses-{s}/anat/sub-03_ses-{s}_{x}.nii.gz" for s, x in (("a", "T1w"), ("b", "T1w"), ("b", "T2w"))]


def plan(tmp_path, *names, **options):
    root = write_dataset(tmp_path / "raw", *names)
    scans = find_scans(open_layout(root), **options)
    workflow = init_participant_wf(
        participant=scans[0].participant, scans=scans, bids_dir=root, work_dir=tmp_path / "w",
        output_dir=tmp_path / "out",
    )  # fmt: skip
    return scans, {str(node).partition(".")[2]: node for node in workflow._create_flat_graph().nodes()}


def steps(nodes, scan):
    return {name.rpartition(".")[2] for name in nodes if name.startswith(f"scan_{scan}_wf.")}


def test_a_face_is_drawn_once_and_carried(tmp_path):
    scans, nodes = plan(tmp_path, *SESSIONS)
    assert [name for name in nodes if name.endswith("remodel_face")] == ["scan_sub_03_ses_a_T1w_wf.remodel_face"]
    carried = {"align_to_reference", "align_blanked", "carry_mask", "translate_contrast", "certify_scan",
               "measure_scan", "draw_scan", "publish_scan"}  # fmt: skip
    assert carried <= steps(nodes, "sub_03_ses_b_T1w") and carried <= steps(nodes, "sub_03_ses_b_T2w")
    assert len({node.inputs.noise_seed for name, node in nodes.items() if name.endswith("translate_contrast")}) == 1


def test_a_reference_that_is_not_selected_is_worked_out_and_not_published(tmp_path):
    scans, nodes = plan(tmp_path, *SESSIONS, sessions=("b",), suffixes=("T2w",))
    assert len(scans) == 1
    assert [name for name in nodes if name.endswith("publish_scan")] == ["scan_sub_03_ses_b_T2w_wf.publish_scan"]
    assert "remodel_face" in steps(nodes, "sub_03_ses_a_T1w")
    assert {"align_to_reference", "carry_mask", "align_blanked"} <= steps(nodes, "sub_03_ses_b_T1w")
    assert [name for name in nodes if name.endswith("translate_contrast")] == [
        "scan_sub_03_ses_b_T2w_wf.translate_contrast"
    ]


def test_echoes_share_one_alignment(tmp_path):
    _, nodes = plan(tmp_path, T1W, *ECHOES)
    assert "align_blanked" in steps(nodes, "sub_01_echo_1_MEGRE")
    assert not {"align_blanked", "align_to_reference"} & steps(nodes, "sub_01_echo_2_MEGRE")
    assert "carry_mask" in steps(nodes, "sub_01_echo_2_MEGRE")


def test_a_scan_turned_away_is_skipped_with_its_reason(tmp_path, monkeypatch):
    import bids_cpmae.workflow.interfaces as interfaces

    def away(inputs):
        raise SkippedError(f"{inputs.in_file}: already defaced")

    monkeypatch.setattr(interfaces, "first_look", away)
    monkeypatch.chdir(tmp_path)
    path = write_scan(tmp_path / "sub-01_T1w.nii.gz")
    step = LocateFace(in_file=str(path), scan={"source": T1W, "participant": "01", "session": None},
                      verdict_file=str(tmp_path / "v.json"))  # fmt: skip
    with pytest.raises(SkippedError):
        step.run()
    verdict = Verdict.load(tmp_path / "v.json")
    assert verdict.verdict == SKIPPED and verdict.reason == "sub-01_T1w.nii.gz: already defaced"


def test_scans_are_orphaned_by_a_reference_that_failed_for_all_of_them(tmp_path):
    scans, _ = plan(tmp_path, *SESSIONS)
    work = tmp_path / "w"

    def leave(scan, verdict):
        Verdict(scan.relative, "03", scan.session, verdict).save(verdict_path(work, scan))

    assert orphaned(work, scans) == []
    leave(scans[0], SKIPPED)
    again = {scan.relative: scan for scan in orphaned(work, scans)}
    assert set(again) == set(SESSIONS[1:])
    assert again[SESSIONS[1]].reference is None and again[SESSIONS[2]].reference.relative == SESSIONS[1]
    # one that failed late, with its face already given to another, stays the reference: one identity
    leave(scans[0], FAIL)
    leave(scans[2], PASS)
    assert orphaned(work, scans) == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run over one participant with four scans, and one whose T1w scan is cut short."""
    place = tmp_path_factory.mktemp("study")
    raw = write_dataset(place / "raw", BOLD)
    write_head(raw / T1W, spacing=3)
    grid, rigid = load_template().grid, moved((0.04, 0, 0.05), (3, -2, 4))
    affine = rigid @ nib.affines.from_matvec(np.diag([3.0, 3.0, 4.0]), (-100, -115, -125))
    other = resample(t2_like(grid.data), grid.affine, np.linalg.inv(rigid) @ affine, (67, 78, 58))
    for name, factor in ((T2W, 1.0), (ECHOES[0], 0.8), (ECHOES[1], 0.4), (ALONE, 1.0)):
        noise = np.random.default_rng(len(name)).standard_normal((2, *other.shape)) * 8
        stored = np.hypot(factor * other + noise[0], noise[1])
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.rint(stored).astype(np.int16), affine), raw / name)
    write_scan(raw / BROKEN).write_bytes((raw / T1W).read_bytes()[:4000])
    write_tiny_weights(place / "tiny.safetensors")
    words = [raw, place / "out", "participant", "-w", place / "work", "--nprocs", 2, "--omp-nthreads", 1,
             "--device", "cpu", "--skip-bids-validation", "--model-weights", place / "tiny.safetensors"]  # fmt: skip
    assert main([str(word) for word in words]) == 1
    return place


def rows(place, name):
    with open(place / "out" / name, newline="", encoding="utf-8") as file:
        return {row["source"]: row for row in csv.DictReader(file, delimiter="\t")}


def load(place, name):
    return np.asanyarray(nib.load(place / "out/sub-01/anat" / f"sub-01_{name}.nii.gz").dataobj)


def test_every_scan_has_its_verdict_and_one_bad_one_stops_no_other(place):
    verdicts = rows(place, "desc-refacing_verdicts.tsv")
    # untrained networks draw no face that would pass unseen
    assert {name: row["verdict"] for name, row in verdicts.items()} == {
        T1W: "REVIEW", T2W: "REVIEW", ECHOES[0]: "REVIEW", ECHOES[1]: "REVIEW", BROKEN: "FAIL", ALONE: "REVIEW",
    }  # fmt: skip
    assert "no T1w scan" in verdicts[ALONE]["reason"]
    assert float(verdicts[T2W]["registration_correlation"]) > 0.8
    assert {int(row["brain_voxels_changed"]) for name, row in verdicts.items() if name != BROKEN} == {0}


def test_outside_their_masks_the_scans_are_as_they_were(place):
    for name, stem in ((T2W, "T2w"), (ECHOES[1], "echo-2_MEGRE")):
        before = np.asanyarray(nib.load(place / "raw" / name).dataobj)
        mask = load(place, "mod-T2w_desc-face_defacemask" if stem == "T2w" else "echo-2_desc-faceMEGRE_mask") > 0
        after = load(place, stem.replace("T2w", "desc-refaced_T2w").replace("_MEGRE", "_desc-refaced_MEGRE"))
        assert np.array_equal(before[~mask], after[~mask]) and (before != after)[mask].mean() > 0.3


def test_echoes_have_one_mask(place):
    masks = [load(place, f"echo-{n}_desc-faceMEGRE_mask") for n in (1, 2)]
    assert np.array_equal(*masks) and masks[0].any()


def test_sidecars_say_where_the_face_comes_from(place):
    made = json.loads((place / "out/sub-01/anat/sub-01_desc-refaced_T2w.json").read_text())
    assert made["FaceDrawnFrom"] == f"bids:raw:{T1W}"


def test_what_was_left_untouched_is_in_a_table(place):
    assert set(rows(place, "logs/desc-untouched_scans.tsv")) == {BOLD}
