"""The trained attacker of CP-MAE's paper: a network that learns whether two pictures show the same person.

The paper calls it the similarity quantification network (arXiv 2310.15778). It is shown drawings of originals and of
de-identified heads, learns on some people which belong together, and is asked about others. Unlike a face recogniser
made for photographs it learns what this very method leaves behind: ears, jaw, the shape of the skull. Both drawings
come from one scan, so that an attacker who has to compare two scans of a person will do worse.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, pad

from bids_cpmae.errors import ExitCode, InputError

LOG = logging.getLogger("bids_cpmae")
LEAST_PEOPLE = 6
CHOICES = 5
REPORT_STEPS = 50


@dataclass(frozen=True)
class SimilaritySettings:
    """How the attacker is built and trained.

    Attributes
    ----------
    steps : int
    batch : int
        People in a step: each is told from all others.
    sides : int
        The views of a head are ordered side by side: first all from the front, then all from the next side.
    features : tuple of int
        Channels of the residual blocks; each halves the picture.
    embedding : int
        Numbers that describe one side.
    peak_rate, weight_decay : float
        Of AdamW.
    shift : int
        Largest shift of a picture in pixels.
    """

    steps: int = 200
    batch: int = 32
    sides: int = 2
    features: tuple[int, ...] = (16, 32, 64, 64)
    embedding: int = 64
    peak_rate: float = 2e-3
    weight_decay: float = 0.05
    shift: int = 3

    @classmethod
    def smoke(cls) -> SimilaritySettings:
        """So short that it only shows that everything runs."""
        return cls(steps=4, batch=8, features=(8, 16), embedding=16)

    def as_dict(self) -> dict:
        """The settings, fit for JSON."""
        return {**asdict(self), "features": list(self.features)}


@dataclass(frozen=True)
class SimilarityOutcome:
    """How well the attacker knows people it was not trained on.

    Attributes
    ----------
    auc : float
        Chance that a person's own pair scores above a pair of two people; 0.5 is guessing.
    one_of_five : float
        Share of right choices of the original among five, given the de-identified picture; 0.2 is guessing.
    auc_interval, one_of_five_interval : tuple of float
        95 % intervals by bootstrap over people.
    people : tuple of str
        Who was tested.
    scores : ndarray (people, people), float64
        De-identified heads in rows, originals in columns; higher is more alike. NaN for pairs of people whom different
        networks were asked about.
    """

    auc: float
    auc_interval: tuple[float, float]
    one_of_five: float
    one_of_five_interval: tuple[float, float]
    people: tuple[str, ...]
    scores: np.ndarray

    @classmethod
    def of(cls, people: Sequence[str], scores: np.ndarray, *, seed: int = 0) -> SimilarityOutcome:
        """What scores (people, people) say; ``seed`` is the bootstrap's.

        Raises
        ------
        ValueError
            When a person's own pair has no score: the network's numbers ran away.
        """
        from bids_cpmae.evaluation.statistics import bootstrap_interval

        if not np.isfinite(np.diag(scores)).all():
            raise ValueError("the attacker's scores are not finite; its training has failed")

        def auc_among(chosen: np.ndarray) -> float:
            return same_against_different(scores, chosen)

        everybody, right = np.arange(len(people)), right_choices(scores)
        return cls(
            auc_among(everybody), bootstrap_interval(everybody, statistic=auc_among, seed=seed),
            float(right.mean()), bootstrap_interval(right, seed=seed), tuple(people), scores,
        )  # fmt: skip

    @classmethod
    def joined(cls, outcomes: Sequence[SimilarityOutcome], *, seed: int = 0) -> SimilarityOutcome:
        """The outcomes of networks that were asked about different people, as one.

        Each network has its own scale of scores: all are put in units of those between its strangers, and pooled.
        """
        if len(outcomes) == 1:
            return outcomes[0]
        people = [person for one in outcomes for person in one.people]
        scores, first = np.full((len(people),) * 2, np.nan), 0
        for one in outcomes:
            part, strangers = slice(first, first + len(one.people)), one.scores[~np.eye(len(one.people), dtype=bool)]
            scores[part, part] = (one.scores - strangers.mean()) / max(strangers.std(), 1e-9)
            first = part.stop
        return cls.of(people, scores, seed=seed)

    @property
    def passes(self) -> bool:
        """True when the attacker is not shown to be better than guessing."""
        return self.auc_interval[0] <= 0.5

    def as_dict(self) -> dict:
        """Everything, fit for JSON."""
        return {
            "auc": self.auc, "auc_interval": list(self.auc_interval),
            "one_of_five": self.one_of_five, "one_of_five_interval": list(self.one_of_five_interval),
            "people": list(self.people), "passes": self.passes,
            "scores": [[score if np.isfinite(score) else None for score in row] for row in self.scores.tolist()],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: dict) -> SimilarityOutcome:
        """Read what `as_dict` gave."""
        return cls(
            stored["auc"], tuple(stored["auc_interval"]), stored["one_of_five"],
            tuple(stored["one_of_five_interval"]), tuple(stored["people"]), np.array(stored["scores"], float),
        )  # fmt: skip


def check_people(train_people: Sequence[str], test_people: Sequence[str], known: Sequence[str]) -> None:
    """See that an attacker can be trained on some people and tested on others.

    Raises
    ------
    InputError
        When somebody is on both sides or unknown, or a side has fewer than `LEAST_PEOPLE`.
    """
    both = sorted(set(train_people) & set(test_people))
    if both:
        raise InputError(f"{' '.join(both[:5])}: in training and in test; give everybody to one side", ExitCode.DATA)
    unknown = sorted({*train_people, *test_people} - set(known))
    if unknown:
        raise InputError(f"{' '.join(unknown[:5])}: no picture or volume of them; leave them out", ExitCode.DATA)
    for people, what in ((train_people, "train on"), (test_people, "test on")):
        if len(people) < LEAST_PEOPLE:
            raise InputError(
                f"{len(people)} people to {what} are too few for an attacker; give at least {LEAST_PEOPLE}, "
                "from a larger dataset or split",
                ExitCode.DATA,
            )


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 short cut; halves the picture."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.GroupNorm(4, after), nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False), nn.GroupNorm(4, after),
        )  # fmt: skip
        self.short = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, before, H, W)`` to ``(B, after, ceil(H/2), ceil(W/2))``."""
        return torch.relu(self.body(x) + self.short(x))


