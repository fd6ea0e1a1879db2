"""All scans of one participant: one synthetic identity for all of them."""

from __future__ import annotations

import re
from pathlib import Path

from nipype.pipeline import engine as pe

from bids_cpmae.bids.reference import NO_MAGNITUDE, ON_AVERAGE_HEAD, REFERENCE, Scan, needed
from bids_cpmae.bids.sidecar import RAW, raw_metadata
from bids_cpmae.identity import identity_seed, noise_seed
from bids_cpmae.workflow.scan import ScanPlan, init_carried_scan_wf, init_reference_scan_wf


def scan_name(scan: Scan) -> str:
    """Name of a scan's workflow: letters, digits and underscores."""
    return f"scan_{re.sub(r'[^A-Za-z0-9]+', '_', scan.stem)}_wf"


def verdict_path(work_dir: Path, scan: Scan) -> Path:
    """Where a scan's verdict is left in the work folder."""
    return work_dir / "verdicts" / f"{scan.relative.replace('/', '__')}.json"


def drawings_dir(work_dir: Path) -> Path:
    """Where what pages show of scans is kept in the work folder."""
    return work_dir / "bids_cpmae_drawings"


def init_participant_wf(
    *,
    participant: str,
    scans: list[Scan],
    bids_dir: Path,
    work_dir: Path,
    output_dir: Path,
    random_seed: int = 0,
    force: bool = False,
    mode: str = "face",
    regions: tuple[str, ...] = ("face", "ears"),
    device: str = "auto",
    use_gpu: bool = False,
    weights: Path | None = None,
    weights_version: str = "",
) -> pe.Workflow:
    """A workflow for each scan of a participant, all with the same new face, drawn once.

    Parameters
    ----------
    participant : str
        Label without ``sub-``.
    scans : list of Scan
        Those to publish. What they are aligned to is worked out with them, and not published.
    bids_dir, work_dir, output_dir : Path
    random_seed, force, mode, regions, device, use_gpu, weights, weights_version
        As in `init_reference_scan_wf`.
    """
    workflow = pe.Workflow(name=f"sub_{re.sub(r'[^A-Za-z0-9]+', '_', participant)}_wf")
    identity = identity_seed(random_seed, participant)
    made = {"RandomSeed": random_seed, "IdentitySeed": identity, "Mode": mode, "WeightsVersion": weights_version}
    published = {scan.relative for scan in scans}
    everything = needed(scans)
    parts = {}
    for scan in everything:
        drawn_from = {"FaceDrawnFrom": f"bids:{RAW}:{scan.origin.relative}"} if scan.reference else {}
        plan = ScanPlan(
            name=scan_name(scan),
            scan={"source": scan.relative, "participant": scan.participant, "session": scan.session},
            in_file=scan.path,
            verdict_file=verdict_path(work_dir, scan),
            output_dir=output_dir,
            drawings_dir=drawings_dir(work_dir),
            suffix=scan.suffix,
            part=scan.entities.get("part", ""),
            raw_sidecar=raw_metadata(bids_dir, scan.relative),
            sidecar_settings={**made, **drawn_from},
            review=_review(scan),
            published=scan.relative in published,
            force=force,
            mode=mode,
            regions=regions,
            noise_seed=noise_seed(random_seed, identity),
        )
        parts[scan.relative] = (
            init_carried_scan_wf(plan, trust_headers=_trusted(scan), led=scan.lead is not None)
            if scan.reference
            else init_reference_scan_wf(
                plan, identity_seed=identity, device=device, use_gpu=use_gpu, weights=weights,
                weights_version=weights_version,
            )
        )  # fmt: skip
    workflow.add_nodes(list(parts.values()))
    for scan in everything:
        if scan.reference:
            _connect(workflow, parts, scan)
    return workflow


def _trusted(scan: Scan) -> bool:
    """Whether the headers say best how a scan lies to its reference: one acquisition, or no magnitude to go by."""
    return scan.series == scan.reference.series or scan.entities.get("part") in NO_MAGNITUDE


def _review(scan: Scan) -> str:
    """Why a scan must be looked at whatever its measures say."""
    told = []
    if scan.origin.suffix != REFERENCE:
        told.append(ON_AVERAGE_HEAD)
    if scan.reference and not scan.lead and _trusted(scan) and scan.series != scan.reference.series:
        told.append("a scan without magnitudes was aligned by its header alone")
    return "; ".join(told)


def _connect(workflow: pe.Workflow, parts: dict, scan: Scan) -> None:
    """Hand a scan what it needs of the one its face is drawn from, and of the one it is aligned to."""
    part, origin = parts[scan.relative], parts[scan.origin.relative]
    for name in ("map_file", "frame_file", "head_file"):
        workflow.connect(origin, f"outputnode.{name}", part, f"inputnode.{name}")
    if scan.lead:
        for name in ("affine_file", "blanked_affine_file"):
            workflow.connect(parts[scan.lead.relative], f"outputnode.{name}", part, f"inputnode.{name}")
        workflow.connect(parts[scan.lead.relative], "outputnode.mask_file", part, "inputnode.lead_mask_file")
        return
    reference = parts[scan.reference.relative]
    part.inputs.inputnode.reference_file = str(scan.reference.path)
    for name in ("mask_file", "brain_file"):
        workflow.connect(reference, f"outputnode.{name}", part, f"inputnode.reference_{name}")
    if scan.reference.reference:
        workflow.connect(reference, "outputnode.affine_file", part, "inputnode.onward_file")
        workflow.connect(reference, "outputnode.blanked_affine_file", part, "inputnode.blanked_onward_file")
