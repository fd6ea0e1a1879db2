"""A run over a dataset: workflows built, executed, and every scan's verdict collected, come what may."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from bids_cpmae.bids.dataset import remove_outputs, start_dataset
from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.query import Scan
from bids_cpmae.bids.verdicts import FAIL, LOGS, Verdict, merge, write_participant
from bids_cpmae.settings import Settings
from bids_cpmae.workflow.participant import verdict_path

LOG = logging.getLogger("bids_cpmae")
SILENT_DEATH = "the process ended without a message (out of memory, or killed?); see the crash folder in the work folder"


def build_workflow(settings: Settings, scans: list[Scan]):
    """One nipype workflow for the run, a sub-workflow a participant."""
    from nipype.pipeline import engine as pe

    from bids_cpmae.model.weights import weights_version
    from bids_cpmae.workflow.participant import init_participant_wf

    workflow = pe.Workflow(name="bids_cpmae_wf", base_dir=str(settings.work_dir))
    workflow.config["execution"].update(
        crashdump_dir=str(settings.work_dir / "crash"),
        crashfile_format="txt",
        remove_unnecessary_outputs="false",
        stop_on_first_crash=str(settings.stop_on_first_crash).lower(),
        check_version="false",
    )
    if settings.resource_monitor:
        from nipype import config

        config.enable_resource_monitor()
    for participant in sorted({scan.participant for scan in scans}):
        workflow.add_nodes([
            init_participant_wf(
                participant=participant,
                scans=[scan for scan in scans if scan.participant == participant],
                work_dir=settings.work_dir,
                output_dir=settings.output_dir,
                random_seed=settings.random_seed,
                mode=settings.mode,
                regions=settings.regions,
                device=settings.device,
                weights=settings.weights,
                weights_version=weights_version(settings.weights),
            )
        ])  # fmt: skip
    return workflow


def plugin_of(settings: Settings) -> dict:
    """nipype's ``plugin`` and ``plugin_args``."""
    if settings.plugin_file:
        import yaml

        loaded = yaml.safe_load(settings.plugin_file.read_text(encoding="utf-8"))
        return {"plugin": loaded["plugin"], "plugin_args": loaded.get("plugin_args", {})}
    if settings.plugin == "Linear" or settings.nprocs == 1 and settings.plugin == "MultiProc":
        return {"plugin": "Linear", "plugin_args": {}}
    arguments = {"n_procs": settings.nprocs, "memory_gb": settings.memory_gb, "raise_insufficient": False,
                 "n_gpu_procs": settings.n_gpu_procs, "mp_context": "forkserver", "maxtasksperchild": None}  # fmt: skip
    return {"plugin": settings.plugin, "plugin_args": arguments}


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
    """
    for scan in scans:
        path = verdict_path(settings.work_dir, scan)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    start_dataset(settings.output_dir, settings.bids_dir)
    _threads(settings.omp_nthreads)
    workflow = build_workflow(settings, scans)
    if settings.write_graph:
        workflow.write_graph(dotfilename=str(settings.work_dir / "graph.dot"), graph2use="colored", format="svg")
    plugin = plugin_of(settings)
    plugin["plugin_args"]["status_callback"] = _callback(on_done)
    try:
        workflow.run(**plugin)
    except RuntimeError as error:
        # nipype raises once all that could run has run; the verdicts say what failed
        LOG.debug("workflow ended with: %s", error)
    return collect(settings, scans, workflow_text(workflow))


def workflow_text(workflow) -> str:
    """The citation text of the first scan's workflow."""
    inner = [node for node in workflow._graph.nodes() if hasattr(node, "_graph")]
    scans = [node for one in inner for node in one._graph.nodes()]
    return next((node.__desc__ for node in scans if getattr(node, "__desc__", None)), "")


def collect(settings: Settings, scans: list[Scan], text: str) -> list[Verdict]:
    """Verdicts left by the nodes; tables, citation text, and stale outputs of failed scans taken away."""
    from bids_cpmae.bids.sidecar import write_text

    verdicts = []
    for scan in scans:
        path = verdict_path(settings.work_dir, scan)
        if path.exists():
            verdict = Verdict.load(path)
        else:
            verdict = Verdict(scan.relative, scan.participant, scan.session, FAIL, SILENT_DEATH)
        if verdict.verdict == FAIL:
            remove_outputs(settings.output_dir, outputs_of(scan.relative))
        verdicts.append(verdict)
    for participant in sorted({verdict.participant for verdict in verdicts}):
        write_participant(settings.output_dir, participant, [v for v in verdicts if v.participant == participant])
    merge(settings.output_dir)
    write_text(settings.output_dir / LOGS / "CITATION.md", f"# Methods, in words\n\n{text}\n")
    return verdicts


def _threads(count: int) -> None:
    """Threads of the numerical libraries, before the workers import them."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(count)


def _callback(on_done: Callable[[], None]):
    def callback(node, status: str) -> None:
        if status == "exception" or status == "end" and node.name == "publish_scan":
            on_done()

    return callback
