"""Datasets of two thousand participants: what it costs to start and to merge, and that it grows no faster than they."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from bids_trees import write_dataset
from report_trees import add_scan

from bids_cpmae.bids.dataset import start_dataset
from bids_cpmae.bids.tsv import read_tsv
from bids_cpmae.bids.verdicts import FAIL

MANY, FEW = 2000, 500
MOST_S, MOST_GB = 60, 2.0
START = """
import sys
from pathlib import Path
from bids_cpmae.cli import build_parser, settings_of
from bids_cpmae.bids.query import find_scans, find_untouched, open_layout
from bids_cpmae.workflow.run import build_workflow
settings = settings_of(build_parser().parse_args([*sys.argv[1:], "participant", "--skip-bids-validation"]))
layout = open_layout(settings.bids_dir, None)
scans = find_scans(layout)
find_untouched(layout, scans)
print(len(build_workflow(settings, scans).list_node_names()))
"""
# a process's peak counts from before its exec, so the one to measure is started by a small one, not by this
METER = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss]))
sys.exit(code)
"""


def dataset(root, count):
    """One tiny T1w scan, under as many names as there are participants."""
    raw = write_dataset(root / "raw", "sub-0000/anat/sub-0000_T1w.nii.gz")
    scan = raw / "sub-0000" / "anat" / "sub-0000_T1w.nii.gz"
    for number in range(1, count):
        folder = raw / f"sub-{number:04d}" / "anat"
        folder.mkdir(parents=True)
        os.link(scan, folder / f"sub-{number:04d}_T1w.nii.gz")
    return raw


def measured(*command):
    """Seconds of CPU, peak memory in GB and standard output of a command that succeeds."""
    process = subprocess.run([sys.executable, "-c", METER, *map(str, command)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    *out, figures = process.stdout.splitlines()
    seconds, kilobytes = json.loads(figures)
    return seconds, kilobytes * 1024 / 1e9, "\n".join(out)


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """Of starting a run over few and over many participants: seconds, GB and nodes."""
    found = {}
    for count in (FEW, MANY):
        root = tmp_path_factory.mktemp("scale")
        raw = dataset(root, count)
        seconds, memory, out = measured(sys.executable, "-c", START, raw, root / "out", "-w", root / "work")
        found[count] = (seconds, memory, int(out))
        shutil.rmtree(root)
    print(f"start: {found}")
    return found


def test_a_run_over_two_thousand_starts_within_a_minute_and_two_gigabytes(costs):
    seconds, memory, nodes = costs[MANY]
    assert nodes == MANY / FEW * costs[FEW][2] >= 5 * MANY
    assert seconds < MOST_S and memory < MOST_GB


def test_starting_costs_no_more_a_participant_where_there_are_more(costs):
    (few, little, _), (many, much, _) = costs[FEW], costs[MANY]
    assert many < 1.5 * MANY / FEW * few and much < MANY / FEW * little


def test_merging_two_thousand_takes_a_minute_at_most_and_one_failure_changes_nothing_else(tmp_path):
    out = tmp_path / "out"
    start_dataset(out, write_dataset(tmp_path / "raw", "sub-0000/anat/sub-0000_T1w.nii.gz"))
    for number in range(MANY):
        add_scan(out, f"{number:04d}")
    command = (sys.executable, "-m", "bids_cpmae.cli", tmp_path / "raw", out, "group")
    seconds, memory, _ = measured(*command)
    print(f"group: {seconds:.1f} s, {memory:.2f} GB")
    assert seconds < MOST_S and memory < MOST_GB
    before = read_tsv(out / "desc-refacing_verdicts.tsv")
    add_scan(out, "0999", FAIL, "truncated; restore the file")
    ended = subprocess.run([str(part) for part in command], capture_output=True)
    after = read_tsv(out / "desc-refacing_verdicts.tsv")
    assert ended.returncode == 1 and len(before) == len(after) == MANY
    assert [row["participant_id"] for row, other in zip(before, after) if row != other] == ["sub-0999"]
