"""Robustness: what is done to a scan is known, and what then goes wrong is seen, and said whether it was noticed."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from heads import as_image, average_head

from bids_cpmae.errors import ExitCode
from bids_cpmae.evaluation.robustness import (
    DISTURBANCES,
    HEADER,
    HOLDS,
    LIGHT,
    NOTICED,
    UNNOTICED,
    compare,
    outcome_of,
)
from bids_cpmae.imaging.facemask import FaceLocation, carry_face
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, covering_grid, grid_points
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.workbench import main

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def scan():
    """The average head, which lies in head space as it is."""
    return load_source(as_image(*average_head(), np.float32))


def laid(source, moved) -> FaceLocation:
    """What an attentive registration finds in a head that was moved out of head space."""
    affine, shape = covering_grid(source.affine, source.shape3, 8, pad=8)
    points = apply_affine(np.linalg.inv(moved), grid_points(affine, shape)).astype(np.float32)
    return carry_face(source, CoordinateMap(affine, points), regions=("face",))


@pytest.fixture(scope="module")
def before(scan):
    return laid(scan, np.eye(4))


def after(disturbed, moved) -> FaceLocation:
    return laid(load_source(nib.Nifti1Image(disturbed.data, disturbed.affine)), moved)


@pytest.mark.parametrize("name", DISTURBANCES)
def test_what_is_found_where_it_was_put_holds(name, scan, before):
    disturbed = DISTURBANCES[name](scan, before.brain, RNG)
    found = compare(scan, before, disturbed, after(disturbed, disturbed.moved))
    assert found["covered"] > 0.98
    assert found["brain_mm"] < 0.1
    assert found["brain_masked_ml"] < 0.5
    assert outcome_of(found, "PASS") == HOLDS


@pytest.mark.parametrize("name", ["nod-back", "nod-forward", "turned", "askew"])
def test_a_head_that_is_taken_to_lie_as_before_is_found_out(name, scan, before):
    disturbed = DISTURBANCES[name](scan, before.brain, RNG)
    found = compare(scan, before, disturbed, after(disturbed, np.eye(4)))
    assert found["brain_mm"] > 10
    assert found["covered"] < 0.95 or found["brain_masked_ml"] > 1
    assert outcome_of(found, "PASS") == UNNOTICED
    assert outcome_of(found, "REVIEW") == outcome_of(found, "FAIL") == NOTICED


def test_a_face_left_out_of_the_mask_is_found_out(scan, before):
    disturbed = DISTURBANCES["noisy"](scan, before.brain, RNG)
    found = compare(scan, before, disturbed, replace(before, mask=np.zeros_like(before.mask)))
    assert found["covered"] < 0.01
    assert outcome_of(found, "PASS") == UNNOTICED


def test_light_and_fields_of_view_are_as_said(scan, before):
    tissue = scan.data > 0.3 * scan.data.max()
    for name, axis, sign in (("light-above", 2, 1), ("light-below", 2, -1), ("light-before", 1, 1)):
        ratio = DISTURBANCES[name](scan, before.brain, RNG).data / np.where(tissue, scan.data, np.nan)
        ends = [
            np.nanmean(np.take(ratio, at, axis))
            for at in np.flatnonzero(tissue.any(tuple(other for other in range(3) if other != axis)))[[0, -1]]
        ]
        assert LIGHT / 2 < (ends[1] / ends[0]) ** sign < LIGHT
    brain = np.argwhere(before.brain)
    assert DISTURBANCES["no-crown"](scan, before.brain, RNG).data.shape[2] < brain[:, 2].max()
    assert brain[:, 1].max() < DISTURBANCES["no-front"](scan, before.brain, RNG).data.shape[1] < scan.shape3[1]
    thick = DISTURBANCES["thick-slices"](scan, before.brain, RNG)
    assert thick.affine[2, 2] == 4 and thick.data.mean() == pytest.approx(scan.data.mean(), rel=0.01)


def test_the_command_looks_at_a_real_head(real_data, tmp_path, capsys):
    """A turned head and a lit one are found again, and the table says so."""
    out = tmp_path / "out"
    code = main([
        "evaluate", "robustness", str(real_data / "ixi2mm"), str(out), "--participants-split", "dev", "--people", "1",
        "--disturbances", "nod-back", "light-above",
    ])  # fmt: skip
    printed = capsys.readouterr().out
    lines = [line.split("\t") for line in (out / "robustness.tsv").read_text().splitlines()]
    assert tuple(lines[0]) == HEADER and len(lines) == 3
    assert {line[-1] for line in lines[1:]} == {HOLDS}
    assert code == ExitCode.OK
    assert printed.split().count(HOLDS) == 3
