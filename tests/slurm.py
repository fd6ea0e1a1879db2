"""A real Slurm of one node for the tests, started by the tools folder's script; a skip with a reason without one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")


def tools_folder() -> Path:
    """Where the script is looked for."""
    told = os.environ.get("BIDS_CPMAE_CLUSTER_TOOLS")
    return Path(told) if told else Path(__file__).resolve().parents[2] / "shared" / "tools"


def why_not() -> str:
    """Why there can be no Slurm here; nothing if there can be one."""
    if not (tools_folder() / "slurm-up.sh").is_file():
        return "no slurm-up.sh: set BIDS_CPMAE_CLUSTER_TOOLS to its folder"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}: install slurm-wlm and munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root here"


def ask(*words: str) -> str:
    """What a command of Slurm prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def wait_for_jobs(limit_s: float) -> None:
    """Until the queue is empty."""
    end = time.monotonic() + limit_s
    while ask("squeue", "-h"):
        assert time.monotonic() < end, f"jobs are still there: {ask('squeue')}"
        time.sleep(1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Slurm's commands find a node while the module's tests run."""
    if reason := why_not():
        pytest.skip(reason)
    folder, script = tmp_path_factory.mktemp("slurm"), tools_folder() / "slurm-up.sh"
    started = subprocess.run(["bash", script, folder], capture_output=True, text=True, timeout=120)
    try:
        if "idle" not in started.stderr:
            pytest.skip(f"Slurm did not start: {started.stderr.strip()[-300:]}")
        with pytest.MonkeyPatch.context() as patch:
            for word in shlex.split(started.stdout.splitlines()[-1])[1:]:
                patch.setenv(*word.split("=", 1))
            yield folder
            subprocess.run(["scancel", "--user", "root"], capture_output=True)
    finally:
        subprocess.run(["bash", script, folder, "stop"], capture_output=True)
