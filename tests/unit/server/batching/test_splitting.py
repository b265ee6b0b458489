"""Retries of a failed batch: in halves if out of memory, otherwise each request alone."""

from __future__ import annotations

import logging

import pytest

from batch_bench import POISON, Bench
from latentserve_server.batching.queue import Batch, RequestSlice
from latentserve_server.batching.splitting import split_halves
from latentserve_server.errors import EngineFailure, OutOfMemory


def sizes(bench: Bench) -> list[int]:
    return [len(rows) for _, rows in bench.engine.batches]


def doubled(*values: float) -> list[float]:
    return [2 * value for value in values]


def test_a_batch_that_does_not_fit_runs_in_two_halves(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.engine.fitting_rows = 4
    requests = [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0)]
    numbers = [bench.submit(*values)[0] for values in requests]
    bench.run_all()
    assert sizes(bench) == [8, 4, 4]
    assert [bench.values(n) for n in numbers] == [doubled(*values) for values in requests]
    assert bench.recorder.events.count(("halved", "decode")) == 1
    assert bench.recorder.events.count(("waited", "decode")) == 4
    assert ("failed", "decode") not in bench.recorder.events
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no memory for decode of 8 rows" in record.getMessage()


def test_a_single_caller_is_halved_by_rows_and_joined() -> None:
    bench = Bench()
    bench.engine.fitting_rows = 4
    number, _ = bench.submit(*map(float, range(1, 8)))
    bench.run_all()
    assert sizes(bench) == [7, 4, 3]
    assert bench.values(number) == doubled(*map(float, range(1, 8)))


def test_a_caller_in_both_halves_is_joined_and_its_neighbours_are_exact() -> None:
    bench = Bench()
    bench.engine.fitting_rows = 4
    requests = [(1.0,), (2.0, 3.0, 4.0, 5.0, 6.0, 7.0), (8.0,)]
    numbers = [bench.submit(*values)[0] for values in requests]
    bench.run_all()
    assert sizes(bench) == [8, 4, 4]
    assert [bench.values(n) for n in numbers] == [doubled(*values) for values in requests]


def test_halves_that_do_not_fit_fail_and_the_next_batch_is_not_split() -> None:
    bench = Bench()
    bench.engine.fitting_rows = 3
    numbers = [bench.submit(float(n), float(n))[0] for n in range(1, 5)]
    bench.run_all()
    assert sizes(bench) == [8, 4, 4]
    for n in numbers:
        error = bench.error(n)
        assert isinstance(error, EngineFailure)
        assert error.code == "INTERNAL"
    assert bench.recorder.events.count(("failed", "decode")) == 4
    assert bench.recorder.events.count(("halved", "decode")) == 1
    bench.engine.fitting_rows = 8
    after, _ = bench.submit(*[9.0] * 8)
    bench.run_all()
    assert bench.values(after) == [18.0] * 8
    assert sizes(bench)[3:] == [8]


@pytest.mark.parametrize("greedy", range(4))
def test_only_the_callers_of_the_half_that_does_not_fit_fail(greedy: int) -> None:
    bench = Bench()

    def lack() -> None:
        if 7.0 in bench.engine.batches[-1][1]:
            raise OutOfMemory("no memory")

    bench.engine.during_run = lack
    for n in range(4):
        bench.submit(7.0 if n == greedy else float(n + 1))
    bench.run_all()
    assert sizes(bench) == [4, 2, 2]
    for n in range(4):
        if n // 2 == greedy // 2:
            assert isinstance(bench.error(n), EngineFailure)
        else:
            assert bench.values(n) == [2.0 * (n + 1)]


def test_rows_of_a_caller_whose_first_half_failed_do_not_run_in_the_second() -> None:
    bench = Bench()

    def lack() -> None:
        if 1.0 in bench.engine.batches[-1][1]:
            raise OutOfMemory("no memory")

    bench.engine.during_run = lack
    torn, _ = bench.submit(1.0, 2.0, 3.0, 4.0, 5.0)
    after, _ = bench.submit(6.0)
    bench.run_all()
    assert [rows for _, rows in bench.engine.batches][1:] == [[1.0, 2.0, 3.0], [6.0]]
    assert isinstance(bench.error(torn), EngineFailure)
    assert bench.values(after) == [12.0]


def test_one_row_that_does_not_fit_just_fails() -> None:
    bench = Bench()
    bench.engine.fitting_rows = 0
    number, _ = bench.submit(1.0)
    bench.run_all()
    assert sizes(bench) == [1]
    assert isinstance(bench.error(number), EngineFailure)
    assert bench.recorder.events.count(("halved", "decode")) == 0


@pytest.mark.parametrize("poisoned", range(4))
def test_a_poisoned_row_fails_alone_in_a_half_as_well(poisoned: int) -> None:
    bench = Bench()
    bench.engine.fitting_rows = 2
    for n in range(4):
        bench.submit(POISON if n == poisoned else float(n + 1))
    bench.run_all()
    for n in range(4):
        if n == poisoned:
            assert isinstance(bench.error(n), EngineFailure)
        else:
            assert bench.values(n) == [2.0 * (n + 1)]
    assert bench.recorder.events.count(("failed", "decode")) == 1


def test_a_request_cancelled_meanwhile_is_not_retried() -> None:
    bench = Bench()
    bench.engine.fitting_rows = 2
    _, leaving = bench.submit(1.0)
    staying, _ = bench.submit(2.0)
    third, _ = bench.submit(3.0)
    bench.engine.during_run = leaving.cancel
    bench.run_all()
    assert [rows for _, rows in bench.engine.batches] == [[1.0, 2.0, 3.0], [2.0], [3.0]]
    assert bench.values(staying) == [4.0]
    assert bench.values(third) == [6.0]


def test_part_of_a_request_that_spans_batches_is_halved_too() -> None:
    bench = Bench(max_batch_rows=4)
    bench.engine.fitting_rows = 2
    values = [float(n) for n in range(1, 11)]
    number, _ = bench.submit(*values)
    bench.run_all()
    assert bench.values(number) == doubled(*values)
    assert sizes(bench) == [4, 2, 2, 4, 2, 2, 2]


def test_the_wait_of_a_request_is_reported_once_despite_retries() -> None:
    bench = Bench()
    for value in (1.0, POISON, 3.0):
        bench.submit(value)
    bench.run_all()
    assert bench.recorder.events.count(("waited", "decode")) == 3


@pytest.mark.parametrize("rows", range(2, 9))
@pytest.mark.parametrize("start", [0, 5])
def test_halves_have_all_rows_once_and_differ_by_one_at_most(rows: int, start: int) -> None:
    bench = Bench()
    _, request = bench.submit(*[1.0] * 13)
    _, other = bench.submit(1.0)
    slices = [RequestSlice(request, start, start + rows - 1), RequestSlice(other, 0, 1)]
    first, second = split_halves(Batch("decode", slices, rows))
    assert first.rows - second.rows in (0, 1)
    for half in (first, second):
        assert half.rows == sum(part.rows for part in half.slices)
    covered = [
        (part.request, row)
        for half in (first, second)
        for part in half.slices
        for row in range(part.start, part.stop)
    ]
    expected = [(request, row) for row in range(start, start + rows - 1)] + [(other, 0)]
    assert covered == expected
