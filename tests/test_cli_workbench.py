"""``cpmae``: commands found without importing the others, and one file refused for good reasons."""

import subprocess
import sys

import pytest
from bids_trees import write_scan

from bids_cpmae.workbench import COMMANDS, GROUPS, build_parser, main

PARTS = [[name] for name in COMMANDS] + [[group, name] for group, (_, parts) in GROUPS.items() for name in parts]


@pytest.mark.parametrize("words", PARTS, ids=" ".join)
def test_every_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser([*words, "--help"]).parse_args([*words, "--help"])
    assert stopped.value.code == 0
    assert f"cpmae {' '.join(words)}" in capsys.readouterr().out


def test_help_of_all_imports_nothing_heavy():
    code = (
        "import sys, bids_cpmae.workbench as bench\n"
        "try: bench.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'nipype', 'ants', 'dlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [[], ["nose"], ["train"], ["reface", "in.nii"], ["reface", "a", "b", "--mode", "x"]])
def test_wrong_usage_is_64(words):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 64


@pytest.mark.parametrize(
    "target, mask, code",
    [
        ("in.nii.gz", None, 73),  # the input itself
        ("link.nii.gz", None, 73),  # a link to it
        ("out.mgz", None, 73),
        ("no/out.nii.gz", None, 73),
        ("out.nii.gz", "in.nii.gz", 73),
        ("out.nii.gz", "out.nii.gz", 73),
    ],
)
def test_targets_that_are_refused(tmp_path, target, mask, code, capsys):
    source = write_scan(tmp_path / "in.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to(source)
    before = source.read_bytes()
    words = ["reface", source, tmp_path / target, *(["--mask-out", tmp_path / mask] if mask else [])]
    assert main([str(word) for word in words]) == code
    assert capsys.readouterr().err.startswith("error: ")
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.nii.gz", "link.nii.gz"]


def test_missing_and_unreadable_sources_have_their_codes(tmp_path, capsys):
    assert main(["reface", str(tmp_path / "no.nii.gz"), str(tmp_path / "out.nii.gz")]) == 66
    cut = write_scan(tmp_path / "cut.nii.gz")
    cut.write_bytes(cut.read_bytes()[:300])
    assert main(["reface", str(cut), str(tmp_path / "out.nii.gz")]) == 65
    assert "cut.nii.gz" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cut.nii.gz"]
