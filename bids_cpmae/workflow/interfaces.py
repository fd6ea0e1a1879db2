"""Interfaces: files in, a pure function, files out. A node that fails leaves its scan's verdict before it raises."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_cpmae import __version__
from bids_cpmae.bids.reference import REFERENCE
from bids_cpmae.bids.verdicts import Verdict, judged_with, refuse_failed, verdict_of, without_paths
from bids_cpmae.errors import OutputError, reason_of


class ScanInputSpec(BaseInterfaceInputSpec):
    """What every step of a scan knows: the scan, and where to leave word if it cannot go on."""

    in_file = File(desc="raw scan", mandatory=True)
    scan = traits.Dict(desc="source, participant and session of the scan", nohash=True)
    verdict_file = traits.Str(desc="where to leave the verdict", nohash=True)
    version = traits.Str(__version__, usedefault=True, desc="so that another version does not take over old results")


class ScanInterface(SimpleInterface):
    """A step of one scan."""

    def _run_interface(self, runtime):
        folder = Path(runtime.cwd)
        try:
            self._results.update(self._step(folder))
        except Exception as error:
            self._leave_word(error, folder)
            raise
        return runtime

    def _step(self, folder: Path) -> dict:
        raise NotImplementedError

    def _leave_word(self, error: Exception, folder: Path) -> None:
        if not (isdefined(self.inputs.verdict_file) and isdefined(self.inputs.scan)):
            return
        in_file, verdict_file = Path(self.inputs.in_file), Path(self.inputs.verdict_file)
        work_dir, output_dir = verdict_file.parent.parent, getattr(self.inputs, "output_dir", "/")
        private = in_file, in_file.parent, folder, work_dir, output_dir, tempfile.gettempdir(), Path.home()
        reason = without_paths(reason_of(error), *private)
        # on a disk that is full not even this can be said: the run then takes the reason from the error itself
        with suppress(OutputError):
            Verdict(**self.inputs.scan, verdict=verdict_of(error), reason=reason).save(verdict_file)


class FirstInputSpec(ScanInputSpec):
    """What the first step of a scan knows besides, to tell whether the scan is one to reface."""

    suffix = traits.Str("T1w", usedefault=True, desc="BIDS suffix")
    raw_sidecar = traits.Dict(desc="fields of the raw scan's sidecar", nohash=True)
    force = traits.Bool(False, usedefault=True, desc="go on where there seems to be no face to replace")


def first_look(inputs):
    """The scan that a first step is given, read and checked: the one place where a scan can be turned away.

    Raises
    ------
    ScanError, SkippedError
    """
    from bids_cpmae.imaging.screening import screen

    source = load_scan(inputs.in_file)
    metadata = dict(inputs.raw_sidecar) if isdefined(inputs.raw_sidecar) else {}
    screen(source, suffix=inputs.suffix, metadata=metadata, force=inputs.force)
    return source


def look_at_face(inputs, source, located) -> dict[str, float]:
    """Measures of a face that was found, before anything is made of it.

    Raises
    ------
    ScanError, SkippedError
        Where there is none to replace, or not to be replaced well.
    """
    from bids_cpmae.imaging.screening import screen_located

    measures = {**located.measures, **screen_located(source, located, force=inputs.force)}
    refuse_failed(measures, source.path.name)
    return measures


def keep_location(source, located, folder: Path, measures: dict[str, float]) -> dict:
    """Mask, brain and map of a located face as files, under the names of the outputs that hold them."""
    from bids_cpmae.imaging.nifti import save_mask

    mask = save_mask(source, located.mask, folder / "mask.nii.gz")
    brain = save_mask(source, located.brain, folder / "brain.nii.gz")
    to_head = located.to_head.save(folder / "to_head.npz")
    return {"mask_file": str(mask), "brain_file": str(brain), "map_file": str(to_head), "measures": measures}


def load_scan(path: str):
    """`bids_cpmae.imaging.nifti.load_source`, once for the steps of a scan that a process takes one after the other."""
    file = Path(path)
    return _load_scan(path, file.stat().st_mtime_ns if file.exists() else None)


@lru_cache(maxsize=1)
def _load_scan(path: str, changed_ns: int | None):
    from bids_cpmae.imaging.nifti import load_source

    source = load_source(path)
    source.stored.flags.writeable = False
    return source


def load_mask(path: str) -> np.ndarray:
    """A mask file (X, Y, Z), bool."""
    return np.asanyarray(nib.load(path).dataobj) > 0


class LocateFaceInputSpec(FirstInputSpec):
    mode = traits.Enum("face", "head", usedefault=True)
    regions = traits.List(traits.Enum("face", "ears"), usedefault=True, value=["face", "ears"])


class LocateFaceOutputSpec(TraitedSpec):
    mask_file = File(desc="1 = replaced")
    brain_file = File(desc="registered template brain")
    map_file = File(desc="from the scan's world to head space, found with the face in view")
    measures = traits.Dict()


class LocateFace(ScanInterface):
    """`bids_cpmae.imaging.facemask.locate_face`."""

    input_spec, output_spec = LocateFaceInputSpec, LocateFaceOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.imaging.facemask import locate_face, prepare_template
        from bids_cpmae.imaging.threads import side_by_side

        mode, regions = self.inputs.mode, tuple(self.inputs.regions)
        source, _ = side_by_side(lambda: first_look(self.inputs), lambda: prepare_template(mode, regions))
        located = locate_face(source, mode=mode, regions=regions, alike=self.inputs.suffix == REFERENCE)
        return keep_location(source, located, folder, look_at_face(self.inputs, source, located))


class AlignHeadInputSpec(ScanInputSpec):
    mask_file = File(exists=True, mandatory=True)
    stand_in = traits.Bool(False, usedefault=True, desc="no T1w scan: the average head shows its anatomy")


class AlignHeadOutputSpec(TraitedSpec):
    frame_file = File(desc="the blanked scan in head space")


class AlignHead(ScanInterface):
    """`bids_cpmae.imaging.align.align_blanked`."""

    input_spec, output_spec = AlignHeadInputSpec, AlignHeadOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.imaging.align import align_blanked, stand_in

        foreign = self.inputs.stand_in
        frame = align_blanked(load_scan(self.inputs.in_file), load_mask(self.inputs.mask_file), alike=not foreign)
        frame = stand_in(frame) if foreign else frame
        return {"frame_file": str(frame.save(folder / "frame.npz"))}


class RemodelFaceInputSpec(ScanInputSpec):
    frame_file = File(exists=True, mandatory=True)
    mode = traits.Enum("face", "head", usedefault=True)
    identity_seed = traits.Int(mandatory=True)
    weights = traits.Str(desc="weights file; the shipped one if empty", usedefault=True)
    weights_version = traits.Str(desc="so that other weights of the same name are not taken for these")
    device = traits.Enum("auto", "cpu", "cuda", usedefault=True, nohash=True)
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="takes one of the GPU's slots of nipype")


class RemodelFaceOutputSpec(TraitedSpec):
    head_file = File(desc="the new head in head space")


class RemodelFace(ScanInterface):
    """`bids_cpmae.model.cpmae.CPMAE.remodel`; the model is loaded once a process."""

    input_spec, output_spec = RemodelFaceInputSpec, RemodelFaceOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.api import resolve_device
        from bids_cpmae.imaging.align import HeadFrame
        from bids_cpmae.model.weights import load_cpmae

        frame = HeadFrame.load(self.inputs.frame_file)
        weights = Path(self.inputs.weights) if self.inputs.weights else None
        model = load_cpmae(weights, resolve_device(self.inputs.device))
        head = model.remodel(
            frame.volume, frame.blank, mode=self.inputs.mode, identity_seed=self.inputs.identity_seed,
            head_size=frame.head_size,
        )  # fmt: skip
        np.save(folder / "head.npy", head)
        return {"head_file": str(folder / "head.npy")}


class ComposeFaceInputSpec(ScanInputSpec):
    mask_file = File(exists=True, mandatory=True)
    frame_file = File(exists=True, mandatory=True)
    head_file = File(exists=True, mandatory=True)
    noise_seed = traits.Int(mandatory=True)


class ComposeFaceOutputSpec(TraitedSpec):
    out_file = File(desc="the refaced scan, not yet certified")


class ComposeFace(ScanInterface):
    """`bids_cpmae.imaging.recolour.compose_series`, written on the scan's own grid."""

    input_spec, output_spec = ComposeFaceInputSpec, ComposeFaceOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.imaging.align import HeadFrame, resample_to_scan
        from bids_cpmae.imaging.nifti import save_like
        from bids_cpmae.imaging.recolour import compose_series

        source, mask = load_scan(self.inputs.in_file), load_mask(self.inputs.mask_file)
        frame = HeadFrame.load(self.inputs.frame_file)
        synthetic = resample_to_scan(frame, np.load(self.inputs.head_file), source, mask)
        stored = compose_series(source, mask, synthetic, seed=self.inputs.noise_seed)
        return {"out_file": str(save_like(source, stored, folder / refaced_name(self.inputs.in_file)))}


