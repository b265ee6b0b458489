from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentserve_server.batching.batcher import Batcher
from latentserve_server.batching.request import Completion, Rows
from latentserve_server.transport.completion_queue.inline_execution import InlineExecution
from latentserve_server.transport.completion_queue.inline_policy import InlinePolicy

Floats = NDArray[np.float32]
TIMEOUT_S = 5.0


class NamedEngine:
    """Records the name, the rows and the thread of each run."""

    def __init__(self, name: str, runs: list[tuple[str, int, int]]) -> None:
        self.name, self.runs = name, runs

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        self.runs.append((self.name, len(inputs[0]), threading.get_ident()))
        return list(inputs)


class Bench:
    """Two models whose batches the test's thread may run."""

    def __init__(self, *, expected_s: float = 0.0001, calls: int = 100) -> None:
        self.calls = calls
        # Limits: 1 ms plus 0.225 ms for each call, at most 20 ms.
        policy = InlinePolicy(lambda: 0.0005, lambda: 0.0)
        self.inline = InlineExecution(lambda: self.calls, policy)
        self.runs: list[tuple[str, int, int]] = []
        self.done = threading.Semaphore(0)
        self.models = {name: self._model(name, expected_s) for name in "ab"}

    def _model(self, name: str, expected_s: float) -> Batcher:
        engine = NamedEngine(name, self.runs)
        batcher = Batcher(
            engine, name=name, max_batch_rows=4, queue_rows=64, inline_hook=self.inline.take
        )
        batcher.learn("decode", 1, expected_s)
        batcher.learn("decode", 4, expected_s)
        batcher.start()
        return batcher

    def submit(self, model: str, rows: int = 1) -> None:
        array = np.zeros((rows, 2), dtype=np.float32)
        self.models[model].submit("decode", (Rows(array),), None, self._finished)

    def _finished(self, completion: Completion) -> None:
        assert completion.error is None
        self.done.release()

    def wait(self, calls: int) -> None:
        for _ in range(calls):
            assert self.done.acquire(timeout=TIMEOUT_S)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.inline.begin()
    return bench


def test_requests_before_the_run_form_one_batch(bench: Bench) -> None:
    assert not bench.inline
    for _ in range(3):
        bench.submit("a")
    assert bench.inline
    assert not bench.runs
    bench.inline.run()
    assert bench.runs == [("a", 3, threading.get_ident())]


def test_a_full_batch_is_due(bench: Bench) -> None:
    for _ in range(3):
        bench.submit("a")
        assert not bench.inline.due
    bench.submit("a")
    assert bench.inline.due


def test_two_models_take_turns(bench: Bench) -> None:
    for _ in range(10):
        bench.submit("a")
    bench.submit("b")
    while bench.inline:
        bench.inline.run()
    assert [(name, rows) for name, rows, _ in bench.runs] == [
        ("a", 4),
        ("b", 1),
        ("a", 4),
        ("a", 2),
    ]


def test_requests_after_the_last_batch_are_accepted_again(bench: Bench) -> None:
    for _ in range(2):
        bench.submit("a")
        while bench.inline:
            bench.inline.run()
    assert len(bench.runs) == 2


def test_a_long_batch_runs_on_the_engines_thread() -> None:
    bench = Bench(expected_s=1.0)
    bench.inline.begin()
    bench.submit("a")
    assert not bench.inline
    bench.wait(1)
    assert bench.runs[0][2] != threading.get_ident()


def test_a_batch_of_more_calls_may_take_longer() -> None:
    """One call of 1.5 ms is over the limit; four calls are not, as the limit grows with calls."""
    bench = Bench(expected_s=0.0015)
    bench.inline.begin()
    bench.submit("a")
    bench.wait(1)
    assert bench.runs[0][2] != threading.get_ident()

    bench = Bench(expected_s=0.0001)
    bench.inline.begin()
    for _ in range(4):
        bench.submit("a")
    for _ in range(200):
        bench.models["a"].learn("decode", 4, 0.0015)
    bench.inline.run()
    assert bench.runs == [("a", 4, threading.get_ident())]


