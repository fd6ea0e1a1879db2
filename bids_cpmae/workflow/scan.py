"""The way of one scan as a nipype workflow."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_cpmae.workflow.interfaces import (
    AlignHead,
    CertifyScan,
    ComposeFace,
    LocateFace,
    MeasureQuality,
    PublishScan,
    RemodelFace,
)

REGISTRATION_GB, MODEL_GB, VOXEL_GB = 2.0, 4.0, 1.5


def init_scan_wf(
    *,
    name: str,
    scan: dict,
    in_file: Path,
    verdict_file: Path,
    output_dir: Path,
    raw_sidecar: dict,
    sidecar_settings: dict,
    mode: str = "face",
    regions: tuple[str, ...] = ("face", "ears"),
    identity_seed: int,
    noise_seed: int,
    device: str = "auto",
    use_gpu: bool = False,
    weights: Path | None = None,
    weights_version: str = "",
) -> pe.Workflow:
    """Locate, align, remodel, compose, certify and publish one scan.

    Parameters
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
    raw_sidecar, sidecar_settings : dict
        Fields of the raw sidecar, and what to say of how the scan was made.
    use_gpu : bool
        Whether the network's node waits for a slot of the GPU.
    mode, regions, identity_seed, noise_seed, device, weights, weights_version
        As in `bids_cpmae.api.reface`.

    Outputs
    -------
    ``outputnode.verdict_file``
    """
    workflow = pe.Workflow(name=name)
    workflow.__desc__ = (
        "The face was located by registering a full-face template with ANTs (antspyx), replaced by a synthetic one "
        "with CP-MAE (two volumetric VQ-VAEs and a masked autoencoder over their codes; Van der Goten & Smith, MICCAI "
        "2024), and matched to the scan in gain, noise and background. Brain voxels are bit-identical to the source."
    )
    inputnode = pe.Node(niu.IdentityInterface(fields=["in_file", "scan", "verdict_file"]), name="inputnode")
    inputnode.inputs.trait_set(in_file=str(in_file), scan=scan, verdict_file=str(verdict_file))
    outputnode = pe.Node(niu.IdentityInterface(fields=["verdict_file"]), name="outputnode")

    suffix = in_file.name.split(".")[0].rpartition("_")[2]
    locate_face = pe.Node(
        LocateFace(mode=mode, regions=list(regions), suffix=suffix, metadata=raw_sidecar),
        name="locate_face", mem_gb=REGISTRATION_GB,
    )  # fmt: skip
    align_head = pe.Node(AlignHead(), name="align_head", mem_gb=REGISTRATION_GB)
    remodel_face = pe.Node(
        RemodelFace(
            mode=mode, identity_seed=identity_seed, device=device, weights=str(weights or ""),
            weights_version=weights_version, use_gpu=use_gpu,
        ),
        name="remodel_face", mem_gb=MODEL_GB,
    )  # fmt: skip
    compose_face = pe.Node(ComposeFace(noise_seed=noise_seed), name="compose_face", mem_gb=VOXEL_GB)
    certify_scan = pe.Node(CertifyScan(), name="certify_scan", mem_gb=VOXEL_GB)
    measure_quality = pe.Node(MeasureQuality(regions=list(regions)), name="measure_quality", mem_gb=VOXEL_GB)
    publish_scan = pe.Node(
        PublishScan(
            output_dir=str(output_dir), raw_sidecar=raw_sidecar, settings=sidecar_settings,
            regions=list(regions) if mode == "face" else ["all but the brain"],
        ),
        name="publish_scan",
    )  # fmt: skip

    for node in (locate_face, align_head, remodel_face, compose_face, certify_scan, measure_quality, publish_scan):
        workflow.connect(inputnode, "in_file", node, "in_file")
        workflow.connect(inputnode, "scan", node, "scan")
        workflow.connect(inputnode, "verdict_file", node, "verdict_file")
    workflow.connect([
        (locate_face, align_head, [("mask_file", "mask_file")]),
        (locate_face, compose_face, [("mask_file", "mask_file")]),
        (locate_face, certify_scan, [("mask_file", "mask_file"), ("brain_file", "brain_file")]),
        (locate_face, measure_quality, [("mask_file", "mask_file"), ("measures", "located")]),
        (locate_face, publish_scan, [("mask_file", "mask_file")]),
        (align_head, measure_quality, [("frame_file", "frame_file")]),
        (compose_face, measure_quality, [("out_file", "refaced_file")]),
        (measure_quality, publish_scan, [("measures", "measures")]),
        (align_head, remodel_face, [("frame_file", "frame_file")]),
        (align_head, compose_face, [("frame_file", "frame_file")]),
        (remodel_face, compose_face, [("head_file", "head_file")]),
        (compose_face, certify_scan, [("out_file", "refaced_file")]),
        (compose_face, publish_scan, [("out_file", "refaced_file")]),
        (certify_scan, publish_scan, [("certificate", "certificate")]),
        (publish_scan, outputnode, [("verdict_file", "verdict_file")]),
    ])  # fmt: skip
    return workflow
