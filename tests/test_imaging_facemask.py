"""What a mask takes: thin parts that stick out beside it and nothing else; and whether it leaves a brain alone."""

import numpy as np
from scipy.ndimage import binary_dilation

from bids_cpmae.imaging.facemask import keeps_brain_alone, signed_distance, with_strays
from bids_cpmae.imaging.template import BRAIN_BIT, load_template


def head_with_ear():
    """A ball with a thin plate at its side, on a 2 mm grid; the face mask holds the plate's lower half."""
    x, y, z = np.indices((70, 60, 60))
    head = (x - 28) ** 2 + (y - 30) ** 2 + (z - 30) ** 2 < 22**2
    ear = (x >= 48) & (x < 58) & (abs(y - 30) < 2) & (abs(z - 30) < 10)
    face = (x > 46) & (z < 30)
    brain = (x - 28) ** 2 + (y - 30) ** 2 + (z - 30) ** 2 < 15**2
    return head, ear, signed_distance(face, 2.0), signed_distance(brain, 2.0)


def test_the_rest_of_an_ear_is_taken_and_the_head_is_not():
    head, ear, face, brain = head_with_ear()
    scan = np.where(head | ear, 100.0, 0.0)
    found = with_strays(face, brain, face, scan) < 0
    rest = ear & ~head & (face > 0)
    assert rest.sum() > 100 and found[rest].mean() > 0.6  # all but its root
    assert not (found & head & (face > 0)).any()
    assert (found >= (face < 0)).all()


def test_a_head_without_strays_keeps_its_mask():
    head, _, face, brain = head_with_ear()
    assert np.array_equal(with_strays(face, brain, face, np.where(head, 100.0, 0.0)), face)
    assert np.array_equal(with_strays(face, brain, face, np.zeros(head.shape)), face)


def test_far_from_the_ears_nothing_is_taken():
    head, ear, face, brain = head_with_ear()
    away = np.full(face.shape, 99.0, np.float32)
    assert np.array_equal(with_strays(face, brain, away, np.where(head | ear, 100.0, 0.0)), face)


def test_a_scalp_over_dark_bone_that_opens_where_the_field_of_view_ends_is_not_taken():
    x, y, z = np.indices((60, 60, 30))
    radius = np.sqrt((x - 30) ** 2 + (y - 30) ** 2 + z**2)
    scan = np.where((radius < 15) | (radius > 20) & (radius < 23), 100.0, 0.0)
    face, brain = signed_distance((x > 45) & (z < 5), 2.0), signed_distance(radius < 15, 2.0)
    assert np.array_equal(with_strays(face, brain, face, scan), face)


def test_a_mask_that_keeps_a_brain_alone_is_known():
    template = load_template()
    brain = template.mask(BRAIN_BIT)
    for view in (np.s_[:], np.s_[20:110, 10:, 4:90]):
        assert not keeps_brain_alone(template.replaced_with_air()[view])
    for view in (np.s_[:], np.s_[:, :, 60:], np.s_[:, :, 70:90]):
        assert keeps_brain_alone(~binary_dilation(brain, iterations=3)[view])
