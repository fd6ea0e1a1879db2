"""An attacker who restores faces: a 3-D network that learns to undo a method (after arXiv 2501.18834).

It is shown de-identified heads of some people beside their originals and then guesses the skin of others. Whoever
knows nothing about a person guesses the mean face; a method passes when the network cannot be shown to do better. A
network that has only found a better guess for everybody knows nobody either, so that its guess must also be nearer to
the person's face than its guesses for others are. The head around the replaced face is no secret: what that alone
tells is measured by running the same attack on originals with the face blanked.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, label
from torch import nn

from bids_cpmae.errors import ExitCode, InputError
from bids_cpmae.evaluation.similarity import check_people
from bids_cpmae.imaging.facemask import signed_distance
from bids_cpmae.imaging.skin import THRESHOLD_SHARE, otsu_threshold

LOG = logging.getLogger("bids_cpmae")
SPACING_MM = 2.0
CLOSING_MM = 4.0
FAR_MM = 10.0
NEAR_SKIN_MM = 5.0
NEAR_REGION = 4
TAKE_OVER_PACE = 10.0
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CHECKS = 8
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class RestorationSettings:
    """How the network is built and trained.

    Attributes
    ----------
    steps, batch : int
    features : tuple of int
        The six of MONAI's BasicUNet; multiples of 4.
    peak_rate, weight_decay : float
        Of AdamW.
    """

    steps: int = 160
    batch: int = 2
    features: tuple[int, ...] = (24, 24, 32, 48, 64, 24)
    peak_rate: float = 2e-3
    weight_decay: float = 0.01

    @classmethod
    def smoke(cls) -> RestorationSettings:
        """So short that it only shows that everything runs."""
        return cls(steps=4, batch=1, features=(8,) * 6)

    def as_dict(self) -> dict:
        """The settings, fit for JSON."""
        return {**asdict(self), "features": list(self.features)}


@dataclass(frozen=True)
class RestorationOutcome:
    """How near the attacker comes to the faces of people it was not trained on.

    Attributes
    ----------
    guess_mm, mean_face_mm, stranger_mm, deidentified_mm : dict of str to float or None
        Mean distance in mm from the skin of each tested person's original, where it was replaced, to the skin of the
        network's guess, of the mean face of the training people, of its guesses for other people (mean over them), and
        of the de-identified head. None without any skin.
    gain_mm, own_gain_mm : float
        How much nearer the guess is than the mean face, and than guesses for others; mean over people.
    gain_interval, own_gain_interval : tuple of float
        95 % intervals by paired bootstrap over people.
    share : float
        Of the network's change to the mean face that served people held out of the training best; 0 says that it
        learned nothing that holds for others.
    """

    guess_mm: dict[str, float]
    mean_face_mm: dict[str, float]
    stranger_mm: dict[str, float]
    deidentified_mm: dict[str, float | None]
    gain_mm: float
    gain_interval: tuple[float, float]
    own_gain_mm: float
    own_gain_interval: tuple[float, float]
    share: float

    @classmethod
    def of(
        cls, guess: dict[str, float], mean_face: dict[str, float], stranger: dict[str, float],
        deidentified: dict[str, float | None], share: float, *, seed: int = 0,
    ) -> RestorationOutcome:  # fmt: skip
        """What distances by person say; ``seed`` is the bootstrap's."""
        from bids_cpmae.evaluation.statistics import bootstrap_interval

        gains, own_gains = (
            np.array([reference[person] - guess[person] for person in guess]) for reference in (mean_face, stranger)
        )
        return cls(
            guess, mean_face, stranger, deidentified,
            float(gains.mean()), bootstrap_interval(gains, seed=seed),
            float(own_gains.mean()), bootstrap_interval(own_gains, seed=seed), share,
        )  # fmt: skip

    @classmethod
    def joined(cls, outcomes: Sequence[RestorationOutcome], *, seed: int = 0) -> RestorationOutcome:
        """The outcomes of networks that were tested on different people, as one; ``share`` is their mean."""
        names = ("guess_mm", "mean_face_mm", "stranger_mm", "deidentified_mm")
        tables = ({who: mm for one in outcomes for who, mm in getattr(one, name).items()} for name in names)
        return cls.of(*tables, float(np.mean([one.share for one in outcomes])), seed=seed)

    @property
    def passes(self) -> bool:
        """True when the guess is not shown to be better than the mean face and than guesses for others."""
        return min(self.gain_interval[0], self.own_gain_interval[0]) <= 0

    def as_dict(self) -> dict:
        """Everything, fit for JSON."""
        intervals = {name: list(getattr(self, name)) for name in ("gain_interval", "own_gain_interval")}
        return {**asdict(self), **intervals, "passes": self.passes}

    @classmethod
    def from_dict(cls, stored: dict) -> RestorationOutcome:
        """Read what `as_dict` gave."""
        fields = {name: value for name, value in stored.items() if name != "passes"}
        intervals = {name: tuple(stored[name]) for name in ("gain_interval", "own_gain_interval")}
        return cls(**{**fields, **intervals})


