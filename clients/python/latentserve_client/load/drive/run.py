"""One run: warm-up, measured time, and drain of the calls in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from latentserve_client.load.drive.generator import Clock, MonotonicClock
from latentserve_client.load.drive.interrupt import InterruptHandler
from latentserve_client.load.drive.processes import GeneratorProcess, PartialResult
from latentserve_client.load.measure.confidence_intervals import (
    MIN_WINDOWS,
    ConfidenceInterval,
    confidence_interval,
)
from latentserve_client.load.measure.server_metrics import MetricsSnapshot
from latentserve_client.load.measure.summary import Summary
from latentserve_client.load.measure.timeline import TimeBucket
from latentserve_client.load.measure.validation import ValidationCounts
from latentserve_client.load.plan.run_spec import LoadSpec, RunTiming

_TAKE_EVERY_S = 0.2
_LEAD_S = 0.1  # start delay, so that the commands reach all processes before the first call
_INTERRUPTED_DRAIN_S = 1.0
_TIMELINE_BUCKETS = 120  # points of the latency over time


@dataclass
class RunProgress:
    """Progress of a run."""

    load: LoadSpec
    elapsed_s: float  # since the start of the run
    total_s: float  # latest end of the run
    warming_up: bool
    summary: Summary
    last_window: TimeBucket | None


@dataclass
class RunResult:
    """Result of a run."""

    load: LoadSpec
    summary: Summary
    measured_s: float
    ended: str  # "duration", "stable", "not stable", "interrupted" or "failed: ..."
    rate: ConfidenceInterval  # successful calls per second
    p99_ns: ConfidenceInterval
    cpu_s: list[float]  # CPU seconds of each process of the load tester in the measured time
    before: MetricsSnapshot | None = None  # metrics of the server
    after: MetricsSnapshot | None = None
    validation: ValidationCounts = field(default_factory=ValidationCounts)
    failures: Counter[tuple[int, str]] = field(default_factory=Counter)

    @property
    def rate_per_s(self) -> float:
        """Successful calls per second."""
        return self.summary.total.successful / self.measured_s if self.measured_s else 0.0

    @property
    def rows_per_s(self) -> float:
        """Rows of successful calls per second."""
        return self.summary.total.successful_rows / self.measured_s if self.measured_s else 0.0


class Runner:
    """Executes runs on open generators."""

    def __init__(
        self,
        processes: Sequence[GeneratorProcess],
        kinds: int,
        timing: RunTiming,
        *,
        scrape: Callable[[], MetricsSnapshot | None] = lambda: None,
        on_progress: Callable[[RunProgress], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        self._processes = processes
        self._kinds = kinds
        self._timing = timing
        self._scrape = scrape
        self._on_progress = on_progress
        self._clock = clock or MonotonicClock()

    def run(self, load: LoadSpec) -> RunResult:
        """Execute one run. Ctrl-C ends it early, with the results so far.

        Raises RuntimeError if a process of the load tester has died.
        """
        timing = self._timing
        # Discards the results of an earlier run; the CPU time counts from here.
        cpu_s = [partial.cpu_s for partial in self._take()]
        start_ns = self._clock.now_ns() + int(_LEAD_S * 1e9)
        state = _RunState(load, timing, start_ns, self._kinds, cpu_s)
        if load.profile is not None:
            load = replace(load, profile=load.profile.with_warm_up(timing.warm_up_s))
        for process in self._processes:
            process.start(load, start_ns, state.latest_end_ns)
        with InterruptHandler() as interrupt:
            self._follow(state, interrupt)
            self._finish(state, interrupt)
        return state.result()

    def _follow(self, state: _RunState, interrupt: InterruptHandler) -> None:
        while not state.ended:
            self._clock.sleep(_TAKE_EVERY_S)
            now_ns = self._clock.now_ns()
            if not state.marked and now_ns >= state.measured_ns:
                state.before = self._scrape()
                state.mark_start()
            state.add(self._take())
            state.check_end(now_ns)
            self._on_progress(state.progress(now_ns))
            if interrupt.received:
                state.end("interrupted", self._clock.now_ns())

    def _finish(self, state: _RunState, interrupt: InterruptHandler) -> None:
        """Stop sending and wait for the calls in flight; after Ctrl-C, for 1 s at most."""
        state.after = self._scrape()
        for process in self._processes:
            process.stop()
        begun_ns = self._clock.now_ns()
        while True:
            partials = self._take()
            state.add(partials)
            waited_s = (self._clock.now_ns() - begun_ns) / 1e9
            cut_short = interrupt.received and waited_s >= _INTERRUPTED_DRAIN_S
            if cut_short or not any(partial.running for partial in partials):
                return
            self._clock.sleep(_TAKE_EVERY_S / 4)

    def _take(self) -> list[PartialResult]:
        return [process.take() for process in self._processes]


class _RunState:
    """State of a run in progress."""

    def __init__(
        self, load: LoadSpec, timing: RunTiming, start_ns: int, kinds: int, cpu_s: list[float]
    ) -> None:
        self._load, self._timing, self._start_ns = load, timing, start_ns
        self.measured_ns = start_ns + int(timing.warm_up_s * 1e9)
        self.latest_end_ns = self.measured_ns + int(timing.duration_s * 1e9)
        bucket_s = max(timing.duration_s / _TIMELINE_BUCKETS, 0.1)
        self.summary = Summary(kinds, self.measured_ns, timing.windows_of_s, bucket_s)
        self.summary.end_ns = self.latest_end_ns
        self.ended = ""
        self.before: MetricsSnapshot | None = None
        self.after: MetricsSnapshot | None = None
        self._cpu_s = cpu_s
        self._cpu_before_s = cpu_s
        self.marked = False
        self._validation = ValidationCounts()
        self._failures: Counter[tuple[int, str]] = Counter()

    def add(self, partials: Sequence[PartialResult]) -> None:
        for number, partial in enumerate(partials):
            self.summary.add(partial.records)
            self._validation.merge(partial.validation)
            self._failures.update(partial.failures)
            if not self.ended:
                self._cpu_s = [*self._cpu_s[:number], partial.cpu_s, *self._cpu_s[number + 1 :]]
            if partial.problem:
                self.ended = self.ended or f"failed: {partial.problem}"

    def mark_start(self) -> None:
        """Mark the start of the measured time."""
        self._cpu_before_s = self._cpu_s
        self.marked = True

    def check_end(self, now_ns: int) -> None:
        """End the run if it is stable or its time has passed."""
        if self.ended:
            return
        bound = self._timing.stable_within
        if bound is not None and now_ns >= self.measured_ns:
            rate, p99 = self._intervals(now_ns)
            if rate.windows >= MIN_WINDOWS and max(rate.relative, p99.relative) <= bound:
                # Not the end of the last window: calls since then are already counted.
                self.end("stable", now_ns)
                return
        if now_ns >= self.latest_end_ns:
            self.end("duration" if bound is None else "not stable", self.latest_end_ns)

    def end(self, why: str, end_ns: int) -> None:
        self.ended = why
        self.summary.end_ns = max(min(end_ns, self.latest_end_ns), self.measured_ns)

    def progress(self, now_ns: int) -> RunProgress:
        windows = self.summary.whole_windows(now_ns)
        return RunProgress(
            self._load,
            (now_ns - self._start_ns) / 1e9,
            (self.latest_end_ns - self._start_ns) / 1e9,
            now_ns < self.measured_ns,
            self.summary,
            windows[-1] if windows else None,
        )

    def result(self) -> RunResult:
        rate, p99 = self._intervals(self.summary.end_ns)
        pairs = zip(self._cpu_s, self._cpu_before_s, strict=True)
        return RunResult(
            self._load,
            self.summary,
            max(self.summary.end_ns - self.measured_ns, 0) / 1e9,
            self.ended,
            rate,
            p99,
            [after - before for after, before in pairs] if self.marked else [],
            self.before,
            self.after,
            self._validation,
            self._failures,
        )

    def _intervals(self, until_ns: int) -> tuple[ConfidenceInterval, ConfidenceInterval]:
        profile = self._load.profile
        if profile is not None and not profile.is_constant:
            return confidence_interval([]), confidence_interval(
                []
            )  # windows of a varying rate are not repetitions
        windows = self.summary.whole_windows(until_ns)
        width_s = self.summary.windows.width_s
        return (
            confidence_interval([window.successes / width_s for window in windows]),
            confidence_interval([window.latency.percentile_ns(99) for window in windows]),
        )
