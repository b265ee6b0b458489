import math

import numpy as np
import pytest

from latentserve_client.load.measure.confidence_intervals import (
    ConfidenceInterval,
    confidence_interval,
    student_t,
)


def test_the_interval_of_known_values():
    # mean 3, s = sqrt(2.5), t(4) = 2.776
    found = confidence_interval([1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.half_width == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-4)
    assert found.windows == 5
    assert found.relative == pytest.approx(found.half_width / 3)


def test_it_covers_the_true_mean_as_often_as_it_says():
    rows = np.random.default_rng(0).normal(10, 2, (2000, 8))
    covered = [
        abs((found := confidence_interval(row)).mean - 10) <= found.half_width for row in rows
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_few_windows_is_infinite():
    assert confidence_interval([]).half_width == math.inf
    assert confidence_interval([3.0]).half_width == math.inf
    assert confidence_interval([math.nan, 3.0]).windows == 1


def test_overlap():
    assert ConfidenceInterval(10, 1, 5).overlaps(ConfidenceInterval(11.9, 1, 5))
    assert not ConfidenceInterval(10, 1, 5).overlaps(ConfidenceInterval(12.1, 1, 5))


@pytest.mark.parametrize(("degrees", "t"), [(1, 12.706), (30, 2.042), (60, 2.000), (120, 1.980)])
def test_students_t(degrees, t):
    assert student_t(degrees) == pytest.approx(t, abs=2e-3)
