"""A run over a dataset: workflows built, executed, and every scan's verdict collected, come what may."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from bids_cpmae.bids.atomic import sweep, write_text
from bids_cpmae.bids.dataset import drop_pages, remove_outputs, start_dataset
from bids_cpmae.bids.lock import PATIENCE_S, locked
from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.reference import Scan, assign_references, needed
from bids_cpmae.bids.verdicts import (
    FAIL,
    LOGS,
    NOT_REACHED,
    PASS,
    REVIEW,
    SKIPPED,
    Verdict,
    merge,
    without_paths,
    write_participant,
)
from bids_cpmae.errors import CPMAEError, OutputError, reason_in
from bids_cpmae.report.write import write_reports
from bids_cpmae.settings import Settings
from bids_cpmae.signals import unstopped
from bids_cpmae.workflow.batch import BATCH_POLL_S, RESULT_S, ask_by_node, batch_arguments, is_batch
from bids_cpmae.workflow.participant import drawings_dir, verdict_path
from bids_cpmae.workflow.plugin import KILLED, LOST, SturdyMultiProcPlugin, quiet_nipype
from bids_cpmae.workflow.rehearsal import rehearse
from bids_cpmae.workflow.scan import LEAST_REGISTRATION_GB, MODEL_GB
from bids_cpmae.workflow.workers import prepare_workers

LOG = logging.getLogger("bids_cpmae")
SILENT_DEATH = "the process ended without a message (killed for want of memory?); see `crash` in the work folder"
TAKEN = "what was written is not there any more, for another run worked on the same scan; run again"
# of plugins of nipype that are no batch system; our own does not poll
POLL_S = 0.2
# schedulers kill what has not ended some 30 s after they asked; other runs may hold the lock of the tables
LAST_WORDS_S = 5.0
# of nipype's plugins the one that is replaced by our own
OWN_PLUGIN = "MultiProc"


def build_workflow(settings: Settings, scans: list[Scan]):
    """One nipype workflow for the run, a sub-workflow a participant."""
    from nipype.pipeline import engine as pe

    from bids_cpmae.model.weightsfile import weights_version
    from bids_cpmae.workflow.participant import init_participant_wf

    workflow = pe.Workflow(name="bids_cpmae_wf", base_dir=str(settings.work_dir))
    batch = bool(settings.plugin) and is_batch(settings.plugin["plugin"])
    workflow.config["execution"] = {
        "crashdump_dir": str(settings.work_dir / "crash"),
        "crashfile_format": "txt",
        "remove_unnecessary_outputs": "false",
        "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
        "check_version": "false",
        "poll_sleep_duration": str(BATCH_POLL_S if batch else 0 if is_own(settings) else POLL_S),
        "job_finished_timeout": str(RESULT_S),
    }
    for participant in sorted({scan.participant for scan in scans}):
        workflow.add_nodes([
            init_participant_wf(
                participant=participant,
                scans=[scan for scan in scans if scan.participant == participant],
                bids_dir=settings.bids_dir,
                work_dir=settings.work_dir,
                output_dir=settings.output_dir,
                random_seed=settings.random_seed,
                force=settings.force,
                mode=settings.mode,
                regions=settings.regions,
                device=settings.device,
                use_gpu=wants_gpu(settings.device),
                weights=settings.weights,
                weights_version=weights_version(settings.weights),
            )
        ])  # fmt: skip
    if batch:
        ask_by_node(workflow, settings.plugin["plugin_args"], threads=settings.threads())
    return workflow


def wants_gpu(device: str) -> bool:
    """Whether a node of the network will use a GPU, found out without CUDA, which a parent process must not start."""
    return device == "cuda" or (device == "auto" and Path("/dev/nvidiactl").exists())


def is_own(settings: Settings) -> bool:
    """Whether nodes run in processes of our own plugin, which takes the place of nipype's of that name."""
    return not settings.plugin or settings.plugin["plugin"] == OWN_PLUGIN


def plugin_of(settings: Settings, scans: int) -> dict:
    """nipype's ``plugin`` and ``plugin_args`` for so many scans.

    Worker processes even for a single one, so that none takes all down.
    """
    name, more = (settings.plugin["plugin"], settings.plugin["plugin_args"]) if settings.plugin else (OWN_PLUGIN, {})
    if not is_own(settings):
        return {"plugin": name, "plugin_args": batch_arguments(more) if is_batch(name) else dict(more)}
    # forked copies of threads of torch or ITK would hang: workers come from a clean server process
    arguments = {"n_procs": settings.nprocs, "memory_gb": settings.memory_gb, "raise_insufficient": False,
                 "n_gpu_procs": settings.n_gpu_procs, "mp_context": "forkserver",
                 "log_level": log_level(settings), "threads": settings.threads(scans),
                 "rehearsal": (rehearsing(settings, scans), partial(rehearse, settings.device, settings.weights)),
                 **more}  # fmt: skip
    return {"plugin": SturdyMultiProcPlugin, "plugin_args": arguments}


