"""What a run was asked to do: made once by the command line, handed down as keyword arguments, read by nobody else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def cpu_count() -> int:
    """Cores this process may use, which in a container or a batch job are not all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """One run of the BIDS App; the fields are the options of ``bids-cpmae``.

    Attributes
    ----------
    suffixes : tuple of str
        Which anatomical images are refaced; all that can show a face if empty.
    bids_filters : dict of str to dict
        For a suffix in lower case, entities and values for pybids.
    output_dir, raw_dir : Path
        Root of the derivative and, with ``--layout raw``, of the raw dataset around it.
    private_dir : Path, optional
        Where pages with original faces go.
    force : bool
        Reface what screening would leave alone.
    plugin : dict, optional
        nipype's ``plugin`` and ``plugin_args`` from a file; processes of this machine if not given.
    nprocs : int
        Scans at a time.
    omp_nthreads : int, optional
        Threads for each; see `threads` for what it is if not given.
    memory_gb : float
        For all scans together.
    """

    bids_dir: Path
    output_dir: Path
    level: str
    work_dir: Path
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    bids_filters: dict = field(default_factory=dict)
    validate: bool = True
    database_dir: Path | None = None
    clean_workdir: bool = False
    nprocs: int = 1
    omp_nthreads: int | None = None
    memory_gb: float = 8.0
    plugin: dict | None = None
    device: str = "auto"
    n_gpu_procs: int = 1
    weights: Path | None = None
    mode: str = "face"
    regions: tuple[str, ...] = ("face", "ears")
    random_seed: int = 0
    force: bool = False
    raw_dir: Path | None = None
    link: str = "copy"
    dates: str = "shift"
    accept_review: bool = False
    scan_only: bool = False
    private_dir: Path | None = None
    stop_on_first_crash: bool = False
    write_graph: bool = False
    resource_monitor: bool = False
    dry_run: bool = False
    verbosity: int = 0

    def threads(self, scans: int | None = None) -> int:
        """Threads for each scan: what was asked for, else the cores over the scans that are worked on at a time."""
        together = self.nprocs if scans is None else min(self.nprocs, scans)
        return self.omp_nthreads or max(1, cpu_count() // max(1, together))
