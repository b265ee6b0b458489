import numpy as np
import pytest
from unit.client.load.fakes import S

from latentserve_client.load.measure.call_records import COLUMN, COLUMNS
from latentserve_client.load.measure.summary import Summary


def row(**values):
    """One record; times in seconds."""
    cells = dict.fromkeys(COLUMNS, 0) | {"rows": 1, "attempts": 1, "queue_ns": -1}
    for name, value in values.items():
        if name.endswith("_s"):
            cells[name.removesuffix("_s") + "_ns"] = round(value * S)
        else:
            cells[name] = value
    return [cells[name] for name in COLUMNS]


def call(at_s, latency_s, *, late_s=0.0, **values):
    return row(intended_s=at_s, sent_s=at_s + late_s, end_s=at_s + latency_s, **values)


def rows(*listed):
    return np.array(listed, np.int64).reshape(-1, len(COLUMN))


def summary(start_s=2.0, end_s=12.0, kinds=1):
    found = Summary(kinds, round(start_s * S), 1.0, 0.5)
    found.end_ns = round(end_s * S)
    return found


def test_the_warm_up_is_excluded_by_intended_send_time():
    found = summary()
    found.add(rows(call(1.9, 0.05), call(1.99, 5), call(2.0, 0.2), call(11.9, 0.3), call(12, 0.1)))
    assert found.total.calls == 2
    assert found.total.latency.max_ns == 0.3 * S


def test_throughput_counts_calls_that_ended_in_the_measured_time():
    found = summary()
    # Ended before; started before and ended within; within; ended after; failed.
    found.add(rows(call(1, 0.5), call(1, 1.5), call(5, 1), call(11.5, 1), call(6, 1, code=14)))
    assert found.total.successful == 2
    assert found.total.successful_rows == 2


def test_errors_have_their_codes_and_no_latency():
    found = summary()
    found.add(rows(call(3, 0.1), call(3, 9, code=4), call(3, 9, code=4), call(3, 0, code=8)))
    assert (found.total.calls, found.total.errors) == (4, 3)
    assert dict(found.total.codes) == {0: 1, 4: 2, 8: 1}
    assert found.total.latency.count == 1


def test_latency_counts_from_the_intended_time_and_service_from_the_actual_one():
    found = summary()
    found.add(rows(call(3, 1.0, late_s=0.75), call(4, 0.25)))
    assert found.total.latency.max_ns == 1.0 * S
    assert found.total.service.max_ns == 0.25 * S
    assert (found.late.count, found.late.max_ns) == (1, 0.75 * S)


def test_kinds_are_counted_separately():
    found = summary(kinds=2)
    found.add(rows(call(3, 0.1, kind=0), call(3, 0.2, kind=1, rows=16), call(4, 0.4, kind=1)))
    assert [totals.calls for totals in found.kinds] == [1, 2]
    assert found.kinds[1].successful_rows == 17
    assert found.kinds[1].latency.max_ns == 0.4 * S


def test_queue_and_engine_shares_are_of_the_calls_that_have_timings():
    found = summary()
    timed = {"queue_ns": S // 10, "compute_ns": S // 5, "batch_rows": 8}
    found.add(rows(call(3, 1.0, **timed), call(4, 5.0)))
    total = found.total
    assert total.timed == 1
    assert total.queue_ns / total.timed_ns == pytest.approx(0.1)
    assert total.compute_ns / total.timed_ns == pytest.approx(0.2)
    assert total.batch_rows == 8


def test_retries_and_first_messages():
    found = summary()
    found.add(rows(call(3, 1, attempts=3), call(4, 1, first_s=4.25)))
    assert found.total.retries == 2
    assert (found.total.first.count, found.total.first.max_ns) == (1, 0.25 * S)


def test_windows_without_a_call_are_windows():
    found = summary()
    found.add(rows(call(2.1, 0.1), call(2.2, 0.1), call(5.1, 0.1)))
    assert [bucket.successes for bucket in found.whole_windows(7 * S)] == [2, 0, 0, 1, 0]
    assert len(found.whole_windows(100 * S)) == 10
    assert found.whole_windows(1 * S) == []


def test_chunks_add_up():
    rng = np.random.default_rng(0)
    all_rows = rows(*(call(float(at), 0.1) for at in rng.uniform(2, 12, 500)))
    whole, parts = summary(), summary()
    whole.add(all_rows)
    for chunk in np.array_split(all_rows, 7):
        parts.add(chunk)
    assert parts.total.latency.count == whole.total.latency.count == 500
    np.testing.assert_array_equal(parts.total.latency.buckets, whole.total.latency.buckets)
    assert parts.total.successful == whole.total.successful
    assert [bucket.successes for bucket in parts.timeline.buckets] == [
        bucket.successes for bucket in whole.timeline.buckets
    ]
