"""What is said of a handful of seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmark.statistics import summarise


def test_three_seeds_have_the_t_interval_of_scipy():
    values = [10.0, 12.0, 17.0]
    found = summarise(values)
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.n, found.mean, found.sd) == (3, 13.0, pytest.approx(np.std(values, ddof=1)))
    assert (found.low, found.high) == pytest.approx(expected)


def test_interval_covers_the_mean_of_normal_seeds_in_95_of_100_cases():
    draws = np.random.default_rng(1).normal(5, 2, size=(2000, 4))
    covered = sum(found.low < 5 < found.high for found in map(summarise, draws.tolist()))
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_two_seeds_have_a_deviation_and_one_has_none():
    two, one = summarise([1.0, 3.0]), summarise([1.0])
    assert (two.mean, two.sd) == (2, pytest.approx(math.sqrt(2)))
    assert (one.n, one.mean) == (1, 1)
    assert all(map(math.isnan, (two.low, two.high, one.sd, one.low, one.high)))


def test_no_seed_has_no_mean():
    none = summarise([])
    assert none.n == 0
    assert all(map(math.isnan, (none.mean, none.sd, none.low, none.high)))
