"""Specification of one run: its load and its duration."""

from __future__ import annotations

from dataclasses import dataclass

from latentserve_client.load.plan.schedule import RateProfile

_DEFAULT_WINDOWS = 10


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """Closed loop with a concurrency, or open loop with a rate profile and arrivals."""

    concurrency: int = 0  # calls in flight of all processes together; 0: open loop
    profile: RateProfile | None = None
    arrivals: str = "constant"

    def share(self, number: int, processes: int) -> int:
        """Return the calls in flight of process `number`."""
        return self.concurrency // processes + (number < self.concurrency % processes)


@dataclass(frozen=True, slots=True)
class RunTiming:
    """Durations of a run, in seconds."""

    warm_up_s: float
    duration_s: float  # of the measured time; its limit if `stable_within` is set
    window_s: float = 0.0  # 0: a tenth of duration_s
    stable_within: float | None = None  # share, for example 0.05; None: no early end

    @property
    def windows_of_s(self) -> float:
        """Width of one window in seconds."""
        return self.window_s or self.duration_s / _DEFAULT_WINDOWS
