"""``cpmae sbatch``: job scripts that reface a dataset on a cluster with Slurm, an array task a participant.

Everything that tasks would do again and again is done once, here: options are checked, the dataset is validated and
indexed, and participants without a scan to reface get no task.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from bids_cpmae.bids.atomic import write_text
from bids_cpmae.bids.query import INDEX, find_scans, open_layout
from bids_cpmae.bids.validation import validate
from bids_cpmae.cli import both
from bids_cpmae.cli import build_parser as app_parser
from bids_cpmae.errors import ExitCode, UsageError
from bids_cpmae.request import SCAN_GB, check_outputs, prepare_folder, settings_of
from bids_cpmae.settings import Settings

# the longest array that Slurm takes unless a site has set MaxArraySize
CHUNK = 1000
# of the memory asked for, what the app plans with
PLANNED = 0.9
GB_PER_UNIT = {"K": 2**-20, "M": 2**-10, "G": 1, "T": 2**10}
# options of the app that this command gives each task, or that make no sense in one
OWN = ("participant_label", "work_dir", "bids_database_dir")
NOT_IN_A_JOB = ("dry_run", "scan_only")
SCRIPTS, DATABASE = "slurm", "bids_database"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae sbatch``."""
    parser.usage = "%(prog)s [options] BIDS OUT [-- options of bids-cpmae]"
    parser.add_argument("bids_dir", type=Path, metavar="BIDS", help="root of the raw BIDS dataset")
    parser.add_argument("output_dir", type=Path, metavar="OUT", help="root of the dataset to write")
    parser.add_argument(*both("participant-label"), nargs="+", default=[], metavar="LABEL", help="with or without sub-")
    parser.add_argument("-w", *both("work-dir"), type=Path, default=Path("work"), metavar="DIR",
                        help="on a disk that all nodes see; gets a folder a participant, scripts and logs "
                             "(default: work)")  # fmt: skip
    parser.add_argument(*both("bids-database-dir"), type=Path, metavar="DIR",
                        help="pybids' index for all tasks, reused if it is there (default: made anew in the work "
                             "folder)")  # fmt: skip
    group = parser.add_argument_group("what each task asks Slurm for")
    group.add_argument("--mem", default="8G", metavar="SIZE", help="default: %(default)s")
    group.add_argument("--time", default="04:00:00", metavar="TIME", help="default: %(default)s")
    group.add_argument("--cpus-per-task", type=int, default=4, metavar="N", help="default: %(default)s")
    gpu = group.add_mutually_exclusive_group()
    gpu.add_argument("--gres", metavar="LIST", help="e.g. gpu:1; the networks then run on the GPU")
    gpu.add_argument("--gpus", metavar="N", help="the same where a site wants it so")
    group.add_argument("--partition")
    group.add_argument("--account")
    group.add_argument("--array-limit", type=int, metavar="N", help="tasks at a time (default: as many as Slurm lets)")
    parser.add_argument("--container", metavar="IMAGE", help="run this image by apptainer or singularity, not the "
                        "bids-cpmae installed here")  # fmt: skip
    parser.add_argument("--submit", action="store_true", help="submit what was written")


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae sbatch``."""
    for value, name in ((args.cpus_per_task, "--cpus-per-task"), (args.array_limit, "--array-limit")):
        if value is not None and value <= 0:
            raise UsageError(f"{name} must be above 0, not {value}")
    if args.container and "://" not in args.container and not Path(args.container).exists():
        raise UsageError(f"--container {args.container}: no such image; give a .sif file, a folder or docker://NAME")
    memory = gigabytes(args.mem)
    given = app_parser().parse_args([str(args.bids_dir), str(args.output_dir), "participant", *args.passed_on])
    _check_passed(given)
    given.participant_label, given.work_dir = args.participant_label, args.work_dir
    given.bids_database_dir = args.bids_database_dir or args.work_dir / DATABASE
    for name, value in vars(given).items():
        if isinstance(value, Path):
            # jobs start elsewhere; links stay, since what they lead to may be called otherwise on a node
            setattr(given, name, Path(os.path.abspath(value)))
    settings = settings_of(given)
    check_outputs(settings)
    if args.bids_database_dir is None:
        (settings.database_dir / INDEX).unlink(missing_ok=True)
    scans_of = count_scans(settings)
    prepare_folder(settings.raw_dir or settings.output_dir, "output")
    if settings.private_dir:
        # a container can only be given a folder that is there
        prepare_folder(settings.private_dir, "before/after", mode=0o700)
    _share_work(given, args, memory, max(scans_of.values()))
    folder = write_scripts(args, given, settings, sorted(scans_of))
    print(f"{len(scans_of)} participants, {sum(scans_of.values())} scans: {folder}")
    if not args.submit:
        print(f"submit with: bash {shlex.quote(str(folder / 'submit.sh'))}")
        return ExitCode.OK
    return submit(folder)


def gigabytes(size: str) -> float:
    """What Slurm understands by a size of memory, in GB.

    Raises
    ------
    UsageError
    """
    found = re.fullmatch(r"([1-9]\d*)([KMGT]?)", size.upper())
    if not found:
        raise UsageError(f"--mem {size}: give a whole number and K, M, G or T, e.g. 8G")
    return int(found[1]) * GB_PER_UNIT[found[2] or "M"]


def _check_passed(given: argparse.Namespace) -> None:
    plain = app_parser().parse_args(["raw", "out", "participant"])
    for name in OWN:
        if getattr(given, name) != getattr(plain, name):
            raise UsageError(f"give --{name.replace('_', '-')} before the --, so that every task gets its own")
    for name in NOT_IN_A_JOB:
        if getattr(given, name):
            raise UsageError(f"--{name.replace('_', '-')} is not for a job; run bids-cpmae with it")


def count_scans(settings: Settings) -> Counter:
    """Number of scans of every participant that has any to reface; the dataset is validated and indexed for that."""
    for folder, what in ((settings.work_dir, "work"), (settings.database_dir, "database")):
        prepare_folder(folder, what)
    scans = find_scans(
        open_layout(settings.bids_dir, settings.database_dir), participants=settings.participants,
        sessions=settings.sessions, suffixes=settings.suffixes, filters=settings.bids_filters,
    )  # fmt: skip
    if settings.validate:
        validate(settings.bids_dir)
    return Counter(scan.participant for scan in scans)


def _share_work(given: argparse.Namespace, args: argparse.Namespace, memory: float, most_scans: int) -> None:
    """Say in the app's options what a task may use; what was passed on stays as it is."""
    planned = round(PLANNED * memory, 2)
    given.mem = given.mem or planned
    given.nprocs = given.nprocs or max(1, min(most_scans, args.cpus_per_task, int(given.mem // SCAN_GB)))
    given.omp_nthreads = given.omp_nthreads or max(1, args.cpus_per_task // given.nprocs)
    if not any(word.split("=")[0] == "--device" for word in args.passed_on):
        # a GPU that was not asked for is somebody else's
        given.device = "cuda" if args.gres or args.gpus else "cpu"


def write_scripts(args: argparse.Namespace, given: argparse.Namespace, settings: Settings, labels: list[str]) -> Path:
    """Write the scripts; returns their folder.

    Parameters
    ----------
    args, given : Namespace
        Of this command, and of the app.
    settings : Settings
        What ``given`` means.
    labels : list of str
        Participants, a task each.
    """
    import jinja2

    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("bids_cpmae.cluster", ""), undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    pages.filters["quote"] = shlex.quote
    folder = settings.work_dir / SCRIPTS
    gpu = [f"--{name}={getattr(args, name)}" for name in ("gres", "gpus") if getattr(args, name)]
    container = container_words(args.container, bound_paths(given, settings), gpu=bool(gpu)) if args.container else []
    program = [] if args.container else [installed_app()]
    root = settings.raw_dir or settings.output_dir
    content = {
        "labels": labels, "chunk": CHUNK, "limit": f"%{args.array_limit}" if args.array_limit else "",
        "cpus": args.cpus_per_task, "memory": args.mem, "time": args.time, "gpu": gpu,
        "where": [f"--{name}={getattr(args, name)}" for name in ("partition", "account") if getattr(args, name)],
        "app": shlex.join([*program, str(settings.bids_dir), str(root)]), "container": runtime(container),
        "work_dir": str(settings.work_dir), "database_dir": str(settings.database_dir), "script_dir": str(folder),
        "options": option_words(given), "log": lambda name: log_path(folder, name),
    }  # fmt: skip
    for name in ("participant.sbatch", "group.sbatch", "submit.sh"):
        write_text(folder / name, pages.get_template(f"{name}.j2").render(content))
    return folder


def log_path(folder: Path, name: str) -> str:
    """Where Slurm writes a job's messages, in quotes; a ``%`` of the folder's name is none of Slurm's patterns."""
    return '"' + str(folder).replace("%", "%%") + f'/{name}"'


def installed_app() -> str:
    """``bids-cpmae`` beside this interpreter, else the one that a node finds."""
    beside = Path(sys.executable).with_name("bids-cpmae")
    return str(beside) if beside.exists() else "bids-cpmae"


def option_words(given: argparse.Namespace) -> list[str]:
    """Options of the app that are not as by default, as words of a command line."""
    words: list[str] = []
    for action in app_parser()._actions:
        value = getattr(given, action.dest, action.default)
        if not action.option_strings or action.dest in (*OWN, "skip_bids_validation") or value == action.default:
            continue
        name = action.option_strings[-1] if len(action.option_strings[0]) < 3 else action.option_strings[0]
        values = value if isinstance(value, list) else [value]
        if action.nargs == 0:
            words += [name] * int(value)
        else:
            words += [name, *map(str, values)]
    return words


def bound_paths(given: argparse.Namespace, settings: Settings) -> dict[Path, bool]:
    """Paths that a container has to see, and whether they are written to."""
    paths = {settings.bids_dir: False, settings.raw_dir or settings.output_dir: True, settings.work_dir: True,
             settings.database_dir: False}  # fmt: skip
    for value in vars(given).values():
        if isinstance(value, Path) and value not in paths:
            paths[value] = value == given.private_dir
    return paths


def container_words(image: str, paths: dict[Path, bool], *, gpu: bool) -> list[str]:
    """Arguments of ``apptainer`` or ``singularity``; paths are the same inside as outside.

    Raises
    ------
    UsageError
        When a path cannot be bound.
    """
    words = ["run", "--cleanenv", "--env", "PYTHONNOUSERSITE=1", *(["--nv"] if gpu else [])]
    for path, written in paths.items():
        if set(",:") & set(str(path)):
            raise UsageError(f"{path}: a container cannot be given a path with a comma or a colon")
        words += ["--bind", f"{path}:{path}:{'rw' if written else 'ro'}"]
    return [*words, image if "://" in image else os.path.abspath(image)]


def runtime(words: list[str]) -> str:
    """The start of a command that runs a container; nothing without one."""
    if not words:
        return ""
    lines = shlex.join(words).replace(" --bind ", " \\\n  --bind ")
    return f'"$(command -v apptainer || command -v singularity || echo apptainer)" {lines} \\\n  '


def submit(folder: Path) -> int:
    """Hand the scripts to Slurm.

    Raises
    ------
    UsageError
        When there is no Slurm here, or it refuses.
    """
    script = folder / "submit.sh"
    if shutil.which("sbatch") is None:
        raise UsageError(f"no sbatch here; on a machine that has it: bash {shlex.quote(str(script))}")
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    print(done.stdout, end="")
    if done.returncode:
        raise UsageError(f"Slurm refuses: {' '.join(done.stderr.split())}")
    return ExitCode.OK
