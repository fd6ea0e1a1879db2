"""The measures of a seam find one where there is one, and none where there is none."""

import numpy as np
import pytest

from bids_cpmae.imaging.seam import border_step, border_steps, noise_level, noise_levels

SPACING = np.array([1.0, 1.0, 2.0])


@pytest.fixture(scope="module")
def ramp():
    """Intensities that grow by 3 per mm along x, a little noise, and a mask that ends in the middle."""
    rng = np.random.default_rng(0)
    data = 3.0 * np.arange(40)[:, None, None] + np.zeros((40, 30, 20)) + rng.normal(0, 0.1, (40, 30, 20))
    mask = np.zeros(data.shape, bool)
    mask[20:] = True
    return data, mask


def test_a_ramp_has_the_step_of_its_own_gradient(ramp):
    # the two sides' middles lie about 2 mm apart
    assert 0.7 < border_step(*ramp, SPACING) < 1.4


def test_an_offset_shows_in_proportion(ramp):
    data, mask = ramp
    one, two = (border_step(data + size * mask, mask, SPACING) for size in (6.0, 12.0))
    assert two - one == pytest.approx(6 / (3 * 2), rel=0.1)


def test_what_lies_inside_does_not_enter_the_unit(ramp):
    data, mask = ramp
    deep = np.where(np.arange(40)[:, None, None] > 30, 1e6, data)
    assert border_step(deep, mask, SPACING) == pytest.approx(border_step(data, mask, SPACING), rel=1e-5)


def test_only_the_border_asked_for_counts(ramp):
    data, mask = ramp
    half = np.zeros_like(mask)
    half[:, :15] = True
    stepped = data + 30.0 * (mask & ~half)
    assert border_step(stepped, mask, SPACING, within=half & (np.indices(mask.shape)[1] < 8)) < 1.5
    assert border_step(stepped, mask, SPACING, within=~half) > 4


def test_several_volumes_at_once_give_the_same(ramp):
    data, mask = ramp
    volumes = [data, data + 6 * mask]
    assert border_steps(volumes, mask, SPACING) == [border_step(each, mask, SPACING) for each in volumes]
    assert noise_levels(volumes, ~mask, SPACING) == [noise_level(each, ~mask, SPACING) for each in volumes]


def test_no_border_is_no_number(ramp):
    data, mask = ramp
    assert np.isnan(border_step(data, np.zeros_like(mask), SPACING))
    assert np.isnan(border_step(data, np.ones_like(mask), SPACING))
    assert np.isnan(noise_level(data, np.zeros_like(mask), SPACING))


@pytest.mark.parametrize("robust", [False, True])
def test_noise_level_of_white_noise(robust):
    rng = np.random.default_rng(1)
    data = rng.normal(100, 5, (40, 40, 40))
    where = np.zeros(data.shape, bool)
    where[5:35, 5:35, 5:35] = True
    data[~where] = 1e4  # must not leak in
    assert noise_level(data, where, np.ones(3), robust=robust) == pytest.approx(5, rel=0.05)