def solid_head(tissue: np.ndarray) -> np.ndarray:
    """The head without its holes: all that no air from the front can reach through gaps wider than 8 mm.

    Parameters
    ----------
    tissue : ndarray (X, Y, Z), bool
        2 mm, RAS+, so that the last plane of Y lies in front.

    Returns
    -------
    ndarray (X, Y, Z), bool
        Its largest connected part.
    """
    if not tissue.any():
        return tissue
    open_air, _ = label(distance_transform_edt(~tissue, sampling=SPACING_MM) > CLOSING_MM)
    outside = np.isin(open_air, np.setdiff1d(open_air[:, -1], [0]))
    if not outside.any():
        return np.ones_like(tissue)
    parts, _ = label(distance_transform_edt(~outside, sampling=SPACING_MM) > CLOSING_MM)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def skin(solid: np.ndarray) -> np.ndarray:
    """Voxels of a solid head that touch its outside; the edge of the volume is no skin."""
    return solid & ~binary_erosion(solid, border_value=1)


def skin_errors(guess: np.ndarray, originals: dict[str, np.ndarray], region: np.ndarray) -> dict[str, float | None]:
    """Mean distance in mm from each original's skin in a region to the nearest skin of a guess.

    Parameters
    ----------
    guess : ndarray (X, Y, Z), bool
        Solid head.
    originals : dict of str to ndarray (X, Y, Z), bool
        Solid heads by person.
    region : ndarray (X, Y, Z), bool
        True = replaced.

    Returns
    -------
    dict of str to float or None
        None for everybody when the guess has no skin.
    """
    guessed = skin(guess)
    if not guessed.any():
        return dict.fromkeys(originals)
    distance = distance_transform_edt(~guessed, sampling=SPACING_MM)
    return {person: float(distance[skin(solid) & region].mean()) for person, solid in originals.items()}


def tissue_threshold(volume: np.ndarray) -> float:
    """The intensity above which there is tissue, found as in the drawings."""
    return THRESHOLD_SHARE * otsu_threshold(np.clip(volume, 0, np.percentile(volume, 98)))