def refaced_name(in_file: str) -> str:
    """What a refaced scan is called before it is published; its extension is the source's."""
    return "refaced.nii.gz" if in_file.endswith(".gz") else "refaced.nii"


class CertifyScanInputSpec(ScanInputSpec):
    refaced_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    brain_file = File(exists=True, mandatory=True)


class CertifyScanOutputSpec(TraitedSpec):
    certificate = traits.Dict()


class CertifyScan(ScanInterface):
    """`bids_cpmae.imaging.certify.certify`."""

    input_spec, output_spec = CertifyScanInputSpec, CertifyScanOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.imaging.certify import certify
        from bids_cpmae.imaging.nifti import load_source

        found = certify(
            load_source(self.inputs.in_file), self.inputs.refaced_file, load_mask(self.inputs.mask_file),
            load_mask(self.inputs.brain_file),
        )  # fmt: skip
        return {"certificate": found.as_dict()}


class MeasureScanInputSpec(ScanInputSpec):
    refaced_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    map_file = File(exists=True, mandatory=True, desc="from the scan's world to head space")
    certificate = traits.Dict(mandatory=True)
    located = traits.Dict(mandatory=True, desc="measures of mask and registration")
    composed = traits.Dict(desc="measures of the new face's contrast")
    regions = traits.List(traits.Enum("face", "ears"), usedefault=True, value=["face", "ears"])
    tissue = traits.Bool(True, usedefault=True, desc="False for phases and the like, whose values show no face")


