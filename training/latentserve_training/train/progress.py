"""Progress output of a run: a bar with the remaining time, and one line per epoch.

The bar is shown only on a terminal; in a log file it would be one long line.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor
from tqdm import tqdm

Batch = TypeVar("Batch")


class Progress:
    """Counts batches and estimates the remaining time of the run from their mean duration."""

    def __init__(
        self,
        first_epoch: int,
        epochs: int,
        batches_per_epoch: int,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            first_epoch: First epoch of this process, from 1; above 1 for a resumed run.
            epochs: Epochs of the whole run.
            batches_per_epoch: Batches in an epoch.
            quiet: Print nothing; set in all processes except the first.
            clock: Returns the time in seconds.
        """
        self._epochs = epochs
        self._batches_per_epoch = batches_per_epoch
        self._quiet = quiet
        self._clock = clock
        self._started_s = clock()
        self._done = 0
        self._to_do = (epochs - first_epoch + 1) * batches_per_epoch
        self._bar: Any = None

    def batches(self, batches: Iterable[Batch], epoch: int) -> Iterator[Batch]:
        """Yield the batches, count them and show a bar, which is removed after the last one."""
        self._bar = tqdm(
            batches,
            desc=f"epoch {epoch}/{self._epochs}",
            total=self._batches_per_epoch,
            unit="batch",
            leave=False,
            disable=True if self._quiet else None,  # None: disabled unless stderr is a terminal
        )
        for batch in self._bar:
            yield batch
            self._done += 1

    def show(self, losses: dict[str, Tensor], skipped_steps: int) -> None:
        """Show the loss of the last step and the remaining time of the run next to the bar."""
        if self._bar.disable:
            return  # reading the loss would synchronise with the GPU
        parts = [f"loss {value.item():.5g}" for name, value in losses.items() if name == "loss"]
        parts += [f"{skipped_steps} skipped"] if skipped_steps else []
        # Not refreshed here, because tqdm refreshes at most ten times a second.
        self._bar.set_postfix_str(", ".join([*parts, f"run: {self._remaining()}"]), refresh=False)

    def finish_epoch(self, row: dict[str, Any]) -> None:
        """Print the line of an epoch from its entry in ``metrics.jsonl``."""
        parts = [
            f"{label} {row[key]:.5g}"
            for label, key in (("loss", "train_loss"), ("validation", "validation_loss"))
            if key in row
        ]
        parts.append(f"{row['seconds']:.0f} s")
        if skipped := row["skipped_steps"]:
            parts.append(f"{skipped} step{'s' if skipped > 1 else ''} skipped")
        if row["epoch"] < self._epochs:
            parts.append(self._remaining())
        self.print_line(f"epoch {row['epoch']}/{self._epochs}: {', '.join(parts)}")

    def print_line(self, line: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            tqdm.write(line)

    def seconds_left(self) -> float | None:
        """Estimated time until the end of the last epoch; None before the first step."""
        if not self._done:
            return None
        elapsed_s = self._clock() - self._started_s
        return elapsed_s / self._done * (self._to_do - self._done)

    def _remaining(self) -> str:
        remaining_s = self.seconds_left()
        return "" if remaining_s is None else f"{describe_duration(remaining_s)} left"


def describe_duration(seconds: float) -> str:
    """Format a duration: "45 s", "12 min", "2 h 05 min"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
