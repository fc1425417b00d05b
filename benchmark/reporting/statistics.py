"""What may be said of a handful of seeds. The seed is the unit; scipy does the arithmetic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

LEVEL = 0.05
"""Of tests; intervals cover 1 - LEVEL."""
SMALLEST_N = 3
"""Fewer seeds get no interval and no rank."""
_ALL_SIGNS = 2**16
"""Sign flips that are all tried, so that p is exact; beyond 16 pairs as many are drawn."""

BySeed = Mapping[int, float]
"""One value a seed."""


@dataclass(frozen=True)
class Summary:
    """Mean of n values, and from two on its standard deviation, from three on its 95 % t interval; else NaN."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Summary):
    """Summary of paired differences, and what a sign-flip test says of them."""

    p: float
    """Two-sided p of the exact sign-flip test; NaN below three pairs."""
    floor: float
    """The smallest p that n pairs can give, 2 / 2^n."""

    @property
    def testable(self) -> bool:
        """Whether n pairs can give a p at or below the level at all."""
        return self.floor <= LEVEL


def summarise_seeds(values: Sequence[float]) -> Summary:
    """Summarise one value a seed; no values, or one that is not finite, give NaN."""
    n = len(values)
    if not n or not np.isfinite(values).all():
        return Summary(n, float(np.mean(values)) if n else math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    if n < SMALLEST_N:
        return Summary(n, mean, sd, math.nan, math.nan)
    margin = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - margin, mean + margin)


def effects(values: BySeed, reference: BySeed) -> dict[int, float]:
    """Seed -> `values` minus `reference`, for the seeds that both have: same seed, same clips."""
    return {seed: values[seed] - reference[seed] for seed in sorted(set(values) & set(reference))}


def differences(values: BySeed, reference: BySeed) -> list[float]:
    """The `effects`, one a seed."""
    return list(effects(values, reference).values())


def paired(values: BySeed, reference: BySeed) -> Difference:
    """Compare `values` with `reference` by their differences."""
    pairs = differences(values, reference)
    found = summarise_seeds(pairs)
    p = sign_flip(pairs) if math.isfinite(found.low) else math.nan
    return Difference(**vars(found), p=p, floor=min(1.0, 2 / 2**found.n))


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the hypothesis that each difference may as well have the other sign, by trying all signs.

    From 17 differences on, by 65,536 draws of signs from a fixed seed.
    """
    return _by_signs(differences, "two-sided")


def _by_signs(differences: Sequence[float] | np.ndarray, alternative: str) -> float:
    found = stats.permutation_test(
        (np.asarray(differences),),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_ALL_SIGNS,
        alternative=alternative,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def not_equivalent(differences: Sequence[float], margin: float) -> float:
    """p of the hypothesis that the true difference lies at or beyond `margin`, on either side: two one-sided tests.

    Each is the exact one-sided sign-flip test of the differences moved by the margin; the larger p counts (Schuirmann
    1987). A small p says that the difference is smaller than the margin, whichever its sign. NaN below three pairs.
    """
    if len(differences) < SMALLEST_N or not np.isfinite(differences).all():
        return math.nan
    found = np.asarray(differences)
    return max(one_sided_sign_flip(margin - found), one_sided_sign_flip(margin + found))


def one_sided_sign_flip(differences: Sequence[float] | np.ndarray) -> float:
    """p of the hypothesis that the differences are not above 0, by trying all signs as `sign_flip` does."""
    return _by_signs(differences, "greater")


def holm(p: Sequence[float]) -> list[float]:
    """The p of a family of tests, adjusted so that the chance of any false alarm stays at the level (Holm 1979)."""
    order = np.argsort(p)
    raised = [min(1.0, (len(p) - rank) * p[place]) for rank, place in enumerate(order)]
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(raised)
    return adjusted.tolist()


def best(scores: Mapping[str, BySeed], better: str, constants: Mapping[str, float]) -> set[str]:
    """The best of `scores` by mean, with all that cannot be told from it at the level.

    All pairs are compared with each other by paired t tests over common seeds, Holm over all of them: which is the
    best was not known beforehand, so that the tests against it alone would find too much.

    Args:
        scores: name -> one value a seed; names with fewer than three seeds, or values that are not finite, take no
            part.
        better: `lower` or `higher`.
        constants: name -> value of what has no seeds, a baseline.

    Returns:
        Empty where nothing has three seeds.
    """
    sign = {"lower": 1, "higher": -1}[better]
    ranked = {name: found for name, found in scores.items() if math.isfinite(summarise_seeds(list(found.values())).low)}
    if not ranked:
        return set()
    seeds = set().union(*ranked.values())
    if constants:  # of which the best alone can be bold; the others would only cost power
        name = min(constants, key=lambda name: sign * constants[name])
        ranked[name] = dict.fromkeys(seeds, constants[name])
    first = min(ranked, key=lambda name: sign * np.mean(list(ranked[name].values())))
    pairs = [set(pair) for pair in combinations(ranked, 2)]
    adjusted = holm([_t_test(differences(*(ranked[name] for name in pair))) for pair in pairs])
    return {first}.union(*(pair for pair, p in zip(pairs, adjusted, strict=True) if first in pair and p > LEVEL))


def given_these_seeds(differences: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval over clips of the mean of `differences` (one a clip, mean over the same seeds).

    It says how much the choice of test clips matters for these trained networks, and nothing about other seeds.
    """
    if len(differences) < 2 or not np.isfinite(differences).all() or np.ptp(differences) == 0:
        return math.nan, math.nan
    found = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=2000, batch=100, rng=np.random.default_rng(0)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _t_test(differences: Sequence[float]) -> float:
    """Two-sided p of a t test against 0, also where the differences do not vary; 1 below three."""
    if len(differences) < SMALLEST_N:
        return 1.0
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0).pvalue)  # pyright: ignore[reportAttributeAccessIssue]  # scipy has it
