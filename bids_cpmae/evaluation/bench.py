"""``cpmae bench``: time and memory of each stage for one scan, of the whole command, and of plainer ways beside it.

The stages run in a process of their own; so does ``bids-cpmae`` on a dataset of that one scan. Removal and quickshear
are given the same registration, so that what is compared is what they do with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bids_cpmae import __version__
from bids_cpmae.errors import CPMAEError, ExitCode, InputError, OutputError
from bids_cpmae.evaluation.tables import print_table
from bids_cpmae.processes import keep_memory

HEADER = ("stage", "seconds", "peak_memory_gb")
COMMAND = "bids-cpmae, start to end"
# what a plainer way shares with this one
SHARED = ("import", "load", "locate")
SAMPLE_S = 0.2
WAYS = ("with_the_same_registration", "seconds", "total_over_this")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae bench``."""
    parser.add_argument(
        "scan", nargs="?", type=Path, metavar="SCAN", help="T1w scan (default: the template at 1 mm)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="cpu", help="default: %(default)s"
    )
    parser.add_argument(
        "--model-weights", "--model_weights", type=Path, metavar="FILE", help="default: those shipped"
    )


@dataclass
class Stopwatch:
    """Seconds of each stage and the process's peak memory by its end."""

    stages: list[tuple[str, float, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str):
        """Time what is done inside."""
        start = time.perf_counter()
        yield
        self.stages.append((name, time.perf_counter() - start, peak_memory_gb()))
        print(f"{name}: {self.stages[-1][1]:.1f} s", file=sys.stderr, flush=True)


def peak_memory_gb() -> float:
    """Largest resident size of this process so far, in 10^9 bytes."""
    import resource

    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def template_scan(path: Path) -> Path:
    """The template's head, nobody's, as a 1 mm int16 scan."""
    import nibabel as nib
    import numpy as np

    from bids_cpmae.imaging.headspace import head_affine, head_shape
    from bids_cpmae.imaging.resample import resample
    from bids_cpmae.imaging.template import load_template

    grid = load_template().grid
    head = resample(grid.data, grid.affine, head_affine(), head_shape())
    noise = np.random.default_rng(0).standard_normal(head.shape, dtype=np.float32)
    nib.save(nib.Nifti1Image(np.rint(np.abs(500 * head + 8 * noise)).astype(np.int16), head_affine()), path)
    return path


def run_stages(
    scan: Path, *, device: str = "cpu", weights: Path | None = None
) -> tuple[list[tuple[str, float, float]], list[tuple[str, float, float]]]:
    """Reface one scan as a run does, stage by stage, and de-identify it in plainer ways.

    Returns
    -------
    stages, plainer : list of (str, float, float)
        Stage or way, seconds, and peak memory in GB from the start to its end.
    """
    watch = Stopwatch()
    with watch.stage("import"):
        from bids_cpmae.api import noise_seed, resolve_device
        from bids_cpmae.evaluation.baselines import Subject, quickshear, removed
        from bids_cpmae.imaging.align import align_blanked, resample_to_scan
        from bids_cpmae.imaging.certify import certify
        from bids_cpmae.imaging.compose import compose_face
        from bids_cpmae.imaging.facemask import locate_face
        from bids_cpmae.imaging.nifti import load_source, save_like
        from bids_cpmae.imaging.quality import measure_quality
        from bids_cpmae.imaging.screening import screen, screen_located
        from bids_cpmae.model.weights import load_cpmae
        from bids_cpmae.model.weightsfile import check_weights
    # registration takes a minute: do not find out after it that there are no weights
    check_weights(weights)
    with watch.stage("load"):
        source = load_source(scan)
    with watch.stage("screen"):
        screen(source)
    with watch.stage("locate"):
        located = locate_face(source)
        screen_located(source, located)
    with watch.stage("align"):
        frame = align_blanked(source, located.mask)
    with watch.stage("load weights"):
        model = load_cpmae(weights, resolve_device(device))
    with watch.stage("remodel"):
        head = model.remodel(frame.volume, frame.blank, mode="face", identity_seed=0, head_size=frame.head_size)
    with watch.stage("resample"):
        synthetic = resample_to_scan(frame, head, source, located.mask)
    with watch.stage("compose"):
        stored = compose_face(source, located.mask, synthetic, seed=noise_seed(0, 0))
    with watch.stage("save+certify"), tempfile.TemporaryDirectory() as folder:
        certify(
            source, save_like(source, stored, Path(folder) / "refaced.nii.gz"), located.mask, located.brain
        )
    with watch.stage("measure"):
        measure_quality(source, stored, located.mask, to_head=located.to_head)
    plainer = Stopwatch()
    subject = Subject("sub-bench", scan, Path(), 0)
    subject.__dict__.update(source=source, located=located)
    for name, method in (("removed", removed), ("quickshear", quickshear)):
        with plainer.stage(name), tempfile.TemporaryDirectory() as folder:
            save_like(source, method(subject), Path(folder) / "defaced.nii.gz")
    return watch.stages, plainer.stages


def time_command(scan: Path, folder: Path, *, device: str, weights: Path | None) -> tuple[str, float, float]:
    """Seconds of ``bids-cpmae`` on a dataset of this one scan, and the most memory of all its processes in GB."""
    raw = folder / "bids"
    place = raw / "sub-bench" / "anat" / ("sub-bench_T1w" + "".join(scan.suffixes[-2:]))
    place.parent.mkdir(parents=True)
    place.symlink_to(scan.resolve())
    description = {"Name": "bench", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (raw / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    command = [sys.executable, "-m", "bids_cpmae.cli", str(raw), str(folder / "out"), "participant"]
    command += ["-w", str(folder / "work"), "--skip-bids-validation", "--force", "--device", device]
    command += ["--model-weights", str(weights)] if weights else []
    start = time.perf_counter()
    with open(folder / "said", "wb+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        try:
            peak = peak_together_gb(process)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - start
        said.seek(0)
        if process.returncode:
            raise InputError(f"{scan}: {said.read().decode(errors='replace').strip()[-500:]}")
    return COMMAND, seconds, peak


def peak_together_gb(process: subprocess.Popen) -> float:
    """The most memory that a process and its children hold at a time until it ends, what they share counted once."""
    import psutil

    first, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        # a process may end while it is looked at
        with suppress(psutil.Error):
            peak = max(peak, sum(map(_held, (first, *first.children(recursive=True)))))
        time.sleep(SAMPLE_S)
    return peak / 1e9


def _held(process) -> int:
    memory = process.memory_full_info()
    # what it shares counted in part, where the system tells
    return getattr(memory, "pss", memory.uss)


def compared(stages: list, plainer: list) -> list[tuple[str, float, float]]:
    """Ways, what each takes with import, reading and registration, and how many times as long the stages take."""
    took = {name: seconds for name, seconds, _ in stages}
    total, shared = sum(took.values()), sum(took[name] for name in SHARED)
    return [(name, shared + seconds, total / (shared + seconds)) for name, seconds, _ in plainer]


def main(args: argparse.Namespace) -> int:
    """Run the stages in a child process, so that memory is theirs alone, then the command; print the tables."""
    with tempfile.TemporaryDirectory(prefix="bids_cpmae_") as folder:
        scan = args.scan or template_scan(Path(folder) / "template_T1w.nii.gz")
        if not scan.is_file():
            raise InputError(f"{scan}: no such file", ExitCode.NO_INPUT)
        figures = Path(folder) / "figures.json"
        command = [sys.executable, "-m", __name__, str(scan), "--json", str(figures), "--device", args.device]
        command += ["--model-weights", str(args.model_weights)] if args.model_weights else []
        keep_memory()
        code = subprocess.run(command).returncode
        if code or not figures.is_file():
            # the child has said why
            return code if code > 0 else ExitCode.SOFTWARE
        stages, plainer = json.loads(figures.read_text())
        whole = time_command(scan, Path(folder), device=args.device, weights=args.model_weights)
    ways = compared(stages, plainer)
    total = sum(seconds for _, seconds, _ in stages)
    stages += [["total", total, max(peak for *_, peak in stages)], list(whole)]
    print_table(HEADER, [(name, f"{seconds:.1f}", f"{peak:.2f}") for name, seconds, peak in stages])
    print()
    print_table(WAYS, [(name, f"{seconds:.1f}", f"{ratio:.1f}") for name, seconds, ratio in ways])
    if args.json:
        described = {
            "stages": [dict(zip(HEADER, stage, strict=True)) for stage in stages],
            "ways": [dict(zip(WAYS, way, strict=True)) for way in ways], "device": args.device,
            "cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
            "bids_cpmae": __version__,
        }  # fmt: skip
        try:
            args.json.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{args.json}: cannot be written ({error})") from error
    return ExitCode.OK


def _child() -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args()
    try:
        args.json.write_text(
            json.dumps(run_stages(args.scan, device=args.device, weights=args.model_weights))
        )
    except CPMAEError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.code)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(_child())
