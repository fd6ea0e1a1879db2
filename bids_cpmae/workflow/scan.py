"""The way of one scan as a nipype workflow: of one that a face is drawn from, and of one that is given it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_cpmae.bids.reference import NO_MAGNITUDE, REFERENCE, shape_of
from bids_cpmae.workflow.carried import AlignToReference, CarryMask, TranslateContrast
from bids_cpmae.workflow.interfaces import (
    AlignHead,
    CertifyScan,
    ComposeFace,
    DrawScan,
    LocateFace,
    MeasureScan,
    PublishScan,
    RemodelFace,
)

MODEL_GB, LEAST_GB, LEAST_REGISTRATION_GB = 4.0, 1.5, 2.0
# GB a million voxels: of a volume, by what a step does with it, and of the whole series, which is held beside it. Peaks
# of 1.6, 2.4 and 1.0 GB were seen at 17 million voxels, of 2.3, 3.7 and 1.1 GB at 26; a third or more is added.
COMPOSE_GB, TRANSLATE_GB, LOOK_GB, REGISTRATION_GB, SERIES_GB = 0.09, 0.15, 0.04, 0.03, 0.016
KNOWN = ("in_file", "scan", "verdict_file")
# what a scan has for those that are aligned to it
OFFERED = ("mask_file", "brain_file", "map_file", "frame_file", "head_file", "affine_file", "blanked_affine_file")
TEXT = (
    "The face was located by registering a full-face template with ANTs (antspyx), replaced by a synthetic one with "
    "CP-MAE (two volumetric VQ-VAEs and a masked autoencoder over their codes; Van der Goten & Smith, MICCAI 2024), "
    "and matched to the scan in gain, noise and background. Other scans of the participant were aligned rigidly to the "
    "one that the face was drawn from and given the same face in their own contrast, learned by tissue outside the "
    "mask. Brain voxels are bit-identical to the source."
)


@dataclass(frozen=True)
class ScanPlan:
    """What the workflow of one scan is told.

    Attributes
    ----------
    name : str
        Of the workflow, and so of its folder in the work folder.
    scan : dict
        ``source`` (path below the dataset), ``participant`` and ``session``, for the verdict.
    in_file : Path
        The raw scan.
    verdict_file : Path
        Where the scan's verdict is left, whatever happens.
    output_dir : Path
        Root of the derivative.
    drawings_dir : Path
        Where what a page shows of the scan is kept.
    suffix, part : str
        BIDS' suffix, and its ``part`` or nothing.
    raw_sidecar, sidecar_settings : dict
        Fields of the raw sidecar, and what to say of how the scan was made.
    review : str
        Why a scan that passes must be looked at all the same, if so.
    published : bool
        False where the scan is nothing but the reference of others.
    force : bool
        Reface what screening would leave alone.
    mode, regions, noise_seed
        As in `bids_cpmae.api.reface`.
    """

    name: str
    scan: dict
    in_file: Path
    verdict_file: Path
    output_dir: Path
    drawings_dir: Path
    noise_seed: int
    suffix: str = "T1w"
    part: str = ""
    raw_sidecar: dict = field(default_factory=dict)
    sidecar_settings: dict = field(default_factory=dict)
    review: str = ""
    published: bool = True
    force: bool = False
    mode: str = "face"
    regions: tuple[str, ...] = ("face", "ears")


def init_reference_scan_wf(
    plan: ScanPlan,
    *,
    identity_seed: int,
    device: str = "auto",
    use_gpu: bool = False,
    weights: Path | None = None,
    weights_version: str = "",
) -> pe.Workflow:
    """Locate, align, remodel, compose, certify, measure and publish the scan that a participant's face is drawn from.

    Parameters
    ----------
    plan : ScanPlan
        Of a scan that is no T1w scan only where there is none: the average head then stands in for its anatomy.
    use_gpu : bool
        Whether the network's node waits for a slot of the GPU.
    identity_seed, device, weights, weights_version
        As in `bids_cpmae.api.reface`.

    Outputs
    -------
    ``outputnode.mask_file``, ``.brain_file``, ``.map_file``, ``.frame_file``, ``.head_file``
    """
    workflow, inputnode, outputnode = _start(plan, ())
    foreign = plan.suffix != REFERENCE
    locate_face = pe.Node(
        LocateFace(mode=plan.mode, regions=list(plan.regions), **_first(plan)),
        name="locate_face", mem_gb=registration_gb(plan.in_file),
    )  # fmt: skip
    align_head = pe.Node(AlignHead(stand_in=foreign), name="align_head", mem_gb=registration_gb(plan.in_file))
    remodel_face = pe.Node(
        RemodelFace(
            mode=plan.mode, identity_seed=identity_seed, device=device, weights=str(weights or ""),
            weights_version=weights_version, use_gpu=use_gpu,
        ),
        name="remodel_face", mem_gb=MODEL_GB,
    )  # fmt: skip
    _connect_known(workflow, inputnode, locate_face, align_head, remodel_face)
    workflow.connect([
        (locate_face, align_head, [("mask_file", "mask_file")]),
        (align_head, remodel_face, [("frame_file", "frame_file")]),
        (locate_face, outputnode, [(name, name) for name in ("mask_file", "brain_file", "map_file")]),
        (align_head, outputnode, [("frame_file", "frame_file")]),
        (remodel_face, outputnode, [("head_file", "head_file")]),
    ])  # fmt: skip
    if not plan.published:
        return workflow
    if foreign:
        compose_face = _translate(plan)
    else:
        compose_face = pe.Node(
            ComposeFace(noise_seed=plan.noise_seed), name="compose_face", mem_gb=memory_gb(plan.in_file, COMPOSE_GB)
        )
    _connect_known(workflow, inputnode, compose_face)
    workflow.connect([
        (locate_face, compose_face, [("mask_file", "mask_file")]),
        (align_head, compose_face, [("frame_file", "frame_file")]),
        (remodel_face, compose_face, [("head_file", "head_file")]),
    ])  # fmt: skip
    _finish(workflow, plan, inputnode, located=locate_face, composed=compose_face)
    return workflow


def init_carried_scan_wf(plan: ScanPlan, *, trust_headers: bool = False, led: bool = False) -> pe.Workflow:
    """Align a scan to its reference, carry the mask over, give it the same new face, certify, measure and publish it.

    The alignment by which the mask is carried has the faces in view; that by which the new face is placed has both
    masks blanked, so that nothing drawn hangs on what stood there.

    Parameters
    ----------
    plan : ScanPlan
    trust_headers : bool
        Take the headers' word for how the two scans lie to each other.
    led : bool
        Both alignments are those of another scan of the same series.

    Inputs
    ------
    ``inputnode.map_file``, ``.frame_file``, ``.head_file``
        Of the scan that the face is drawn from.
    ``inputnode.reference_file``, ``.reference_mask_file``, ``.reference_brain_file``
        Of the scan to align to.
    ``inputnode.onward_file``, ``.blanked_onward_file``
        Its own alignments, if it is not the scan that the face is drawn from.
    ``inputnode.affine_file``, ``.blanked_affine_file``, ``.lead_mask_file``
        In place of the five above, where ``led``.

    Outputs
    -------
    ``outputnode.mask_file``, ``.brain_file``, ``.affine_file``, ``.blanked_affine_file``
    """
    origin = ("map_file", "frame_file", "head_file")
    aligned = ("affine_file", "blanked_affine_file")
    lead = (*aligned, "lead_mask_file")
    reference = ("reference_file", "reference_mask_file", "reference_brain_file", "onward_file", "blanked_onward_file")
    workflow, inputnode, outputnode = _start(plan, (*origin, *(lead if led else reference)))
    first = _first(plan)
    carry_mask = pe.Node(
        CarryMask(mode=plan.mode, regions=list(plan.regions), tissue=_shows_tissue(plan), **first), name="carry_mask",
        mem_gb=memory_gb(plan.in_file, LOOK_GB),
    )  # fmt: skip
    _connect_known(workflow, inputnode, carry_mask)
    workflow.connect([
        (inputnode, carry_mask, [("map_file", "map_file")]),
        (carry_mask, outputnode, [("mask_file", "mask_file"), ("brain_file", "brain_file")]),
    ])  # fmt: skip
    if led:
        workflow.connect(inputnode, "lead_mask_file", carry_mask, "lead_mask_file")
        ends = [(inputnode, "affine_file"), (inputnode, "blanked_affine_file")]
    else:
        ends = _align(workflow, plan, inputnode, carry_mask, trust_headers=trust_headers, **first)
    for (node, name), offered in zip(ends, aligned):
        workflow.connect(node, name, outputnode, offered)
    workflow.connect(*ends[0], carry_mask, "affine_file")
    if not plan.published:
        return workflow
    translate = _translate(plan)
    _connect_known(workflow, inputnode, translate)
    workflow.connect(*ends[1], translate, "affine_file")
    workflow.connect([
        (inputnode, translate, [("frame_file", "frame_file"), ("head_file", "head_file")]),
        (carry_mask, translate, [("mask_file", "mask_file")]),
    ])  # fmt: skip
    _finish(workflow, plan, inputnode, located=carry_mask, composed=translate)
    return workflow


def _align(workflow: pe.Workflow, plan: ScanPlan, inputnode, carry_mask, **options) -> list:
    """Both alignments of a scan; returns the nodes and the names of their results."""
    memory = registration_gb(plan.in_file)
    in_view = pe.Node(AlignToReference(**options), name="align_to_reference", mem_gb=memory)
    blanked = pe.Node(AlignToReference(**options), name="align_blanked", mem_gb=memory)
    _connect_known(workflow, inputnode, in_view, blanked)
    for node, onward in ((in_view, "onward_file"), (blanked, "blanked_onward_file")):
        workflow.connect(inputnode, "reference_file", node, "reference_file")
        workflow.connect(inputnode, "reference_brain_file", node, "reference_brain_file")
        workflow.connect(inputnode, onward, node, "onward_file")
    workflow.connect([
        (inputnode, blanked, [("reference_mask_file", "reference_mask_file")]),
        (carry_mask, blanked, [("mask_file", "mask_file")]),
    ])  # fmt: skip
    return [(in_view, "affine_file"), (blanked, "affine_file")]


def _translate(plan: ScanPlan) -> pe.Node:
    return pe.Node(
        TranslateContrast(noise_seed=plan.noise_seed, part=plan.part), name="translate_contrast",
        mem_gb=memory_gb(plan.in_file, TRANSLATE_GB),
    )  # fmt: skip


def memory_gb(path: Path, per_million: float) -> float:
    """Memory in GB for a step that takes so much for a million voxels of a volume; by the header alone."""
    shape = shape_of(path)
    volume, series = math.prod(shape[:3]) / 1e6, math.prod(shape) / 1e6
    return max(LEAST_GB, 0.5 + per_million * volume + SERIES_GB * series)


def registration_gb(path: Path) -> float:
    """Memory in GB for a step that registers a scan."""
    return max(LEAST_REGISTRATION_GB, memory_gb(path, REGISTRATION_GB))


def _first(plan: ScanPlan) -> dict:
    """What the first step of a scan is told to look at it by."""
    return {"suffix": plan.suffix, "raw_sidecar": plan.raw_sidecar, "force": plan.force}


def _shows_tissue(plan: ScanPlan) -> bool:
    return plan.part not in NO_MAGNITUDE


def _start(plan: ScanPlan, more: tuple[str, ...]):
    workflow = pe.Workflow(name=plan.name)
    workflow.__desc__ = TEXT
    inputnode = pe.Node(niu.IdentityInterface(fields=[*KNOWN, *more], mandatory_inputs=False), name="inputnode")
    inputnode.inputs.trait_set(in_file=str(plan.in_file), scan=plan.scan, verdict_file=str(plan.verdict_file))
    outputnode = pe.Node(niu.IdentityInterface(fields=list(OFFERED), mandatory_inputs=False), name="outputnode")
    return workflow, inputnode, outputnode


def _connect_known(workflow: pe.Workflow, inputnode, *nodes) -> None:
    for node in nodes:
        workflow.connect([(inputnode, node, [(name, name) for name in KNOWN])])


def _finish(workflow: pe.Workflow, plan: ScanPlan, inputnode, *, located, composed) -> None:
    """Certify, measure and publish what was composed under a located mask, and draw it meanwhile."""
    looks = memory_gb(plan.in_file, LOOK_GB)
    certify_scan = pe.Node(CertifyScan(), name="certify_scan", mem_gb=looks)
    measure_scan = pe.Node(
        MeasureScan(regions=list(plan.regions), tissue=_shows_tissue(plan)), name="measure_scan", mem_gb=looks
    )
    draw_scan = pe.Node(DrawScan(drawings_dir=str(plan.drawings_dir)), name="draw_scan", mem_gb=looks)
    publish_scan = pe.Node(
        PublishScan(
            output_dir=str(plan.output_dir), raw_sidecar=plan.raw_sidecar, settings=plan.sidecar_settings,
            regions=list(plan.regions) if plan.mode == "face" else ["all but the brain"], review=plan.review,
        ),
        name="publish_scan",
    )  # fmt: skip
    _connect_known(workflow, inputnode, certify_scan, measure_scan, publish_scan)
    masks = [("mask_file", "mask_file"), ("brain_file", "brain_file")]
    workflow.connect([
        (located, certify_scan, masks),
        (located, measure_scan, [masks[0], ("map_file", "map_file"), ("measures", "located")]),
        (located, draw_scan, [masks[0]]),
        (located, publish_scan, [masks[0]]),
        (composed, certify_scan, [("out_file", "refaced_file")]),
        (composed, measure_scan, [("out_file", "refaced_file")]),
        (composed, draw_scan, [("out_file", "refaced_file")]),
        (composed, publish_scan, [("out_file", "refaced_file")]),
        (certify_scan, measure_scan, [("certificate", "certificate")]),
        (measure_scan, publish_scan, [("measures", "measures")]),
    ])  # fmt: skip
    if isinstance(composed.interface, TranslateContrast):
        workflow.connect(composed, "measures", measure_scan, "composed")
