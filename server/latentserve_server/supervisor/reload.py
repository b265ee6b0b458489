"""A reload of several workers, told as that of one server."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from latentserve_server.errors import LatentserveError, ModelNotFound
from latentserve_server.repository.lifecycle import Action, Outcome
from latentserve_server.supervisor.ipc import IpcClosed
from latentserve_server.supervisor.messages import RELOAD_LIMIT_S

log = logging.getLogger(__name__)


class Reloader(Protocol):
    """A worker that can be asked to reload."""

    number: int

    def reload(self, names: frozenset[str]) -> Future[Any]:
        """Ask it; the future gives its list of Outcome."""


def reload_workers(workers: Sequence[Reloader], names: frozenset[str]) -> list[Outcome]:
    """Reload every worker at once; return the joined outcomes.

    Raises ModelNotFound where all do, and what else any of them raised. A worker that ends
    meanwhile does not count: its successor reads the folder as it is then.
    """
    asked = [(worker.number, worker.reload(names)) for worker in workers]
    outcomes: list[tuple[int, list[Outcome]]] = []
    refusals: list[ModelNotFound] = []
    end = time.monotonic() + RELOAD_LIMIT_S
    for number, future in asked:
        try:
            outcomes.append((number, future.result(max(0.0, end - time.monotonic()))))
        except ModelNotFound as error:
            refusals.append(error)
        except IpcClosed:
            log.warning("worker %d ended while it reloaded", number)
        except TimeoutError as error:
            raise LatentserveError(f"worker {number} did not answer") from error
    if refusals and not outcomes:
        raise refusals[0]
    joined = join_outcomes(outcomes)
    changes = [f"{o.name} version {o.version} {o.action.value}" for o in joined]
    log.info("reloaded by %d workers: %s", len(outcomes), ", ".join(changes) or "nothing there")
    return joined


# The strongest first: what one worker did that others did not is what the caller must know.
_WEIGHT = (Action.REFUSED, Action.LOADED, Action.REMOVED, Action.UNCHANGED)


def join_outcomes(by_worker: Sequence[tuple[int, Sequence[Outcome]]]) -> list[Outcome]:
    """Return one outcome per version of what each worker, by its number, did.

    A version that any worker refused counts as refused; the reason names the worker where
    others did not refuse it.
    """
    found: dict[tuple[str, int], list[tuple[int, Outcome]]] = {}
    for worker, outcomes in by_worker:
        for outcome in outcomes:
            found.setdefault((outcome.name, outcome.version), []).append((worker, outcome))
    joined = []
    for (name, version), entries in sorted(found.items()):
        worker, first = min(entries, key=lambda entry: _WEIGHT.index(entry[1].action))
        reason = first.reason
        if reason and any(other.action is not first.action for _, other in entries):
            reason = f"worker {worker}: {reason}"
        joined.append(Outcome(name, version, first.action, reason))
    return joined
