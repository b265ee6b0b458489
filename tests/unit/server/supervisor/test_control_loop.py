"""Supervisor with fake workers; the tests advance the clock and send the events."""

from __future__ import annotations

import logging
import math
import queue
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


class FakeWorker:
    """A worker that records the commands it receives."""

    def __init__(self, number: int, pid: int) -> None:
        self.number = number
        self.pid = pid
        self.stops = 0
        self.killed = False
        self.cut_off = False
        self.last_report: Sequence[Metric] = ()
        self.reloads: list[tuple[frozenset[str], Future[Any]]] = []
        self.replies: Future[object] = Future()

    def stop(self) -> None:
        self.stops += 1

    def kill(self) -> None:
        self.killed = True

    def request_report(self) -> Future[Any]:
        return Future()

    def ping(self) -> Future[Any]:
        self.pinged: Future[Any] = Future()
        return self.pinged

    def reload(self, names: frozenset[str]) -> Future[Any]:
        future: Future[Any] = Future()
        self.reloads.append((names, future))
        return future

    def reply(self, request: Any, body: object) -> None:
        self.replies.set_result(body)


class Bench:
    """A supervisor with fake workers and a fake clock."""

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        self.now = 1000.0
        self.started: list[FakeWorker] = []
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
            make_restarts=lambda: RestartPolicy(first_delay_s=1.0, healthy_after_s=10.0, limit=3),
            clock=lambda: self.now,
        )
        self.supervisor.step(None)

    def launch(self, number: int) -> Any:
        if self.fail_to_start:
            raise OSError("out of memory")
        process = FakeWorker(number, 100 + len(self.started))
        self.started.append(process)
        return process

    def process(self, number: int) -> FakeWorker:
        """Return the current process of a worker."""
        process: Any = self.supervisor.workers[number - 1].process
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
        """Advance the clock as in the event loop: with a step whenever one is due."""
        end = self.now + seconds
        while self.now < end:
            self.pass_s(min(self.supervisor.wait_s or seconds, end - self.now))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Iterator[Bench]:
    caplog.set_level(logging.INFO)
    return Bench()


