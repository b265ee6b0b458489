"""Specification of one run: its load and its duration."""

from __future__ import annotations

from dataclasses import dataclass

from latentserve_client.load.plan.schedule import RateProfile

_DEFAULT_WINDOWS = 10


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One load: a concurrency, or a profile of rates with its arrivals."""

    concurrency: int = 0  # calls in flight of all processes; 0: an open loop
    profile: RateProfile | None = None
    arrivals: str = "constant"

    def share(self, number: int, processes: int) -> int:
        """Return the calls in flight of one process."""
        return self.concurrency // processes + (number < self.concurrency % processes)


@dataclass(frozen=True, slots=True)
class RunTiming:
    """How long a run takes."""

    warm_up_s: float
    duration_s: float  # measured; the limit where it may end earlier because it is stable
    window_s: float = 0.0  # 0: a tenth of the duration
    stable_within: float | None = None  # share, for example 0.05; None: always the whole duration

    @property
    def windows_of_s(self) -> float:
        """Seconds of one window."""
        return self.window_s or self.duration_s / _DEFAULT_WINDOWS
