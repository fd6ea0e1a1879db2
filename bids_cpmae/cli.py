"""``bids-cpmae``: the BIDS App."""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import logging
import os
import sys
from pathlib import Path

from bids_cpmae import __version__
from bids_cpmae.errors import DISK_ERRORS, MEMORY_ADVICE, CPMAEError, ExitCode, InputError, OutputError, short_of_memory
from bids_cpmae.request import LEVELS, check_outputs, clean_work, prepare_folder, settings_of
from bids_cpmae.settings import Settings
from bids_cpmae.signals import Stopped, stoppable

LOG = logging.getLogger("bids_cpmae")
EXIT_CODES = """exit codes:
  0    every scan has a verdict and none is FAIL
  1    at least one scan is FAIL; the others are done
  16   the input is no valid BIDS dataset
  17   unknown analysis level
  18   no scan fits the labels, suffixes and filters given
  64   wrong usage, e.g. an unknown option or value
  65   a file given as an option cannot be understood
  66   an input (dataset, anatomical scans, weights, filter file) is missing or cannot be read
  70   an error in the software itself
  71   not enough memory
  73   the output or work folder cannot be used, or not any more
  130  interrupted (SIGINT); verdicts so far are written down
  143  told to end (SIGTERM), e.g. at a time limit; the same
"""


class Parser(argparse.ArgumentParser):
    """Ends with exit code 64 on wrong usage, as the BIDS Application execution specification asks."""

    def error(self, message: str):
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {message}\n")


class PrintDescriptor(argparse.Action):
    """Prints the parser's Boutiques descriptor and ends, whatever else is asked for."""

    def __call__(self, parser, namespace, values, option_string=None):
        from bids_cpmae.boutiques import descriptor

        print(json.dumps(descriptor(parser, levels=LEVELS, exit_codes=EXIT_CODES), indent=2))
        parser.exit()


def both(name: str) -> tuple[str, ...]:
    """An option spelled with dashes and with underscores."""
    words = name.replace("-", "_")
    return (f"--{name}",) if "-" not in name else (f"--{name}", f"--{words}")


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
    parser.add_argument("output_dir", type=Path, help="root of the dataset to write, see --layout")
    parser.add_argument("level", metavar="{participant,group}",
                        help="participant: reface scans; group: merge the results of participant runs")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"bids_cpmae {__version__}")
    parser.add_argument("--bids-exec-spec", action=PrintDescriptor, nargs=0,
                        help="print this command line as a Boutiques descriptor")  # fmt: skip
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, dest="verbosity", help="more messages; repeat for debug"
    )

    group = parser.add_argument_group("which scans")
    group.add_argument(*both("participant-label"), nargs="+", default=[], metavar="LABEL", help="with or without sub-")
    group.add_argument(*both("session-label"), nargs="+", default=[], metavar="LABEL", help="with or without ses-")
    group.add_argument("--suffixes", nargs="+", default=[], metavar="SUFFIX",
                       help="which images, e.g. T1w T2w (default: all anatomical ones with a face)")  # fmt: skip
    group.add_argument(*both("bids-filter-file"), type=Path, metavar="FILE",
                       help='JSON with pybids filters a suffix, e.g. {"t1w": {"acquisition": "mprage"}}')  # fmt: skip
    group.add_argument(*both("skip-bids-validation"), action="store_true", help="take the input as it is")
    group.add_argument(
        *both("bids-database-dir"), type=Path, metavar="DIR", help="keep pybids' index here and reuse it"
    )

    group = parser.add_argument_group("what is replaced")
    group.add_argument(
        "--mode", choices=("face", "head"), default="face", help="face, or all but the brain (default: %(default)s)"
    )
    group.add_argument("--regions", nargs="+", choices=("face", "ears"), default=["face", "ears"],
                       help="what face mode replaces (default: face ears)")  # fmt: skip
    group.add_argument(*both("random-seed"), type=int, default=0, metavar="N",
                       help="with the label decides who the new face is (default: %(default)s)")  # fmt: skip
    group.add_argument(*both("model-weights"), type=Path, metavar="FILE", help=".safetensors (default: those shipped)")

    group.add_argument("--force", action="store_true",
                       help="reface what would be skipped, e.g. a scan that seems to be defaced already")  # fmt: skip

    group = parser.add_argument_group("what is written")
    group.add_argument("--layout", choices=("derivative", "raw"), default="derivative",
                       help="raw: a whole raw dataset with de-identified images (default: %(default)s)")  # fmt: skip
    group.add_argument("--link", choices=("copy", "hard"), default="copy",
                       help="how unchanged files get into --layout raw; with hard links whoever edits them edits the "
                            "input (default: %(default)s)")  # fmt: skip
    group.add_argument("--dates", choices=("shift", "drop"), default="shift",
                       help="dates of scans and sessions in --layout raw (default: %(default)s)")  # fmt: skip
    group.add_argument(*both("accept-review"), action="store_true",
                       help="--layout raw shares scans with the verdict REVIEW too")  # fmt: skip
    group.add_argument(*both("private-dir"), type=Path, metavar="DIR",
                       help="before/after pictures for your own eyes; they show original faces, so outside input and "
                            "output")  # fmt: skip
    group.add_argument(*both("scan-only"), action="store_true",
                       help="only list what could identify somebody in the input; exit code 1 if any")  # fmt: skip

    group = parser.add_argument_group("how it runs")
    group.add_argument("-w", *both("work-dir"), type=Path, default=Path("work"), metavar="DIR",
                       help="holds original faces, never share it (default: work)")  # fmt: skip
    group.add_argument(*both("clean-workdir"), action="store_true", help="empty the work folder first")
    group.add_argument("--nprocs", "--nthreads", "--n-cpus", type=int, default=None, metavar="N",
                       help="scans at a time (default: the cores, as far as memory goes)")  # fmt: skip
    group.add_argument(*both("omp-nthreads"), type=int, default=None, metavar="N",
                       help="threads a scan (default: the cores over the scans at a time)")  # fmt: skip
    group.add_argument(
        "--mem", "--mem-gb", type=float, default=None, metavar="GB", help="memory to use (default: 90 %% of it)"
    )
    group.add_argument(*both("use-plugin"), "--nipype-plugin-file", type=Path, metavar="FILE", dest="plugin_file",
                       help="YAML with nipype's plugin and plugin_args, see docs/clusters.md")  # fmt: skip
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="for the networks (default: %(default)s)"
    )
    group.add_argument(
        *both("n-gpu-procs"), type=int, default=1, metavar="N", help="scans on the GPU at a time (default: 1)"
    )
    group.add_argument(*both("stop-on-first-crash"), action="store_true", help="do not go on with other scans")
    group.add_argument(*both("write-graph"), action="store_true", help="draw the workflow into the work folder")
    group.add_argument(*both("resource-monitor"), action="store_true", help="nipype's record of memory and CPU")
    group.add_argument(*both("dry-run"), action="store_true", help="list scans and outputs, do nothing")
    group.add_argument(
        "--notrack", action="store_true", help="accepted for compatibility: nothing is ever sent anywhere"
    )
    return parser