class RestorationNetwork(nn.Module):
    """A U-Net at half the resolution, its voxels folded into channels, that changes the mean face.

    It starts with the mean face and can only get away from it by what it learns. How much of the de-identified skin
    to take over is one number, so that a face that is still there is found at once.
    """

    CHANNELS = 3  # de-identified intensity, its distance to skin, the mean face's

    def __init__(self, settings: RestorationSettings) -> None:
        super().__init__()
        try:
            from monai.networks.nets import BasicUNet
        except ModuleNotFoundError as error:
            raise InputError("the restoring attacker needs monai; pip install 'bids_cpmae[evaluate]'") from error

        self.network = BasicUNet(
            3, in_channels=8 * self.CHANNELS, out_channels=8, features=settings.features,
            norm=("group", {"num_groups": 4}),
        )  # fmt: skip
        nn.init.zeros_(self.network.final_conv.weight)
        nn.init.zeros_(self.network.final_conv.bias)
        self.taken_over = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, 3, X, Y, Z)`` to the change of the mean face's distance ``(B, X, Y, Z)``, in units of `FAR_MM`."""
        skin_change = x[:, 1] - x[:, 2]
        batch, channels, *size = x.shape
        halves = [n // 2 for n in size]
        x = x.reshape(batch, channels, halves[0], 2, halves[1], 2, halves[2], 2)
        x = x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, 8 * channels, *halves)
        x = self.network(x).reshape(batch, 2, 2, 2, *halves)
        change = x.permute(0, 4, 1, 5, 2, 6, 3).reshape(batch, *size)
        return change + TAKE_OVER_PACE * self.taken_over * skin_change


def _distance(solid: np.ndarray) -> np.ndarray:
    """Signed distance to the skin in units of `FAR_MM`, -1 deep inside to 1 far outside."""
    return np.clip(signed_distance(solid, SPACING_MM) / FAR_MM, -1, 1)


