"""``bids-cpmae``: the BIDS App."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from pathlib import Path

from bids_cpmae import __version__
from bids_cpmae.errors import CPMAEError, ExitCode, InputError, OutputError, UsageError
from bids_cpmae.settings import Settings

LOG = logging.getLogger("bids_cpmae")
EXIT_CODES = """exit codes:
  0    every scan has a verdict and none is FAIL
  1    at least one scan is FAIL; the others are done
  16   the input is no valid BIDS dataset
  18   nothing to do: no T1w scan fits the labels and filters given
  64   wrong usage, e.g. an unknown option or value
  66   an input (dataset, weights) does not exist or cannot be read
  70   an error in the software itself
  73   the output or work folder cannot be used
  130  interrupted
"""


class Parser(argparse.ArgumentParser):
    """Ends with exit code 64 on wrong usage, as the BIDS execution specification asks."""

    def error(self, message: str):
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {message}\n")


def both(name: str) -> tuple[str, ...]:
    """An option spelled with dashes and with underscores."""
    words = name.replace("-", "_")
    return (f"--{name}",) if "-" not in name else (f"--{name}", f"--{words}")


def cpu_count() -> int:
    """Cores this process may use, which in a container or a batch job are not all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="bids-cpmae",
        description="De-identify head MRI by giving every participant another face; the brain stays bit-identical.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, help="root of the raw BIDS dataset; never written to")
    parser.add_argument("output_dir", type=Path, help="root of the derivative dataset")
    parser.add_argument("level", metavar="{participant,group}", choices=("participant", "group"),
                        help="participant: reface scans; group: merge the verdicts of participant runs")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"bids_cpmae {__version__}")
    parser.add_argument("-v", "--verbose", action="count", default=0, dest="verbosity", help="more messages; repeat for debug")

    group = parser.add_argument_group("which scans")
    group.add_argument(*both("participant-label"), nargs="+", default=[], metavar="LABEL", help="with or without sub-")
    group.add_argument(*both("session-label"), nargs="+", default=[], metavar="LABEL", help="with or without ses-")
    group.add_argument(*both("bids-filter-file"), type=Path, metavar="FILE",
                       help='JSON with pybids filters, e.g. {"t1w": {"acquisition": "mprage"}}')  # fmt: skip
    group.add_argument(*both("skip-bids-validation"), action="store_true", help="take the input as it is")
    group.add_argument(*both("bids-database-dir"), type=Path, metavar="DIR", help="keep pybids' index here and reuse it")

    group = parser.add_argument_group("what is replaced")
    group.add_argument("--mode", choices=("face", "head"), default="face", help="face, or all but the brain (default: %(default)s)")
    group.add_argument("--regions", nargs="+", choices=("face", "ears"), default=["face", "ears"],
                       help="what face mode replaces (default: face ears)")  # fmt: skip
    group.add_argument(*both("random-seed"), type=int, default=0, metavar="N",
                       help="with the label decides who the new face is (default: %(default)s)")  # fmt: skip
    group.add_argument(*both("model-weights"), type=Path, metavar="FILE", help=".safetensors (default: those shipped)")

    group = parser.add_argument_group("how it runs")
    group.add_argument("-w", *both("work-dir"), type=Path, default=Path("work"), metavar="DIR",
                       help="intermediate files, original faces among them; never share it (default: ./work)")  # fmt: skip
    group.add_argument(*both("clean-workdir"), action="store_true", help="empty the work folder first")
    group.add_argument("--nprocs", "--nthreads", "--n-cpus", type=int, default=None, metavar="N",
                       help="scans at a time (default: the cores, as far as memory goes)")  # fmt: skip
    group.add_argument(*both("omp-nthreads"), type=int, default=None, metavar="N", help="threads a scan (default: cores / nprocs)")
    group.add_argument("--mem", "--mem-gb", type=float, default=None, metavar="GB", help="memory to use (default: 90 %% of it)")
    group.add_argument(*both("use-plugin"), "--nipype-plugin-file", type=Path, metavar="FILE", dest="plugin_file",
                       help="YAML with nipype's plugin and plugin_args")  # fmt: skip
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="for the networks (default: %(default)s)")
    group.add_argument(*both("n-gpu-procs"), type=int, default=1, metavar="N", help="scans on the GPU at a time (default: 1)")
    group.add_argument(*both("stop-on-first-crash"), action="store_true", help="do not go on with other scans")
    group.add_argument(*both("write-graph"), action="store_true", help="draw the workflow into the work folder")
    group.add_argument(*both("resource-monitor"), action="store_true", help="nipype's record of memory and CPU")
    group.add_argument(*both("dry-run"), action="store_true", help="list scans and outputs, do nothing")
    group.add_argument("--notrack", action="store_true", help="accepted for compatibility: nothing is ever sent anywhere")
    return parser


