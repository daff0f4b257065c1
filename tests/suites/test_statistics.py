"""What seeds say: against closed forms, simulation and known quantiles."""

import math

import numpy as np
import pytest
from scipy import stats

from mq_jax.suites.statistics import paired, power, seeds_needed, spread


def test_the_deviation_is_of_the_sample():
    assert spread([1.0, 2.0, 3.0, 4.0]) == (2.5, pytest.approx(math.sqrt(5 / 3)), 4)
    assert spread([7.0]) == (7.0, None, 1) and spread([]) is None


def test_the_interval_of_three_pairs_is_students():
    """With t at 0.975 and two degrees of freedom, 4.302653, from a table."""
    logs = np.log([0.98, 1.01, 0.96])
    found = paired({0: 0.98, 1: 2.02, 2: 2.88, 3: 9.0}, {0: 1.0, 1: 2.0, 2: 3.0, 4: 1.0})
    half = 4.302653 * logs.std(ddof=1) / math.sqrt(3)
    assert found.change == pytest.approx(0.98 ** (1 / 3) * 1.01 ** (1 / 3) * 0.96 ** (1 / 3) - 1)
    assert found.low == pytest.approx(math.expm1(logs.mean() - half), abs=1e-7)
    assert found.high == pytest.approx(math.expm1(logs.mean() + half), abs=1e-7)
    assert found.changes == pytest.approx({0: -0.02, 1: 0.01, 2: -0.04})
    # Of two degrees of freedom the distribution is t / sqrt(2 + t^2), both tails.
    t = abs(logs.mean()) / (logs.std(ddof=1) / math.sqrt(3))
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_swapping_entry_and_reference_inverts_the_ratio():
    one, other = {0: 1.0, 1: 1.1, 2: 0.9}, {0: 1.2, 1: 1.0, 2: 0.8}
    there, back = paired(one, other), paired(other, one)
    assert (1 + there.change) * (1 + back.change) == pytest.approx(1)
    assert (1 + there.low) * (1 + back.high) == pytest.approx(1)
    assert there.p == pytest.approx(back.p) and there.needed == back.needed


def test_one_pair_has_no_interval_and_none_has_no_difference():
    found = paired({3: 1.02}, {3: 1.0, 4: 2.0})
    assert found.change == pytest.approx(0.02)
    assert (found.low, found.high, found.p, found.needed) == (None, None, None, None)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_equal_ratios_have_an_interval_without_width():
    assert paired({0: 2.0, 1: 4.0}, {0: 1.0, 1: 2.0})[:4] == pytest.approx((1.0, 1.0, 1.0, 0.0))
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p == 1.0


def test_power_is_how_often_the_test_rejects():
    rng = np.random.default_rng(0)
    for seeds, deviation in ((3, 0.01), (8, 0.02)):
        draws = rng.normal(math.log(1.02), deviation, (20_000, seeds))
        rejected = (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean()
        assert power(seeds, deviation) == pytest.approx(rejected, abs=0.01)


@pytest.mark.parametrize("deviation", [0.001, 0.005, 0.02, 0.1, 0.4, 0.7])
def test_the_number_of_seeds_is_the_fewest_with_the_power(deviation):
    seeds = seeds_needed(deviation)
    assert power(seeds, deviation) >= 0.8
    assert seeds == 2 or power(seeds - 1, deviation) < 0.8
    # With many seeds Student's t is the normal distribution: ((1.95996 + 0.84162) s / d)^2.
    normal = (2.80158 * deviation / math.log(1.02)) ** 2
    assert normal <= seeds <= normal + 4


def test_beyond_all_measure_no_number_is_given():
    assert seeds_needed(3.0) is None
