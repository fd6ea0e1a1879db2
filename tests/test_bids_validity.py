"""The official validator on what is written, and on inputs."""

import json

import pytest
from bids_trees import write_dataset, write_scan

from bids_cpmae.bids.atomic import write_text
from bids_cpmae.bids.dataset import start_dataset
from bids_cpmae.bids.publish import publish_scan
from bids_cpmae.bids.sidecar import raw_metadata
from bids_cpmae.bids.validation import errors_of, find_validator, validate
from bids_cpmae.bids.verdicts import LOGS, PASS, Verdict, merge, write_participant
from bids_cpmae.errors import ExitCode, InputError

pytestmark = pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
NAMES = (
    "sub-01/ses-a/anat/sub-01_ses-a_acq-m_ce-g_rec-n_run-2_echo-1_part-mag_T1w.nii.gz",
    "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_task-rest_acq-m_ce-g_rec-n_run-2_chunk-3_T1w.nii.gz",
    "sub-02/anat/sub-02_T1w.nii",
)
METADATA = {
    "EchoTime": 0.003,
    "RepetitionTime": 2,
    "MagneticFieldStrength": 3,
    "Manufacturer": "X",
    "ImageType": ["ORIGINAL"],
}


@pytest.fixture
def raw(tmp_path):
    root = write_dataset(tmp_path / "raw", *NAMES)
    (root / "T1w.json").write_text(json.dumps(METADATA))
    return root


def test_output_tree_is_valid(raw, tmp_path):
    out, image = tmp_path / "out", write_scan(tmp_path / "image.nii.gz")
    start_dataset(out, raw)
    for name in NAMES:
        made = image if name.endswith(".gz") else write_scan(tmp_path / "image.nii")
        settings = {"RandomSeed": 0, "IdentitySeed": 2**62, "Mode": "face", "WeightsVersion": "abc"}
        publish_scan(out, name, image=made, mask=image, raw_sidecar=raw_metadata(raw, name), settings=settings,
                     regions="face and ears")  # fmt: skip
        participant = name[4:6]
        write_participant(out, participant, [Verdict(name, participant, None, PASS, 'some "reason"')])
    merge(out)
    write_text(out / LOGS / "CITATION.md", "text\n")
    assert errors_of(out) == []


def test_the_validator_does_see_errors(raw, tmp_path):
    out = tmp_path / "out"
    start_dataset(out, raw)
    write_scan(out / "sub-01/anat/sub-01_nose-big_T1w.nii.gz")
    assert errors_of(out)


def test_valid_and_invalid_inputs(raw):
    validate(raw)
    write_scan(raw / "sub-01/anat/sub-02_T1w.nii.gz")
    with pytest.raises(InputError, match="--skip-bids-validation") as error:
        validate(raw)
    assert error.value.code == ExitCode.INVALID_BIDS