def test_all_workers_start_at_once_and_a_log_line_reports_that_all_are_serving(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    assert [process.number for process in bench.started] == [1, 2]
    assert bench.metric("latentserve_workers", state="starting") == 2
    bench.serve(1)
    assert "all 2 workers" not in caplog.text
    bench.serve(2)
    assert "all 2 workers are serving on 127.0.0.1:1" in caplog.text
    assert bench.metric("latentserve_workers", state="serving") == 2
    assert bench.supervisor.wait_s == math.inf


def test_a_worker_restarts_at_once_after_a_healthy_run(
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
def test_the_cause_of_an_unexpected_exit_is_counted(bench: Bench, status: int, cause: str) -> None:
    bench.serve(1, 2)
    bench.end(1, status)
    assert bench.metric("latentserve_worker_restarts_total", worker="1", cause=cause) == 1


def test_the_restart_delay_grows_with_each_early_exit(bench: Bench) -> None:
    bench.serve(1, 2)
    for delay_s in (1.0, 2.0):
        bench.end(2, 1)
        assert bench.supervisor.wait_s == delay_s
        assert bench.metric("latentserve_workers", state="down") == 1
        bench.pass_s(delay_s - 0.1)
        assert bench.supervisor.workers[1].process is None
        bench.pass_s(0.1)
        assert bench.process(2).number == 2


def test_the_supervisor_does_not_give_up_while_another_worker_is_serving(bench: Bench) -> None:
    bench.serve(1)
    for _ in range(20):
        bench.end(2, exit_status.STARTUP)
        bench.pass_s(60)
    assert not bench.supervisor.ended
    assert bench.process(1).stops == 0


def test_the_supervisor_gives_up_when_all_workers_exit_early_repeatedly(
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
        "giving up: worker 1 died 3 times in a row, and no other worker is serving; the last "
        "time it (process 104) ended with exit status 1"
    ) in caplog.records[-1].getMessage()


def test_the_supervisor_does_not_give_up_while_a_healthy_worker_restarts(bench: Bench) -> None:
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
def test_a_wrong_setting_ends_the_supervisor_with_the_error_of_the_worker(
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


def test_a_startup_error_after_a_worker_has_served_is_an_ordinary_exit(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(1, 2)
    bench.end(1, -9)
    bench.pass_s(10)
    bench.tell(1, CannotStart("the folder is gone"))
    bench.end(1, exit_status.STARTUP)
    assert not bench.supervisor.ended
    assert "(the folder is gone); it restarts in 2 s" in caplog.text


def test_a_process_that_fails_to_start_is_retried(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.fail_to_start = True
    bench.end(2, -9)
    bench.pass_s(1)
    assert bench.supervisor.workers[1].process is None
    bench.fail_to_start = False
    bench.pass_s(2)
    assert bench.process(2).number == 2


def test_a_signal_drains_all_workers_and_none_is_restarted(
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


def test_further_signals_neither_postpone_the_kill_nor_send_more_messages(bench: Bench) -> None:
    bench.serve(1, 2)
    for _ in range(30):
        bench.supervisor.step(TERM)
        bench.run_s(1.0)
    assert [bench.process(number).stops for number in (1, 2)] == [2, 2]
    assert [bench.process(number).killed for number in (1, 2)] == [True, True]


def test_calls_cut_off_at_the_end_of_the_grace_are_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(1, 2)
    bench.supervisor.step(TERM)
    bench.process(2).cut_off = True
    for number in (1, 2):
        bench.end(number, 0)
    assert bench.supervisor.finish() == exit_status.STOPPED
    assert "calls were cut off at the end of the grace" in caplog.records[-1].getMessage()


def test_a_worker_that_does_not_stop_in_time_is_killed_and_reported(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(1, 2)
    bench.supervisor.step(TERM)
    bench.end(1, 0)
    timeout_s = bench.supervisor.wait_s
    assert timeout_s is not None
    assert timeout_s >= bench.settings.drain_delay_s + bench.settings.grace_s
    bench.pass_s(timeout_s - 1)
    assert not bench.process(2).killed
    bench.pass_s(1)
    assert bench.process(2).killed
    bench.end(2, -signal.SIGKILL)
    assert bench.supervisor.finish() == exit_status.UNCLEAN_STOP
    assert "calls were cut off: worker 2 (process 101) was killed by SIGKILL" in caplog.text


def test_after_a_second_signal_the_timeout_is_short(bench: Bench) -> None:
    bench.supervisor.step(TERM)
    bench.supervisor.step(TERM)
    assert bench.supervisor.wait_s == 15.0


def test_the_exit_status_of_a_worker_that_never_served_is_ignored_in_a_stop(bench: Bench) -> None:
    bench.serve(1)
    bench.supervisor.step(TERM)
    bench.end(2, -signal.SIGTERM)
    bench.end(1, 0)
    assert bench.supervisor.finish() == exit_status.STOPPED


def test_an_unresponsive_worker_is_killed_with_watchdog_exit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(watchdog_s=30.0, watchdog_exit="yes")
    bench.serve(1, 2)
    bench.pass_s(1)
    for _ in range(20):
        bench.process(1).pinged.set_result(True)
        bench.run_s(28)
        bench.process(2).pinged.set_result(True)
        bench.run_s(0.5)
    assert not any(process.killed for process in bench.started)
    bench.process(1).pinged.set_result(True)
    bench.run_s(30)
    assert not bench.process(1).killed
    assert bench.process(2).killed
    assert "worker 2 (process 101) has not replied for 30.0 s and is killed" in caplog.text
    bench.end(2, -signal.SIGKILL)
    bench.pass_s(0)
    assert bench.process(2).pid == 102
    bench.serve(2)
    bench.process(1).pinged.set_result(True)
    bench.run_s(29)
    assert not bench.process(2).killed


def test_a_pause_of_the_supervisor_itself_kills_no_worker() -> None:
    bench = Bench(watchdog_s=30.0, watchdog_exit="yes")
    bench.serve(1, 2)
    bench.run_s(5)  # both have received a ping, and the pause begins before they reply
    bench.pass_s(600)
    assert not any(process.killed for process in bench.started)
    bench.run_s(29)
    bench.process(1).pinged.set_result(True)
    assert not any(process.killed for process in bench.started)
    bench.run_s(2)
    assert not bench.process(1).killed
    assert bench.process(2).killed


def test_an_unresponsive_worker_is_not_killed_by_default(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.pass_s(3600)
    assert not any(process.killed for process in bench.started)


def reloaded(bench: Bench, number: int, reply: object) -> None:
    """Reply to the reload request of a worker, which arrives from a thread."""
    end = time.monotonic() + TIMEOUT_S
    while not bench.process(number).reloads:
        assert time.monotonic() < end
        time.sleep(0.005)
    _, future = bench.process(number).reloads.pop()
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)


def test_a_reload_requested_from_one_worker_reloads_all(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.tell(1, IpcRequest(7, Reload(frozenset({"a"}))))
    outcome = Outcome("a", 1, Action.LOADED)
    reloaded(bench, 2, [outcome])
    assert not bench.process(1).replies.done()
    reloaded(bench, 1, [outcome])
    assert bench.process(1).replies.result(TIMEOUT_S) == [outcome]


def test_a_worker_that_exits_during_a_reload_does_not_delay_it(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.tell(1, IpcRequest(7, Reload()))
    outcome = Outcome("a", 1, Action.LOADED)
    reloaded(bench, 1, [outcome])
    reloaded(bench, 2, IpcClosed("gone"))
    assert bench.process(1).replies.result(TIMEOUT_S) == [outcome]


def test_a_model_that_no_worker_knows_is_not_found(bench: Bench) -> None:
    bench.serve(1, 2)
    bench.tell(2, IpcRequest(7, Reload(frozenset({"z"}))))
    for number in (1, 2):
        reloaded(bench, number, ModelNotFound("there is no model 'z'"))
    reply = bench.process(2).replies.result(TIMEOUT_S)
    assert isinstance(reply, ModelNotFound)


def test_sighup_reloads_all_workers_and_stops_none(bench: Bench) -> None:
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
def test_an_exit_status_is_described(status: int, text: str) -> None:
    assert exit_status.describe(status) == text


def test_a_worker_that_stops_is_not_killed_for_its_silence() -> None:
    """It may take longer than the watchdog's time to end; the end of the grace is its limit."""
    bench = Bench(workers=1, watchdog_s=4.0, watchdog_exit="yes")
    bench.tell(1, Serving())
    bench.run_s(2)  # a ping is sent
    bench.supervisor.step(TERM)
    bench.run_s(20)
    assert not bench.process(1).killed
    bench.run_s(60)
    assert bench.process(1).killed


def test_the_loop_never_waits_without_a_limit() -> None:
    """A signal that arrives just before the wait begins is handled only after the wait."""
    bench = Bench(workers=1)
    bench.tell(1, Serving())
    assert bench.supervisor.wait_s == math.inf  # nothing is due

    class Events:
        def __init__(self) -> None:
            self.timeouts: list[float | None] = []

        def get(self, timeout: float | None = None) -> object:
            self.timeouts.append(timeout)
            if len(self.timeouts) == 1:
                raise queue.Empty
            if len(self.timeouts) == 2:
                return TERM
            process: Any = bench.process(1)
            return WorkerExited(process, 0)

    events: Any = Events()
    assert bench.supervisor.run(events) == 0
    assert events.timeouts[0] is not None
    assert events.timeouts[0] <= 1.0
