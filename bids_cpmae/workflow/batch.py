"""nipype's plugins for batch systems, told from a file: what each job asks for, and what cannot work said at once."""

from __future__ import annotations

import getpass
import math
import os
from pathlib import Path

from bids_cpmae.errors import ExitCode, InputError

# of plugin_args: what goes to sbatch, qsub, bsub and the like
ARGUMENTS = ("sbatch_args", "qsub_args", "bsub_args", "oarsub_args")
# a job is a process of its own: the interpreter and its libraries count
LEAST_GB = 1.0
# a scheduler is asked about every job at every poll; a file server may show a result so much after the job's end
BATCH_POLL_S, RESULT_S = 2, 60
BASH = "#!/bin/bash\n"


def is_batch(plugin: str) -> bool:
    """Whether nodes become jobs of a batch system.

    Raises
    ------
    InputError
        When nipype has no such plugin, or it is one that submits a graph and does not wait for its end.
    """
    import nipype.pipeline.plugins as known
    from nipype.pipeline.plugins.base import GraphPluginBase, SGELikeBatchManagerBase

    kind = getattr(known, f"{plugin}Plugin", None)
    known_ones = "MultiProc, Linear, SLURM, SGE, PBS, LSF and others"
    if kind is None:
        raise InputError(f"nipype has no plugin {plugin}; it has {known_ones}", ExitCode.DATA)
    if issubclass(kind, GraphPluginBase):
        raise InputError(f"plugin {plugin} does not wait for its jobs to end; take {known_ones}", ExitCode.DATA)
    return issubclass(kind, SGELikeBatchManagerBase)


def batch_arguments(arguments: dict) -> dict:
    """``plugin_args`` that work: a template with a shebang, without which Slurm refuses it; and a name to submit by."""
    # nipype names jobs after it, and containers and timers do not set it
    os.environ.setdefault("LOGNAME", _user())
    arguments = dict(arguments)
    if "template" in arguments:
        text = str(arguments["template"])
        text = Path(text).read_text(encoding="utf-8") if os.path.isfile(text) else text
        arguments["template"] = text if text.lstrip().startswith("#!") else BASH + text
    return arguments


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def ask_by_node(workflow, arguments: dict, *, threads: int) -> None:
    """Have each node's job ask for what the node needs.

    ``{mem_mb}``, ``{mem_gb}``, ``{threads}`` and ``{gpus}`` in the arguments for `sbatch`, `qsub` and so on stand for
    whole numbers of the node. Without any of them all jobs ask for the same.

    Parameters
    ----------
    workflow : nipype Workflow
    arguments : dict
        nipype's ``plugin_args``.
    threads : int
        Of a node.
    """
    asked = {name: str(arguments[name]) for name in ARGUMENTS if name in arguments}
    for name in workflow.list_node_names():
        node = workflow.get_node(name)
        needs = needs_of(node, threads)
        node.plugin_args = {"overwrite": True, **{key: _filled(text, needs) for key, text in asked.items()}}


def needs_of(node, threads: int) -> dict[str, int]:
    """What a node's job has to be given, by the names of the places."""
    gigabytes = max(node.mem_gb, LEAST_GB)
    return {"mem_mb": math.ceil(1024 * gigabytes), "mem_gb": math.ceil(gigabytes), "threads": threads,
            "gpus": int(node.is_gpu_node())}  # fmt: skip


def _filled(text: str, needs: dict[str, int]) -> str:
    # not str.format: a scheduler's arguments may hold braces of their own
    for name, value in needs.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text
