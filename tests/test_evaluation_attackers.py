"""The trained attackers: they find what is left of a person, find nothing where nothing is, and never cheat."""

import builtins
import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from bids_cpmae.errors import InputError
from bids_cpmae.evaluation.attack import (
    ATTACKERS,
    BLANKED,
    GALLERY_VIEWS,
    HEADER,
    PEOPLE_HEADER,
    PROBE_VIEWS,
    face_crop,
    rows_of,
    skin_picture,
    split_people,
)
from bids_cpmae.evaluation.restoration import (
    RestorationOutcome,
    RestorationSettings,
    run_restoration,
    skin_errors,
    solid_head,
)
from bids_cpmae.evaluation.similarity import (
    SimilarityOutcome,
    SimilaritySettings,
    right_choices,
    run_attack,
    same_against_different,
)
from bids_cpmae.evaluation.surface import face_pixels

PEOPLE = [f"sub-{n:02d}" for n in range(28)]
TRAIN, TEST = PEOPLE[:18], PEOPLE[18:]
X, Y, Z = np.meshgrid(*(np.arange(32.0),) * 3, indexing="ij")
REGION = (Y > 12) & (abs(X - 15.5) < 12) & (abs(Z - 16) < 12)
SMALL = SimilaritySettings(steps=60, batch=18, features=(8, 16, 16), embedding=16, shift=1)
SMALL_3D = RestorationSettings(steps=48, features=(8,) * 6, peak_rate=5e-3)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(seed, noise_seed, *, views=4, size=32):
    """Pictures of somebody whose face is where the blobs of a seed lie; noise and brightness differ."""
    points = np.random.default_rng(seed).integers(6, size - 6, (views // 2, 4, 2))
    rng = np.random.default_rng([noise_seed, seed])
    out = []
    for side in points:
        for _ in range(2):
            picture = np.zeros((size, size))
            picture[tuple(side.T)] = 1
            picture = gaussian_filter(picture, 2.5)
            picture = picture / picture.max() * rng.uniform(120, 160) + rng.normal(40, 8, picture.shape)
            out.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(out)


@pytest.fixture(scope="module")
def originals():
    return {person: blobs(n, 1) for n, person in enumerate(PEOPLE)}


def attack(originals, deidentified, **more):
    return run_attack(
        originals, deidentified, **{"train_people": TRAIN, "test_people": TEST, "settings": SMALL, "seed": 0, **more}
    )


def test_the_attacker_knows_new_people_by_what_is_left_of_them(originals):
    outcome = attack(originals, {person: blobs(n, 2) for n, person in enumerate(PEOPLE)})
    assert outcome.auc > 0.9 and outcome.auc_interval[0] > 0.7 and not outcome.passes
    assert outcome.one_of_five > 0.7
    assert outcome.people == tuple(TEST) and outcome.scores.shape == (len(TEST),) * 2


def test_the_attacker_guesses_where_nothing_is_left(originals):
    outcome = attack(originals, {person: blobs(1000 + n, 2) for n, person in enumerate(PEOPLE)})
    # ten people guess within 0.5 +- 0.25, three standard deviations
    assert 0.25 < outcome.auc < 0.75 and outcome.auc_interval[0] < 0.6
    assert outcome.one_of_five < 0.6


def test_the_same_face_for_all_is_chance_exactly(originals):
    outcome = attack(originals, {person: blobs(5, 2) for person in PEOPLE}, settings=SimilaritySettings.smoke())
    assert outcome.auc == pytest.approx(0.5, abs=1e-6)
    assert outcome.one_of_five == pytest.approx(0.2, abs=0.01)


def test_attack_repeats_with_its_seed_and_survives_json(originals):
    settings = SimilaritySettings.smoke()
    first, second, other = (attack(originals, originals, settings=settings, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.scores, second.scores) and first.auc_interval == second.auc_interval
    assert not np.array_equal(first.scores, other.scores)
    stored = SimilarityOutcome.from_dict(json.loads(json.dumps(first.as_dict())))
    assert stored.as_dict() == first.as_dict() and np.array_equal(stored.scores, first.scores)


def test_right_choices_among_five():
    scores = np.tile(np.arange(8.0), (8, 1))
    np.fill_diagonal(scores, [9, 9, 9, 9, -1, -1, -1, -1])
    assert right_choices(scores).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert right_choices(np.zeros((8, 8))) == pytest.approx([0.2] * 8)
    # own above 4 of 7 others: one draw of 35 holds only those
    scores[0] = [3.5, 0, 1, 2, 3, 4, 5, 6]
    assert right_choices(scores)[0] == pytest.approx(1 / 35)


def test_auc_of_a_sample_never_pairs_a_person_with_itself():
    scores = np.where(np.eye(4, dtype=bool), 1.0, 0.0)
    assert same_against_different(scores, np.array([0, 0, 0, 1])) == 1.0
    assert same_against_different(scores, np.array([2, 2, 2, 2])) == 0.5


@pytest.mark.parametrize("run", [run_attack, lambda *pair, **more: run_restoration(*pair, REGION, **more)])
def test_who_may_be_in_training_and_test(run):
    things = dict.fromkeys(PEOPLE, np.zeros((4, 32, 32), np.uint8))

    def fails(train, test):
        with pytest.raises(InputError) as caught:
            run(things, things, train_people=train, test_people=test)
        return str(caught.value)

    assert "sub-17" in fails(TRAIN, PEOPLE[17:])
    assert "sub-99" in fails(TRAIN, [*TEST, "sub-99"])
    assert "5 people to test on" in fails(TRAIN, TEST[:5])
    assert "5 people to train on" in fails(TRAIN[:5], TEST)


def head(seed):
    """A block with a bump in front whose place and size are a person's own."""
    rng = np.random.default_rng(seed)
    high, wide, at = rng.uniform(2, 11), rng.uniform(6, 10), rng.uniform(11, 21)
    front = 14 + high * np.exp(-(((X - 15.5) / wide) ** 2 + ((Z - at) / wide) ** 2))
    return gaussian_filter(np.where(front > Y, 0.6, 0.0), 0.7).astype(np.float32)


@pytest.fixture(scope="module")
def heads():
    return {person: head(n) for n, person in enumerate(PEOPLE)}


def restore(heads, deidentified, **more):
    pytest.importorskip("monai")
    given = {"train_people": TRAIN, "test_people": TEST, "settings": SMALL_3D, "seed": 0, **more}
    return run_restoration(heads, deidentified, REGION, **given)


def test_a_face_that_is_still_there_is_restored_and_fails(heads):
    outcome = restore(heads, heads)
    assert not outcome.passes and min(outcome.gain_interval[0], outcome.own_gain_interval[0]) > 0.2
    means = [np.mean(list(one.values())) for one in (outcome.guess_mm, outcome.mean_face_mm, outcome.deidentified_mm)]
    assert means[0] < 0.6 * means[1] and means[2] == 0
    assert list(outcome.guess_mm) == TEST


def test_a_face_of_somebody_else_gives_nothing_away_and_passes(heads):
    outcome = restore(heads, {person: head(1000 + n) for n, person in enumerate(PEOPLE)})
    assert outcome.passes
    assert np.mean(list(outcome.deidentified_mm.values())) > np.mean(list(outcome.guess_mm.values()))
    stored = RestorationOutcome.from_dict(json.loads(json.dumps(outcome.as_dict())))
    assert stored == outcome


def test_restoration_repeats_with_its_seed(heads):
    settings = RestorationSettings.smoke()
    first, second = (restore(heads, heads, settings=settings, seed=2) for _ in range(2))
    assert first == second


def test_nothing_left_of_a_head_is_no_skin(heads):
    blank = dict.fromkeys(PEOPLE, np.zeros_like(X, dtype=np.float32))
    outcome = restore(heads, blank, settings=RestorationSettings.smoke())
    assert set(outcome.deidentified_mm.values()) == {None} and outcome.passes


def test_skin_error_in_mm_between_two_planes():
    near, far = Y < 14, Y < 17
    assert skin_errors(far, {"a": near, "b": far}, REGION) == {"a": pytest.approx(6.0), "b": 0.0}
    assert skin_errors(np.zeros_like(near), {"a": near}, REGION) == {"a": None}


def test_holes_are_filled_and_specks_go():
    tissue = (Y < 16) & ~((abs(X - 16) < 4) & (abs(Y - 8) < 4) & (abs(Z - 16) < 4))
    tissue[16, 8:, 16] = False
    tissue[16, 26, 16] = True
    found = solid_head(tissue)
    assert found[:, :14].all() and not found[:, 16:].any()


def test_without_monai_the_error_says_what_to_install(heads, monkeypatch):
    found = builtins.__import__

    def without(name, *more):
        if name.startswith("monai"):
            raise ModuleNotFoundError(name=name)
        return found(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"monai.*pip install"):
        run_restoration(heads, heads, REGION, train_people=TRAIN, test_people=TEST)


def test_the_people_are_split_by_the_seed_and_nobody_is_on_both_sides():
    [(train, test)] = split_people(PEOPLE, 0.35, 1)
    assert sorted(train + test) == PEOPLE and len(test) == 10
    assert split_people(PEOPLE, 0.35, 1) == [(train, test)] != split_people(PEOPLE, 0.35, 2)
    with pytest.raises(InputError, match="5 people to test on"):
        split_people(PEOPLE[:15], 0.35, 1)
    with pytest.raises(InputError, match="--test-share"):
        split_people(PEOPLE, 1.5, 1)
    with pytest.raises(InputError, match="--folds"):
        split_people(PEOPLE, 0.35, 1, folds=0)


def test_with_folds_everybody_is_tested_once_by_an_attacker_that_never_saw_them():
    splits = split_people(PEOPLE, 0, 1, folds=3)
    assert sorted(person for _, test in splits for person in test) == PEOPLE
    assert all(sorted(train + test) == PEOPLE for train, test in splits)


def test_folds_are_joined_whatever_the_scale_of_their_scores():
    rng = np.random.default_rng(0)
    sure, guessing = np.eye(8) + 0.1 * rng.random((8, 8)), 1000 + 50 * rng.random((8, 8))
    parts = [SimilarityOutcome.of(people, scores) for people, scores in (("abcdefgh", sure), ("ijklmnop", guessing))]
    found = SimilarityOutcome.joined(parts)
    assert found.people == tuple("abcdefghijklmnop") and np.isnan(found.scores[0, 8])
    assert found.one_of_five == pytest.approx(np.mean([one.one_of_five for one in parts]))
    assert 0.6 < found.auc < 0.9 and found.auc_interval[0] < found.auc < found.auc_interval[1]
    stored = SimilarityOutcome.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False)))
    np.testing.assert_array_equal(stored.scores, found.scores)
    # how large a fold's scores are does not matter
    again = SimilarityOutcome.joined([SimilarityOutcome.of(parts[0].people, 100 * sure - 7), parts[1]])
    assert again.auc == pytest.approx(found.auc)
    with pytest.raises(ValueError, match="not finite"):
        SimilarityOutcome.of(parts[0].people, sure * np.nan)


