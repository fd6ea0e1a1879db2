"""What a scan's values mean: fat brighter or darker than the portrait's, there and back."""

from dataclasses import replace

import numpy as np
import pytest

from bids_cpmae.imaging.align import HeadFrame, seen_tone
from bids_cpmae.imaging.headspace import CoordinateMap, grid_points, head_affine, head_shape
from bids_cpmae.imaging.intensity import Tone, tissue_level
from bids_cpmae.imaging.template import BRAIN_BIT, load_portrait, load_template


def shown_with(factor: float) -> np.ndarray:
    """The portrait as a sequence shows it that has fat by ``factor`` brighter and muscle hardly so."""
    portrait = load_portrait()
    lit = portrait * (1 + (factor - 1) * np.clip((portrait - 0.15) / 0.25, 0, 2))
    return np.where(load_template().fine(BRAIN_BIT), portrait, lit).astype(np.float32)


@pytest.fixture(scope="module")
def blank():
    template = load_template()
    return np.repeat(np.repeat(np.repeat(template.replaced_with_air(), 2, 0), 2, 1), 2, 2)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.15])
def test_what_is_much_like_the_portrait_is_left_as_it_is(blank, factor):
    assert seen_tone(shown_with(factor) * ~blank, blank, load_template()).plain


@pytest.mark.parametrize("factor", [0.65, 2.0, 3.0])
def test_fat_is_brought_to_the_portraits_and_back(blank, factor):
    scan, portrait = shown_with(factor), load_portrait()
    brain = load_template().fine(BRAIN_BIT)
    tone = seen_tone(scan * ~blank, blank, load_template())
    points = grid_points(head_affine(4), head_shape(4)).astype(np.float32)
    same = CoordinateMap(head_affine(4), points)
    frame = HeadFrame(scan, blank, same, same, 50.0, tone)
    seen = frame.to_model(50 * scan)
    fat = ~brain & (portrait > 0.35)
    assert np.median(np.abs(seen - portrait)[fat]) < 0.3 * np.median(np.abs(scan - portrait)[fat])
    assert np.array_equal(seen[brain], portrait[brain])
    assert np.abs(frame.from_model(seen) - scan)[seen < 1].max() < 1e-4


def test_nothing_under_the_blank_is_looked_at(blank):
    scan = shown_with(2.0)
    tones = [seen_tone(np.where(blank, hidden, scan), blank, load_template()) for hidden in (0, 1)]
    assert np.array_equal(tones[0].scan, tones[1].scan) and np.array_equal(tones[0].model, tones[1].model)


def test_a_tone_rises_and_survives_its_file(blank, tmp_path):
    tone = seen_tone(shown_with(2.5) * ~blank, blank, load_template())
    assert (np.diff(tone.scan) > 0).all() and (np.diff(tone.model) > 0).all()
    points = grid_points(head_affine(4), head_shape(4)).astype(np.float32)
    same = CoordinateMap(head_affine(4), points)
    small = np.zeros((4, 4, 4), np.float32)
    frame = HeadFrame(small, small > 0, same, same, 1.0, tone)
    assert HeadFrame.load(frame.save(tmp_path / "frame.npz")).beyond is None
    kept = HeadFrame.load(replace(frame, beyond=small - 1).save(tmp_path / "frame.npz"))
    assert np.array_equal(kept.beyond, small - 1)
    assert np.array_equal(kept.tone.scan, tone.scan) and np.array_equal(kept.tone.model, tone.model)


def test_too_little_in_sight_says_nothing():
    few = np.zeros((8, 8, 8), bool)
    few[0] = True
    assert Tone.seen(np.ones(few.shape), 3 * np.ones(few.shape), few).plain


@pytest.mark.parametrize("noise", [2, 20, 45, 80])
def test_typical_tissue_is_no_noise(noise):
    head, rng = 600 * load_template().grid.data, np.random.default_rng(0)
    real, imaginary = noise * rng.standard_normal((2, *head.shape))
    assert abs(tissue_level(np.hypot(head + real, imaginary).ravel()) / tissue_level(head.ravel()) - 1) < 0.15


def test_no_values_have_no_tissue():
    assert tissue_level(np.zeros(0)) == 0 and tissue_level(np.zeros(9)) == 0
