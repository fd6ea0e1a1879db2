"""Before/after pages, and where they may not lie."""

import pytest
from phantoms import make_phantom
from report_trees import SMALL, outlines, pictures, words

from bids_cpmae.errors import OutputError
from bids_cpmae.imaging.nifti import load_source, save_like, save_mask
from bids_cpmae.report.private import NOTICE, check_private_dir, write_before_after


@pytest.mark.parametrize("place", ["out", "out/private", "raw", "raw/private", ".", "to_out/private", "out/../out/x"])
def test_in_output_or_input_it_is_refused(tmp_path, place):
    (tmp_path / "out").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "to_out").symlink_to(tmp_path / "out")
    with pytest.raises(OutputError, match="--private-dir"):
        check_private_dir(tmp_path / place, tmp_path / "out", tmp_path / "raw")


def test_beside_them_it_is_not(tmp_path):
    (tmp_path / "out").mkdir()
    assert check_private_dir(tmp_path / "out-private", tmp_path / "out", tmp_path / "raw") == tmp_path / "out-private"


def test_before_and_after_stand_side_by_side(tmp_path):
    phantom = make_phantom(tmp_path, SMALL)
    scan = load_source(phantom.path)
    stored = scan.stored.copy()
    stored[phantom.face] = 0
    refaced = save_like(scan, stored, tmp_path / "refaced.nii.gz")
    mask = save_mask(scan, phantom.face, tmp_path / "mask.nii.gz")
    private = tmp_path / "private"
    path = write_before_after(private, "sub-01/anat/sub-01_T1w.nii.gz", phantom.path, refaced, mask)
    assert path == private / "sub-01" / "anat" / "sub-01_T1w_before-after.html"
    page = path.read_text(encoding="utf-8")
    drawn = pictures(page)
    assert len(drawn) == 12 and len(outlines(page)) == 6
    for before, after in zip(drawn[::2], drawn[1::2]):
        assert before.shape == after.shape
    assert all((before != after).any() for before, after in zip(drawn[::2], drawn[1::2]))
    assert "do not share" in words(page) and str(tmp_path) not in page
    assert private.stat().st_mode & 0o077 == 0 and "original faces" in (private / NOTICE).read_text()
