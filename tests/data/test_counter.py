"""The counter hash: known words, the same for integers, arrays and tensors, and without visible pattern."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from benchmark.data.counter_rng import Domain, counter_hash
from benchmark.data.tensors import uniform


def test_words_are_pinned():
    words = [counter_hash(0, 0), counter_hash(1, 2, 3), counter_hash(2**63, 2**32 - 1)]
    assert words == [2643653690, 3837359526, 2800646326]


def test_integers_arrays_and_tensors_hash_alike():
    counters = [0, 1, 7, 2**31, 2**32 - 1]
    words = [counter_hash(5, Domain.TEST, counter, 3) for counter in counters]
    assert counter_hash(5, Domain.TEST, np.array(counters), 3).tolist() == words
    assert counter_hash(5, Domain.TEST, torch.tensor(counters), 3).tolist() == words
    assert all(0 <= word < 2**32 for word in words)


def test_seed_counter_and_their_order_all_matter():
    words = {counter_hash(*numbers) for numbers in itertools.product((0, 1, 2, 2**32), (0, 1, 2), (0, 1, 2))}
    assert len(words) == 36


def test_one_counter_never_gives_a_word_twice():
    words = counter_hash(3, Domain.POOL_ORDER, np.arange(300_000))
    assert len(np.unique(words)) == 300_000


@pytest.mark.parametrize("bits", [(24, 32), (0, 8), (12, 20)])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_every_byte_is_uniform(seed, bits):
    low, high = bits
    words = counter_hash(seed, Domain.TRAIN, np.arange(100_000))
    counts = np.bincount((words >> low) & (2 ** (high - low) - 1), minlength=256)
    assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 1, 0), (0, 1, 1)), ((0, 1, 0), (1, 1, 0)), ((0, 1, 0), (0, 2, 0))],
    ids=["next-slot", "next-seed", "next-domain"],
)
def test_neighbours_are_independent(first, second):
    """The joint distribution of two streams that differ in one counter is flat."""
    numbers = np.arange(100_000)
    a, b = (counter_hash(seed, domain, numbers, slot) >> 28 for seed, domain, slot in (first, second))
    assert chisquare(np.bincount(16 * a + b, minlength=256)).pvalue > 1e-4
    lag = np.bincount(16 * a[:-1] + a[1:], minlength=256)
    assert chisquare(lag).pvalue > 1e-4


def test_streams_of_two_seeds_are_not_one_shifted_sequence():
    words = [counter_hash(seed, Domain.TRAIN, np.arange(50_000)) for seed in (0, 1)]
    shared = len(np.intersect1d(*words))
    assert shared < 10  # 50,000**2 / 2**32 = 0.6 by chance


def test_uniform_numbers_fill_the_interval_and_change_with_step_and_seed():
    numbers = uniform(0, 3, 20_000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert chisquare(np.histogram(numbers.numpy(), 50, (0, 1))[0]).pvalue > 1e-4
    assert torch.equal(uniform(0, 3, 100), numbers[:100])
    assert not torch.equal(uniform(0, 4, 100), numbers[:100])
    assert not torch.equal(uniform(1, 3, 100), numbers[:100])
