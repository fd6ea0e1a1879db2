"""The workflow's graph, its steps one by one, and what is collected at the end of a run."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bids_trees import write_dataset

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.query import Scan
from bids_cpmae.bids.verdicts import FAIL, PASS, SKIPPED, Verdict
from bids_cpmae.errors import ScanError, WeightsError
from bids_cpmae.identity import identity_seed, participant_of
from bids_cpmae.model.weights import load_cpmae
from bids_cpmae.settings import Settings
from bids_cpmae.workflow.interfaces import DrawScan, LocateFace, ScanInputSpec, ScanInterface, load_scan
from bids_cpmae.workflow.participant import init_participant_wf, verdict_path
from bids_cpmae.workflow.rehearsal import rehearse
from bids_cpmae.workflow.run import collect, rehearsing, wants_gpu, workflow_text

STEPS = ["locate_face", "align_head", "remodel_face", "compose_face", "certify_scan", "measure_scan", "draw_scan",
         "publish_scan"]  # fmt: skip
NAMES = ("sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/ses-b/anat/sub-01_ses-b_run-2_T1w.nii.gz")


@pytest.fixture
def scans(tmp_path):
    root = write_dataset(tmp_path / "raw", *NAMES)
    return [Scan(root / name, name, "01", name[11]) for name in NAMES]


@pytest.fixture
def workflow(scans, tmp_path):
    return init_participant_wf(
        participant="01", scans=scans, bids_dir=tmp_path / "raw", work_dir=tmp_path / "w",
        output_dir=tmp_path / "out",
        random_seed=5, device="cuda", use_gpu=True, weights_version="abc",
    )  # fmt: skip


def flat(workflow):
    return {str(node): node for node in workflow._create_flat_graph().nodes()}


def test_every_scan_goes_the_whole_way(workflow):
    nodes = flat(workflow)
    for scan in workflow.list_node_names():
        assert scan in [name.removeprefix("sub_01_wf.") for name in nodes]
    for name in NAMES:
        stem = Path(name).name.split(".")[0].replace("-", "_")
        assert {f"sub_01_wf.scan_{stem}_wf.{step}" for step in STEPS} <= set(nodes)


def test_every_mandatory_input_is_set_or_connected(workflow):
    graph = workflow._create_flat_graph()
    for node in graph.nodes():
        connected = {target for _, _, data in graph.in_edges(node, data=True) for _, target in data["connect"]}
        for name in node.inputs.traits(mandatory=True):
            assert name in connected or getattr(node.inputs, name) is not None, (node, name)
            assert name in connected or str(getattr(node.inputs, name)) != "<undefined>", (node, name)


def test_nothing_but_the_location_and_the_end_sees_the_scan_without_its_mask(workflow):
    # guarantee 2 of the design: all after the mask are handed the mask with the scan
    graph = workflow._create_flat_graph()
    for node in graph.nodes():
        if node.name in ("align_head", "compose_face", "certify_scan", "publish_scan"):
            connected = {target for _, _, data in graph.in_edges(node, data=True) for _, target in data["connect"]}
            assert "mask_file" in connected


def test_nothing_waits_for_what_is_drawn(workflow):
    graph = workflow._create_flat_graph()
    assert not [node for node in graph.nodes() if node.name == "draw_scan" and list(graph.successors(node))]


def test_what_cannot_be_drawn_fails_no_scan(tmp_path):
    (tmp_path / "rubbish.nii.gz").write_bytes(b"rubbish")
    rubbish = str(tmp_path / "rubbish.nii.gz")
    DrawScan(refaced_file=rubbish, mask_file=rubbish, drawings_dir=str(tmp_path / "drawings")).run(cwd=tmp_path)
    assert not (tmp_path / "drawings").exists()


def test_one_identity_a_participant(workflow):
    nodes = flat(workflow)
    seeds = {node.inputs.identity_seed for name, node in nodes.items() if name.endswith("remodel_face")}
    noise = {node.inputs.noise_seed for name, node in nodes.items() if name.endswith("compose_face")}
    assert seeds == {identity_seed(5, "01")}
    assert len(noise) == 1


def test_only_the_network_takes_the_gpu_and_one_slot(workflow):
    for name, node in flat(workflow).items():
        assert node.is_gpu_node() == name.endswith("remodel_face")
        assert node.n_procs == 1


def test_device_does_not_change_what_is_cached(workflow):
    node = next(node for name, node in flat(workflow).items() if name.endswith("remodel_face"))
    before = node.inputs.get_hashval()[1]
    node.inputs.device, node.inputs.use_gpu = "cpu", False
    assert node.inputs.get_hashval()[1] == before
    node.inputs.weights_version = "other"
    assert node.inputs.get_hashval()[1] != before


def test_those_without_a_scan_rehearse_where_memory_allows(tmp_path):
    settings = Settings(tmp_path, tmp_path, "participant", tmp_path, nprocs=4, memory_gb=16, device="cpu")
    assert [rehearsing(settings, scans) for scans in (1, 2, 3, 4, 9)] == [1, 2, 1, 0, 0]
    assert rehearsing(replace(settings, memory_gb=5), 1) == 0
    assert rehearsing(replace(settings, device="cuda"), 1) == 0


def test_a_rehearsal_loads_what_a_face_wants_and_leaves_threads_alone(tmp_path):
    before = torch.get_num_threads()
    load_cpmae.cache_clear()
    rehearse("cpu", None)
    load_cpmae(None, "cpu")
    assert load_cpmae.cache_info().misses == 1
    with pytest.raises(WeightsError):
        rehearse("cpu", tmp_path / "none.safetensors")
    assert torch.get_num_threads() == before


def test_a_scan_is_read_once_and_again_when_it_changed(plain_phantom, tmp_path):
    path = tmp_path / "scan.nii.gz"
    shutil.copy(plain_phantom.path, path)
    first = load_scan(str(path))
    assert load_scan(str(path)) is first
    with pytest.raises(ValueError, match="read-only"):
        first.stored[0, 0, 0] = 1
    os.utime(path, ns=(0, 0))
    assert load_scan(str(path)) is not first
    path.unlink()
    with pytest.raises(ScanError, match="no such file"):
        load_scan(str(path))


def test_gpu_is_found_without_cuda():
    import sys

    assert wants_gpu("cuda") and not wants_gpu("cpu")
    wants_gpu("auto")
    if "torch" in sys.modules:
        assert not sys.modules["torch"].cuda.is_initialized()


def test_workflow_has_a_text_to_cite(workflow):
    from nipype.pipeline import engine as pe

    whole = pe.Workflow("whole")
    whole.add_nodes([workflow])
    assert "ANTs" in workflow_text(whole)


def test_identity_hangs_on_seed_and_label_only():
    assert identity_seed(0, "01") == identity_seed(0, "01")
    assert len({identity_seed(0, "01"), identity_seed(0, "02"), identity_seed(1, "01"), identity_seed(0, None)}) == 4
    assert participant_of("/x/sub-01_ses-a_T1w.nii.gz") == "01"
    assert participant_of("/x/sub-01/head.nii.gz") is None and participant_of(None) is None


@pytest.mark.parametrize("broken", ["truncated", "missing", "link", "text"])
def test_a_scan_that_cannot_be_read_leaves_word_and_no_path(scans, tmp_path, broken, monkeypatch):
    path = scans[0].path
    content = path.read_bytes()
    path.unlink()
    if broken == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif broken == "link":
        path.symlink_to("../../../.git/annex/objects/KEY")
    elif broken == "text":
        path.write_text("no image")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    left = tmp_path / "verdict.json"
    step = LocateFace(
        in_file=str(path), scan={"source": NAMES[0], "participant": "01", "session": "a"}, verdict_file=str(left)
    )
    with pytest.raises(Exception, match=path.name):
        step.run()
    verdict = Verdict.load(left)
    assert verdict.verdict == FAIL
    assert path.name in verdict.reason and str(tmp_path) not in verdict.reason
    if broken == "link":
        assert "datalad get" in verdict.reason


def settings_for(tmp_path, **more):
    return Settings(bids_dir=tmp_path / "raw", output_dir=tmp_path / "out", level="participant",
                    work_dir=tmp_path / "work", **more)  # fmt: skip


def write_outputs(tmp_path, name):
    paths = [tmp_path / "out" / output for output in outputs_of(name)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("from an earlier run")
    return paths


def test_a_failed_scan_leaves_no_earlier_output(scans, tmp_path):
    stale, kept = (write_outputs(tmp_path, name) for name in NAMES)
    Verdict(NAMES[0], "01", "a", FAIL, "cannot").save(verdict_path(tmp_path / "work", scans[0]))
    Verdict(NAMES[1], "01", "b", PASS).save(verdict_path(tmp_path / "work", scans[1]))
    verdicts = collect(settings_for(tmp_path), scans, "text", {})
    assert [verdict.verdict for verdict in verdicts] == [FAIL, PASS]
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in kept)
    assert "cannot" in (tmp_path / "out/desc-refacing_verdicts.tsv").read_text()


def test_a_worker_that_died_without_a_word_is_a_failure(scans, tmp_path):
    stale = write_outputs(tmp_path, NAMES[0])
    verdicts = collect(settings_for(tmp_path), scans[:1], "text", {})
    assert verdicts[0].verdict == FAIL and "memory" in verdicts[0].reason
    assert not any(path.exists() for path in stale)


def test_a_scan_the_run_never_came_to_is_skipped_and_its_output_kept(scans, tmp_path):
    kept = write_outputs(tmp_path, NAMES[0])
    verdicts = collect(settings_for(tmp_path, stop_on_first_crash=True), scans[:1], "text", {}, stopped=True)
    assert verdicts[0].verdict == SKIPPED
    assert all(path.read_text() == "from an earlier run" for path in kept)
    assert json.loads((tmp_path / "out/desc-refacing_verdicts.json").read_text())["verdict"]["Levels"]


def test_a_scan_whose_image_another_run_has_taken_away_is_no_pass(scans, tmp_path):
    Verdict(NAMES[0], "01", "a", PASS).save(verdict_path(tmp_path / "work", scans[0]))
    verdicts = collect(settings_for(tmp_path), scans[:1], "text", {})
    assert verdicts[0].verdict == FAIL and "another run" in verdicts[0].reason


def test_a_work_folder_with_a_space_is_not_told(tmp_path):
    class Broken(ScanInterface):
        input_spec = ScanInputSpec

        def _step(self, folder):
            raise OSError(f"{work / 'bids_cpmae_wf' / 'x.npz'}: gone")

    work, scan = tmp_path / "Jane Doe" / "my work", tmp_path / "sub-01_T1w.nii.gz"
    scan.touch()
    told = work / "verdicts" / "x.json"
    step = Broken(in_file=str(scan), verdict_file=str(told), scan={"source": "x", "participant": "01", "session": None})
    with pytest.raises(OSError):
        step.run(cwd=str(tmp_path))
    assert Verdict.load(told).reason == "unexpected OSError: x.npz: gone"
