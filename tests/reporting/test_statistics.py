"""What is said of a handful of seeds."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from benchmark.reporting.statistics import (
    best,
    given_these_seeds,
    holm,
    not_equivalent,
    one_sided_sign_flip,
    paired,
    sign_flip,
    summarise_seeds,
)


def test_three_seeds_have_the_t_interval_of_scipy():
    values = [10.0, 12.0, 17.0]
    found = summarise_seeds(values)
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.n, found.mean, found.sd) == (3, 13.0, pytest.approx(np.std(values, ddof=1)))
    assert (found.low, found.high) == pytest.approx(expected)


def test_interval_covers_the_mean_of_normal_seeds_in_95_of_100_cases():
    draws = np.random.default_rng(1).normal(5, 2, size=(2000, 4))
    covered = sum(found.low < 5 < found.high for found in map(summarise_seeds, draws.tolist()))
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_two_seeds_have_a_deviation_and_one_has_none():
    two, one = summarise_seeds([1.0, 3.0]), summarise_seeds([1.0])
    assert (two.mean, two.sd) == (2, pytest.approx(math.sqrt(2)))
    assert (one.n, one.mean) == (1, 1)
    assert all(map(math.isnan, (two.low, two.high, one.sd, one.low, one.high)))


def test_no_seed_has_no_mean():
    none = summarise_seeds([])
    assert none.n == 0
    assert all(map(math.isnan, (none.mean, none.sd, none.low, none.high)))


def test_a_value_that_is_not_finite_leaves_no_interval():
    for value in (math.nan, math.inf):
        found = summarise_seeds([1.0, 2.0, value])
        assert not math.isfinite(found.mean)
        assert all(map(math.isnan, (found.sd, found.low, found.high)))


def test_pairs_are_formed_by_seed_and_not_by_place():
    values = {1: 5.0, 2: 7.0, 3: 9.0, 4: 100.0}
    found = paired(values, {3: 8.0, 2: 6.0, 1: 4.0, 5: 0.0})
    assert (found.n, found.mean, found.sd) == (3, 1.0, 0.0)


def test_sign_flip_p_is_the_share_of_signs_at_least_as_extreme():
    differences = np.array([0.3, -0.1, 0.8, 0.4, 0.25])
    means = [abs(np.mean(differences * signs)) for signs in product((1, -1), repeat=5)]
    expected = np.mean([mean >= abs(differences.mean()) - 1e-12 for mean in means])
    assert sign_flip(differences.tolist()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_smallest_p_of_n_pairs_is_the_floor(n):
    found = paired({seed: 1.0 + seed for seed in range(n)}, dict.fromkeys(range(n), 0.0))
    assert found.p == pytest.approx(found.floor)
    assert found.floor == 2 / 2**n
    assert found.testable == (n >= 6)


def test_two_pairs_get_no_p():
    assert math.isnan(paired({1: 1.0, 2: 2.0}, {1: 0.0, 2: 0.0}).p)


def test_sign_flip_never_alarms_more_often_than_its_level():
    sizes = np.array([0.2, 1.0, 0.5, 2.0, 0.7, 0.1, 1.3])
    p = np.array([sign_flip((sizes * signs).tolist()) for signs in product((1, -1), repeat=7)])
    for level in np.unique(p):
        assert np.mean(p <= level) <= level + 1e-12


def test_one_sided_p_is_the_share_of_signs_with_a_mean_at_least_as_large():
    pairs = np.array([0.3, -0.1, 0.8, 0.4, 0.25])
    means = [np.mean(pairs * signs) for signs in product((1, -1), repeat=5)]
    expected = np.mean([mean >= pairs.mean() - 1e-12 for mean in means])
    assert one_sided_sign_flip(pairs) == pytest.approx(expected, abs=1e-12)


def test_small_differences_are_equivalent_and_large_or_few_ones_are_not():
    small = [0.1, -0.2, 0.05, 0.15, -0.1, 0.2, -0.05, 0.0]
    assert not_equivalent(small, 0.5) == pytest.approx(1 / 2**8)
    assert not_equivalent([one + 0.5 for one in small], 0.5) > 0.3
    assert not_equivalent([one - 0.5 for one in small], 0.5) > 0.3
    assert not_equivalent([-one for one in small], 0.17) == pytest.approx(not_equivalent(small, 0.17))
    assert math.isnan(not_equivalent([0.0, 0.0], 0.5))
    assert math.isnan(not_equivalent([0.0, 0.0, math.inf], 0.5))


def test_a_difference_of_the_margin_is_called_equivalent_no_more_often_than_the_level():
    sizes, margin = np.array([0.2, 1.0, 0.5, 2.0, 0.7, 0.1, 1.3]), 5.0
    p = np.array([not_equivalent((margin + sizes * signs).tolist(), margin) for signs in product((1, -1), repeat=7)])
    for level in np.unique(p):
        assert np.mean(p <= level) <= level + 1e-12


def test_holm_raises_p_step_by_step_and_keeps_their_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def by_seed(*values):
    return dict(enumerate(values))


def test_best_takes_with_it_what_cannot_be_told_from_it():
    scores = {"a": by_seed(1.0, 1.1, 1.2), "b": by_seed(0.7, 1.5, 1.3), "c": by_seed(9.0, 9.1, 9.21)}
    assert best(scores, "lower", {}) == {"a", "b"}
    assert best(scores, "higher", {}) == {"c"}


def test_baseline_can_be_the_best_and_is_told_from_the_rest():
    scores = {"a": by_seed(5.0, 5.1, 5.2), "b": by_seed(6.0, 6.1, 6.2)}
    assert best(scores, "lower", {"black": 1.0}) == {"black"}
    assert best(scores, "lower", {"black": 5.1}) >= {"a", "black"}


def test_fewer_than_three_seeds_are_never_the_best():
    assert best({"a": by_seed(1.0, 1.0)}, "lower", {"black": 9.0}) == set()
    assert best({"a": by_seed(1.0, 1.0), "b": by_seed(2.0, 2.1, 2.2)}, "lower", {}) == {"b"}
    assert best({"a": by_seed(1.0, 1.0, math.nan), "b": by_seed(2.0, 2.1, 2.2)}, "lower", {}) == {"b"}


def test_bootstrap_over_clips_covers_their_mean_and_is_the_same_every_time():
    clips = np.random.default_rng(3).normal(2, 1, 100)
    low, high = given_these_seeds(clips)
    assert low < clips.mean() < high
    assert (high - low) == pytest.approx(2 * 1.96 * clips.std() / 10, rel=0.15)
    assert given_these_seeds(clips) == (low, high)
    assert all(map(math.isnan, given_these_seeds(np.array([1.0]))))