def test_restorations_of_folds_are_joined():
    one, other = (restoration_outcome(guess, 0.1, who) for guess, who in ((1.0, TEST[:3]), (2.0, TEST[3:6])))
    found = RestorationOutcome.joined([one, other])
    assert list(found.guess_mm) == TEST[:6] and found.gain_mm == pytest.approx(1.5)
    assert found.own_gain_mm == pytest.approx(2.5)
    assert 1.0 <= found.gain_interval[0] < 1.5 < found.gain_interval[1] <= 2.0


def test_no_head_is_drawn_twice_alike():
    assert not set(GALLERY_VIEWS) & set(PROBE_VIEWS) and len({*GALLERY_VIEWS, *PROBE_VIEWS}) == 12


def test_the_crop_holds_the_face_and_is_symmetric():
    affine, region = face_crop()
    assert region.sum() > 100_000 and all(n % 16 == 0 for n in region.shape)
    ends = affine @ np.array([[0, region.shape[0] - 1], [0, 0], [0, 0], [1, 1]])
    assert ends[0].sum() == pytest.approx(0)
    assert not region[:, -4:].any()


def similarity_outcome(right):
    scores = np.eye(6) if right else np.roll(np.eye(6), 1, axis=1)
    return SimilarityOutcome(1.0, (0.9 if right else 0.4, 1.0), 1.0, (1.0, 1.0), tuple(TEST[:6]), scores)


