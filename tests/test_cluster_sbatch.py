"""``cpmae sbatch``: what the scripts ask for and run, and what is refused; no Slurm needed."""

import os
import shlex
import stat
import subprocess

import pytest
from bids_trees import write_dataset

import bids_cpmae.cluster.sbatch as sbatch
from bids_cpmae.bids.query import INDEX
from bids_cpmae.cli import build_parser as app_parser
from bids_cpmae.workbench import main

SCANS = (
    "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz", "sub-x3/ses-a/anat/sub-x3_ses-a_T1w.nii.gz",
    "sub-04/ses-a/func/sub-04_ses-a_task-rest_bold.nii.gz",
)  # fmt: skip
# what a program of another name is replaced by: it tells how it was called
TELLS = '#!/bin/bash\nprintf "%s\\n" "$(basename "$0")" "$@" >> "$TOLD"\necho >> "$TOLD"\necho 7{}\n'


@pytest.fixture
def raw(tmp_path):
    return write_dataset(tmp_path / "a study" / "raw", *SCANS)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Programs that only tell how they were called, before all others on the PATH; returns what they told."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("apptainer", "bids-cpmae", "sbatch"):
        (programs / name).write_text(TELLS.format("\\;there" if name == "sbatch" else ""))
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path / "told.txt"))
    monkeypatch.setattr(sbatch, "installed_app", lambda: "bids-cpmae")

    def calls():
        text = (tmp_path / "told.txt").read_text()
        return [call.splitlines() for call in text.split("\n\n") if call]

    return calls


def write(raw, *words, code=0):
    """Write scripts; returns their folder."""
    place = raw.parent
    asked = ["sbatch", raw, place / "out", "-w", place / "work", *words]
    if "--skip-bids-validation" not in asked:
        asked += ["--skip-bids-validation"] if "--" in asked else ["--", "--skip-bids-validation"]
    assert main([str(word) for word in asked]) == code
    return place / "work" / "slurm"


def run_task(folder, number, offset=""):
    words = ["bash", str(folder / "participant.sbatch"), *filter(None, [offset])]
    return subprocess.run(words, env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number)}, capture_output=True, text=True)


def test_what_is_asked_for_stands_in_the_script(raw):
    folder = write(raw, "--mem", "16G", "--time", "1:00:00", "--cpus-per-task", "6", "--gres", "gpu:1", "--partition",
                   "short", "--account", "lab", "--array-limit", "2")  # fmt: skip
    lines = (folder / "participant.sbatch").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert asked >= {"--array=1-3%2", "--mem=16G", "--time=1:00:00", "--cpus-per-task=6", "--gres=gpu:1",
                     "--partition=short", "--account=lab", f'--output="{folder}/%x_%A_%a.log"'}  # fmt: skip
    group = (folder / "group.sbatch").read_text()
    assert "--partition=short" in group and "gpu" not in group.split("set -eu")[0]
    for name in ("participant.sbatch", "group.sbatch", "submit.sh"):
        subprocess.run(["bash", "-n", str(folder / name)], check=True)


def test_a_task_runs_the_app_for_its_participant(raw, told):
    folder = write(raw, "--mem", "10G", "--cpus-per-task", "6", "--", "--random-seed", "7", "-v",
                   "--session-label", "a", "b", "--skip-bids-validation")  # fmt: skip
    assert run_task(folder, 3).returncode == 0
    ((program, *words),) = told()
    assert program == "bids-cpmae"
    args = app_parser().parse_args(words)
    assert (args.bids_dir, args.output_dir, args.level) == (raw, raw.parent / "out", "participant")
    assert args.participant_label == ["x3"] and args.work_dir == raw.parent / "work" / "sub-x3"
    assert args.bids_database_dir == raw.parent / "work" / "bids_database" and (args.bids_database_dir / INDEX).exists()
    assert (args.random_seed, args.verbosity, args.session_label, args.skip_bids_validation) == (7, 1, ["a", "b"], True)
    # memory for two scans of the participant with two; no GPU was asked for
    assert (args.mem, args.nprocs, args.omp_nthreads, args.device) == (9.0, 2, 3, "cpu")


def test_what_is_passed_on_goes_before_what_is_worked_out(raw, told):
    (raw.parent / "f.json").write_text("{}")
    folder = write(raw, "--gpus", "1", "--", "--nprocs", "1", "--omp-nthreads", "1", "--mem", "3", "--device", "auto",
                   "--bids-filter-file", os.path.relpath(raw.parent / "f.json"), "--skip-bids-validation")  # fmt: skip
    run_task(folder, 1)
    args = app_parser().parse_args(told()[0][1:])
    assert (args.mem, args.nprocs, args.omp_nthreads, args.device) == (3.0, 1, 1, "auto")
    # a job starts elsewhere
    assert args.bids_filter_file == raw.parent / "f.json"


