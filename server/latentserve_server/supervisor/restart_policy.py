"""Restart policy of a worker: exponential back-off and a limit of early exits."""

from __future__ import annotations


class RestartPolicy:
    """Delays of one worker's restarts: none after a healthy run, otherwise exponential back-off.

    Args:
        first_delay_s: delay after the first early exit; it doubles with each consecutive one.
        max_delay_s: upper bound of the delay.
        healthy_after_s: serving time after which an exit is not early and the count is reset.
        limit: consecutive early exits after which the policy is exhausted.
    """

    def __init__(
        self,
        *,
        first_delay_s: float = 0.5,
        max_delay_s: float = 30.0,
        healthy_after_s: float = 10.0,
        limit: int = 6,
    ) -> None:
        self._first_delay_s = first_delay_s
        self._max_delay_s = max_delay_s
        self._healthy_after_s = healthy_after_s
        self._limit = limit
        self.early_exits = 0

    @property
    def exhausted(self) -> bool:
        """Whether the consecutive early exits have reached the limit."""
        return self.early_exits >= self._limit

    def record_exit(self, served_s: float) -> float:
        """Count an exit after `served_s` of serving; return the restart delay in seconds."""
        if served_s >= self._healthy_after_s:
            self.early_exits = 0
            return 0.0
        self.early_exits += 1
        delay_s: float = self._first_delay_s * 2 ** (self.early_exits - 1)
        return min(delay_s, self._max_delay_s)
