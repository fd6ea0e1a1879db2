"""``cpmae evaluate attack``: attackers who learn, on some people, what a method leaves behind, and meet others.

One says whether two drawn heads are the same person (`bids_cpmae.evaluation.similarity`), one whether two skins are,
seen only where face mode replaces them, one the same, seen only far from what face mode keeps, and one guesses the
original face (`bids_cpmae.evaluation.restoration`). Originals in place of de-identified heads show whether an attacker
works at all: where it does not, passing it says nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bids_cpmae import __version__
from bids_cpmae.errors import ExitCode, InputError, ScanError
from bids_cpmae.evaluation import restoration, similarity
from bids_cpmae.evaluation.datasets import ORIGINAL, Comparison, add_comparison_arguments, open_comparison
from bids_cpmae.evaluation.restoration import RestorationOutcome, RestorationSettings
from bids_cpmae.evaluation.similarity import SimilarityOutcome, SimilaritySettings, check_people, right_choices
from bids_cpmae.evaluation.tables import print_table, write_tsv
from bids_cpmae.imaging.facemask import coarse_scan
from bids_cpmae.imaging.headspace import CoordinateMap, head_affine
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.rendering import View
from bids_cpmae.imaging.resample import resample
from bids_cpmae.processes import one_thread

LOG = logging.getLogger("bids_cpmae")
ATTACKERS = ("similarity", "skin", "inner-skin", "restoration")
BLANKED = "blanked"
TEST_SHARE = 0.35
Split = tuple[list[str], list[str]]  # whom to train on, and whom to test
SIZE = 96
# depth maps of the skin in mm: what is drawn of them, and the order in which the network for pictures wants them
DEEPEST_MM, SKIN_SIDES = 160.0, (1, 0, 2)
# new skin meets the old one where it ends, so that whoever holds the old one finds it there; this far from it skin is
# the new face's own
INNER_MM = 24.0
# an original is shown to the network as another look at the same head would show it: nearer or further, and noisy
ANOTHER_LOOK_MM, LOOK_NOISE_MM = 2.0, 1.0
# yaw, pitch and light; three from the front, then three from the side. The same head is never drawn twice alike
GALLERY_POSES = (
    (0, 0, (0.2, 0.5, 1)), (8, -4, (-0.2, 0.4, 1)), (-8, 3, (0.5, 0.3, 1)),
    (90, 0, (0.2, 0.5, 1)), (82, 3, (-0.3, 0.4, 1)), (97, -3, (0.4, 0.2, 1)),
)  # fmt: skip
PROBE_POSES = (
    (4, 4, (-0.4, 0.3, 1)), (-5, -3, (0.3, 0.7, 1)), (11, 1, (0, 0.2, 1)),
    (86, -4, (-0.4, 0.3, 1)), (94, 4, (0.3, 0.7, 1)), (78, 0, (0, 0.2, 1)),
)  # fmt: skip
GALLERY_VIEWS, PROBE_VIEWS = (
    tuple(View(yaw=yaw, pitch=pitch, light=light, size=SIZE) for yaw, pitch, light in poses)
    for poses in (GALLERY_POSES, PROBE_POSES)
)
HEADER = (
    "method", "train_people", "test_people", "auc", "auc_low", "auc_high", "one_of_five", "one_of_five_low",
    "one_of_five_high", "similarity", "skin_auc", "skin_auc_low", "skin_auc_high", "skin_one_of_five",
    "skin_one_of_five_low", "skin_one_of_five_high", "skin",
    "inner_skin_auc", "inner_skin_auc_low", "inner_skin_auc_high", "inner_skin_one_of_five",
    "inner_skin_one_of_five_low", "inner_skin_one_of_five_high", "inner-skin",
    "guess_mm", "mean_face_mm", "stranger_mm", "deidentified_mm", "gain_mm", "gain_low", "gain_high",
    "own_gain_mm", "own_gain_low", "own_gain_high", "beyond_blanked_mm", "beyond_blanked_low", "beyond_blanked_high",
    "restoration",
)  # fmt: skip
PEOPLE_HEADER = (
    "method", "participant_id", "one_of_five", "rank", "skin_one_of_five", "skin_rank",
    "inner_skin_one_of_five", "inner_skin_rank", "guess_mm", "mean_face_mm", "stranger_mm", "deidentified_mm",
)  # fmt: skip
TEXT = """Each attacker is trained for each method on {train} people and tested on {test} others{folds}.
similarity: AUC of the same against different people (guessing: 0.5), and how often the original is chosen among five
(guessing: 0.2). A method passes when the lower end of the interval of the AUC does not exceed 0.5.
skin: the same network, shown how deep the skin lies from the front and both sides, where face mode replaces it alone;
heads are brought together by their brains, size kept.
inner-skin: the same, shown only skin further than {inner:.0f} mm from what is kept, as it is seen: at the border new
skin meets the old one.
restoration: mean distance in mm to the original's skin where the face was replaced. A method passes unless the guess is
nearer than the mean face of the training people and nearer than guesses for other people. The line `blanked` is the
guess from the head around the face alone: beyond_blanked_mm is how much nearer the guess from the method is.
On the line `original` nothing was done to the face; where the attacker does not find the people there, its verdicts
say nothing. Intervals are 95 % by bootstrap over people. Both versions of a head come from one scan: whoever has
another scan of the person will do worse. Stronger attackers may exist: passing is no proof of anonymity."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate attack``."""
    add_comparison_arguments(parser)
    parser.add_argument(
        "--attackers", nargs="+", default=ATTACKERS, choices=ATTACKERS, help="which to train (default: all)"
    )
    parser.add_argument(
        "--test-share", "--test_share", type=float, default=TEST_SHARE, metavar="SHARE",
        help="of the people who are tested on, all others are trained on (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--folds", type=int, default=1, metavar="N",
        help="test everybody, in N parts, each by attackers trained on the others; --test-share then has no say",
    )  # fmt: skip
    parser.add_argument(
        "--smoke", action="store_true", help="train a few steps only, to see that all runs; the numbers mean nothing"
    )


