"""What a process uses, read from /proc, and whether that grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vitals:
    """One look at a process: megabytes of resident memory, threads, open files."""

    resident_mb: float
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        """Look at a process of ours."""
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        resident_mb = int(fields["VmRSS"].split()[0]) * 1024 / 1e6
        return cls(
            resident_mb, int(fields["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir()))
        )


def is_running(pid: int) -> bool:
    """Whether a process is there, and is no zombie that waits to be reaped."""
    return state(pid) not in ("", "Z")


def state(pid: int) -> str:
    """The letter of a process's state, such as T for stopped; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def eventually(condition: Callable[[], object], what: str = "", limit_s: float = 30.0) -> None:
    """Wait until a condition holds; fails with `what` after `limit_s`."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, what or "it did not come true"
        time.sleep(0.02)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the straight line that fits (x, y) best, by least squares.

    Raises ValueError for fewer than three points, or for points with one x in all.
    """
    if len(points) < 3:
        raise ValueError(f"{len(points)} points have no slope to speak of")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("all points have the same x")
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
