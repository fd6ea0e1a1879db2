"""Masks grown, shrunk and filled as SciPy does it."""

import numpy as np
import pytest
from scipy import ndimage

from bids_cpmae.imaging.morphology import filled, grown, shrunk


@pytest.fixture(params=[-0.5, 0.0, 0.5])
def mask(request):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(30, 24, 27)), 1.5)
    return noise / noise.std() > request.param


@pytest.mark.parametrize("times", [1, 3])
def test_as_scipy(mask, times):
    before = mask.copy()
    np.testing.assert_array_equal(grown(mask, times), ndimage.binary_dilation(mask, iterations=times))
    np.testing.assert_array_equal(shrunk(mask, times), ndimage.binary_erosion(mask, iterations=times))
    whole = ndimage.binary_erosion(mask, iterations=times, border_value=1)
    np.testing.assert_array_equal(shrunk(mask, times, beyond=True), whole)
    np.testing.assert_array_equal(mask, before)


def test_holes_are_filled(mask):
    np.testing.assert_array_equal(filled(mask), ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(filled(np.ones_like(mask)), np.ones_like(mask))
    np.testing.assert_array_equal(filled(np.zeros_like(mask)), np.zeros_like(mask))