def restoration_outcome(guess, low, people=TEST[:6]):
    same = [dict.fromkeys(people, value) for value in (guess, 3.0, 4.0)]
    return RestorationOutcome(*same, dict.fromkeys(people), 3 - guess, (low, 2.0), 4 - guess, (low, 3.0), 1.0)


def test_tables_give_verdicts_and_the_controls_none():
    by_picture = {"original": similarity_outcome(True), "some": similarity_outcome(False)}
    by_volume = {
        "original": restoration_outcome(0.5, 1.0), "some": restoration_outcome(1.5, 0.5),
        BLANKED: restoration_outcome(2.5, -0.1),
    }  # fmt: skip
    by_skin = {"original": similarity_outcome(True), "some": similarity_outcome(True)}
    by_inner_skin = {"original": similarity_outcome(True), "some": similarity_outcome(False)}
    splits = [(TRAIN, TEST[:3]), (TRAIN, TEST[3:6])]
    rows, people_rows = rows_of(by_picture, by_skin, by_inner_skin, by_volume, splits, 0)
    by_name = {row[0]: dict(zip(HEADER, row, strict=True)) for row in rows}
    verdicts = {name: tuple(row[one] for one in ATTACKERS) for name, row in by_name.items()}
    assert verdicts == {
        "original": ("attacker works",) * 4, "some": ("passes", "fails", "passes", "fails"),
        BLANKED: (None, None, None, "reference"),
    }  # fmt: skip
    assert by_name["some"]["beyond_blanked_mm"] == "1.000" and by_name["some"]["deidentified_mm"] is None
    told = {(row[0], row[1]): dict(zip(PEOPLE_HEADER, row, strict=True)) for row in people_rows}
    assert told["original", TEST[0]]["rank"] == 1 and told["some", TEST[0]]["rank"] == 2
    assert told["some", TEST[4]]["inner_skin_rank"] == 2 and by_name["some"]["test_people"] == 6
    assert told["some", TEST[0]]["skin_rank"] == 1 and told["some", TEST[0]]["skin_one_of_five"] == "1.000"


