"""Closed and open loop on a fake clock."""

import threading

import numpy as np
import pytest
from unit.client.load.fakes import ONE_KIND, FakeClock, FakeConnection, S

from latentserve_client.load.drive.connection import CallResult
from latentserve_client.load.drive.generator import CallLimits, LoadGenerator
from latentserve_client.load.measure.call_records import COLUMN, CallRecorder
from latentserve_client.load.plan.schedule import parse_profile


class Loop:
    """A generator on fake connections and a fake clock, and its records."""

    def __init__(self, *, connections=1, limits=None, seen=None, **answers):
        self.clock = FakeClock()
        self.connections = [FakeConnection(self.clock, **answers) for _ in range(connections)]
        self.recorder = CallRecorder()
        self.generator = LoadGenerator(
            self.connections,
            ONE_KIND,
            self.recorder,
            limits or CallLimits(timeout_s=10),
            clock=self.clock,
            on_failure=seen,
        )

    def closed(self, concurrency, seconds):
        self.generator.run_closed(concurrency, 0, round(seconds * S))
        assert self.generator.drain(10)
        return self.rows()

    def open(self, rate, seconds):
        self.generator.run_open(parse_profile(rate, seconds).arrivals("constant", 0), 0)
        assert self.generator.drain(60)
        return self.rows()

    def rows(self):
        rows = self.recorder.take()
        return {name: rows[:, column] for name, column in COLUMN.items()}


def test_a_closed_loop_keeps_its_calls_in_flight():
    loop = Loop(connections=3, service_s=lambda _: 0.01)
    rows = loop.closed(7, 1)
    assert sum(connection.most_in_flight for connection in loop.connections) == 7
    assert [connection.most_in_flight for connection in loop.connections] == [3, 2, 2]
    assert len(rows["code"]) == 700
    assert set(rows["end_ns"] - rows["intended_ns"]) == {10_000_000}
    assert set(rows["rows"]) == {2}


def test_an_open_loop_sends_on_time_with_a_slow_server():
    loop = Loop(service_s=lambda _: 3.0)
    rows = loop.open("100", 2)
    np.testing.assert_allclose(np.sort(rows["intended_ns"]), np.arange(200) * 10_000_000, atol=1)
    np.testing.assert_array_equal(rows["sent_ns"], rows["intended_ns"])
    assert loop.connections[0].most_in_flight == 200


def test_latency_counts_from_the_intended_send_time_when_a_server_stalls():
    """A server stalls once for 2 s, with a limit of one call in flight.

    By the actual send time, one call of a thousand is slow and p99 is 1 ms. By the intended send
    time, two hundred calls had to wait.
    """
    loop = Loop(
        limits=CallLimits(timeout_s=10, max_in_flight=1),
        service_s=lambda number: 2.0 if number == 300 else 0.001,
    )
    rows = loop.open("100", 10)
    latency_ms = (rows["end_ns"] - rows["intended_ns"]) / 1e6
    from_send_ms = (rows["end_ns"] - rows["sent_ns"]) / 1e6
    assert len(latency_ms) == 1000
    assert np.percentile(from_send_ms, 99) < 5
    assert np.percentile(latency_ms, 99) > 1500
    assert (latency_ms > 100).sum() > 150
    late = rows["sent_ns"] - rows["intended_ns"] > 1_000_000
    assert late.sum() > 150


def test_calls_in_flight_of_an_open_loop_are_bounded():
    loop = Loop(limits=CallLimits(timeout_s=10, max_in_flight=5), service_s=lambda _: 0.5)
    loop.open("100", 1)
    assert loop.connections[0].most_in_flight == 5


def test_failures_have_their_code_and_are_reported():
    seen = []
    loop = Loop(
        answer=lambda number: (
            CallResult(13, None, "broken") if number % 4 == 0 else CallResult(0, b"")
        ),
        seen=lambda request, ended: seen.append(ended.details),
    )
    rows = loop.closed(1, 0.1)
    assert (rows["code"] == 13).sum() == 25
    assert seen == ["broken"] * 25


def refused_twice(code, pushback_s=None):
    return lambda number: (
        CallResult(code, None, "", pushback_s) if number < 2 else CallResult(0, b"")
    )


@pytest.mark.parametrize("code", [8, 14])
def test_latency_with_retries_counts_from_the_first_attempt(code):
    loop = Loop(limits=CallLimits(timeout_s=10, retries=3), answer=refused_twice(code))
    rows = loop.open("1", 1)
    assert rows["attempts"].tolist() == [3]
    assert rows["code"].tolist() == [0]
    # Two pauses of 0.1 and 0.2 s, three attempts of 1 ms.
    assert (rows["end_ns"] - rows["intended_ns"])[0] == pytest.approx(0.303 * S, abs=0.02 * S)


def test_pushback_sets_the_delay_or_forbids_the_retry():
    loop = Loop(limits=CallLimits(timeout_s=10, retries=3), answer=refused_twice(8, 1.5))
    latency = loop.open("1", 1)
    assert (latency["end_ns"] - latency["sent_ns"])[0] == pytest.approx(3 * S, rel=0.05)
    loop = Loop(limits=CallLimits(timeout_s=10, retries=3), answer=refused_twice(8, -1.0))
    assert loop.open("1", 1)["attempts"].tolist() == [1]


def test_retries_up_to_the_limit_and_only_after_retryable_codes():
    loop = Loop(limits=CallLimits(timeout_s=10, retries=1), answer=lambda _: CallResult(14, None))
    rows = loop.open("1", 1)
    assert (rows["attempts"].tolist(), rows["code"].tolist()) == ([2], [14])
    loop = Loop(limits=CallLimits(timeout_s=10, retries=5), answer=lambda _: CallResult(3, None))
    assert loop.open("1", 1)["attempts"].tolist() == [1]


def test_a_closed_loop_does_not_spin_on_an_unreachable_server():
    loop = Loop(service_s=lambda _: 0.0, answer=lambda _: CallResult(14, None))
    rows = loop.closed(2, 1)
    assert 20 <= len(rows["code"]) <= 42  # two calls every 50 ms


def test_stop_ends_both_loops():
    loop = Loop(service_s=lambda _: 0.01)
    loop.clock.at(0.5, loop.generator.stop)
    assert len(loop.closed(1, 1000)["code"]) == pytest.approx(50, abs=2)
    loop = Loop(service_s=lambda _: 0.01)
    loop.clock.at(0.5, loop.generator.stop)
    assert len(loop.open("100", 1000)["code"]) == pytest.approx(50, abs=2)


def test_drain_ends_at_its_limit():
    loop = Loop(service_s=lambda _: 100.0)
    loop.generator.run_open(iter([0.0]), 0)
    assert not loop.generator.drain(1)
    assert loop.generator.in_flight == 1


def test_records_are_taken_once_during_concurrent_appends():
    recorder = CallRecorder()
    row = tuple(range(len(COLUMN)))
    taken = []

    def append():
        for _ in range(20_000):
            recorder.append(row)

    threads = [threading.Thread(target=append) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken.append(len(recorder.take()))
    taken.append(len(recorder.take()))
    assert sum(taken) == 40_000
    assert recorder.take().shape == (0, len(COLUMN))
