"""Intervals and rates over people; what is measured several times in a person counts once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

LEVEL, DRAWS = 0.95, 2000


def bootstrap_interval(
    values: Sequence[float], *, statistic: Callable = np.mean, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a statistic over people, one value a person.

    Raises
    ------
    ValueError
        When there is no value, or one is not a number: leave people out before, and say so.
    """
    values = np.asarray(values, float)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"one finite value a person is wanted, got {values}")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,), statistic, n_resamples=draws, confidence_level=level, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def wilson_interval(hits: int, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a rate."""
    found = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a value of the first kind exceeds one of the second, ties counted half: the area under the ROC."""
    positive, negative = np.asarray(positive), np.asarray(negative)
    return float(stats.mannwhitneyu(positive, negative).statistic / (positive.size * negative.size))


def auc_interval(
    scores: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, level: float = LEVEL, draws: int = 500,
    seed: int = 0,
) -> tuple[float, float, float]:  # fmt: skip
    """Area under the ROC of all people's scores together, and its percentile interval over people.

    Parameters
    ----------
    scores : dict of str to (positive, negative)
        Of each person.
    """

    def pooled(people) -> float:
        return auc(*(np.concatenate([scores[person][side] for person in people]) for side in (0, 1)))

    people, rng = list(scores), np.random.default_rng(seed)
    drawn = [pooled(rng.choice(people, len(people))) for _ in range(draws)]
    tails = [(1 - level) / 2, (1 + level) / 2]
    return (pooled(people), *(float(end) for end in np.quantile(drawn, tails)))
