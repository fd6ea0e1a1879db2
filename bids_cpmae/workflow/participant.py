"""All scans of one participant: one synthetic identity for all of them."""

from __future__ import annotations

import re
from pathlib import Path

from nipype.pipeline import engine as pe

from bids_cpmae.bids.query import Scan
from bids_cpmae.bids.sidecar import raw_metadata
from bids_cpmae.identity import identity_seed, noise_seed
from bids_cpmae.workflow.scan import init_scan_wf


def scan_name(scan: Scan) -> str:
    """Name of a scan's workflow: letters, digits and underscores."""
    return f"scan_{re.sub(r'[^A-Za-z0-9]+', '_', scan.stem)}_wf"


def verdict_path(work_dir: Path, scan: Scan) -> Path:
    """Where a scan's verdict is left in the work folder."""
    return work_dir / "verdicts" / f"{scan.relative.replace('/', '__')}.json"


def init_participant_wf(
    *,
    participant: str,
    scans: list[Scan],
    bids_dir: Path,
    work_dir: Path,
    output_dir: Path,
    random_seed: int = 0,
    mode: str = "face",
    regions: tuple[str, ...] = ("face", "ears"),
    device: str = "auto",
    use_gpu: bool = False,
    weights: Path | None = None,
    weights_version: str = "",
) -> pe.Workflow:
    """A workflow for each scan of a participant, all with the same new face.

    Parameters
    ----------
    participant : str
        Label without ``sub-``.
    scans : list of Scan
    bids_dir, work_dir, output_dir : Path
    random_seed, mode, regions, device, use_gpu, weights, weights_version
        As in `init_scan_wf`.
    """
    workflow = pe.Workflow(name=f"sub_{re.sub(r'[^A-Za-z0-9]+', '_', participant)}_wf")
    identity = identity_seed(random_seed, participant)
    made = {"RandomSeed": random_seed, "IdentitySeed": identity, "Mode": mode, "WeightsVersion": weights_version}
    for scan in scans:
        workflow.add_nodes([
            init_scan_wf(
                name=scan_name(scan),
                scan={"source": scan.relative, "participant": scan.participant, "session": scan.session},
                in_file=scan.path,
                verdict_file=verdict_path(work_dir, scan),
                output_dir=output_dir,
                raw_sidecar=raw_metadata(bids_dir, scan.relative),
                sidecar_settings=made,
                mode=mode,
                regions=regions,
                identity_seed=identity,
                noise_seed=noise_seed(random_seed, identity),
                device=device,
                use_gpu=use_gpu,
                weights=weights,
                weights_version=weights_version,
            )
        ])  # fmt: skip
    return workflow
