"""The command line: what it accepts, what it refuses, and with which code."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from bids_trees import write_dataset

from bids_cpmae.bids.dataset import DERIVATIVE, RAW, check_output, start_dataset
from bids_cpmae.bids.rawshared import start_raw
from bids_cpmae.cli import build_parser, main
from bids_cpmae.errors import ExitCode, OutputError
from bids_cpmae.request import settings_of
from bids_cpmae.settings import Settings, cpu_count


@pytest.fixture
def raw(tmp_path):
    return write_dataset(tmp_path / "raw", "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz")


def request(*words):
    return settings_of(build_parser().parse_args([str(word) for word in words]))


def code_of(*words):
    return main([str(word) for word in words])


OPTIONS = [
    "--participant-label 01", "--session-label a", "--bids-filter-file F", "--skip-bids-validation",
    "--bids-database-dir D", "--work-dir W", "--clean-workdir", "--nprocs 2", "--omp-nthreads 2", "--mem 4",
    "--use-plugin F", "--nipype-plugin-file F", "--device cpu", "--n-gpu-procs 2", "--model-weights W", "--mode head",
    "--regions face ears", "--suffixes T1w T2w", "--random-seed 3", "--stop-on-first-crash", "--write-graph",
    "--resource-monitor", "--dry-run", "--notrack", "-v", "-w W",
]  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_option_is_known_with_dashes_and_underscores(option):
    name, *values = option.split()
    dashed = vars(build_parser().parse_args(["raw", "out", "participant", name, *values]))
    underscored = f"--{name[2:].replace('-', '_')}" if name.startswith("--") else name
    if name != "--nipype-plugin-file":
        assert vars(build_parser().parse_args(["raw", "out", "participant", underscored, *values])) == dashed
    assert dashed != vars(build_parser().parse_args(["raw", "out", "participant"])) or name in (
        "--notrack",
        "--regions",
    )


def test_help_and_version_import_neither_torch_nor_nipype():
    code = (
        "import sys, bids_cpmae.cli as cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'nipype', 'ants', 'bids', 'nibabel', 'numpy'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit codes:" in done.stdout


def test_exit_codes_are_all_in_the_help():
    text = build_parser().format_help()
    for code in ExitCode:
        assert f"\n  {code.value} " in text, code


@pytest.mark.parametrize(
    "words", [[], ["raw"], ["raw", "out", "participant", "--mode", "nose"], ["a", "b", "c", "--no"]]
)
def test_wrong_usage_is_64(words):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(words)
    assert stopped.value.code == 64


@pytest.mark.parametrize("option", ["--nprocs", "--omp-nthreads", "--mem", "--n-gpu-procs"])
def test_numbers_have_to_be_positive(raw, tmp_path, option, capsys):
    assert code_of(raw, tmp_path / "out", "participant", option, 0) == 64
    assert option in capsys.readouterr().err


def test_unknown_level_is_17(raw, tmp_path):
    assert code_of(raw, tmp_path / "out", "session") == 17


@pytest.mark.parametrize("output", ["raw", ".", "raw/derivatives/refaced"])
def test_output_at_above_or_inside_the_input_is_73(raw, tmp_path, output, capsys):
    before = sorted(raw.rglob("*"))
    assert code_of(raw, tmp_path / output, "participant", "--skip-bids-validation") == 73
    assert "raw-refaced" in capsys.readouterr().err
    assert sorted(raw.rglob("*")) == before


def test_output_that_links_into_the_input_is_73(raw, tmp_path):
    (tmp_path / "link").symlink_to(raw)
    assert code_of(raw, tmp_path / "link" / "out", "participant") == 73


@pytest.mark.parametrize("folder", ["raw", "raw/work", "out/work", "out"])
@pytest.mark.parametrize("option", ["-w", "--bids-database-dir"])
def test_scratch_inside_input_or_output_is_73(raw, tmp_path, folder, option, capsys):
    assert code_of(raw, tmp_path / "out", "participant", option, tmp_path / folder) == 73
    assert option in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_made_is_73(raw, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert code_of(raw, tmp_path / "file" / "out", "participant", "--skip-bids-validation", "-w", tmp_path / "w") == 73
    assert "cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["derivative", "raw"])
def test_output_that_is_another_dataset_is_73_before_anything_is_done(raw, tmp_path, layout, capsys):
    out = write_dataset(tmp_path / "fmriprep", description={"GeneratedBy": [{"Name": "fMRIPrep"}]})
    before = {path: path.read_bytes() for path in out.iterdir()}
    words = [raw, out, "participant", "--skip-bids-validation", "-w", tmp_path / "work", "--layout", layout]
    assert code_of(*words) == 73
    assert f"{out}: holds something that bids_cpmae has not written" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_outputs_that_are_ours_or_nobodys(raw, tmp_path):
    out = tmp_path / "out"
    for kind in (RAW, DERIVATIVE):
        check_output(out, kind)
    # left by a run that was killed as it began
    for place in (out / "logs", out / "derivatives"):
        place.mkdir(parents=True)
    (out / "logs/.lock").touch()
    (out / ".dataset_description.json.0.partial").touch()
    (out / "notes.txt").touch()
    check_output(out, DERIVATIVE)
    with pytest.raises(OutputError, match="has not written"):
        check_output(out, RAW)
    start_dataset(out, raw)
    check_output(out, DERIVATIVE)
    with pytest.raises(OutputError, match="--layout derivative"):
        check_output(out, RAW)
    start_raw(raw, tmp_path / "shared")
    check_output(tmp_path / "shared", RAW)
    with pytest.raises(OutputError, match="--layout raw"):
        check_output(tmp_path / "shared", DERIVATIVE)


def test_missing_and_wrong_inputs_have_their_codes(raw, tmp_path, capsys):
    assert code_of(tmp_path / "nowhere", tmp_path / "out", "participant") == 66
    (tmp_path / "empty").mkdir()
    assert code_of(tmp_path / "empty", tmp_path / "out", "participant") == 16
    assert code_of(write_dataset(tmp_path / "none"), tmp_path / "out", "participant") == 66
    assert "no anatomical scan in the dataset" in capsys.readouterr().err
    assert code_of(raw, tmp_path / "out", "participant", "--model-weights", tmp_path / "no.safetensors") == 66
    assert code_of(raw, tmp_path / "out", "group") == 66


def test_labels_that_are_not_there_are_18_and_named(raw, tmp_path, capsys):
    assert code_of(raw, tmp_path / "out", "participant", "--participant-label", "sub-01", "99") == 18
    message = capsys.readouterr().err
    assert "99" in message and "01, 02" in message
    assert code_of(raw, tmp_path / "out", "participant", "--session-label", "b") == 18
    assert code_of(raw, tmp_path / "out", "participant", "--participant-label", "01", "--session-label", "a") == 18


@pytest.mark.parametrize(
    "text, code",
    [("{", 65), ("[]", 65), ('{"t1w": 1}', 65), ('{"t1w": {"nose": "1"}}', 65), ('{"t1w": {"session": "b"}}', 18)],
)
def test_filter_files(raw, tmp_path, text, code, capsys):
    file = tmp_path / "filter.json"
    file.write_text(text)
    assert code_of(raw, tmp_path / "out", "participant", "--bids-filter-file", file) == code
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("text", ["plugin: [", "plugin: 3", "no: thing"])
def test_plugin_files_that_say_nothing_are_65(raw, tmp_path, text):
    (tmp_path / "plugin.yml").write_text(text)
    assert code_of(raw, tmp_path / "out", "participant", "--use-plugin", tmp_path / "plugin.yml") == 65


def test_dry_run_lists_and_writes_nothing(raw, tmp_path, capsys):
    assert code_of(raw, tmp_path / "out", "participant", "--dry-run", "-w", tmp_path / "w") == 0
    listed = capsys.readouterr().out
    assert "sub-02/ses-a/anat/sub-02_ses-a_desc-refaced_T1w.nii.gz" in listed
    assert "sub-01/anat/sub-01_mod-T1w_desc-face_defacemask.nii.gz" in listed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_the_process_of_a_run_does_without_torch(raw, tmp_path):
    code = (
        "import sys, bids_cpmae.cli as cli\n"
        "cli.main(sys.argv[1:])\n"
        "import bids_cpmae.workflow.run, bids_cpmae.report.write, bids_cpmae.model.weightsfile as weights\n"
        "weights.check_weights(), weights.weights_version()\n"
        "heavy = {'torch', 'ants'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    words = [raw, tmp_path / "out", "participant", "--dry-run"]
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True)


def test_cleaning_the_work_folder_takes_only_what_a_run_made(tmp_path):
    from bids_cpmae.request import WORK_FOLDERS, clean_work

    for name in ("bids_cpmae_wf/x", *WORK_FOLDERS, "thesis"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "notes.txt").write_text("mine")
    clean_work(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "thesis"]


def test_settings_carry_what_was_asked(raw, tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({"t1w": {"run": 1}}))
    made = request(raw, tmp_path / "out", "participant", "--bids-filter-file", tmp_path / "f.json", "--nprocs", 3,
                   "--regions", "ears", "face", "--random-seed", 7, "--mem", 5)  # fmt: skip
    assert (made.bids_filters, made.nprocs, made.memory_gb, made.random_seed) == ({"t1w": {"run": 1}}, 3, 5.0, 7)
    assert made.regions == ("face", "ears")  # the order asked in does not matter
    assert made.output_dir == tmp_path / "out"


def test_an_error_of_the_software_is_70(monkeypatch, raw, tmp_path, caplog):
    import bids_cpmae.cli as cli

    def broken(settings):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(cli, "run", broken)
    assert code_of(raw, tmp_path / "out", "participant") == 70
    assert "oops" in caplog.text


def test_an_interrupt_is_130(monkeypatch, raw, tmp_path, capsys):
    import bids_cpmae.cli as cli

    def stopped(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", stopped)
    assert code_of(raw, tmp_path / "out", "participant") == 130
    assert "-w" in capsys.readouterr().err


def test_few_scans_get_more_threads_each(tmp_path):
    settings = Settings(tmp_path, tmp_path, "participant", tmp_path, nprocs=2 * cpu_count())
    assert settings.threads() == 1
    assert settings.threads(1) == cpu_count()
    assert replace(settings, omp_nthreads=3).threads(1) == 3
