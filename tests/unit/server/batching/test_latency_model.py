from __future__ import annotations

from math import inf

import pytest

from latentserve_server.batching.latency_model import LatencyModel


def test_the_estimate_is_infinite_without_measurement() -> None:
    assert LatencyModel().expected_s(1) == inf


def test_each_size_has_its_own_average() -> None:
    latency = LatencyModel()
    latency.learn(1, 0.1)
    latency.learn(64, 0.4)
    assert latency.expected_s(1) == 0.1
    assert latency.expected_s(64) == 0.4
    assert latency.expected_s(100) == 0.4, "100 rows and 64 reach the same power of two"


def test_between_two_sizes_the_larger_one_counts() -> None:
    latency = LatencyModel()
    latency.learn(1, 0.1)
    latency.learn(64, 0.4)
    assert latency.expected_s(8) == 0.4


def test_beyond_the_largest_size_the_time_grows_with_the_rows() -> None:
    latency = LatencyModel()
    latency.learn(4, 0.1)
    assert latency.expected_s(16) == pytest.approx(0.4)


def test_one_slow_batch_counts_less_than_one_fast_one() -> None:
    slow, fast = LatencyModel(), LatencyModel()
    for latency in (slow, fast):
        latency.learn(4, 1.0)
    slow.learn(4, 2.0)
    fast.learn(4, 0.5)
    assert slow.expected_s(4) == pytest.approx(1.05)
    assert fast.expected_s(4) == pytest.approx(0.85)


def test_a_lasting_slowdown_is_learned() -> None:
    latency = LatencyModel()
    latency.learn(4, 1.0)
    for _ in range(200):
        latency.learn(4, 3.0)
    assert latency.expected_s(4) == pytest.approx(3.0, rel=0.01)
