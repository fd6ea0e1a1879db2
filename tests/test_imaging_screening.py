"""Knowing when not to: what is recognised before and after the face was found, and what passes."""

from functools import lru_cache

import bad_inputs as bad
import nibabel as nib
import numpy as np
import pytest
from heads import as_image, average_head

from bids_cpmae.bids.verdicts import PASS, REVIEW, judge
from bids_cpmae.errors import ScanError, SkippedError
from bids_cpmae.imaging.facemask import locate_face
from bids_cpmae.imaging.headspace import apply_affine, covering_grid
from bids_cpmae.imaging.landmarks import Landmarks, face_coverage, mask_coverage
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.orientation import turn_scores, turned
from bids_cpmae.imaging.screening import CHECKS, screen, screen_located
from bids_cpmae.imaging.template import FACE_BIT

DEV = ("IXI033", "IXI174", "IXI211")


@pytest.fixture(scope="module")
def good():
    return load_source(bad.head())


@pytest.fixture(scope="module")
def whole(good):
    return screen_located(good, bad.located_by_hand(good))


def test_a_good_head_passes(good, whole):
    screen(good)
    assert judge({**bad.located_by_hand(good).measures, **whole}) == (PASS, "")
    assert whole["face_coverage"] > 0.97 and whole["face_cut"] == whole["front_cut_cm2"] == 0


@pytest.mark.parametrize("axes", ["RAS", "PIR"])
def test_a_view_that_ends_behind_nose_and_lips_is_for_review(axes):
    values, affine = average_head()
    y = np.arange(values.shape[1]) * 2 + affine[1, 3]
    image = as_image(values[:, : int(np.argmax(y > 74))], affine)
    ornt = nib.orientations.axcodes2ornt(axes)
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), ornt))
    source = load_source(as_image(np.asarray(image.dataobj), image.affine))
    found = screen_located(source, bad.located_by_hand(source))
    assert found["face_coverage"] > 0.95 and 15 < found["front_cut_cm2"] < 100
    assert judge({"front_cut_cm2": found["front_cut_cm2"]})[0] == REVIEW


@pytest.mark.parametrize("axes", ["LAS", "LPS", "PIR", "SLA"])
def test_storage_order_does_not_matter(axes):
    ornt = nib.orientations.axcodes2ornt(axes)
    image = bad.head()
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), ornt))
    screen(load_source(as_image(np.asarray(image.dataobj), image.affine)))


def test_voxel_size_does_not_matter():
    screen(load_source(bad.finer(bad.head(), 1.6)))


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (lambda v: v[:, ::-1], "LPS"),
        (lambda v: v[:, :, ::-1], "LAI"),
        (lambda v: np.swapaxes(v, 0, 1), "PRS"),
        (lambda v: v[::-1], None),
    ],
)
def test_turned_heads_are_named_and_mirrored_ones_pass(turn, name):
    values, affine = average_head()
    assert turned(load_source(as_image(turn(values), affine))) == name


def test_turns_are_24_and_mirrors_of_each_other(good):
    scores = turn_scores(good)
    assert len(scores) == 24
    assert max(scores, key=scores.get) == "RAS"
    mirrored = turn_scores(load_source(as_image(average_head()[0][::-1], average_head()[1])))
    assert mirrored["RAS"] == pytest.approx(scores["RAS"], abs=0.02)


def test_label_of_a_participant_is_no_word_of_defacing(tmp_path):
    path = tmp_path / "sub-defaced_ses-stripped_T1w.nii.gz"
    nib.save(bad.head(), path)
    screen(load_source(path))


@pytest.mark.parametrize("text", ["dcm2niix 113100", "Basic profile; interface cleaned", ["113100", "113105"]])
def test_other_deidentification_is_no_defacing(good, text):
    screen(good, metadata={"DeidentificationMethod": text})


@pytest.mark.parametrize("suffix", ["UNIT1", "T1map"])
def test_noise_in_the_air_is_expected_of_some_suffixes(suffix):
    values, affine = average_head()
    noisy = np.where(values < 60, np.random.default_rng(0).integers(0, 900, values.shape), values)
    source = load_source(as_image(noisy, affine))
    screen(source, suffix=suffix)
    with pytest.raises(ScanError, match="no head"):
        screen(source)