@pytest.mark.parametrize(("expected_s", "here"), [(0.005, True), (0.03, False)])
def test_the_batch_of_the_only_call_may_take_longer(expected_s: float, here: bool) -> None:
    bench = Bench(expected_s=expected_s, calls=1)
    bench.inline.begin()
    bench.submit("a")
    assert bool(bench.inline) is here
    if here:
        bench.calls = 2  # a second call has arrived
        bench.inline.run()
    bench.wait(1)
    assert bench.runs[0][2] != threading.get_ident()


def test_a_batch_that_grew_too_long_is_handed_over(bench: Bench) -> None:
    bench.submit("a")
    for _ in range(200):
        bench.models["a"].learn("decode", 1, 1.0)
    bench.inline.run()
    bench.wait(1)
    assert bench.runs[0][2] != threading.get_ident()
    assert not bench.inline


def test_offers_of_other_threads_are_declined(bench: Bench) -> None:
    thread = threading.Thread(target=bench.submit, args=("a",))
    thread.start()
    thread.join()
    assert not bench.inline
    bench.wait(1)
    assert bench.runs[0][2] not in (threading.get_ident(), thread.ident)


def test_at_the_end_the_engines_threads_run_accepted_requests(bench: Bench) -> None:
    bench.submit("a")
    bench.submit("b")
    bench.inline.end()
    bench.wait(2)
    assert not bench.inline
    bench.submit("a")
    bench.wait(1)
    assert threading.get_ident() not in {thread for _, _, thread in bench.runs}


class HangingEngine:
    """Hangs in its first run until it is released."""

    def __init__(self) -> None:
        self.started, self.released = threading.Event(), threading.Event()
        self.threads: list[int] = []

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        self.threads.append(threading.get_ident())
        self.started.set()
        assert self.released.wait(TIMEOUT_S)
        return list(inputs)


def test_an_overdue_batch_is_left_to_its_thread_and_another_one_takes_over() -> None:
    bench = Bench()
    engine = HangingEngine()
    bench.models["a"]._executor._runner = engine
    continues: list[bool] = []

    def poll() -> None:
        bench.inline.begin()
        bench.submit("a")
        bench.submit("b")
        continues.append(bench.inline.run())

    first = threading.Thread(target=poll)
    first.start()
    assert engine.started.wait(TIMEOUT_S)
    assert [bench.inline.give_up_overdue(3) for _ in range(4)] == [
        None,
        None,
        bench.models["a"],
        None,
    ]
    bench.inline.begin()  # this thread is the successor, and runs the batch of the other model
    bench.submit("a")  # queued behind the batch that hangs
    assert bench.inline.run()
    assert bench.runs == [("b", 1, threading.get_ident())]
    assert not bench.inline
    engine.released.set()
    first.join(TIMEOUT_S)
    assert continues == [False]
    bench.wait(3)
    assert engine.threads[0] != threading.get_ident()
    assert len(set(engine.threads)) == 2  # the queued request ran on the thread of the model
    bench.submit("a")
    assert not bench.inline  # this model is not executed inline again
    bench.wait(1)


def test_a_batch_that_finishes_between_the_checks_is_not_overdue(bench: Bench) -> None:
    checked: list[object] = []
    for runner in (bench.models[name]._executor for name in "ab"):
        run = runner._runner.run

        def checked_run(*arguments: Any, run: Any = run) -> Any:
            checked.append(bench.inline.give_up_overdue(2))
            return run(*arguments)

        runner._runner = SimpleNamespace(run=checked_run)
    for _ in range(5):
        bench.submit("a")
        bench.submit("b")
        assert bench.inline.run()
        assert bench.inline.run()
    assert checked == [None] * 10
