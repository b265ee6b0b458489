"""When a worker that died is started again, and when not any more."""

from __future__ import annotations


class RestartPolicy:
    """The back-off of one worker: at once after a good run, else later and later.

    Args:
        first_delay_s: the wait after the first early death; it doubles with each in a row.
        longest_delay_s: and ends here.
        well_s: a worker that served so long ran well, and the count starts anew.
        limit: early deaths in a row that exhaust the patience.
    """

    def __init__(
        self,
        *,
        first_delay_s: float = 0.5,
        longest_delay_s: float = 30.0,
        well_s: float = 10.0,
        limit: int = 6,
    ) -> None:
        self._first_delay_s = first_delay_s
        self._longest_delay_s = longest_delay_s
        self._well_s = well_s
        self._limit = limit
        self.early_deaths = 0

    @property
    def exhausted(self) -> bool:
        """Whether it died early too often in a row."""
        return self.early_deaths >= self._limit

    def died(self, served_s: float) -> float:
        """Return the seconds to wait after a death, `served_s` after it began to serve."""
        if served_s >= self._well_s:
            self.early_deaths = 0
            return 0.0
        self.early_deaths += 1
        delay_s: float = self._first_delay_s * 2 ** (self.early_deaths - 1)
        return min(delay_s, self._longest_delay_s)
