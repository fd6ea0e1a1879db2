"""Podman or Docker, and Apptainer: found or skipped, with a way to build the image and to run it as some user.

A folder of tools (``BIDS_CPMAE_CONTAINER_TOOLS``, or ``shared/tools`` beside the checkout) can start both where no
image registry is reached: ``containers-up.sh`` makes the base image with podman, ``apptainer-up.sh`` brings Apptainer.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "debian:bookworm-slim"
VERSION = "0.1.0+test"
TIMEOUT_S = 1800
# neither the image's own user nor, on most machines, anybody's
UID = 1234


def call(*command, **options) -> str:
    """Standard output of a command.

    Raises
    ------
    RuntimeError
        With the end of what a command printed that failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def kept() -> Path | None:
    """The folder for images and outputs that stays after the tests and is used again."""
    folder = os.environ.get("BIDS_CPMAE_CONTAINER_KEEP")
    return Path(folder).absolute() if folder else None


def tools() -> Path | None:
    """The folder of tools; they want root."""
    folder = Path(os.environ.get("BIDS_CPMAE_CONTAINER_TOOLS") or REPOSITORY.parent / "shared" / "tools")
    return folder if (folder / "containers-up.sh").is_file() and os.getuid() == 0 else None


def need(*programs: str) -> None:
    """Skip unless all of these are installed."""
    if missing := [name for name in programs if not shutil.which(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def prepared(*command) -> str:
    """Output of a command, or a skip where it cannot do its work."""
    try:
        return call(*command)
    except RuntimeError as error:
        pytest.skip(str(error))


def wheels(option: str) -> list[str]:
    """Mount a folder of wheels of this machine where the tools' settings for pip look for it."""
    folder = os.environ.get("PIP_FIND_LINKS", "")
    return [option, f"{folder}:/media"] if os.path.isdir(folder) else []


def mounted(option: str, mounts: dict[Path, str]) -> list[str]:
    """Options that mount each folder at its place."""
    return [word for folder, place in mounts.items() for word in (option, f"{folder}:{place}")]


@dataclass
class Docker:
    """Podman or Docker."""

    program: str
    image: str
    build_options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def call(self, *arguments) -> str:
        return call(self.program, *arguments, env=os.environ | self.environment)

    def build(self) -> None:
        self.call("build", *self.build_options, "--build-arg", f"VERSION={VERSION}", "-t", self.image, REPOSITORY)

    def run(self, program: str, *arguments, mounts: dict[Path, str] | None = None) -> str:
        """Run a program of the image: no network, a user without a name, nothing to write to but mounts and /tmp."""
        # podman would make more places writable than docker does
        more = ["--read-only-tmpfs=false"] if self.program == "podman" else []
        isolated = ["--network", "none", "--read-only", "--tmpfs", "/tmp", *more, "-u", f"{UID}:{UID}"]
        return self.call("run", "--rm", *isolated, *mounted("-v", mounts or {}), "--entrypoint", program, self.image,
                         *arguments)  # fmt: skip

    def inspect(self, what: str) -> str:
        return self.call("image", "inspect", "--format", f"{{{{{what}}}}}", self.image).strip()

    def remove(self) -> None:
        self.call("image", "rm", "-f", self.image)


@dataclass
class Apptainer:
    """Apptainer, or Singularity; ``program`` builds, ``user_program`` runs."""

    program: list[str]
    user_program: list[str]
    image: Path
    build_options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def build(self) -> None:
        # the host's settings for pip would get in, but the files that they name do not
        outside = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        call(*self.program, "build", "--force", *self.build_options, "--build-arg", f"VERSION={VERSION}", self.image,
             "Singularity.def", cwd=REPOSITORY, env=outside | self.environment)  # fmt: skip

    def run(self, program: str, *arguments, mounts: dict[Path, str] | None = None) -> str:
        """Run a program of the image: no network, nothing of the host's but mounts."""
        # the image's own program stands in its runscript
        words = ["run", self.image] if program == "bids-cpmae" else ["exec", self.image, program]
        isolated = ["--containall", "--net", "--network", "none", *mounted("-B", mounts or {})]
        return call(*self.user_program, words[0], *isolated, *words[1:], *arguments, cwd=self.image.parent,
                    env=os.environ | self.environment)  # fmt: skip


def find_docker(folder: Path) -> Docker:
    """Podman with storage of its own from the tools, else podman or docker as they are."""
    if tools():
        need("podman", "runc", "conmon", "mmdebstrap")
        printed = prepared(tools() / "containers-up.sh", folder / "podman")
        ci = folder / "podman" / "ci"
        options = ["--network", "host", "-v", f"{ci}:/mnt:ro", "-v", f"{ci / 'pip.conf'}:/etc/pip.conf:ro",
                   *wheels("-v"), "--build-arg", "TORCH_INDEX="]  # fmt: skip
        if not kept():
            # all of it goes at once, afterwards: layers for a next time, or taking away what is left, are minutes
            options += ["--layers=false", "--rm=false"]
        return Docker("podman", "bids_cpmae_test", options, dict(re.findall(r"(\w+)=(\S+)", printed)))
    program = next((name for name in ("podman", "docker") if shutil.which(name)), None)
    if program is None:
        pytest.skip("neither podman nor docker is installed")
    prepared(program, "info")
    prepared(program, "pull", BASE)
    return Docker(program, "bids_cpmae_test")


def find_apptainer(folder: Path, docker: Future[Docker]) -> Apptainer:
    """Apptainer from the tools, given its base by podman, else the one that is installed."""
    if tools():
        need("podman", "mmdebstrap", "newuidmap")
        prepared(tools() / "apptainer-up.sh", folder / "apptainer")
        base, binds = folder / "base.tar", [str(REPOSITORY), str(folder), os.environ.get("PIP_FIND_LINKS")]
        if not base.exists():
            docker.result().call("save", "-q", BASE, "-o", base)
        environment = {"APPT_ROOT": str(folder / "apptainer"), "APPT_BINDS": ":".join(filter(None, binds)),
                       "APPTAINERENV_PIP_CONFIG_FILE": "/mnt/pip.conf"}  # fmt: skip
        options = ["--sandbox", "--bind", f"{folder / 'podman' / 'ci'}:/mnt", *wheels("--bind")]
        for argument in ("BOOTSTRAP=docker-archive", f"FROM={base}", "TORCH_INDEX="):
            options += ["--build-arg", argument]
        root = [sys.executable, str(tools() / "apptainer.py")]
        user = [*root, "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
        return Apptainer([*root, "apptainer"], [*user, "apptainer"], folder / "sandbox", options, environment)
    program = next((name for name in ("apptainer", "singularity") if shutil.which(name)), None)
    if program is None:
        pytest.skip("neither apptainer nor singularity is installed")
    return Apptainer([program], [program], folder / "bids_cpmae.sif")
