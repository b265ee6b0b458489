"""The supervisor's decisions: workers are fakes, the clock passes and events come by hand."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from latentserve_server import exit_status
from latentserve_server.config import Settings
from latentserve_server.errors import ModelNotFound
from latentserve_server.repository.lifecycle import Action, Outcome
from latentserve_server.supervisor.control_loop import Signalled, Supervisor
from latentserve_server.supervisor.ipc import IpcClosed, IpcRequest
from latentserve_server.supervisor.messages import CannotStart, Reload, Serving
from latentserve_server.supervisor.metrics_aggregation import AggregatedCollector
from latentserve_server.supervisor.restart_policy import RestartPolicy
from latentserve_server.supervisor.worker_metrics import WorkerMetrics
from latentserve_server.supervisor.worker_process import WorkerExited, WorkerMessage

TIMEOUT_S = 10.0
TERM = Signalled(signal.SIGTERM)


class FakeChild:
    """A worker that only remembers what it was told."""

    def __init__(self, number: int, pid: int) -> None:
        self.number = number
        self.pid = pid
        self.stops = 0
        self.killed = False
        self.cut_off = False
        self.last_report: Sequence[Metric] = ()
        self.reloads: list[tuple[frozenset[str], Future[Any]]] = []
        self.answers: Future[object] = Future()

    def stop(self) -> None:
        self.stops += 1

    def kill(self) -> None:
        self.killed = True

    def ask_report(self) -> Future[Any]:
        return Future()

    def ask_alive(self) -> Future[Any]:
        self.alive: Future[Any] = Future()
        return self.alive

    def reload(self, names: frozenset[str]) -> Future[Any]:
        future: Future[Any] = Future()
        self.reloads.append((names, future))
        return future

    def answer(self, request: Any, body: object) -> None:
        self.answers.set_result(body)


class Bench:
    """A supervisor of fakes."""

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        self.now = 1000.0
        self.started: list[FakeChild] = []
        self.fail_to_start = False
        self.registry = CollectorRegistry()
        self.settings = Settings(
            exports=Path(__file__).parent,
            listen="127.0.0.1:1",
            workers=workers,
            drain_delay_s=5.0,
            grace_s=20.0,
            **settings,
        )
        self.supervisor = Supervisor(
            self.settings,
            self.launch,
            AggregatedCollector(),
            WorkerMetrics(self.registry),
            make_restarts=lambda: RestartPolicy(first_delay_s=1.0, well_s=10.0, limit=3),
            clock=lambda: self.now,
        )
        self.supervisor.step(None)

    def launch(self, number: int) -> Any:
        if self.fail_to_start:
            raise OSError("out of memory")
        process = FakeChild(number, 100 + len(self.started))
        self.started.append(process)
        return process

    def process(self, number: int) -> FakeChild:
        """The present one."""
        process: Any = self.supervisor.slots[number - 1].process
        assert process is not None, f"worker {number} is down"
        return process

    def tell(self, number: int, message: object) -> None:
        process: Any = self.process(number)
        self.supervisor.step(WorkerMessage(process, message))

    def serve(self, *numbers: int) -> None:
        for number in numbers:
            self.tell(number, Serving())

    def end(self, number: int, status: int) -> None:
        process: Any = self.process(number)
        self.supervisor.step(WorkerExited(process, status))

    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        self.supervisor.step(None)

    def run_s(self, seconds: float) -> None:
        """Let time pass as it does where nothing happens: with a step whenever one is due."""
        end = self.now + seconds
        while self.now < end:
            self.pass_s(min(self.supervisor.wait_s or seconds, end - self.now))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Iterator[Bench]:
    caplog.set_level(logging.INFO)
    return Bench()


def test_all_are_started_at_once_and_the_last_to_serve_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    assert [process.number for process in bench.started] == [1, 2]
    assert bench.metric("latentserve_workers", state="starting") == 2
    bench.serve(1)
    assert "all 2 workers" not in caplog.text
    bench.serve(2)
    assert "all 2 workers are serving on 127.0.0.1:1" in caplog.text
    assert bench.metric("latentserve_workers", state="serving") == 2
    assert bench.supervisor.wait_s is None


def test_a_worker_that_ran_well_is_started_again_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(1, 2)
    bench.pass_s(60)
    bench.end(2, -signal.SIGKILL)
    assert [process.number for process in bench.started] == [1, 2, 2]
    assert "worker 2 (process 101) was killed by SIGKILL after serving for 60.0 s" in caplog.text
    assert bench.metric("latentserve_worker_restarts_total", worker="2", cause="signal") == 1
    assert not bench.supervisor.ended
    assert bench.process(1).stops == 0


@pytest.mark.parametrize(
    ("status", "cause"), [(1, "exit"), (0, "exit"), (-11, "signal"), (exit_status.STUCK, "stuck")]
)
def test_the_cause_of_a_death_is_counted(bench: Bench, status: int, cause: str) -> None:
    bench.serve(1, 2)
    bench.end(1, status)
    assert bench.metric("latentserve_worker_restarts_total", worker="1", cause=cause) == 1


def test_one_that_dies_early_is_started_later_and_later(bench: Bench) -> None:
    bench.serve(1, 2)
    for delay_s in (1.0, 2.0):
        bench.end(2, 1)
        assert bench.supervisor.wait_s == delay_s
        assert bench.metric("latentserve_workers", state="down") == 1
        bench.pass_s(delay_s - 0.1)
        assert bench.supervisor.slots[1].process is None
        bench.pass_s(0.1)
        assert bench.process(2).number == 2


def test_while_another_serves_there_is_no_giving_up(bench: Bench) -> None:
    bench.serve(1)
    for _ in range(20):
        bench.end(2, exit_status.STARTUP)
        bench.pass_s(60)
    assert not bench.supervisor.ended
    assert bench.process(1).stops == 0


def test_it_gives_up_when_all_die_at_once_again_and_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        bench.end(1, 1)
        bench.end(2, -11)
        bench.pass_s(10)
    bench.end(1, 1)
    assert bench.process(2).stops == 1
    assert not bench.supervisor.ended
    bench.end(2, 0)
    assert bench.supervisor.ended
    assert bench.supervisor.finish() == exit_status.WORKERS_DIE
    assert (
        "gives up: worker 1 died 3 times in a row, and no other serves; the last time it "
        "(process 104) ended with exit status 1"
    ) in caplog.records[-1].getMessage()


def test_it_does_not_give_up_on_one_that_ran_well_and_is_just_being_started(bench: Bench) -> None:
    bench.serve(1)
    bench.pass_s(60)
    for _ in range(2):
        bench.end(2, 1)
        bench.pass_s(10)
    bench.end(1, -9)
    bench.end(2, 1)
    assert not bench.supervisor.ended
    assert bench.process(1).stops == 0


@pytest.mark.parametrize("status", [exit_status.SETTINGS, exit_status.STARTUP])
def test_a_setting_that_no_restart_mends_ends_it_with_the_worker_s_own_words(
    bench: Bench, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    bench.tell(1, CannotStart("--default-model x: there is no such model"))
    bench.end(1, status)
    assert bench.process(2).stops == 1
    bench.end(2, status)
    assert bench.supervisor.ended
    assert bench.supervisor.finish() == status
    assert caplog.records[-1].getMessage() == (
        "latentserve-server: --default-model x: there is no such model"
    )


def test_the_same_after_it_has_served_is_a_death_like_any_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(1, 2)
    bench.end(1, -9)
    bench.pass_s(10)
    bench.tell(1, CannotStart("the folder is gone"))
    bench.end(1, exit_status.STARTUP)
    assert not bench.supervisor.ended
    assert "(the folder is gone); it is started again in 2 s" in caplog.text


def test_a_process_that_cannot_be_started_is_tried_again(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.fail_to_start = True
    bench.end(2, -9)
    bench.pass_s(1)
    assert bench.supervisor.slots[1].process is None
    bench.fail_to_start = False
    bench.pass_s(2)
    assert bench.process(2).number == 2


def test_a_signal_drains_all_and_nothing_is_started_any_more(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(1, 2)
    bench.end(2, 1)
    bench.supervisor.step(TERM)
    assert bench.process(1).stops == 1
    bench.pass_s(20)
    assert len(bench.started) == 2
    bench.end(1, 0)
    assert bench.supervisor.ended
    assert bench.supervisor.finish() == exit_status.STOPPED
    assert "stopped: all 2 workers ended in order" in caplog.records[-1].getMessage()


def test_a_second_signal_is_passed_on(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.serve(1, 2)
    for _ in range(2):
        bench.supervisor.step(Signalled(signal.SIGINT))
    assert [bench.process(number).stops for number in (1, 2)] == [2, 2]
    bench.process(1).cut_off = True
    for number in (1, 2):
        bench.end(number, 0)
    assert bench.supervisor.finish() == exit_status.STOPPED
    assert "calls were cut off by a second signal" in caplog.records[-1].getMessage()


def test_calls_that_outlast_the_grace_are_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(1, 2)
    bench.supervisor.step(TERM)
    bench.process(2).cut_off = True
    for number in (1, 2):
        bench.end(number, 0)
    assert bench.supervisor.finish() == exit_status.STOPPED
    assert "calls were cut off at the end of the grace" in caplog.records[-1].getMessage()


def test_a_worker_that_does_not_stop_is_killed_and_that_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(1, 2)
    bench.supervisor.step(TERM)
    bench.end(1, 0)
    limit_s = bench.supervisor.wait_s
    assert limit_s is not None
    assert limit_s >= bench.settings.drain_delay_s + bench.settings.grace_s
    bench.pass_s(limit_s - 1)
    assert not bench.process(2).killed
    bench.pass_s(1)
    assert bench.process(2).killed
    bench.end(2, -signal.SIGKILL)
    assert bench.supervisor.finish() == exit_status.UNCLEAN_STOP
    assert "calls were cut off: worker 2 (process 101) was killed by SIGKILL" in caplog.text


def test_after_a_second_signal_the_patience_is_short(bench: Bench) -> None:
    bench.supervisor.step(TERM)
    bench.supervisor.step(TERM)
    assert bench.supervisor.wait_s == 15.0


def test_a_worker_that_was_not_yet_serving_may_end_as_it_likes(bench: Bench) -> None:
    bench.serve(1)
    bench.supervisor.step(TERM)
    bench.end(2, -signal.SIGTERM)
    bench.end(1, 0)
    assert bench.supervisor.finish() == exit_status.STOPPED


def test_a_worker_that_answers_nothing_is_killed_where_that_is_wanted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(watchdog_s=30.0, watchdog_exit="yes")
    bench.serve(1, 2)
    bench.pass_s(1)
    for _ in range(20):
        bench.process(1).alive.set_result(True)
        bench.run_s(28)
        bench.process(2).alive.set_result(True)
        bench.run_s(0.5)
    assert not any(process.killed for process in bench.started)
    bench.process(1).alive.set_result(True)
    bench.run_s(30)
    assert not bench.process(1).killed
    assert bench.process(2).killed
    assert "worker 2 (process 101) has not answered for 30.0 s and is killed" in caplog.text
    bench.end(2, -signal.SIGKILL)
    bench.pass_s(0)
    assert bench.process(2).pid == 102
    bench.serve(2)
    bench.process(1).alive.set_result(True)
    bench.run_s(29)
    assert not bench.process(2).killed


def test_a_pause_of_the_supervisor_itself_kills_nobody() -> None:
    bench = Bench(watchdog_s=30.0, watchdog_exit="yes")
    bench.serve(1, 2)
    bench.run_s(5)  # both are asked, and everything is stopped before they answer
    bench.pass_s(600)
    assert not any(process.killed for process in bench.started)
    bench.run_s(29)
    bench.process(1).alive.set_result(True)
    assert not any(process.killed for process in bench.started)
    bench.run_s(2)
    assert not bench.process(1).killed
    assert bench.process(2).killed


def test_a_silent_worker_is_left_alone_where_nothing_else_is_said(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.pass_s(3600)
    assert not any(process.killed for process in bench.started)


def reloaded(bench: Bench, number: int, answer: object) -> None:
    """Answer the reload that a worker is asked for; it comes from a thread."""
    end = time.monotonic() + TIMEOUT_S
    while not bench.process(number).reloads:
        assert time.monotonic() < end
        time.sleep(0.005)
    _, future = bench.process(number).reloads.pop()
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def test_a_reload_that_one_worker_is_asked_for_reaches_all(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.tell(1, IpcRequest(7, Reload(frozenset({"a"}))))
    outcome = Outcome("a", 1, Action.LOADED)
    reloaded(bench, 2, [outcome])
    assert not bench.process(1).answers.done()
    reloaded(bench, 1, [outcome])
    assert bench.process(1).answers.result(TIMEOUT_S) == [outcome]


def test_a_worker_that_ends_during_a_reload_does_not_hold_it_up(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.tell(1, IpcRequest(7, Reload()))
    outcome = Outcome("a", 1, Action.LOADED)
    reloaded(bench, 1, [outcome])
    reloaded(bench, 2, IpcClosed("gone"))
    assert bench.process(1).answers.result(TIMEOUT_S) == [outcome]


def test_what_no_worker_knows_is_not_found(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.tell(2, IpcRequest(7, Reload(frozenset({"z"}))))
    for number in (1, 2):
        reloaded(bench, number, ModelNotFound("there is no model 'z'"))
    answer = bench.process(2).answers.result(TIMEOUT_S)
    assert isinstance(answer, ModelNotFound)


def test_a_hangup_reloads_all_and_stops_nobody(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.supervisor.step(Signalled(signal.SIGHUP))
    for number in (1, 2):
        reloaded(bench, number, [])
        assert bench.process(number).stops == 0
    assert not bench.supervisor.ended


def test_the_supervisor_loads_neither_grpc_nor_onnx_runtime() -> None:
    probe = "import sys, latentserve_server.supervisor.control_loop; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert "prometheus_client" in loaded
    assert not loaded & {"grpc", "onnxruntime"}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (3, "ended with exit status 3"),
        (-9, "was killed by SIGKILL"),
        (-250, "was killed by signal 250"),
    ],
)
def test_how_a_process_ended_is_told(status: int, text: str) -> None:
    assert exit_status.describe(status) == text