FORCED = {
    "defaced": bad.defaced, "blurred": bad.blurred, "brain": bad.brain_alone, "labels": bad.label_map,
    "turned": bad.back_to_front, "forms": bad.forms_contradict,
}  # fmt: skip


@pytest.mark.parametrize("kind", FORCED)
def test_force_goes_on(kind):
    source = load_source(FORCED[kind]())
    screen(source, force=True)
    screen_located(source, bad.located_by_hand(source), force=True)


def test_force_does_not_pass_over_absurd_voxels():
    with pytest.raises(ScanError, match="mend the header"):
        screen(load_source(bad.of_a_fly()), force=True)


def test_every_check_says_what_and_what_to_do():
    assert len({check.find for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.find.__doc__ and check.what and check.way_out


def test_coverage_counts_what_the_mask_takes(good):
    located = bad.located_by_hand(good)
    assert mask_coverage(good, located.to_head, np.zeros_like(located.mask)) == 0
    assert 0.8 < mask_coverage(good, located.to_head, located.mask) < 1
    assert 0.8 < face_coverage(good, located.to_head) <= 1


@pytest.mark.parametrize("shift", [0.0, 60.0, 400.0])
def test_landmarks_of_the_face_alone_are_the_same(good, shift):
    moved = np.eye(4)
    moved[1, 3] = shift
    to_head = bad.located_by_hand(good).to_head.after(moved, *covering_grid(good.affine, good.shape3, 8.0))
    every, face = Landmarks.of(good, to_head), Landmarks.of(good, to_head, bits=FACE_BIT)
    places = []
    for marks in (every, face):
        found = np.zeros(marks.scan.data.shape, bool)
        found[marks.box] = marks.face_flesh
        places.append(found)
    np.testing.assert_array_equal(*places)
    assert places[0].any() == (shift < 400)
    assert face.flesh.size <= every.flesh.size


def real(folder, name, suffix="T1w"):
    part = "ixi2mm" if name.startswith("IXI") else "heads"
    return load_source(folder / part / f"sub-{name}" / "anat" / f"sub-{name}_{suffix}.nii.gz")


@lru_cache
def located(path):
    """A scan's face as registered; once a session, for it takes half a minute."""
    return locate_face(load_source(path))


@pytest.mark.parametrize(
    ("name", "suffix"), [("adult", "T1w"), ("adult", "T2w"), ("croppedfov", "T1w"), ("defaced", "T1w"),
                         ("facecut", "T1w"), ("thickslice", "T1w"), ("thickslice", "FLAIR"),
                         *((name, "T1w") for name in DEV)],
)  # fmt: skip
def test_real_heads_pass_the_first_look(real_data, name, suffix):
    screen(real(real_data, name, suffix), suffix=suffix)


@pytest.mark.parametrize("name", ["adult", "IXI211", "croppedfov", "facecut", "thickslice", "defaced"])
def test_real_faces(real_data, name):
    source = real(real_data, name)
    found = located(source.path)
    if name == "defaced":
        with pytest.raises(SkippedError, match="taken away before"):
            screen_located(source, found)
        return
    verdict, reason = judge({**found.measures, **screen_located(source, found)})
    words = {
        "croppedfov": "field of view", "facecut": "taken away before", "thickslice": "ends behind nose or lips",
    }.get(name, "")  # fmt: skip
    assert (verdict, words in reason) == (REVIEW if words else PASS, True), reason


def test_a_tilted_head_without_its_lower_face_is_found(real_data):
    """Bright neck, dark face, nose up: what lies foremost in the head is the nose, and it is masked to its root."""
    source = real(real_data, "facecut")
    found = located(source.path)
    head = np.argwhere(source.data > 0.3 * np.percentile(source.data[found.brain], 50))
    world = apply_affine(source.affine, head)
    foremost = head[world[:, 1] > world[:, 1].max() - 25]
    assert len(foremost) > 500 and found.mask[tuple(foremost.T)].mean() > 0.98
