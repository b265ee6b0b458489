"""Reload of all workers, with one joined result."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from latentserve_server.errors import LatentserveError, ModelNotFound
from latentserve_server.repository.lifecycle import Action, Outcome
from latentserve_server.supervisor.ipc import IpcClosed
from latentserve_server.supervisor.messages import RELOAD_TIMEOUT_S

log = logging.getLogger(__name__)


class Reloader(Protocol):
    """A worker that reloads on request."""

    number: int

    def reload(self, names: frozenset[str]) -> Future[Any]:
        """Request a reload; the future returns the worker's list of Outcome."""


def reload_workers(workers: Sequence[Reloader], names: frozenset[str]) -> list[Outcome]:
    """Reload all workers concurrently; return the joined outcomes.

    Raises ModelNotFound if all workers raise it, and any other error that a worker raises. A
    worker that exits during the reload is ignored: its replacement reads the current folder.
    """
    pending = [(worker.number, worker.reload(names)) for worker in workers]
    outcomes: list[tuple[int, list[Outcome]]] = []
    refusals: list[ModelNotFound] = []
    end = time.monotonic() + RELOAD_TIMEOUT_S
    for number, future in pending:
        try:
            outcomes.append((number, future.result(max(0.0, end - time.monotonic()))))
        except ModelNotFound as error:
            refusals.append(error)
        except IpcClosed:
            log.warning("worker %d exited during the reload", number)
        except TimeoutError as error:
            raise LatentserveError(f"worker {number} did not reply to the reload") from error
    if refusals and not outcomes:
        raise refusals[0]
    joined = join_outcomes(outcomes)
    changes = [f"{o.name} version {o.version} {o.action.value}" for o in joined]
    log.info("reloaded by %d workers: %s", len(outcomes), ", ".join(changes) or "no versions")
    return joined


class SharedReload:
    """Runs reloads on a separate thread; requests during a reload share one further reload.

    Args:
        reload: the reload, which may take minutes.
    """

    def __init__(self, reload: Callable[[], object]) -> None:
        self._reload = reload
        self._lock = threading.Lock()
        self._running = self._waiting = False

    def request(self) -> bool:
        """Request a reload that begins from now on; return False if one is already waiting."""
        with self._lock:
            if self._running:
                added, self._waiting = not self._waiting, True
                return added
            self._running = True
        try:
            threading.Thread(target=self._run, name="reload", daemon=True).start()
        except RuntimeError as error:  # no more threads
            log.error("the reload failed: %s", error)
            self._running = False
        return True

    def _run(self) -> None:
        while True:
            try:
                self._reload()
            except LatentserveError as error:
                log.error("the reload failed: %s", error)
            except Exception:
                log.exception("the reload failed")
            with self._lock:
                self._running, self._waiting = self._waiting, False
                if not self._running:
                    return


# The first that any worker reports is used, because the client must learn of an action that only
# some workers took.
_PRECEDENCE = (Action.REFUSED, Action.LOADED, Action.REMOVED, Action.UNCHANGED)


def join_outcomes(by_worker: Sequence[tuple[int, Sequence[Outcome]]]) -> list[Outcome]:
    """Return one outcome per version from the outcomes by worker number.

    A version that any worker refused counts as refused; the reason names the worker if others
    did not refuse the version.
    """
    found: dict[tuple[str, int], list[tuple[int, Outcome]]] = {}
    for worker, outcomes in by_worker:
        for outcome in outcomes:
            found.setdefault((outcome.name, outcome.version), []).append((worker, outcome))
    joined = []
    for (name, version), reported in sorted(found.items()):
        worker, first = min(reported, key=lambda item: _PRECEDENCE.index(item[1].action))
        reason = first.reason
        if reason and any(other.action is not first.action for _, other in reported):
            reason = f"worker {worker}: {reason}"
        joined.append(Outcome(name, version, first.action, reason))
    return joined
