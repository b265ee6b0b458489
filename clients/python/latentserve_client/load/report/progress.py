"""Progress line of a run in a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from latentserve_client.load.drive.run import RunProgress
from latentserve_client.load.report.data import load_data, load_text


class ProgressLine:
    """Status line that each update overwrites; prints only to a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._width = 0

    def show(self, progress: RunProgress) -> None:
        """Print the progress of the run."""
        if not self._is_terminal:
            return
        text = progress_text(progress)
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def clear(self) -> None:
        """Erase the line."""
        if self._is_terminal and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0


def progress_text(progress: RunProgress) -> str:
    """Return the text of the line."""
    clock = f"{max(progress.elapsed_s, 0):.0f}/{progress.total_s:.0f} s"
    load = load_text(load_data(progress.load))
    if progress.warming_up:
        return f"{clock}  {load}  warming up"
    total, window = progress.summary.total, progress.last_window
    text = f"{clock}  {load}  {total.calls} calls"
    if window is not None:
        rate = window.successes / progress.summary.windows.width_s
        text += f"  {rate:.0f}/s  p99 {window.latency.percentile_ns(99) / 1e6:.2f} ms"
    return text + (f"  {total.errors} errors" if total.errors else "")