def run(settings: Settings) -> int:
    """Do what was asked; returns the exit code."""
    if settings.scan_only:
        from bids_cpmae.bids.leaks import run as list_leaks

        return list_leaks(settings.bids_dir)
    if settings.level == "group":
        return run_group(settings)
    from bids_cpmae.bids.lock import claimed
    from bids_cpmae.bids.query import find_scans, find_untouched, has_index, open_layout
    from bids_cpmae.bids.validation import validate

    if not settings.dry_run:
        from bids_cpmae.workflow.workers import prepare_workers

        prepare_workers(settings)
    if settings.database_dir and not settings.dry_run and not has_index(settings.database_dir):
        prepare_folder(settings.database_dir, "database")
    layout = open_layout(settings.bids_dir, settings.database_dir)
    scans = find_scans(
        layout, participants=settings.participants, sessions=settings.sessions, suffixes=settings.suffixes,
        filters=settings.bids_filters,
    )  # fmt: skip
    untouched = find_untouched(layout, scans, participants=settings.participants, suffixes=settings.suffixes)
    if settings.dry_run:
        print_plan(scans, untouched)
        return ExitCode.OK
    check_outputs(settings)
    if settings.validate:
        validate(settings.bids_dir)
    prepare_folder(settings.output_dir, "output")
    prepare_folder(settings.work_dir, "work")
    empty = clean_work if settings.clean_workdir else None
    with claimed(settings.work_dir, {scan.participant for scan in scans}, empty=empty):
        return run_participant(settings, scans, untouched)


def print_plan(scans, untouched) -> None:
    """What would be read and written, a line a file, and what would be left as it is."""
    from bids_cpmae.bids.naming import outputs_of

    for scan in scans:
        print(scan.relative)
        for output in outputs_of(scan.relative):
            print(f"  -> {output}")
    for one in untouched:
        print(f"untouched: {one.relative} ({one.why})")


def run_participant(settings: Settings, scans, untouched) -> int:
    """Reface scans, tell what became of each and what was left as it is."""
    from bids_cpmae.bids.untouched import write_untouched
    from bids_cpmae.bids.verdicts import FAIL
    from bids_cpmae.model.weightsfile import check_weights
    from bids_cpmae.report.console import print_verdicts, progress
    from bids_cpmae.workflow.run import run as run_workflow

    check_weights(settings.weights)
    LOG.info("%d scans of %d participants", len(scans), len({scan.participant for scan in scans}))
    with progress(len(scans)) as advance:
        verdicts = run_workflow(settings, scans, on_done=advance)
    print_verdicts(verdicts)
    rows = write_untouched(settings.output_dir, untouched, {scan.participant for scan in scans})
    exposed = [row["source"] for row in rows if row["may_show_face"] == "yes"]
    if rows:
        print(f"{len(rows)} images untouched, {len(exposed)} of them could show a face: see logs/")
    for source in exposed:
        LOG.warning("untouched, and its field of view could show a face: %s", source)
    whole = not (settings.raw_dir and not share(settings))
    failed = any(verdict.verdict == FAIL for verdict in verdicts)
    return ExitCode.SCAN_FAILED if failed or not whole else ExitCode.OK


