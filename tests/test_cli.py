"""The command lines: what they accept, what they refuse, and with which code."""

import subprocess
import sys
import time

import pytest
from heads import write_dataset

from bids_cpmae.cli import build_parser, main
from bids_cpmae.errors import ExitCode


@pytest.fixture()
def raw(tmp_path):
    root = write_dataset(tmp_path / "raw", {})
    (root / "sub-01/anat").mkdir(parents=True)
    (root / "sub-01/anat/sub-01_T1w.nii.gz").touch()
    return root


def refused(capsys, *words) -> tuple[int, str]:
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err


def test_both_spellings_are_taken():
    for name in ("--participant-label", "--participant_label"):
        args = build_parser().parse_args(["a", "b", "participant", name, "01", "02"])
        assert args.participant_label == ["01", "02"]
    assert build_parser().parse_args(["a", "b", "participant", "--work_dir", "w"]).work_dir.name == "w"


def test_help_and_version_are_quick():
    for option in ("--help", "--version"):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "bids_cpmae.cli", option], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout
        assert time.monotonic() - began < 5
    assert "exit codes" in subprocess.run(
        [sys.executable, "-m", "bids_cpmae.cli", "--help"], capture_output=True, text=True
    ).stdout  # fmt: skip


@pytest.mark.parametrize("words", [["--no-such-option"], ["--mode", "nose"], ["--nprocs", "many"]])
def test_wrong_usage_ends_with_64(words):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["a", "b", "participant", *words])
    assert caught.value.code == ExitCode.USAGE


def test_counts_must_be_positive(raw, tmp_path, capsys):
    code, text = refused(capsys, raw, tmp_path / "out", "participant", "--nprocs", "0", "-w", tmp_path / "w")
    assert code == ExitCode.USAGE and "--nprocs" in text


@pytest.mark.parametrize("where", [".", "..", "derivatives/x"])
def test_output_that_touches_the_input_is_refused(raw, tmp_path, capsys, where):
    code, text = refused(capsys, raw, raw / where, "participant", "-w", tmp_path / "w")
    assert code == ExitCode.CANNOT_CREATE and "input" in text
    assert not (raw / "derivatives").exists()


def test_work_folder_inside_input_or_output_is_refused(raw, tmp_path, capsys):
    for work in (raw / "w", tmp_path / "out" / "w"):
        code, text = refused(capsys, raw, tmp_path / "out", "participant", "-w", work)
        assert code == ExitCode.CANNOT_CREATE and "work folder" in text


def test_unknown_label_and_missing_dataset(raw, tmp_path, capsys):
    out, work = tmp_path / "out", tmp_path / "w"
    code, text = refused(capsys, raw, out, "participant", "-w", work, "--participant-label", "77")
    assert code == ExitCode.NOTHING_TO_DO and "77" in text and "01" in text
    code, text = refused(capsys, tmp_path / "nowhere", out, "participant", "-w", work)
    assert code == ExitCode.NO_INPUT and "nowhere" in text
    (tmp_path / "plain").mkdir()
    code, text = refused(capsys, tmp_path / "plain", out, "participant", "-w", work)
    assert code == ExitCode.INVALID_BIDS and "dataset_description.json" in text


def test_missing_weights_are_named_before_any_work(raw, tmp_path, capsys):
    code, text = refused(
        capsys, raw, tmp_path / "out", "participant", "-w", tmp_path / "w", "--model-weights", tmp_path / "none.safetensors"
    )  # fmt: skip
    assert code == ExitCode.NO_INPUT and "none.safetensors" in text
    assert not (tmp_path / "out").exists()


def test_filter_file_must_be_json(raw, tmp_path, capsys):
    (tmp_path / "f.json").write_text("{")
    code, text = refused(
        capsys, raw, tmp_path / "out", "participant", "-w", tmp_path / "w", "--bids-filter-file", tmp_path / "f.json"
    )  # fmt: skip
    assert code == ExitCode.USAGE and "f.json" in text


def test_dry_run_lists_and_writes_nothing(raw, tmp_path, capsys):
    assert main([str(raw), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "w"), "--dry-run"]) == 0
    assert "sub-01_desc-refaced_T1w.nii.gz" in capsys.readouterr().out
    assert not (tmp_path / "out").exists() and not (tmp_path / "w").exists()


def test_group_level_without_participants_says_so(raw, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    code, text = refused(capsys, raw, tmp_path / "out", "group", "-w", tmp_path / "w")
    assert code == ExitCode.NOTHING_TO_DO and "participant level" in text


def test_workbench_helps_without_heavy_imports():
    code = "import sys; from bids_cpmae.workbench import build_parser; build_parser([]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
