"""What the command line asks for, checked before anything is done, and made into the run's settings."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from bids_cpmae.errors import ExitCode, InputError, LevelError, OutputError, UsageError
from bids_cpmae.settings import Settings, cpu_count

LEVELS = ("participant", "group")
# what a run makes in its work folder, and all that --clean-workdir takes away
WORK_FOLDERS = ("bids_cpmae_wf", "bids_cpmae_drawings", "verdicts", "crash")
SCAN_GB = 4.0
# where the run's own derivative lies in a raw dataset
DERIVATIVE = Path("derivatives", "bids_cpmae")


def memory_gb() -> float:
    """90 % of the memory this process may use: the machine's, or its control group's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return 0.9 * total / 2**30


def settings_of(args: argparse.Namespace) -> Settings:
    """Check what was asked for and make the run's settings of it.

    Raises
    ------
    LevelError, UsageError, OutputError, InputError
    """
    if args.level not in LEVELS:
        raise LevelError(f"{args.level}: no such analysis level; give participant or group")
    for value, name in ((args.nprocs, "--nprocs"), (args.omp_nthreads, "--omp-nthreads"), (args.mem, "--mem"),
                        (args.n_gpu_procs, "--n-gpu-procs")):  # fmt: skip
        if value is not None and value <= 0:
            raise UsageError(f"{name} must be above 0, not {value}")
    paths = [path.absolute() if path else None for path in
             (args.bids_dir, args.output_dir, args.work_dir, args.bids_database_dir)]  # fmt: skip
    bids_dir, output_dir, work_dir, database_dir = paths
    check_folders(*(path.resolve() if path else None for path in paths))
    private_dir = args.private_dir
    if private_dir:
        from bids_cpmae.report.private import check_private_dir

        private_dir = check_private_dir(private_dir, output_dir, bids_dir)
    raw_dir = output_dir if args.layout == "raw" else None
    if raw_dir:
        output_dir = raw_dir / DERIVATIVE
    for path, name in ((args.model_weights, "--model-weights"), (args.plugin_file, "--nipype-plugin-file")):
        if path and not path.is_file():
            raise InputError(f"{name} {path}: no such file", ExitCode.NO_INPUT)
    memory = args.mem or memory_gb()
    nprocs = args.nprocs or max(1, min(cpu_count(), int(memory // SCAN_GB)))
    return Settings(
        raw_dir=raw_dir, link=args.link, dates=args.dates, accept_review=args.accept_review, scan_only=args.scan_only,
        private_dir=private_dir, force=args.force,
        bids_dir=bids_dir, output_dir=output_dir, level=args.level, work_dir=work_dir,
        participants=tuple(args.participant_label), sessions=tuple(args.session_label),
        suffixes=tuple(args.suffixes),
        bids_filters=read_filters(args.bids_filter_file), validate=not args.skip_bids_validation,
        database_dir=database_dir, clean_workdir=args.clean_workdir, nprocs=nprocs,
        omp_nthreads=args.omp_nthreads, memory_gb=memory,
        plugin=read_plugin(args.plugin_file), device=args.device, n_gpu_procs=args.n_gpu_procs,
        weights=args.model_weights.absolute() if args.model_weights else None,
        mode=args.mode, regions=tuple(name for name in ("face", "ears") if name in args.regions),
        random_seed=args.random_seed, stop_on_first_crash=args.stop_on_first_crash, write_graph=args.write_graph,
        resource_monitor=args.resource_monitor, dry_run=args.dry_run, verbosity=args.verbosity,
    )  # fmt: skip


def check_folders(bids_dir: Path, output_dir: Path, work_dir: Path, database_dir: Path | None = None) -> None:
    """Nothing may be written under the input, nothing of the input may lie under the output, and no face may either.

    Raises
    ------
    OutputError
    """
    beside = f"give a folder beside it, e.g. {bids_dir}-refaced"
    if output_dir == bids_dir:
        raise OutputError(f"{output_dir}: the output is the input; {beside}")
    if output_dir in bids_dir.parents:
        raise OutputError(f"{output_dir}: the output holds the input; {beside}")
    if bids_dir in output_dir.parents:
        raise OutputError(f"{output_dir}: the output lies inside the input, which is never written to; {beside}")
    for path, name, option in ((work_dir, "work folder", "-w"), (database_dir, "database", "--bids-database-dir")):
        if path and (path == bids_dir or bids_dir in path.parents):
            raise OutputError(
                f"{path}: the {name} lies inside the input, which is never written to; choose another with {option}"
            )
        if path and (path == output_dir or output_dir in path.parents):
            raise OutputError(
                f"{path}: the {name} lies inside the output, which is there to be shared; choose another with {option}"
            )


def _parsed(path: Path, parse, what: str):
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", ExitCode.NO_INPUT) from error
    except ValueError as error:
        raise InputError(f"{path}: not {what} ({' '.join(str(error).split())})", ExitCode.DATA) from error


def read_filters(path: Path | None) -> dict[str, dict]:
    """A filter file: for each suffix in lower case, e.g. ``t1w``, entities and values; entries of others are let be."""
    if path is None:
        return {}
    content = _parsed(path, json.loads, "JSON")
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        example = '{"t1w": {"session": "01"}, "t2w": {"acquisition": "space"}}'
        raise InputError(f"{path}: wants an object of filters a suffix, e.g. {example}", ExitCode.DATA)
    return content


def read_plugin(path: Path | None) -> dict | None:
    """nipype's ``plugin`` and ``plugin_args`` from a YAML file."""
    if path is None:
        return None
    import yaml

    def parse(text: str):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(error) from error

    content = _parsed(path, parse, "YAML")
    if not isinstance(content, dict) or not isinstance(content.get("plugin"), str):
        raise InputError(f"{path}: wants `plugin: NAME` and `plugin_args:` as nipype has them", ExitCode.DATA)
    return {"plugin": content["plugin"], "plugin_args": dict(content.get("plugin_args") or {})}


def check_outputs(settings: Settings) -> None:
    """Refuse to write into somebody else's dataset.

    Raises
    ------
    OutputError
    """
    from bids_cpmae.bids import dataset

    dataset.check_output(settings.output_dir, dataset.DERIVATIVE)
    if settings.raw_dir:
        dataset.check_output(settings.raw_dir, dataset.RAW)


def prepare_folder(path: Path, what: str, *, mode: int = 0o777) -> None:
    """Make a folder, with these rights if it is new, and see that it can be written to.

    Raises
    ------
    OutputError
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: the {what} folder cannot be written to ({error.strerror}); choose another"
        ) from error


def clean_work(path: Path) -> None:
    """Take away what earlier runs left in a work folder, and nothing else that may lie there."""
    for name in WORK_FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)