def rehearsing(settings: Settings, scans: int) -> int:
    """How many workers rehearse while others locate the first faces: those without a scan, if memory allows.

    None where there is a GPU, whose slots are for steps alone.
    """
    together = int(settings.memory_gb // (MODEL_GB + LEAST_REGISTRATION_GB))
    return 0 if wants_gpu(settings.device) else max(0, min(scans, settings.nprocs - scans, together))


def log_level(settings: Settings) -> int:
    """How much nipype may say."""
    return logging.INFO if settings.verbosity else logging.CRITICAL


def run(settings: Settings, scans: list[Scan], *, on_done: Callable[[], None] = lambda: None) -> list[Verdict]:
    """Reface scans and collect their verdicts.

    Parameters
    ----------
    settings : Settings
    scans : list of Scan
    on_done : callable
        Called whenever a scan has been published or has failed.

    Returns
    -------
    list of Verdict
        One a scan, in the order given.

    Raises
    ------
    KeyboardInterrupt
        When interrupted, after the verdicts so far have been written down.
    """
    for scan in needed(scans):
        path = verdict_path(settings.work_dir, scan)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    sweep_output(settings, scans)
    start_dataset(settings.output_dir, settings.bids_dir)
    prepare_workers(settings, len(needed(scans)))
    quiet_nipype(log_level(settings))
    plugin = plugin_of(settings, len(needed(scans)))
    workflow = build_workflow(settings, scans)
    if settings.resource_monitor:
        from nipype import config

        config.enable_resource_monitor()
    if settings.write_graph:
        _draw(workflow, settings.work_dir / "graph.dot")
    text, stopped = workflow_text(workflow), settings.stop_on_first_crash
    words: dict[str, str] = {}
    try:
        words |= _execute(settings, workflow, plugin, scans, on_done)
        while not stopped and (orphans := orphaned(settings.work_dir, scans)):
            LOG.info("%d scans are aligned to others, for their reference could not be used", len(orphans))
            placed = {scan.relative: scan for scan in orphans}
            scans = [placed.get(scan.relative, scan) for scan in scans]
            again = build_workflow(settings, orphans), plugin_of(settings, len(orphans))
            words |= _execute(settings, *again, scans, on_done)
        verdicts = collect(settings, scans, text, words, stopped=stopped)
    except BaseException:
        collect(settings, scans, text, words, stopped=True, patience_s=LAST_WORDS_S)
        raise
    try:
        _report(settings, scans, verdicts)
    except KeyboardInterrupt:
        sweep_output(settings, scans)
        raise
    return verdicts


def sweep_output(settings: Settings, scans: list[Scan]) -> None:
    """Take away what writers that were killed have left where this run writes."""
    sweep(settings.output_dir, LOGS, *{f"sub-{scan.participant}" for scan in scans})


def _report(settings: Settings, scans: list[Scan], verdicts: list[Verdict]) -> None:
    """Pages of the participants and the dataset; those with original faces where they were asked for."""
    from bids_cpmae.report.private import write_before_after

    write_reports(
        settings.output_dir, {scan.participant for scan in scans}, nprocs=settings.nprocs,
        drawings=drawings_dir(settings.work_dir),
    )  # fmt: skip
    if not settings.private_dir:
        return
    for scan, verdict in zip(scans, verdicts):
        if verdict.verdict in (PASS, REVIEW):
            image, _, mask, _ = (settings.output_dir / path for path in outputs_of(scan.relative))
            try:
                write_before_after(settings.private_dir, scan.relative, scan.path, image, mask)
            except CPMAEError as error:
                LOG.warning("no before/after page: %s", error)


def _execute(
    settings: Settings, workflow, plugin: dict, scans: list[Scan], on_done: Callable[[], None]
) -> dict[str, str]:
    """Run a workflow; returns why scans failed, where the run knows it and not their nodes."""
    arguments = {**plugin["plugin_args"], "status_callback": _callback(on_done)}
    own = not isinstance(plugin["plugin"], str)
    runner = plugin["plugin"](plugin_args=arguments) if own else plugin["plugin"]
    # nipype collects garbage at every poll, which takes a third of a core where a dataset's index is in memory
    gc.freeze()
    try:
        workflow.run(plugin=runner, **({} if own else {"plugin_args": arguments}))
    except Exception as error:
        # nipype raises once all that could run has run; the verdicts say what failed
        LOG.debug("the workflow ended with: %s", error)
        if own and runner.unfinished and not settings.stop_on_first_crash:
            raise
    finally:
        gc.unfreeze()
    return _last_words(settings, scans, runner.causes) if own else {}


def _last_words(settings: Settings, scans: list[Scan], causes: dict[str, str]) -> dict[str, str]:
    """Reasons for scans whose nodes could leave none, left in their place where that can be written."""
    words = {}
    for scan in needed(scans):
        cause, path = causes.get(scan.relative), verdict_path(settings.work_dir, scan)
        if cause is None or path.exists():
            continue
        reason = SILENT_DEATH if cause == KILLED else LOST if cause.endswith(LOST) else reason_in(cause)
        words[scan.relative] = without_paths(
            reason, settings.bids_dir, settings.work_dir, settings.output_dir, Path.home()
        )  # fmt: skip
        verdict = Verdict(scan.relative, scan.participant, scan.session, FAIL, words[scan.relative])
        with suppress(OutputError):
            verdict.save(path)
    return words


def orphaned(work_dir: Path, scans: list[Scan]) -> list[Scan]:
    """Scans that were not come to since what they hang on failed or was skipped, with other references.

    A reference that failed only after others had been given its face goes on being one.
    """
    left = {scan.relative: Verdict.load(path).verdict for scan in needed(scans)
            if (path := verdict_path(work_dir, scan)).exists()}  # fmt: skip
    served = {scan.origin.relative for scan in scans if scan.reference and left.get(scan.relative) in (PASS, REVIEW)}
    useless = {name for name, verdict in left.items() if verdict in (FAIL, SKIPPED)} - served
    orphans = [
        scan for scan in scans
        if scan.relative not in left and any(other.relative in useless for other in needed([scan]))
    ]  # fmt: skip
    if not orphans:
        return []
    return assign_references(orphans, [scan for scan in needed(scans) if scan.relative not in useless])


def _draw(workflow, path: Path) -> None:
    if shutil.which("dot") is None:
        LOG.warning("no graph drawn: graphviz is not installed (its program `dot` is missing)")
        return
    workflow.write_graph(dotfilename=str(path), graph2use="colored", format="svg")


def workflow_text(workflow) -> str:
    """The citation text of the first scan's workflow."""
    inner = [node for node in workflow._graph.nodes() if hasattr(node, "_graph")]
    scans = [node for one in inner for node in one._graph.nodes()]
    return next((node.__desc__ for node in scans if getattr(node, "__desc__", None)), "")


def collect(
    settings: Settings, scans: list[Scan], text: str, words: dict[str, str], *, stopped: bool = False,
    patience_s: float = PATIENCE_S,
) -> list[Verdict]:  # fmt: skip
    """Verdicts left by the nodes; tables, citation text, and stale outputs of those without a new face taken away.

    Parameters
    ----------
    words : dict of str to str
        Reasons for scans that failed and left no verdict.
    stopped : bool
        Whether the run may have ended before its end, so that a scan without a verdict was never come to.
    patience_s : float
        How long to wait for other runs that write tables.
    """
    verdicts = []
    for scan in scans:
        path = verdict_path(settings.work_dir, scan)
        if path.exists():
            verdict = Verdict.load(path)
        elif stopped and scan.relative not in words:
            verdict = Verdict(scan.relative, scan.participant, scan.session, SKIPPED, NOT_REACHED, reached=False)
        else:
            reason = words.get(scan.relative, SILENT_DEATH)
            verdict = Verdict(scan.relative, scan.participant, scan.session, FAIL, reason)
        verdicts.append(verdict)
    if stopped:
        sweep_output(settings, scans)
    with locked(settings.output_dir / LOGS, patience_s=patience_s) as free, unstopped():
        verdicts = [_as_it_stands(settings.output_dir, verdict) for verdict in verdicts]
        for participant in sorted({verdict.participant for verdict in verdicts}):
            write_participant(settings.output_dir, participant, [v for v in verdicts if v.participant == participant])
        if free:
            merge(settings.output_dir)
        # only now: no table vouches for them any more; where tables are left to the group level, so is this
        for verdict in verdicts if free else ():
            if verdict.reached and verdict.verdict in (FAIL, SKIPPED):
                _remove(settings.output_dir, verdict)
        write_text(settings.output_dir / LOGS / "CITATION.md", f"# Methods, in words\n\n{text}\n")
    return verdicts


def _as_it_stands(output_dir: Path, verdict: Verdict) -> Verdict:
    """The verdict, or FAIL where another run has meanwhile taken away what it was about."""
    written = all((output_dir / path).is_file() for path in outputs_of(verdict.source))
    if verdict.verdict not in (PASS, REVIEW) or written:
        return verdict
    return replace(verdict, verdict=FAIL, reason=TAKEN)


def _remove(output_dir: Path, verdict: Verdict) -> None:
    """Take away what an earlier run wrote for a scan that does not pass now, and pages that show it."""
    outputs = outputs_of(verdict.source)
    if any((output_dir / path).exists() for path in outputs):
        drop_pages(output_dir, verdict.participant)
        remove_outputs(output_dir, outputs)


def _callback(on_done: Callable[[], None]):
    done = set()

    def callback(node, status: str) -> None:
        # node.fullname: run.participant.scan.node; nipype's Linear plugin reports nodes it left out as ended, too
        scan = node.fullname.rpartition(".")[0]
        if scan not in done and (status == "exception" or status == "end" and node.name == "publish_scan"):
            done.add(scan)
            on_done()

    return callback
