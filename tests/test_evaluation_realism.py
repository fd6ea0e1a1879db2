"""Realism: spectra, seams and noise that are known are found."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bids_cpmae.evaluation.realism import BANDS, HEADER, likeness, power_ratios

SPACING = np.ones(3)


@pytest.fixture(scope="module")
def texture():
    rng = np.random.default_rng(0)
    return gaussian_filter(rng.standard_normal((72, 72, 72)), 0.7) * 300 + 1000


@pytest.fixture(scope="module")
def mask():
    inside = np.zeros((72, 72, 72), bool)
    inside[12:60, 12:60, 12:60] = True
    return inside


def test_power_follows_the_square_of_contrast(texture, mask):
    assert power_ratios(texture, texture, mask, SPACING) == pytest.approx([1] * (len(BANDS) - 1))
    louder = 1000 + 2 * (texture - 1000)
    assert power_ratios(texture, louder, mask, SPACING) == pytest.approx([4] * (len(BANDS) - 1), rel=0.02)


def test_blur_takes_fine_detail_first(texture, mask):
    ratios = power_ratios(texture, gaussian_filter(texture, 1.5), mask, SPACING)
    assert all(a > b for a, b in zip(ratios, ratios[1:])) and ratios[0] > 0.5 and ratios[-1] < 0.05


def test_what_lies_outside_the_mask_does_not_count(texture, mask):
    other = np.where(mask, texture, 0)
    assert power_ratios(texture, other, mask, SPACING) == pytest.approx([1] * (len(BANDS) - 1))


def test_finer_than_the_voxels_is_unknown(texture, mask):
    ratios = power_ratios(texture, texture, mask, np.array([1.0, 1.0, 2.5]))
    assert np.isnan(ratios[-1]) and not np.isnan(ratios[0])


class Scan:
    """As much of a source image as `likeness` reads."""

    affine, spacing = np.eye(4), SPACING

    def __init__(self, data):
        self.data = data


def figures(original, version, mask):
    return dict(zip(HEADER[3:], likeness(Scan(original), version, mask), strict=True))


def test_a_step_and_noise_are_seen(texture, mask):
    """Tissue with air in one corner of the mask; a version that is brighter inside, and one with twice the noise."""
    rng = np.random.default_rng(1)
    head = gaussian_filter(rng.standard_normal(texture.shape), 4) * 2000 + 1000
    head[:40, :40, :40] = 0
    noise = 10 * rng.standard_normal(texture.shape)
    same = figures(head + noise, head + noise, mask)
    assert same["seam"] == same["noise_air"] == same["noise_tissue"] == 1
    stepped = figures(head + noise, head + noise + 400 * (mask & (head > 0)), mask)
    assert stepped["seam"] > 1.5
    noisy = figures(head + noise, head + noise * (1 + mask), mask)
    assert noisy["noise_air"] == pytest.approx(2, rel=0.05)
    assert noisy["noise_tissue"] > 1.5
