"""Resource usage of a process from /proc, and the slope of its growth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vitals:
    """Usage of a process: resident memory in megabytes, threads, open files."""

    resident_mb: float
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        """Return the current usage of a process of the same user."""
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        resident_mb = int(fields["VmRSS"].split()[0]) * 1024 / 1e6
        return cls(
            resident_mb, int(fields["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir()))
        )


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    return state(pid) not in ("", "Z")


def state(pid: int) -> str:
    """Return the letter of a process's state, such as T for stopped; "" if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def eventually(condition: Callable[[], object], what: str = "", limit_s: float = 30.0) -> None:
    """Wait until a condition is true; fail with `what` after `limit_s`."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, what or "the condition did not become true"
        time.sleep(0.02)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through points (x, y).

    Raises ValueError for fewer than three points, or if all have the same x.
    """
    if len(points) < 3:
        raise ValueError(f"{len(points)} points are too few for a slope")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("all points have the same x")
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
