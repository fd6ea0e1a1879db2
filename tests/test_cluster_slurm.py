"""A whole dataset on a real Slurm: a job array, and nipype's plugin, give what a plain run gives, bit by bit."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from bids_trees import write_dataset, write_head, write_scan, write_tiny_weights
from slurm import slurm, wait_for_jobs  # noqa: F401 (a fixture)

from bids_cpmae.bids.tsv import read_tsv
from bids_cpmae.bids.validation import errors_of, find_validator
from bids_cpmae.workbench import main as workbench

LIMIT_S = 1500
WHOLE, CUT = ("01", "02"), ("03", "04")
# a participant with a whole scan, and one whose scan stops the first node
BY_NODE = (WHOLE[0], CUT[0])
TEMPLATE = "echo $SLURM_JOB_NAME $SLURM_MEM_PER_NODE $SLURM_CPUS_PER_TASK $OMP_NUM_THREADS >> {}"
PLUGIN = """plugin: SLURM
plugin_args:
  template: {template}
  sbatch_args: --time=30 --mem={{mem_mb}}M --cpus-per-task={{threads}}
"""


def image_of(root, label):
    return root / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz"


@pytest.fixture(scope="module")
def place(tmp_path_factory, slurm):  # noqa: F811
    """A dataset of four, refaced by a plain run, by an array and by nipype's plugin, all at the same time."""
    place = tmp_path_factory.mktemp("cluster")
    raw = write_dataset(place / "raw")
    for label in WHOLE:
        write_head(image_of(raw, label), spacing=4)
    for label in CUT:
        write_scan(image_of(raw, label)).write_bytes(image_of(raw, WHOLE[0]).read_bytes()[:5000])
    weights = write_tiny_weights(place / "tiny.safetensors")
    (place / "plugin.yml").write_text(PLUGIN.format(template=TEMPLATE.format(place / "asked.txt")))
    common = ["--omp-nthreads", "1", "--device", "cpu", "--model-weights", str(weights)]
    array = ["sbatch", raw, place / "array", "-w", place / "array-work", "--mem", "3G", "--cpus-per-task", "1",
             "--time", "30", "--submit", "--", *common]  # fmt: skip
    with ExitStack() as stack:
        assert workbench([str(word) for word in array]) == 0
        plain = stack.enter_context(run(place, "plain", "--nprocs", "2", *common))
        plugin = stack.enter_context(
            run(place, "plugin", "--use-plugin", place / "plugin.yml", "--nprocs", "1", *common,
                "--participant-label", *BY_NODE)
        )  # fmt: skip
        codes = {"plain": plain.wait(LIMIT_S), "plugin": plugin.wait(LIMIT_S)}
    wait_for_jobs(LIMIT_S)
    # scans cut short fail in all of them
    assert codes == {"plain": 1, "plugin": 1}, {name: (place / f"{name}.log").read_text()[-2000:] for name in codes}
    return place


def run(place, name, *more):
    """The app on its own, in the background."""
    words = [sys.executable, "-m", "bids_cpmae.cli", place / "raw", place / name, "participant", "-w",
             place / f"{name}-work", *more]  # fmt: skip
    # nipype's plugin wants a log-in name, which cron and containers do not give
    environment = {key: value for key, value in os.environ.items() if key != "LOGNAME"}
    with open(place / f"{name}.log", "w") as log:
        return subprocess.Popen([str(word) for word in words], stdout=log, stderr=log, env=environment)


def content(root):
    """All files but pages, which show their own time of life: what else was known when they were made."""
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".html")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_an_array_gives_what_a_plain_run_gives(place):
    plain, array = content(place / "plain"), content(place / "array")
    assert sum(name.endswith(".nii.gz") for name in plain) == 2 * len(WHOLE)
    assert plain == array


def test_the_table_has_everybody_though_tasks_failed(place):
    rows = {row["participant_id"]: row["verdict"] for row in read_tsv(place / "array" / "desc-refacing_verdicts.tsv")}
    assert rows == {**{f"sub-{label}": "REVIEW" for label in WHOLE}, **{f"sub-{label}": "FAIL" for label in CUT}}
    logs = [path.read_text() for path in (place / "array-work" / "slurm").glob("cpmae-group_*.log")]
    assert len(logs) == 1 and "4 scans" in logs[0]
    assert (place / "array" / "group.html").is_file()


@pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
def test_the_tree_of_an_array_is_valid(place):
    assert errors_of(place / "array") == []


def test_nodes_as_jobs_give_what_a_plain_run_gives(place):
    def below(name):
        return {path: data for path, data in content(place / name).items() if f"sub-{BY_NODE[0]}" in path}

    assert below("plugin") == below("plain")
    rows = {row["participant_id"]: row["verdict"] for row in read_tsv(place / "plugin" / "desc-refacing_verdicts.tsv")}
    assert rows == {f"sub-{BY_NODE[0]}": "REVIEW", f"sub-{BY_NODE[1]}": "FAIL"}


def test_nodes_as_jobs_ask_for_what_they_need(place):
    asked = {}
    for line in (place / "asked.txt").read_text().splitlines():
        name, memory, cpus, threads = line.split()
        asked.setdefault(name.split(".")[0], set()).add((int(memory), int(cpus), int(threads)))
    assert asked["locate_face"] == {(2048, 1, 1)} and asked["remodel_face"] == {(4096, 1, 1)}
    assert asked["publish_scan"] == {(1024, 1, 1)}
