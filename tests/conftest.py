"""Fixtures for all tests; what makes them lives in `heads`, `phantoms` and `bids_trees`."""

import os
from pathlib import Path

import nibabel as nib
import pytest
from browser import browser  # noqa: F401 (a fixture)
from heads import as_image, average_head
from phantoms import CASES, Phantom, make_phantom

# ANTs counts its threads once a process, and a test may use it before any registration has asked for one
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

# files that take minutes: begun last, one would keep a worker after all others have ended
LONG = (
    "test_containers", "test_workflow_contrasts", "test_cluster_slurm", "test_faults", "test_pipeline_privacy",
    "test_pipeline_geometry", "test_pipeline_identity", "test_pipeline_contrast", "test_report_recognition",
    "test_evaluation_privacy", "test_workflow_run", "test_scale", "test_evaluation_robustness",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first; faults, which give a run seconds to end, not among the very first, as containers are."""
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


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
