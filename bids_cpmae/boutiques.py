"""``--bids-exec-spec``: the command line as a Boutiques descriptor, made from the parser, so that both always agree.

Names of inputs are those of the draft of the BIDS Application execution specification, where it has any.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bids_cpmae import __version__

PROGRAM = "bids-cpmae"
URL = "https://bids-standard.github.io/execution-spec"
NAMES = {
    "bids_dir": "InputDataset", "output_dir": "OutputLocation", "level": "AnalysisLevel", "help": "Help",
    "version": "ToolVersion", "participant_label": "SubjectLabel",
}  # fmt: skip
# folders that need not be there before; Boutiques looks for its files
WRITTEN = ("output_dir", "work_dir", "bids_database_dir", "private_dir")


def descriptor(parser: argparse.ArgumentParser, *, levels: tuple[str, ...], exit_codes: str) -> dict:
    """The descriptor of a command line.

    Parameters
    ----------
    parser : ArgumentParser
        Positional arguments first, then options.
    levels : tuple of str
        Analysis levels, which the parser itself does not check.
    exit_codes : str
        A line a code: two blanks, the number, its meaning.

    Returns
    -------
    dict
        By schema 0.5 of Boutiques.
    """
    inputs = [_input(action, levels) for action in parser._actions]
    return {
        "name": "bids_cpmae",
        "tool-version": __version__,
        "schema-version": "0.5",
        "description": str(parser.description),
        "command-line": " ".join([PROGRAM, *(one["value-key"] for one in inputs)]),
        "inputs": inputs,
        "groups": [
            {"id": f"group_{number}", "name": group.title, "members": [name_of(one) for one in group._group_actions]}
            for number, group in enumerate(parser._action_groups)
            if group._group_actions and group.title not in ("positional arguments", "options")
        ],
        "output-files": [{
            "id": "OutputDataset", "name": "Output dataset", "path-template": f"[{NAMES['output_dir']}]",
            "description": "A BIDS derivative, or with Layout raw a raw dataset",
        }],
        "error-codes": [
            {"code": int(code), "description": text}
            for code, text in re.findall(r"^  (\d+)\s+(\S.*)$", exit_codes, re.MULTILINE)
        ],
        "suggested-resources": {"cpu-cores": 4, "ram": 8, "walltime-estimate": 3600},
        "custom": {"BIDSAppSpecVersion": "0.1.0.dev", "BIDSAppSpec": URL, "OutputDataSpecification": ["BIDS 1.10.0"]},
        "tags": {"domain": ["neuroinformatics", "mri", "bids-app"]},
    }  # fmt: skip


def name_of(action: argparse.Action) -> str:
    """Identifier of an argument: the specification's, else its own in CamelCase."""
    return NAMES.get(action.dest) or "".join(word.capitalize() for word in action.dest.split("_"))


def _input(action: argparse.Action, levels: tuple[str, ...]) -> dict:
    name = name_of(action)
    about = re.sub(r"\s+", " ", (action.help or "") % {"default": action.default, "prog": PROGRAM})
    made = {"id": name, "name": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name), "type": _type(action),
            "value-key": f"[{name}]", "optional": not action.required}  # fmt: skip
    if about:
        made["description"] = about
    if action.option_strings:
        made["command-line-flag"] = max(action.option_strings[:2], key=len)
    if made["type"] == "Number":
        made["integer"] = action.type is int
    if action.nargs == "+":
        made["list"] = True
    choices = levels if action.dest == "level" else action.choices
    if choices:
        made["value-choices"] = list(choices)
    return made


def _type(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "Flag"
    if action.type in (int, float):
        return "Number"
    return "File" if action.type is Path and action.dest not in WRITTEN else "String"