def test_arrays_longer_than_slurm_takes_are_split(raw, told, monkeypatch, capsys):
    monkeypatch.setattr(sbatch, "CHUNK", 2)
    folder = write(raw, "--submit", "--array-limit", "5")
    first, second, group = told()
    assert first == ["sbatch", "--parsable", "--array=1-2%5", "participant.sbatch", "0"]
    assert second == ["sbatch", "--parsable", "--array=1-1%5", "participant.sbatch", "2"]
    assert group == ["sbatch", "--parsable", "--dependency=afterany:7:7", "group.sbatch"]
    assert "group: job 7" in capsys.readouterr().out
    run_task(folder, 1, "2")
    assert app_parser().parse_args(told()[-1][1:]).participant_label == ["x3"]


def test_a_container_sees_all_paths_where_they_are(raw, told):
    image, weights = raw.parent / "image.sif", raw.parent / "weights.safetensors"
    image.touch(), weights.touch()
    folder = write(raw, "--container", image, "--gpus", "1", "--", "--model-weights", weights,
                   "--skip-bids-validation")  # fmt: skip
    assert run_task(folder, 1).returncode == 0
    program, run, *words = told()[0]
    assert (program, run) == ("apptainer", "run") and {"--cleanenv", "--nv"} <= set(words)
    at = words.index(str(image))
    bound = {words[number + 1] for number in range(at) if words[number] == "--bind"}
    place = raw.parent
    assert bound == {f"{path}:{path}:{mode}" for path, mode in
                     ((raw, "ro"), (place / "out", "rw"), (place / "work", "rw"), (weights, "ro"),
                      (place / "work" / "bids_database", "ro"))}  # fmt: skip
    args = app_parser().parse_args(words[at + 1 :])
    assert args.participant_label == ["01"] and args.model_weights == weights and args.device == "cuda"


def test_a_container_is_given_a_private_folder_that_is_there(raw, tmp_path):
    (tmp_path / "app.sif").touch()
    private = tmp_path / "deep" / "private"
    folder = write(raw, "--container", tmp_path / "app.sif", "--", "--private-dir", private)
    assert f"{private}:{private}:rw" in (folder / "participant.sbatch").read_text()
    assert private.is_dir() and stat.S_IMODE(private.stat().st_mode) == 0o700


def test_labels_choose_and_an_index_given_is_kept(raw, tmp_path):
    database = tmp_path / "index"
    folder = write(raw, "--participant-label", "sub-02", "--bids-database-dir", database)
    made = (database / INDEX).stat().st_mtime_ns
    text = (folder / "participant.sbatch").read_text()
    assert "--array=1-1\n" in text and shlex.quote(str(database)) in text
    write(raw, "--participant-label", "02", "--bids-database-dir", database)
    assert (database / INDEX).stat().st_mtime_ns == made


def test_an_index_of_its_own_is_made_anew(raw, capsys):
    write(raw)
    write_dataset(raw, "sub-05/anat/sub-05_T1w.nii.gz")
    folder = write(raw)
    assert "4 participants, 5 scans" in capsys.readouterr().out
    assert "05" in (folder / "participant.sbatch").read_text()


@pytest.mark.parametrize(
    "words, code",
    [
        (["--mem", "lots"], 64),
        (["--mem", "0"], 64),
        (["--cpus-per-task", "0"], 64),
        (["--container", "no.sif"], 64),
        (["--participant-label", "99"], 18),
        (["--", "--participant-label", "01"], 64),
        (["--", "-w", "elsewhere"], 64),
        (["--", "--dry-run"], 64),
        (["--", "--suffixes", "nose"], 64),
        (["--", "--model-weights", "no.safetensors"], 66),
    ],
)
def test_what_is_refused(raw, words, code, capsys):
    folder = write(raw, *words, code=code)
    assert capsys.readouterr().err.startswith("error: ")
    assert not folder.exists()


def test_the_work_folder_is_not_in_the_input(raw):
    assert main(["sbatch", str(raw), str(raw.parent / "out"), "-w", str(raw / "work")]) == 73


@pytest.mark.parametrize("words", [["--gres", "gpu:1", "--gpus", "1"], ["--", "--no-such-option"]])
def test_wrong_usage_is_64(raw, words):
    with pytest.raises(SystemExit) as stopped:
        write(raw, *words)
    assert stopped.value.code == 64


def test_without_slurm_the_scripts_are_there_and_it_is_said(raw, monkeypatch, capsys):
    monkeypatch.setattr(sbatch.shutil, "which", lambda name: None)
    folder = write(raw, "--submit", code=64)
    assert "no sbatch here" in capsys.readouterr().err and (folder / "submit.sh").is_file()


def test_what_slurm_says_against_it_is_passed_on(raw, told, capsys):
    place = raw.parent.parent / "bin" / "sbatch"
    place.write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    write(raw, "--submit", code=64)
    assert "invalid partition" in capsys.readouterr().err
