import itertools
import math

import numpy as np
import pytest

from latentserve_client.load.plan.schedule import (
    BadProfile,
    RateProfile,
    RateSegment,
    parse_profile,
)


def times(text, duration_s, kind="constant", seed=0):
    return np.array(list(parse_profile(text, duration_s).arrivals(kind, seed)))


def test_a_constant_rate_is_evenly_spaced():
    np.testing.assert_allclose(times("10", 2), np.arange(20) / 10)


def test_steps_share_the_duration():
    arrivals = times("10,100", 2)
    assert len(arrivals) == 10 + 100
    assert (arrivals < 1).sum() == 10
    np.testing.assert_allclose(np.diff(arrivals[20:]), 0.01)


def test_given_seconds_are_kept_and_the_rest_is_shared():
    profile = parse_profile("10:4,20,30", 10)
    assert [segment.duration_s for segment in profile.segments] == [4, 3, 3]


@pytest.mark.parametrize(("text", "calls"), [("0-100", 500), ("100-0", 500), ("50-150", 1000)])
def test_a_ramp_has_the_integral_of_its_rate(text, calls):
    arrivals = times(text, 10)
    assert len(arrivals) == pytest.approx(calls, abs=1)
    assert (np.diff(arrivals) >= 0).all()
    # The first half has the area of its trapezium.
    low, high = (float(part) for part in text.split("-"))
    expected = (low + (low + high) / 2) / 2 * 5
    assert (arrivals < 5).sum() == pytest.approx(expected, abs=1)


def test_poisson_arrivals_have_the_rate_and_exponential_gaps():
    arrivals = times("200", 100, "poisson")
    gaps = np.diff(arrivals)
    assert len(arrivals) == pytest.approx(20_000, rel=0.03)
    assert gaps.std() == pytest.approx(
        gaps.mean(), rel=0.03
    )  # equal for an exponential distribution
    assert (gaps > math.log(2) / 200).mean() == pytest.approx(0.5, abs=0.02)


def test_poisson_arrivals_follow_a_ramp():
    arrivals = times("0-400", 100, "poisson")
    assert len(arrivals) == pytest.approx(20_000, rel=0.03)
    assert (arrivals < 50).sum() == pytest.approx(5_000, rel=0.06)


def test_the_seed_sets_the_schedule_and_processes_share_it():
    whole = times("50", 4, "poisson", seed=3)
    np.testing.assert_array_equal(times("50", 4, "poisson", seed=3), whole)
    assert not np.array_equal(times("50", 4, "poisson", seed=4)[:50], whole[:50])
    profile = parse_profile("50", 4)
    shares = [
        list(itertools.islice(profile.arrivals("poisson", 3), number, None, 3))
        for number in range(3)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), whole)


def test_the_warm_up_has_the_first_rate():
    profile = parse_profile("10-30", 4).with_warm_up(2)
    assert profile.duration_s == 6
    assert profile.segments[0] == RateSegment(2, 10, 10)
    # A ramp from 0 warms up at its highest rate.
    assert parse_profile("0-30", 4).with_warm_up(2).segments[0].start_per_s == 30


def test_is_constant():
    assert parse_profile("10", 4).is_constant
    assert parse_profile("10,10", 4).is_constant
    assert not parse_profile("10-20", 4).is_constant


@pytest.mark.parametrize("text", ["", "x", "-5", "0", "10:0", "nan", "10-", "inf", "10:x", "1,,2"])
def test_a_malformed_rate_is_reported(text):
    with pytest.raises(BadProfile, match=r"100-500|0 seconds|sends nothing"):
        parse_profile(text, 10)


def test_given_seconds_must_leave_time_for_the_rest():
    with pytest.raises(BadProfile, match="leave none"):
        parse_profile("10:10,20", 10)


def test_time_of_is_stable_for_a_tiny_slope():
    segment = RateSegment(10, 100, 100 + 1e-9)
    assert segment.time_of(500) == pytest.approx(5)
    assert RateProfile((segment,)).duration_s == 10
