import math

import numpy as np
import pytest

from latentserve_client.load.measure.histogram import COARSE, Histogram


def filled(values, ratio=1.002):
    histogram = Histogram(ratio)
    histogram.add(np.array(values))
    return histogram


@pytest.mark.parametrize("percent", [1, 25, 50, 90, 99, 99.9])
def test_percentiles_are_exact_to_a_thousandth(percent):
    values = np.random.default_rng(0).lognormal(15, 1.5, 50_000).astype(np.int64)
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert filled(values).percentile_ns(percent) == pytest.approx(expected, rel=0.0011)


def test_mean_and_extremes_are_exact():
    histogram = filled([1_500, 2_500, 9_999_999])
    assert histogram.mean_ns == pytest.approx(10_003_999 / 3)
    assert (histogram.min_ns, histogram.max_ns, histogram.count) == (1_500, 9_999_999, 3)
    assert histogram.percentile_ns(100) == 9_999_999


def test_the_percentile_of_few_calls_is_one_of_them():
    assert filled([2_000_000]).percentile_ns(99) == 2_000_000
    # The 99th percentile of 100 values by nearest rank is the 99th, not the 100th.
    histogram = filled([1_000_000] * 99 + [50_000_000])
    assert histogram.percentile_ns(99) == pytest.approx(1_000_000, rel=0.002)
    assert histogram.percentile_ns(99.9) == pytest.approx(50_000_000, rel=0.002)


def test_chunks_and_merging_give_the_same_as_all_at_once():
    values = np.random.default_rng(1).integers(1_000, 10**10, 1000)
    whole, parts, other = filled(values), filled(values[:300]), filled(values[300:])
    parts.merge(other)
    for field in ("count", "sum_ns", "min_ns", "max_ns"):
        assert getattr(parts, field) == getattr(whole, field)
    np.testing.assert_array_equal(parts.buckets, whole.buckets)


def test_values_out_of_range_are_counted_in_the_outer_buckets():
    histogram = filled([0, 10, 10**14], COARSE)
    assert histogram.count == histogram.buckets.sum() == 3
    assert histogram.max_ns == 10**14


def test_an_empty_histogram_has_no_statistics():
    histogram = Histogram()
    histogram.add(np.array([], np.int64))
    histogram.merge(Histogram())
    assert math.isnan(histogram.mean_ns)
    assert math.isnan(histogram.percentile_ns(50))
    assert histogram.bars(10) == []


def test_bars_hold_every_call():
    values = np.random.default_rng(2).integers(10**6, 10**8, 500)
    bars = filled(values).bars(20)
    assert sum(count for _, _, count in bars) == 500
    assert 15 <= len(bars) <= 21
    assert all(low < high for low, high, _ in bars)
    assert bars[0][0] <= values.min()
    assert bars[-1][1] >= values.max()
