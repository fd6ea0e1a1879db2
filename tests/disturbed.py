"""The app as a process of its own, held where it is disturbed, and what must hold of its output tree after that."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import bad_inputs as bad
import nibabel as nib
import numpy as np
from leftovers import Original, leftovers
from scipy.ndimage import binary_erosion, distance_transform_edt

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.tsv import read_tsv
from bids_cpmae.imaging.certify import certify
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.template import BRAIN_BIT, load_template

HOLD = Path(__file__).with_name("hold")
TABLE = "desc-refacing_verdicts"
# hidden files that belong to the tree; others are being written
HIDDEN = (".bidsignore", ".lock")
OFF_BRAIN_MM = 12
# of a slice at 4 mm
LEAST_SEEN = 200
LIMIT_S = 240


@dataclass(frozen=True)
class Moment:
    """A process is about to do something to a file: to write, read or list it, or to give it this name.

    Attributes
    ----------
    path, cwd : str
        Regular expressions of the file's path and of the working folder, which is a node's own.
    what : {"write", "read", "rename", "list"}
    """

    path: str
    what: str = "write"
    cwd: str = ""

    def spec(self, folder: Path) -> str:
        """As the process that is held reads it."""
        events = {"rename": ["os.rename"], "list": ["os.listdir", "os.scandir"]}.get(self.what, ["open"])
        return json.dumps({"events": events, "path": self.path, "cwd": self.cwd, "reading": self.what == "read",
                           "folder": str(folder)})  # fmt: skip


class Run:
    """One run of the command line, leader of a process group and session of its own."""

    started: list[Run] = []

    def __init__(self, place: Path, *more, hold: Moment | None = None, out: str = "out", work: str = "work",
                 limit_kb: int | None = None) -> None:  # fmt: skip
        number = len(list(place.glob("log-*")))
        self.log, self.folder = place / f"log-{number}.txt", place / f"held-{number}"
        self.folder.mkdir()
        words = [sys.executable, "-m", "bids_cpmae.cli", place / "raw", place / out, "participant",
                 "-w", place / work, "--nprocs", 2, "--omp-nthreads", 1, "--device", "cpu", "--skip-bids-validation",
                 "--model-weights", place / "tiny.safetensors", *more]  # fmt: skip
        if limit_kb:
            words = ["sh", "-c", 'ulimit -v "$0" && exec "$@"', limit_kb, *words]
        known = [str(HOLD), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(known), "PYTHONUNBUFFERED": "1"}
        if hold:
            environment["CPMAE_HOLD"] = hold.spec(self.folder)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in words], stdout=log, stderr=log, env=environment, cwd=place,
                start_new_session=True,
                # what a shell runs in the background is deaf to it
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
        self.started.append(self)

    @property
    def text(self) -> str:
        """What it said so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, what, limit_s: float = LIMIT_S):
        """Wait until something is there; fails where the run ends before."""
        end = time.monotonic() + limit_s
        while not (found := what()):
            assert self.process.poll() is None, f"ended with {self.process.returncode} before:\n{self.text[-3000:]}"
            assert time.monotonic() < end, f"waited in vain:\n{self.text[-3000:]}"
            time.sleep(0.02)
        return found

    def held(self, count: int = 1) -> list[int]:
        """Numbers of the processes that are held, once there are so many."""

        def those():
            found = [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]
            return found if len(found) >= count else []

        return self.wait_for(those)

    def let_go(self) -> None:
        """Let those that are held go on."""
        (self.folder / "go").touch()

    def kill_group(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the run and all its processes."""
        os.killpg(self.process.pid, number)

    def end(self, limit_s: float = LIMIT_S) -> int:
        """Exit code, as a shell has it; no process may be left a moment later."""
        code = self.process.wait(limit_s)
        # a process that is still importing ends when it has done so
        end = time.monotonic() + 20
        while self.left() and time.monotonic() < end:
            time.sleep(0.05)
        left = self.left()
        for number in left:
            os.kill(number, signal.SIGKILL)
        assert not left, f"{len(left)} processes are left"
        return 128 - code if code < 0 else code

    def left(self) -> list[int]:
        """Processes of the run that are there still, and are not merely waiting to be buried."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = path.read_text().rsplit(")", 1)[1].split()[:4]
            except OSError:
                continue
            if int(session) == self.process.pid and state not in "ZX":
                found.append(int(path.parent.name))
        return found


def finish(place: Path, *more, **options) -> Run:
    """An undisturbed run, to its end."""
    run = Run(place, *more, **options)
    run.end()
    return run


