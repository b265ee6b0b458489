"""Progress line of a run in a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from latentserve_client.load.drive.run import RunProgress
from latentserve_client.load.report.data import load_data, load_text


class ProgressLine:
    """One line that is written over; silent where nobody looks at it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shows = self._stream.isatty()
        self._width = 0

    def show(self, progress: RunProgress) -> None:
        """Write where the run is."""
        if not self._shows:
            return
        text = progress_text(progress)
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def clear(self) -> None:
        """Make room for the report."""
        if self._shows and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0


def progress_text(progress: RunProgress) -> str:
    """Return the line."""
    clock = f"{max(progress.elapsed_s, 0):.0f}/{progress.total_s:.0f} s"
    what = load_text(load_data(progress.load))
    if progress.warming_up:
        return f"{clock}  {what}  warming up"
    total, window = progress.summary.total, progress.last_window
    text = f"{clock}  {what}  {total.calls} calls"
    if window is not None:
        rate = window.good / progress.summary.windows.width_s
        text += f"  {rate:.0f}/s  p99 {window.latency.percentile_ns(99) / 1e6:.2f} ms"
    return text + (f"  {total.errors} errors" if total.errors else "")
