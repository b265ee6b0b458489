"""Thread without which the process cannot serve: its failure ends the process.

A process that lost such a thread still has its port open, but calls never end. A supervisor or an
orchestrator replaces a process that has ended, and cannot see the loss of a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from latentserve_server import exit_status


class VitalThread(threading.Thread):
    """Daemon thread that ends the process with `exit_status.THREAD_FAILED` if its target raises.

    Args:
        target: the function to run.
        name: name of the thread, also in the log.
        args: arguments of the target.
    """

    def __init__(
        self, target: Callable[..., Any], *, name: str, args: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)

    def run(self) -> None:
        """Run the target."""
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001 - nothing can continue in its place
            exit_status.end_failed(f"the thread {self.name}", error)