def digest(folder: Path) -> dict[str, tuple]:
    """Every file of an input: content, time and kind."""
    return {
        path.relative_to(folder).as_posix(): (
            path.lstat().st_mode, path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a tree."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def places_of(folder: Path, pattern: str = "*.nii.gz") -> dict[str, tuple[int, int]]:
    """Which files these are, not what they hold: number and time."""
    return {path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in folder.rglob(pattern) if not path.name.startswith(".")}  # fmt: skip


def done_nodes(work: Path) -> dict[str, int]:
    """Result files of the nodes that are done, with their times; publishing is cheap and always run."""
    done = {}
    for path in work.rglob("result_*.pklz"):
        hashes = [one for one in path.parent.glob("_0x*.json") if not one.name.endswith("_unfinished.json")]
        if hashes and path.parent.name != "publish_scan":
            done[path.relative_to(work).as_posix()] = path.stat().st_mtime_ns
    return done


class Judge:
    """Looks at an output tree.

    Parameters
    ----------
    originals : Path
        The input as it was before any disturbance.
    scans : tuple of str
        Paths of its scans.
    """

    def __init__(self, originals: Path, scans: tuple[str, ...]) -> None:
        self.originals, self.scans = originals, scans
        self.faces = []
        template = load_template()
        self.brains = {}
        for scan in scans:
            image = nib.load(originals / scan)
            stored = np.asarray(image.dataobj)
            brain = bad.template_mask(image.affine, stored.shape, template.mask(BRAIN_BIT))
            # well within the mask, which keeps off the brain, and whose border follows the registration
            off = distance_transform_edt(~brain, sampling=nib.affines.voxel_sizes(image.affine)) > OFF_BRAIN_MM
            face = binary_erosion(bad.face_voxels(stored, image.affine) & off)
            self.faces.append(Original(stored, face, LEAST_SEEN))
            self.brains[scan] = brain

    def problems(self, out: Path, *, killed: bool = False) -> list[str]:
        """What is wrong with a tree; ``killed`` where nobody could tidy up."""
        return [*self._files(out, killed), *self._scans(out, killed), *self._rows(out), *leftovers_in(out, self.faces)]

    def _files(self, out: Path, killed: bool):
        for path in sorted(out.rglob("*")):
            name = path.relative_to(out).as_posix()
            if path.is_dir():
                continue
            if path.name.startswith("."):
                if path.name not in HIDDEN and not (killed and path.name.endswith(".partial")):
                    yield f"{name}: left behind"
            elif not whole(path):
                yield f"{name}: not whole"

    def _scans(self, out: Path, killed: bool):
        expected = {str(path) for scan in self.scans for path in outputs_of(scan)}
        for path in out.rglob("sub-*/**/*"):
            name = path.relative_to(out).as_posix()
            if path.is_file() and not path.name.startswith(".") and name not in expected:
                yield f"{name}: no output"
        for scan in self.scans:
            outputs = outputs_of(scan)
            there = [(out / path).is_file() for path in outputs]
            if there[0] and not all(there):
                yield f"{outputs.image}: without {[str(path) for path, found in zip(outputs, there) if not found]}"
            elif any(there) and not all(there) and not killed:
                yield f"{outputs.image}: missing, its mask or sidecars are there"
            elif all(there):
                try:
                    mask = np.asarray(nib.load(out / outputs.mask).dataobj) > 0
                    source = load_source(self.originals / scan)
                    certify(source, out / outputs.image, mask, self.brains[scan])
                except Exception as error:  # noqa: BLE001, whatever is wrong with it
                    yield f"{outputs.image}: {error}"

    def _rows(self, out: Path):
        for path in (*(out / "logs").glob(f"sub-*_{TABLE}.tsv"), out / f"{TABLE}.tsv", out / "group_qc.tsv"):
            for row in read_tsv(path) if path.is_file() else []:
                written = all((out / name).is_file() for name in outputs_of(row["source"]))
                if row["verdict"] in ("PASS", "REVIEW") and not written:
                    yield f"{path.name}: {row['source']} is {row['verdict']}, and not all there"
                if row["verdict"] in ("FAIL", "SKIPPED") and len(row["reason"]) < 10:
                    yield f"{path.name}: {row['source']} is {row['verdict']} for no reason"
                if "/" in re.sub(r"\w+/\w+", "", row["reason"]):
                    yield f"{path.name}: a path in {row['reason']}"


def leftovers_in(out: Path, faces: list[Original]) -> list[str]:
    """What of any original face lies in a tree."""
    return [f"{line} of an original face" for face in faces for line in leftovers(out, face)] if out.exists() else []


def whole(path: Path) -> bool:
    """Whether a file is all there."""
    try:
        if path.name.endswith((".nii", ".nii.gz")):
            np.asarray(nib.load(path).dataobj)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".tsv":
            rows = read_tsv(path)
            return bool(rows) and all(None not in row and None not in row.values() for row in rows)
        elif path.suffix == ".html":
            return path.read_text().rstrip().endswith("</html>")
        else:
            return bool(path.read_text())
    except Exception:  # noqa: BLE001, whatever is wrong with it
        return False
    return True


def verdicts(out: Path) -> dict[str, tuple[str, str]]:
    """Verdict and reason by the participant's label."""
    rows = read_tsv(out / f"{TABLE}.tsv")
    return {row["participant_id"].removeprefix("sub-"): (row["verdict"], row["reason"]) for row in rows}
