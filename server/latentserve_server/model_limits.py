"""The limits of one model, and settings that name models: `mnist-ae=256,mnist-vae=16`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from latentserve_server.errors import SettingsError

log = logging.getLogger(__name__)

Number = TypeVar("Number", int, float)

# As the manifest has it.
_NAME = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Limits:
    """What one model may take.

    `max_batch_rows` are the rows of one batch, `max_delay_s` the seconds that it may wait to be
    filled, `queue_rows` and `queue_bytes` what may wait; all at most. `request_rows` is what one
    request may have, and `request_bytes` what all queues together can take of it; 0 where nothing
    is to be said about it.
    """

    max_batch_rows: int
    queue_rows: int
    queue_bytes: int = 2**28
    max_delay_s: float = 0.0
    request_rows: int = 0
    request_bytes: int = 0

    def shortage(self, row_bytes: int) -> str:
        """Return what is wrong where the largest request can never be admitted, or ""."""
        room = min(self.queue_bytes, self.request_bytes or self.queue_bytes)
        if self.request_rows * row_bytes <= room:
            return ""
        return (
            f"a request of {self.request_rows} rows of {row_bytes} bytes can never be admitted, "
            f"only {room // row_bytes} rows can: raise --queue-bytes and --total-queue-bytes, or "
            "lower --max-request-rows"
        )


def parse_by_model(
    flag: str, text: str, kind: Callable[[str], Number], lowest: Number, highest: Number
) -> dict[str, Number]:
    """Return the numbers of a setting such as `mnist-ae=256,mnist-vae=16`, by model.

    Raises SettingsError that says what was given and what is expected.
    """
    found: dict[str, Number] = {}
    for item in text.split(",") if text.strip() else ():
        name, _, number = (part.strip() for part in item.partition("="))
        try:
            value = kind(number)
            good = bool(_NAME.fullmatch(name)) and lowest <= value <= highest
        except ValueError:
            good = False
        if not good:
            what = "a whole number" if kind is int else "a number"
            raise SettingsError(
                f"--{flag} is {text!r}, expected MODEL=NUMBER with {what} from {lowest} to "
                f"{highest}, and commas between models: mnist-ae=256,mnist-vae=16. "
                f"{item.strip()!r} is not like that"
            )
        if name in found:
            raise SettingsError(f"--{flag} names {name} twice")
        found[name] = value
    return found


def warn_of_unknown(named: Collection[str], known: Collection[str]) -> None:
    """Tell the log of models that settings name and that are not there: they may come yet."""
    if unknown := set(named) - set(known):
        names = ", ".join(sorted(unknown))
        log.warning("settings name models that are not there (yet): %s", names)
