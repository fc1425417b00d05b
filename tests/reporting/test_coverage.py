"""The short form of `python -m benchmark.reporting.statistics_check`; docs/statistics.md has the long one."""

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmark.reporting.statistics import LEVEL
from benchmark.reporting.statistics_check import DISTRIBUTIONS, coverage, coverage_of_difference, false_alarms, not_bold

NORMAL = DISTRIBUTIONS["normal"]


@pytest.mark.parametrize("measure", [coverage, coverage_of_difference])
@pytest.mark.parametrize("n", [3, 5, 8])
def test_interval_covers_between_93_and_97_of_100(measure, n):
    assert 0.93 <= measure(NORMAL, n, 4000, np.random.default_rng(n)) <= 0.97


def no_more_than_the_level(rate, repeats):
    """Whether a rate found in `repeats` draws is not above the level by more than their chance."""
    return binomtest(round(rate * repeats), repeats, LEVEL, alternative="greater").pvalue > 0.05


@pytest.mark.parametrize("n", [3, 8])
def test_no_effect_raises_no_more_alarms_than_the_level(n):
    assert no_more_than_the_level(false_alarms(NORMAL, n, 400, np.random.default_rng(n)), 400)


@pytest.mark.parametrize("n", [3, 8])
def test_equal_variants_are_told_from_the_best_no_more_often_than_the_level(n):
    assert no_more_than_the_level(not_bold(NORMAL, n, 400, np.random.default_rng(n)), 400)


def test_an_effect_raises_the_alarm():
    def draw(random, size):
        scores = random.standard_normal(size)
        scores[:, 0, 0] += 10
        return scores

    assert false_alarms(draw, 8, 20, np.random.default_rng(1)) == 1.0
