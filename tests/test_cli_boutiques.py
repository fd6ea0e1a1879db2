"""``--bids-exec-spec``: the command line as a Boutiques descriptor."""

import json
import shlex

import pytest

from bids_cpmae.boutiques import descriptor, name_of
from bids_cpmae.cli import EXIT_CODES, build_parser, main
from bids_cpmae.errors import ExitCode
from bids_cpmae.request import LEVELS

INVOCATION = {
    "InputDataset": "setup.cfg",  # Boutiques wants an input to be there
    "OutputLocation": "/out", "AnalysisLevel": "participant", "SubjectLabel": ["01", "02"], "Suffixes": ["T1w"],
    "RandomSeed": 3, "Mem": 4.5, "Mode": "head", "Force": True, "WorkDir": "/work", "Verbosity": True,
}  # fmt: skip


@pytest.fixture
def printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--bids-exec-spec"])
    assert stopped.value.code == 0
    return json.loads(capsys.readouterr().out)


def test_every_argument_is_in_it(printed):
    parser = build_parser()
    assert printed == descriptor(parser, levels=LEVELS, exit_codes=EXIT_CODES)
    inputs = {one["id"]: one for one in printed["inputs"]}
    assert list(inputs) == [name_of(action) for action in parser._actions]
    # by the specification's names
    assert {"InputDataset", "OutputLocation", "AnalysisLevel", "Help", "ToolVersion", "SubjectLabel"} <= set(inputs)
    for one in inputs.values():
        assert one["value-key"] in printed["command-line"].split()
        assert one["type"] != "Flag" or one["command-line-flag"].startswith("--")
    assert inputs["AnalysisLevel"]["value-choices"] == ["participant", "group"]
    assert not any("%(" in one.get("description", "") for one in inputs.values())


def test_codes_are_all_in_it(printed):
    assert [one["code"] for one in printed["error-codes"]] == [code.value for code in ExitCode]


def test_it_fits_the_schema_and_makes_command_lines_that_work(printed, tmp_path, capsys):
    bosh = pytest.importorskip("boutiques", reason="boutiques is not installed").bosh
    (tmp_path / "bids_cpmae.json").write_text(json.dumps(printed))
    (tmp_path / "invocation.json").write_text(json.dumps(INVOCATION))
    bosh(["validate", str(tmp_path / "bids_cpmae.json")])
    line = bosh(["exec", "simulate", str(tmp_path / "bids_cpmae.json"), "-i", str(tmp_path / "invocation.json")])
    capsys.readouterr()
    program, *words = shlex.split(line.shell_command)
    args = build_parser().parse_args(words)
    assert program == "bids-cpmae" and args.level == "participant" and args.participant_label == ["01", "02"]
    assert (args.random_seed, args.mem, args.mode, args.force, args.verbosity) == (3, 4.5, "head", True, 1)