class SimilarityNetwork(nn.Module):
    """One residual network for all pictures, and what to look at for each kind and side.

    Where a feature lies is kept to the end: the outline of a head tells as much as its texture.
    """

    KINDS = 2  # original, de-identified

    def __init__(self, size: tuple[int, int], settings: SimilaritySettings) -> None:
        super().__init__()
        widths = (1, *settings.features)
        self.trunk = nn.Sequential(*(Residual(a, b) for a, b in zip(widths[:-1], widths[1:])))
        cells = math.prod(-(-n // 2 ** len(settings.features)) for n in size)
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Linear(cells * widths[-1], settings.embedding) for _ in range(settings.sides))
            for _ in range(self.KINDS)
        )
        # shared to begin with, so that the same picture is alike to itself before any training
        self.heads[1].load_state_dict(self.heads[0].state_dict())
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))

    def embed(self, pictures: torch.Tensor, kind: int) -> torch.Tensor:
        """``(B, sides, H, W)`` to ``(B, sides * embedding)``, each side of length 1."""
        seen = self.trunk(pictures.flatten(0, 1)[:, None]).flatten(1).unflatten(0, pictures.shape[:2])
        sides = [normalize(head(seen[:, side]), dim=1) for side, head in enumerate(self.heads[kind])]
        return torch.cat(sides, dim=1)

    def forward(self, original: torch.Tensor, deidentified: torch.Tensor) -> torch.Tensor:
        """Scores ``(B de-identified, B original)`` of all pairs."""
        return self.log_scale.exp() * self.embed(deidentified, 1) @ self.embed(original, 0).T


def _stacked(pictures: dict[str, np.ndarray], people: Sequence[str], sides: int) -> torch.Tensor:
    """``(people, sides, poses, H, W)`` float32, 0 to 1."""
    shapes = {pictures[person].shape for person in people}
    shape = shapes.pop()
    if shapes or len(shape) != 3 or shape[0] % sides:
        raise ValueError(f"pictures must all be (views, H, W) with views a multiple of {sides}, not {shape}")
    stack = torch.from_numpy(np.stack([pictures[person] for person in people])).float() / 255
    return stack.unflatten(1, (sides, -1))


class _Pictures:
    """Pictures of one kind as the network sees them: what all people share is taken away."""

    def __init__(self, pictures, train_people, test_people, sides: int) -> None:
        train, test = (_stacked(pictures, people, sides) for people in (train_people, test_people))
        mean = train.mean(dim=(0, 2), keepdim=True)
        spread = (train - mean).std().clamp(min=1e-3)
        self.train, self.test = ((one - mean) / spread for one in (train, test))

    def drawn(self, people: torch.Tensor, mirror: torch.Tensor, shift: int, generator) -> torch.Tensor:
        """A random pose of each side of some training people, moved a little, ``(B, sides, H, W)``.

        Parameters
        ----------
        mirror : Tensor (B,), bool
            Whose front view is mirrored: another, equally possible person. A side view stays: heads are symmetric.
        """
        sides, poses, *size = self.train.shape[1:]
        pose = torch.randint(poses, (len(people), sides), generator=generator)
        chosen = self.train[people[:, None], torch.arange(sides), pose]
        chosen[mirror, 0] = chosen[mirror, 0].flip(-1)
        padded = pad(chosen, (shift,) * 4, mode="replicate")
        corner = torch.randint(2 * shift + 1, (len(people), 2), generator=generator).tolist()
        moved = [one[:, y : y + size[0], x : x + size[1]] for one, (y, x) in zip(padded, corner)]
        return torch.stack(moved) * (0.9 + 0.2 * torch.rand(len(people), 1, 1, 1, generator=generator))


