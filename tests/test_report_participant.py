"""A participant's page: what it shows, what it never shows, and that it can be made again."""

import gzip
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from phantoms import CASES, Case, make_phantom
from report_trees import (
    METHODS,
    SMALL,
    add_scan,
    addresses,
    measures,
    outlines,
    pictures,
    publish_phantom,
    words,
    write_tree,
)

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.verdicts import FAIL, PASS, REVIEW, Verdict, merge, write_participant
from bids_cpmae.errors import OutputError
from bids_cpmae.report import viewer
from bids_cpmae.report.drawing import draw, keep
from bids_cpmae.report.participant import refresh_measures, write_report
from bids_cpmae.report.pictures import (
    FACE_VIEWS,
    OUTLINE_ZOOM,
    PIXEL_MM,
    Frame,
    as_outline,
    head_frame,
    plane,
    read_volume,
    seam_pictures,
)
from bids_cpmae.report.viewer import preview
from bids_cpmae.report.write import write_reports

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tree with the page of sub-01; not to be written to."""
    out = write_tree(tmp_path_factory.mktemp("tree"))
    return out, write_report(out, "01").read_text(encoding="utf-8")


@pytest.fixture
def tree(made, tmp_path):
    """A copy of it, to be written to."""
    return shutil.copytree(made[0], tmp_path / "out")


def test_verdicts_reasons_versions_and_methods_are_told(made):
    text = words(made[1])
    for said in ("sub-01_desc-refaced_T1w.nii.gz PASS", "truncated; restore the file", "f00dcafe", METHODS,
                 "No picture: FAIL, nothing was written.", "registration_correlation", "bids_cpmae"):  # fmt: skip
        assert said in text, said


def test_three_faces_three_slices_and_their_outlines(made):
    drawn = pictures(made[1])
    assert len(drawn) == 2 * len(FACE_VIEWS) == 6
    assert all(picture.std() > 20 for picture in drawn)
    assert len(outlines(made[1])) == 3 and all(0 < line.mean() < 0.2 for line in outlines(made[1]))
    assert len(re.findall(r'<img [^>]*alt="[^"]+', made[1])) == made[1].count("<img ") == 9


def test_the_page_is_made_of_the_output_tree_alone(tree, made):
    # the raw dataset is not beside this copy, and another page of the same tree is the same page
    assert write_report(tree, "01").read_text(encoding="utf-8") == made[1]
    other = Case(shape=SMALL.shape, spacing=(4.2, 3.8, 4.0))
    for path in tree.rglob("*desc-refaced_T1w.nii.gz"):
        path.unlink()
    publish_phantom(tree, tree.parent / "again", "sub-01/anat/sub-01_T1w.nii.gz", other)
    add_scan(tree, "01")
    new = pictures(write_report(tree, "01").read_text(encoding="utf-8"))
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(new, pictures(made[1])))


def test_what_was_drawn_while_the_scan_was_measured_is_shown(tree, made, tmp_path, monkeypatch):
    outputs, drawings = outputs_of("sub-01/anat/sub-01_T1w.nii.gz"), tmp_path / "work" / "drawings"
    kept = keep(draw(tree / outputs.image, tree / outputs.mask), drawings, tree / outputs.image, tree / outputs.mask)
    monkeypatch.setattr("bids_cpmae.report.participant.draw", lambda *_: pytest.fail("drawn twice"))
    assert write_report(tree, "01", drawings=drawings).read_text(encoding="utf-8") == made[1]
    monkeypatch.undo()
    # of other content, or of which half is there, nothing is taken
    kept.write_text(kept.read_text()[:1000])
    assert write_report(tree, "01", drawings=drawings).read_text(encoding="utf-8") == made[1]
    kept.write_text('{"faces": [], "slices": [], "volume": "", "missing": "planted"}')
    assert "planted" in words(write_report(tree, "01", drawings=drawings).read_text(encoding="utf-8"))
    mask = nib.load(tree / outputs.mask)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(mask.dataobj), 1, 0), mask.affine, mask.header), tree / outputs.mask)
    page = write_report(tree, "01", drawings=drawings).read_text(encoding="utf-8")
    assert "planted" not in words(page) and outlines(page)


def test_no_path_of_the_machine_and_nothing_to_load(made):
    out, page = made
    assert str(out) not in page and str(out.parent) not in page
    assert len(page) < 6e6
    tags = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    loaded = re.findall(r'\b(?:src|href|data|action|poster)="([^"]*)"', tags)
    assert loaded and all(address.startswith(("data:", "#", "./")) for address in loaded)
    assert "default-src 'none'" in tags and "http" not in re.sub(r'http-equiv="Content', "", tags)


def test_a_failed_scan_shows_nothing_even_where_an_image_was_left(tree):
    add_scan(tree, "01", FAIL, "the brain was cut")
    merge(tree)
    page = write_report(tree, "01").read_text(encoding="utf-8")
    assert pictures(page) == [] and 'type="application/gzip"' not in page


def test_an_image_that_leads_out_of_the_tree_is_not_shown(tree, tmp_path):
    image = tree / outputs_of("sub-01/anat/sub-01_T1w.nii.gz").image
    outside = shutil.move(image, tmp_path / "original.nii.gz")
    image.symlink_to(outside)
    assert pictures(write_report(tree, "01").read_text(encoding="utf-8")) == []


def test_hostile_words_stay_words(tree):
    label = f"x{HOSTILE}"
    add_scan(tree, label, REVIEW, f"look </script>{HOSTILE} at /home/ann/secret/scan.nii.gz")
    (tree / "logs" / "CITATION.md").write_text(f"{HOSTILE}\n")
    (tree / "dataset_description.json").write_text(f'{{"Name": "{HOSTILE}"}}')
    merge(tree)
    page = write_report(tree, label).read_text(encoding="utf-8")
    assert HOSTILE not in page and "<img" not in page and "/home/ann" not in page
    assert words(page).count(HOSTILE) >= 4


@pytest.mark.parametrize("label", ["../01", "nobody"])
def test_a_page_needs_a_participant(tree, label):
    add_scan(tree, "01")
    with pytest.raises(OutputError, match="sub-"):
        write_report(tree, label)
    assert not (tree.parent / "01.html").exists()


def test_measures_are_drawn_anew_and_pictures_kept(tree, made):
    add_scan(tree, "77", brain_ml=9000.0)
    merge(tree)
    (path,) = refresh_measures(tree)
    page = path.read_text(encoding="utf-8")
    assert "(10)" in words(made[1]) and "(11)" in words(page)
    assert addresses(page, "image/webp") == addresses(made[1], "image/webp")
    assert page == write_report(tree, "01").read_text(encoding="utf-8")
    assert refresh_measures(tree) == []


def test_a_broken_image_is_told_and_stops_nothing(tree):
    (tree / outputs_of("sub-01/anat/sub-01_T1w.nii.gz").image).write_bytes(b"rubbish")
    page = write_report(tree, "01").read_text(encoding="utf-8")
    assert "Not drawn: sub-01_desc-refaced_T1w.nii.gz: cannot be read" in words(page)


@pytest.mark.parametrize("nprocs", [1, 2])
def test_a_report_that_fails_stops_no_run(tree, caplog, nprocs):
    (tree / "sub-nobody.html").write_text("of an earlier run")
    written = write_reports(tree, ["nobody", "01"], nprocs=nprocs)
    assert [path.name for path in written] == ["sub-01.html", "group.html"]
    assert "sub-nobody: no report" in caplog.text
    assert not (tree / "sub-nobody.html").exists()


def test_a_series_is_shown_by_its_first_volume(tmp_path):
    phantom = make_phantom(tmp_path, SMALL)
    image = nib.load(phantom.path)
    first = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.stack([first, 0 * first], -1), image.affine), tmp_path / "series.nii.gz")
    volume, affine = read_volume(tmp_path / "series.nii.gz")
    np.testing.assert_array_equal(volume, first)
    np.testing.assert_array_equal(affine, image.affine)


def test_slices_and_preview_do_not_depend_on_storage(tmp_path):
    phantom = make_phantom(tmp_path, SMALL)
    image, mask = (nib.Nifti1Image(data, phantom.affine) for data in (phantom.values, phantom.face.astype(np.uint8)))
    turn = nib.orientations.axcodes2ornt(("P", "I", "R"))
    stored = [one.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(one.affine), turn))
              for one in (image, mask)]  # fmt: skip
    assert nib.aff2axcodes(stored[0].affine) == ("P", "I", "R")
    drawn, small = [], []
    for scan, face in ((image, mask), stored):
        values, affine = scan.get_fdata(dtype=np.float32), scan.affine
        shown = seam_pictures(values, affine, np.asarray(face.dataobj) > 0, face.affine)
        drawn.append(pictures("".join(picture.source for picture in shown)))
        small.append(nib.Nifti1Image.from_bytes(gzip.decompress(preview(values, affine, 4.0))))
    for one, other in zip(*drawn, strict=True):
        assert one.shape == other.shape and np.abs(one.astype(int) - other).mean() < 1
    np.testing.assert_allclose(small[0].affine, small[1].affine)
    assert np.abs(np.asarray(small[0].dataobj, int) - small[1].dataobj).max() <= 8


def test_planes_run_as_the_captions_say():
    frame = Frame(np.array([1.0, 2.0, 3.0]), np.zeros(3), 100.0)
    coronal, axial, sagittal = (plane(name, frame, 2.0) for name in ("coronal", "axial", "sagittal"))
    assert (coronal[..., 1] == 2).all() and (axial[..., 2] == 3).all() and (sagittal[..., 0] == 1).all()
    for points in (coronal, axial):
        assert points[0, 0, 0] > points[0, -1, 0]  # the subject's right is on the left
    assert sagittal[0, 0, 1] < sagittal[0, -1, 1] and sagittal[0, 0, 2] > sagittal[-1, 0, 2]
    assert axial[0, 0, 1] > axial[-1, 0, 1]


def test_the_outline_lies_on_the_border_of_the_mask(tmp_path):
    phantom = make_phantom(tmp_path, CASES["RAS"])
    frame = head_frame(phantom.values, phantom.affine, phantom.face, phantom.affine)
    sagittal = seam_pictures(phantom.values, phantom.affine, phantom.face, phantom.affine)[0]
    (line,) = outlines(sagittal.outline)
    points = plane("sagittal", frame, PIXEL_MM / OUTLINE_ZOOM)
    assert line.shape == points.shape[:2]
    world = np.argwhere(phantom.face) @ phantom.affine[:3, :3].T + phantom.affine[:3, 3]
    here = world[np.abs(world[:, 0] - frame.through[0]) <= 2]
    on_line = points[line]
    # half a voxel of 4 mm beyond the middles of the outermost voxels
    assert on_line[:, 1].min() == pytest.approx(here[:, 1].min() - 2, abs=0.5)
    assert on_line[:, 2].max() == pytest.approx(here[:, 2].max() + 2, abs=0.5)


def test_an_outline_is_an_edge_and_not_an_area():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5:25] = True
    (line,) = outlines(as_outline(mask))
    assert line.sum() == 2 * 10 + 2 * 18 and not line[7:13, 7:23].any()


def test_a_preview_is_small_upright_and_quiet_in_the_air(tmp_path):
    phantom = make_phantom(tmp_path, CASES["permuted"])
    image = nib.Nifti1Image.from_bytes(gzip.decompress(preview(phantom.values, phantom.affine, 4.0)))
    values = np.asarray(image.dataobj)
    assert values.dtype == np.uint8 and image.header.get_zooms() == (4.0, 4.0, 4.0)
    assert values.max() == 255 and (values == 0).mean() > 0.3
    # the nose is in front
    tissue = np.argwhere(values > 60)
    front = tissue[tissue[:, 1] >= tissue[:, 1].max() - 1].mean(axis=0)
    assert abs((image.affine @ [*front, 1])[0]) < 6


@pytest.mark.parametrize("spacing, carried", [(2, 2), (3, 2), (3, 1)])
def test_a_page_carries_as_many_volumes_as_fit(tree, monkeypatch, spacing, carried):
    """Two scans alike: fine where both fit, else coarse, and only the first where not even those fit."""
    sources = [f"sub-20/anat/sub-20_run-{run}_T1w.nii.gz" for run in (1, 2)]
    for source in sources:
        publish_phantom(tree, tree.parent / "again", source)
    write_participant(tree, "20", [Verdict(source, "20", None, PASS, "", measures(1)) for source in sources])
    size = len(viewer.as_text(viewer.preview(*read_volume(tree / outputs_of(sources[0]).image), spacing)))
    monkeypatch.setattr(viewer, "BUDGET", carried * size)
    text = write_report(tree, "20").read_text(encoding="utf-8")
    assert text.count('<script type="application/gzip" id="volume-') == carried
    assert f"voxels of {spacing} mm" in words(text)
    assert ("1 more scans have no 3-D view" in words(text)) == (carried == 1)