def settings_of(args: argparse.Namespace) -> Settings:
    """Check what was asked for and make the run's settings of it.

    Raises
    ------
    UsageError, OutputError, InputError
    """
    bids_dir, output_dir, work_dir = (path.absolute() for path in (args.bids_dir, args.output_dir, args.work_dir))
    check_folders(bids_dir.resolve(), output_dir.resolve(), work_dir.resolve())
    for value, name in ((args.nprocs, "--nprocs"), (args.omp_nthreads, "--omp-nthreads"), (args.mem, "--mem"),
                        (args.n_gpu_procs, "--n-gpu-procs")):  # fmt: skip
        if value is not None and value <= 0:
            raise UsageError(f"{name} must be above 0, not {value}")
    for path, name in ((args.model_weights, "--model-weights"), (args.plugin_file, "--nipype-plugin-file")):
        if path and not path.is_file():
            raise InputError(f"{name} {path}: no such file", ExitCode.NO_INPUT)
    memory = args.mem or 0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    nprocs = args.nprocs or max(1, min(cpu_count(), int(memory // 4)))
    return Settings(
        bids_dir=bids_dir, output_dir=output_dir, level=args.level, work_dir=work_dir,
        participants=tuple(args.participant_label), sessions=tuple(args.session_label),
        bids_filters=read_filters(args.bids_filter_file), validate=not args.skip_bids_validation,
        database_dir=args.bids_database_dir, clean_workdir=args.clean_workdir, nprocs=nprocs,
        omp_nthreads=args.omp_nthreads or max(1, cpu_count() // nprocs), memory_gb=memory,
        plugin_file=args.plugin_file, device=args.device, n_gpu_procs=args.n_gpu_procs, weights=args.model_weights,
        mode=args.mode, regions=tuple(dict.fromkeys(args.regions)), random_seed=args.random_seed,
        stop_on_first_crash=args.stop_on_first_crash, write_graph=args.write_graph,
        resource_monitor=args.resource_monitor, dry_run=args.dry_run, verbosity=args.verbosity,
    )  # fmt: skip


def check_folders(bids_dir: Path, output_dir: Path, work_dir: Path) -> None:
    """Nothing may be written under the input, and nothing of the input may lie under the output."""
    if output_dir == bids_dir:
        raise OutputError(f"{output_dir}: the output is the input; give another folder, e.g. {bids_dir}-refaced")
    if output_dir in bids_dir.parents:
        raise OutputError(f"{output_dir}: the output holds the input; give a folder beside it, e.g. {bids_dir}-refaced")
    if bids_dir in output_dir.parents:
        raise OutputError(f"{output_dir}: the output lies inside the input, which is never written to; give a folder beside it")
    if work_dir == bids_dir or bids_dir in work_dir.parents:
        raise OutputError(f"{work_dir}: the work folder lies inside the input, which is never written to; choose another with -w")
    if work_dir == output_dir or output_dir in work_dir.parents:
        raise OutputError(f"{work_dir}: the work folder lies inside the output and holds original faces; choose another with -w")


def read_filters(path: Path | None) -> dict:
    """The ``t1w`` entry of a filter file."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", ExitCode.NO_INPUT) from error
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("t1w", {}), dict):
        raise UsageError(f'{path}: wants an object of filters, e.g. {{"t1w": {{"session": "01"}}}}')
    return content.get("t1w", {})


def prepare_folder(path: Path, what: str) -> None:
    """Make a folder and see that it can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".bids_cpmae_{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{path}: the {what} folder cannot be written to ({error.strerror}); choose another") from error


def run(settings: Settings) -> int:
    """Do what was asked; returns the exit code."""
    if settings.level == "group":
        return run_group(settings)
    from bids_cpmae.bids.naming import outputs_of
    from bids_cpmae.bids.query import find_scans, open_layout
    from bids_cpmae.bids.validation import validate

    layout = open_layout(settings.bids_dir, settings.database_dir)
    scans = find_scans(layout, participants=settings.participants, sessions=settings.sessions, filters=settings.bids_filters)
    if settings.dry_run:
        for scan in scans:
            print(scan.relative, "->", outputs_of(scan.relative).image)
        return ExitCode.OK
    if settings.validate:
        validate(settings.bids_dir)
    prepare_folder(settings.output_dir, "output")
    if settings.clean_workdir and settings.work_dir.exists():
        for child in settings.work_dir.iterdir():
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    prepare_folder(settings.work_dir, "work")
    from bids_cpmae.bids.verdicts import FAIL
    from bids_cpmae.model.weights import check_weights
    from bids_cpmae.report.console import print_verdicts, progress
    from bids_cpmae.workflow.run import run as run_workflow

    check_weights(settings.weights)
    LOG.info("%d scans of %d participants", len(scans), len({scan.participant for scan in scans}))
    with progress(len(scans)) as advance:
        verdicts = run_workflow(settings, scans, on_done=advance)
    print_verdicts(verdicts)
    return ExitCode.SCAN_FAILED if any(verdict.verdict == FAIL for verdict in verdicts) else ExitCode.OK


def run_group(settings: Settings) -> int:
    """Merge the tables that participant runs have left."""
    from bids_cpmae.bids.verdicts import FAIL, merge

    if not settings.output_dir.is_dir():
        raise InputError(f"{settings.output_dir}: no such folder; run the participant level first", ExitCode.NO_INPUT)
    path, rows = merge(settings.output_dir)
    if not rows:
        raise InputError(f"{settings.output_dir}: no verdicts; run the participant level first", ExitCode.NOTHING_TO_DO)
    print(f"{len(rows)} scans in {path}")
    return ExitCode.SCAN_FAILED if any(row["verdict"] == FAIL for row in rows) else ExitCode.OK


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``bids-cpmae``."""
    args = build_parser().parse_args(argv)
    start_logging(args.verbosity)
    return guarded(lambda: run(settings_of(args)))


def start_logging(verbosity: int) -> None:
    """Messages on standard error; those of nipype only when asked for."""
    # nipype would otherwise ask its server for news of newer versions
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    os.environ.setdefault("NO_ET", "1")
    level = (logging.INFO, logging.DEBUG)[min(verbosity, 1)]
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    LOG.setLevel(level)
    logging.getLogger("nipype").setLevel(logging.INFO if verbosity else logging.CRITICAL)


def guarded(action) -> int:
    """Run an action; an expected error becomes one clear line and its exit code."""
    try:
        return int(action())
    except CPMAEError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt:
        print("interrupted; run again with the same -w to go on", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
