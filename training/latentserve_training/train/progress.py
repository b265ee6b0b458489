"""What a person sees of a run: a bar with the time left, and a line for every epoch.

The bar is drawn on a terminal alone; in a log file it would be one long line.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor
from tqdm import tqdm

Batch = TypeVar("Batch")


class Progress:
    """Counts batches, and from their pace so far tells when the whole run will be done."""

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
            first_epoch: That this process trains, from 1: more than 1 where a run is resumed.
            epochs: Of the whole run.
            batches_per_epoch: How many batches an epoch has.
            quiet: Print nothing, as all processes but the first do.
            clock: Gives seconds.
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
        """The same batches, counted, under a bar that is gone when they are."""
        self._bar = tqdm(
            batches,
            desc=f"epoch {epoch}/{self._epochs}",
            total=self._batches_per_epoch,
            unit="batch",
            leave=False,
            disable=True if self._quiet else None,  # None: where nobody watches
        )
        for batch in self._bar:
            yield batch
            self._done += 1

    def show(self, losses: dict[str, Tensor], skipped_steps: int) -> None:
        """Put the loss of the last step, and the time left of the run, beside the bar."""
        if self._bar.disable:
            return  # or a GPU would be waited for, for nothing
        parts = [f"loss {value.item():.5g}" for name, value in losses.items() if name == "loss"]
        parts += [f"{skipped_steps} skipped"] if skipped_steps else []
        # Not refreshed here: tqdm draws ten times a second at most.
        self._bar.set_postfix_str(", ".join([*parts, f"run: {self._left()}"]), refresh=False)

    def finish_epoch(self, row: dict[str, Any]) -> None:
        """Print the line of an epoch, a row of ``metrics.jsonl``."""
        parts = [
            f"{words} {row[key]:.5g}"
            for words, key in (("loss", "train_loss"), ("validation", "validation_loss"))
            if key in row
        ]
        parts.append(f"{row['seconds']:.0f} s")
        if skipped := row["skipped_steps"]:
            parts.append(f"{skipped} step{'s' if skipped > 1 else ''} skipped")
        if row["epoch"] < self._epochs:
            parts.append(self._left())
        self.print_line(f"epoch {row['epoch']}/{self._epochs}: {', '.join(parts)}")

    def print_line(self, line: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            tqdm.write(line)

    def seconds_left(self) -> float | None:
        """Until the last epoch ends, at the pace of this process so far; None before any step."""
        if not self._done:
            return None
        elapsed_s = self._clock() - self._started_s
        return elapsed_s / self._done * (self._to_do - self._done)

    def _left(self) -> str:
        left_s = self.seconds_left()
        return "" if left_s is None else f"{describe_duration(left_s)} left"


def describe_duration(seconds: float) -> str:
    """In the two units that a person would use: "45 s", "12 min", "2 h 05 min"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
