"""Fixtures for all tests; what makes them lives in `heads`, `phantoms` and `bids_trees`."""

import os
from pathlib import Path

import nibabel as nib
import pytest
from browser import browser  # noqa: F401 (a fixture)
from heads import as_image, average_head
from phantoms import CASES, Phantom, make_phantom


@pytest.fixture(scope="session")
def head_image() -> nib.Nifti1Image:
    """The average head, int16, 2 mm, RAS."""
    return as_image(*average_head())


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real heads, or a skip."""
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("BIDS_CPMAE_TEST_DATA") or here.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real heads here: set BIDS_CPMAE_TEST_DATA to their folder")
    return folder


@pytest.fixture(params=CASES)
def phantom(request, tmp_path) -> Phantom:
    """One phantom of every kind."""
    return make_phantom(tmp_path, CASES[request.param])


@pytest.fixture()
def plain_phantom(tmp_path) -> Phantom:
    """An ordinary one, 4 mm, RAS, int16."""
    return make_phantom(tmp_path)
