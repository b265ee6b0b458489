"""Check between files of a request that ends unwanted work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_current = threading.local()


def check_needed() -> None:
    """Raise the error of `interruptible`'s check, if this thread runs interruptible work."""
    check: Callable[[], None] | None = getattr(_current, "check", None)
    if check is not None:
        check()


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Let `check_needed` call `check` on this thread."""
    _current.check = check
    try:
        yield
    finally:
        _current.check = None
