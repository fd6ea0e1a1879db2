"""``cpmae``: the workbench. One file refaced, a demo dataset, a cluster, training, evaluation, timing."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from bids_cpmae import __version__
from bids_cpmae.cli import Parser, guarded, start_logging
from bids_cpmae.errors import ExitCode

# command -> (module with add_arguments and main, what it does); imported only when called
COMMANDS = {
    "reface": ("bids_cpmae.onefile", "give the head in one NIfTI file another face"),
    "demo": ("bids_cpmae.bids.demo", "write a BIDS dataset with a synthetic head"),
    "sbatch": ("bids_cpmae.cluster.sbatch", "write job scripts for a cluster with Slurm, a task a participant"),
    "leaks": ("bids_cpmae.bids.leaks", "list what could identify somebody in a dataset"),
    "bench": ("bids_cpmae.evaluation.bench", "time and memory a stage for one scan"),
    "template": ("bids_cpmae.training.template", "build the template and its masks"),
    "sample": ("bids_cpmae.evaluation.sample", "draw several new faces for one scan, to look at"),
}
GROUPS = {
    "train": ("train the networks", {
        "heads": ("bids_cpmae.training.heads", "bring heads to learn from into head space and find their shapes"),
        "weights": ("bids_cpmae.training.joint", "train all networks on them, from heads to a weights file"),
        "vqvae": ("bids_cpmae.training.vqvae", "train the brain's or the non-brain's VQ-VAE"),
        "mae": ("bids_cpmae.training.mae", "train the masked autoencoder and join the weights"),
        "demo": ("bids_cpmae.training.demo", "make the codes of the demo head"),
    }),
    "evaluate": ("measure privacy, utility and anatomy", {
        "card": ("bids_cpmae.evaluation.card", "all that a model card states, held against what is asked"),
        "compare": ("bids_cpmae.evaluation.compare", "privacy and utility, one after the other"),
        "privacy": ("bids_cpmae.evaluation.privacy", "recognise de-identified heads by face and by skin"),
        "realism": ("bids_cpmae.evaluation.realism", "does the new face fit the scan; are new faces different people"),
        "utility": ("bids_cpmae.evaluation.utility", "run what a lab does next on originals and versions"),
        "attack": ("bids_cpmae.evaluation.attack", "attackers who learn on some people and meet others"),
        "truth": ("bids_cpmae.evaluation.truth", "brain extraction and segmentation against label maps"),
        "anatomy": ("bids_cpmae.evaluation.anatomy", "masks held against label maps of known anatomy"),
        "robustness": ("bids_cpmae.evaluation.robustness", "is the face found wherever a head lies, however it is lit"),
    }),
}  # fmt: skip

# commands that hand what follows a -- on to bids-cpmae
PASS_ON = ("sbatch",)


def _wanted(argv: list[str]) -> tuple[str, ...]:
    return tuple([word for word in argv if not word.startswith("-")][:2])


def build_parser(argv: list[str]) -> argparse.ArgumentParser:
    """The command line; only the command that ``argv`` names is imported, so that help is instant."""
    parser = Parser(prog="cpmae", description="Workbench of bids_cpmae.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"bids_cpmae {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    wanted = _wanted(argv)
    for name, (module, text) in COMMANDS.items():
        _add(commands, name, module, text, load=wanted[:1] == (name,))
    for name, (text, members) in GROUPS.items():
        group = commands.add_parser(name, help=text, description=text)
        inner = group.add_subparsers(dest="part", metavar="PART", required=True, parser_class=Parser)
        for member, (module, words) in members.items():
            _add(inner, member, module, words, load=wanted == (name, member))
    return parser


def _add(commands, name: str, module: str, text: str, *, load: bool) -> None:
    parser = commands.add_parser(name, help=text, description=text)
    if load:
        loaded = import_module(module)
        loaded.add_arguments(parser)
        parser.set_defaults(main=loaded.main)


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``cpmae``."""
    argv = sys.argv[1:] if argv is None else argv
    start_logging(0)
    try:
        parser = build_parser(argv)
    except ModuleNotFoundError as error:
        print(f"error: this command needs {error.name}; pip install 'bids_cpmae[evaluate]'", file=sys.stderr)
        return int(ExitCode.SOFTWARE)
    own = argv[: argv.index("--")] if argv[:1] and argv[0] in PASS_ON and "--" in argv else argv
    args = parser.parse_args(own)
    args.passed_on = argv[len(own) + 1 :]
    return guarded(lambda: args.main(args))


if __name__ == "__main__":
    sys.exit(main())