def share(settings: Settings) -> bool:
    """Put the raw dataset together around the derivative; whether nobody had to be left out."""
    from bids_cpmae.bids.rawlayout import assemble_raw
    from bids_cpmae.report.write import write_reports
    from bids_cpmae.workflow.participant import drawings_dir

    labels = tuple(label.removeprefix("sub-") for label in settings.participants)
    report = assemble_raw(
        settings.bids_dir, settings.output_dir, settings.raw_dir, participants=labels or None,
        accept_review=settings.accept_review, link=settings.link, dates=settings.dates,
    )  # fmt: skip
    if report.left_out:
        write_reports(
            settings.output_dir, report.left_out, nprocs=settings.nprocs, drawings=drawings_dir(settings.work_dir)
        )
    print("\n".join(report.lines()))
    return report.complete


def run_group(settings: Settings) -> int:
    """Merge the tables that participant runs have left, and write the dataset's page."""
    from bids_cpmae.bids.atomic import sweep
    from bids_cpmae.bids.lock import locked
    from bids_cpmae.bids.untouched import merge_untouched
    from bids_cpmae.bids.verdicts import FAIL, LOGS, TABLE, merge
    from bids_cpmae.report.write import write_overview

    if not settings.output_dir.is_dir():
        raise InputError(f"{settings.output_dir}: no such folder; run the participant level first", ExitCode.NO_INPUT)
    if not any((settings.output_dir / LOGS).glob(f"sub-*_{TABLE}.tsv")):
        raise InputError(f"{settings.output_dir}: no verdicts; run the participant level first", ExitCode.NOTHING_TO_DO)
    with locked(settings.output_dir / LOGS) as free:
        if not free:
            raise OutputError(f"{settings.output_dir}: other runs go on; run the group level when they have ended")
        path, rows = merge(settings.output_dir)
        merge_untouched(settings.output_dir)
        # all runs have ended: what killed ones were writing goes
        sweep(settings.output_dir, *(path.name for path in settings.output_dir.iterdir() if path.is_dir()))
    print(f"{len(rows)} scans in {path}")
    page = write_overview(settings.output_dir)
    if page:
        print(f"report: {page}")
    whole = True
    if settings.raw_dir:
        from bids_cpmae.bids.rawlayout import finish_raw

        sweep(settings.raw_dir, *(path.name for path in settings.raw_dir.glob("sub-*")))
        report = finish_raw(settings.bids_dir, settings.output_dir, settings.raw_dir, link=settings.link)
        print("\n".join(report.lines()))
        whole = report.complete
    failed = any(row["verdict"] == FAIL for row in rows)
    return ExitCode.SCAN_FAILED if failed or not whole else ExitCode.OK


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``bids-cpmae``."""
    args = build_parser().parse_args(argv)
    start_logging(args.verbosity)
    # at the end Python looks through all modules for garbage, which takes a fifth of a second
    atexit.register(gc.freeze)
    return guarded(lambda: run(settings_of(args)))


def start_logging(verbosity: int) -> None:
    """Messages on standard error."""
    # nipype would otherwise ask its server for news of newer versions
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    os.environ.setdefault("NO_ET", "1")
    level = (logging.INFO, logging.DEBUG)[min(verbosity, 1)]
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    LOG.setLevel(level)


def guarded(action) -> int:
    """Run an action; an expected error becomes one clear line and its exit code."""
    try:
        with stoppable():
            return int(action())
    except CPMAEError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt as stop:
        asked = f"told to end ({stop})" if isinstance(stop, Stopped) else "interrupted"
        print(f"{asked}; run again with the same -w to go on", file=sys.stderr)
        return int(stop.code if isinstance(stop, Stopped) else ExitCode.INTERRUPTED)
    except Exception as error:
        LOG.debug("in full:", exc_info=error)
        if short_of_memory(error):
            print(f"error: {MEMORY_ADVICE}", file=sys.stderr)
            return int(ExitCode.NO_MEMORY)
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            print(f"error: {error.filename2 or error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
            return int(ExitCode.CANNOT_CREATE)
        LOG.exception("an error in bids_cpmae itself; please report it with these lines")
        return int(ExitCode.SOFTWARE)


if __name__ == "__main__":
    sys.exit(main())
