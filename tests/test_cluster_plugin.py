"""nipype's batch plugins: what a node's job asks for, and files that cannot work."""

import os

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset

from bids_cpmae.bids.query import find_scans, open_layout
from bids_cpmae.cli import main
from bids_cpmae.errors import InputError
from bids_cpmae.settings import Settings
from bids_cpmae.workflow.batch import BATCH_POLL_S, batch_arguments, is_batch
from bids_cpmae.workflow.plugin import SturdyMultiProcPlugin
from bids_cpmae.workflow.run import build_workflow, plugin_of
from bids_cpmae.workflow.scan import LEAST_GB, TRANSLATE_GB, memory_gb

SCAN = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture
def settings_with(tmp_path):
    raw = write_dataset(tmp_path / "raw", SCAN)

    def made(plugin, **arguments):
        return Settings(raw, tmp_path / "out", "participant", tmp_path / "work", omp_nthreads=3, device="cuda",
                        plugin={"plugin": plugin, "plugin_args": arguments})  # fmt: skip

    return made


def nodes(settings):
    workflow = build_workflow(settings, find_scans(open_layout(settings.bids_dir)))
    return workflow, {name.rpartition(".")[2]: workflow.get_node(name) for name in workflow.list_node_names()}


def test_every_node_asks_for_what_it_needs(settings_with):
    settings = settings_with("SLURM", sbatch_args="--mem={mem_mb}M -c {threads} --gres=gpu:{gpus} --x={a}${b}")
    workflow, made = nodes(settings)
    asked = {name: node.plugin_args["sbatch_args"] for name, node in made.items()}
    assert asked["remodel_face"] == "--mem=4096M -c 3 --gres=gpu:1 --x={a}${b}"
    assert asked["locate_face"] == "--mem=2048M -c 3 --gres=gpu:0 --x={a}${b}"
    assert asked["publish_scan"] == "--mem=1024M -c 3 --gres=gpu:0 --x={a}${b}"
    assert all(node.plugin_args["overwrite"] for node in made.values())
    assert workflow.config["execution"]["poll_sleep_duration"] == str(BATCH_POLL_S)


def test_memory_follows_the_size_of_a_scan(tmp_path):
    for name, shape in (("small", (8, 8, 8)), ("large", (64, 320, 320)), ("series", (64, 320, 320, 3))):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    small, large, series, none = (memory_gb(tmp_path / f"{name}.nii.gz", TRANSLATE_GB)
                                  for name in ("small", "large", "series", "none"))  # fmt: skip
    assert small == none == LEAST_GB < large < series < 2 * large


@pytest.mark.parametrize("plugin", ["SGE", "PBS"])
def test_other_schedulers_too(settings_with, plugin):
    settings = settings_with(plugin, qsub_args="-l mem={mem_gb}gb")
    assert nodes(settings)[1]["remodel_face"].plugin_args["qsub_args"] == "-l mem=4gb"
    assert plugin_of(settings, 2)["plugin_args"]["qsub_args"] == "-l mem={mem_gb}gb"


@pytest.mark.parametrize("text", ["module load x", "#!/bin/sh\nmodule load x"])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_template_has_a_shebang(tmp_path, text, as_file):
    (tmp_path / "template.sh").write_text(text)
    made = batch_arguments({"template": str(tmp_path / "template.sh") if as_file else text})["template"]
    assert made.startswith("#!/bin/") and made.endswith("module load x") and made.count("#!") == 1


def test_a_name_to_submit_by_is_always_there(monkeypatch):
    monkeypatch.delenv("LOGNAME", raising=False)
    batch_arguments({})
    assert os.environ["LOGNAME"]


def test_multiproc_from_a_file_is_the_sturdy_one(settings_with):
    made = plugin_of(settings_with("MultiProc", n_procs=5), 2)
    assert made["plugin"] is SturdyMultiProcPlugin
    assert made["plugin_args"]["n_procs"] == 5 and made["plugin_args"]["mp_context"] == "forkserver"


@pytest.mark.parametrize("plugin", ["Nose", "SLURMGraph", "CondorDAGMan"])
def test_plugins_that_cannot_work_are_refused(plugin):
    with pytest.raises(InputError):
        is_batch(plugin)


def test_a_plugin_that_does_not_wait_is_refused_before_anything_is_touched(tmp_path, capsys):
    raw = write_dataset(tmp_path / "raw", SCAN)
    (tmp_path / "p.yml").write_text("plugin: SLURMGraph\n")
    words = [raw, tmp_path / "out", "participant", "-w", tmp_path / "work", "--skip-bids-validation",
             "--nipype-plugin-file", tmp_path / "p.yml"]  # fmt: skip
    assert main([str(word) for word in words]) == 65
    assert "does not wait" in capsys.readouterr().err