def test_the_skin_attacker_sees_replaced_skin_alone_the_front_first():
    where = face_pixels()
    depth = np.stack([np.full(where.shape[1:], mm, np.float32) for mm in (40, 80, 120)])
    depth[1, :3] = np.nan
    picture = skin_picture(depth)
    assert picture.shape == where.shape and not picture[~where[[1, 0, 2]]].any()
    front, right, left = (part[shown] for part, shown in zip(picture, where[[1, 0, 2]], strict=True))
    assert set(np.round(front, 1)) <= {127.5, 255.0} and set(np.round(right, 2)) == {63.75}
    assert set(np.round(left, 2)) == {191.25}
    changed = np.where(where, depth, 7)
    np.testing.assert_array_equal(skin_picture(changed), picture)


def test_inner_skin_is_far_from_what_is_kept_and_holds_the_nose():
    where, inner = face_pixels(), face_pixels(24.0)
    assert (inner <= where).all() and 0.1 < inner.sum() / where.sum() < 0.7
    depth = np.full(where.shape, 40, np.float32)
    shown = skin_picture(depth, 24.0)[0]
    # the middle of the front view, some way above the lips, is the nose; the picture's first axis leads to the left
    across, up = shown.shape[0] // 2, np.flatnonzero(inner[1].any(0))
    assert shown[across, up[len(up) // 2]] > 0
    np.testing.assert_array_equal(skin_picture(depth, 24.0) > 0, inner[[1, 0, 2]])
