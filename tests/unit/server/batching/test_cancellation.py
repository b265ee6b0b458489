"""Requests that are cancelled or expire at every position of a batch do not affect the others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from batch_bench import POISON, START_NS, Bench, Floats
from latentserve_server.batching.request import QueuedRequest
from latentserve_server.errors import DeadlineExceeded, EngineFailure

SOON = START_NS / 1e9 + 0.5
EVERY_CHOICE = [set(c) for n in range(1, 5) for c in itertools.combinations(range(4), n)]
WAYS = ["cancel", "expire"]


class Four:
    """Four requests of `rows` rows each; `leave` cancels or expires those in `leaving`."""

    def __init__(self, rows: int, leaving: set[int], way: str, *, max_batch_rows: int = 8) -> None:
        self.bench = Bench(max_batch_rows=max_batch_rows)
        self.leaving = leaving
        self.way = way
        self.requests: list[QueuedRequest] = []
        for n in range(4):
            deadline = SOON if way == "expire" and n in leaving else None
            self.requests.append(self.bench.submit(*self.sent(n, rows), deadline=deadline)[1])
        self.rows = rows

    @staticmethod
    def sent(n: int, rows: int) -> list[float]:
        return [float(10 * n + row + 1) for row in range(rows)]

    def leave(self) -> None:
        if self.way == "expire":
            self.bench.clock.pass_s(1.0)
        else:
            for n in self.leaving:
                self.requests[n].cancel()

    def leave_during(self, batch: int) -> None:
        def maybe() -> None:
            if len(self.bench.engine.batches) == batch:
                self.leave()

        self.bench.engine.during_run = maybe

    def check_neighbours(self) -> None:
        for n in set(range(4)) - self.leaving:
            expected = [2 * value for value in self.sent(n, self.rows)]
            assert self.bench.values(n) == expected
        assert self.bench.batcher.waiting_rows == 0
        assert self.bench.batcher.waiting_bytes == 0

    def check_left(self, answered: Callable[[int], bool] = lambda n: False) -> None:
        for n in self.leaving:
            if answered(n):
                assert self.bench.values(n) == [2 * value for value in self.sent(n, self.rows)]
            elif self.way == "cancel":
                assert n not in self.bench.completions
            else:
                assert isinstance(self.bench.error(n), DeadlineExceeded)

    def ran(self) -> set[float]:
        return {value for _, rows in self.bench.engine.batches for value in rows}


@pytest.mark.parametrize("leaving", EVERY_CHOICE)
@pytest.mark.parametrize("way", WAYS)
def test_in_the_queue(leaving: set[int], way: str) -> None:
    four = Four(1, leaving, way)
    four.leave()
    four.bench.run_all()
    four.check_neighbours()
    four.check_left()
    # The engine never ran for cancelled or expired requests.
    assert four.ran() == {10.0 * n + 1 for n in range(4) if n not in leaving}
    reason = "cancelled" if way == "cancel" else "expired"
    events = four.bench.recorder.events
    assert events.count(("dropped", "decode", reason)) == len(leaving)


@pytest.mark.parametrize("leaving", EVERY_CHOICE)
@pytest.mark.parametrize("way", WAYS)
def test_while_the_batch_runs(leaving: set[int], way: str) -> None:
    """An expired request still completes: whether the client waits is the transport's concern."""
    four = Four(1, leaving, way)
    four.leave_during(1)
    four.bench.run_all()
    four.check_neighbours()
    four.check_left(answered=lambda n: way == "expire")
    assert len(four.bench.engine.batches) == 1


# Three rows each, in the batches [0 0 0 1] [1 1 2 2] [2 3 3 3].


@pytest.mark.parametrize("leaving", EVERY_CHOICE)
@pytest.mark.parametrize("way", WAYS)
def test_in_the_queue_between_the_batches_of_a_split_request(leaving: set[int], way: str) -> None:
    four = Four(3, leaving, way, max_batch_rows=4)
    assert four.bench.batcher.run_next()
    four.leave()
    four.bench.run_all()
    four.check_neighbours()
    four.check_left(answered=lambda n: n == 0)
    after = {value for _, rows in four.bench.engine.batches[1:] for value in rows}
    gone = {value for n in leaving - {0} for value in Four.sent(n, 3)}
    assert not after & gone


@pytest.mark.parametrize("leaving", EVERY_CHOICE)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_while_a_part_of_a_split_request_runs(leaving: set[int], way: str, batch: int) -> None:
    four = Four(3, leaving, way, max_batch_rows=4)
    four.leave_during(batch)
    four.bench.run_all()
    four.check_neighbours()
    # Rows that have left the queue by then: 4, 8, 12 of 12, three per request.
    dequeued = [3 * (n + 1) <= 4 * batch for n in range(4)]
    completed = [3 * (n + 1) <= 4 * (batch - 1) for n in range(4)]
    four.check_left(answered=lambda n: completed[n] or (way == "expire" and dequeued[n]))


def test_a_request_cancelled_during_a_failed_batch_is_not_retried() -> None:
    bench = Bench()
    requests = [bench.submit(value)[1] for value in (1.0, POISON, 3.0, 4.0)]
    bench.engine.during_run = requests[2].cancel
    bench.run_all()
    assert bench.values(0) == [2.0]
    assert isinstance(bench.error(1), EngineFailure)
    assert 2 not in bench.completions
    assert bench.values(3) == [8.0]
    assert [rows for _, rows in bench.engine.batches[1:]] == [[1.0], [POISON], [4.0]]


class Intrusive:
    """Outputs that call a function when rows are read from them."""

    def __init__(self, outputs: Floats, during: Callable[[slice], None]) -> None:
        self._outputs = outputs
        self._during = during
        self.dtype = outputs.dtype
        self.view = outputs.view

    def __len__(self) -> int:
        return len(self._outputs)

    def __getitem__(self, rows: slice) -> Floats:
        self._during(rows)
        return self._outputs[rows]


def test_a_request_cancelled_while_its_outputs_are_joined_is_not_completed() -> None:
    bench = Bench()
    requests = [bench.submit(value)[1] for value in (1.0, 2.0, 3.0)]
    run = bench.engine.run

    def cancel_the_second(rows: slice) -> None:
        if rows.start == 1:
            requests[1].cancel()

    def intrude(operation: str, inputs: Sequence[Floats]) -> list[Any]:
        return [Intrusive(output, cancel_the_second) for output in run(operation, inputs)]

    bench.engine.run = intrude  # type: ignore[method-assign]
    bench.run_all()
    assert bench.values(0) == [2.0]
    assert 1 not in bench.completions
    assert bench.values(2) == [6.0]


def test_the_error_of_a_partly_run_request_says_how_many_rows_ran() -> None:
    bench = Bench(max_batch_rows=2)
    number, _ = bench.submit(1.0, 2.0, 3.0, 4.0, deadline=SOON)
    assert bench.batcher.run_next()
    bench.clock.pass_s(1.0)
    bench.run_all()
    assert "only 2 of 4 rows ran" in str(bench.error(number))


def test_the_error_of_an_expired_request_says_that_the_model_did_not_run() -> None:
    bench = Bench()
    number, _ = bench.submit(1.0, deadline=SOON)
    bench.clock.pass_s(1.0)
    bench.run_all()
    assert "the model did not run" in str(bench.error(number))
    assert bench.engine.batches == []