class MeasureScanOutputSpec(TraitedSpec):
    measures = traits.Dict(desc="all there is to judge a scan by")


class MeasureScan(ScanInterface):
    """`bids_cpmae.imaging.quality.measure_quality`; stops a scan that fails before anything of it is published."""

    input_spec, output_spec = MeasureScanInputSpec, MeasureScanOutputSpec

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.imaging.headspace import CoordinateMap
        from bids_cpmae.imaging.nifti import load_source
        from bids_cpmae.imaging.quality import measure_quality

        composed = self.inputs.composed if isdefined(self.inputs.composed) else {}
        measures = {**self.inputs.located, **composed, **self.inputs.certificate}
        if self.inputs.tissue:
            source = load_scan(self.inputs.in_file)
            found = measure_quality(
                source, load_source(self.inputs.refaced_file).stored, load_mask(self.inputs.mask_file),
                to_head=CoordinateMap.load(self.inputs.map_file), regions=tuple(self.inputs.regions),
            )  # fmt: skip
            measures.update(found)
            refuse_failed(measures, source.path.name)
        return {"measures": measures}


class DrawScanInputSpec(BaseInterfaceInputSpec):
    refaced_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    drawings_dir = traits.Str(mandatory=True, desc="where pages look for what has been drawn", nohash=True)
    version = traits.Str(__version__, usedefault=True, desc="so that another version draws anew")


class DrawScan(SimpleInterface):
    """`bids_cpmae.report.drawing.draw`, beside the steps that judge a scan, none of which hangs on it.

    What could not be drawn is tried again, and told, when the page is written.
    """

    input_spec, output_spec = DrawScanInputSpec, TraitedSpec

    def _run_interface(self, runtime):
        image, mask = Path(self.inputs.refaced_file), Path(self.inputs.mask_file)
        with suppress(Exception):
            from bids_cpmae.report.drawing import draw, keep

            drawing = draw(image, mask)
            if drawing.slices:
                keep(drawing, Path(self.inputs.drawings_dir), image, mask)
        return runtime


class PublishScanInputSpec(ScanInputSpec):
    refaced_file = File(exists=True, mandatory=True)
    mask_file = File(exists=True, mandatory=True)
    measures = traits.Dict(mandatory=True)
    review = traits.Str("", usedefault=True, desc="why a scan that passes must be looked at all the same")
    output_dir = traits.Str(mandatory=True)
    raw_sidecar = traits.Dict(desc="fields of the raw scan's sidecar")
    settings = traits.Dict(desc="how the scan was made, for the sidecar")
    regions = traits.List(traits.Str(), usedefault=True)


class PublishScanOutputSpec(TraitedSpec):
    verdict_file = File()


class PublishScan(ScanInterface):
    """Image, mask and sidecars to the output tree, each in one step, and the verdict. Cheap, so never skipped."""

    input_spec, output_spec = PublishScanInputSpec, PublishScanOutputSpec
    _always_run = True

    def _step(self, folder: Path) -> dict:
        from bids_cpmae.bids.publish import publish_scan

        scan = self.inputs.scan
        publish_scan(
            Path(self.inputs.output_dir), scan["source"], image=Path(self.inputs.refaced_file),
            mask=Path(self.inputs.mask_file), raw_sidecar=dict(self.inputs.raw_sidecar),
            settings=dict(self.inputs.settings), regions=" and ".join(self.inputs.regions),
        )  # fmt: skip
        measures = dict(self.inputs.measures)
        verdict, reason = judged_with(self.inputs.review, measures)
        path = Verdict(**scan, verdict=verdict, reason=reason, measures=measures).save(Path(self.inputs.verdict_file))
        return {"verdict_file": str(path)}