def split_people(
    people: Sequence[str], test_share: float, seed: int, *, folds: int = 1
) -> list[Split]:  # fmt: skip
    """Who is trained on and who is tested on, drawn by the seed, each in their old order.

    Parameters
    ----------
    people : sequence of str
    test_share : float
        Of the people, where there is one fold.
    seed : int
    folds : int
        With more than one, everybody is tested in one of them.

    Returns
    -------
    list of (train, test)
        One for each fold.

    Raises
    ------
    InputError
        When the share is not between 0 and 1, there is no fold, or either side has too few.
    """
    if folds == 1 and not 0 < test_share < 1:
        raise InputError(f"--test-share {test_share}: give a number between 0 and 1", ExitCode.USAGE)
    if folds < 1:
        raise InputError(f"--folds {folds}: give 1 or more", ExitCode.USAGE)
    order = np.random.default_rng([seed, 13]).permutation(len(people))
    parts = [order[: round(test_share * len(people))]] if folds == 1 else np.array_split(order, folds)
    splits = []
    for tested in (set(part.tolist()) for part in parts):
        train = [person for number, person in enumerate(people) if number not in tested]
        test = [person for number, person in enumerate(people) if number in tested]
        check_people(train, test, people)
        splits.append((train, test))
    return splits


def face_crop() -> tuple[np.ndarray, np.ndarray]:
    """The part of the 2 mm head-space grid around the template's face.

    Returns
    -------
    affine : ndarray (4, 4)
        Voxel index to head space, RAS+ mm.
    region : ndarray (X, Y, Z), bool
        True = face. Sides are multiples of 16; the middle of X is the middle of the head.
    """
    from bids_cpmae.imaging.template import SPACING, load_template

    face = load_template().replaced(("face",))
    found = np.argwhere(face)
    low, high = found.min(0), found.max(0) + 1
    sides = 16 * np.ceil((high - low + 1) / 16).astype(int)
    start = np.clip(low - (sides - (high - low)) // 2, 0, np.array(face.shape) - sides)
    affine = head_affine(SPACING)
    affine[:3, 3] += SPACING * start
    return affine, face[tuple(slice(a, a + n) for a, n in zip(start, sides))]


def _digest(*parts: bytes | str) -> str:
    joined = b"".join(hashlib.sha256(p if isinstance(p, bytes) else p.encode()).digest() for p in parts)
    return hashlib.sha256(joined).hexdigest()[:32]


@lru_cache(maxsize=1)
def _code() -> str:
    """Changes with the code that attacks, and with what it aligns heads by."""
    from bids_cpmae.imaging import align, facemask, headspace, intensity, registration, template
    from bids_cpmae.imaging import resample as resampling

    modules = (restoration, similarity, align, facemask, headspace, intensity, registration, resampling, template)
    files = [Path(__file__), *(Path(module.__file__) for module in modules)]
    files.append(Path(template.__file__).resolve().parents[1] / "data" / "template.npz")
    return _digest(*(file.read_bytes() for file in files))


@dataclass(frozen=True)
class FaceCrops:
    """Heads on the common grid around the face, remembered in ``work``; a frame is made once for all versions.

    The registration never sees a face: it runs on the original with what the mask of face mode covers blanked.
    """

    comparison: Comparison

    def __call__(self, person: str, path: Path | None) -> np.ndarray:
        """A version of a person, (X, Y, Z) float16, intensities 0 to 1; None for the original with the face blanked.

        Raises
        ------
        InputError
            When the scan cannot be read or aligned.
        """
        original = self.comparison.originals[person]
        content = BLANKED if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
        folder = self.comparison.work / "attack" / "crops"
        key = _digest(original.read_bytes(), content, _code(), str(self.comparison.seed))
        place = folder / f"{key}.npy"
        if not place.is_file():
            try:
                crop = self._made(person, original, path)
            except ScanError as error:
                raise InputError(f"{path or original}: {error}", ExitCode.DATA) from error
            folder.mkdir(parents=True, exist_ok=True)
            partial = place.with_suffix(".part.npy")
            np.save(partial, crop)
            partial.replace(place)
        return np.load(place)

    def _made(self, person: str, original: Path, path: Path | None) -> np.ndarray:
        to_scan, scale = self._frame(person, original)
        source = load_source(path or original)
        data = source.data if path else np.where(self.comparison.face(person), 0, source.data)
        scan = coarse_scan(data, source.affine)
        affine, region = face_crop()
        crop = resample(scan.data, scan.affine, affine, region.shape, through=to_scan)
        return np.clip(crop / scale, 0, 1).astype(np.float16)

    def _frame(self, person: str, original: Path) -> tuple[CoordinateMap, float]:
        key = _digest(original.read_bytes(), _code(), str(self.comparison.seed))
        place = self.comparison.work / "attack" / "frames" / f"{key}.npz"
        if not place.is_file():
            from bids_cpmae.imaging.align import align_blanked

            frame = align_blanked(load_source(original), self.comparison.face(person), seed=self.comparison.seed)
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_suffix(".part.npz")
            np.savez(partial, affine=frame.to_scan.affine, points=frame.to_scan.points, scale=frame.scale)
            partial.replace(place)
        with np.load(place) as stored:
            return CoordinateMap(stored["affine"], stored["points"]), float(stored["scale"])


def _crop_person(task: tuple[FaceCrops, str, tuple[Path | None, ...]]) -> None:
    crops, person, paths = task
    for path in paths:
        crops(person, path)


def _crop_all(crops: FaceCrops, nprocs: int) -> None:
    """Make all versions of everybody beforehand, several people at a time."""
    comparison = crops.comparison
    tasks = [
        (crops, person, (*(scans[person] for scans in comparison.methods.values()), None))
        for person in comparison.people
    ]
    with ProcessPoolExecutor(max(1, nprocs), mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        for number, _ in enumerate(pool.map(_crop_person, tasks), 1):
            if number % 5 == 0 or number == len(tasks):
                LOG.info("restoration: %d of %d people aligned", number, len(tasks))


def _remembered(work: Path, kind: type, arrays: Sequence[np.ndarray], said: dict, run: Callable):
    """The outcome of a run on just these arrays and settings, out of ``work`` if it is there."""
    key = _digest(json.dumps(said, sort_keys=True), _code(), *(np.ascontiguousarray(one).tobytes() for one in arrays))
    place = work / "attack" / "outcomes" / f"{kind.__name__}_{key}.json"
    if place.is_file():
        return kind.from_dict(json.loads(place.read_text(encoding="utf-8")))
    outcome = run()
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".part")
    partial.write_text(json.dumps(outcome.as_dict()) + "\n", encoding="utf-8")
    partial.replace(place)
    return outcome


def _told_apart(
    comparison: Comparison,
    splits: list[Split],
    settings: SimilaritySettings,
    gallery: dict[str, np.ndarray],
    probes: dict[str, np.ndarray],
) -> SimilarityOutcome:
    """How well the network tells whose probe is whose in the gallery; both hold pictures by person."""
    return SimilarityOutcome.joined([
        _remembered(
            comparison.work, SimilarityOutcome, [*gallery.values(), *probes.values()],
            {"settings": settings.as_dict(), "train": train, "test": test, "seed": comparison.seed},
            lambda train=train, test=test: similarity.run_attack(
                gallery, probes, train_people=train, test_people=test, settings=settings, seed=comparison.seed
            ),
        )
        for train, test in splits
    ], seed=comparison.seed)  # fmt: skip


def attack_similarity(
    comparison: Comparison, splits: list[Split], settings: SimilaritySettings, *, nprocs: int = 1
) -> dict[str, SimilarityOutcome]:
    """Draw everybody and train the attacker for each method, the original in other poses and lights among them."""
    from bids_cpmae.evaluation.album import Album, draw_all

    album, people = Album(comparison.work), comparison.people
    own = {person: comparison.methods[ORIGINAL][person] for person in people}
    draw_all(album, own, GALLERY_VIEWS + PROBE_VIEWS, nprocs=nprocs, what=ORIGINAL)
    gallery = {person: album(path, GALLERY_VIEWS) for person, path in own.items()}
    outcomes = {}
    for name, scans in comparison.methods.items():
        scans = {person: scans[person] for person in people}
        if name != ORIGINAL:
            draw_all(album, scans, PROBE_VIEWS, nprocs=nprocs, what=name)
        probes = {person: album(path, PROBE_VIEWS) for person, path in scans.items()}
        LOG.info("similarity against %s", name)
        outcomes[name] = _told_apart(comparison, splits, settings, gallery, probes)
    return outcomes


def skin_picture(depth: np.ndarray, beyond_mm: float = 0.0) -> np.ndarray:
    """The replaced part of depth maps (3, U, V) in mm as pictures (3, U, V), 0 to 255, from the front first.

    Where a ray meets nothing it is as deep as can be; skin that face mode leaves, or that lies no further than
    ``beyond_mm`` from it, is not drawn.
    """
    from bids_cpmae.evaluation.surface import face_pixels

    deep = np.clip(np.nan_to_num(depth, nan=DEEPEST_MM) / DEEPEST_MM, 0, 1)
    return 255 * np.where(face_pixels(beyond_mm), deep, 0)[list(SKIN_SIDES)].astype(np.float32)


def another_look(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Depth maps (3, U, V) in mm as of another scan of the same head, laid a little amiss."""
    aside = rng.integers(-1, 2, 2)
    moved = np.roll(depth, aside, axis=(1, 2)) + rng.uniform(-ANOTHER_LOOK_MM, ANOTHER_LOOK_MM)
    return moved + LOOK_NOISE_MM * rng.standard_normal(depth.shape)


def skin_depths(comparison: Comparison, *, nprocs: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """Depth maps (3, U, V) in mm of everybody's skin, by method and person."""
    from bids_cpmae.evaluation.survey import Surveyor, measure_depths

    surveyor = Surveyor(comparison.work)
    measure_depths(surveyor, [path for scans in comparison.methods.values() for path in scans.values()], nprocs=nprocs)
    return {
        name: {person: surveyor.depth(scans[person]) for person in comparison.people}
        for name, scans in comparison.methods.items()
    }


def attack_skin(
    comparison: Comparison, splits: list[Split], settings: SimilaritySettings, depths: dict[str, dict[str, np.ndarray]],
    *, beyond_mm: float = 0.0,
) -> dict[str, SimilarityOutcome]:  # fmt: skip
    """Train the attacker for each method on ``depths`` (see `skin_depths`) where face mode replaces skin.

    ``beyond_mm`` as for `skin_picture`.
    """
    rng = np.random.default_rng(comparison.seed)
    own = {person: skin_picture(depth, beyond_mm) for person, depth in depths[ORIGINAL].items()}
    outcomes = {}
    for name, found in depths.items():
        LOG.info("skin of %s", name)
        seen = {person: another_look(depth, rng) for person, depth in found.items()} if name == ORIGINAL else found
        probes = {person: skin_picture(depth, beyond_mm) for person, depth in seen.items()}
        outcomes[name] = _told_apart(comparison, splits, settings, own, probes)
    return outcomes


def attack_restoration(
    comparison: Comparison, splits: list[Split], settings: RestorationSettings, *, nprocs: int = 1
) -> dict[str, RestorationOutcome]:
    """Align everybody and train the attacker for each method, the blanked original last."""
    restoration.RestorationNetwork(settings)  # complain of a missing package before an hour of alignment
    crops, people = FaceCrops(comparison), comparison.people
    _crop_all(crops, nprocs)
    _, region = face_crop()
    originals = {person: crops(person, comparison.originals[person]).astype(np.float32) for person in people}
    outcomes = {}
    for name, scans in {**comparison.methods, BLANKED: dict.fromkeys(people)}.items():
        versions = {person: crops(person, scans[person]).astype(np.float32) for person in people}
        LOG.info("restoration against %s", name)
        outcomes[name] = RestorationOutcome.joined([
            _remembered(
                comparison.work, RestorationOutcome, [*originals.values(), *versions.values(), region],
                {"settings": settings.as_dict(), "train": train, "test": test, "seed": comparison.seed},
                lambda train=train, test=test, versions=versions: restoration.run_restoration(
                    originals, versions, region,
                    train_people=train, test_people=test, settings=settings, seed=comparison.seed,
                ),
            )
            for train, test in splits
        ], seed=comparison.seed)  # fmt: skip
    return outcomes


def _verdict(name: str, passes: bool) -> str:
    if name == ORIGINAL:
        return "attacker too weak" if passes else "attacker works"
    if name == BLANKED:
        return "reference"
    return "passes" if passes else "fails"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _mean(values: dict[str, float | None]) -> float | None:
    known = [value for value in values.values() if value is not None]
    return float(np.mean(known)) if known else None


def _beyond_blanked(found: RestorationOutcome, blanked: RestorationOutcome, seed: int) -> tuple[float, float, float]:
    """How much nearer the guess is than from the head around the face alone, in mm, with its interval."""
    from bids_cpmae.evaluation.statistics import bootstrap_interval

    gains = np.array([blanked.guess_mm[person] - guess for person, guess in found.guess_mm.items()])
    return (float(gains.mean()), *bootstrap_interval(gains, seed=seed))


def _similarity_cells(name: str, found: SimilarityOutcome | None) -> list:
    if not found:
        return [None] * 7
    numbers = (found.auc, *found.auc_interval, found.one_of_five, *found.one_of_five_interval)
    return [*map(_number, numbers), _verdict(name, found.passes)]


def _choices_and_ranks(found: SimilarityOutcome | None) -> dict[str, tuple]:
    """By person, the share of right choices among five and the rank of the own original."""
    if not found:
        return {}
    ranks = 1 + (found.scores > np.diag(found.scores)[:, None]).sum(1)
    return {
        person: (_number(choice), rank)
        for person, choice, rank in zip(found.people, right_choices(found.scores), ranks, strict=True)
    }


def rows_of(
    by_picture: dict[str, SimilarityOutcome],
    by_skin: dict[str, SimilarityOutcome],
    by_inner_skin: dict[str, SimilarityOutcome],
    by_volume: dict[str, RestorationOutcome],
    splits: list[Split],
    seed: int,
) -> tuple[list[tuple], list[tuple]]:
    """The lines of the two tables: a method each, and a method and tested person each."""
    rows, people_rows, tested = [], [], [person for _, test in splits for person in test]
    for name in dict.fromkeys([*by_picture, *by_skin, *by_inner_skin, *by_volume]):
        alike = [found.get(name) for found in (by_picture, by_skin, by_inner_skin)]
        restored = by_volume.get(name)
        more: list = [None] * 14
        if restored:
            distances = (
                restored.guess_mm, restored.mean_face_mm, restored.stranger_mm, restored.deidentified_mm
            )  # fmt: skip
            more = [_number(_mean(one)) for one in distances]
            more += map(_number, (restored.gain_mm, *restored.gain_interval))
            more += map(_number, (restored.own_gain_mm, *restored.own_gain_interval))
            more += map(_number, _beyond_blanked(restored, by_volume[BLANKED], seed))
            more.append(_verdict(name, restored.passes))
        cells = [cell for found in alike for cell in _similarity_cells(name, found)]
        rows.append((name, len(splits[0][0]), len(tested), *cells, *more))
        known = [_choices_and_ranks(found) for found in alike]
        for person in tested:
            seen = [cell for one in known for cell in one.get(person, (None, None))]
            millimetres = [_number(one[person]) for one in distances] if restored else [None] * 4
            people_rows.append((name, person, *seen, *millimetres))
    return rows, people_rows


def _versions() -> dict[str, str]:
    import scipy
    import torch

    found = {
        "bids_cpmae": __version__, "numpy": np.__version__, "scipy": scipy.__version__, "torch": torch.__version__,
    }  # fmt: skip
    try:
        import monai
    except ModuleNotFoundError:
        return found
    return {**found, "monai": monai.__version__}


def _figures(
    by_picture: dict[str, SimilarityOutcome],
    by_skin: dict[str, SimilarityOutcome],
    by_inner_skin: dict[str, SimilarityOutcome],
    by_volume: dict[str, RestorationOutcome],
) -> list:
    """AUC of the networks, and distances to the original's skin, by method; numbers alone, no face."""
    from matplotlib.figure import Figure

    figures = []
    seen = {"pictures of the head": by_picture, "replaced skin": by_skin, "inner skin": by_inner_skin}
    for title, outcomes in seen.items():
        if not outcomes:
            continue
        figure = Figure(figsize=(7, 1 + 0.4 * len(outcomes)), layout="constrained")
        axes = figure.subplots()
        for place, found in enumerate(outcomes.values()):
            axes.plot(found.auc_interval, (place, place), color="tab:blue")
            axes.plot(found.auc, place, "o", color="tab:blue")
        axes.axvline(0.5, color="grey", linestyle="--")
        axes.set(xlabel=f"AUC by {title}, same against different people (0.5 is guessing)", yticks=range(len(outcomes)))
        axes.set_yticklabels(outcomes)
        axes.invert_yaxis()
        figures.append(figure)
    if by_volume:
        figure = Figure(figsize=(7, 1 + 0.4 * len(by_volume)), layout="constrained")
        axes = figure.subplots()
        for name, colour in (("guess", "tab:red"), ("mean_face", "grey"), ("deidentified", "tab:blue")):
            means = [_mean(getattr(found, f"{name}_mm")) for found in by_volume.values()]
            known = [(mean, place) for place, mean in enumerate(means) if mean is not None]
            axes.plot(*zip(*known), "o", color=colour, label=name.replace("_", " "))
        axes.set(xlabel="distance to the original's skin (mm)", yticks=range(len(by_volume)))
        axes.set_yticklabels(by_volume)
        axes.invert_yaxis()
        axes.legend()
        figures.append(figure)
    return figures


def main(args: argparse.Namespace) -> int:
    """Train and test all attackers, write attack.tsv, attack_people.tsv, attack.json and attack.html, and print."""
    from bids_cpmae.evaluation.page import Section, Table, write_page

    comparison = open_comparison(args)
    splits = split_people(comparison.people, args.test_share, args.seed, folds=args.folds)
    settings = {
        name: kind.smoke() if args.smoke else kind()
        for name, kind in (
            ("similarity", SimilaritySettings), ("skin", SimilaritySettings), ("inner-skin", SimilaritySettings),
            ("restoration", RestorationSettings),
        )
        if name in args.attackers
    }  # fmt: skip
    by_picture, by_volume = {}, {}
    by_skin: dict[str, dict] = {"skin": {}, "inner-skin": {}}
    if "similarity" in settings:
        by_picture = attack_similarity(comparison, splits, settings["similarity"], nprocs=args.nprocs)
    depths = skin_depths(comparison, nprocs=args.nprocs) if by_skin.keys() & settings.keys() else {}
    for name, beyond_mm in (("skin", 0.0), ("inner-skin", INNER_MM)):
        if name in settings:
            settings[name] = replace(settings[name], sides=len(SKIN_SIDES))
            by_skin[name] = attack_skin(comparison, splits, settings[name], depths, beyond_mm=beyond_mm)
    if "restoration" in settings:
        by_volume = attack_restoration(comparison, splits, settings["restoration"], nprocs=args.nprocs)
    outcomes = (by_picture, *by_skin.values(), by_volume)
    rows, people_rows = rows_of(*outcomes, splits, args.seed)
    write_tsv(comparison.out / "attack.tsv", HEADER, rows)
    write_tsv(comparison.out / "attack_people.tsv", PEOPLE_HEADER, people_rows)
    described = {
        "attackers": list(settings),
        "settings": {name: one.as_dict() for name, one in settings.items()},
        "smoke": args.smoke, "seed": args.seed, "inner_mm": INNER_MM,
        "folds": [{"train_people": train, "test_people": test} for train, test in splits],
        "gallery_views": [view.as_dict() for view in GALLERY_VIEWS],
        "probe_views": [view.as_dict() for view in PROBE_VIEWS],
        "code_sha256": _code(), "versions": _versions(),
        "similarity": {name: outcome.as_dict() for name, outcome in by_picture.items()},
        **{kind: {name: outcome.as_dict() for name, outcome in found.items()} for kind, found in by_skin.items()},
        "restoration": {name: outcome.as_dict() for name, outcome in by_volume.items()},
    }  # fmt: skip
    (comparison.out / "attack.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    text = TEXT.format(
        train=len(splits[0][0]), test=len(splits[0][1]), inner=INNER_MM,
        folds="" if len(splits) == 1 else f", or one less, in {len(splits)} parts; ranks and choices are within a part",
    )  # fmt: skip
    tables = [Table("By method", HEADER, rows), Table("By person", PEOPLE_HEADER, people_rows)]
    figures = _figures(*outcomes)
    section = Section("Attackers", text, tables, figures)
    write_page(comparison.out / "attack.html", "Attackers who learn", [section])
    print_table(HEADER, rows)
    return 0