def _rate(step: int, settings: SimilaritySettings) -> float:
    warm = min(1.0, (step + 1) / 20)
    return settings.peak_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * step / settings.steps)))


def _train(network: SimilarityNetwork, original: _Pictures, deidentified: _Pictures, settings, generator) -> None:
    """Learn which pictures of a batch belong together, seen from either (InfoNCE)."""
    optimiser = torch.optim.AdamW(network.parameters(), settings.peak_rate, weight_decay=settings.weight_decay)
    count = min(settings.batch, len(original.train))
    own = torch.arange(count)
    network.train()
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, settings)
        people = torch.randperm(len(original.train), generator=generator)[:count]
        mirror = torch.rand(count, generator=generator) < 0.5
        pairs = [kind.drawn(people, mirror, settings.shift, generator) for kind in (original, deidentified)]
        scores = network(*pairs)
        loss = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % REPORT_STEPS == 0:
            LOG.info("similarity: step %d of %d, loss %.3f", step + 1, settings.steps, float(loss.detach()))


def _scores(network: SimilarityNetwork, original: _Pictures, deidentified: _Pictures) -> np.ndarray:
    """Mean score over all pairs of poses, ``(people, people)``."""
    network.eval()
    with torch.no_grad():
        gallery, probe = (
            torch.stack([network.embed(kind.test[:, :, pose], number) for pose in range(kind.test.shape[2])]).mean(0)
            for number, kind in enumerate((original, deidentified))
        )
        return (network.log_scale.exp() * probe @ gallery.T).double().numpy()


def right_choices(scores: np.ndarray, choices: int = CHOICES) -> np.ndarray:
    """How often each person's own original is chosen among ``choices``, over all draws of the others.

    Parameters
    ----------
    scores : ndarray (people, people)
        De-identified heads in rows, originals in columns; NaN where a pair was not compared. Ties are broken by
        chance.

    Returns
    -------
    ndarray (people,), float64
    """
    own = np.diag(scores)[:, None]
    shares = []
    for others, worse, tied in zip(np.isfinite(scores).sum(1) - 1, (scores < own).sum(1), (scores == own).sum(1) - 1):
        draws = math.comb(others, choices - 1)
        right = sum(
            math.comb(worse, choices - 1 - drawn) * math.comb(tied, drawn) / (drawn + 1)
            for drawn in range(min(tied, choices - 1) + 1)
        )
        shares.append(right / draws)
    return np.array(shares)


def same_against_different(scores: np.ndarray, people: np.ndarray) -> float:
    """AUC of own pairs against pairs of two people, among ``people`` (indices, somebody may be there twice).

    Pairs whose score is NaN do not count.
    """
    from bids_cpmae.evaluation.statistics import auc

    people = np.asarray(people, int)
    chosen = scores[np.ix_(people, people)]
    different = (people[:, None] != people[None, :]) & np.isfinite(chosen)
    if not different.any():
        return 0.5  # a draw of one person alone tells nothing
    return float(auc(np.diag(chosen), chosen[different]))


def run_attack(
    pictures_original: dict[str, np.ndarray],
    pictures_deidentified: dict[str, np.ndarray],
    *,
    train_people: Sequence[str],
    test_people: Sequence[str],
    settings: SimilaritySettings | None = None,
    seed: int = 0,
) -> SimilarityOutcome:
    """Train the attacker on some people and test it on others.

    Parameters
    ----------
    pictures_original, pictures_deidentified : dict of str to ndarray (views, H, W), uint8
        Drawings by person. Views are ordered side by side, see `SimilaritySettings`; the number of poses of a side
        may differ between the two.
    train_people, test_people : sequence of str
        Nobody is on both sides.
    settings : SimilaritySettings, optional
    seed : int
        Of weights, batches and bootstrap.

    Returns
    -------
    SimilarityOutcome

    Raises
    ------
    InputError
        When somebody is on both sides or has no pictures, or a side has fewer than `LEAST_PEOPLE`.
    """
    settings = settings or SimilaritySettings()
    check_people(train_people, test_people, pictures_original.keys() & pictures_deidentified.keys())
    kinds = [
        _Pictures(pictures, train_people, test_people, settings.sides)
        for pictures in (pictures_original, pictures_deidentified)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SimilarityNetwork(tuple(kinds[0].train.shape[-2:]), settings)
    _train(network, *kinds, settings, torch.Generator().manual_seed(seed))
    return SimilarityOutcome.of(test_people, _scores(network, *kinds), seed=seed)
