"""Several runs at once into one output tree: no line is lost, nothing is half written, the tree is valid."""

import multiprocessing
import subprocess
import sys
import time

import pytest
from bids_trees import write_dataset, write_scan, write_tiny_weights

from bids_cpmae.bids.lock import LOCK, locked
from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.query import INDEX, find_scans, open_layout
from bids_cpmae.bids.rawlayout import assemble_raw
from bids_cpmae.bids.tsv import read_tsv
from bids_cpmae.bids.validation import errors_of, find_validator
from bids_cpmae.bids.verdicts import LOGS, PASS, SKIPPED, TABLE, Verdict, merge, write_participant
from bids_cpmae.errors import InputError
from bids_cpmae.report.write import write_overview

RUNS, ROUNDS = 6, 8
APPS = 4
needs_validator = pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")


def at_once(work, *arguments):
    """Call a function with each of several arguments, in processes of their own that start together."""
    context = multiprocessing.get_context("forkserver")
    start = context.Barrier(len(arguments))
    processes = [context.Process(target=_held, args=(start, work, one)) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def _held(start, work, arguments):
    start.wait(120)
    work(*arguments)


def add_lines(out, participant, session):
    """What a run does to the tables, for scans of one session, as fast as can be."""
    for number in range(ROUNDS):
        source = f"sub-{participant}/ses-{session}/anat/sub-{participant}_ses-{session}_run-{number}_T1w.nii.gz"
        verdict = Verdict(source, participant, session, SKIPPED, "nothing to replace: made for a test")
        with locked(out / LOGS):
            write_participant(out, participant, [verdict])
            merge(out)
        write_overview(out, refresh=False)


def test_no_line_is_lost(tmp_path):
    # two runs a participant, a session each: both add to one table
    at_once(add_lines, *((tmp_path, participant, session) for participant in ("01", "02", "03") for session in "ab"))
    for name in (f"{TABLE}.tsv", "group_qc.tsv"):
        assert len({row["source"] for row in read_tsv(tmp_path / name)}) == 3 * 2 * ROUNDS, name
    assert not [path for path in tmp_path.rglob("*") if ".partial" in path.name]


def hold(folder, marker):
    with locked(folder):
        marker.touch()
        time.sleep(600)


def test_the_lock_of_a_killed_run_is_free_and_one_held_too_long_is_left(tmp_path):
    holder = multiprocessing.get_context("forkserver").Process(target=hold, args=(tmp_path / LOGS, tmp_path / "held"))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    with locked(tmp_path / LOGS, patience_s=0.1) as free:
        assert not free
    holder.kill()
    holder.join()
    with locked(tmp_path / LOGS, patience_s=5) as free:
        assert free
    assert [path.name for path in (tmp_path / LOGS).iterdir()] == [LOCK]


def share(raw, out, participant):
    assemble_raw(raw, out / "derivatives" / "bids_cpmae", out, participants=(participant,))


def test_a_raw_dataset_has_everybody_who_was_written_at_once(tmp_path):
    labels = [f"{number:02d}" for number in range(RUNS)]
    scans = [f"sub-{label}/anat/sub-{label}_T1w.nii.gz" for label in labels]
    raw, out = write_dataset(tmp_path / "raw", *scans), tmp_path / "out"
    table = "participant_id\tage\n" + "".join(f"sub-{label}\t30\n" for label in labels)
    (raw / "participants.tsv").write_text(table)
    for label, scan in zip(labels, scans):
        derivative = out / "derivatives" / "bids_cpmae"
        write_scan(derivative / outputs_of(scan).image)
        write_participant(derivative, label, [Verdict(scan, label, None, PASS)])
    at_once(share, *((raw, out, label) for label in labels))
    assert (out / "participants.tsv").read_text() == table
    rows = read_tsv(out / "derivatives" / "bids_cpmae" / LOGS / "desc-sharing_files.tsv")
    assert {row["file"] for row in rows} >= {*scans, "participants.tsv"}


def count(raw, database):
    assert len(find_scans(open_layout(raw, database))) == RUNS


def test_an_index_is_made_once_and_is_whole_for_all(tmp_path):
    raw = write_dataset(tmp_path / "raw", *(f"sub-{number}/anat/sub-{number}_T1w.nii.gz" for number in range(RUNS)))
    at_once(count, *((raw, tmp_path / "database") for _ in range(RUNS)))
    assert {path.name for path in (tmp_path / "database").iterdir()} == {INDEX, LOCK}
    with pytest.raises(InputError, match="index of"):
        open_layout(write_dataset(tmp_path / "other", "sub-1/anat/sub-1_T1w.nii.gz"), tmp_path / "database")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The app started for several participants at the same moment; their scans stop it early, tables and pages come."""
    place = tmp_path_factory.mktemp("concurrent")
    labels = [f"{number:02d}" for number in range(APPS)]
    raw = write_dataset(place / "raw", *(f"sub-{label}/anat/sub-{label}_T1w.nii.gz" for label in labels))
    for label in labels:
        write_scan(raw / f"sub-{label}/func/sub-{label}_task-rest_bold.nii.gz")
    weights = write_tiny_weights(place / "tiny.safetensors")
    runs = []
    for label in labels:
        # one work folder, as when all are started from the same place
        words = [sys.executable, "-m", "bids_cpmae.cli", raw, place / "out", "participant", "-w", place / "work",
                 "--participant-label", label, "--bids-database-dir", place / "database", "--nprocs", 1,
                 "--omp-nthreads", 1, "--device", "cpu", "--skip-bids-validation",
                 "--model-weights", weights]  # fmt: skip
        with open(place / f"{label}.log", "w") as log:
            runs.append(subprocess.Popen([str(word) for word in words], stdout=log, stderr=log))
    codes = {label: run.wait(600) for label, run in zip(labels, runs)}
    # no scan of noise has a face
    assert set(codes.values()) == {1}, {label: (place / f"{label}.log").read_text() for label in labels}
    return place, labels


def test_every_participant_of_runs_at_once_is_in_the_tables(place):
    folder, labels = place
    everybody = [f"sub-{label}" for label in labels]
    for name in (f"{TABLE}.tsv", "group_qc.tsv", f"{LOGS}/desc-untouched_scans.tsv"):
        rows = read_tsv(folder / "out" / name)
        assert sorted(row["participant_id"] for row in rows) == everybody, name
    page = (folder / "out" / "group.html").read_text()
    assert all(f"{one}/anat/{one}_T1w.nii.gz" in page for one in everybody)
    assert sorted(path.stem for path in (folder / "out").glob("sub-*.html")) == everybody
    assert not [path for path in (folder / "out").rglob("*") if ".partial" in path.name]


@needs_validator
def test_the_tree_of_runs_at_once_is_valid(place):
    assert errors_of(place[0] / "out") == []
