"""Limits of one model, and the parser of per-model settings (`mnist-ae=256,mnist-vae=16`)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from latentserve_server.errors import SettingsError

log = logging.getLogger(__name__)

Number = TypeVar("Number", int, float)

# The same rule as for names in the manifest.
_NAME = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one model.

    Attributes:
        max_batch_rows: rows of one batch.
        queue_rows, queue_bytes: rows and bytes of the queue.
        max_delay_s: seconds that a batch may wait until it is full.
        request_rows: rows of one request; 0 if unknown.
        request_bytes: bytes of one request that the queues of all models together can admit;
            0 if unknown.
    """

    max_batch_rows: int
    queue_rows: int
    queue_bytes: int = 2**28
    max_delay_s: float = 0.0
    request_rows: int = 0
    request_bytes: int = 0

    def shortage(self, row_bytes: int) -> str:
        """Return an error text if the largest request can never be admitted, otherwise ""."""
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
    """Return the values of a setting such as `mnist-ae=256,mnist-vae=16` by model name.

    Raises SettingsError, which names the given and the expected value.
    """
    values: dict[str, Number] = {}
    for item in text.split(",") if text.strip() else ():
        name, _, number = (part.strip() for part in item.partition("="))
        try:
            value = kind(number)
            valid = bool(_NAME.fullmatch(name)) and lowest <= value <= highest
        except ValueError:
            valid = False
        if not valid:
            expected = "a whole number" if kind is int else "a number"
            raise SettingsError(
                f"--{flag} is {text!r}, expected MODEL=NUMBER with {expected} from {lowest} to "
                f"{highest}, and commas between models: mnist-ae=256,mnist-vae=16. "
                f"{item.strip()!r} does not have this form"
            )
        if name in values:
            raise SettingsError(f"--{flag} names {name} twice")
        values[name] = value
    return values


def warn_of_unknown(named: Collection[str], known: Collection[str]) -> None:
    """Log a warning for models that settings name and that do not exist; they may be added."""
    if unknown := set(named) - set(known):
        names = ", ".join(sorted(unknown))
        log.warning("settings name models that do not exist (yet): %s", names)
