"""What servers use, by /proc: the CPU time and the memory of a process and all its descendants."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def process_tree(pid: int) -> list[int]:
    """Return a process and all its descendants, as far as they still run."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        if (fields := _stat(int(folder.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for each in found:  # grows while it is walked
        found.extend(children.get(each, ()))
    return found


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds of processes together, in user and system mode."""
    every = (_stat(pid) for pid in pids)
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in every if fields is not None)
    return ticks / TICKS_PER_S


def memory_mb(pids: list[int]) -> float:
    """Return the megabytes (10^6 bytes) of processes together; shared pages count once.

    That is the proportional set size. Where the kernel does not tell, the resident size.
    """
    return sum(_field_kb(pid, "smaps_rollup", "Pss:") for pid in pids) * 1024 / 1e6


def resident_mb(pids: list[int]) -> float:
    """Return the resident megabytes of processes, shared pages counted in each: cheap to read."""
    return sum(_field_kb(pid, "status", "VmRSS:") for pid in pids) * 1024 / 1e6


def _stat(pid: int) -> list[str] | None:
    try:
        return (PROC / str(pid) / "stat").read_text("ascii").rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


def _field_kb(pid: int, file: str, name: str) -> int:
    try:
        text = (PROC / str(pid) / file).read_text("utf-8", "replace")
    except OSError:
        return 0 if file == "status" else _field_kb(pid, "status", "VmRSS:")
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
