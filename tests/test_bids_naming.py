"""Names, sidecars and descriptions of what is written."""

import json
from pathlib import PurePosixPath

import pytest
from bids_trees import write_dataset

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.sidecar import dataset_description, image_sidecar, mask_sidecar, raw_metadata

NAMES = {
    "sub-01/anat/sub-01_T1w.nii.gz": (
        "sub-01/anat/sub-01_desc-refaced_T1w.nii.gz",
        "sub-01/anat/sub-01_mod-T1w_desc-face_defacemask.nii.gz",
    ),
    "sub-01/ses-a/anat/sub-01_ses-a_task-rest_acq-m_ce-g_rec-n_run-2_echo-1_part-mag_chunk-3_T1w.nii": (
        "sub-01/ses-a/anat/sub-01_ses-a_task-rest_acq-m_ce-g_rec-n_run-2_echo-1_part-mag_chunk-3_desc-refaced_T1w.nii",
        # BIDS has no defacemask with echo or part, but a derivative's mask
        "sub-01/ses-a/anat/"
        "sub-01_ses-a_task-rest_acq-m_ce-g_rec-n_run-2_echo-1_part-mag_chunk-3_desc-faceT1w_mask.nii.gz",
    ),
    "sub-01/anat/sub-01_inv-1_part-mag_MP2RAGE.nii.gz": (
        "sub-01/anat/sub-01_inv-1_part-mag_desc-refaced_MP2RAGE.nii.gz",
        "sub-01/anat/sub-01_part-mag_desc-faceMP2RAGEinv1_mask.nii.gz",
    ),
    "sub-01/anat/sub-01_task-rest_acq-m_ce-g_rec-n_run-2_chunk-3_T1w.nii.gz": (
        "sub-01/anat/sub-01_task-rest_acq-m_ce-g_rec-n_run-2_chunk-3_desc-refaced_T1w.nii.gz",
        "sub-01/anat/sub-01_task-rest_acq-m_ce-g_rec-n_run-2_mod-T1w_chunk-3_desc-face_defacemask.nii.gz",
    ),
}


@pytest.mark.parametrize("raw", NAMES)
def test_every_entity_is_kept_in_the_order_of_the_schema(raw):
    outputs = outputs_of(raw)
    assert (str(outputs.image), str(outputs.mask)) == NAMES[raw]
    for image, sidecar in ((outputs.image, outputs.image_sidecar), (outputs.mask, outputs.mask_sidecar)):
        stem = image.name.removesuffix(".gz").removesuffix(".nii")
        assert sidecar == image.with_name(f"{stem}.json")


def test_two_scans_never_share_an_output():
    raws = [
        f"sub-01/anat/sub-01_{part}T1w.nii.gz" for part in ("", "run-1_", "run-2_", "acq-a_", "echo-1_", "part-mag_")
    ]
    outputs = [path for raw in raws for path in outputs_of(raw)]
    assert len(set(outputs)) == len(outputs) == 4 * len(raws)
    assert all(isinstance(path, PurePosixPath) for path in outputs)


def test_sidecar_keeps_the_acquisition_and_nobody():
    raw = {
        "EchoTime": 0.003, "MagneticFieldStrength": 3, "PatientName": "A", "PatientBirthDate": "1970",
        "InstitutionName": "B", "DeviceSerialNumber": "1", "AcquisitionDateTime": "2020", "SkullStripped": True,
        "StationName": "D", "ProcedureStepDescription": "E", "global": {"slices": {}}, "SeriesDescription": "C",
    }  # fmt: skip
    made = image_sidecar("sub-01/anat/sub-01_T1w.nii.gz", raw, settings={"RandomSeed": 4}, regions="face")
    assert (made["EchoTime"], made["MagneticFieldStrength"], made["RandomSeed"]) == (0.003, 3, 4)
    assert not (set(raw) - {"EchoTime", "MagneticFieldStrength", "SkullStripped"}) & set(made)
    assert made["SkullStripped"] is False
    assert made["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert made["DeidentificationMethodCodeSequence"][0]["CodeValue"] == "113102"
    assert "face" in made["DeidentificationMethod"][0]


def test_mask_sidecar_says_its_polarity():
    assert "1 = replaced" in mask_sidecar("sub-01/anat/sub-01_T1w.nii.gz", "face and ears")["Description"]


def test_metadata_is_inherited_nearest_last_and_only_where_it_fits(tmp_path):
    def put(relative, **fields):
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fields))

    put("T1w.json", EchoTime=1, FlipAngle=1, Manufacturer="root")
    put("acq-x_T1w.json", FlipAngle=2)
    put("acq-y_T1w.json", FlipAngle=99, RepetitionTime=99)
    put("T2w.json", EchoTime=99)
    put("sub-01/sub-01_T1w.json", EchoTime=3)
    put("sub-01/anat/sub-01_acq-x_T1w.json", EchoTime=4)
    (tmp_path / "sub-01/sub-01_acq-x_T1w.json").write_text("{ broken")
    assert raw_metadata(tmp_path, "sub-01/anat/sub-01_acq-x_T1w.nii.gz") == {
        "EchoTime": 4, "FlipAngle": 2, "Manufacturer": "root",
    }  # fmt: skip


@pytest.mark.parametrize(
    "raw, link",
    [
        ({"Name": "My study"}, "urn:bids:My%20study"),
        ({"Name": "x", "DatasetDOI": "10.1/a"}, "doi:10.1/a"),
        ({"Name": "x", "DatasetDOI": "doi:10.1/a"}, "doi:10.1/a"),
    ],
)
def test_description_names_the_source_without_a_path(tmp_path, raw, link):
    made = dataset_description(write_dataset(tmp_path / "secret", description=raw))
    assert made["DatasetType"] == "derivative"
    assert made["DatasetLinks"] == {"raw": link}
    assert made["GeneratedBy"][0]["Name"] == "bids_cpmae"
    assert "secret" not in json.dumps(made)


def test_a_description_keeps_no_path_of_its_source(tmp_path):
    raw = {"Name": "study of /home/jane/data", "License": "see /home/jane/LICENSE"}
    made = dataset_description(write_dataset(tmp_path / "raw", description=raw))
    assert made["Name"] == "study of [path removed], refaced" and "jane" not in str(made)