@dataclass
class _Faces:
    """What the network sees and should answer: tensors on one grid, distances in units of `FAR_MM`."""

    seen: dict[str, torch.Tensor]
    wanted: dict[str, torch.Tensor]
    mean: torch.Tensor
    near: torch.Tensor

    def weighted_error(self, guess: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Mean difference of distances in and around the region, above all near the wanted skin."""
        weight = self.near * (1 + 4 * (wanted.abs() < NEAR_SKIN_MM / FAR_MM))
        return (weight * (guess.clamp(-1, 1) - wanted).abs()).sum() / weight.sum()


def _prepare(originals, deidentified, region, shown, people, threshold):
    """Solid originals and de-identified heads by person, and the `_Faces` made of them; the mean face is of ``shown``.

    Of the held-out people's faces nothing may be known, or the mean looks better on them than on strangers.
    """
    solids, solids_deidentified = (
        {person: solid_head(volumes[person] > threshold) for person in people} for volumes in (originals, deidentified)
    )
    wanted = {person: torch.from_numpy(_distance(solid)) for person, solid in solids.items()}
    mean = torch.stack([wanted[person] for person in shown]).mean(0)
    seen = {
        person: torch.stack([torch.from_numpy(deidentified[person]), torch.from_numpy(_distance(solid)), mean])
        for person, solid in solids_deidentified.items()
    }
    near = torch.from_numpy(binary_dilation(region, iterations=NEAR_REGION)).float()
    return solids, solids_deidentified, _Faces(seen, wanted, mean, near)


def _changes(network: RestorationNetwork, faces: _Faces, people: Sequence[str]) -> dict[str, torch.Tensor]:
    network.eval()
    with torch.no_grad():
        return {person: network(faces.seen[person][None])[0] for person in people}


def _validate(network, faces: _Faces, people: Sequence[str]) -> tuple[float, float]:
    """Least mean error over held-out people, and the share of the change with which it is reached."""
    changes = _changes(network, faces, people)
    errors = []
    for share in SHARES:
        many = [float(faces.weighted_error(faces.mean + share * changes[p], faces.wanted[p])) for p in people]
        errors.append((float(np.mean(many)), share))
    return min(errors)


def _rate(step: int, settings: RestorationSettings) -> float:
    warm = min(1.0, (step + 1) / 20)
    return settings.peak_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * step / settings.steps)))


def _train(network, faces: _Faces, held_out: Sequence[str], shown: Sequence[str], settings, rng) -> float:
    """Train, keep the weights that served held-out training people best, and say with which share of the change."""
    optimiser = torch.optim.AdamW(network.parameters(), settings.peak_rate, weight_decay=settings.weight_decay)
    best, weights = (math.inf, 0.0), None
    every = max(1, settings.steps // CHECKS)
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, settings)
        people = [shown[i] for i in rng.permutation(len(shown))[: settings.batch]]
        mirror = [bool(flip) for flip in rng.integers(0, 2, len(people))]
        seen, wanted = (
            torch.stack([stored[p].flip(-3) if flip else stored[p] for p, flip in zip(people, mirror)])
            for stored in (faces.seen, faces.wanted)
        )
        network.train()
        loss = faces.weighted_error(seen[:, 2] + network(seen), wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            found = _validate(network, faces, held_out)
            LOG.info("restoration: step %d of %d, held-out error %.4f", step + 1, settings.steps, found[0])
            if found[0] < best[0]:
                best, weights = found, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
    return best[1]


def run_restoration(
    originals: dict[str, np.ndarray],
    deidentified: dict[str, np.ndarray],
    region: np.ndarray,
    *,
    train_people: Sequence[str],
    test_people: Sequence[str],
    settings: RestorationSettings | None = None,
    seed: int = 0,
) -> RestorationOutcome:
    """Train the attacker on some people and let it guess the faces of others.

    Parameters
    ----------
    originals, deidentified : dict of str to ndarray (X, Y, Z), float32
        Heads on one 2 mm RAS+ grid around the face, intensities 0 to 1, sides even. The grid is symmetric to the
        middle of the head, for mirroring, and its last plane of Y lies in the air.
    region : ndarray (X, Y, Z), bool
        True = where faces were replaced.
    train_people, test_people : sequence of str
        Nobody is on both sides.
    settings : RestorationSettings, optional
    seed : int
        Of weights, batches, held-out people and bootstrap.

    Returns
    -------
    RestorationOutcome

    Raises
    ------
    InputError
        When somebody is on both sides, has no volume or no skin in the region, when a side has fewer than
        `bids_cpmae.evaluation.similarity.LEAST_PEOPLE`, or when MONAI is missing.
    """
    settings = settings or RestorationSettings()
    check_people(train_people, test_people, originals.keys() & deidentified.keys())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RestorationNetwork(settings)
    threshold = float(np.median([tissue_threshold(originals[person]) for person in train_people]))
    rng = np.random.default_rng([seed, 12])
    order = [train_people[i] for i in rng.permutation(len(train_people))]
    held = max(1, round(VALIDATION_SHARE * len(order)))
    held_out, shown = order[:held], order[held:]
    solids, changed, faces = _prepare(originals, deidentified, region, shown, [*train_people, *test_people], threshold)
    faceless = [person for person in test_people if not (skin(solids[person]) & region).any()]
    if faceless:
        raise InputError(f"{' '.join(faceless[:5])}: no skin of a face in the original; leave them out", ExitCode.DATA)
    share = _train(network, faces, held_out, shown, settings, rng)
    return _judge(network, faces, share, {person: solids[person] for person in test_people}, changed, region, seed)


def _judge(network, faces: _Faces, share: float, solids, changed, region, seed: int) -> RestorationOutcome:
    """Hold the guesses for the tested people (the keys of ``solids``) against their originals."""
    people = list(solids)
    guesses = {
        person: skin_errors(solid_head((faces.mean + share * change).numpy() < 0), solids, region)
        for person, change in _changes(network, faces, people).items()
    }
    guess = {person: guesses[person][person] for person in people}
    stranger = {
        person: float(np.mean([guesses[other][person] for other in people if other != person])) for person in people
    }
    mean_face = skin_errors(solid_head(faces.mean.numpy() < 0), solids, region)
    deidentified = {person: skin_errors(changed[person], {person: solids[person]}, region)[person] for person in people}
    return RestorationOutcome.of(guess, mean_face, stranger, deidentified, share, seed=seed)
