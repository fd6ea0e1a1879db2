"""Interfaces for scans that get the face of another: aligned to it, masked by it, composed in their own contrast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from bids_cpmae.workflow.interfaces import (
    FirstInputSpec,
    ScanInputSpec,
    ScanInterface,
    first_look,
    keep_location,
    load_mask,
    load_scan,
    look_at_face,
    refaced_name,
)


class AlignToReferenceInputSpec(FirstInputSpec):
    reference_file = File(mandatory=True, desc="the raw scan that this one is aligned to")
    reference_brain_file = File(exists=True, mandatory=True)
    onward_file = File(exists=True, desc="from the reference's world to that of the scan the face is drawn from")
    mask_file = File(exists=True, desc="of the scan; what lies under it is not read")
    reference_mask_file = File(exists=True, desc="likewise of the reference")
    trust_headers = traits.Bool(False, usedefault=True, desc="one acquisition, or nothing to register by")


class AlignToReferenceOutputSpec(TraitedSpec):
    affine_file = File(desc="rigid (4, 4), from the scan's world to that of the scan the face is drawn from")


class AlignToReference(ScanInterface):
    """`bids_cpmae.imaging.rigid.align_rigid`, and the reference's own alignment behind it."""

    input_spec, output_spec = AlignToReferenceInputSpec, AlignToReferenceOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.imaging.nifti import load_source
        from bids_cpmae.imaging.rigid import align_rigid

        inputs, affine = self.inputs, np.eye(4)
        source = first_look(inputs)
        if not inputs.trust_headers:
            mask, reference_mask = (
                load_mask(path) if isdefined(path) else None for path in (inputs.mask_file, inputs.reference_mask_file)
            )
            reference, brain = load_source(inputs.reference_file), load_mask(inputs.reference_brain_file)
            affine = align_rigid(source, reference, brain, mask=mask, reference_mask=reference_mask).affine
        if isdefined(inputs.onward_file):
            affine = np.load(inputs.onward_file) @ affine
        np.save(folder / "affine.npy", affine)
        return {"affine_file": str(folder / "affine.npy")}


class CarryMaskInputSpec(FirstInputSpec):
    map_file = File(exists=True, mandatory=True, desc="to head space from the scan the face is drawn from")
    affine_file = File(exists=True, mandatory=True)
    lead_mask_file = File(exists=True, desc="mask of another scan of the same series, taken over on the same grid")
    mode = traits.Enum("face", "head", usedefault=True)
    regions = traits.List(traits.Enum("face", "ears"), usedefault=True, value=["face", "ears"])
    tissue = traits.Bool(True, usedefault=True, desc="False for phases and the like, whose values show no face")


class CarryMaskOutputSpec(TraitedSpec):
    mask_file = File(desc="1 = replaced")
    brain_file = File(desc="registered template brain")
    map_file = File(desc="from the scan's world to head space")
    measures = traits.Dict()


class CarryMask(ScanInterface):
    """`bids_cpmae.imaging.facemask.carry_face`."""

    input_spec, output_spec = CarryMaskInputSpec, CarryMaskOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.imaging.facemask import carry_face, map_grid
        from bids_cpmae.imaging.headspace import CoordinateMap

        source = first_look(self.inputs)
        to_head = CoordinateMap.load(self.inputs.map_file).after(np.load(self.inputs.affine_file), *map_grid(source))
        located = carry_face(source, to_head, mode=self.inputs.mode, regions=tuple(self.inputs.regions))
        if isdefined(self.inputs.lead_mask_file):
            lead = load_mask(self.inputs.lead_mask_file)
            located = replace(located, mask=lead) if lead.shape == located.mask.shape else located
        measures = look_at_face(self.inputs, source, located) if self.inputs.tissue else located.measures
        return keep_location(source, located, folder, measures)


class TranslateContrastInputSpec(ScanInputSpec):
    mask_file = File(exists=True, mandatory=True)
    frame_file = File(exists=True, mandatory=True, desc="the scan that the face is drawn from, in head space")
    head_file = File(exists=True, mandatory=True, desc="the new head made of it")
    affine_file = File(exists=True, desc="to that scan's world; none where it is this one")
    part = traits.Str("", usedefault=True, desc="BIDS' part")
    noise_seed = traits.Int(mandatory=True)


class TranslateContrastOutputSpec(TraitedSpec):
    out_file = File(desc="the refaced scan, not yet certified")
    measures = traits.Dict()


class TranslateContrast(ScanInterface):
    """`bids_cpmae.imaging.recolour.recolour`, written on the scan's own grid."""

    input_spec, output_spec = TranslateContrastInputSpec, TranslateContrastOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.imaging.align import HeadFrame
        from bids_cpmae.imaging.contrast import Anatomy, Stage
        from bids_cpmae.imaging.facemask import map_grid
        from bids_cpmae.imaging.nifti import save_like
        from bids_cpmae.imaging.recolour import recolour

        inputs = self.inputs
        source, mask = load_scan(inputs.in_file), load_mask(inputs.mask_file)
        frame = HeadFrame.load(inputs.frame_file)
        to_head = frame.to_head
        if isdefined(inputs.affine_file):
            to_head = to_head.after(np.load(inputs.affine_file), *map_grid(source))
        stage = Stage.of(source, mask, Anatomy.of(frame, np.load(inputs.head_file)), to_head)
        stored, measures = recolour(source, mask, stage, part=inputs.part or None, seed=inputs.noise_seed)
        written = save_like(source, stored, folder / refaced_name(inputs.in_file))
        return {"out_file": str(written), "measures": measures}
