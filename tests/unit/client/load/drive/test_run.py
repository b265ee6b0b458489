"""Runs on a fake clock with fake generators."""

import signal

import numpy as np
import pytest
from unit.client.load.fakes import FakeClock, S
from unit.client.load.measure.test_summary import call, rows

from latentserve_client.load.drive.processes import PartialResult
from latentserve_client.load.drive.run import Runner
from latentserve_client.load.measure.server_metrics import MetricsSnapshot
from latentserve_client.load.measure.validation import ValidationCounts
from latentserve_client.load.plan.run_spec import LoadSpec, RunTiming
from latentserve_client.load.plan.schedule import parse_profile


class FakeProcess:
    """A generator with a constant rate, latency `latency_s(at)` and proportional CPU time."""

    transport = "fake"

    def __init__(self, clock, per_s=100, latency_s=lambda at_s: 0.01, problem_at_s=1e9):
        self.clock, self.per_s, self.latency_s = clock, per_s, latency_s
        self.problem_at_s = problem_at_s
        self.started, self.stopped_ns, self.taken_s = (None, 0, 0), None, 0.0

    def start(self, load, start_ns, end_ns):
        self.started = (load, start_ns, end_ns)
        self.taken_s = start_ns / S
        self.stopped_ns = None

    def stop(self):
        self.stopped_ns = self.stopped_ns or self.clock.now_ns()

    def take(self):
        now_s = self.clock.now_ns() / S
        until_s = min(now_s, (self.stopped_ns or self.started[2]) / S)
        listed = []
        while self.taken_s < until_s - 1e-9:
            listed.append(call(self.taken_s, self.latency_s(self.taken_s)))
            self.taken_s += 1 / self.per_s
        problem = "an error" if now_s > self.problem_at_s else ""
        running = self.stopped_ns is None
        return PartialResult(
            rows(*listed), now_s / 2, ValidationCounts(checked=1), (), running, problem
        )

    def close(self):
        pass


def run(timing, load=None, on_progress=lambda _: None, scrape=lambda: None, **options):
    clock = FakeClock()
    processes = [FakeProcess(clock, **options), FakeProcess(clock, **options)]
    runner = Runner(processes, 1, timing, clock=clock, on_progress=on_progress, scrape=scrape)
    return runner.run(load or LoadSpec(concurrency=4)), processes


def test_a_run_has_its_warm_up_and_its_duration():
    result, (process, _) = run(RunTiming(warm_up_s=2, duration_s=10))
    load, start_ns, end_ns = process.started
    assert load.concurrency == 4
    assert (end_ns - start_ns) / S == 12
    assert result.ended == "duration"
    assert result.measured_s == pytest.approx(10)
    assert result.rate_per_s == pytest.approx(200, rel=0.01)
    assert result.summary.total.calls == pytest.approx(2000, abs=4)
    assert result.rate.windows == 10
    # The CPU time of each process in the measured time only.
    assert result.cpu_s == pytest.approx([5, 5], abs=0.3)
    assert result.validation.checked > 10


def test_the_warm_up_precedes_a_profile():
    load = LoadSpec(profile=parse_profile("10-50", 10))
    result, (process, _) = run(RunTiming(warm_up_s=2, duration_s=10), load)
    assert process.started[0].profile.duration_s == 12
    assert result.load.profile.duration_s == 10  # the report has the requested load
    assert result.rate.windows == 0  # windows of a ramp are not repetitions


def test_ends_as_soon_as_it_is_stable():
    timing = RunTiming(warm_up_s=1, duration_s=100, window_s=1, stable_within=0.05)
    result, _ = run(timing)
    assert result.ended == "stable"
    assert result.measured_s == pytest.approx(5, abs=0.5)
    assert result.rate_per_s == pytest.approx(200, rel=0.02)
    assert max(result.rate.relative, result.p99_ns.relative) <= 0.05


def test_a_run_that_does_not_become_stable_fails():
    rng = np.random.default_rng(0)
    timing = RunTiming(warm_up_s=0, duration_s=10, window_s=1, stable_within=0.05)
    waves = rng.uniform(0.01, 0.5, 40)
    result, _ = run(timing, latency_s=lambda at_s: waves[int(at_s)])
    assert result.ended == "not stable"
    assert result.measured_s == pytest.approx(10)
    assert result.p99_ns.relative > 0.05


@pytest.fixture
def ctrl_c():
    """Default handling of Ctrl-C, because a background job inherits that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_returns_the_results_so_far():
    def interrupt(progress):
        if progress.elapsed_s > 5:
            signal.raise_signal(signal.SIGINT)

    result, (process, other) = run(RunTiming(warm_up_s=1, duration_s=100), on_progress=interrupt)
    assert result.ended == "interrupted"
    assert result.measured_s == pytest.approx(4, abs=0.5)
    assert result.rate_per_s == pytest.approx(200, rel=0.05)
    assert process.stopped_ns
    assert other.stopped_ns
    # The previous handler is restored.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_does_not_wait():
    def interrupt(progress):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(RunTiming(warm_up_s=1, duration_s=100), on_progress=interrupt)


def test_an_error_of_a_generator_ends_the_run():
    result, _ = run(RunTiming(warm_up_s=0, duration_s=100), problem_at_s=3)
    assert result.ended == "failed: an error"


def test_the_servers_metrics_are_read_around_the_measured_time():
    seen = []
    clock = FakeClock()

    def scrape():
        seen.append(clock.now_ns() / S)
        return MetricsSnapshot({"calls": len(seen)})

    runner = Runner([FakeProcess(clock)], 1, RunTiming(2, 10), clock=clock, scrape=scrape)
    result = runner.run(LoadSpec(concurrency=1))
    assert len(seen) == 2
    assert seen[1] - seen[0] == pytest.approx(10, abs=0.5)
    assert (result.before.values, result.after.values) == ({"calls": 1}, {"calls": 2})


def test_progress_has_the_warm_up_and_the_last_window():
    seen = []
    run(RunTiming(warm_up_s=2, duration_s=10), on_progress=seen.append)
    assert seen[0].warming_up
    assert seen[0].last_window is None
    last = seen[-1]
    assert not last.warming_up
    assert last.last_window.successes == pytest.approx(200, abs=4)
    assert last.total_s == 12
